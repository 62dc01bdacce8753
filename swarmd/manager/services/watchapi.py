"""The service Watch: what changes in this manager's copy of the store.

The first message is empty: from there on nothing is missed. Then one message per entry with
the events asked for, and the version to resume from where the store knows it (wire/PROTOCOL
4.1, 7.3). Objects are whole, secret data included: only managers may ask.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from swarmd import api
from swarmd.base.aio import ChannelClosed
from swarmd.base.errors import ResourceExhausted, SwarmError
from swarmd.cluster.store import Action, Event, Store
from swarmd.manager.services.watchfilter import add_event, compile_entries
from swarmd.manager.watch import StoreWatch

NO_VERSIONING = "store does not support versioning"
OUT_OF_ORDER = "versions are out of order"
TOO_SLOW = "watch: the reader fell too far behind"

KINDS = {
    api.StoreActionKind.STORE_ACTION_CREATE: Action.CREATE,
    api.StoreActionKind.STORE_ACTION_UPDATE: Action.UPDATE,
    api.StoreActionKind.STORE_ACTION_REMOVE: Action.DELETE,
}

Wanted = Callable[[Event], bool]


class History(Protocol):
    """Entries of the past, from this member's raft log."""

    def applied_index(self) -> int:
        """Index of the last entry the store has applied."""
        ...

    def changes(self, after: int, upto: int) -> Iterable[tuple[int, Sequence[api.StoreAction]]]:
        """The store actions of each entry in (after, upto], with the entry's index.

        Raises SwarmError when they are no longer kept.
        """
        ...


def replay(history: History, resume_from: int, wanted: Wanted) -> list[tuple[int, list[Event]]]:
    """What happened after version `resume_from` until now, without old objects."""
    now = history.applied_index()
    if resume_from > now:
        raise SwarmError(OUT_OF_ORDER)
    past = []
    for index, actions in history.changes(resume_from, now):
        events = [event for action in actions if wanted(event := past_event(action))]
        if events:
            past.append((index, events))
    return past


def past_event(action: api.StoreAction) -> Event:
    """The event that one logged store action was."""
    target = action.WhichOneof("target")
    if target is None or action.action not in KINDS:
        raise SwarmError("unrecognized action type")
    return Event(KINDS[action.action], getattr(action, target))


def message(events: Iterable[Event], version: int | None, old: bool) -> api.WatchMessage:
    """One entry's events as clients see them."""
    sent = api.WatchMessage()
    for event in events:
        add_event(sent, event, old)
    if version is not None:
        sent.version.index = version
    return sent


class Watch:
    """Streams of changes, for managers."""

    SERVICE = "docker.swarmkit.v1.Watch"

    def __init__(self, store: Store, history: History | None = None) -> None:
        """Without `history`, resuming is refused as by a stock store without a log."""
        self._store = store
        self._history = history

    async def watch(
        self, request: api.WatchRequest, peer: object
    ) -> AsyncIterator[api.WatchMessage]:
        """Changes from now, or from a version, until the caller has enough."""
        wanted = compile_entries(request.entries)
        with StoreWatch(self._store, wanted) as changes:
            # No await between this and the past: nothing falls between.
            past = self._past(request, wanted)
            yield api.WatchMessage()
            for version, events in past:
                yield message(events, version, old=False)
            while True:
                try:
                    batch = await changes.next()
                except ChannelClosed as error:
                    raise ResourceExhausted(TOO_SLOW) from error
                if batch.events:
                    yield message(batch.events, batch.version, request.include_old_object)

    def _past(self, request: api.WatchRequest, wanted: Wanted) -> list[tuple[int, list[Event]]]:
        if not request.HasField("resume_from"):
            return []
        if self._history is None:
            raise SwarmError(NO_VERSIONING)
        return replay(self._history, request.resume_from.index, wanted)
