"""Raft between managers over a real port: a big snapshot in pieces, an old manager, a removal."""

from __future__ import annotations

import asyncio
from typing import Any

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import Unimplemented
from swarmd.manager.peers.link import Link, Reports
from swarmd.manager.raftnode import NotMember
from swarmd.manager.raftnode.members import Members, raft_member
from swarmd.manager.raftservice import RaftService
from swarmd.rpc.client import dial_manager
from tests.wire.rpc_kit import Root, dummy_services, serving


class Receiver:
    """A member with id 2 that keeps what it gets."""

    def __init__(self) -> None:
        self.id = 2
        self.membership = Members()
        self.membership.add(raft_member(1, "m1", "127.0.0.1:1"))
        self.got: asyncio.Queue[raftpb.Message] = asyncio.Queue()

    def step(self, message: raftpb.Message) -> None:
        self.got.put_nowait(message)

    async def health_check(self, raft_id: int) -> None:
        """Everybody is well."""

    def service(self) -> RaftService:
        opened = asyncio.Event()
        opened.set()
        return RaftService(self, self, NotMember, opened)


async def healthy(request: Any, peer: Any) -> api.HealthCheckResponse:
    return api.HealthCheckResponse(status=api.HealthCheckResponse.ServingStatus.SERVING)


def services(receiver: Receiver, **overrides: Any) -> list[object]:
    """All services, with the real one for Raft."""
    raft = receiver.service()
    handlers = {
        "Health/Check": healthy,
        "Raft/StreamRaftMessage": raft.stream_raft_message,
        "Raft/ProcessRaftMessage": raft.process_raft_message,
    }
    return dummy_services([], handlers | overrides)


class Ends:
    """What the sending side is told."""

    def __init__(self) -> None:
        self.lost: list[int] = []
        self.snapshots: asyncio.Queue[bool] = asyncio.Queue()
        self.removed = asyncio.Event()

    def reports(self) -> Reports:
        return Reports(
            self.lost.append, lambda _, ok: self.snapshots.put_nowait(ok), self.removed.set
        )


def message(kind: raftpb.MessageType, data: bytes = b"") -> raftpb.Message:
    made = raftpb.Message(type=kind, to=2, term=4, index=0, commit=3)
    setattr(made, "from", 1)
    if data:
        made.snapshot.data = data
        made.snapshot.metadata.index = 70
    return made


async def with_line(receiver: Receiver, work: Any, **overrides: Any) -> Ends:
    root, ends = Root(), Ends()
    manager = root.issue("m1", "swarm-manager")
    async with serving(services(receiver, **overrides), manager) as server:
        addr = f"127.0.0.1:{server.port}"
        link = Link(2, addr, lambda to: dial_manager(to, manager), ends.reports(), SeededEntropy(1))
        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            running = group.create_task(link.run())
            await work(link, ends)
            running.cancel()
    return ends


async def test_a_snapshot_of_many_megabytes_arrives_whole() -> None:
    receiver = Receiver()
    sent = message(raftpb.MsgSnap, bytes(range(256)) * (11 << 12) + b"tail")  # 11 MiB

    async def work(link: Link, ends: Ends) -> None:
        link.put(message(raftpb.MsgHeartbeat))
        link.put(sent)
        link.put(message(raftpb.MsgHeartbeat))
        assert await ends.snapshots.get() is True
        kinds = [await receiver.got.get() for _ in range(3)]
        assert sorted(got.type for got in kinds) == [raftpb.MsgSnap, *[raftpb.MsgHeartbeat] * 2]
        assert next(got for got in kinds if got.type == raftpb.MsgSnap) == sent

    assert (await with_line(receiver, work)).lost == []


async def test_a_manager_without_streams_gets_single_calls() -> None:
    receiver = Receiver()

    async def unknown(requests: Any, peer: Any) -> None:
        raise Unimplemented("unknown method StreamRaftMessage")

    async def work(link: Link, ends: Ends) -> None:
        for _ in range(3):
            link.put(message(raftpb.MsgSnap, b"state"))
        for _ in range(3):
            await receiver.got.get()
            assert await ends.snapshots.get() is True

    ends = await with_line(receiver, work, **{"Raft/StreamRaftMessage": unknown})
    assert ends.lost == []


async def test_a_removed_sender_hears_of_it_over_the_wire() -> None:
    receiver = Receiver()
    receiver.membership.remove(1)

    async def work(link: Link, ends: Ends) -> None:
        link.put(message(raftpb.MsgHeartbeat))
        await ends.removed.wait()

    assert (await with_line(receiver, work)).lost == [2]
    assert receiver.got.empty()
