"""Carries out what the role manager plans: Raft membership follows roles (PROTOCOL 2.5)."""

from __future__ import annotations

import asyncio

from swarmd.base.errors import DeadlineExceeded
from swarmd.cluster.housekeeping.rolemanager import RemoveRaftMember, TransferLeadership
from swarmd.manager.raftnode import Membership, RaftNode

# The reference bounds the removal so; the planner comes back every 5 s.
removal_seconds_max = 5.0


class RoleEffects:
    """Doers of the role manager's effects; both may be repeated."""

    def __init__(self, raft: RaftNode, membership: Membership) -> None:
        self._raft = raft
        self._membership = membership

    async def remove(self, effect: RemoveRaftMember) -> None:
        """Take the node's member out of Raft, if it is one. Raises `QuorumAtRisk`."""
        for member in self._raft.members():
            if member.node_id == effect.node_id:
                try:
                    async with asyncio.timeout(removal_seconds_max):
                        await self._membership.remove(member.raft_id)
                except TimeoutError:
                    raise DeadlineExceeded("removing a raft member took too long") from None

    async def transfer(self, effect: TransferLeadership) -> None:
        """Hand leadership to any other member."""
        await self._membership.transfer()
