"""Finding one object by id, name or id prefix, as stock engines do (moby cluster/helpers.go).

The exact id first; then the exact name; then the id prefix. Several matches are refused as
ambiguous, none as not found; both without the gRPC prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.faces.engineapi.backend import Caller
from swarmd.faces.engineapi.errors import bad_request, not_found

# A manager call of one REST request may take this long (moby swarmRequestTimeout).
CALL_SECONDS = 20.0

Obj = TypeVar("Obj", bound=Message)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Obj]):
    """How one kind of object is asked for."""

    noun: str
    get: type[Message]
    listing: type[Message]
    id_field: str
    one: str
    many: str

    @property
    def method(self) -> str:
        """The object's name in method names: Node in Control/GetNode."""
        return self.noun.capitalize()


NODE: Kind[api.Node] = Kind(
    "node", api.GetNodeRequest, api.ListNodesRequest, "node_id", "node", "nodes"
)
SERVICE: Kind[api.Service] = Kind(
    "service", api.GetServiceRequest, api.ListServicesRequest, "service_id", "service", "services"
)
TASK: Kind[api.Task] = Kind(
    "task", api.GetTaskRequest, api.ListTasksRequest, "task_id", "task", "tasks"
)
SECRET: Kind[api.Secret] = Kind(
    "secret", api.GetSecretRequest, api.ListSecretsRequest, "secret_id", "secret", "secrets"
)
CONFIG: Kind[api.Config] = Kind(
    "config", api.GetConfigRequest, api.ListConfigsRequest, "config_id", "config", "configs"
)
NETWORK: Kind[api.Network] = Kind(
    "network", api.GetNetworkRequest, api.ListNetworksRequest, "network_id", "network", "networks"
)


async def find(control: Caller, kind: Kind[Obj], text: str) -> Obj:
    """The one object meant by `text`. Raises `Refusal` 404 or 400, or the manager's error."""
    try:
        reply = await control.unary(
            f"Control/Get{kind.method}", kind.get(**{kind.id_field: text}), timeout=CALL_SECONDS
        )
    except SwarmError:
        # Whatever it was, the lists say it again if it matters.
        return await _by_name_or_prefix(control, kind, text)
    found: Obj = getattr(reply, kind.one)
    return found


async def _by_name_or_prefix(control: Caller, kind: Kind[Obj], text: str) -> Obj:
    try:
        found = await _listed(control, kind, {"names": [text]})
    except SwarmError:
        found = []
    if not found:
        found = await _listed(control, kind, {"id_prefixes": [text]})
    if not found:
        raise not_found(f"{kind.noun} {text} not found")
    if len(found) > 1:
        raise bad_request(f"{kind.noun} {text} is ambiguous ({len(found)} matches found)")
    return found[0]


async def _listed(control: Caller, kind: Kind[Obj], filters: dict[str, Any]) -> Sequence[Obj]:
    request = kind.listing(filters=filters)
    reply = await control.unary(f"Control/List{kind.method}s", request, timeout=CALL_SECONDS)
    found: Sequence[Obj] = getattr(reply, kind.many)
    return found
