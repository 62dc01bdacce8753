"""Which store events a Watch request asks for. Pure.

Filters of one entry must all hold, one entry of several is enough. A filter a kind does not
know is passed over, as the reference does. Its `slot` filter compares the (empty) node id in
place of the service id, so it never finds an assigned task; ours compares the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.message import Message

from swarmd import api
from swarmd.base.errors import InvalidArgument
from swarmd.cluster.store import Action, Event

NO_KIND = "no kind of object specified"
CONFLICTING_FILTERS = "conflicting filters specified"
UNRECOGNIZED_ACTION = "unrecognized action"

Check = Callable[[Any], bool]

KINDS: dict[str, type[Message]] = {
    "node": api.Node,
    "service": api.Service,
    "task": api.Task,
    "network": api.Network,
    "cluster": api.Cluster,
    "secret": api.Secret,
    "config": api.Config,
    "extension": api.Extension,
    "volume": api.Volume,
}
# Field of the watch `Object` per kind; its numbers differ from StoreAction's.
FIELDS: dict[type[Message], str] = {
    **{cls: name for name, cls in KINDS.items()},
    api.Resource: "resource",
}
BITS = {
    Action.CREATE: api.WatchActionKind.WATCH_ACTION_CREATE,
    Action.UPDATE: api.WatchActionKind.WATCH_ACTION_UPDATE,
    Action.DELETE: api.WatchActionKind.WATCH_ACTION_REMOVE,
}
ALL_BITS = 1 | 2 | 4
ANNOTATED = (api.Task, api.Resource, api.Extension)  # annotations outside a spec


def annotations_of(obj: Any) -> api.Annotations:
    """Where an object keeps its name and custom indices."""
    found: api.Annotations = obj.annotations if isinstance(obj, ANNOTATED) else obj.spec.annotations
    return found


def name_of(obj: Any) -> str | None:
    """The name that name filters compare: a node's is its hostname."""
    if isinstance(obj, api.Node):
        return obj.description.hostname if obj.HasField("description") else None
    return str(annotations_of(obj).name)


def _custom(wanted: api.SelectByCustom, prefix: bool) -> Check:
    def check(obj: Any) -> bool:
        for entry in annotations_of(obj).indices:
            if entry.key == wanted.index:
                same = entry.val.startswith(wanted.value) if prefix else entry.val == wanted.value
                if same:
                    return True
        return False

    return check


def _name(wanted: str, prefix: bool) -> Check:
    def check(obj: Any) -> bool:
        name = name_of(obj)
        return name is not None and (name.startswith(wanted) if prefix else name == wanted)

    return check


def _for_all(by: api.SelectBy) -> tuple[str, Check] | None:
    """Filters every kind knows: the fact they fix, and the check."""
    match by.WhichOneof("By"):
        case "id":
            return "id", lambda obj: bool(obj.id == by.id)
        case "id_prefix":
            return "id", lambda obj: bool(obj.id.startswith(by.id_prefix))
        case "name":
            return "name", _name(by.name, prefix=False)
        case "name_prefix":
            return "name", _name(by.name_prefix, prefix=True)
        case "custom":
            return "custom", _custom(by.custom, prefix=False)
        case "custom_prefix":
            return "custom", _custom(by.custom_prefix, prefix=True)
    return None


def _for_tasks(by: api.SelectBy) -> tuple[str, Check] | None:
    match by.WhichOneof("By"):
        case "service_id":
            return "service", lambda task: bool(task.service_id == by.service_id)
        case "node_id":
            return "node", lambda task: bool(task.node_id == by.node_id)
        case "slot":
            slot = by.slot
            return "service", lambda task: bool(
                task.service_id == slot.service_id and task.slot == slot.slot
            )
        case "desired_state":
            return "desired", lambda task: bool(task.desired_state == by.desired_state)
    return None


def _for_nodes(by: api.SelectBy) -> tuple[str, Check] | None:
    match by.WhichOneof("By"):
        case "role":
            return "role", lambda node: bool(node.role == by.role)
        case "membership":
            return "membership", lambda node: bool(node.spec.membership == by.membership)
    return None


SPECIAL: dict[type[Message], Callable[[api.SelectBy], tuple[str, Check] | None]] = {
    api.Task: _for_tasks,
    api.Node: _for_nodes,
}


def compile_filters(cls: type[Message], filters: Iterable[api.SelectBy]) -> list[Check]:
    """Checks for objects of `cls`. Raises InvalidArgument when two fix the same fact."""
    special = SPECIAL.get(cls)
    facts: set[str] = set()
    checks: list[Check] = []
    for by in filters:
        found = _for_all(by)
        if found is None and special is not None:
            found = special(by)
        if found is None:
            continue
        fact, check = found
        if fact in facts:
            raise InvalidArgument(CONFLICTING_FILTERS)
        facts.add(fact)
        checks.append(check)
    return checks


def compile_entry(entry: api.WatchRequest.WatchEntry) -> Callable[[Event], bool]:
    """One entry of a request. Raises InvalidArgument with the stock texts."""
    if not entry.kind:
        raise InvalidArgument(NO_KIND)
    cls = KINDS.get(entry.kind, api.Resource)
    checks = compile_filters(cls, entry.filters)
    if not entry.action & ALL_BITS:
        raise InvalidArgument(UNRECOGNIZED_ACTION)
    if cls is api.Resource:
        kind = entry.kind
        checks.insert(0, lambda resource: bool(resource.kind == kind))
    mask = int(entry.action)

    def wanted(event: Event) -> bool:
        return (
            bool(mask & BITS[event.action])
            and isinstance(event.object, cls)
            and all(check(event.object) for check in checks)
        )

    return wanted


def compile_entries(
    entries: Sequence[api.WatchRequest.WatchEntry],
) -> Callable[[Event], bool]:
    """A whole request: true for events that some entry asks for."""
    tests = [compile_entry(entry) for entry in entries]
    return lambda event: any(test(event) for test in tests)


def add_event(message: api.WatchMessage, event: Event, old: bool) -> None:
    """Add an event as clients see it; `old` adds the object before an update.

    Filled in place: every message put into another one is a copy of the whole object.
    """
    made = message.events.add(action=BITS[event.action])
    field = FIELDS[type(event.object)]
    getattr(made.object, field).CopyFrom(event.object)
    if old and event.action is Action.UPDATE and event.old is not None:
        getattr(made.old_object, field).CopyFrom(event.old)
