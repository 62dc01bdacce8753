"""How a manager joins the others, and where it sends what only the leader answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.errors import NO_LEADER, DeadlineExceeded, NotLeader, SwarmError, Unavailable
from swarmd.cluster.raft import Role
from swarmd.manager.joining import JOIN_SECONDS, CannotJoin, join_group
from swarmd.manager.leadership import LEAVE_SECONDS, RaftLeadership, leaderless_ticks_max
from swarmd.manager.raftnode import Confirmation, Member
from swarmd.rpc.peer import Disconnected
from tests.harness.raft_group import Group
from tests.harness.virtual import run_virtual


class Line:
    """A connection that answers one call."""

    def __init__(self, addr: str, answer: Any = None) -> None:
        self.addr, self.answer, self.closed, self.retired = addr, answer, False, False
        self.asked: list[tuple[str, Any, float | None]] = []

    async def unary(self, method: str, request: Any, *, timeout: float | None = None) -> Any:
        self.asked.append((method, request, timeout))
        if isinstance(self.answer, SwarmError):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        self.closed = True

    async def retire(self) -> None:
        self.retired = True


async def test_joining_is_one_call() -> None:
    line = Line("10.0.0.1:2377", api.JoinResponse(raft_id=7))

    async def dial(addr: str) -> Any:
        assert addr == line.addr
        return line

    answer = await join_group(dial, line.addr, "0.0.0.0:2377")
    assert answer.raft_id == 7 and line.closed
    assert line.asked == [
        ("RaftMembership/Join", api.JoinRequest(addr="0.0.0.0:2377"), JOIN_SECONDS)
    ]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            SwarmError("could not connect to prospective new cluster member"),
            "manager stopped: can't initialize raft node: rpc error: code = Unknown desc = "
            "could not connect to prospective new cluster member",
        ),
        (
            DeadlineExceeded("context deadline exceeded"),
            "manager stopped: can't initialize raft node: rpc error: code = DeadlineExceeded "
            "desc = context deadline exceeded",
        ),
    ],
)
async def test_why_it_could_not_join_is_said_in_the_stock_words(
    error: SwarmError, text: str
) -> None:
    line = Line("10.0.0.1:2377", error)

    async def dial(addr: str) -> Any:
        return line

    with pytest.raises(CannotJoin) as caught:
        await join_group(dial, line.addr, "10.0.0.2:2377")
    assert caught.value.message == text
    assert line.closed


async def test_a_manager_nobody_reaches_cannot_take_anybody_in() -> None:
    async def dial(addr: str) -> Any:
        raise Disconnected("nobody there")

    with pytest.raises(CannotJoin, match="code = Unavailable desc = nobody there"):
        await join_group(dial, "10.0.0.1:2377", "10.0.0.2:2377")


class Standing:
    """What Raft says about the leader."""

    def __init__(self) -> None:
        self.id = 1
        self.lead = 2
        self.addr = "10.0.0.2:2377"
        self.ticks = 0
        self.leads = False
        self.alone = False
        self.callbacks: list[Callable[[], None]] = []
        self.doubts: list[Confirmation] = []

    def is_leader(self) -> bool:
        return self.leads

    def confirm(self, who: Confirmation) -> None:
        if not self.leads:
            raise NotLeader
        self.doubts.append(who)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def changed(self) -> None:
        for callback in list(self.callbacks):
            callback()

    def members(self) -> list[Member]:
        addrs = {1: "10.0.0.1:2377", 2: self.addr}
        return [
            Member(id, f"n{id}", addr, leader=id == self.lead, reachable=True)
            for id, addr in addrs.items()
        ]

    def leader(self) -> Member | None:
        return next((member for member in self.members() if member.leader), None)

    def leaderless_ticks(self) -> int:
        return self.ticks


async def test_the_connection_to_the_leader_is_kept_until_something_changes() -> None:
    raft, lines = Standing(), []

    async def dial(addr: str) -> Any:
        lines.append(Line(addr))
        return lines[-1]

    leadership = RaftLeadership(raft, dial)
    first = await leadership.leader_caller()
    assert await leadership.leader_caller() is first
    await leadership.refresh()  # other certificates
    second = await leadership.leader_caller()
    assert second is not first and lines[0].retired
    assert not lines[0].closed, "a call under way there would have failed"
    raft.addr = "10.0.0.9:2377"
    third: Any = await leadership.leader_caller()
    assert third.addr == "10.0.0.9:2377" and not lines[1].closed
    await leadership.close()
    assert [line.closed for line in lines] == [False, True, True]


def test_calls_wait_for_a_leader_that_is_coming_up() -> None:
    raft, dialled = Standing(), []

    async def dial(addr: str) -> Any:
        dialled.append(addr)
        if len(dialled) < 3:
            raise Disconnected("not yet")
        return Line(addr)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        leadership = RaftLeadership(raft, dial)
        raft.lead = 0
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(leadership.leader_caller())
            await asyncio.sleep(0.1)
            assert not dialled
            raft.lead = 2
            raft.changed()
        caller: Any = waiting.result()
        assert caller.addr == raft.addr and len(dialled) == 3
        assert loop.time() < 1, "each second counts"
        assert not raft.callbacks

    run_virtual(main())


def test_news_of_a_leader_are_not_waited_out() -> None:
    raft = Standing()

    async def dial(addr: str) -> Any:
        raise AssertionError(f"dialled {addr}")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        leadership = RaftLeadership(raft, dial)
        await leadership.news(0.5)
        assert loop.time() == pytest.approx(0.5)
        async with asyncio.TaskGroup() as group:
            group.create_task(leadership.news(0.5))
            await asyncio.sleep(0.125)
            raft.changed()
        assert loop.time() == pytest.approx(0.625)
        assert not raft.callbacks

    run_virtual(main())


def test_no_leader_and_a_leader_that_is_not_ready() -> None:
    raft = Standing()

    async def dial(addr: str) -> Any:
        raise AssertionError(f"dialled {addr}")

    async def main() -> None:
        leadership = RaftLeadership(raft, dial)
        raft.lead = 1  # elected, but its log is not applied yet: it must not call itself
        with pytest.raises(Unavailable):
            await leadership.leader_caller()
        raft.leads = True
        with pytest.raises(SwarmError, match="this manager leads"):
            await leadership.leader_caller()
        raft.leads = False
        raft.lead = 0
        raft.ticks = leaderless_ticks_max
        with pytest.raises(Unavailable):
            await leadership.leader_caller()
        raft.ticks += 1
        with pytest.raises(NotLeader) as caught:
            await leadership.leader_caller()
        assert caught.value.message == NO_LEADER
        assert not raft.callbacks

    run_virtual(main())


def test_heartbeats_may_overtake_what_waits_for_the_disk() -> None:
    group = Group(3)
    leader = group.elect(1)
    group.stabilize()
    leader.node.propose(b"x")
    waiting = leader.node.ready()  # on its way to the disk
    leader.node.tick()
    ahead = leader.node.take_heartbeats()
    assert [(m.type, m.to, m.term) for m in ahead] == [
        (raftpb.MsgHeartbeat, 2, leader.raft.term),
        (raftpb.MsgHeartbeat, 3, leader.raft.term),
    ]
    assert leader.node.take_heartbeats() == ()
    assert waiting.entries and not any(m.type == raftpb.MsgHeartbeat for m in waiting.messages)
    follower = group[2]
    assert follower.node.status().role is Role.FOLLOWER
    for _ in range(30):
        follower.node.tick()
    assert follower.node.take_heartbeats() == (), "only leaders have any"


def test_a_leader_that_was_replaced_is_left_after_a_moment() -> None:
    raft, lines = Standing(), []

    async def dial(addr: str) -> Any:
        lines.append(Line(addr))
        return lines[-1]

    async def main() -> None:
        leadership = RaftLeadership(raft, dial)
        running = asyncio.get_running_loop().create_task(leadership.run())
        await asyncio.sleep(0)
        await leadership.leader_caller()
        raft.lead = 0
        raft.changed()
        await asyncio.sleep(5)
        assert not lines[0].closed, "it may still be the leader"
        raft.lead, raft.addr = 2, "10.0.0.9:2377"
        raft.changed()
        second: Any = await leadership.leader_caller()
        assert second is not lines[0] and not lines[0].closed, "it may be about to answer"
        await asyncio.sleep(LEAVE_SECONDS + 0.1)
        assert lines[0].closed and not lines[1].closed
        running.cancel()
        await asyncio.wait({running})
        await leadership.close()
        assert lines[1].closed and not raft.callbacks

    run_virtual(main())


async def test_leadership_is_confirmed_by_raft() -> None:
    raft = Standing()

    async def dial(addr: str) -> Any:
        raise AssertionError(addr)

    leadership = RaftLeadership(raft, dial)
    with pytest.raises(NotLeader):
        await leadership.confirm()
    raft.leads = True
    for outcome in ("confirm", "fail", "gone"):
        asking = asyncio.get_running_loop().create_task(leadership.confirm())
        await asyncio.sleep(0)
        who = raft.doubts.pop()
        if outcome == "gone":
            asking.cancel()
            await asyncio.wait({asking})
            who.on_confirm()
            who.on_fail(NotLeader())
        elif outcome == "fail":
            who.on_fail(NotLeader())
            with pytest.raises(NotLeader):
                await asking
        else:
            who.on_confirm()
            await asking
