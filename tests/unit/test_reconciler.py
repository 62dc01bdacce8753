"""The runner of planners: each of its promises, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import Conflict, InvariantViolation, NotLeader, Unavailable
from swarmd.cluster.planning import Create, Delete, Effect, Key, Moment, Plan, Planner, Update
from swarmd.cluster.store import Event, Store, Transaction, View, edit
from swarmd.manager.reconciler import Reconciler
from tests.harness.planners import StoreCommitter, store_of
from tests.harness.virtual import LoopClock, run_virtual


@dataclass(frozen=True)
class Ring(Effect):
    """An effect for tests."""

    who: str


class Scripted(Planner):
    """Plans nodes by a function; records when each key was planned."""

    def __init__(
        self, decide: Callable[[View, Key, Moment], Plan], quiet: float = 0.0, name: str = "test"
    ) -> None:
        self.name = name
        self.quiet_seconds = quiet
        self.decide = decide
        self.looks: list[tuple[float, Key]] = []

    def all_keys(self, view: View) -> Iterable[Key]:
        return [node.id for node in view.all(api.Node)]

    def keys_for(self, event: Event, view: View) -> Iterable[Key]:
        return [event.object.id] if isinstance(event.object, api.Node) else []

    def plan(self, view: View, key: Key, moment: Moment) -> Plan:
        self.looks.append((round(asyncio.get_running_loop().time(), 6), key))
        return self.decide(view, key, moment)


def nothing(view: View, key: Key, moment: Moment) -> Plan:
    return Plan()


def address(view: View, key: Key, moment: Moment) -> Plan:
    """Wants every node to have an address."""
    node = view.get(api.Node, key)
    if node is None or node.status.addr:
        return Plan()
    draft = edit(node)
    draft.status.addr = "here"
    return Plan((Update(draft),), reason="no address")


@dataclass
class Rig:
    """A store with its committer and the runner under test."""

    store: Store
    committer: StoreCommitter
    reconciler: Reconciler
    rung: list[str] = field(default_factory=list)

    def put(self, *ids: str) -> None:
        """Somebody creates nodes, in one entry."""
        self.committer.now(lambda tx: [tx.create(api.Node(id=id)) for id in ids])

    def touch(self, id: str) -> None:
        """Somebody updates a node."""

        def change(tx: Transaction) -> None:
            node = tx.get(api.Node, id)
            assert node is not None
            draft = edit(node)
            draft.status.message += "."
            tx.update(draft)

        self.committer.now(change)


def with_rig(
    planners: list[Scripted],
    script: Callable[[Rig], Awaitable[None]],
    nodes: Iterable[str] = (),
    delay: float = 0.001,
) -> Rig:
    """Run the reconciler beside `script`, until the script ends."""

    async def main() -> Rig:
        store = store_of(*(api.Node(id=id) for id in nodes))
        committer = StoreCommitter(store, delay)
        rung: list[str] = []

        async def ring(effect: Ring) -> None:
            await asyncio.sleep(0.5)
            rung.append(effect.who)

        reconciler = Reconciler(
            planners, store, committer, LoopClock(), SeededEntropy(7), {Ring: ring}
        )
        rig = Rig(store, committer, reconciler, rung)
        async with Tasks() as tasks:
            ready = asyncio.Event()
            tasks.spawn(reconciler.run(ready), "reconciler")
            await ready.wait()
            await script(rig)
        return rig

    return run_virtual(main())


async def wait(seconds: float) -> None:
    await asyncio.sleep(seconds)


class TestLooking:
    def test_all_keys_are_looked_at_first_in_order_then_those_of_events(self) -> None:
        planner = Scripted(nothing)

        async def script(rig: Rig) -> None:
            assert [key for _, key in planner.looks] == ["a", "b", "c"]
            rig.touch("b")
            await wait(1)
            assert [key for _, key in planner.looks[3:]] == ["b"]
            assert rig.reconciler.resting

        with_rig([planner], script, nodes="cab")

    def test_zero_quiet_acts_on_the_next_turn(self) -> None:
        planner = Scripted(nothing, quiet=0)

        async def script(rig: Rig) -> None:
            rig.put("a")
            await wait(0)
            await wait(0)
            await wait(0)
            assert planner.looks == [(0.0, "a")]

        with_rig([planner], script)

    def test_bursts_are_merged_until_quiet(self) -> None:
        planner = Scripted(nothing, quiet=0.05)

        async def script(rig: Rig) -> None:
            rig.put("b")
            for _ in range(4):
                await wait(0.03)
                rig.touch("b")
            rig.put("a")
            await wait(1)
            assert planner.looks == [(0.17, "b"), (0.17, "a")]

        with_rig([planner], script)

    def test_a_burst_without_pause_is_cut_after_a_second(self) -> None:
        planner = Scripted(nothing, quiet=0.05)

        async def script(rig: Rig) -> None:
            rig.put("a")
            for _ in range(60):
                await wait(0.03)
                rig.touch("a")
            await wait(1)
            assert [time for time, _ in planner.looks] == pytest.approx([1.0, 1.85], abs=0.04)

        with_rig([planner], script)

    def test_planners_have_their_own_pauses(self) -> None:
        slow, fast = Scripted(nothing, 0.5, "slow"), Scripted(nothing, 0.0, "fast")

        async def script(rig: Rig) -> None:
            rig.put("a")
            await wait(1)
            assert slow.looks == [(0.5, "a")]
            assert fast.looks == [(0.0, "a")]

        with_rig([slow, fast], script)

    def test_look_again_on_request(self) -> None:
        planner = Scripted(nothing)

        async def script(rig: Rig) -> None:
            planner.looks.clear()
            rig.reconciler.look_again("test", "b")
            await wait(0.1)
            assert [key for _, key in planner.looks] == ["b"]
            rig.reconciler.look_again("test")
            await wait(0.1)
            assert [key for _, key in planner.looks] == ["b", "a", "b"]
            with pytest.raises(InvariantViolation):
                rig.reconciler.look_again("nobody")

        with_rig([planner], script, nodes="ab")

    def test_a_restore_has_everything_looked_at(self) -> None:
        planner = Scripted(nothing)

        async def script(rig: Rig) -> None:
            snapshot = rig.store.save()
            snapshot.nodes.add(id="c")
            planner.looks.clear()
            rig.store.restore(snapshot)
            await wait(0.1)
            assert [key for _, key in planner.looks] == ["a", "b", "c"]

        with_rig([planner], script, nodes="ab")

    def test_more_events_than_are_kept_have_everything_looked_at(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("swarmd.manager.reconciler.watch_events_max", 3)
        planner = Scripted(nothing)

        async def script(rig: Rig) -> None:
            planner.looks.clear()
            for _ in range(5):
                rig.touch("b")
            await wait(0.1)
            assert [key for _, key in planner.looks] == ["a", "b"]
            rig.touch("b")
            await wait(0.1)
            assert [key for _, key in planner.looks[2:]] == ["b"]

        with_rig([planner], script, nodes="ab")

    def test_many_keys_let_others_run(self) -> None:
        planner = Scripted(nothing)
        turns = 0

        async def script(rig: Rig) -> None:
            nonlocal turns
            rig.put(*(f"n{number:03}" for number in range(200)))
            while len(planner.looks) < 200:
                turns += 1
                await wait(0)

        with_rig([planner], script)
        assert turns >= 3


class TestCommitting:
    def test_plans_are_committed_and_then_at_rest(self) -> None:
        planner = Scripted(address)

        async def script(rig: Rig) -> None:
            await wait(1)
            assert [n.status.addr for n in rig.store.view().all(api.Node)] == ["here"] * 3
            assert rig.committer.entries == [["UPDATE a"], ["UPDATE b"], ["UPDATE c"]]
            assert rig.reconciler.resting
            assert len(planner.looks) == 6  # once to act, once to see that it is done

        with_rig([planner], script, nodes="abc")

    def test_a_key_in_flight_is_not_planned(self) -> None:
        planner = Scripted(address)

        async def script(rig: Rig) -> None:
            rig.touch("a")
            await wait(0.5)
            rig.touch("a")
            await wait(0.4)
            assert len(planner.looks) == 1  # its commit takes a second
            await wait(5)
            node = rig.store.view().get(api.Node, "a")
            assert node is not None and node.status.addr == "here"
            assert rig.reconciler.resting

        with_rig([planner], script, nodes="a", delay=1.0)

    def test_creates_do_not_double(self) -> None:
        def one_task_each(view: View, key: Key, moment: Moment) -> Plan:
            if view.by(api.Task, "node", key):
                return Plan()
            return Plan((Create(api.Task(id=moment.new_id(), node_id=key)),))

        planner = Scripted(one_task_each)

        async def script(rig: Rig) -> None:
            for _ in range(5):
                rig.touch("a")
                await wait(0.2)
            await wait(3)
            assert len(rig.store.view().all(api.Task)) == 1

        with_rig([planner], script, nodes="a", delay=1.0)

    def test_an_object_that_moved_on_drops_the_whole_plan(self) -> None:
        def both(view: View, key: Key, moment: Moment) -> Plan:
            node = view.get(api.Node, key)
            if node is None or node.status.addr:
                return Plan()
            draft = edit(node)
            draft.status.addr = "here"
            return Plan((Create(api.Task(id=moment.new_id())), Update(draft)))

        planner = Scripted(both)

        async def script(rig: Rig) -> None:
            rig.touch("a")
            await wait(1.05)
            assert rig.store.view().all(api.Task) == []  # the first plan was stale
            await wait(2)
            assert len(rig.store.view().all(api.Task)) == 1
            assert len([1 for entry in rig.committer.entries if "CREATE" in entry[0]]) == 1

        with_rig([planner], script, nodes="a", delay=1.0)

    def test_a_delete_minds_the_version(self) -> None:
        def remove(view: View, key: Key, moment: Moment) -> Plan:
            node = view.get(api.Node, key)
            if node is None or node.status.message == "..":
                return Plan()
            return Plan((Delete(api.Node, key, node.meta.version.index),))

        planner = Scripted(remove)

        async def script(rig: Rig) -> None:
            rig.touch("a")
            rig.touch("a")
            await wait(5)
            assert rig.store.view().get(api.Node, "a") is not None

        with_rig([planner], script, nodes="a", delay=1.0)

    def test_flights_are_limited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("swarmd.manager.reconciler.plans_in_flight_max", 2)
        planner = Scripted(address)

        async def script(rig: Rig) -> None:
            assert [key for _, key in planner.looks] == ["a", "b"]
            await wait(1.5)
            assert [key for _, key in planner.looks[2:4]] == ["c", "d"]
            await wait(5)
            assert len(rig.committer.entries) == 5

        with_rig([planner], script, nodes="edcba", delay=1.0)


class TestFailing:
    def test_an_error_backs_one_key_off_and_others_go_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = True

        def sometimes(view: View, key: Key, moment: Moment) -> Plan:
            if key == "a" and broken:
                raise ValueError("no")
            return address(view, key, moment)

        planner = Scripted(sometimes)

        async def script(rig: Rig) -> None:
            nonlocal broken
            for _ in range(20):
                await wait(1)
                rig.touch("a")  # events do not shorten the pause
            looks = [time for time, key in planner.looks if key == "a"]
            assert 4 <= len(looks) <= 12
            assert [n.status.addr for n in rig.store.view().all(api.Node)] == ["", "here"]
            broken = False
            await wait(60)
            assert [n.status.addr for n in rig.store.view().all(api.Node)] == ["here", "here"]
            assert rig.reconciler.resting

        with_rig([planner], script, nodes="ab")
        assert "planner test failed on a" in caplog.text

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (NotLeader(), False),
            (Conflict(), False),
            (Unavailable("later"), True),
            (OSError("disk"), True),
        ],
    )
    def test_a_failed_commit_is_tried_again(
        self, error: Exception, told: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        planner = Scripted(address)

        async def script(rig: Rig) -> None:
            rig.committer.errors.append(error)
            await wait(5)
            node = rig.store.view().get(api.Node, "a")
            assert node is not None and node.status.addr == "here"
            assert rig.reconciler.resting

        with_rig([planner], script, nodes="a")
        assert bool(caplog.records) is told
        assert ("Traceback" in caplog.text) is isinstance(error, OSError)

    def test_an_error_in_keys_for_means_looking_everywhere(self) -> None:
        planner = Scripted(nothing)

        async def script(rig: Rig) -> None:
            planner.looks.clear()

            def fail(event: Event, view: View) -> Iterable[Key]:
                raise ValueError("no")

            planner.keys_for = fail
            rig.touch("b")
            await wait(1)
            assert [key for _, key in planner.looks] == ["a", "b"]

        with_rig([planner], script, nodes="ab")

    def test_a_broken_invariant_ends_the_run(self) -> None:
        def broken(view: View, key: Key, moment: Moment) -> Plan:
            raise InvariantViolation("impossible")

        async def never(rig: Rig) -> None:
            await wait(1000)

        with pytest.raises(ExceptionGroup) as caught:
            with_rig([Scripted(broken)], never, nodes="a")
        assert caught.group_contains(InvariantViolation, match="impossible", depth=None)

    def test_an_effect_nobody_does_is_a_bug(self) -> None:
        class Unknown(Effect):
            pass

        async def never(rig: Rig) -> None:
            await wait(1000)

        with pytest.raises(ExceptionGroup) as caught:
            with_rig(
                [Scripted(lambda view, key, moment: Plan(effects=(Unknown(),)))], never, nodes="a"
            )
        assert caught.group_contains(InvariantViolation, match="nobody does Unknown", depth=None)

    def test_two_planners_with_one_name_are_a_bug(self) -> None:
        async def never(rig: Rig) -> None:
            return None

        with pytest.raises(InvariantViolation, match="two planners share a name"):
            with_rig([Scripted(nothing), Scripted(nothing)], never)


class TestTimers:
    def test_a_planner_is_woken_when_it_asked(self) -> None:
        def daily(view: View, key: Key, moment: Moment) -> Plan:
            return Plan(wake_at=moment.now + 86_400)

        planner = Scripted(daily)

        async def script(rig: Rig) -> None:
            await wait(3 * 86_400 + 1)
            assert [time for time, _ in planner.looks] == pytest.approx(
                [0, 86_400, 172_800, 259_200]
            )

        with_rig([planner], script, nodes="a")

    def test_the_last_wish_counts(self) -> None:
        wishes = iter((100.0, 50.0, None, None))

        def decide(view: View, key: Key, moment: Moment) -> Plan:
            wish = next(wishes)
            return Plan(wake_at=None if wish is None else moment.now + wish)

        planner = Scripted(decide)

        async def script(rig: Rig) -> None:
            await wait(10)
            rig.touch("a")
            await wait(10)
            rig.touch("a")
            await wait(1000)
            assert [time for time, _ in planner.looks] == pytest.approx([0, 10, 20])

        with_rig([planner], script, nodes="a")

    def test_a_wish_in_the_past_does_not_spin(self) -> None:
        planner = Scripted(lambda view, key, moment: Plan(wake_at=moment.now - 5))

        async def script(rig: Rig) -> None:
            await wait(1)
            assert 50 <= len(planner.looks) <= 101

        with_rig([planner], script, nodes="a")

    def test_old_timers_do_not_pile_up(self) -> None:
        planner = Scripted(lambda view, key, moment: Plan(wake_at=moment.now + 1000))

        async def script(rig: Rig) -> None:
            for _ in range(300):
                rig.touch("a")
                await wait(0.01)
            assert len(planner.looks) == 301
            assert len(rig.reconciler._wakes) < 100
            await wait(1000)
            assert len(planner.looks) == 302

        with_rig([planner], script, nodes="a")

    def test_memos_come_back_once_committed(self) -> None:
        memos: list[object] = []

        def remember(view: View, key: Key, moment: Moment) -> Plan:
            memos.append(moment.memo)
            count = moment.memo if isinstance(moment.memo, int) else 0
            plan = address(view, key, moment)
            return Plan(plan.changes, memo=count + 1)

        planner = Scripted(remember)

        async def script(rig: Rig) -> None:
            rig.committer.errors.append(OSError("disk"))
            await wait(5)
            rig.touch("a")
            await wait(1)
            # refused: no memo; carried out: 1; seen done: 2
            assert memos == [None, None, 1, 2]

        with_rig([planner], script, nodes="a")

    def test_nothing_is_kept_for_keys_that_are_gone(self) -> None:
        def woken(view: View, key: Key, moment: Moment) -> Plan:
            there = view.get(api.Node, key) is not None
            return Plan(wake_at=moment.now + 9) if there else Plan()

        planner = Scripted(woken)

        async def script(rig: Rig) -> None:
            rig.committer.now(lambda tx: tx.delete(api.Node, "a"))
            await wait(100)
            assert rig.reconciler._lanes[0].entries == {}

        with_rig([planner], script, nodes="a")


class TestEffects:
    def test_effects_run_after_the_commit_and_once(self) -> None:
        def decide(view: View, key: Key, moment: Moment) -> Plan:
            plan = address(view, key, moment)
            return Plan(plan.changes, (Ring(key),) if plan.changes else ())

        planner = Scripted(decide)

        async def script(rig: Rig) -> None:
            await wait(0.3)
            node = rig.store.view().get(api.Node, "a")
            assert node is not None and node.status.addr == "here"
            assert rig.rung == [] and len(planner.looks) == 1  # the key rests meanwhile
            await wait(5)
            assert rig.rung == ["a"]
            assert rig.reconciler.resting

        with_rig([planner], script, nodes="a")

    def test_the_key_is_looked_at_again_after_an_effect_but_not_for_ever(self) -> None:
        planner = Scripted(
            lambda view, key, moment: Plan(effects=(Ring(key),), wake_at=moment.now + 100)
        )

        async def script(rig: Rig) -> None:
            await wait(90)
            assert rig.rung == ["a", "a"]
            await wait(100)
            assert rig.rung == ["a", "a", "a"]

        with_rig([planner], script, nodes="a")

    def test_a_failing_effect_is_tried_again(self) -> None:
        tries: list[float] = []

        async def main() -> None:
            async def ring(effect: Ring) -> None:
                tries.append(asyncio.get_running_loop().time())
                if len(tries) < 4:
                    raise OSError("no bell")

            store = store_of(api.Node(id="a"))
            planner = Scripted(
                lambda view, key, moment: Plan() if len(tries) > 3 else Plan(effects=(Ring(key),))
            )
            reconciler = Reconciler(
                [planner], store, StoreCommitter(store), LoopClock(), SeededEntropy(1), {Ring: ring}
            )
            async with Tasks() as tasks:
                tasks.spawn(reconciler.run(asyncio.Event()), "reconciler")
                await wait(30)
                assert len(tries) == 4
                assert tries == sorted(set(tries))
                assert reconciler.resting

        run_virtual(main())


def test_a_run_is_the_same_every_time() -> None:
    def trace() -> list[tuple[float, Key]]:
        def shaky(view: View, key: Key, moment: Moment) -> Plan:
            if moment.token(1)[0] < 60:
                raise ValueError("unlucky")
            return address(view, key, moment)

        planner = Scripted(shaky, quiet=0.05)

        async def script(rig: Rig) -> None:
            for number in range(20):
                rig.put(f"x{number}")
                await wait(0.02 * (number % 5))
            await wait(60)
            assert all(node.status.addr for node in rig.store.view().all(api.Node))

        with_rig([planner], script, nodes="abc")
        return planner.looks

    assert trace() == trace()


def test_the_subscription_ends_with_the_run() -> None:
    planner = Scripted(nothing)

    async def script(rig: Rig) -> None:
        rig.put("a")

    rig = with_rig([planner], script)
    rig.put("b")
    assert len(rig.reconciler._batches) <= 1
