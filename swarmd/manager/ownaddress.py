"""The address this manager is known by, kept at the one it should be known by.

Members' addresses are part of Raft's configuration. A member changes its own by asking the
leader to take it in once more (`RaftMembership.Join`, PROTOCOL 3.3): the leader dials the new
address before it believes in it, then changes the member list in one step. Asking again is
harmless, so after anything that went wrong we look at the member list, and ask again if need be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from swarmd import api
from swarmd.base.backoff import Backoff
from swarmd.base.entropy import Entropy
from swarmd.base.errors import Code, SwarmError, Unavailable
from swarmd.manager.raftnode import AddressTaken, Member
from swarmd.manager.raftservice.membership import CANNOT_DIAL_BACK

log = logging.getLogger(__name__)

# An operator waits so long: a leader is elected in it, and dials back in vain.
MOVE_SECONDS = 40.0
# From the leader's answer until the change has come to this member, if nothing is wrong.
CATCH_UP_SECONDS = 5.0
AGAIN_SECONDS = 0.5
RETRY = Backoff(base_seconds=1.0, cap_seconds=60.0)

# These answers do not get better by asking once more.
_FINAL = (
    Code.INVALID_ARGUMENT,
    Code.ALREADY_EXISTS,
    Code.PERMISSION_DENIED,
    Code.UNAUTHENTICATED,
    Code.NOT_FOUND,
    Code.UNIMPLEMENTED,
)


class MemberList(Protocol):
    """The own list of members."""

    def get(self, raft_id: int) -> api.RaftMember | None:
        """The member with this raft id."""
        ...


class Raft(Protocol):
    """What is asked of the Raft member; `raftnode.RaftNode`."""

    @property
    def id(self) -> int:
        """The own raft id."""
        ...

    @property
    def membership(self) -> MemberList:
        """The own list of members."""
        ...

    def is_leader(self) -> bool:
        """True if this member leads."""
        ...

    def members(self) -> Sequence[Member]:
        """All members, this one included."""
        ...

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after leadership or members changed; returns the way to stop that."""
        ...


class Ways(Protocol):
    """How the leader is asked."""

    async def ask(self, via: str, addr: str) -> None:
        """Have the manager at `via` hand our wish on to the leader. Raises its answer."""
        ...

    async def ask_self(self, addr: str, *, unchecked: bool) -> None:
        """Decide it here, as the leader; `unchecked`: without dialling the address."""
        ...

    async def let_another_lead(self) -> None:
        """Let another manager lead. Raises `SwarmError` when none takes over."""
        ...


