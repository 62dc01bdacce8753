"""The service Raft: messages of other members in, addresses of members out (PROTOCOL 3.4).

Answers mean "received", not "accepted": whatever Raft makes of a message, the sender's call
succeeds. The one exception is a removed sender, which stops its manager on that error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable
from contextlib import aclosing
from typing import Protocol

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import until
from swarmd.base.errors import FailedPrecondition, InvalidArgument, NotFound, SwarmError
from swarmd.rpc.streams import as_generator

log = logging.getLogger(__name__)

NOT_YET_MEMBER = "raft: node is not yet part of a raft cluster"
OPENING_SECONDS = 1.0  # well under the 2 s that senders give a message
_ASKS_VOTE = (raftpb.MsgVote, raftpb.MsgPreVote)


class MemberList(Protocol):
    """The own list of members."""

    def get(self, raft_id: int) -> api.RaftMember | None:
        """A member by its raft id."""
        ...

    def is_removed(self, raft_id: int) -> bool:
        """True for ids that can never come back."""
        ...


class Node(Protocol):
    """What messages are handed to; `raftnode.RaftNode`."""

    @property
    def id(self) -> int:
        """The own raft id; 0 while this is no member yet."""
        ...

    @property
    def membership(self) -> MemberList:
        """The own list of members."""
        ...

    def step(self, message: raftpb.Message) -> None:
        """Take a message. Raises `NotFound` with the stock text for a removed sender."""
        ...


class Checks(Protocol):
    """Asks members whether they can be reached; `peers.Peers`."""

    async def health_check(self, raft_id: int) -> None:
        """Raises `SwarmError` unless the member serves."""
        ...


class RaftService:
    """Receives for one member."""

    SERVICE = "docker.swarmkit.v1.Raft"

    def __init__(
        self, node: Node, checks: Checks, removed: type[SwarmError], opened: asyncio.Event
    ) -> None:
        """`removed`: what a removed sender is told. `opened`: set once `node` takes messages."""
        self._node = node
        self._checks = checks
        self._removed = removed
        self._opened = opened

    async def process_raft_message(
        self, request: api.ProcessRaftMessageRequest, peer: object
    ) -> api.ProcessRaftMessageResponse:
        """Take one message."""
        if request.HasField("message"):
            await self._receive(request.message)
        return api.ProcessRaftMessageResponse()

    def process_raft_message_at_once(
        self, request: api.ProcessRaftMessageRequest, peer: object
    ) -> api.ProcessRaftMessageResponse | None:
        """The same without waiting; None for a message that something must be waited for."""
        if request.HasField("message"):
            if not self._opened.is_set() or request.message.type in _ASKS_VOTE:
                return None
            self._check_sender(request.message)
            self._take(request.message)
        return api.ProcessRaftMessageResponse()

    async def stream_raft_message(
        self, requests: AsyncIterable[api.StreamRaftMessageRequest], peer: object
    ) -> api.StreamRaftMessageResponse:
        """Take one message, a snapshot possibly in pieces. Raises `InvalidArgument` for a mix."""
        message = await assemble(requests)
        if message is not None:
            await self._receive(message)
        return api.StreamRaftMessageResponse()

    async def resolve_address(
        self, request: api.ResolveAddressRequest, peer: object
    ) -> api.ResolveAddressResponse:
        """Where a member listens. Raises `NotFound`, `FailedPrecondition` before we are one."""
        if not self._node.id:
            raise FailedPrecondition(NOT_YET_MEMBER)
        member = self._node.membership.get(request.raft_id)
        if member is None:
            raise NotFound(f"member {request.raft_id:x} not found")
        return api.ResolveAddressResponse(addr=member.addr)

    async def _receive(self, message: raftpb.Message) -> None:
        self._check_sender(message)
        if message.type in _ASKS_VOTE and not await self._may_stand(getattr(message, "from")):
            return
        # The leader's first words to a new member overtake its answer to Join; lost, they would
        # be said again only after a heartbeat.
        if not self._opened.is_set():
            await until(self._opened, OPENING_SECONDS)
        self._take(message)

    def _check_sender(self, message: raftpb.Message) -> None:
        if self._node.membership.is_removed(getattr(message, "from")):
            raise self._removed()

    def _take(self, message: raftpb.Message) -> None:
        sender: int = getattr(message, "from")
        if message.type == raftpb.MsgProp:
            return  # proposals are not forwarded in a swarm
        if not self._node.id or message.to != self._node.id:
            log.debug("raft message for %x from %x ignored", message.to, sender)
            return
        try:
            self._node.step(message)
        except self._removed:
            raise
        except SwarmError as error:
            log.debug("raft message from %x was not taken: %s", sender, error)

    async def _may_stand(self, sender: int) -> bool:
        """A candidate nobody can reach must not become leader."""
        if self._node.membership.get(sender) is None:
            log.debug("vote request of unknown member %x ignored", sender)
            return False
        try:
            await self._checks.health_check(sender)
        except SwarmError as error:
            log.info("vote request of %x ignored, it cannot be reached: %s", sender, error)
            return False
        return True


async def assemble(
    requests: AsyncIterable[api.StreamRaftMessageRequest],
) -> raftpb.Message | None:
    """The one message of a stream; None for an empty one. Raises `InvalidArgument`."""
    message: raftpb.Message | None = None
    pieces: list[bytes] = []
    async with aclosing(as_generator(requests)) as received:
        async for request in received:
            piece = request.message
            if message is None:
                if not request.HasField("message"):
                    continue
                message = piece
                pieces.append(piece.snapshot.data)
                continue
            if piece.index != message.index:
                raise InvalidArgument(
                    f"Raft message chunk with index {piece.index} is different from the "
                    f"previously received raft message index {message.index}"
                )
            if {piece.type, message.type} != {raftpb.MsgSnap}:
                raise InvalidArgument(f"Raft message chunk is not of type {raftpb.MsgSnap}")
            pieces.append(piece.snapshot.data)
    if message is not None and len(pieces) > 1:
        message.snapshot.data = b"".join(pieces)
    return message
