"""The services Raft and RaftMembership: what is taken, ignored, refused, and in which words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.errors import Code, DeadlineExceeded, SwarmError
from swarmd.manager.peers import requests_for
from swarmd.manager.raftnode import NotMember
from swarmd.manager.raftnode.errors import NodeStopped, QuorumAtRisk
from swarmd.manager.raftnode.members import Members, raft_member
from swarmd.manager.raftservice import RaftMembershipService, RaftService
from swarmd.manager.raftservice.membership import completed
from swarmd.rpc.peer import Peer
from tests.harness.virtual import run_virtual

PEER = Peer(node_id="joiner", roles=("swarm-manager",), remote_addr="10.0.0.9:40000")


class OwnNode:
    """A member with id 1 in a group of 1 and 2; 3 was removed."""

    def __init__(self) -> None:
        self.id = 1
        self.membership = Members()
        self.leads = True
        self.stepped: list[raftpb.Message] = []
        self.trouble: SwarmError | None = None
        for raft_id in (1, 2, 3):
            addr = f"10.0.0.{raft_id}:2377"
            self.membership.add(raft_member(raft_id, f"node{raft_id}", addr))
        self.membership.remove(3)

    def is_leader(self) -> bool:
        return self.leads

    def step(self, message: raftpb.Message) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.stepped.append(message)


class Checks:
    """Health checks with a fixed outcome."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.healthy = True

    async def health_check(self, raft_id: int) -> None:
        self.asked.append(raft_id)
        if not self.healthy:
            raise DeadlineExceeded("no answer")


class Desk:
    """The service with its surroundings."""

    def __init__(self) -> None:
        self.node, self.checks, self.opened = OwnNode(), Checks(), asyncio.Event()
        self.opened.set()
        self.service = RaftService(self.node, self.checks, NotMember, self.opened)

    async def take(self, message: raftpb.Message, way: str = "unary") -> None:
        if way == "unary":
            request = api.ProcessRaftMessageRequest(message=message)
            await self.service.process_raft_message(request, None)
        else:
            await self.service.stream_raft_message(stream(requests_for(message)), None)


