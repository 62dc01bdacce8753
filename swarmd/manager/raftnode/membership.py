"""Changing who is a member: checked here, because applying never refuses (PROTOCOL 3.3)."""

from __future__ import annotations

import asyncio

from swarmd.api import raftpb
from swarmd.base.entropy import Entropy
from swarmd.base.errors import DeadlineExceeded, NotLeader
from swarmd.manager.raftnode.driver import RaftNode
from swarmd.manager.raftnode.errors import AddressTaken, ChangeRefused, QuorumAtRisk
from swarmd.manager.raftnode.members import Member, raft_member
from swarmd.manager.raftnode.opening import new_raft_id
from swarmd.manager.raftnode.proposals import Proposal

# A transfer gets as long as stock gives it: 5 s and two election timeouts.
TRANSFER_SECONDS = 25.0


class Membership:
    """The leader's way to add, move and remove members; one change at a time."""

    def __init__(self, node: RaftNode, entropy: Entropy) -> None:
        self._node = node
        self._entropy = entropy
        # Held until the change is applied: a second one would be dropped by the core.
        self._one = asyncio.Lock()

    async def add(self, node_id: str, addr: str) -> int:
        """Make a node a member, or change its address; returns its raft id.

        A node that is a member already keeps its id, whoever asks how often. Raises
        `NotLeader`, and `AddressTaken` for a member that would move onto another. A new
        member may take the address of a dead one, as in stock swarms: a rebuilt host does.
        """
        async with self._one:
            known = self._node.membership.of_node(node_id)
            if known is None:
                raft_id, kind = self._free_id(), raftpb.ConfChangeAddNode
            elif known.addr == addr:
                return known.raft_id
            else:
                self._demand_free(addr, known.raft_id)
                raft_id, kind = known.raft_id, raftpb.ConfChangeUpdateNode
            context = raft_member(raft_id, node_id, addr).SerializeToString()
            await self._propose(raftpb.ConfChange(type=kind, node_id=raft_id, context=context))
            return raft_id

    async def remove(self, raft_id: int) -> None:
        """Take a member out for good. Raises `QuorumAtRisk`, `ChangeRefused`, `NotLeader`."""
        async with self._one:
            if raft_id not in self._node.membership:
                raise ChangeRefused("raft: node doesn't exist")
            if not self.can_remove(raft_id):
                raise QuorumAtRisk
            change = raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=raft_id)
            await self._propose(change)

    def can_remove(self, raft_id: int) -> bool:
        """True if those left and reachable are still a quorum of them (PROTOCOL 2.5)."""
        members = self._node.members()
        left = [member for member in members if member.raft_id != raft_id]
        reachable = sum(member.reachable for member in left)
        return reachable >= (len(members) - 1) // 2 + 1

    async def transfer(self, to: int | None = None) -> Member:
        """Hand leadership to `to`, or to a reachable member; returns the new leader.

        Raises `NotLeader` if this member does not lead, `DeadlineExceeded` if nobody took over.
        """
        if not self._node.is_leader():
            raise NotLeader
        others = [m for m in self._node.members() if m.reachable and m.raft_id != self._node.id]
        target = to if to is not None else next((m.raft_id for m in others), None)
        if target is None:
            raise DeadlineExceeded("raft: no other member can take over leadership")
        changed = asyncio.Event()
        unsubscribe = self._node.subscribe(changed.set)
        try:
            self._node.transfer_leadership(target)
            async with asyncio.timeout(TRANSFER_SECONDS):
                while (leader := self._node.leader()) is None or leader.raft_id == self._node.id:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            raise DeadlineExceeded("raft: leadership was not taken over in time") from None
        finally:
            unsubscribe()
        return leader

    def _demand_free(self, addr: str, own_id: int) -> None:
        for member in self._node.membership.all():
            if member.addr == addr and member.raft_id != own_id:
                raise AddressTaken(addr, member.node_id)

    def _free_id(self) -> int:
        members = self._node.membership
        while True:
            raft_id = new_raft_id(self._entropy)
            if raft_id not in members and not members.is_removed(raft_id):
                return raft_id

    async def _propose(self, change: raftpb.ConfChange) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def committed(_: int) -> None:
            if not done.done():
                done.set_result(None)

        def failed(error: Exception) -> None:
            if not done.done():
                done.set_exception(error)

        self._node.submit_change(change, Proposal(committed, failed))
        await done
