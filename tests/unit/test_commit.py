"""Group commit: what is merged, in which order, and who learns what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from swarmd import api
from swarmd.base.clock import ManualClock
from swarmd.base.errors import Conflict, NotLeader
from swarmd.base.limits import changes_per_entry_max, entry_bytes_max
from swarmd.cluster.store import Batch, NameConflict, ObjectMissing, Store, Transaction, edit
from swarmd.manager.commit import Committer, gather_seconds_max
from swarmd.manager.raftnode import Confirmation, Proposal, RequestTooLarge
from swarmd.manager.raftnode.proposals import encode_request
from tests.harness.virtual import run_virtual


class FakeLog:
    """A log whose entries are committed when the test says so."""

    def __init__(self) -> None:
        self.leader = True
        self.index = 10
        self.entries: list[tuple[bytes, Proposal]] = []
        self.doubts: list[Confirmation] = []
        self.done = 0

    def is_leader(self) -> bool:
        return self.leader

    def commit_index(self) -> int:
        return self.index

    def confirm(self, who: Confirmation) -> None:
        if not self.leader:
            raise NotLeader
        self.doubts.append(who)

    def submit(self, actions: Sequence[api.StoreAction], proposal: Proposal) -> None:
        if not self.leader:
            raise NotLeader
        assert self.done == len(self.entries), "one entry at a time"
        self.entries.append((encode_request(1, actions), proposal))

    def actions(self, entry: int) -> list[str]:
        request = api.InternalRaftRequest.FromString(self.entries[entry][0])
        return [f"{a.action} {a.config.id}" for a in request.action]

    def commit(self) -> None:
        self.index += 1
        self.done += 1
        self.entries[self.done - 1][1].on_commit(self.index)

    def lose(self) -> None:
        self.leader = False
        self.done += 1
        self.entries[self.done - 1][1].on_fail(NotLeader())


class Scene:
    def __init__(self) -> None:
        self.log = FakeLog()
        self.store = Store(strict=True)
        self.clock = ManualClock(1000.0)
        self.committer = Committer(self.store, self.log, self.clock)
        self.batches: list[Batch] = []
        self.store.subscribe(self.batches.append)

    def ask(self, change: Callable[[Transaction], Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(self.committer.update(change))

    async def turn(self) -> None:
        """Let everybody who can run do so."""
        for _ in range(5):
            await asyncio.sleep(0)

    def ids(self) -> list[str]:
        return [config.id for config in self.store.view().all(api.Config)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def make(id: str, name: str = "", size: int = 5) -> Callable[[Transaction], api.Config]:
    def change(tx: Transaction) -> api.Config:
        config = api.Config(id=id)
        config.spec.annotations.name = name or id
        config.spec.data = b"x" * size
        return tx.create(config)

    return change


def relabel(id: str, value: str) -> Callable[[Transaction], api.Config]:
    def change(tx: Transaction) -> api.Config:
        found = tx.get(api.Config, id)
        assert found is not None
        config = edit(found)
        config.spec.annotations.labels["l"] = value
        return tx.update(config)

    return change


async def test_one_change_is_one_entry_and_done_once_applied(scene: Scene) -> None:
    asked = scene.ask(make("a"))
    await scene.turn()
    assert scene.log.actions(0) == ["1 a"]
    assert not asked.done() and scene.ids() == []
    scene.log.commit()
    assert scene.ids() == ["a"]
    made = await asked
    assert made.meta.version.index == 10, "the commit index when the change was made"
    assert made.meta.created_at.seconds == 1000
    (batch,) = scene.batches
    assert batch.version == 11 and not batch.restored


async def test_callers_that_come_together_share_an_entry_in_order(scene: Scene) -> None:
    asked = [scene.ask(make(f"c{number}")) for number in range(50)]
    await scene.turn()
    assert len(scene.log.entries) == 1
    assert scene.log.actions(0) == [f"1 c{number}" for number in range(50)]
    scene.log.commit()
    results = await asyncio.gather(*asked)
    assert {result.meta.version.index for result in results} == {10}
    assert len(scene.batches) == 1


async def test_those_who_come_later_wait_for_the_entry_in_flight(scene: Scene) -> None:
    first = scene.ask(make("a"))
    await scene.turn()
    later = [scene.ask(relabel("a", "1")), scene.ask(make("b")), scene.ask(make("c"))]
    await scene.turn()
    assert len(scene.log.entries) == 1
    scene.log.commit()
    await first
    await scene.turn()
    assert scene.log.actions(1) == ["2 a", "1 b", "1 c"]
    scene.log.commit()
    changed, *_ = await asyncio.gather(*later)
    assert changed.meta.version.index == 11
    assert changed.spec.annotations.labels == {"l": "1"}


async def test_a_failing_change_undoes_only_itself(scene: Scene) -> None:
    def half(tx: Transaction) -> None:
        make("half")(tx)
        raise KeyError("mine")

    asked = [scene.ask(make("a", "same")), scene.ask(make("b", "SAME")), scene.ask(half)]
    asked.append(scene.ask(make("c")))
    await scene.turn()
    assert scene.log.actions(0) == ["1 a", "1 c"]
    assert not any(one.done() for one in asked), "b's refusal rests on a, which may still fail"
    scene.log.commit()
    a, b, c, d = await asyncio.gather(*asked, return_exceptions=True)
    assert (a.id, d.id) == ("a", "c")
    assert isinstance(b, NameConflict) and isinstance(c, KeyError)
    assert scene.ids() == ["a", "c"]


async def test_changes_see_those_before_them(scene: Scene) -> None:
    asked = [scene.ask(make("a")), scene.ask(relabel("a", "1")), scene.ask(relabel("a", "2"))]
    await scene.turn()
    assert scene.log.actions(0) == ["1 a", "2 a", "2 a"]
    scene.log.commit()
    await asyncio.gather(*asked)
    found = scene.store.view().get(api.Config, "a")
    assert found is not None and found.spec.annotations.labels == {"l": "2"}


async def test_a_stale_object_is_a_conflict(scene: Scene) -> None:
    asked = scene.ask(make("a"))
    await scene.turn()
    scene.log.commit()
    old = await asked
    newer = scene.ask(relabel("a", "new"))
    await scene.turn()
    scene.log.commit()
    await newer
    refused = scene.ask(lambda tx: tx.update(edit(old)))
    await scene.turn()
    scene.log.doubts.pop().on_confirm()
    with pytest.raises(Conflict, match="update out of sequence"):
        await refused
    assert len(scene.log.entries) == 2, "nothing was written, nothing is proposed"


async def test_a_change_that_only_reads_needs_no_entry(scene: Scene) -> None:
    assert await scene.committer.update(lambda tx: len(tx.all(api.Config))) == 0
    refused = scene.ask(lambda tx: tx.delete(api.Config, "none"))
    await scene.turn()
    scene.log.doubts.pop().on_confirm()
    with pytest.raises(ObjectMissing):
        await refused
    assert scene.log.entries == []


async def test_a_refusal_counts_only_from_a_manager_that_still_leads(scene: Scene) -> None:
    """One that is cut off would refuse by an old state what is right by the new one."""
    first = scene.ask(lambda tx: tx.delete(api.Config, "none"))
    await scene.turn()
    made = scene.ask(make("a"))
    await scene.turn()
    scene.log.commit()
    await made  # is not held up by the doubt about the other
    assert not first.done()
    scene.log.doubts.pop().on_fail(NotLeader())
    with pytest.raises(NotLeader):
        await first

    def and_lose(tx: Transaction) -> None:
        scene.log.leader = False
        tx.delete(api.Config, "none")

    with pytest.raises(NotLeader):
        await scene.committer.update(and_lose)


async def test_each_change_runs_exactly_once(scene: Scene) -> None:
    runs: list[int] = []

    def change(number: int) -> Callable[[Transaction], None]:
        def run(tx: Transaction) -> None:
            runs.append(number)
            make(f"c{number}", size=400_000 if number % 3 == 0 else 10)(tx)

        return run

    asked = [scene.ask(change(number)) for number in range(40)]
    for _ in range(100):
        await scene.turn()
        if all(one.done() for one in asked):
            break
        scene.log.commit()
    await asyncio.gather(*asked)
    assert runs == list(range(40))
    assert len(scene.ids()) == 40


async def test_entries_are_limited_in_changes(scene: Scene) -> None:
    asked = [scene.ask(make(f"c{number:04}")) for number in range(changes_per_entry_max * 2 + 5)]
    for _ in range(3):
        await scene.turn()
        scene.log.commit()
    await asyncio.gather(*asked)
    assert [len(scene.log.actions(entry)) for entry in range(3)] == [200, 200, 5]


async def test_entries_are_limited_in_bytes(scene: Scene) -> None:
    asked = [scene.ask(make(f"c{number:04}", size=300_000)) for number in range(10)]
    for _ in range(4):
        await scene.turn()
        if scene.log.done < len(scene.log.entries):
            scene.log.commit()
    await asyncio.gather(*asked)
    assert [len(scene.log.actions(entry)) for entry in range(3)] == [4, 4, 2]
    assert all(len(data) <= entry_bytes_max for data, _ in scene.log.entries)


async def test_a_change_too_large_for_an_entry_fails_alone(scene: Scene) -> None:
    asked = [scene.ask(make("a")), scene.ask(make("big", size=entry_bytes_max))]
    asked.append(scene.ask(make("b")))
    await scene.turn()
    scene.log.commit()
    _, big, _ = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(big, RequestTooLarge)
    assert scene.ids() == ["a", "b"]


async def test_a_change_that_does_not_fit_beside_others_gets_its_own_entry(scene: Scene) -> None:
    asked = [scene.ask(make("a", size=1_000_000)), scene.ask(make("b", size=1_000_000))]
    asked.append(scene.ask(make("c")))
    await scene.turn()
    assert scene.log.actions(0) == ["1 a"]
    scene.log.commit()
    assert asked[0].done() is False
    await scene.turn()
    assert asked[0].done() and not asked[1].done()
    assert scene.ids() == ["a"]
    assert scene.log.actions(1) == ["1 b"]
    scene.log.commit()
    await scene.turn()
    assert scene.log.actions(2) == ["1 c"], "in order, and not beside b"
    scene.log.commit()
    a, b, c = await asyncio.gather(*asked)
    assert scene.store.view().get(api.Config, "b") == b
    assert (a.meta.version.index, b.meta.version.index, c.meta.version.index) == (10, 10, 12)
    assert [batch.version for batch in scene.batches] == [11, 12, 13]


async def test_such_a_change_must_not_touch_the_same_objects(scene: Scene) -> None:
    asked = scene.ask(make("a", size=1_000_000))
    await scene.turn()
    scene.log.commit()
    await asked
    two = [scene.ask(relabel("a", "1")), scene.ask(relabel("a", "2"))]
    await scene.turn()
    scene.log.commit()
    first, second = await asyncio.gather(*two, return_exceptions=True)
    assert first.spec.annotations.labels == {"l": "1"}
    assert isinstance(second, Conflict)


async def test_losing_the_lead_between_such_entries_keeps_the_first(scene: Scene) -> None:
    asked = [scene.ask(make("a", size=1_000_000)), scene.ask(make("b", size=1_000_000))]
    await scene.turn()
    scene.log.commit()
    scene.log.lose()
    a, b = await asyncio.gather(*asked, return_exceptions=True)
    assert a.id == "a" and isinstance(b, NotLeader)
    assert scene.ids() == ["a"]


async def test_who_does_not_lead_cannot_write(scene: Scene) -> None:
    scene.log.leader = False
    with pytest.raises(NotLeader, match="node lost leader status"):
        await scene.committer.update(make("a"))


async def test_lost_leadership_reaches_everybody(scene: Scene) -> None:
    def fails(tx: Transaction) -> None:
        raise KeyError

    flying = [scene.ask(make("a")), scene.ask(lambda tx: "read"), scene.ask(fails)]
    await scene.turn()
    queued = scene.ask(make("b"))
    await scene.turn()
    scene.log.lose()
    await scene.turn()
    for one in (*flying, queued):
        assert isinstance(one.exception(), NotLeader)
    assert scene.ids() == [] and scene.batches == []
    scene.log.leader = True
    again = scene.ask(make("a"))
    await scene.turn()
    scene.log.commit()
    assert (await again).id == "a"


async def test_leadership_lost_before_the_batch_begins(scene: Scene) -> None:
    asked = scene.ask(make("a"))
    await asyncio.sleep(0)
    scene.log.leader = False
    await scene.turn()
    assert isinstance(asked.exception(), NotLeader)
    assert scene.log.entries == []


async def test_a_caller_cancelled_in_the_queue_changes_nothing(scene: Scene) -> None:
    first = scene.ask(make("a"))
    await scene.turn()
    queued, other = scene.ask(make("b")), scene.ask(make("c"))
    await scene.turn()
    queued.cancel()
    await scene.turn()
    scene.log.commit()
    await first
    await scene.turn()
    assert scene.log.actions(1) == ["1 c"]
    scene.log.commit()
    await other
    assert scene.ids() == ["a", "c"]


async def test_a_caller_cancelled_in_flight_does_not_stop_the_entry(scene: Scene) -> None:
    asked, other = scene.ask(make("a")), scene.ask(make("b"))
    await scene.turn()
    asked.cancel()
    await scene.turn()
    scene.log.commit()
    await other
    assert asked.cancelled()
    assert scene.ids() == ["a", "b"]


class LoopClock:
    """The virtual time of the running loop."""

    def now(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def timed(work: Callable[[Scene], Any]) -> None:
    """Run `work` in virtual time; entries take what the scene waits before `commit`."""

    async def main() -> None:
        scene = Scene()
        scene.committer = Committer(scene.store, scene.log, LoopClock())
        async with asyncio.timeout(60):
            await work(scene)

    run_virtual(main())


async def some_came_and_went(scene: Scene, seconds: float, count: int = 4) -> None:
    """Callers share an entry that takes so long."""
    asked = [scene.ask(make(f"first{number}")) for number in range(count)]
    await asyncio.sleep(seconds)
    scene.log.commit()
    await asyncio.gather(*asked)
    assert len(scene.log.entries) == 1


def test_an_entry_waits_for_those_who_are_coming_back() -> None:
    async def work(scene: Scene) -> None:
        await some_came_and_went(scene, 0.016)
        for number in range(4):
            assert len(scene.log.entries) == 1
            scene.ask(make(f"again{number}"))
            await asyncio.sleep(0.001)
        assert len(scene.log.entries) == 2, "all are there: nothing to wait for"
        assert len(scene.log.actions(1)) == 4

    timed(work)


def test_who_does_not_come_back_is_not_waited_for() -> None:
    async def work(scene: Scene) -> None:
        await some_came_and_went(scene, 0.016)
        scene.ask(make("again"))
        await asyncio.sleep(0.0159)
        assert len(scene.log.entries) == 1
        await asyncio.sleep(0.0002)
        assert scene.log.actions(1) == ["1 again"]

    timed(work)


def test_stragglers_are_waited_for_as_long_as_two_entries_take_at_most() -> None:
    async def work(scene: Scene) -> None:
        await some_came_and_went(scene, 0.004, 8)
        for number in range(5):
            assert len(scene.log.entries) == 1
            scene.ask(make(f"again{number}"))
            await asyncio.sleep(0.0019)
        assert len(scene.log.actions(1)) == 5, "8 ms are over"

    timed(work)


def test_a_slow_disk_makes_nobody_wait_longer() -> None:
    async def work(scene: Scene) -> None:
        await some_came_and_went(scene, 5)
        scene.ask(make("a"))
        await asyncio.sleep(gather_seconds_max + 0.001)
        assert len(scene.log.entries) == 2

    timed(work)


def test_a_lonely_caller_never_waits() -> None:
    async def work(scene: Scene) -> None:
        for number in range(3):
            asked = scene.ask(make(f"k{number}"))
            await scene.turn()
            assert len(scene.log.entries) == number + 1
            await asyncio.sleep(1)
            scene.log.commit()
            await asked

    timed(work)


def test_leadership_lost_while_waiting_for_company_is_told() -> None:
    async def work(scene: Scene) -> None:
        await some_came_and_went(scene, 0.016)
        asked = scene.ask(make("a"))
        await scene.turn()
        scene.log.leader = False
        with pytest.raises(NotLeader):
            await asked

    timed(work)
