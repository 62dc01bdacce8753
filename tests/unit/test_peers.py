"""Links to other managers: order, fallback, deadlines, what is reported, redials, strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    SwarmError,
    Unimplemented,
)
from swarmd.manager.peers import REMOVED, Peers, requests_for
from swarmd.manager.peers.link import NEWS_SECONDS, Link, Reports, queue_messages_max
from swarmd.manager.raftnode import NotMember
from swarmd.manager.raftnode.members import Members, raft_member
from swarmd.rpc.peer import Disconnected
from tests.harness.virtual import run_virtual

SERVING = api.HealthCheckResponse.ServingStatus.SERVING


def message(
    kind: raftpb.MessageType = raftpb.MsgHeartbeat,
    to: int = 2,
    *,
    commit: int = 0,
    data: bytes = b"",
) -> raftpb.Message:
    made = raftpb.Message(type=kind, to=to, term=3, commit=commit, index=7)
    setattr(made, "from", 1)
    if data:
        made.snapshot.data = data
        made.snapshot.metadata.index = 9
    return made


def append(previous: int, *indexes: int, commit: int = 0, data: bytes = b"") -> raftpb.Message:
    """Entries `indexes` of term 3 behind `previous`."""
    made = raftpb.Message(type=raftpb.MsgApp, to=2, term=3, index=previous, logTerm=3)
    made.commit = commit
    setattr(made, "from", 1)
    for index in indexes:
        made.entries.add(Type=raftpb.EntryNormal, Term=3, Index=index, Data=data)
    return made


@dataclass
class Far:
    """Another manager; `take` decides what happens to a message that arrives."""

    up: bool = True
    health: api.HealthCheckResponse.ServingStatus = SERVING
    got: list[tuple[str, raftpb.Message]] = field(default_factory=list)
    dials: list[float] = field(default_factory=list)
    checks: int = 0
    addresses: dict[int, str] = field(default_factory=dict)
    take: Callable[[str, raftpb.Message], Awaitable[None]] | None = None
    open: int = 0

    async def dial(self, addr: str) -> FarCaller:
        self.dials.append(asyncio.get_running_loop().time())
        if not self.up:
            raise Disconnected(f"nobody listens on {addr}")
        self.open += 1
        return FarCaller(self, addr)

    async def arrive(self, way: str, got: raftpb.Message) -> None:
        if not self.up:
            raise Disconnected("transport is closing")
        if self.take is not None:
            await self.take(way, got)
        self.got.append((way, got))

    def commits(self) -> list[int]:
        return [got.commit for _, got in self.got]


class FarCaller:
    """A connection to it."""

    def __init__(self, far: Far, addr: str) -> None:
        self.far, self.addr, self.closed = far, addr, False

    async def unary(
        self, method: str, request: Any, *, timeout: float | None = None, **_: Any
    ) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await self._unary(method, request)
        except TimeoutError as error:
            raise DeadlineExceeded("context deadline exceeded") from error

    async def _unary(self, method: str, request: Any) -> Any:
        if not self.far.up:
            raise Disconnected("transport is closing")
        if method == "Health/Check":
            assert request.service == "Raft"
            self.far.checks += 1
            return api.HealthCheckResponse(status=self.far.health)
        if method == "Raft/ResolveAddress":
            if request.raft_id not in self.far.addresses:
                raise NotFound(f"member {request.raft_id:x} not found")
            return api.ResolveAddressResponse(addr=self.far.addresses[request.raft_id])
        assert method == "Raft/ProcessRaftMessage"
        await self.far.arrive("unary", request.message)
        return api.ProcessRaftMessageResponse()

    def server_stream(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("Raft has no such method")

    async def client_stream(self, method: str, requests: AsyncIterable[Any], **_: Any) -> Any:
        assert method == "Raft/StreamRaftMessage"
        async for request in requests:
            await self.far.arrive("stream", request.message)
        return api.StreamRaftMessageResponse()

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.far.open -= 1


@dataclass
class Told:
    """What links reported."""

    unreachable: list[int] = field(default_factory=list)
    snapshots: list[tuple[int, bool]] = field(default_factory=list)
    removed: int = 0

    def reports(self) -> Reports:
        def removed() -> None:
            self.removed += 1

        return Reports(
            self.unreachable.append, lambda id, ok: self.snapshots.append((id, ok)), removed
        )


def with_link(far: Far, told: Told, work: Callable[[Link], Coroutine[Any, Any, None]]) -> None:
    """Run `work` beside a link to `far`, in virtual time."""

    async def main() -> None:
        link = Link(2, "10.0.0.2:2377", far.dial, told.reports(), SeededEntropy(1))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(link.run())
            await work(link)
            running.cancel()
        assert far.open == 0, "a connection was left open"
        assert not link.active

    run_virtual(main())


# Cutting


@pytest.mark.parametrize("size", [0, 1, 900, 1000, 1001, 5000, 10_007])
def test_snapshots_are_cut_to_fit_and_add_up(size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    whole = message(raftpb.MsgSnap, data=data)
    pieces = list(requests_for(whole, 1000))
    assert b"".join(piece.message.snapshot.data for piece in pieces) == data
    assert all(piece.ByteSize() <= 1000 for piece in pieces)
    assert (len(pieces) == 1) == (api.StreamRaftMessageRequest(message=whole).ByteSize() <= 1000)
    for piece in pieces:
        piece.message.snapshot.data = data
        if data:
            assert piece.message == whole


def test_only_snapshots_are_cut() -> None:
    big = message(raftpb.MsgApp)
    big.entries.add(Type=raftpb.EntryNormal, Term=1, Index=1, Data=b"x" * 5000)
    assert [piece.message for piece in requests_for(big, 1000)] == [big]


# One link


def test_messages_arrive_one_by_one_in_order() -> None:
    far, told = Far(), Told()
    busy = 0

    async def slow(way: str, got: raftpb.Message) -> None:
        nonlocal busy
        busy += 1
        assert busy == 1
        await asyncio.sleep(0.5)
        busy -= 1

    far.take = slow

    async def work(link: Link) -> None:
        for commit in range(5):
            assert link.put(message(commit=commit))
        await asyncio.sleep(10)
        assert link.active and far.checks == 1 and len(far.dials) == 1

    with_link(far, told, work)
    assert far.commits() == [0, 1, 2, 3, 4]
    assert told == Told()


def test_only_snapshots_are_streamed() -> None:
    far, told = Far(), Told()
    kinds = [raftpb.MsgHeartbeat, raftpb.MsgApp, raftpb.MsgSnap, raftpb.MsgAppResp]

    async def work(link: Link) -> None:
        for kind in kinds:
            link.put(message(kind))
            await asyncio.sleep(1)

    with_link(far, told, work)
    assert [way for way, _ in far.got] == ["unary", "unary", "stream", "unary"]
    assert [got.type for _, got in far.got] == kinds


def test_a_commit_index_waits_a_moment_for_entries_to_go_with() -> None:
    far, told = Far(), Told()

    async def work(link: Link) -> None:
        await asyncio.sleep(0.1)
        link.put(append(7, commit=7))
        await asyncio.sleep(NEWS_SECONDS / 2)
        assert far.got == []
        link.put(append(7, 8, 9, commit=7))
        await asyncio.sleep(0.001)
        assert [len(got.entries) for _, got in far.got] == [2]
        link.put(append(9, commit=9))
        await asyncio.sleep(NEWS_SECONDS * 2)
        assert far.commits() == [7, 9], "nothing came: it went alone"

    with_link(far, told, work)
    assert told == Told()


def test_old_managers_get_unary_calls_and_are_asked_again_after_a_redial() -> None:
    far, told = Far(), Told()
    ways: list[str] = []

    async def old(way: str, got: raftpb.Message) -> None:
        ways.append(way)
        if way == "stream" and len(far.dials) == 1:
            raise Unimplemented("unknown method StreamRaftMessage")

    far.take = old

    async def work(link: Link) -> None:
        for commit in range(2):
            link.put(message(raftpb.MsgSnap, commit=commit))
            await asyncio.sleep(1)
        await link.refresh()
        link.put(message(raftpb.MsgSnap, commit=2))
        await asyncio.sleep(1)

    with_link(far, told, work)
    assert ways == ["stream", "unary", "unary", "stream"]
    assert far.commits() == [0, 1, 2]
    assert told.snapshots == [(2, True)] * 3 and told.unreachable == []


def test_a_message_without_answer_is_lost_after_two_seconds() -> None:
    far, told = Far(), Told()

    async def hang(way: str, got: raftpb.Message) -> None:
        if got.commit == 1:
            await asyncio.Event().wait()

    far.take = hang

    async def work(link: Link) -> None:
        await asyncio.sleep(0.1)
        assert link.active
        for commit in (1, 2):
            link.put(message(commit=commit))
        await asyncio.sleep(1.9)
        assert told.unreachable == [] and link.active
        await asyncio.sleep(0.2)
        assert told.unreachable == [2, 2], "what waited behind it is as stale"
        assert not link.active
        link.put(message(commit=3))
        await asyncio.sleep(2)
        assert link.active and far.commits() == [3]

    with_link(far, told, work)


def test_a_big_snapshot_may_take_long_while_pieces_get_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far, told = Far(), Told()
    monkeypatch.setattr(
        "swarmd.manager.peers.link.requests_for", lambda whole: requests_for(whole, 1000)
    )

    async def slow(way: str, got: raftpb.Message) -> None:
        if got.type == raftpb.MsgSnap:
            await asyncio.sleep(1.5)

    far.take = slow

    async def work(link: Link) -> None:
        link.put(message(raftpb.MsgSnap, data=b"s" * 9000))
        for commit in range(1, 11):
            await asyncio.sleep(1)
            link.put(message(commit=commit))
            await asyncio.sleep(0.1)
            assert far.commits()[-1] == commit, "a heartbeat waited for the snapshot"
        await asyncio.sleep(20)

    with_link(far, told, work)
    assert told == Told(snapshots=[(2, True)])
    assert sum(len(got.snapshot.data) for _, got in far.got) == 9000


def test_a_snapshot_that_stalls_is_reported_and_leaves_the_connection_alone() -> None:
    far, told = Far(), Told()

    async def stall(way: str, got: raftpb.Message) -> None:
        if got.type == raftpb.MsgSnap:
            await asyncio.Event().wait()

    far.take = stall

    async def work(link: Link) -> None:
        link.put(message(raftpb.MsgSnap, data=b"s"))
        await asyncio.sleep(2.1)
        assert told == Told(unreachable=[2], snapshots=[(2, False)])
        link.put(message(commit=1))
        await asyncio.sleep(0.1)
        assert len(far.dials) == 1 and link.active

    with_link(far, told, work)


def test_a_full_queue_takes_no_more() -> None:
    far, told = Far(), Told()

    async def hang(way: str, got: raftpb.Message) -> None:
        await asyncio.Event().wait()

    far.take = hang

    async def work(link: Link) -> None:
        link.put(message())
        await asyncio.sleep(0.1)  # that one is on its way now
        assert all(link.put(message(commit=n)) for n in range(queue_messages_max))
        assert not link.put(message())
        await asyncio.sleep(0.1)

    with_link(far, told, work)
    assert len(told.unreachable) == queue_messages_max, "what was never sent is reported"


@pytest.mark.parametrize(
    ("error", "removed"),
    [
        (NotFound(REMOVED), 1),
        (NotFound("member 2 not found"), 0),
        (SwarmError(REMOVED), 0),
        (InvalidArgument("no"), 0),
    ],
)
def test_only_the_exact_words_mean_removal(error: SwarmError, removed: int) -> None:
    far, told = Far(), Told()

    async def refuse(way: str, got: raftpb.Message) -> None:
        raise error

    far.take = refuse

    async def work(link: Link) -> None:
        link.put(message())
        await asyncio.sleep(1)

    with_link(far, told, work)
    assert told.removed == removed
    assert told.unreachable == [2]


def test_the_words_of_removal_are_those_we_answer_with() -> None:
    assert NotMember().message == REMOVED


def test_a_dead_peer_is_dialled_in_bounded_steps_and_found_again() -> None:
    far, told = Far(up=False), Told()

    async def work(link: Link) -> None:
        for commit in range(60):
            link.put(message(commit=commit))
            await asyncio.sleep(1)
        assert 30 <= len(far.dials) <= 62
        assert far.dials[-1] > 55, "it gave up"
        assert not link.active and len(told.unreachable) >= 55
        far.up = True
        link.put(message(commit=99))
        await asyncio.sleep(1.5)
        assert link.active and far.commits()[-1] == 99

    with_link(far, told, work)


def test_an_unreachable_peer_nobody_writes_to_is_looked_for() -> None:
    far, told = Far(up=False), Told()

    async def work(link: Link) -> None:
        await asyncio.sleep(12)
        assert not link.active
        far.up = True
        await asyncio.sleep(6)
        assert link.active

    with_link(far, told, work)
    assert told == Told()


def test_a_peer_that_does_not_serve_is_not_active() -> None:
    far, told = Far(health=api.HealthCheckResponse.ServingStatus.NOT_SERVING), Told()

    async def work(link: Link) -> None:
        await asyncio.sleep(1)
        assert not link.active and far.checks == 1
        with pytest.raises(SwarmError, match="NOT_SERVING"):
            await link.check()

    with_link(far, told, work)


def test_a_peer_with_a_status_nobody_knows_is_not_active_and_ends_nothing() -> None:
    """gRPC's own health protocol has 3, SERVICE_UNKNOWN; the group of links went down with it."""
    far, told = Far(health=cast("Any", 3)), Told()

    async def work(link: Link) -> None:
        await asyncio.sleep(1)
        assert not link.active and far.checks == 1
        with pytest.raises(SwarmError, match="status 3"):
            await link.check()

    with_link(far, told, work)


