"""`Committer`: the only way to write. Merges what callers ask for into one entry at a time.

Callers queue a synchronous change. While one entry is on its way, the others wait; as soon as
it is applied, all that waited run on one transaction, in order of arrival, and become the next
entry: one proposal, one fsync, whoever many they are. One entry in flight keeps versions
sharp: every change is checked against the state with the entry before applied, and stamped
with the commit index read then (PROTOCOL 4.1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from swarmd import api
from swarmd.base import metrics
from swarmd.base.clock import Clock
from swarmd.base.errors import Conflict, NotLeader, SwarmError, invariant
from swarmd.base.limits import batch_bytes_max, changes_per_entry_max, entry_bytes_max
from swarmd.cluster.store import Store, Transaction
from swarmd.manager.raftnode import Confirmation, Proposal, RequestTooLarge

T = TypeVar("T")

# Bytes around the actions of an entry: the request's number, and tag and length of an action.
_ENTRY_FRAME_BYTES = 16
_ACTION_FRAME_BYTES = 8

# An entry on a slow disk is no reason to make the next one wait for long.
gather_seconds_max = 0.02

_changes = metrics.counter("commit_changes", "Changes of callers merged into entries")
_entries = metrics.counter("commit_entries", "Entries proposed")


class Log(Protocol):
    """What the committer needs of the raft node."""

    def is_leader(self) -> bool:
        """True while this member may write."""
        ...

    def commit_index(self) -> int:
        """Index of the last committed entry."""
        ...

    def confirm(self, who: Confirmation) -> None:
        """Find out whether this member still leads; calls back later, or now."""
        ...

    def submit(self, actions: Sequence[api.StoreAction], proposal: Proposal) -> None:
        """Propose; exactly one of the proposal's callbacks is called later."""
        ...


