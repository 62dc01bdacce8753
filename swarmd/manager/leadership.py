"""Where the leader is, and a connection to it: what the leader proxy asks of Raft."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from swarmd.base.errors import NO_LEADER, NotLeader, Unavailable
from swarmd.manager.raftnode import Member
from swarmd.rpc.peer import Caller

# A call waits this many ticks for a leader before it is told there is none (PROTOCOL 3.5).
leaderless_ticks_max = 10

Dial = Callable[[str], Awaitable[Caller]]


class Raft(Protocol):
    """What is asked of the Raft member."""

    def is_leader(self) -> bool:
        """True if this member leads and has applied an entry of its own term."""
        ...

    def leader(self) -> Member | None:
        """The leader, if one is known."""
        ...

    def members(self) -> Sequence[Member]:
        """All members."""
        ...

    def leaderless_ticks(self) -> int:
        """Ticks since a leader was last known."""
        ...


class RaftLeadership:
    """Implements `rpc.Leadership`: one connection to the leader, dialled when first needed."""

    def __init__(self, raft: Raft, dial: Dial) -> None:
        self._raft = raft
        self._dial = dial
        self._caller: Caller | None = None
        self._addr = ""
        # Held over one bounded dial; nobody who waits for it holds anything else.
        self._dialling = asyncio.Lock()

    def is_leader(self) -> bool:
        """True when calls for the leader are answered here."""
        return self._raft.is_leader()

    async def leader_caller(self) -> Caller:
        """A connection to the leader, kept and closed here.

        Raises `NotLeader` with the no-leader text when there has been none for too long, and
        `Unavailable` while one is being elected or is this very member, still catching up.
        """
        leader = self._raft.leader()
        if leader is None:
            if self._raft.leaderless_ticks() > leaderless_ticks_max:
                raise NotLeader(NO_LEADER)
            raise Unavailable("the leader is being elected")
        async with self._dialling:
            if self._caller is None or self._addr != leader.addr:
                await self.close()
                self._caller = await self._dial(leader.addr)
                self._addr = leader.addr
            return self._caller

    async def close(self) -> None:
        """End the connection."""
        caller, self._caller = self._caller, None
        if caller is not None:
            await caller.close()