def test_a_retired_link_sends_what_it_has_and_ends() -> None:
    far, told = Far(), Told()

    async def main() -> None:
        link = Link(2, "a:1", far.dial, told.reports(), SeededEntropy(1))
        link.put(message(commit=1))
        link.put(message(commit=2))
        link.retire()
        assert not link.put(message(commit=3))
        async with asyncio.timeout(5):
            await link.run()
        assert far.commits() == [1, 2] and far.open == 0

    run_virtual(main())


def test_a_retired_link_to_a_dead_peer_ends_too() -> None:
    far, told = Far(up=False), Told()

    async def main() -> None:
        link = Link(2, "a:1", far.dial, told.reports(), SeededEntropy(1))
        link.put(message(commit=1))
        link.put(message(commit=2))
        link.retire()
        async with asyncio.timeout(5):
            await link.run()
        assert told.unreachable == [2, 2]

    run_virtual(main())


# All of them


class OwnNode:
    """The raft member the transport works for."""

    def __init__(self) -> None:
        self.id = 1
        self.membership = Members()
        self.told = Told()
        self.callbacks: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def set(self, raft_id: int, addr: str) -> None:
        self.membership.add(raft_member(raft_id, f"node{raft_id}", addr))
        self.changed()

    def drop(self, raft_id: int) -> None:
        self.membership.remove(raft_id)
        self.changed()

    def changed(self) -> None:
        for callback in self.callbacks:
            callback()

    def report_unreachable(self, raft_id: int) -> None:
        self.told.unreachable.append(raft_id)
        raise SwarmError("raft: failed to process the request: node is stopped")

    def report_snapshot(self, raft_id: int, ok: bool) -> None:
        self.told.snapshots.append((raft_id, ok))


