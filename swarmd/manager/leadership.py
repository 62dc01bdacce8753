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
# How long calls under way at a leader that was replaced may still be answered by it.
LEAVE_SECONDS = 0.5

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

    @property
    def alone(self) -> bool:
        """True if this member leads and is the only one."""
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
        self._left: list[Caller] = []  # with calls under way, to leaders that were replaced
        # Held over one bounded dial; nobody who waits for it holds anything else.
        self._dialling = asyncio.Lock()

    def is_leader(self) -> bool:
        """True when calls for the leader are answered here."""
        return self._raft.is_leader()

    def is_certain(self) -> bool:
        """True when leading needs no confirmation, since there is no other manager."""
        return self._raft.alone

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
        leader = self._raft.leader()
        if self._caller is not None and leader is not None and leader.addr == self._addr:
            return self._caller
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

    async def news(self, seconds: float) -> None:
        """Return when leadership has changed, or after `seconds`."""
        changed = asyncio.Event()
        unsubscribe = self._raft.subscribe(changed.set)
        try:
            await until(changed, seconds)
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
                    self._leave()
                    self._caller = await self._dial(leader.addr)
                    self._addr = leader.addr
                return self._caller, Unavailable()
        except Unavailable as error:
            return None, error

    async def refresh(self) -> None:
        """Dial anew for the next call: our certificate or our trust changed.

        The leader is as good as before, and so are the calls under way there: an operator's
        request does not fail because a certificate was renewed beside it.
        """
        caller, self._caller = self._caller, None
        if caller is not None:
            await caller.retire()

    async def run(self) -> None:
        """Leave old leaders, until cancelled.

        Calls under way at one that was cut off would wait until their deadline. They get a
        moment, since one that only handed over answers yet; then they fail as on a broken
        connection, and the leader proxy asks the new leader.
        """
        changed = asyncio.Event()
        unsubscribe = self._raft.subscribe(changed.set)
        try:
            while True:
                await changed.wait()
                changed.clear()
                leader = self._raft.leader()
                if leader is not None and leader.addr != self._addr:
                    self._leave()
                if self._left:
                    await asyncio.sleep(LEAVE_SECONDS)
                    await self._close_left()
        finally:
            unsubscribe()

    def _leave(self) -> None:
        """Begin no more calls on this connection."""
        if self._caller is not None:
            self._left.append(self._caller)
            self._caller = None

    async def _close_left(self) -> None:
        while self._left:
            await self._left.pop().close()

    async def close(self) -> None:
        """End the connection, and those to earlier leaders."""
        self._leave()
        await self._close_left()