async def stream(requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


def message(
    kind: raftpb.MessageType = raftpb.MsgApp, *, sender: int = 2, to: int = 1
) -> raftpb.Message:
    made = raftpb.Message(type=kind, to=to, term=5, index=4)
    setattr(made, "from", sender)
    return made


WAYS = pytest.mark.parametrize("way", ["unary", "stream"])


@WAYS
@pytest.mark.parametrize(
    ("kind", "sender", "to", "taken"),
    [
        (raftpb.MsgApp, 2, 1, True),
        (raftpb.MsgHeartbeat, 2, 1, True),
        (raftpb.MsgApp, 77, 1, True),  # only votes ask who the sender is
        (raftpb.MsgApp, 2, 9, False),
        (raftpb.MsgApp, 2, 0, False),
        (raftpb.MsgProp, 2, 1, False),
        (raftpb.MsgVote, 2, 1, True),
        (raftpb.MsgPreVote, 2, 1, True),
        (raftpb.MsgVote, 77, 1, False),
        (raftpb.MsgPreVote, 77, 1, False),
        (raftpb.MsgTimeoutNow, 2, 1, True),
    ],
)
async def test_what_is_taken(
    way: str, kind: raftpb.MessageType, sender: int, to: int, taken: bool
) -> None:
    desk = Desk()
    sent = message(kind, sender=sender, to=to)
    await desk.take(sent, way)
    assert desk.node.stepped == ([sent] if taken else [])
    votes = (raftpb.MsgVote, raftpb.MsgPreVote)
    assert desk.checks.asked == ([2] if kind in votes and sender == 2 else [])


@WAYS
@pytest.mark.parametrize("kind", [raftpb.MsgVote, raftpb.MsgPreVote])
async def test_a_candidate_that_cannot_be_reached_gets_no_vote(
    way: str, kind: raftpb.MessageType
) -> None:
    desk = Desk()
    desk.checks.healthy = False
    await desk.take(message(kind), way)
    assert desk.node.stepped == []
    await desk.take(message(raftpb.MsgApp), way)
    assert len(desk.node.stepped) == 1, "others need no check"


@WAYS
@pytest.mark.parametrize("kind", [raftpb.MsgApp, raftpb.MsgProp, raftpb.MsgVote])
async def test_a_removed_sender_is_told_so(way: str, kind: raftpb.MessageType) -> None:
    desk = Desk()
    with pytest.raises(SwarmError) as caught:
        await desk.take(message(kind, sender=3, to=9), way)
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.message == "raft: member was removed from the cluster"
    assert desk.node.stepped == []


@WAYS
async def test_what_raft_thinks_of_a_message_is_not_the_senders_business(way: str) -> None:
    desk = Desk()
    desk.node.trouble = NodeStopped("no disk")
    await desk.take(message(), way)


async def test_empty_requests_are_fine() -> None:
    desk = Desk()
    await desk.service.process_raft_message(api.ProcessRaftMessageRequest(), None)
    await desk.service.stream_raft_message(stream([]), None)
    await desk.service.stream_raft_message(stream([api.StreamRaftMessageRequest()]), None)
    assert desk.node.stepped == []


def test_the_first_words_of_a_leader_wait_for_the_log_to_open() -> None:
    async def main() -> None:
        desk = Desk()
        desk.opened.clear()
        desk.node.id = 0
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(desk.take(message()))
            await asyncio.sleep(0.5)
            assert not taking.done()
            desk.node.id = 1
            desk.opened.set()
        assert len(desk.node.stepped) == 1
        desk.opened.clear()
        desk.node.id = 0
        begun = asyncio.get_running_loop().time()
        await desk.take(message())
        assert asyncio.get_running_loop().time() - begun < 2, "the sender gave up"
        assert len(desk.node.stepped) == 1

    run_virtual(main())


# Snapshots in pieces


def snapshot(data: bytes) -> raftpb.Message:
    made = message(raftpb.MsgSnap)
    made.snapshot.data = data
    made.snapshot.metadata.index = 12
    made.snapshot.metadata.term = 2
    return made


@pytest.mark.parametrize("size", [0, 10, 999, 1000, 4500])
async def test_a_snapshot_in_pieces_is_one_message(size: int) -> None:
    desk = Desk()
    whole = snapshot(bytes(n % 256 for n in range(size)))
    pieces = list(requests_for(whole, 500))
    await desk.service.stream_raft_message(stream(pieces), None)
    assert desk.node.stepped == [whole]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda piece: setattr(piece.message, "index", 5),
            "Raft message chunk with index 5 is different from the previously received raft "
            "message index 4",
        ),
        (
            lambda piece: setattr(piece.message, "type", raftpb.MsgApp),
            "Raft message chunk is not of type 7",
        ),
    ],
)
async def test_pieces_that_do_not_belong_together(change: Callable[[Any], None], text: str) -> None:
    desk = Desk()
    pieces = list(requests_for(snapshot(b"s" * 900), 500))
    change(pieces[1])
    with pytest.raises(SwarmError) as caught:
        await desk.service.stream_raft_message(stream(pieces), None)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, text)
    assert desk.node.stepped == []


async def test_two_ordinary_messages_in_one_stream() -> None:
    desk = Desk()
    twice = [*requests_for(message()), *requests_for(message())]
    with pytest.raises(SwarmError, match="Raft message chunk is not of type 7"):
        await desk.service.stream_raft_message(stream(twice), None)
    assert desk.node.stepped == []


# Addresses


async def test_addresses_of_members() -> None:
    desk = Desk()
    answer = await desk.service.resolve_address(api.ResolveAddressRequest(raft_id=2), None)
    assert answer.addr == "10.0.0.2:2377"
    for raft_id, text in ((3, "member 3 not found"), (0xABC, "member abc not found")):
        with pytest.raises(SwarmError) as caught:
            await desk.service.resolve_address(api.ResolveAddressRequest(raft_id=raft_id), None)
        assert (caught.value.code, caught.value.message) == (Code.NOT_FOUND, text)
    desk.node.id = 0
    with pytest.raises(SwarmError) as caught:
        await desk.service.resolve_address(api.ResolveAddressRequest(raft_id=2), None)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert caught.value.message == "raft: node is not yet part of a raft cluster"


# Joining and leaving


@pytest.mark.parametrize(
    ("addr", "seen", "result"),
    [
        ("10.0.0.5:2377", "10.0.0.9:40000", "10.0.0.5:2377"),
        ("0.0.0.0:2377", "10.0.0.9:40000", "10.0.0.9:2377"),
        ("[::]:4242", "10.0.0.9:40000", "10.0.0.9:4242"),
        ("0.0.0.0:2377", "[fd00::7]:40000", "[fd00::7]:2377"),
        ("0.0.0.0:2377", "", "0.0.0.0:2377"),
        ("manager.example:2377", "10.0.0.9:40000", "manager.example:2377"),
        (":2377", "10.0.0.9:40000", ":2377"),
    ],
)
def test_completed_addresses(addr: str, seen: str, result: str) -> None:
    assert completed(addr, seen) == result