class Net:
    """Managers by address."""

    def __init__(self, *addrs: str) -> None:
        self.far = {addr: Far() for addr in addrs}
        self.nodes: dict[str, str] = {}  # by address, where only one node may be found

    async def dial(self, addr: str, node_id: str) -> FarCaller:
        if addr not in self.far:
            raise Disconnected(f"nobody listens on {addr}")
        if node_id not in ("", self.nodes.get(addr, node_id)):
            raise Disconnected(f"{node_id} is not who answers at {addr}")
        return await self.far[addr].dial(addr)


def with_peers(
    net: Net, work: Callable[[Peers, OwnNode], Coroutine[Any, Any, None]]
) -> tuple[OwnNode, int]:
    node = OwnNode()
    removed = 0

    def on_removed() -> None:
        nonlocal removed
        removed += 1

    async def main() -> None:
        peers = Peers(net.dial, SeededEntropy(1), on_removed)
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(peers.run(ready, node))
            await ready.wait()
            await work(peers, node)
            running.cancel()
        assert not node.callbacks
        assert all(far.open == 0 for far in net.far.values())

    run_virtual(main())
    return node, removed


def test_links_follow_the_member_list() -> None:
    net = Net("b:1", "b:2", "c:1")

    async def work(peers: Peers, node: OwnNode) -> None:
        node.set(1, "a:1")
        node.set(2, "b:1")
        node.set(3, "c:1")
        await asyncio.sleep(1)
        assert [peers.active(id) for id in (1, 2, 3)] == [False, True, True]
        node.set(2, "b:2")  # moved
        peers.send([message(to=2, commit=1), message(to=3, commit=2)])
        await asyncio.sleep(1)
        assert net.far["b:1"].commits() == [] and net.far["b:1"].open == 0
        assert net.far["b:2"].commits() == [1] and net.far["c:1"].commits() == [2]
        node.drop(3)
        await asyncio.sleep(1)
        assert net.far["c:1"].open == 0 and not peers.active(3)
        peers.send([message(to=3)])
        await asyncio.sleep(10)
        assert net.far["c:1"].commits() == [2], "a removed member is written to no more"

    node, removed = with_peers(net, work)
    assert node.told.unreachable == [3] and removed == 0


