"""A transaction: changes laid over the applied state, each checked as it is made.

The checks are those a stock follower makes on every action of an entry, in order, plus the
leader's version check. What passes here is therefore applied by every member alike. All
state of a transaction lives in dicts, and every write to them is noted with the value it
replaced: a savepoint is two list lengths, rolling back replays the notes backwards.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from swarmd import api
from swarmd.base.errors import Conflict, SwarmError, invariant
from swarmd.base.timestamps import timestamp
from swarmd.cluster.store.errors import (
    ExtensionFixed,
    ExtensionInUse,
    NameConflict,
    ObjectExists,
    ObjectMissing,
    UnknownKind,
)
from swarmd.cluster.store.kinds import BY_TARGET, Kind, Object, ObjectT, edit, kind_of
from swarmd.cluster.store.table import Table
from swarmd.cluster.store.view import Applied, View


class Action(enum.IntEnum):
    """What happened to an object; numbers are StoreActionKind's."""

    CREATE = 1
    UPDATE = 2
    DELETE = 3


_WIRE = {
    Action.CREATE: api.StoreActionKind.STORE_ACTION_CREATE,
    Action.UPDATE: api.StoreActionKind.STORE_ACTION_UPDATE,
    Action.DELETE: api.StoreActionKind.STORE_ACTION_REMOVE,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one object.

    `object` is the new state, for DELETE the last one; `old` is the state before, for
    UPDATE and DELETE.
    """

    action: Action
    object: Object
    old: Object | None = None


@dataclass(frozen=True, slots=True)
class Savepoint:
    """A moment inside a transaction to which it can be rolled back."""

    actions: int
    events: int
    notes: int


_ABSENT: Any = object()


class _Overlay:
    """What a transaction has done to one table. None as a value means removed."""

    __slots__ = ("names", "objects")

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.names: dict[str, str | None] = {}


class Transaction(View):
    """Reads its own writes; becomes one entry. Made by `Store.begin`, used once.

    A transaction with `version` None applies what others decided: metadata is stored as it
    comes, versions are not compared, and no actions are kept, for there is no entry to make.
    """

    def __init__(self, applied: Applied, version: int | None, now: float) -> None:
        super().__init__(applied)
        self.version = version
        self.actions: list[api.StoreAction] = []
        self.events: list[Event] = []
        self._now: Timestamp = timestamp(now)
        self._overlays: dict[type[Any], _Overlay] = {}
        self._notes: list[tuple[dict[str, Any], str, Any]] = []

    def get(self, kind: type[ObjectT], id: str) -> ObjectT | None:
        """The object with this id as the transaction would leave it, or None."""
        overlay = self._overlays.get(kind)
        if overlay is not None and id in overlay.objects:
            found: ObjectT | None = overlay.objects[id]
            return found
        return super().get(kind, id)

    def all(self, kind: type[ObjectT]) -> list[ObjectT]:
        """All objects of a kind, sorted by id."""
        overlay = self._overlays.get(kind)
        if overlay is None:
            return super().all(kind)
        ids = set(self._table(kind).ids)
        ids.update(overlay.objects)
        return self._present(kind, ids)

    def by(self, kind: type[ObjectT], index: str, key: str) -> list[ObjectT]:
        """Objects found under `key` in `index`, sorted by id."""
        overlay = self._overlays.get(kind)
        if overlay is None:
            return super().by(kind, index, key)
        table = self._table(kind)
        ids = set(table.find(index, key)).difference(overlay.objects)
        indexer = table.kind.indexes[index]
        for id, obj in overlay.objects.items():
            if obj is not None and key in indexer(obj):
                ids.add(id)
        return self._present(kind, ids)

    def named(self, kind: type[ObjectT], name: str) -> ObjectT | None:
        """The object with this name, compared in lower case."""
        overlay = self._overlays.get(kind)
        lower = name.lower()
        if overlay is None or lower not in overlay.names:
            return super().named(kind, name)
        id = overlay.names[lower]
        return None if id is None else self.get(kind, id)

    def count(self, kind: type[ObjectT]) -> int:
        """How many objects of a kind the transaction would leave."""
        return len(self.all(kind))

    def create(self, obj: ObjectT) -> ObjectT:
        """Add a copy of `obj`, stamped; returns that copy.

        Raises ObjectExists, NameConflict, UnknownKind.
        """
        kind = kind_of(type(obj))
        invariant(bool(obj.id), f"a {kind.target} needs an id")
        self._check_create(kind, obj)
        copy = self._stamped(obj, None)
        self._put(kind, copy)
        self._record(kind, Event(Action.CREATE, copy))
        return copy

    def update(self, obj: ObjectT) -> ObjectT:
        """Replace the object by a copy of `obj`, stamped; returns that copy.

        Raises ObjectMissing, NameConflict, UnknownKind, ExtensionFixed, and Conflict when
        `obj` was not made from the state it replaces.
        """
        kind = kind_of(type(obj))
        old = self._check_update(kind, obj)
        copy = self._stamped(obj, old)
        self._put(kind, copy)
        self._record(kind, Event(Action.UPDATE, copy, old))
        return copy

    def delete(self, kind: type[ObjectT], id: str) -> None:
        """Remove an object. Raises ObjectMissing, ExtensionInUse."""
        old = self.get(kind, id)
        if old is None:
            raise ObjectMissing
        if isinstance(old, api.Extension) and self.by(api.Resource, "kind", old.annotations.name):
            raise ExtensionInUse
        rules = kind_of(kind)
        overlay = self._overlay(kind)
        self._write(overlay.objects, id, None)
        if rules.named:
            self._unname(rules, overlay, old)
        self._record(rules, Event(Action.DELETE, old, old))

    def apply(self, action: api.StoreAction) -> None:
        """Make one action of an entry, as every member does. Raises what the change raises."""
        target = action.WhichOneof("target")
        if target is None or action.action not in Action._value2member_map_:
            raise SwarmError("unrecognized action type")
        obj = getattr(action, target)
        if not obj.id:
            raise SwarmError("object without an id")
        match Action(action.action):
            case Action.CREATE:
                self.create(obj)
            case Action.UPDATE:
                self.update(obj)
            case Action.DELETE:
                self.delete(BY_TARGET[target].type, obj.id)

    def savepoint(self) -> Savepoint:
        """Remember this moment; costs nothing."""
        return Savepoint(len(self.actions), len(self.events), len(self._notes))

    def rollback(self, to: Savepoint) -> None:
        """Undo everything since the savepoint. Later savepoints are void."""
        invariant(
            to.actions <= len(self.actions) and to.notes <= len(self._notes),
            "rollback to a savepoint that was already undone",
        )
        while len(self._notes) > to.notes:
            values, key, before = self._notes.pop()
            if before is _ABSENT:
                del values[key]
            else:
                values[key] = before
        del self.actions[to.actions :]
        del self.events[to.events :]

    def _present(self, kind: type[ObjectT], ids: Iterable[str]) -> list[ObjectT]:
        found = (self.get(kind, id) for id in sorted(ids))
        return [obj for obj in found if obj is not None]

    def _check_create(self, kind: Kind, obj: Any) -> None:
        if kind.type is api.Resource:
            self._check_registered(obj)
        if kind.name_on_create:
            name = kind.annotations(obj).name
            if self.named(kind.type, name) is not None:
                raise NameConflict
            if kind.type is api.Extension and name in BY_TARGET:
                raise NameConflict  # the built-in kinds are taken, in this spelling
        if self.get(kind.type, obj.id) is not None:
            raise ObjectExists

    def _check_update(self, kind: Kind, obj: Any) -> Any:
        if kind.type is api.Extension:
            raise ExtensionFixed
        if kind.type is api.Resource:
            self._check_registered(obj)
        if kind.name_on_update:
            holder = self.named(kind.type, kind.annotations(obj).name)
            if holder is not None and holder.id != obj.id:
                raise NameConflict
        old = self.get(kind.type, obj.id)
        if old is None:
            raise ObjectMissing
        if self.version is not None and old.meta.version.index != obj.meta.version.index:
            raise Conflict
        return old

    def _check_registered(self, resource: api.Resource) -> None:
        if self.named(api.Extension, resource.kind) is None:
            raise UnknownKind

    def _stamped(self, obj: ObjectT, old: Any | None) -> ObjectT:
        copy = edit(obj)
        if self.version is not None:
            meta = copy.meta
            meta.version.index = self.version
            if old is not None and old.meta.HasField("created_at"):
                meta.created_at.CopyFrom(old.meta.created_at)
            elif not meta.HasField("created_at"):
                meta.created_at.CopyFrom(self._now)
            meta.updated_at.CopyFrom(self._now)
        return copy

    def _put(self, kind: Kind, obj: Any) -> None:
        overlay = self._overlay(kind.type)
        if kind.named:
            old = self.get(kind.type, obj.id)
            name = kind.annotations(obj).name.lower()
            if old is not None and kind.annotations(old).name.lower() != name:
                self._unname(kind, overlay, old)
            self._write(overlay.names, name, obj.id)
        self._write(overlay.objects, obj.id, obj)

    def _unname(self, kind: Kind, overlay: _Overlay, old: Any) -> None:
        name = kind.annotations(old).name.lower()
        table: Table = self._table(kind.type)
        if overlay.names.get(name, table.names.get(name)) == old.id:
            self._write(overlay.names, name, None)

    def _overlay(self, kind: type[Any]) -> _Overlay:
        overlay = self._overlays.get(kind)
        if overlay is None:
            overlay = self._overlays[kind] = _Overlay()
        return overlay

    def _write(self, values: dict[str, Any], key: str, value: Any) -> None:
        self._notes.append((values, key, values.get(key, _ABSENT)))
        values[key] = value

    def _record(self, kind: Kind, event: Event) -> None:
        self.events.append(event)
        if self.version is None:
            return
        action = api.StoreAction(action=_WIRE[event.action])
        getattr(action, kind.target).CopyFrom(event.object)
        self.actions.append(action)