@pytest.mark.parametrize("addr", ["", "10.0.0.5", "fd00::7:x", "10.0.0.5:http"])
def test_addresses_nobody_could_dial(addr: str) -> None:
    with pytest.raises(SwarmError) as caught:
        completed(addr, "10.0.0.9:40000")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message == f"invalid address {addr} in raft join request"


class Changes:
    """Changes of members, recorded."""

    def __init__(self, node: OwnNode) -> None:
        self.node = node
        self.added: list[tuple[str, str]] = []
        self.removed: list[int] = []
        self.trouble: SwarmError | None = None

    async def add(self, node_id: str, addr: str) -> int:
        self.added.append((node_id, addr))
        self.node.membership.add(raft_member(99, node_id, addr))
        return 99

    async def remove(self, raft_id: int) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.removed.append(raft_id)


class Hall:
    """The membership service with its surroundings."""

    def __init__(self) -> None:
        self.node = OwnNode()
        self.changes = Changes(self.node)
        self.checked: list[tuple[str, float, str]] = []
        self.trouble: SwarmError | None = None
        self.service = RaftMembershipService(self.node, self.changes, self.check)

    async def check(self, addr: str, seconds: float, node_id: str) -> None:
        self.checked.append((addr, seconds, node_id))
        if self.trouble is not None:
            raise self.trouble


async def test_a_manager_joins_at_the_address_it_calls_from() -> None:
    hall = Hall()
    answer = await hall.service.join(api.JoinRequest(addr="0.0.0.0:2377"), PEER)
    assert hall.checked == [("10.0.0.9:2377", 5.0, "joiner")], "nobody else may answer there"
    assert hall.changes.added == [("joiner", "10.0.0.9:2377")]
    assert answer.raft_id == 99
    assert {m.raft_id: m.addr for m in answer.members} == {
        1: "10.0.0.1:2377",
        2: "10.0.0.2:2377",
        99: "10.0.0.9:2377",
    }
    assert not any(m.HasField("status") for m in answer.members)
    assert not answer.removed_members


@pytest.mark.parametrize("addr", ["10.0.0.7:2377", "10.0.0.2:2377"])
async def test_a_member_that_moves_must_answer_there_itself(addr: str) -> None:
    hall = Hall()
    member = Peer(node_id="node2", roles=("swarm-manager",), remote_addr="10.0.0.2:40000")
    await hall.service.join(api.JoinRequest(addr=addr), member)
    assert hall.checked == [(addr, 5.0, "node2")]
    assert hall.changes.added == [("node2", addr)]


async def test_who_cannot_be_called_back_does_not_join() -> None:
    hall = Hall()
    hall.trouble = DeadlineExceeded("context deadline exceeded")
    with pytest.raises(SwarmError) as caught:
        await hall.service.join(api.JoinRequest(addr="10.0.0.5:2377"), PEER)
    assert caught.value.code is Code.UNKNOWN
    assert caught.value.message == (
        "could not connect to prospective new cluster member using its advertised address: "
        "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    )
    assert hall.changes.added == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda node: setattr(node, "id", 0), "raft: node is not yet part of a raft cluster"),
        (
            lambda node: setattr(node, "leads", False),
            "raft: failed to process the request: node lost leader status",
        ),
    ],
)
async def test_only_a_leading_member_takes_others_in(
    change: Callable[[OwnNode], None], text: str
) -> None:
    hall = Hall()
    change(hall.node)
    with pytest.raises(SwarmError) as caught:
        await hall.service.join(api.JoinRequest(addr="nonsense"), PEER)
    assert (caught.value.code, caught.value.message) == (Code.FAILED_PRECONDITION, text)
    with pytest.raises(SwarmError) as caught:
        await hall.service.leave(api.LeaveRequest(node=api.RaftMember(raft_id=2)), PEER)
    assert (caught.value.code, caught.value.message) == (Code.UNKNOWN, text)
    assert hall.checked == []


async def test_a_wrong_address_is_refused_before_anybody_is_dialled() -> None:
    hall = Hall()
    with pytest.raises(SwarmError, match="invalid address nonsense in raft join request"):
        await hall.service.join(api.JoinRequest(addr="nonsense"), PEER)
    assert hall.checked == []


async def test_leaving_and_why_not() -> None:
    hall = Hall()
    request = api.LeaveRequest(node=api.RaftMember(raft_id=2))
    await hall.service.leave(request, PEER)
    assert hall.changes.removed == [2]
    hall.changes.trouble = QuorumAtRisk()
    with pytest.raises(SwarmError) as caught:
        await hall.service.leave(request, PEER)
    assert caught.value.code is Code.UNKNOWN
    assert caught.value.message == (
        "raft: member cannot be removed, because removing it may result in loss of quorum"
    )