def test_the_last_words_to_a_removed_member_are_sent() -> None:
    net = Net("b:1")

    async def work(peers: Peers, node: OwnNode) -> None:
        node.set(2, "b:1")
        await asyncio.sleep(1)
        peers.send([message(to=2, commit=8)])
        node.drop(2)
        await asyncio.sleep(1)
        assert net.far["b:1"].commits() == [8]

    with_peers(net, work)


def test_a_member_nobody_told_us_of_is_looked_up_at_a_reachable_one() -> None:
    net = Net("b:1", "c:1")
    net.far["b:1"].addresses = {3: "c:1"}

    async def work(peers: Peers, node: OwnNode) -> None:
        peers.send([message(to=3, commit=1)])
        await asyncio.sleep(1)
        assert node.told.unreachable == [3], "there is nobody to ask yet"
        node.set(2, "b:1")
        await asyncio.sleep(1)
        peers.send([message(to=3, commit=2), message(to=4)])
        await asyncio.sleep(5)
        assert net.far["c:1"].commits() == [2] and net.far["c:1"].open == 0
        assert node.told.unreachable == [3, 4]
        peers.send([message(raftpb.MsgSnap, to=4, data=b"s")])
        await asyncio.sleep(5)
        assert node.told.snapshots == [(4, False)]

    with_peers(net, work)


