"""Real raft nodes in one process, joined by a network that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import SwarmError
from swarmd.cluster.ca.envelope import decryptor, secretbox
from swarmd.cluster.store import Store
from swarmd.manager.commit import Committer
from swarmd.manager.raftnode import Membership, NotMember, Place, RaftNode
from swarmd.manager.raftnode.files import Files

KEY = b"k" * 32
TICK_SECONDS = 0.02


class Quick(Files):
    """Does not wait for the disk: a slow one would look like a silent leader at this tick."""

    def sync(self, fd: int) -> None:
        """Leave it to the kernel."""

    def sync_dir(self, path: Path) -> None:
        """Leave it to the kernel."""


@dataclass
class One:
    """A member with its store; `task` is its run."""

    name: str
    node: RaftNode
    store: Store
    committer: Committer
    membership: Membership
    ready: asyncio.Event
    task: asyncio.Task[None] | None = None

    def config(self, id: str) -> api.Config | None:
        """A config object as applied here."""
        return self.store.view().get(api.Config, id)


@dataclass
class Network:
    """Delivers messages in order; knows who is cut off."""

    nodes: dict[int, RaftNode] = field(default_factory=dict)
    cut: set[int] = field(default_factory=set)
    dropped: Callable[[raftpb.Message], bool] = lambda message: False

    def deliver(self, sender: int, message: raftpb.Message) -> None:
        """Hand a message over, unless the network or the receiver is away."""
        target = self.nodes.get(message.to)
        copy = raftpb.Message.FromString(message.SerializeToString())
        try:
            if target is None or self.dropped(copy) or {sender, message.to} & self.cut:
                raise SwarmError("lost")
            target.step(copy)
        except NotMember:
            if sender in self.nodes:
                self.nodes[sender].report_removed()
        except SwarmError:
            self._report(sender, message, ok=False)
        else:
            self._report(sender, message, ok=True)

    def _report(self, sender: int, message: raftpb.Message, *, ok: bool) -> None:
        node = self.nodes.get(sender)
        if node is None or node.id == 0:
            return
        try:
            if not ok:
                node.report_unreachable(message.to)
            if message.type == raftpb.MsgSnap:
                node.report_snapshot(message.to, ok)
        except SwarmError:
            self.nodes.pop(sender, None)


class Line:
    """One member's transport."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.node: RaftNode | None = None

    def send(self, messages: Sequence[raftpb.Message]) -> None:
        """Deliver soon, as a network would."""
        loop = asyncio.get_running_loop()
        for message in messages:
            assert self.node is not None
            loop.call_soon(self._network.deliver, self.node.id, message)

    def active(self, raft_id: int) -> bool:
        """Reachable unless one of both is cut off."""
        own = self.node.id if self.node is not None else 0
        return raft_id in self._network.nodes and not {own, raft_id} & self._network.cut


class Group:
    """Members that find each other. Use inside `async with Tasks()`."""

    def __init__(self, root: Path, tasks: Tasks) -> None:
        self._root = root
        self._tasks = tasks
        self.network = Network()
        self._seed = 0

    def make(
        self,
        name: str,
        joined: api.JoinResponse | None = None,
        *,
        tick_seconds: float = TICK_SECONDS,
        files: Files | None = None,
        key: bytes = KEY,
        fast_failover: bool = False,
    ) -> One:
        """A member that is not running yet."""
        self._seed += 1
        clock, entropy = SystemClock(), SeededEntropy(self._seed)
        place = Place(
            self._root / name,
            f"node-{name}",
            f"10.0.0.1:{self._seed}",
            secretbox(key, entropy),
            decryptor(key, KEY),
            joined,
            65_536,
            files or Quick(),
        )
        line, store = Line(self.network), Store(strict=True)
        node = RaftNode(
            place,
            store,
            clock,
            entropy,
            transport=line,
            tick_seconds=tick_seconds,
            fast_failover=fast_failover,
        )
        line.node = node
        return One(
            name,
            node,
            store,
            Committer(store, node, clock),
            Membership(node, entropy),
            asyncio.Event(),
        )

    async def start(self, one: One) -> One:
        """Run a member until it has applied what it has on disk."""

        async def run() -> None:
            try:
                await one.node.run(one.ready)
            except SwarmError:
                if one.ready.is_set():  # the test looks at `task` itself
                    self.network.nodes.pop(one.node.id, None)
                raise

        loop = asyncio.get_running_loop()
        one.task = loop.create_task(run(), name=one.name)
        self._tasks.spawn(_stop_with(one.task), f"{one.name}-end")
        ready = loop.create_task(one.ready.wait())
        await asyncio.wait({one.task, ready}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if one.task.done():
            await one.task
        self.network.nodes[one.node.id] = one.node
        return one

    async def stop(self, one: One) -> None:
        """End a member cleanly."""
        self.network.nodes.pop(one.node.id, None)
        assert one.task is not None
        one.task.cancel()
        await asyncio.wait({one.task})

    async def found(self, name: str, **how: Any) -> One:
        """The first member; `how` goes to `make`."""
        return await self.start(self.make(name, **how))

    async def join(self, leader: One, name: str, **how: Any) -> One:
        """Admit and start another member, as the Join call would."""
        number = self._seed + 1
        raft_id = await leader.membership.add(f"node-{name}", f"10.0.0.1:{number}")
        joined = api.JoinResponse(raft_id=raft_id, members=leader.node.membership.all())
        return await self.start(self.make(name, joined, **how))


async def _stop_with(task: asyncio.Task[None]) -> None:
    """Lives as long as the group of the test; takes the member down with it."""
    try:
        await asyncio.Event().wait()
    finally:
        task.cancel()
        await asyncio.wait({task})


async def eventually(check: Callable[[], object], seconds: float = 10) -> None:
    """Wait until `check()` is true; fails after `seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not check():
        if loop.time() > end:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(0.005)
