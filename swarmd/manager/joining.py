"""Becoming a member of a group of managers that exists: RaftMembership.Join."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from swarmd import api
from swarmd.base.errors import LOST_LEADERSHIP, SwarmError, Unavailable
from swarmd.rpc.peer import Caller

log = logging.getLogger(__name__)

# The leader calls back and waits for its log: 5 s and two election timeouts (PROTOCOL 2.3).
JOIN_SECONDS = 25.0
# A call that met a change of leader is repeated after these: together longer than swarmd managers
# elect. Who asked by hand has 20 s in all.
AGAIN_SECONDS = (0.5, 1.0, 2.0)

Dial = Callable[[str], Awaitable[Caller]]


class CannotJoin(SwarmError):
    """The other managers did not take this one in; the text is theirs, in the stock frame."""

    def __init__(self, error: SwarmError) -> None:
        name = "".join(word.capitalize() for word in error.code.name.split("_"))
        super().__init__(
            "manager stopped: can't initialize raft node: "
            f"rpc error: code = {name} desc = {error.message}"
        )


class LogLost(SwarmError):
    """This node was a member, has no log any more, and the others do not let it start over."""

    def __init__(self, raft_id: int, error: SwarmError) -> None:
        super().__init__(
            f"this manager's log is lost, and the others cannot give up raft member {raft_id:x}, "
            f"which it was: {error.message}"
        )


async def join_group(dial: Dial, via: str, addr: str, lost: int = 0) -> api.JoinResponse:
    """Ask the manager at `via` to make the caller a member that listens on `addr`.

    `addr` may be "0.0.0.0:port": the leader then takes the address it sees. `lost`: the raft
    id the caller had before it lost its log; it gets another one. It must serve Health by now.
    May be repeated. Raises `CannotJoin`.
    """
    try:
        caller = await dial(via)
        try:
            answer = await _ask(caller, addr)
            if lost and answer.raft_id == lost:
                await _give_up(caller, lost)
                answer = await _ask(caller, addr)
            return answer
        finally:
            await caller.close()
    except SwarmError as error:
        raise CannotJoin(error) from error


async def ask_to_join(dial: Dial, via: str, addr: str) -> api.JoinResponse:
    """The call itself; a member asks again to change its address. Raises what `via` answers."""
    caller = await dial(via)
    try:
        answer: api.JoinResponse = await caller.unary(
            "RaftMembership/Join", api.JoinRequest(addr=addr), timeout=JOIN_SECONDS
        )
        return answer
    finally:
        await caller.close()


async def _ask(caller: Caller, addr: str) -> api.JoinResponse:
    request = api.JoinRequest(addr=addr)
    answer: api.JoinResponse = await _patiently(caller, "RaftMembership/Join", request)
    return answer


async def _give_up(caller: Caller, raft_id: int) -> None:
    """Have the member removed that this node was.

    Join gave it its raft id back. But what that member voted for and acknowledged is lost with
    its log: the others count on it, and an entry they hold for safe might be gone. A new id
    begins with nothing.
    """
    log.warning("the log of raft member %x, which this node was, is lost: it starts over", raft_id)
    request = api.LeaveRequest(node=api.RaftMember(raft_id=raft_id))
    try:
        await _patiently(caller, "RaftMembership/Leave", request)
    except SwarmError as error:
        raise LogLost(raft_id, error) from error


async def _patiently(caller: Caller, method: str, request: Any) -> Any:
    """A call that may be repeated, on managers that may be changing their leader."""
    for pause in AGAIN_SECONDS:
        try:
            return await caller.unary(method, request, timeout=JOIN_SECONDS)
        except SwarmError as error:
            if not isinstance(error, Unavailable) and error.message != LOST_LEADERSHIP:
                raise
        await asyncio.sleep(pause)
    return await caller.unary(method, request, timeout=JOIN_SECONDS)
