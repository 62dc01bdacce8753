"""Reading changes: in order, filtered, and cut off rather than left behind."""

from __future__ import annotations

import asyncio

import pytest

from swarmd import api
from swarmd.base.aio import ChannelClosed
from swarmd.cluster.store import Action, Store
from swarmd.manager.watch import StoreWatch


def put(store: Store, *ids: str, kind: type = api.Config) -> None:
    tx = store.begin(1, 1000.0)
    for id in ids:
        obj = kind(id=id)
        obj.spec.annotations.name = id
        tx.create(obj)
    store.commit(tx, 2)


async def test_changes_come_in_order_from_the_moment_it_is_made() -> None:
    store = Store()
    put(store, "before")
    with StoreWatch(store) as watch:
        put(store, "a", "b")
        put(store, "c")
        first, second = await watch.next(), await watch.next()
    assert [event.object.id for event in first.events] == ["a", "b"]
    assert [event.object.id for event in second.events] == ["c"]
    assert (first.version, first.events[0].action) == (2, Action.CREATE)


async def test_a_reader_waits_for_the_next_change() -> None:
    store = Store()
    with StoreWatch(store) as watch:
        reading = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        assert not reading.done()
        put(store, "a")
        assert [event.object.id for event in (await reading).events] == ["a"]


async def test_only_wanted_events_are_seen_but_every_restore() -> None:
    store = Store()
    with StoreWatch(store, lambda event: event.object.id.startswith("w")) as watch:
        put(store, "x", "w1")
        put(store, "y")
        put(store, "w2", kind=api.Secret)
        store.restore(store.save())
        batches = [await watch.next() for _ in range(3)]
    assert [[event.object.id for event in batch.events] for batch in batches] == [
        ["w1"],
        ["w2"],
        [],
    ]
    assert batches[2].restored


async def test_a_reader_too_far_behind_is_cut_off_after_what_it_has() -> None:
    store = Store()
    with StoreWatch(store, batches_max=3) as watch:
        for number in range(6):
            put(store, f"c{number}")
        for number in range(3):
            assert (await watch.next()).events[0].object.id == f"c{number}"
        with pytest.raises(ChannelClosed, match="fell 3 items behind"):
            await watch.next()


async def test_a_closed_watch_hears_nothing_more() -> None:
    store = Store()
    watch = StoreWatch(store)
    put(store, "a")
    watch.close()
    put(store, "b")
    assert (await watch.next()).events[0].object.id == "a"
    with pytest.raises(ChannelClosed):
        await watch.next()