class OwnAddress:
    """Keeps the member list's entry of this manager at `wanted`. `run` beside the Raft member."""

    def __init__(self, raft: Raft, ways: Ways, entropy: Entropy, wanted: str) -> None:
        """`wanted` is "host:port", or empty when any address the others found will do."""
        self._raft = raft
        self._ways = ways
        self._entropy = entropy
        self._wanted = wanted
        self.trouble = ""
        """Why the member list still says something else; empty when it does not."""
        self._look = asyncio.Event()  # members, or what is wanted, changed
        # Held while the leader is asked; each holder bounds its time.
        self._one = asyncio.Lock()

    @property
    def wanted(self) -> str:
        """The address this manager should be known by."""
        return self._wanted

    @property
    def known(self) -> str:
        """The address in the member list; empty while this is no member."""
        own = self._raft.membership.get(self._raft.id)
        return own.addr if own is not None else ""

    @property
    def settled(self) -> bool:
        """True when there is nothing to ask for."""
        return not self._wanted or self.known in ("", self._wanted)

    async def run(self) -> None:
        """Ask whenever the member list says something else, until it does no more."""
        unsubscribe = self._raft.subscribe(self._look.set)
        attempt = 0
        try:
            while True:
                self._look.clear()
                if self.settled:
                    attempt, self.trouble = 0, ""
                    await self._look.wait()
                    continue
                if trouble := await self._try():
                    self._complain(trouble, loud=attempt > 0)
                    await asyncio.sleep(RETRY.delay(attempt, self._entropy))
                    attempt += 1
        finally:
            unsubscribe()

    def _complain(self, reason: str, *, loud: bool) -> None:
        text = f"this manager is still known as {self.known}, not as {self._wanted}: {reason}"
        if not loud:  # just started: there may be no leader yet
            log.info("%s", text)
            return
        if text != self.trouble:
            log.warning("%s", text)
        self.trouble = text

    async def _try(self) -> str:
        """Ask once, unless an operator's command does; the reason when it did not work."""
        async with self._one:
            if self.settled:
                return ""
            addr, before = self._wanted, self.known
            try:
                self._demand_free(addr)
                await self._ask(addr)
                if await self._shown(addr):
                    log.info("this manager is known as %s now, no longer as %s", addr, before)
                    return ""
            except SwarmError as error:
                return error.message
        return "the change was accepted, but has not come here yet"

    async def move(self, addr: str, *, unchecked: bool = False) -> None:
        """Be known by another address; returns when the member list says so.

        When it raises, the old address is wanted again: what the leader refused (it cannot
        dial `addr`, another member has it), or why it could not be asked in time. `unchecked`
        lets a sole manager have an address that it cannot dial itself.
        """
        async with self._one:
            before = self._wanted or self.known
            self._demand_free(addr)
            self._wanted = addr
            try:
                await self._insist(addr, unchecked=unchecked)
            except BaseException:
                self._wanted = before
                self._look.set()
                raise
        log.info("this manager is known as %s now, no longer as %s", addr, before)

    async def _insist(self, addr: str, *, unchecked: bool) -> None:
        trouble: SwarmError = Unavailable("the leader could not be asked in time")
        try:
            async with asyncio.timeout(MOVE_SECONDS):
                while self.known != addr:
                    try:
                        await self._ask(addr, unchecked=unchecked)
                        if await self._shown(addr):
                            return
                    except SwarmError as error:
                        if is_final(error):
                            raise
                        log.info("changing the address to %s: %s", addr, error)
                        trouble = error
                    await asyncio.sleep(AGAIN_SECONDS)
        except TimeoutError:
            if self.known != addr:
                raise trouble from None

    def _demand_free(self, addr: str) -> None:
        """Stock leaders do not look whether somebody else has the address."""
        for member in self._raft.members():
            if member.addr == addr and member.raft_id != self._raft.id:
                raise AddressTaken(addr, member.node_id)

    async def _ask(self, addr: str, *, unchecked: bool = False) -> None:
        """Ask once, by the first way that leads to the leader."""
        others = [member for member in self._raft.members() if member.raft_id != self._raft.id]
        if not others:
            if not self._raft.is_leader():
                raise Unavailable("this manager does not lead yet")
            await self._ways.ask_self(addr, unchecked=unchecked)
            return
        if self._raft.is_leader():
            # An address of ours that we can dial says nothing: others must be able to.
            await self._ways.let_another_lead()
        trouble: SwarmError = Unavailable("no other manager is known")
        # Any manager hands it on. Ours may not even hear who leads: to the others it is gone.
        for member in sorted(others, key=lambda one: (not one.leader, not one.reachable)):
            try:
                await self._ways.ask(member.addr, addr)
                return
            except SwarmError as error:
                if is_final(error):
                    raise
                trouble = error
        if trouble.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
            raise Unavailable(f"no other manager could be asked: {trouble.message}")
        raise trouble

    async def _shown(self, addr: str) -> bool:
        """Wait until the member list has the address; False when it does not come soon."""
        changed = asyncio.Event()
        unsubscribe = self._raft.subscribe(changed.set)
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while self.known != addr:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            return False
        finally:
            unsubscribe()
        return True


def is_final(error: SwarmError) -> bool:
    """True for what the leader refused; False for what may pass, such as a missing leader."""
    return error.code in _FINAL or error.message.startswith(CANNOT_DIAL_BACK)
