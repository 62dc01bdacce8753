"""When members wait less for a leader than stock does, and when they stop doing so."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.errors import NotLeader
from swarmd.cluster.raft import Role
from swarmd.manager.raftnode.timers import (
    EAGER_TICKS,
    FAST,
    FAST_FOLLOWER,
    FAST_HEARTBEAT,
    HELLO,
    LEADERLESS_TICKS_MAX,
    QUICK_LEADER,
    STOCK,
    STOCK_HEARTBEAT,
    Timers,
)
from tests.harness.raftnodes import Group, One, Quick, eventually

SLOW_TICK = 4.0
TICK = 0.2  # seconds; the core's ticks are a tenth of it


def heartbeat(mark: int, term: int = 5) -> raftpb.Message:
    return raftpb.Message(type=raftpb.MsgHeartbeat, term=term, rejectHint=mark)


def answer(sender: int, mark: int, term: int = 5) -> raftpb.Message:
    made = raftpb.Message(type=raftpb.MsgHeartbeatResp, term=term, rejectHint=mark)
    setattr(made, "from", sender)
    return made


def leading(*answers: raftpb.Message, voters: tuple[int, ...]) -> Timers:
    timers = Timers(True)
    timers.on_state(Role.LEADER, 1, 1)
    for one in answers:
        timers.hear(one, 5)
    timers.on_members(voters, 1)
    return timers


@pytest.mark.parametrize(
    ("marked", "voters", "fast"),
    [
        ((), (1,), False),
        ((2,), (1, 2), False),  # without the leader there is no majority anyway
        ((2,), (1, 2, 3), False),  # 3 is a stock engine, or was not heard of
        ((2, 3), (1, 2, 3), True),
        ((2, 3), (1, 2, 3, 4), False),
        ((2, 3, 4), (1, 2, 3, 4), True),
        ((2, 3), (1, 2, 3, 4, 5), False),
        ((2, 3, 4), (1, 2, 3, 4, 5), True),  # the three left elect without the fifth
        ((2, 3, 9), (1, 2, 3, 4, 5), False),  # 9 is no member
    ],
)
def test_a_leader_is_fast_where_the_marked_ones_could_replace_it(
    marked: tuple[int, ...], voters: tuple[int, ...], fast: bool
) -> None:
    timers = leading(*(answer(id, HELLO) for id in marked), voters=voters)
    assert timers.fast == fast
    assert timers.now() == (QUICK_LEADER if fast else STOCK)
    sent = heartbeat(0)
    timers.mark(sent)
    assert sent.rejectHint == (FAST if fast else HELLO)


def test_an_answer_without_the_mark_ends_it() -> None:
    timers = leading(answer(2, HELLO), answer(3, HELLO), voters=(1, 2, 3))
    assert timers.fast
    timers.hear(answer(3, 0), 5)  # a stock engine on the state of 3
    timers.on_members((1, 2, 3), 1)
    assert not timers.fast and timers.now() == STOCK


def test_a_new_member_ends_it_until_it_is_heard_of() -> None:
    timers = leading(answer(2, HELLO), answer(3, HELLO), voters=(1, 2, 3))
    timers.on_members((1, 2, 3, 4), 1)
    assert not timers.fast
    timers.hear(answer(4, HELLO), 5)
    timers.on_members((1, 2, 3, 4), 1)
    assert timers.fast


def test_answers_of_another_term_say_nothing() -> None:
    timers = leading(answer(2, HELLO, 4), answer(3, HELLO, 4), voters=(1, 2, 3))
    assert not timers.fast


def test_a_follower_waits_less_only_while_its_leader_says_so() -> None:
    timers = Timers(True)
    timers.on_state(Role.FOLLOWER, 2, 1)
    assert timers.now() == STOCK
    timers.hear(heartbeat(HELLO), 5)
    assert timers.now() == STOCK
    timers.hear(heartbeat(FAST), 5)
    assert timers.now() == FAST_FOLLOWER
    timers.hear(heartbeat(HELLO, term=4), 5)  # an old leader's
    assert timers.now() == FAST_FOLLOWER
    timers.on_state(Role.PRE_CANDIDATE, 0, 1)
    assert timers.now() == FAST_FOLLOWER, "it is in a hurry now"
    timers.on_state(Role.FOLLOWER, 3, 1)
    assert timers.now() == STOCK, "the new leader said nothing yet"
    timers.hear(heartbeat(FAST), 6)
    timers.hear(heartbeat(FAST, term=6), 6)
    timers.hear(heartbeat(0, term=7), 6)  # a stock leader
    assert timers.now() == STOCK


def test_long_without_a_leader_all_is_stock_again() -> None:
    timers = Timers(True)
    timers.on_state(Role.FOLLOWER, 2, 1)
    timers.hear(heartbeat(FAST), 5)
    timers.on_state(Role.PRE_CANDIDATE, 0, 1)
    for _ in range(LEADERLESS_TICKS_MAX):
        timers.tick()
    assert timers.now() == FAST_FOLLOWER
    timers.tick()
    assert timers.now() == STOCK


def test_a_new_leader_of_a_fast_group_asks_around_quickly() -> None:
    timers = Timers(True)
    timers.on_state(Role.FOLLOWER, 2, 1)
    timers.hear(heartbeat(FAST), 5)
    timers.on_state(Role.LEADER, 1, 1)
    assert not timers.fast and timers.now() == QUICK_LEADER
    for _ in range(EAGER_TICKS):
        timers.tick()
    assert timers.now() == STOCK


def heartbeats(timers: Timers, ticks: int) -> list[int]:
    """After how many of the core's ticks a leader's next heartbeats leave, as the core counts."""
    sent, elapsed = [], 0
    for passed in range(1, ticks + 1):
        timers.tick()
        timers.on_members((1, 2, 3), 1)
        elapsed += 1
        if elapsed >= timers.now()[1]:
            sent.append(passed)
            elapsed = 0
    return sent


@pytest.mark.parametrize("others", [(), (answer(2, HELLO),)], ids=["unknown", "mixed"])
def test_a_leader_whose_group_grew_asks_around_quickly(others: tuple[raftpb.Message, ...]) -> None:
    """But for three seconds only, should the new one not know the marks."""
    timers = leading(*others, voters=(1, 2))
    assert timers.now() == STOCK
    timers.on_members((1, 2, 3), 1)
    assert not timers.fast and timers.now() == QUICK_LEADER
    sent = heartbeats(timers, 2 * EAGER_TICKS)
    quick = [tick for tick in sent if tick < EAGER_TICKS]
    assert quick == list(range(FAST_HEARTBEAT, EAGER_TICKS, FAST_HEARTBEAT))
    slow = [tick for tick in sent if tick >= EAGER_TICKS]
    assert len(slow) == (2 * EAGER_TICKS - quick[-1]) // STOCK_HEARTBEAT
    assert timers.now() == STOCK


def test_a_group_of_three_is_fast_with_the_first_answer_of_the_third() -> None:
    timers = leading(answer(2, HELLO), voters=(1, 2))
    timers.on_members((1, 2, 3), 1)
    heartbeats(timers, FAST_HEARTBEAT)
    timers.hear(answer(3, HELLO), 5)
    timers.on_members((1, 2, 3), 1)
    assert timers.fast


def test_nothing_but_growth_is_a_reason_to_ask_around() -> None:
    timers = leading(voters=(1, 2, 3))
    assert timers.now() == STOCK, "these were there when it was elected"
    timers.on_members((1, 2), 1)
    assert timers.now() == STOCK
    timers.on_members((1, 4), 1)
    assert timers.now() == QUICK_LEADER, "one went, but one came"
    follower = Timers(True)
    follower.on_members((1, 2), 1)
    follower.on_members((1, 2, 3), 1)
    assert follower.now() == STOCK


@pytest.mark.parametrize(("greeting", "mark"), [(0, 0), (HELLO, HELLO), (FAST, HELLO)])
def test_only_a_leader_that_knows_marks_gets_one(greeting: int, mark: int) -> None:
    timers = Timers(True)
    timers.hear(heartbeat(greeting), 5)
    response = answer(1, 0)
    timers.mark(response)
    assert response.rejectHint == mark


def test_nothing_happens_where_it_is_not_allowed() -> None:
    timers = Timers(False)
    timers.hear(heartbeat(FAST), 5)
    sent, response = heartbeat(0), answer(1, 0)
    timers.mark(sent)
    timers.mark(response)
    assert (sent.rejectHint, response.rejectHint, timers.now()) == (0, 0, STOCK)
    timers.on_state(Role.LEADER, 1, 1)
    timers.on_members((1,), 1)
    timers.on_members((1, 2), 1)
    assert timers.now() == STOCK


# Real members in one process


async def three(group: Group, stock: bool = False) -> list[One]:
    """Three members, the first leads; with `stock` the third understands no marks."""
    first = await group.found("a", tick_seconds=TICK, fast_failover=True)
    await eventually(first.node.is_leader)
    second = await group.join(first, "b", tick_seconds=TICK, fast_failover=True)
    third = await group.join(first, "c", tick_seconds=TICK, fast_failover=not stock)
    members = [first, second, third]
    await eventually(lambda: all(one.node.applied_index() >= 4 for one in members))
    return members


def note(tx: Any, text: str) -> None:
    config = api.Config(id=text)
    config.spec.annotations.name = text
    tx.create(config)


async def replaced(members: list[One], seconds: float) -> float:
    """How many ticks it takes until another member leads."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await eventually(lambda: any(one.node.is_leader() for one in members), seconds)
    return (loop.time() - begun) / TICK


