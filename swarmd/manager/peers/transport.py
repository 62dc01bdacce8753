"""`Peers`: raftnode's transport. Follows the member list and keeps one link per other member."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.entropy import Entropy
from swarmd.base.errors import NotFound, SwarmError, Unavailable
from swarmd.manager.peers.link import SEND_SECONDS, Link, Reports
from swarmd.rpc.peer import Caller

log = logging.getLogger(__name__)

Dial = Callable[[str, str], Awaitable[Caller]]

strangers_max = 16  # members we were told nothing of, looked for at the same time


class MemberList(Protocol):
    """The own list of members."""

    def all(self) -> Sequence[api.RaftMember]:
        """Every member, this one included."""
        ...

    def is_removed(self, raft_id: int) -> bool:
        """True for ids that can never come back."""
        ...


class Node(Protocol):
    """What is asked of, and told to, the raft member; `raftnode.RaftNode`."""

    @property
    def id(self) -> int:
        """The own raft id."""
        ...

    @property
    def membership(self) -> MemberList:
        """The own list of members."""
        ...

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after members changed."""
        ...

    def report_unreachable(self, raft_id: int) -> None:
        """A message was lost."""
        ...

    def report_snapshot(self, raft_id: int, ok: bool) -> None:
        """A snapshot arrived, or not."""
        ...


class Peers:
    """Implements `raftnode.Transport` over the wire. `run` beside the raft member."""

    def __init__(self, dial: Dial, entropy: Entropy, removed: Callable[[], None]) -> None:
        """`dial(addr, node_id)` connects as this manager, to no other node if one is named.
        `removed` is called when a peer says this member was removed from the cluster."""
        self._dial = dial
        self._entropy = entropy
        self._reports = Reports(self._report_unreachable, self._report_snapshot, removed)
        self._links: dict[int, Link] = {}
        self._strangers: set[int] = set()
        self._node: Node | None = None
        self._tasks: Tasks | None = None

    async def run(self, ready: asyncio.Event, node: Node) -> None:
        """Carry messages of `node` until cancelled; links come and go with its members."""
        self._node = node
        unsubscribe = node.subscribe(self.follow)
        try:
            async with Tasks() as self._tasks:
                self.follow()
                ready.set()
                await asyncio.Event().wait()
        finally:
            unsubscribe()
            self._tasks = None
            self._links.clear()

    def follow(self) -> None:
        """Open links to new members, end those to removed ones, change those that moved."""
        node, tasks = self._node, self._tasks
        if node is None or tasks is None or not node.id:
            return
        wanted = {m.raft_id: m for m in node.membership.all() if m.raft_id != node.id}
        for raft_id, link in list(self._links.items()):
            if raft_id not in wanted or wanted[raft_id].addr != link.addr:
                del self._links[raft_id]
                link.retire()
        for raft_id, member in wanted.items():
            if raft_id not in self._links:
                self._links[raft_id] = link = self._link(raft_id, member.addr, member.node_id)
                tasks.spawn(link.run(), f"raft-peer-{raft_id:x}")

    def _link(self, raft_id: int, addr: str, node_id: str) -> Link:
        """A way to one member. A host that was rebuilt answers at the address of the member it
        was before: without its name that one would count as reachable, and for the quorum."""
        dial = partial(self._dial_node, node_id)
        return Link(raft_id, addr, dial, self._reports, self._entropy)

    async def _dial_node(self, node_id: str, addr: str) -> Caller:
        return await self._dial(addr, node_id)

    # What the raft member asks

    def send(self, messages: Sequence[raftpb.Message]) -> None:
        """Queue messages; returns at once. Losses are reported to the node, never raised."""
        for message in messages:
            link = self._links.get(message.to)
            if link is None:
                self.follow()
                link = self._links.get(message.to)
            if link is None:
                self._send_to_stranger(message)
            elif not link.put(message):
                self._lost(message)

    def active(self, raft_id: int) -> bool:
        """True if the last exchange with this member worked."""
        link = self._links.get(raft_id)
        return link is not None and link.active

    async def health_check(self, raft_id: int) -> None:
        """Ask a member, within 2 s, whether it serves. Raises `SwarmError`."""
        link = self._links.get(raft_id)
        if link is None:
            raise NotFound(f"member {raft_id:x} not found")
        await link.check()

    async def refresh(self) -> None:
        """Dial every peer anew: our certificate or our trust changed."""
        for link in list(self._links.values()):
            await link.refresh()

    # Members nobody told us of (yet)

    def _send_to_stranger(self, message: raftpb.Message) -> None:
        raft_id, node, tasks = message.to, self._node, self._tasks
        if (
            node is None
            or tasks is None
            or node.membership.is_removed(raft_id)
            or raft_id in self._strangers
            or len(self._strangers) >= strangers_max
        ):
            self._lost(message)
            return
        self._strangers.add(raft_id)
        tasks.spawn(self._find_stranger(message), f"raft-stranger-{raft_id:x}")

    async def _find_stranger(self, message: raftpb.Message) -> None:
        """Ask a reachable member for the address, and send there this once."""
        raft_id = message.to
        try:
            async with asyncio.timeout(3 * SEND_SECONDS):
                addr = await self._resolve(raft_id)
                link = self._link(raft_id, addr, "")
                link.put(message)
                link.retire()
                await link.run()
        except (SwarmError, TimeoutError) as error:
            log.debug("no way to raft member %x: %s", raft_id, error)
            self._lost(message)
        finally:
            self._strangers.discard(raft_id)

    async def _resolve(self, raft_id: int) -> str:
        link = next((link for link in self._links.values() if link.active), None)
        if link is None:
            raise Unavailable("no manager can be reached")
        caller = await self._dial(link.addr, "")
        try:
            request = api.ResolveAddressRequest(raft_id=raft_id)
            answer = await caller.unary("Raft/ResolveAddress", request, timeout=SEND_SECONDS)
        finally:
            await caller.close()
        return str(answer.addr)

    # Reports

    def _lost(self, message: raftpb.Message) -> None:
        self._report_unreachable(message.to)
        if message.type == raftpb.MsgSnap:
            self._report_snapshot(message.to, False)

    def _report_unreachable(self, raft_id: int) -> None:
        if self._node is not None:
            with suppress(SwarmError):  # a stopped node does not care
                self._node.report_unreachable(raft_id)

    def _report_snapshot(self, raft_id: int, ok: bool) -> None:
        if self._node is not None:
            with suppress(SwarmError):
                self._node.report_snapshot(raft_id, ok)
