"""The runner of all control loops: watches, plans, commits, retries. Knows no planner.

What it promises planners: a fresh view per key, and no await while they plan; a key is never
planned while its last plan is in flight; an object that moved on drops the whole plan and the
key is looked at again; bursts of events are merged; an error backs one key off and leaves the
others alone, a broken invariant ends everything; waking up and pausing use the loop's timers;
keys run in the order in which they became dirty.

Start at `Reconciler.run`; what one planner has going on is in `_Lane`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Protocol, TypeAlias, TypeVar

from swarmd.base import metrics
from swarmd.base.aio import Tasks, until
from swarmd.base.backoff import Backoff
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy, new_id
from swarmd.base.errors import (
    AlreadyExists,
    Conflict,
    InvariantViolation,
    NotFound,
    NotLeader,
    SwarmError,
    invariant,
)
from swarmd.base.limits import watch_events_max
from swarmd.cluster.planning import (
    BURST_SECONDS_MAX,
    QUIET_SECONDS,
    Effect,
    Key,
    Moment,
    Plan,
    Planner,
    make,
)
from swarmd.cluster.store import Batch, Store, Transaction

log = logging.getLogger(__name__)

T = TypeVar("T")
Doer: TypeAlias = Callable[[Any], Awaitable[None]]

plans_in_flight_max = 256
keys_per_turn_max = 64  # planned without letting other tasks of the loop run
clock_check_seconds = 60.0  # how late a step of the wall clock may be noticed
wake_seconds_min = 0.01  # a planner that wants to wake in the past must not spin

RETRY = Backoff(base_seconds=0.1, cap_seconds=30.0)

_plans = metrics.counter("plans_total", "Plans that changed something.", "planner")
_failures = metrics.counter("plan_failures_total", "Plans that failed.", "planner")


class Committer(Protocol):
    """The only way to write; see `manager.commit`."""

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` in a transaction and return once it is applied."""
        ...


@dataclass(slots=True)
class _Entry:
    """What is known of one key of one planner beyond its being dirty."""

    memo: object | None = None
    effects: tuple[Effect, ...] = ()  # of the last plan that had any
    wake_at: float | None = None  # wall seconds
    not_before: float = 0.0  # loop seconds; backing off until then
    failures: int = 0
    flying: bool = False  # its plan is being committed or carried out
    again: bool = False  # became dirty while flying

    @property
    def blank(self) -> bool:
        return not (self.flying or self.failures or self.effects) and (
            self.memo is None and self.wake_at is None
        )


