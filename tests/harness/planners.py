"""What the tests of planners share: a committer without Raft, and the two standing properties."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from swarmd.base.entropy import SeededEntropy, new_id
from swarmd.cluster.planning import Key, Moment, Plan, Planner, make
from swarmd.cluster.store import Object, Store, Transaction

T = TypeVar("T")


class StoreCommitter:
    """Commits straight to a store, `delay` seconds after being asked; counts entries."""

    def __init__(self, store: Store, delay: float = 0.001) -> None:
        self.store = store
        self.delay = delay
        self.version = 10
        self.errors: list[Exception] = []  # raised, one per call, before anything is done
        self.entries: list[list[str]] = []

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Wait, run the change against the newest state, commit."""
        await asyncio.sleep(self.delay)
        if self.errors:
            raise self.errors.pop(0)
        return self.now(change)

    def now(self, change: Callable[[Transaction], T]) -> T:
        """Run and commit a change at once, as another writer would."""
        self.version += 1
        tx = self.store.begin(self.version, float(self.version))
        result = change(tx)
        if tx.actions:
            self.entries.append([f"{event.action.name} {event.object.id}" for event in tx.events])
            self.store.commit(tx, self.version + 1)
        return result


def a_moment(now: float = 1_700_000_000.0, seed: int = 1, memo: object | None = None) -> Moment:
    """A moment with seeded chance."""
    entropy = SeededEntropy(seed)
    return Moment(now, partial(new_id, entropy), memo, entropy.token)


def store_of(*objects: Object) -> Store:
    """A strict store holding these objects."""
    store = Store(strict=True)
    tx = store.begin(5, 1000.0)
    for obj in objects:
        tx.create(obj)
    store.commit(tx, 6)
    return store


def plan_twice(planner: Planner, store: Store, key: Key, moment: Moment) -> Plan:
    """Plan, twice on the same view: both plans must be equal."""
    seeded = replace(moment)
    first = planner.plan(store.view(), key, seeded)
    again = planner.plan(store.view(), key, replace(a_moment(moment.now), memo=moment.memo))
    assert first == again, "planning twice on the same view gave two plans"
    store.verify()
    return first


def carry_out(store: Store, plan: Plan, version: int = 50) -> None:
    """Commit a plan's changes."""
    tx = store.begin(version, 2000.0)
    make(plan.changes, tx)
    store.commit(tx, version + 1)


def settle(planner: Planner, store: Store, now: float, rounds_max: int = 10) -> list[Plan]:
    """Plan all keys over and over until no plan changes anything; returns the plans that did.

    Fails when that takes more than `rounds_max` rounds.
    """
    memos: dict[Key, object | None] = {}
    acted: list[Plan] = []
    for number in range(rounds_max):
        changed = False
        for key in list(planner.all_keys(store.view())):
            plan = plan_twice(planner, store, key, a_moment(now, memo=memos.get(key)))
            memos[key] = plan.memo
            if plan.changes:
                carry_out(store, plan, 100 + number)
                acted.append(plan)
                changed = True
        if not changed:
            return acted
    raise AssertionError(f"{planner.name} is not at rest after {rounds_max} rounds")
