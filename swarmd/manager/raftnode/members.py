"""Who is in the cluster's log group: the list that configuration changes keep."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from swarmd import api
from swarmd.api import raftpb


@dataclass(frozen=True, slots=True)
class Member:
    """One member as this manager sees it."""

    raft_id: int
    node_id: str
    addr: str
    leader: bool
    reachable: bool


def raft_member(raft_id: int, node_id: str, addr: str) -> api.RaftMember:
    """A member as marshalled by stock, which writes the empty status too."""
    member = api.RaftMember(raft_id=raft_id, node_id=node_id, addr=addr)
    member.status.SetInParent()
    return member


class Members:
    """Members by raft id, and the ids that can never come back (PROTOCOL 3.3)."""

    def __init__(self) -> None:
        self._members: dict[int, api.RaftMember] = {}
        self._removed: set[int] = set()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, raft_id: int) -> bool:
        return raft_id in self._members

    def get(self, raft_id: int) -> api.RaftMember | None:
        """The member with this raft id."""
        return self._members.get(raft_id)

    def of_node(self, node_id: str) -> api.RaftMember | None:
        """The member that is this node."""
        return next((m for m in self.all() if m.node_id == node_id), None)

    def all(self) -> list[api.RaftMember]:
        """All members, by raft id."""
        return [self._members[raft_id] for raft_id in sorted(self._members)]

    def is_removed(self, raft_id: int) -> bool:
        """True if this id was a member once and is not allowed back."""
        return raft_id in self._removed

    def add(self, member: api.RaftMember) -> None:
        """Add a member or change its address; a removed id is left out."""
        if member.raft_id not in self._removed:
            self._members[member.raft_id] = raft_member(member.raft_id, member.node_id, member.addr)

    def remove(self, raft_id: int) -> None:
        """Take a member out for good."""
        self._members.pop(raft_id, None)
        self._removed.add(raft_id)

    def apply(self, change: raftpb.ConfChange) -> str | None:
        """Follow a committed change as far as it makes sense; returns what was wrong with it.

        Stock applies such a change all the same: only the proposer gets the error.
        """
        raft_id = change.node_id
        if change.type == raftpb.ConfChangeRemoveNode:
            known = raft_id in self._members
            self.remove(raft_id)
            return None if known else "raft: node doesn't exist"
        if raft_id in self._removed:
            return "raft: can't add removed member"
        if change.type not in (raftpb.ConfChangeAddNode, raftpb.ConfChangeUpdateNode):
            return "raft: configuration change type is not supported"
        try:
            member = api.RaftMember.FromString(change.context)
        except DecodeError:
            return "raft: configuration change without a member"
        if member.raft_id != raft_id:
            return "raft: configuration change names two members"
        known = raft_id in self._members
        self.add(member)
        if known == (change.type == raftpb.ConfChangeUpdateNode):
            return None
        return "raft: node doesn't exist" if not known else "raft: node already exists"

    def restore(self, snapshot: api.ClusterSnapshot) -> None:
        """Replace the list by a snapshot's. Removed ids stay removed."""
        self._removed.update(snapshot.removed)
        self._members = {}
        for member in snapshot.members:
            self.add(member)

    def save(self) -> api.ClusterSnapshot:
        """The list as it goes into a snapshot: members without status, removed ids."""
        members: Iterable[api.RaftMember] = self.all()
        return api.ClusterSnapshot(members=members, removed=sorted(self._removed))