async def test_a_dead_leader_is_replaced_within_two_ticks(tmp_path: Path) -> None:
    async with Tasks() as tasks:
        group = Group(tmp_path, tasks)
        first, *rest = await three(group)
        await eventually(lambda: first.node.fast)
        await eventually(lambda: all(one.node.fast for one in rest))
        await group.stop(first)
        assert await replaced(rest, 2.5 * TICK) < 2.5
        # One of three is gone: nothing could be won by hurry, so there is none.
        leader = next(one for one in rest if one.node.is_leader())
        await eventually(lambda: not leader.node.fast)


async def test_a_group_just_formed_is_soon_fast(tmp_path: Path) -> None:
    """Well within the stock heartbeat that told the leader before."""
    async with Tasks() as tasks:
        group = Group(tmp_path, tasks)
        first = await group.found("a", tick_seconds=SLOW_TICK, fast_failover=True)
        await eventually(first.node.is_leader)
        await group.join(first, "b", tick_seconds=SLOW_TICK, fast_failover=True)
        await eventually(lambda: len(first.node.members()) == 2)
        await group.join(first, "c", tick_seconds=SLOW_TICK, fast_failover=True)
        await eventually(lambda: first.node.fast, SLOW_TICK / 2)


async def test_with_a_stock_vote_needed_nobody_hurries(tmp_path: Path) -> None:
    async with Tasks() as tasks:
        group = Group(tmp_path, tasks)
        first, second, third = await three(group, stock=True)
        await asyncio.sleep(4 * TICK)
        assert not first.node.fast and not second.node.fast and not third.node.fast
        await group.stop(first)
        assert await replaced([second, third], 30 * TICK) > 8


