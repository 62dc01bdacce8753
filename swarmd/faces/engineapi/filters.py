"""List filters: both JSON forms, the checks, and what they become for Control.

``{"key": {"value": true}}`` is what current clients send, ``{"key": ["value"]}`` what old ones
did. Values of one key are OR, keys are AND.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from swarmd import api
from swarmd.faces.engineapi.convert.common import numbers
from swarmd.faces.engineapi.convert.fields import kind_of
from swarmd.faces.engineapi.errors import Refusal, bad_request
from swarmd.faces.engineapi.jsonbody import value_trouble

_ROLES = numbers(api.NodeRole)
_MEMBERSHIPS = numbers(api.NodeSpec.Membership)
_STATES = numbers(api.TaskState)

NODE_KEYS = frozenset({"name", "id", "label", "role", "membership", "node.label"})
TASK_KEYS = frozenset(
    {"name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime"}
)
SERVICE_KEYS = frozenset({"name", "id", "label", "mode", "runtime"})
SECRET_KEYS = frozenset({"names", "name", "id", "label"})
CONFIG_KEYS = frozenset({"name", "id", "label"})
NETWORK_KEYS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
NETWORK_PRUNE_KEYS = frozenset({"label", "label!", "until"})


class _Junk(Exception):
    """A filters value that is none, in the words of Go's decoder."""


