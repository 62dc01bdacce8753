"""Keeping the address a manager is known by: whom it asks, how often, and what it gives up on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import (
    NO_LEADER,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotLeader,
    SwarmError,
    Unavailable,
)
from swarmd.manager.ownaddress import MOVE_SECONDS, OwnAddress, is_final
from swarmd.manager.raftnode import AddressTaken, Member, Members
from swarmd.manager.raftnode.members import raft_member
from swarmd.manager.raftservice.membership import CANNOT_DIAL_BACK
from tests.harness.raftnodes import Group, One, eventually
from tests.harness.virtual import run_virtual

OLD, NEW, NEWER = "10.0.0.1:2377", "10.9.9.9:2377", "10.9.9.8:2377"
UNREACHABLE = SwarmError(f"{CANNOT_DIAL_BACK}: rpc error: code = Unavailable desc = x")


class FakeRaft:
    """A member with id 1 of three."""

    def __init__(self, count: int = 3, lead: int = 2) -> None:
        self.id = 1
        self.lead = lead
        self.unreachable: set[int] = set()
        self.membership = Members()
        self._callbacks: list[Callable[[], None]] = []
        for raft_id in range(1, count + 1):
            self.put(raft_id, f"10.0.0.{raft_id}:2377")

    def put(self, raft_id: int, addr: str) -> None:
        """What a committed change does."""
        self.membership.add(raft_member(raft_id, f"node{raft_id}", addr))
        for callback in list(self._callbacks):
            callback()

    def is_leader(self) -> bool:
        return self.lead == self.id

    def members(self) -> Sequence[Member]:
        return [
            Member(
                m.raft_id,
                m.node_id,
                m.addr,
                leader=m.raft_id == self.lead,
                reachable=m.raft_id not in self.unreachable,
            )
            for m in self.membership.all()
        ]

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)


class FakeWays:
    """Answers from a list, then says yes and makes the change after a while."""

    def __init__(self, raft: FakeRaft, *answers: SwarmError) -> None:
        self.raft = raft
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []
        self.shows = True

    async def ask(self, via: str, addr: str) -> None:
        await self._answer(via, addr)

    async def ask_self(self, addr: str, *, unchecked: bool) -> None:
        await self._answer("unchecked" if unchecked else "self", addr)

    async def let_another_lead(self) -> None:
        self.asked.append(("hand over", ""))
        self.raft.lead = 3

    async def _answer(self, via: str, addr: str) -> None:
        self.asked.append((via, addr))
        if self.answers:
            raise self.answers.pop(0)
        if self.shows:
            asyncio.get_running_loop().call_later(0.1, self.raft.put, 1, addr)


def address(raft: FakeRaft, ways: FakeWays, wanted: str = "") -> OwnAddress:
    return OwnAddress(raft, ways, SeededEntropy(1), wanted)


def moving(raft: FakeRaft, ways: FakeWays, to: str = NEW, **how: Any) -> OwnAddress:
    """Move once, in virtual time."""
    made = address(raft, ways, OLD)
    run_virtual(made.move(to, **how))
    return made


def test_a_follower_asks_the_leader_and_waits_until_it_shows() -> None:
    raft = FakeRaft()
    ways = FakeWays(raft)
    made = moving(raft, ways)
    assert ways.asked == [("10.0.0.2:2377", NEW)]
    assert (made.known, made.wanted, made.settled) == (NEW, NEW, True)


def test_a_leader_has_its_address_judged_by_another_one() -> None:
    raft = FakeRaft(lead=1)
    ways = FakeWays(raft)
    moving(raft, ways)
    assert ways.asked[0] == ("hand over", "")
    assert [addr for _, addr in ways.asked[1:]] == [NEW]


@pytest.mark.parametrize(("unchecked", "way"), [(False, "self"), (True, "unchecked")])
def test_a_sole_manager_asks_itself(unchecked: bool, way: str) -> None:
    raft = FakeRaft(count=1, lead=1)
    ways = FakeWays(raft)
    moving(raft, ways, unchecked=unchecked)
    assert ways.asked == [(way, NEW)]


def test_who_knows_no_leader_goes_by_all_others_the_reachable_first() -> None:
    raft = FakeRaft(lead=0)
    raft.unreachable = {2}
    ways = FakeWays(raft, Unavailable("gone"))
    moving(raft, ways)
    assert ways.asked == [("10.0.0.3:2377", NEW), ("10.0.0.2:2377", NEW)]


PASSING = [
    Unavailable("no connection"),
    NotLeader(),
    NotLeader(NO_LEADER),
    FailedPrecondition("raft: node is not yet part of a raft cluster"),
]


@pytest.mark.parametrize("trouble", PASSING, ids=lambda error: error.message[:20])
def test_what_passes_is_waited_out(trouble: SwarmError) -> None:
    raft = FakeRaft()
    ways = FakeWays(raft, *[trouble] * 7)
    assert moving(raft, ways).settled
    assert not is_final(trouble)


@pytest.mark.parametrize(
    "refusal",
    [UNREACHABLE, InvalidArgument("invalid address"), AlreadyExists("somebody's")],
    ids=lambda error: error.message[:20],
)
def test_what_is_refused_is_raised_at_once_and_wanted_no_more(refusal: SwarmError) -> None:
    raft = FakeRaft()
    ways = FakeWays(raft, refusal)
    made = address(raft, ways, OLD)
    with pytest.raises(SwarmError) as caught:
        run_virtual(made.move(NEW))
    assert caught.value is refusal
    assert len(ways.asked) == 1
    assert (made.wanted, made.known, made.settled) == (OLD, OLD, True)


def test_the_address_of_another_member_is_not_even_asked_for() -> None:
    raft = FakeRaft()
    ways = FakeWays(raft)
    with pytest.raises(AddressTaken, match=r"10.0.0.3:2377 belongs to another manager, node node3"):
        moving(raft, ways, "10.0.0.3:2377")
    assert ways.asked == []


def test_without_a_leader_the_change_is_given_up_in_the_end() -> None:
    raft = FakeRaft(lead=0)
    ways = FakeWays(raft, *[NotLeader(NO_LEADER)] * 1000)
    made = address(raft, ways, OLD)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(NotLeader) as caught:
            await made.move(NEW)
        assert caught.value.message == NO_LEADER
        return loop.time() - begun

    assert run_virtual(main()) == pytest.approx(MOVE_SECONDS, abs=1)
    assert made.wanted == OLD


def test_managers_that_are_all_away_are_named_as_the_reason() -> None:
    raft = FakeRaft(lead=0)
    ways = FakeWays(raft, *[Unavailable("dialling x")] * 1000)
    with pytest.raises(Unavailable, match="no other manager could be asked: dialling x"):
        moving(raft, ways)


def test_an_answer_that_was_lost_is_looked_up_in_the_member_list() -> None:
    raft = FakeRaft()
    ways = FakeWays(raft, Unavailable("broken"), Unavailable("broken"))

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.2, raft.put, 1, NEW)  # it had arrived
        await address(raft, ways, OLD).move(NEW)

    run_virtual(main())
    assert len(ways.asked) == 2


# The part that runs all the time


def keeping(made: OwnAddress, seconds: float, *steps: Callable[[], None]) -> None:
    """Run it that long in virtual time, with steps in between."""

    async def main() -> None:
        async with Tasks() as tasks:
            tasks.spawn(made.run(), "keeper")
            for step in (*steps, lambda: None):
                await asyncio.sleep(seconds)
                step()

    run_virtual(main())


@pytest.mark.parametrize("wanted", ["", OLD])
def test_nothing_is_asked_while_all_is_well(wanted: str) -> None:
    raft = FakeRaft()
    ways = FakeWays(raft)
    keeping(address(raft, ways, wanted), 100, lambda: raft.put(2, "10.0.0.77:2377"))
    assert ways.asked == []


def test_a_start_with_another_address_tells_it() -> None:
    raft = FakeRaft()
    ways = FakeWays(raft, *PASSING)
    made = address(raft, ways, NEW)
    keeping(made, 300)
    assert made.settled and made.trouble == ""
    assert ways.asked[-1] == ("10.0.0.2:2377", NEW)


def test_a_member_that_is_none_yet_waits_for_the_list() -> None:
    raft = FakeRaft()
    raft.id = 7
    ways = FakeWays(raft)
    made = address(raft, ways, NEW)
    keeping(made, 50)
    assert ways.asked == [] and made.settled


def test_refusals_are_shown_and_asked_again_more_and_more_rarely() -> None:
    raft = FakeRaft()
    ways = FakeWays(raft, *[UNREACHABLE] * 10_000)
    made = address(raft, ways, NEW)
    seen: list[str] = []

    def look() -> None:
        seen.append(made.trouble)
        ways.answers.clear()

    keeping(made, 3600, look)
    assert seen[0].startswith(f"this manager is still known as {OLD}, not as {NEW}: {CANNOT_DIAL}")
    assert 60 < len(ways.asked) < 200
    assert made.settled and made.trouble == ""


CANNOT_DIAL = CANNOT_DIAL_BACK[:20]


def test_a_change_that_came_late_is_taken_back() -> None:
    """The operator was told that it failed: then the old address is the right one."""
    raft = FakeRaft()
    ways = FakeWays(raft, *[Unavailable("lost")] * 1000)
    made = address(raft, ways, OLD)

    async def main() -> None:
        async with Tasks() as tasks:
            tasks.spawn(made.run(), "keeper")
            with pytest.raises(Unavailable):
                await made.move(NEW)
            ways.answers.clear()
            raft.put(1, NEW)
            await asyncio.sleep(10)
            assert made.known == OLD

    run_virtual(main())


def test_commands_take_turns() -> None:
    raft = FakeRaft()
    ways = FakeWays(raft)
    made = address(raft, ways, OLD)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(made.move(NEW))
            group.create_task(made.move(NEWER))

    run_virtual(main())
    assert [addr for _, addr in ways.asked] == [NEW, NEWER]
    assert made.known == NEWER


# With real members


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with Tasks() as tasks:
        yield Group(tmp_path, tasks)


class GroupWays:
    """Asks whoever leads now, without a wire."""

    def __init__(self, one: One, everybody: Sequence[One]) -> None:
        self.one, self.everybody = one, everybody

    async def ask(self, via: str, addr: str) -> None:
        leads = [other for other in self.everybody if other.node.is_leader()]
        if not leads:
            raise NotLeader(NO_LEADER)
        await leads[0].membership.add(f"node-{self.one.name}", addr)

    async def ask_self(self, addr: str, *, unchecked: bool) -> None:
        await self.one.membership.add(f"node-{self.one.name}", addr)

    async def let_another_lead(self) -> None:
        try:
            async with asyncio.timeout(0.5):
                await self.one.membership.transfer()
        except TimeoutError:
            raise Unavailable("not yet") from None


def own(one: One, everybody: Sequence[One]) -> OwnAddress:
    return OwnAddress(one.node, GroupWays(one, everybody), SeededEntropy(5), "")


def listed(one: One, other: One) -> str:
    """What one member knows another one by."""
    found = one.node.membership.of_node(f"node-{other.name}")
    return found.addr if found is not None else ""


async def three(group: Group) -> list[One]:
    first = await group.found("a")
    await eventually(first.node.is_leader)
    everybody = [first, await group.join(first, "b"), await group.join(first, "c")]
    await eventually(lambda: all(len(one.node.members()) == 3 for one in everybody))
    return everybody


async def test_all_move_at_once_and_all_know_it(group: Group) -> None:
    everybody = await three(group)
    ids = [one.node.id for one in everybody]
    async with asyncio.TaskGroup() as at_once:
        for number, one in enumerate(everybody):
            at_once.create_task(own(one, everybody).move(f"10.7.7.{number}:2377"))
    for at in everybody:
        await eventually(
            lambda at=at: (
                [listed(at, one) for one in everybody]
                == [f"10.7.7.{number}:2377" for number in range(3)]
            )
        )
        assert sorted(m.raft_id for m in at.node.members()) == sorted(ids), "same members"
        assert len(at.node.members()) == 3


async def test_a_move_outlives_the_leader(group: Group) -> None:
    everybody = await three(group)
    a, b, c = everybody
    group.network.cut.add(a.node.id)  # it leads, and nothing it says arrives
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(own(b, everybody).move(NEW))
        await asyncio.sleep(0)
        await group.stop(a)
    assert listed(b, b) == NEW
    await eventually(lambda: listed(c, b) == NEW)


async def test_a_member_cannot_move_onto_another_but_a_new_one_may(group: Group) -> None:
    a, b, c = await three(group)
    with pytest.raises(AddressTaken, match=f"node node-{c.name}"):
        await a.membership.add(f"node-{b.name}", listed(a, c))
    assert listed(a, b) != listed(a, c)
    taken = listed(a, c)
    await a.membership.add("node-rebuilt", taken)
    assert [m.addr for m in a.node.members()].count(taken) == 2


async def test_a_moved_member_is_the_same_after_a_restart(group: Group) -> None:
    one = await group.found("a")
    await eventually(one.node.is_leader)
    await own(one, [one]).move(NEW)
    await group.stop(one)
    again = await group.start(group.make("a"))
    await eventually(lambda: [m.addr for m in again.node.members()] == [NEW])
