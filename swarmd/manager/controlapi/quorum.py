"""Raft members as nodes see them, and who may go without losing the quorum. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from swarmd import api
from swarmd.manager.controlapi.seams import Member


def find(members: Sequence[Member], node_id: str) -> Member | None:
    """The member that `node_id` is, or None."""
    return next((member for member in members if member.node_id == node_id), None)


def can_remove(members: Sequence[Member], own_id: int, raft_id: int) -> bool:
    """True when the rest keeps a majority of reachable members (PROTOCOL 2.5).

    With n members the reachable ones other than the candidate must be at least
    (n - 1) // 2 + 1; this member itself always counts as reachable.
    """
    rest = [member for member in members if member.raft_id != raft_id]
    reachable = sum(member.reachable or member.raft_id == own_id for member in rest)
    return reachable >= (len(members) - 1) // 2 + 1


def manager_status(member: Member) -> api.ManagerStatus:
    """What a node object shows of its raft member."""
    reachability = api.RaftMemberStatus.Reachability
    return api.ManagerStatus(
        raft_id=member.raft_id,
        addr=member.addr,
        leader=member.leader,
        reachability=reachability.REACHABLE if member.reachable else reachability.UNREACHABLE,
    )
