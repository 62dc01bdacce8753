"""Gossip and IPsec keys: made once, rotated every twelve hours of a leadership."""

from __future__ import annotations

import asyncio

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster.housekeeping.keymanager import GOSSIP, IPSEC, KeyManager, rotated
from swarmd.cluster.planning import Plan, Update
from swarmd.cluster.store import Action, Event, Store, edit
from swarmd.manager.reconciler import Reconciler
from tests.harness.planners import (
    StoreCommitter,
    a_moment,
    carry_out,
    plan_twice,
    settle,
    store_of,
)
from tests.harness.virtual import LoopClock, run_virtual

NOW = 1_700_000_000.0
HALF_DAY = 12 * 3600.0


def a_cluster() -> api.Cluster:
    cluster = api.Cluster(id="c1")
    cluster.spec.annotations.name = "default"
    return cluster


def updated(plan: Plan) -> api.Cluster:
    (change,) = plan.changes
    assert isinstance(change, Update) and isinstance(change.object, api.Cluster)
    return change.object


def keys_of(store: Store) -> list[tuple[str, int]]:
    cluster = store.view().cluster()
    assert cluster is not None
    return [(key.subsystem, key.lamport_time) for key in cluster.network_bootstrap_keys]


def with_keys() -> Store:
    store = store_of(a_cluster())
    settle(KeyManager(), store, NOW)
    return store


def test_first_keys_have_the_stock_shape() -> None:
    cluster = updated(plan_twice(KeyManager(), store_of(a_cluster()), "c1", a_moment(NOW)))
    keys = list(cluster.network_bootstrap_keys)
    assert [key.subsystem for key in keys] == [GOSSIP] * 3 + [IPSEC] * 3
    start = keys[0].lamport_time - 1
    assert 0 <= start <= 65535
    assert [key.lamport_time for key in keys] == list(range(start + 1, start + 7))
    assert cluster.encryption_key_lamport_clock == start + 6
    assert {len(key.key) for key in keys} == {16}
    assert len({key.key for key in keys}) == 6
    assert {key.algorithm for key in keys} == {api.EncryptionKey.Algorithm.AES_128_GCM}


def test_existing_keys_start_a_new_interval_under_a_new_leader() -> None:
    plan = plan_twice(KeyManager(), with_keys(), "c1", a_moment(NOW + 5 * HALF_DAY))
    assert plan.changes == ()
    assert plan.wake_at == NOW + 6 * HALF_DAY


def test_looking_early_does_not_move_the_interval() -> None:
    store = with_keys()
    plan = KeyManager().plan(store.view(), "c1", a_moment(NOW + 60, memo=NOW))
    assert (plan.changes, plan.wake_at, plan.memo) == ((), NOW + HALF_DAY, NOW)


def test_rotation_drops_the_oldest_of_each_subsystem() -> None:
    store = with_keys()
    before = keys_of(store)
    plan = plan_twice(KeyManager(), store, "c1", a_moment(NOW + HALF_DAY, memo=NOW))
    carry_out(store, plan)
    last = before[-1][1]
    assert keys_of(store) == [*before[1:3], (GOSSIP, last + 1), *before[4:], (IPSEC, last + 2)]
    assert plan.memo == NOW + HALF_DAY
    assert plan.wake_at == NOW + 2 * HALF_DAY
    assert updated(plan).encryption_key_lamport_clock == last + 2


@pytest.mark.parametrize("times", [[7, 5, 6], [5, 6, 7], [6, 7, 5]])
def test_the_oldest_is_the_one_with_the_lowest_time_wherever_it_stands(times: list[int]) -> None:
    cluster = a_cluster()
    cluster.encryption_key_lamport_clock = 7
    for time in times:
        cluster.network_bootstrap_keys.add(subsystem=GOSSIP, lamport_time=time, key=b"k")
    result = rotated(cluster, a_moment())
    assert [key.lamport_time for key in result.network_bootstrap_keys] == [
        *(time for time in times if time != 5),
        8,
    ]


def test_a_short_set_grows_and_a_long_one_shrinks() -> None:
    cluster = a_cluster()
    cluster.encryption_key_lamport_clock = 9
    cluster.network_bootstrap_keys.add(subsystem=GOSSIP, lamport_time=9)
    for time in range(1, 7):
        cluster.network_bootstrap_keys.add(subsystem=IPSEC, lamport_time=time)
    result = rotated(cluster, a_moment())
    held = [(key.subsystem, key.lamport_time) for key in result.network_bootstrap_keys]
    assert held == [(GOSSIP, 9), (GOSSIP, 10), (IPSEC, 5), (IPSEC, 6), (IPSEC, 11)]


def test_events_that_matter() -> None:
    store = with_keys()
    cluster = store.view().cluster()
    assert cluster is not None
    bare = edit(cluster)
    del bare.network_bootstrap_keys[:]
    manager, view = KeyManager(), store.view()
    assert list(manager.keys_for(Event(Action.UPDATE, bare, cluster), view)) == ["c1"]
    assert list(manager.keys_for(Event(Action.UPDATE, cluster, bare), view)) == []
    assert list(manager.keys_for(Event(Action.CREATE, api.Node(id="n")), view)) == []


def test_other_clusters_are_left_alone() -> None:
    assert KeyManager().plan(store_of(a_cluster()).view(), "c2", a_moment()) == Plan()
    assert list(KeyManager().all_keys(Store().view())) == []


def test_a_day_and_a_half_in_the_runner() -> None:
    async def main() -> None:
        store = store_of()
        committer = StoreCommitter(store)
        runner = Reconciler([KeyManager()], store, committer, LoopClock(), SeededEntropy(3))
        async with Tasks() as tasks:
            ready = asyncio.Event()
            tasks.spawn(runner.run(ready), "reconciler")
            await ready.wait()
            committer.now(lambda tx: tx.create(a_cluster()))
            await asyncio.sleep(1)
            first = keys_of(store)
            assert len(first) == 6
            await asyncio.sleep(HALF_DAY - 2)
            assert keys_of(store) == first
            await asyncio.sleep(2 * HALF_DAY + 60)
            assert len(committer.entries) == 1 + 1 + 3
            held = keys_of(store)
            assert len(held) == 6
            assert not {time for _, time in held} & {time for _, time in first}

    run_virtual(main())