class Filters:
    """Filter values by key, in the order given."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Iterable[str]] | None = None) -> None:
        self._values = {key: list(dict.fromkeys(items)) for key, items in (values or {}).items()}

    @classmethod
    def parse(cls, text: str, *, old_status: int | None = None) -> Filters:
        """Read the `filters` query value.

        Junk is a plain 400, but `old_status` with the decoder's words where that is given:
        engines before 23.0 answer so, most lists with 500 [M].
        """
        try:
            return cls(_read(text) if text else None)
        except _Junk as junk:
            if old_status is None:
                raise bad_request("invalid filter") from None
            raise Refusal(old_status, str(junk)) from None

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> list[str]:
        """The values of `key`, empty when absent."""
        return self._values.get(key, [])

    def check(self, accepted: frozenset[str]) -> None:
        """Refuse keys this list does not know."""
        for key in self._values:
            if key not in accepted:
                raise bad_request(f"Invalid filter '{key}'")

    def labels(self, key: str) -> dict[str, str]:
        """``k`` and ``k=v`` values as a map, an absent value empty."""
        out: dict[str, str] = {}
        for item in self.get(key):
            name, _, value = item.partition("=")
            out[name] = value
        return out

    def exact(self, key: str, value: str) -> bool:
        """True without values, or when one equals `value`."""
        values = self.get(key)
        return not values or value in values

    def fuzzy(self, key: str, value: str) -> bool:
        """True without values, or when one is `value` or begins it."""
        values = self.get(key)
        return not values or any(value.startswith(item) for item in values)

    def matches(self, key: str, value: str) -> bool:
        """True without values, or when one equals `value` or is a pattern found in it."""
        values = self.get(key)
        if not values or value in values:
            return True
        return any(_found(pattern, value) for pattern in values)

    def has_labels(self, key: str, labels: Mapping[str, str]) -> bool:
        """True when every ``k`` or ``k=v`` given under `key` holds in `labels`."""
        for item in self.get(key):
            name, equals, value = item.partition("=")
            if name not in labels or (equals and labels[name] != value):
                return False
        return True


def _read(text: str) -> dict[str, list[str]]:
    """Both forms; one value may even mix them. Raises `_Junk`."""
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise _Junk(value_trouble(error)) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise _wrong(raw, "map[string]map[string]bool")
    return {key: _read_values(items) for key, items in raw.items()}


def _read_values(items: object) -> list[str]:
    if items is None:
        return []
    if isinstance(items, dict):
        for flag in items.values():
            if not isinstance(flag, bool):
                raise _wrong(flag, "bool")
        return list(items)
    if isinstance(items, list) and all(isinstance(item, str) for item in items):
        return items
    raise _wrong(items, "map[string]bool")


def _wrong(value: object, wanted: str) -> _Junk:
    return _Junk(f"json: cannot unmarshal {kind_of(value)} into Go value of type {wanted}")


def _found(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return False


def node_filters(filters: Filters) -> api.ListNodesRequest.Filters:
    """What GET /nodes asks of Control."""
    filters.check(NODE_KEYS)
    out = api.ListNodesRequest.Filters(
        name_prefixes=filters.get("name"),
        id_prefixes=filters.get("id"),
        labels=filters.labels("label"),
        node_labels=filters.labels("node.label"),
    )
    for role in filters.get("role"):
        if role.lower() in _ROLES:
            out.roles.append(_ROLES[role.lower()])
        elif role:
            raise Refusal(500, f"Invalid role filter: '{role}'")
    for membership in filters.get("membership"):
        if membership.lower() in _MEMBERSHIPS:
            out.memberships.append(_MEMBERSHIPS[membership.lower()])
        elif membership:
            raise Refusal(500, f"Invalid membership filter: '{membership}'")
    return out


def task_filters(filters: Filters) -> api.ListTasksRequest.Filters:
    """What GET /tasks asks of Control; services and nodes must be ids already."""
    out = api.ListTasksRequest.Filters(
        name_prefixes=filters.get("name"),
        id_prefixes=filters.get("id"),
        labels=filters.labels("label"),
        service_ids=filters.get("service"),
        node_ids=filters.get("node"),
        up_to_date=bool(filters.get("_up-to-date")),
        runtimes=filters.get("runtime"),
    )
    for state in filters.get("desired-state"):
        if state.lower() in _STATES:
            out.desired_states.append(_STATES[state.lower()])
        elif state:
            raise Refusal(500, f"Invalid desired-state filter: '{state}'")
    return out


def secret_filters(filters: Filters) -> api.ListSecretsRequest.Filters:
    """What GET /secrets asks of Control."""
    filters.check(SECRET_KEYS)
    return api.ListSecretsRequest.Filters(
        names=filters.get("names"),
        name_prefixes=filters.get("name"),
        id_prefixes=filters.get("id"),
        labels=filters.labels("label"),
    )


def config_filters(filters: Filters) -> api.ListConfigsRequest.Filters:
    """What GET /configs asks of Control."""
    filters.check(CONFIG_KEYS)
    return api.ListConfigsRequest.Filters(
        name_prefixes=filters.get("name"),
        id_prefixes=filters.get("id"),
        labels=filters.labels("label"),
    )


class NetworkFilter:
    """Which networks GET /networks shows; used for cluster networks only.

    The engine applies the same filters to its own list.
    """

    def __init__(self, filters: Filters) -> None:
        filters.check(NETWORK_KEYS)
        dangling = filters.get("dangling")
        if len(dangling) > 1:
            raise bad_request('got more than one value for filter key "dangling"')
        if dangling and dangling[0] not in ("0", "false", "1", "true"):
            raise bad_request(
                'invalid value for filter \'dangling\', must be "true" (or "1"), '
                'or "false" (or "0")'
            )
        for kind in filters.get("type"):
            if kind not in ("builtin", "custom"):
                raise Refusal(500, f"invalid filter: 'type'='{kind}'")
        self._filters = filters
        self._dangling = dangling[0] in ("1", "true") if dangling else None

    def includes(self, network: api.Network) -> bool:
        """Whether `network` passes every key."""
        filters = self._filters
        name = network.spec.annotations.name
        # Use is not tracked for cluster networks, so each counts as dangling.
        predefined = name in ("bridge", "host", "none", "default")
        kinds = filters.get("type")
        return (
            filters.exact("driver", network.driver_state.name)
            and filters.matches("name", name)
            and filters.matches("id", network.id)
            and filters.has_labels("label", network.spec.annotations.labels)
            and filters.exact("scope", "swarm")
            and (self._dangling is None or self._dangling is not predefined)
            and (not kinds or ("builtin" if predefined else "custom") in kinds)
        )