def test_a_member_is_not_whoever_answers_at_its_address() -> None:
    """A host that lost its state and joined anew is another member at the same address."""
    net = Net("b:1")
    net.nodes = {"b:1": "node3"}

    async def work(peers: Peers, node: OwnNode) -> None:
        node.set(2, "b:1")
        node.set(3, "b:1")
        await asyncio.sleep(1)
        assert [peers.active(id) for id in (2, 3)] == [False, True]
        peers.send([message(to=2, commit=1), message(to=3, commit=2)])
        await asyncio.sleep(5)
        assert net.far["b:1"].commits() == [2]

    node, _ = with_peers(net, work)
    assert node.told.unreachable == [2]


def test_health_checks_go_to_members_only() -> None:
    net = Net("b:1")

    async def work(peers: Peers, node: OwnNode) -> None:
        node.set(2, "b:1")
        await peers.health_check(2)
        with pytest.raises(NotFound, match="member 3 not found"):
            await peers.health_check(3)
        net.far["b:1"].up = False
        with pytest.raises(SwarmError):
            await peers.health_check(2)

    with_peers(net, work)


def test_a_removed_manager_is_told_once_a_peer_says_so() -> None:
    net = Net("b:1")

    async def refuse(way: str, got: raftpb.Message) -> None:
        raise NotFound(REMOVED)

    net.far["b:1"].take = refuse

    async def work(peers: Peers, node: OwnNode) -> None:
        node.set(2, "b:1")
        peers.send([message(to=2)])
        await asyncio.sleep(1)

    _, removed = with_peers(net, work)
    assert removed == 1
