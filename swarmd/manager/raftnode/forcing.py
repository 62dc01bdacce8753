"""`--force-new-cluster`: make one member's log that of a cluster of its own (PROTOCOL 3.8).

Raft id, node id and certificates stay. What was not committed is dropped; committed entries
that remove everybody else are put behind the rest, so the change is part of the log's history
and a stock engine reads it as its own. Removed ids never come back: the others join anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.errors import FailedPrecondition
from swarmd.manager.raftnode.members import Members, raft_member


@dataclass(frozen=True, slots=True)
class Log:
    """A member's raft state in clear: the member list at the snapshot, and what follows it.

    `voters` may name more than `members`: a leader sends the configuration of the present
    with a snapshot of the past.
    """

    members: api.ClusterSnapshot
    hard_state: raftpb.HardState
    entries: Sequence[raftpb.Entry]
    voters: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Forced:
    """What forcing makes of a log: `kept` stays, `changes` are appended, all are committed."""

    kept: tuple[raftpb.Entry, ...]
    changes: tuple[raftpb.Entry, ...]
    hard_state: raftpb.HardState
    removed: tuple[api.RaftMember, ...]
    dropped: int  # entries that were not committed


def force_alone(log: Log, own: api.RaftMember) -> Forced:
    """What it takes for `own` to be the only member; its address is taken over too.

    Raises `FailedPrecondition` when `own` was removed before, or the log holds no cluster.
    """
    if log.hard_state.commit == 0:
        raise FailedPrecondition(
            "this manager has not received the cluster's state yet: there is nothing to go on from"
        )
    members = _members_at_snapshot(log)
    kept = _committed(log, members, own.raft_id)
    if members.is_removed(own.raft_id):
        raise FailedPrecondition(
            "this manager was removed from the cluster and cannot be made its only manager"
        )
    others = tuple(member for member in members.all() if member.raft_id != own.raft_id)
    changes = [*_own_change(members.get(own.raft_id), own), *map(_removal, others)]
    commit = max(log.hard_state.commit, kept[-1].Index if kept else 0)
    term = log.hard_state.term
    entries = tuple(
        raftpb.Entry(
            Type=raftpb.EntryConfChange,
            Term=term,
            Index=commit + number,
            Data=change.SerializeToString(),
        )
        for number, change in enumerate(changes, 1)
    )
    state = raftpb.HardState(term=term, vote=log.hard_state.vote, commit=commit + len(entries))
    return Forced(kept, entries, state, others, len(log.entries) - len(kept))


def _members_at_snapshot(log: Log) -> Members:
    members = Members()
    members.restore(log.members)
    for raft_id in log.voters:
        if raft_id not in members:
            members.add(api.RaftMember(raft_id=raft_id))
    return members


def _committed(log: Log, members: Members, own_id: int) -> tuple[raftpb.Entry, ...]:
    """The entries that are committed, applied to `members`.

    A sole voter commits by writing, whatever commit index came to the disk last.
    """
    kept = []
    for entry in log.entries:
        alone = [member.raft_id for member in members.all()] == [own_id]
        if entry.Index > log.hard_state.commit and not alone:
            break
        kept.append(entry)
        if entry.Type == raftpb.EntryConfChange:
            members.apply(raftpb.ConfChange.FromString(entry.Data))
    return tuple(kept)


def _own_change(known: api.RaftMember | None, own: api.RaftMember) -> Iterable[raftpb.ConfChange]:
    """Come in if missing (first: a configuration is never empty), or under a new address."""
    if known is not None and known.addr == own.addr:
        return
    kind = raftpb.ConfChangeAddNode if known is None else raftpb.ConfChangeUpdateNode
    context = raft_member(own.raft_id, own.node_id, own.addr).SerializeToString()
    yield raftpb.ConfChange(type=kind, node_id=own.raft_id, context=context)


def _removal(member: api.RaftMember) -> raftpb.ConfChange:
    return raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=member.raft_id)
