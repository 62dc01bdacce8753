"""Store changes as engine events of scope swarm (BEHAVIOUR 5.6)."""

from __future__ import annotations

from collections.abc import Iterator

from swarmd import api
from swarmd.faces.engineapi.convert.common import Json, words
from swarmd.faces.engineapi.convert.node import (
    availability_word,
    reachability_word,
    role_word,
    state_word,
)

_update_word = words(api.UpdateStatus.UpdateState)
_ACTIONS: dict[int, str] = {
    api.WatchActionKind.WATCH_ACTION_CREATE: "create",
    api.WatchActionKind.WATCH_ACTION_UPDATE: "update",
    api.WatchActionKind.WATCH_ACTION_REMOVE: "remove",
}
_SHOWN = ("node", "service", "network", "secret", "config")
_Shown = api.Node | api.Service | api.Network | api.Secret | api.Config


def events_json(message: api.WatchMessage, now: float) -> Iterator[Json]:
    """The events one watch message makes; tasks, clusters and others make none."""
    for event in message.events:
        action = _ACTIONS.get(event.action)
        kind = event.object.WhichOneof("Object")
        if action is None or kind not in _SHOWN:
            continue
        obj = getattr(event.object, kind)
        old = None
        if action == "update" and event.old_object.WhichOneof("Object") == kind:
            old = getattr(event.old_object, kind)
        yield _event(kind, action, obj, _attributes(kind, obj, old), now)


def _event(kind: str, action: str, obj: _Shown, attributes: dict[str, str], now: float) -> Json:
    nanos = _nanos(action, obj.meta, now)
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": obj.id, "Attributes": attributes},
        "scope": "swarm",
        "time": nanos // 1_000_000_000,
        "timeNano": nanos,
    }


def _nanos(action: str, meta: api.Meta, now: float) -> int:
    # A removal carries no time of its own.
    if action == "remove":
        return int(now * 1e9)
    stamp = meta.created_at if action == "create" else meta.updated_at
    return stamp.seconds * 1_000_000_000 + stamp.nanos


def _attributes(kind: str, obj: _Shown, old: _Shown | None) -> dict[str, str]:
    if isinstance(obj, api.Node):
        name = obj.spec.annotations.name or obj.description.hostname
        changes = _node_changes(obj, old) if isinstance(old, api.Node) else {}
    else:
        name = obj.spec.annotations.name
        changes = {}
        if isinstance(obj, api.Service) and isinstance(old, api.Service):
            changes = _service_changes(obj, old)
    changes["name"] = name
    return {key: changes[key] for key in sorted(changes)}


def _node_changes(node: api.Node, old: api.Node) -> dict[str, str]:
    out: dict[str, str] = {}

    def changed(key: str, before: str, after: str) -> None:
        if before != after:
            out[f"{key}.old"], out[f"{key}.new"] = before, after

    changed(
        "availability",
        availability_word(old.spec.availability),
        availability_word(node.spec.availability),
    )
    changed("role", role_word(old.role), role_word(node.role))
    changed("state", state_word(old.status.state), state_word(node.status.state))
    if node.HasField("manager_status") and old.HasField("manager_status"):
        was, now = old.manager_status, node.manager_status
        changed("leader", str(was.leader).lower(), str(now.leader).lower())
        changed(
            "reachability",
            reachability_word(was.reachability),
            reachability_word(now.reachability),
        )
    return out


def _service_changes(service: api.Service, old: api.Service) -> dict[str, str]:
    out: dict[str, str] = {}
    task, was = service.spec.task, old.spec.task
    both = task.HasField("container") and was.HasField("container")
    if both and task.container.image != was.container.image:
        out["image.old"], out["image.new"] = was.container.image, task.container.image
    if service.spec.HasField("replicated") and old.spec.HasField("replicated"):
        count, before = service.spec.replicated.replicas, old.spec.replicated.replicas
        if count != before:
            out["replicas.old"], out["replicas.new"] = str(before), str(count)
    if service.HasField("update_status"):
        state = service.update_status.state
        if not old.HasField("update_status"):
            out["updatestate.new"] = _update_word(state)
        elif old.update_status.state != state:
            out["updatestate.old"] = _update_word(old.update_status.state)
            out["updatestate.new"] = _update_word(state)
    return out