@dataclass(slots=True)
class _Call:
    """One caller: what it wants done, and what came of it."""

    change: Callable[[Transaction], Any]
    answer: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        """Tell the caller; one that went away meanwhile does not matter."""
        if self.answer.done():
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)

    def fail(self, error: Exception) -> None:
        """Tell the caller that the entry did not make it."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(slots=True)
class _Batch:
    """Calls that share one transaction. `split`: actions from there on are a second entry."""

    tx: Transaction
    calls: list[_Call] = field(default_factory=list)
    size: int = _ENTRY_FRAME_BYTES
    split: int | None = None

    @property
    def full(self) -> bool:
        return self.size >= batch_bytes_max or len(self.tx.actions) >= changes_per_entry_max


class Committer:
    """Group commit on one store and one log. Needs no task of its own; cancel callers freely."""

    def __init__(self, store: Store, log: Log, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._queue: deque[_Call] = deque()
        self._batch: _Batch | None = None  # the one on its way
        self._scheduled = False
        self._gathering: asyncio.TimerHandle | None = None
        # Of the last entry: when it was proposed, how long it took, who is likely to ask again.
        self._proposed = 0.0
        self._took = 0.0
        self._expected = 0

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` in the next entry's transaction; return its result once that is applied.

        `change` is synchronous and runs exactly once, on the newest applied state and after
        the changes queued before it; what it writes is stamped and checked as by
        `Transaction`. What it raises is raised here and undoes its own edits only. If it
        writes nothing, nothing is proposed for it. Raises `NotLeader` when this member does
        not lead, or stopped leading on the way: the entry may then still be applied. Raises
        `RequestTooLarge` for a change that does not fit in one entry.
        """
        if not self._log.is_leader():
            raise NotLeader
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._queue.append(_Call(change, answer))
        self._schedule(loop)
        return await answer

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a batch once everybody who is about to ask has asked."""
        if self._batch is not None:
            return
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._gather, loop, self._clock.monotonic(), 0)
        elif self._gathering is not None and len(self._queue) >= self._expected:
            self._gathering.cancel()
            self._gathering = None
            loop.call_soon(self._begin)

    def _gather(self, loop: asyncio.AbstractEventLoop, since: float, seen: int) -> None:
        """Begin, unless those the last entry served are just coming back with more.

        An entry costs every member far more than a change in it. So the next one waits until as
        many ask as did before, as long as they keep coming: their answers may have a way to go,
        through another manager to a client and back. It waits for one as long as an entry
        takes, for all twice that, or `gather_seconds_max`.
        """
        self._gathering = None
        queued = len(self._queue)
        left = since + min(2 * self._took, gather_seconds_max) - self._clock.monotonic()
        if seen < queued < self._expected and left > 0:
            pause = min(left, self._took)
            self._gathering = loop.call_later(pause, self._gather, loop, since, queued)
        else:
            self._begin()

    def _begin(self) -> None:
        self._scheduled = False
        if not self._log.is_leader():
            while self._queue:
                self._queue.popleft().fail(NotLeader())
            return
        batch = _Batch(self._store.begin(self._log.commit_index(), self._clock.now()))
        while self._queue and not batch.full and batch.split is None:
            call = self._queue.popleft()
            if not call.answer.done():  # a caller that was cancelled changes nothing
                _run(batch, call)
        self._batch = batch
        if batch.tx.actions:
            self._propose(batch, batch.tx.actions[: batch.split], self._committed)
        else:
            self._batch = None
            self._refuse(batch.calls)
            self._go_on()

    def _refuse(self, calls: Sequence[_Call]) -> None:
        """Answer changes that come to nothing, once it is certain that they saw the newest state.

        Where something is written, the commit of the entry says so.
        """

        def confirmed() -> None:
            for call in calls:
                call.settle()

        def failed(error: Exception) -> None:
            for call in calls:
                call.fail(error)

        if all(call.error is None for call in calls):
            confirmed()
            return
        try:
            self._log.confirm(Confirmation(confirmed, failed))
        except SwarmError as error:
            failed(error)

    def _propose(
        self, batch: _Batch, actions: Sequence[api.StoreAction], then: Callable[[int], None]
    ) -> None:
        _entries.inc()
        self._proposed = self._clock.monotonic()
        try:
            self._log.submit(actions, Proposal(then, self._failed))
        except SwarmError as error:
            self._failed(error)

    def _committed(self, index: int) -> None:
        """The entry is being applied, in its turn in the log."""
        self._took = self._clock.monotonic() - self._proposed
        batch = self._batch
        invariant(batch is not None, "an entry was committed that nobody proposed")
        assert batch is not None
        if batch.split is None:
            # Told first, the callers go on (in the loop's next turn) before those who watch.
            self._settle(batch.calls)
            self._store.commit(batch.tx, index)
            self._finish(batch.calls)
            return
        # Too much for one entry. The transaction itself is dropped: both entries are applied
        # as any follower applies them, which gives the objects it made, stamps and all.
        rest = batch.tx.actions[batch.split :]
        self._store.apply(batch.tx.actions[: batch.split], index)
        *first, last = batch.calls
        batch.calls = [last]
        for call in first:
            call.settle()
        self._propose(batch, rest, self._committed_rest)

    def _committed_rest(self, index: int) -> None:
        batch = self._batch
        invariant(batch is not None, "an entry was committed that nobody proposed")
        assert batch is not None
        self._store.apply(batch.tx.actions[batch.split :], index)
        self._settle(batch.calls)
        self._finish(batch.calls)

    def _failed(self, error: Exception) -> None:
        batch, self._batch = self._batch, None
        for call in batch.calls if batch is not None else ():
            call.fail(error)
        self._go_on()

    def _finish(self, calls: Sequence[_Call]) -> None:
        self._batch = None
        self._expected = len(calls) + len(self._queue)
        _changes.inc(len(calls))
        self._go_on()

    def _settle(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            call.settle()

    def _go_on(self) -> None:
        if self._queue:
            self._schedule(asyncio.get_running_loop())


def _run(batch: _Batch, call: _Call) -> None:
    """Run one change on the batch's transaction; an error undoes what it did."""
    tx = batch.tx
    before = tx.savepoint()
    begun = len(tx.actions)
    batch.calls.append(call)
    try:
        call.result = call.change(tx)
        size = sum(action.ByteSize() + _ACTION_FRAME_BYTES for action in tx.actions[begun:])
        _make_room(batch, begun, size)
    except Exception as error:
        tx.rollback(before)
        call.result, call.error = None, error
    else:
        batch.size += size


def _make_room(batch: _Batch, begun: int, size: int) -> None:
    """Give a change that does not fit beside the others an entry of its own.

    Its version stamps are those of the first entry. That is sound only if it touches none of
    the same objects; otherwise it lost a race, and is told so.
    """
    if size + _ENTRY_FRAME_BYTES > entry_bytes_max:
        raise RequestTooLarge
    if batch.size + size <= entry_bytes_max:
        return
    touched = {_object_id(action) for action in batch.tx.actions[:begun]}
    if any(_object_id(action) in touched for action in batch.tx.actions[begun:]):
        raise Conflict
    batch.split = begun


def _object_id(action: api.StoreAction) -> str:
    obj: Any = getattr(action, action.WhichOneof("target") or "")
    return str(obj.id)
