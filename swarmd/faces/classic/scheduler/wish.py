"""What a client wants run: the create request with affinities and constraints taken out of it.

`-e constraint:...` and labels of the same meaning end up in one place, labels below
`com.docker.swarm.`, so that they come back with the container and hold after a restart.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from swarmd.base.errors import InvalidArgument

NAMESPACE = "com.docker.swarm"
# Prefix of an environment entry -> end of the label that keeps it.
_KINDS = {
    "affinity": "affinities",
    "constraint": "constraints",
    "reschedule": "reschedule-policies",
    "whitelist": "whitelists",
}
_POLICIES = ("off", "on-node-failure")
_OLD_FIELDS = {
    "Memory": "Memory",
    "MemorySwap": "MemorySwap",
    "CpuShares": "CpuShares",
    "Cpuset": "CpusetCpus",
}


class Wish:
    """A container's configuration as its engine gets it: the body of POST /containers/create."""

    def __init__(self, body: dict[str, Any]) -> None:
        """Take over `body` (copied). Raises `InvalidArgument` when its shape is wrong."""
        self.body = copy.deepcopy(body)
        for key in ("HostConfig", "NetworkingConfig", "Labels"):
            value = self.body.get(key)
            if value is not None and not isinstance(value, dict):
                raise InvalidArgument(f"{key} must be an object")
            self.body[key] = value or {}
        self._consolidate()
        self._read_environment()

    @property
    def labels(self) -> dict[str, str]:
        """The container's labels."""
        found: dict[str, str] = self.body["Labels"]
        return found

    @property
    def host(self) -> dict[str, Any]:
        """The HostConfig."""
        found: dict[str, Any] = self.body["HostConfig"]
        return found

    @property
    def image(self) -> str:
        """The image asked for."""
        return str(self.body.get("Image") or "")

    @property
    def memory(self) -> int:
        """Reserved bytes."""
        return _number(self.host.get("Memory"))

    @property
    def cpus(self) -> int:
        """Reserved CPUs: classic Swarm reads --cpu-shares as a number of CPUs."""
        return _number(self.host.get("CpuShares"))

    @property
    def network_mode(self) -> str:
        """The HostConfig's NetworkMode."""
        return str(self.host.get("NetworkMode") or "")

    @property
    def swarm_id(self) -> str:
        """The id that stays with the container when it is made anew elsewhere."""
        return self.labels.get(f"{NAMESPACE}.id", "")

    def set_swarm_id(self, id: str) -> None:
        """Give it that id."""
        self.labels[f"{NAMESPACE}.id"] = id

    def expressions(self, kind: str) -> list[str]:
        """Of kind affinities, constraints, whitelists or reschedule-policies."""
        return _json_list(self.labels.get(f"{NAMESPACE}.{kind}", ""))

    def add(self, kind: str, expression: str) -> None:
        """One more expression of `kind`."""
        self._set(kind, [*self.expressions(kind), expression])

    def remove(self, kind: str, expression: str) -> None:
        """Take all equal expressions out again."""
        self._set(kind, [item for item in self.expressions(kind) if item != expression])

    def has_node_constraint(self) -> bool:
        """Whether a hard constraint names nodes."""
        return any(
            item.startswith("node==") and not item.startswith("node==~")
            for item in self.expressions("constraints")
        )

    def reschedules(self) -> bool:
        """Whether it shall be made anew when its node fails."""
        return "on-node-failure" in self.expressions("reschedule-policies")

    def validate(self) -> None:
        """Raises `InvalidArgument` for reschedule policies that make no sense."""
        policies = self.expressions("reschedule-policies")
        if len(policies) > 1:
            raise InvalidArgument("too many reschedule policies")
        if policies and policies[0] not in _POLICIES:
            raise InvalidArgument(f"invalid reschedule policy: {policies[0]}")

    def for_engine(self, cpus: int) -> dict[str, Any]:
        """The body for an engine with `cpus` CPUs: its shares are 1024 for all of them."""
        body = copy.deepcopy(self.body)
        if self.cpus and cpus:
            body["HostConfig"]["CpuShares"] = -(-self.cpus * 1024 // cpus)
        return body

    def copy(self) -> Wish:
        """One to change."""
        return Wish(self.body)

    def _set(self, kind: str, expressions: list[str]) -> None:
        self.labels[f"{NAMESPACE}.{kind}"] = json.dumps(expressions)

    def _consolidate(self) -> None:
        # Clients older than API 1.19 have these outside of HostConfig.
        for old, new in _OLD_FIELDS.items():
            value = self.body.pop(old, None)
            if value:
                self.host[new] = value

    def _read_environment(self) -> None:
        kept: list[str] = []
        found: dict[str, list[str]] = {}
        for entry in self.body.get("Env") or []:
            key, colon, value = str(entry).partition(":")
            if colon and key in _KINDS:
                found.setdefault(_KINDS[key], []).append(value)
            else:
                kept.append(entry)
        self.body["Env"] = kept
        for kind, values in found.items():
            self._set(kind, [*self.expressions(kind), *values])


def from_inspect(info: dict[str, Any], cpus: int) -> Wish:
    """The wish behind a running container, from its inspection by an engine with `cpus` CPUs."""
    config = dict(info.get("Config") or {})
    host = dict(info.get("HostConfig") or {})
    host["CpuShares"] = int(_number(host.get("CpuShares")) * cpus / 1024)
    networks = (info.get("NetworkSettings") or {}).get("Networks") or {}
    return Wish({**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": networks}})


def _json_list(text: str) -> list[str]:
    try:
        found = json.loads(text) if text else []
    except ValueError:
        return []
    if not isinstance(found, list):
        return []
    return [item for item in found if isinstance(item, str)]


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0