class _Lane:
    """One planner's dirty keys and entries."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.quiet: float = getattr(planner, "quiet_seconds", QUIET_SECONDS)
        self.entries: dict[Key, _Entry] = {}
        self.dirty: dict[Key, None] = {}  # in first-dirtied order
        self.first = 0.0
        self.due = 0.0

    def mark(self, key: Key, now: float, urgent: bool) -> None:
        """Have a key looked at: now, or once events have paused."""
        if not self.dirty:
            self.first = now
            self.due = now if urgent else now + self.quiet
        elif urgent:
            self.due = min(self.due, now)
        elif self.due > now:  # a quiet moment is being waited for: wait for a new one
            self.due = min(now + self.quiet, self.first + BURST_SECONDS_MAX)
        self.dirty.setdefault(key, None)

    def entry(self, key: Key) -> _Entry:
        """The entry of a key, made when missing."""
        return self.entries.setdefault(key, _Entry())

    def tidy(self, key: Key) -> None:
        """Forget an entry that says nothing."""
        entry = self.entries.get(key)
        if entry is not None and entry.blank:
            del self.entries[key]


Timer: TypeAlias = tuple[float, int, _Lane, Key]


class Reconciler:
    """Runs planners against a store until cancelled. One per leadership.

    `effects` finds the doer of an effect by the effect's type. Doers must be idempotent and
    bound their own time; while one runs, its key rests.
    """

    def __init__(
        self,
        planners: Sequence[Planner],
        store: Store,
        committer: Committer,
        clock: Clock,
        entropy: Entropy,
        effects: Mapping[type[Effect], Doer] | None = None,
    ) -> None:
        names = [planner.name for planner in planners]
        invariant(len(set(names)) == len(names), f"two planners share a name: {names}")
        self._lanes = [_Lane(planner) for planner in planners]
        self._store = store
        self._committer = committer
        self._clock = clock
        self._entropy = entropy
        self._effects = dict(effects or {})
        self._batches: deque[Batch] = deque()
        self._queued = 0  # events in `_batches`
        self._lost = False  # events were dropped: look at everything
        self._wakes: list[Timer] = []  # wall seconds
        self._retries: list[Timer] = []  # loop seconds
        self._numbers = count()
        self._flying = 0
        self._stir = asyncio.Event()

    @property
    def resting(self) -> bool:
        """True when no key is dirty and no plan in flight; timers may still be running."""
        waiting = self._batches or self._lost or any(lane.dirty for lane in self._lanes)
        return not waiting and self._flying == 0

    def look_again(self, name: str, key: Key | None = None) -> None:
        """Have a planner look at one key, or at all, because the world outside changed."""
        lane = next((lane for lane in self._lanes if lane.planner.name == name), None)
        if lane is None:
            raise InvariantViolation(f"there is no planner {name}")
        if key is None:
            self._mark_all(lane)
        else:
            lane.mark(key, self._now(), urgent=False)
        self._stir.set()

    async def run(self, ready: asyncio.Event) -> None:
        """Plan until cancelled; `ready` is set after the first look at everything.

        Raises an exception group holding `InvariantViolation` when an invariant broke.
        """
        unsubscribe = self._store.subscribe(self._hear)
        try:
            async with Tasks() as tasks:
                for lane in self._lanes:
                    self._mark_all(lane, urgent=True)
                await self._plan_due(tasks)
                ready.set()
                while True:
                    await self._rest()
                    self._take_batches()
                    self._take_timers()
                    await self._plan_due(tasks)
        finally:
            unsubscribe()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _hear(self, batch: Batch) -> None:
        """Store subscriber: remember the batch, work later."""
        self._queued += len(batch.events)
        if batch.restored or self._queued > watch_events_max:
            self._lost = True
            self._batches.clear()
            self._queued = 0
        elif not self._lost:
            self._batches.append(batch)
        self._stir.set()

    def _take_batches(self) -> None:
        if self._lost:
            self._lost, self._queued = False, 0
            self._batches.clear()
            for lane in self._lanes:
                self._mark_all(lane)
        while self._batches:
            batch = self._batches.popleft()
            for lane in self._lanes:
                self._mark_for(lane, batch)
        self._queued = 0

    def _mark_for(self, lane: _Lane, batch: Batch) -> None:
        view, now = self._store.view(), self._now()
        try:
            for event in batch.events:
                for key in lane.planner.keys_for(event, view):
                    lane.mark(key, now, urgent=False)
        except InvariantViolation:
            raise
        except Exception:
            # The events said where to look; without them, look everywhere.
            self._note_failure(lane, "keys_for")
            self._mark_all(lane)

    def _mark_all(self, lane: _Lane, urgent: bool = False) -> None:
        now = self._now()
        for key in lane.planner.all_keys(self._store.view()):
            lane.mark(key, now, urgent)
        for key in lane.entries:  # keys that are gone may have timers or memos to settle
            lane.mark(key, now, urgent)

    def _take_timers(self) -> None:
        now, wall = self._now(), self._clock.now()
        while self._wakes and self._wakes[0][0] <= wall:
            wake_at, _, lane, key = heappop(self._wakes)
            if self._is_live(wake_at, lane, key):
                lane.entry(key).wake_at = None
                lane.mark(key, now, urgent=True)
                lane.tidy(key)
        while self._retries and self._retries[0][0] <= now:
            _, _, lane, key = heappop(self._retries)
            lane.mark(key, now, urgent=True)

    async def _rest(self) -> None:
        """Wait for something to do: an event, a finished plan, or the next timer."""
        pause = self._pause()
        if pause > 0:
            await until(self._stir, pause)
        else:
            await asyncio.sleep(0)
        self._stir.clear()

    def _pause(self) -> float:
        now = self._now()
        pauses = [clock_check_seconds]
        if self._flying < plans_in_flight_max:
            pauses += [lane.due - now for lane in self._lanes if lane.dirty]
        if self._wakes:
            pauses.append(self._wakes[0][0] - self._clock.now())
        if self._retries:
            pauses.append(self._retries[0][0] - now)
        return min(pauses)

    async def _plan_due(self, tasks: Tasks) -> None:
        planned = 0
        for lane in self._lanes:
            if not lane.dirty or lane.due > self._now():
                continue
            for key in list(lane.dirty):
                if self._flying >= plans_in_flight_max:
                    return  # the rest stays dirty; a finished plan stirs us
                del lane.dirty[key]
                entry = lane.entries.get(key)
                if entry is not None and entry.flying:
                    entry.again = True
                    continue  # marked again when it lands
                if entry is not None and entry.not_before > self._now():
                    continue  # marked again by its retry
                self._plan(lane, key, tasks)
                planned += 1
                if planned % keys_per_turn_max == 0:
                    await asyncio.sleep(0)
                    self._take_batches()

    def _plan(self, lane: _Lane, key: Key, tasks: Tasks) -> None:
        entry = lane.entry(key)
        moment = Moment(
            now=self._clock.now(),
            new_id=partial(new_id, self._entropy),
            memo=entry.memo,
            token=self._entropy.token,
        )
        try:
            plan = lane.planner.plan(self._store.view(), key, moment)
        except InvariantViolation:
            raise
        except Exception:
            self._note_failure(lane, key)
            self._back_off(lane, key, entry)
            return
        if not plan.acts:
            entry.failures, entry.effects = 0, ()
            self._settle(lane, key, entry, plan)
            return
        if plan.reason:
            log.debug("%s %s: %s", lane.planner.name, key, plan.reason)
        entry.flying = True
        self._flying += 1
        tasks.spawn(self._carry_out(lane, key, entry, plan), f"{lane.planner.name}-{key}")

    async def _carry_out(self, lane: _Lane, key: Key, entry: _Entry, plan: Plan) -> None:
        """Commit a plan, then run its effects; the key rests meanwhile."""
        try:
            if plan.changes:
                await self._committer.update(partial(make, plan.changes))
            self._settle(lane, key, entry, plan)
            for effect in plan.effects:
                await self._doer(effect)(effect)
        except InvariantViolation:
            raise
        except (Conflict, AlreadyExists, NotFound) as error:
            log.debug("%s %s: looked again: %s", lane.planner.name, key, error)
            self._back_off(lane, key, entry, at_once=entry.failures == 0)
        except NotLeader as error:
            # Leadership is gone and so are we, soon; until then do not press.
            log.debug("%s %s: %s", lane.planner.name, key, error)
            self._back_off(lane, key, entry)
        except SwarmError as error:  # expected trouble: no trace needed
            _failures.labels(lane.planner.name).inc()
            log.warning("planner %s on %s: %s", lane.planner.name, key, error)
            self._back_off(lane, key, entry)
        except Exception:
            self._note_failure(lane, key)
            self._back_off(lane, key, entry)
        else:
            entry.failures = 0
            _plans.labels(lane.planner.name).inc()
            if plan.effects and plan.effects != entry.effects:
                lane.mark(key, self._now(), urgent=True)  # the world changed: see what is next
            entry.effects = plan.effects
        finally:
            entry.flying = False
            self._flying -= 1
            if entry.again:
                entry.again = False
                lane.mark(key, self._now(), urgent=True)
            lane.tidy(key)
            self._stir.set()

    def _doer(self, effect: Effect) -> Doer:
        doer = self._effects.get(type(effect))
        if doer is None:
            raise InvariantViolation(f"nobody does {type(effect).__name__}")
        return doer

    def _settle(self, lane: _Lane, key: Key, entry: _Entry, plan: Plan) -> None:
        entry.memo = plan.memo
        if plan.wake_at is None:
            entry.wake_at = None
        elif plan.wake_at != entry.wake_at:  # else its timer is already running
            entry.wake_at = max(plan.wake_at, self._clock.now() + wake_seconds_min)
            heappush(self._wakes, (entry.wake_at, next(self._numbers), lane, key))
            self._drop_stale_wakes()
        lane.tidy(key)

    def _drop_stale_wakes(self) -> None:
        """Keep the heap as long as the entries it serves; replanning leaves old timers in it."""
        live = sum(len(lane.entries) for lane in self._lanes)
        if len(self._wakes) > 2 * live + 64:
            self._wakes = [
                timer for timer in self._wakes if self._is_live(timer[0], timer[2], timer[3])
            ]
            heapify(self._wakes)

    @staticmethod
    def _is_live(wake_at: float, lane: _Lane, key: Key) -> bool:
        entry = lane.entries.get(key)
        return entry is not None and entry.wake_at == wake_at

    def _back_off(self, lane: _Lane, key: Key, entry: _Entry, at_once: bool = False) -> None:
        now = self._now()
        delay = 0.0 if at_once else RETRY.delay(entry.failures, self._entropy)
        entry.failures += 1
        entry.not_before = now + delay
        heappush(self._retries, (entry.not_before, next(self._numbers), lane, key))

    @staticmethod
    def _note_failure(lane: _Lane, key: Key) -> None:
        _failures.labels(lane.planner.name).inc()
        log.exception("planner %s failed on %s", lane.planner.name, key)
