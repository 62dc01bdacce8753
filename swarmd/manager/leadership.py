"""Where the leader is, and a connection to it: what the leader proxy asks of Raft."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from swarmd.base.aio import until
from swarmd.base.errors import NO_LEADER, NotLeader, SwarmError, Unavailable
from swarmd.manager.raftnode import Confirmation, Member, NodeStopped
from swarmd.rpc.peer import Caller

# A call waits this many ticks for a leader before it is told there is none (PROTOCOL 3.5).
leaderless_ticks_max = 10
# A new leader is heard of at once; a known one that cannot be dialled is tried so often.
LOOK_SECONDS = 0.25
WAIT_SECONDS = 10.0

Dial = Callable[[str], Awaitable[Caller]]


class Raft(Protocol):
    """What is asked of the Raft member."""

    @property
    def id(self) -> int:
        """The own raft id."""
        ...

    def is_leader(self) -> bool:
        """True if this member leads and has applied an entry of its own term."""
        ...

    def leader(self) -> Member | None:
        """The leader, if one is known."""
        ...

    def members(self) -> Sequence[Member]:
        """All members."""
        ...

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after leadership changed; returns the way to stop that."""
        ...

    def confirm(self, who: Confirmation) -> None:
        """Call back once a quorum has answered. Raises `NotLeader`, `NodeStopped`."""
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

    async def confirm(self) -> None:
        """Return once a quorum has confirmed that this manager leads. Raises `NotLeader`."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def confirmed() -> None:
            if not answer.done():
                answer.set_result(None)

        def failed(error: Exception) -> None:
            if not answer.done():
                answer.set_exception(error)

        try:
            self._raft.confirm(Confirmation(confirmed, failed))
        except NodeStopped as error:
            raise NotLeader from error
        await answer

    async def leader_caller(self) -> Caller:
        """A connection to the leader, kept and closed here; waits for one that is coming up.

        Raises `NotLeader` with the no-leader text when there has been none for too long,
        `Unavailable` when waiting has not helped, `SwarmError` when this member leads now.
        """
        changed = asyncio.Event()
        unsubscribe = self._raft.subscribe(changed.set)
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT_SECONDS
        try:
            while True:
                changed.clear()
                caller, trouble = await self._try()
                if caller is not None:
                    return caller
                if loop.time() >= end:
                    raise trouble
                await until(changed, LOOK_SECONDS)
        finally:
            unsubscribe()

    async def _try(self) -> tuple[Caller | None, Unavailable]:
        """The connection, or why there is none yet."""
        if self._raft.is_leader():
            raise SwarmError("this manager leads")
        leader = self._raft.leader()
        if leader is None:
            if self._raft.leaderless_ticks() > leaderless_ticks_max:
                raise NotLeader(NO_LEADER)
            return None, Unavailable("the leader is being elected")
        if leader.raft_id == self._raft.id:
            return None, Unavailable("this manager is taking over")
        try:
            async with self._dialling:
                if self._caller is None or self._addr != leader.addr:
                    await self.close()
                    self._caller = await self._dial(leader.addr)
                    self._addr = leader.addr
                return self._caller, Unavailable()
        except Unavailable as error:
            return None, error

    async def refresh(self) -> None:
        """Dial anew for the next call: our certificate or our trust changed."""
        await self.close()

    async def close(self) -> None:
        """End the connection."""
        caller, self._caller = self._caller, None
        if caller is not None:
            await caller.close()