async def test_a_member_cut_off_for_long_disturbs_nobody(tmp_path: Path) -> None:
    async with Tasks() as tasks:
        group = Group(tmp_path, tasks)
        first, second, third = await three(group)
        await eventually(lambda: third.node.fast)
        term = first.node.term
        group.network.cut.add(third.node.id)
        await asyncio.sleep(6 * TICK)
        group.network.cut.clear()
        await eventually(lambda: third.node.leader() is not None)
        await asyncio.sleep(4 * TICK)
        assert first.node.is_leader() and first.node.term == term
        assert second.node.term == third.node.term == term


class Stuck(Quick):
    """A disk that does not answer while `stuck`."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()

    def sync(self, fd: int) -> None:
        self.free.wait(20)


async def lost_write(member: One) -> None:
    with pytest.raises(NotLeader):
        await member.committer.update(lambda tx: note(tx, "never"))


async def test_a_leader_with_a_slow_disk_goes_on_leading(tmp_path: Path) -> None:
    async with Tasks() as tasks:
        group, disk = Group(tmp_path, tasks), Stuck()
        made = group.make("a", tick_seconds=TICK, files=disk, fast_failover=True)
        first = await group.start(made)
        await eventually(first.node.is_leader)
        second = await group.join(first, "b", tick_seconds=TICK, fast_failover=True)
        third = await group.join(first, "c", tick_seconds=TICK, fast_failover=True)
        await eventually(lambda: second.node.fast and third.node.fast)
        term = first.node.term
        disk.free.clear()
        writing = tasks.spawn(first.committer.update(lambda tx: note(tx, "slow")), "write")
        await asyncio.sleep(3.5 * TICK)  # twice as long as its followers would wait
        disk.free.set()
        await writing
        assert first.node.is_leader() and first.node.term == term
        # But one whose disk is gone for good must not keep the others from electing.
        disk.free.clear()
        writing = tasks.spawn(lost_write(first), "write")
        try:
            assert await replaced([second, third], 30 * TICK) < 10
        finally:
            disk.free.set()
            await asyncio.wait({writing})
