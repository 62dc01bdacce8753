"""Becoming a member of a group of managers that exists: the one call RaftMembership.Join."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.rpc.peer import Caller

# The leader calls back and waits for its log: 5 s and two election timeouts (PROTOCOL 2.3).
JOIN_SECONDS = 25.0

Dial = Callable[[str], Awaitable[Caller]]


class CannotJoin(SwarmError):
    """The other managers did not take this one in; the text is theirs, in the stock frame."""

    def __init__(self, error: SwarmError) -> None:
        name = "".join(word.capitalize() for word in error.code.name.split("_"))
        super().__init__(
            "manager stopped: can't initialize raft node: "
            f"rpc error: code = {name} desc = {error.message}"
        )


async def join_group(dial: Dial, via: str, addr: str) -> api.JoinResponse:
    """Ask the manager at `via` to make the caller a member that listens on `addr`.

    `addr` may be "0.0.0.0:port": the leader then takes the address it sees. The caller must
    serve Health by now. May be repeated. Raises `CannotJoin`.
    """
    try:
        return await ask_to_join(dial, via, addr)
    except SwarmError as error:
        raise CannotJoin(error) from error


async def ask_to_join(dial: Dial, via: str, addr: str) -> api.JoinResponse:
    """The call itself; a member asks again to change its address. Raises what `via` answers."""
    caller = await dial(via)
    try:
        answer: api.JoinResponse = await caller.unary(
            "RaftMembership/Join", api.JoinRequest(addr=addr), timeout=JOIN_SECONDS
        )
    finally:
        await caller.close()
    return answer
