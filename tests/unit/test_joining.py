"""Joining a group of managers: what is asked for, in which order, and how often."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from swarmd import api
from swarmd.base.errors import FailedPrecondition, SwarmError, Unavailable
from swarmd.manager.joining import CannotJoin, ask_to_join, join_group
from swarmd.rpc.peer import Caller
from tests.harness.virtual import run_virtual

QUORUM = "raft: member cannot be removed, because removing it may result in loss of quorum"


class Group:
    """Managers that answer Join, and know this node under a raft id or not."""

    def __init__(self, raft_id: int = 0) -> None:
        self.raft_id = raft_id
        self.calls: list[str] = []
        self.open = 0
        self.trouble: dict[str, SwarmError] = {}
        self.changes_of_leader: list[SwarmError] = []

    async def dial(self, via: str) -> Caller:
        assert via == "10.0.0.1:2377"
        self.open += 1
        return cast(Caller, self)

    async def unary(self, method: str, request: Any, *, timeout: float | None = None) -> Any:
        assert timeout
        self.calls.append(method)
        if self.changes_of_leader:
            raise self.changes_of_leader.pop()
        if method in self.trouble:
            raise self.trouble[method]
        return getattr(self, method.partition("/")[2])(request)

    def Leave(self, request: api.LeaveRequest) -> api.LeaveResponse:
        assert request.node.raft_id == self.raft_id
        self.raft_id = 0
        return api.LeaveResponse()

    def Join(self, request: api.JoinRequest) -> api.JoinResponse:
        assert request.addr == "10.0.0.2:2377"
        self.raft_id = self.raft_id or 7
        return api.JoinResponse(raft_id=self.raft_id)

    async def close(self) -> None:
        self.open -= 1

    async def join(self, lost: int = 0) -> int:
        try:
            answer = await join_group(self.dial, "10.0.0.1:2377", "10.0.0.2:2377", lost)
            return answer.raft_id
        finally:
            assert self.open == 0


JOIN, LEAVE = "RaftMembership/Join", "RaftMembership/Leave"


async def test_a_newcomer_just_joins() -> None:
    group = Group()
    assert await group.join() == 7
    assert group.calls == [JOIN]


async def test_a_member_with_a_log_keeps_its_id() -> None:
    group = Group(raft_id=5)
    assert await group.join() == 5
    await ask_to_join(group.dial, "10.0.0.1:2377", "10.0.0.2:2377")
    assert group.calls == [JOIN] * 2


async def test_a_member_that_lost_its_log_starts_over_under_another_id() -> None:
    group = Group(raft_id=5)
    assert await group.join(lost=5) == 7
    assert group.calls == [JOIN, LEAVE, JOIN]


async def test_a_lost_member_that_was_removed_meanwhile_is_a_newcomer() -> None:
    group = Group()
    assert await group.join(lost=5) == 7
    assert group.calls == [JOIN]


async def test_a_lost_member_the_others_cannot_spare_does_not_join() -> None:
    group = Group(raft_id=0xAB)
    group.trouble[LEAVE] = SwarmError(QUORUM)
    with pytest.raises(CannotJoin) as refused:
        await group.join(lost=0xAB)
    assert "this manager's log is lost" in refused.value.message
    assert f"raft member ab, which it was: {QUORUM}" in refused.value.message
    assert group.calls == [JOIN, LEAVE]


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("the leader has changed: transport is closing"),
        FailedPrecondition("raft: failed to process the request: node lost leader status"),
    ],
)
def test_a_change_of_leader_is_waited_for(error: SwarmError) -> None:
    async def main() -> list[str]:
        group = Group()
        group.changes_of_leader = [error] * 3
        assert await group.join() == 7
        return group.calls

    assert run_virtual(main()) == [JOIN] * 4


def test_a_leader_that_does_not_come_back_is_not_waited_for_long() -> None:
    async def main() -> tuple[float, list[str]]:
        group, loop = Group(), asyncio.get_running_loop()
        group.trouble[JOIN] = Unavailable("connection refused")
        begun = loop.time()
        with pytest.raises(CannotJoin, match="code = Unavailable desc = connection refused"):
            await group.join()
        return loop.time() - begun, group.calls

    seconds, calls = run_virtual(main())
    assert seconds < 5 and calls == [JOIN] * 4
