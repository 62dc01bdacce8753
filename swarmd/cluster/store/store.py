"""The store: applied objects of all kinds, changed whole entries at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from swarmd import api
from swarmd.base.errors import SwarmError, invariant
from swarmd.base.listeners import Listeners
from swarmd.cluster.store.errors import StoreError
from swarmd.cluster.store.kinds import BY_TARGET, KINDS, edit
from swarmd.cluster.store.table import Table
from swarmd.cluster.store.transaction import Action, Event, Transaction
from swarmd.cluster.store.view import Applied, View

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one entry, or one restored snapshot, changed.

    `version` is the commit index after the transaction where the writer knows it, None for
    what others wrote (PROTOCOL 4.1). `restored` marks the difference made by a snapshot;
    a reader that cares for history starts anew.
    """

    events: tuple[Event, ...]
    version: int | None
    restored: bool = False


Subscriber = Callable[[Batch], None]


class Store:
    """Ten tables and their subscribers.

    `strict` is for tests: it fingerprints every stored object to catch edits in place
    (checked at each change, so slow with many objects), and refuses views that are used
    after the state has changed.
    """

    def __init__(self, strict: bool = False) -> None:
        self._tables = {kind.type: Table(kind) for kind in KINDS}
        self._applied = Applied(self._tables, strict)
        self._subscribers = Listeners[[Batch]]()
        self._prints: dict[tuple[str, str], bytes] = {}
        self._foreign: set[int] = set()

    def view(self) -> View:
        """Look at the applied state, until the next apply."""
        return View(self._applied)

    def begin(self, version: int, now: float) -> Transaction:
        """Start a leader's transaction. `version` is the commit index now, `now` wall seconds."""
        return Transaction(self._applied, version, now)

    def commit(self, tx: Transaction, version: int | None) -> None:
        """Make a leader's transaction real, once its entry is committed.

        `version` is the commit index after it, or None for merged writes. Nothing may have
        been applied since `begin`: the caller has one entry in flight at a time.
        """
        invariant(tx.stamp is self._applied.stamp, "the state changed under a transaction")
        self._install(tuple(tx.events), version, restored=False)

    def apply(self, actions: Sequence[api.StoreAction], version: int | None = None) -> None:
        """Apply an entry made elsewhere or replayed, by the stock follower's rules.

        One action that cannot be made drops the whole entry: StoreError is raised and
        nothing has changed. Actions on kinds that only newer managers know are passed over:
        those apply the entry, and its other objects must not differ here.
        """
        tx = Transaction(self._applied, None, 0.0)
        for number, action in enumerate(actions):
            try:
                tx.apply(action)
            except SwarmError as error:
                if (kind := foreign_kind(action)) is not None:
                    self._note_foreign(kind)
                    continue
                text = f"action {number + 1} of {len(actions)}: {error.message}"
                raise StoreError(text) from error
        self._install(tuple(tx.events), version, restored=False)

    def _note_foreign(self, kind: int) -> None:
        if kind not in self._foreign:
            self._foreign.add(kind)
            log.error("objects of kind %d are not known here and not kept", kind)

    def save(self) -> api.StoreSnapshot:
        """All objects, sorted by id within each kind; a copy."""
        snapshot = api.StoreSnapshot()
        for kind in KINDS:
            table = self._tables[kind.type]
            objects = [table.objects[id] for id in table.ids]
            getattr(snapshot, kind.snapshot).extend(objects)
        return snapshot

    def restore(self, snapshot: api.StoreSnapshot) -> None:
        """Replace everything by a snapshot; subscribers get the difference, marked restored."""
        events: list[Event] = []
        for kind in KINDS:
            current = self._tables[kind.type].objects
            given = {obj.id: obj for obj in getattr(snapshot, kind.snapshot)}
            for id in sorted(current.keys() | given.keys()):
                old, new = current.get(id), given.get(id)
                if new is None:
                    events.append(Event(Action.DELETE, current[id], old))
                elif old is None:
                    events.append(Event(Action.CREATE, edit(new)))
                elif old != new:
                    events.append(Event(Action.UPDATE, edit(new), old))
        self._install(tuple(events), None, restored=True)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` after every change, in order; returns the way to stop that.

        It runs inside the change, so it must be short, must not raise and must not write.
        """
        return self._subscribers.add(callback)

    def verify(self) -> None:
        """In a strict store: raise InvariantViolation if a stored object was edited in place."""
        for (target, id), before in self._prints.items():
            after = _fingerprint(self._tables[BY_TARGET[target].type].objects[id])
            invariant(after == before, f"stored {target} {id} was edited in place")

    def _install(self, events: tuple[Event, ...], version: int | None, restored: bool) -> None:
        if self._applied.strict:
            self.verify()
        for event in events:
            self._install_one(event)
        if not events and not restored:
            return
        self._applied.stamp = object()
        self._subscribers.call(Batch(events, version, restored))

    def _install_one(self, event: Event) -> None:
        obj = event.object
        table = self._tables[type(obj)]
        if event.action is Action.DELETE:
            table.remove(obj.id)
        else:
            table.put(obj)
        if self._applied.strict:
            key = (table.kind.target, obj.id)
            self._prints.pop(key, None)
            if event.action is not Action.DELETE:
                self._prints[key] = _fingerprint(obj)


def foreign_kind(action: api.StoreAction) -> int | None:
    """The field number of a target that this version does not know, if it has such a one."""
    if action.WhichOneof("target") is not None:
        return None
    fields = UnknownFieldSet(action)
    return int(fields[0].field_number) if len(fields) else None


def _fingerprint(obj: Any) -> bytes:
    return blake2b(obj.SerializeToString(deterministic=True), digest_size=16).digest()
