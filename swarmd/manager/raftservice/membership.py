"""The service RaftMembership: managers that want in, and members to be taken out (PROTOCOL 3.3).

Only the leader answers; the port hands calls of others on to it.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from swarmd import api
from swarmd.base.errors import (
    LOST_LEADERSHIP,
    FailedPrecondition,
    InvalidArgument,
    SwarmError,
)
from swarmd.manager.raftservice.raft import NOT_YET_MEMBER
from swarmd.rpc import address
from swarmd.rpc.peer import Peer

log = logging.getLogger(__name__)

DIAL_BACK_SECONDS = 5.0
CANNOT_DIAL_BACK = (
    "could not connect to prospective new cluster member using its advertised address"
)

CheckAddress = Callable[[str, float, str], Awaitable[None]]


class MemberList(Protocol):
    """The own list of members."""

    def all(self) -> Sequence[api.RaftMember]:
        """Every member."""
        ...


class Node(Protocol):
    """Our own standing; `raftnode.RaftNode`."""

    @property
    def id(self) -> int:
        """The own raft id; 0 while this is no member yet."""
        ...

    @property
    def membership(self) -> MemberList:
        """The own list of members."""
        ...

    def is_leader(self) -> bool:
        """True if this member leads."""
        ...


class MemberChanges(Protocol):
    """The leader's way to change members; `raftnode.Membership`."""

    async def add(self, node_id: str, addr: str) -> int:
        """Make a node a member, or change its address; returns its raft id."""
        ...

    async def remove(self, raft_id: int) -> None:
        """Take a member out."""
        ...


class RaftMembershipService:
    """Lets managers join and leave the log's group."""

    SERVICE = "docker.swarmkit.v1.RaftMembership"

    def __init__(self, node: Node, changes: MemberChanges, check: CheckAddress) -> None:
        """`check(addr, seconds, node_id)` dials that manager and asks whether it serves Raft."""
        self._node = node
        self._changes = changes
        self._check = check

    async def join(self, request: api.JoinRequest, peer: Peer) -> api.JoinResponse:
        """Make the calling manager a member, once it can be reached at its address.

        Repeating it is harmless: a member keeps its id, and may change its address so. It must
        answer there itself, not some manager: stock asks no more than that, and takes in a
        voter that nobody will ever hear when a newcomer names another one's address. Raises
        the stock errors, and `AddressTaken`.
        """
        if not self._node.id:
            raise FailedPrecondition(NOT_YET_MEMBER)
        if not self._node.is_leader():
            raise FailedPrecondition(LOST_LEADERSHIP)
        addr = completed(request.addr, peer.remote_addr)
        try:
            await self._check(addr, DIAL_BACK_SECONDS, peer.node_id)
        except SwarmError as error:
            text = f"{CANNOT_DIAL_BACK}: rpc error: code = {_name(error)} desc = {error.message}"
            raise SwarmError(text) from error
        raft_id = await self._changes.add(peer.node_id, addr)
        log.info("manager %s at %s is raft member %x", peer.node_id, addr, raft_id)
        members = [
            api.RaftMember(raft_id=m.raft_id, node_id=m.node_id, addr=m.addr)
            for m in self._node.membership.all()
        ]
        return api.JoinResponse(raft_id=raft_id, members=members)

    async def leave(self, request: api.LeaveRequest, peer: Peer) -> api.LeaveResponse:
        """Take a member out, if the others keep a quorum. Errors have code Unknown, as stock."""
        if not self._node.id:
            raise SwarmError(NOT_YET_MEMBER)
        if not self._node.is_leader():
            raise SwarmError(LOST_LEADERSHIP)
        try:
            await self._changes.remove(request.node.raft_id)
        except SwarmError as error:
            raise SwarmError(error.message) from error
        return api.LeaveResponse()


def completed(addr: str, remote_addr: str) -> str:
    """The address to reach a joiner at: its own word, or for "0.0.0.0:port" the IP it calls
    from. Raises `InvalidArgument`."""
    try:
        host, port = address.split(addr)
    except SwarmError:
        raise InvalidArgument(f"invalid address {addr} in raft join request") from None
    try:
        unspecified = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return addr
    if not unspecified:
        return addr
    try:
        seen, _ = address.split(remote_addr)
    except SwarmError:
        return addr
    return address.join(seen, port)


def _name(error: SwarmError) -> str:
    """A gRPC code as Go writes it: DEADLINE_EXCEEDED is DeadlineExceeded."""
    return "".join(word.capitalize() for word in error.code.name.split("_"))
