"""Configuration maths: one member at a time (thesis 4.1), no state of its own.

Stock managers use single-step changes only. Joint configurations (ConfChangeV2) never occur in
their logs, so they are refused where they would come from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.api import raftpb
from swarmd.base.errors import InvalidArgument
from swarmd.cluster.raft.messages import new_conf_state
from swarmd.cluster.raft.progress import Progress
from swarmd.cluster.raft.types import NONE


@dataclass(frozen=True, slots=True)
class Membership:
    """Voters and learners, each sorted by id and disjoint."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()

    def __contains__(self, id: int) -> bool:
        return id in self.voters or id in self.learners

    def conf_state(self) -> raftpb.ConfState:
        """The same on the wire."""
        return new_conf_state(self.voters, self.learners)


def restore(conf_state: raftpb.ConfState) -> Membership:
    """Read a configuration; raises `InvalidArgument` for a joint or contradictory one."""
    if conf_state.voters_outgoing or conf_state.learners_next or conf_state.auto_leave:
        raise InvalidArgument("raft: joint configurations are not used in a swarm")
    voters = tuple(sorted(dict.fromkeys(conf_state.voters)))
    learners = tuple(sorted(dict.fromkeys(conf_state.learners)))
    if any(id in voters for id in learners):
        raise InvalidArgument("raft: a member is voter and learner at once")
    if NONE in voters or NONE in learners:
        raise InvalidArgument("raft: member id zero in a configuration")
    return Membership(voters, learners)


def change(membership: Membership, wanted: raftpb.ConfChange) -> Membership:
    """Apply one change; raises `InvalidArgument` if no voter would be left.

    Adding a member again and removing an unknown one change nothing. Node id 0 is how a driver
    cancels a change that is already in the log (etcd's convention).
    """
    id = wanted.node_id
    voters, learners = membership.voters, membership.learners
    if id == NONE or wanted.type == raftpb.ConfChangeUpdateNode:
        return membership
    if wanted.type == raftpb.ConfChangeAddNode:
        voters, learners = _with(voters, id), _without(learners, id)
    elif wanted.type == raftpb.ConfChangeAddLearnerNode:
        voters, learners = _without(voters, id), _with(learners, id)
    else:
        voters, learners = _without(voters, id), _without(learners, id)
    if not voters:
        raise InvalidArgument("raft: the change would remove the last voter")
    return Membership(voters, learners)


def track(
    membership: Membership, known: dict[int, Progress], last_index: int, capacity: int
) -> dict[int, Progress]:
    """Progress for every member in order of id, keeping what is known.

    A new member counts as active at once: otherwise the leader would step down at the next
    quorum check before the member could answer.
    """
    tracked: dict[int, Progress] = {}
    for id in sorted(membership.voters + membership.learners):
        progress = known.get(id)
        if progress is None:
            progress = Progress(max(last_index, 1), capacity)
            progress.recent_active = True
        progress.is_learner = id in membership.learners
        tracked[id] = progress
    return tracked


def _with(ids: tuple[int, ...], id: int) -> tuple[int, ...]:
    return ids if id in ids else tuple(sorted((*ids, id)))


def _without(ids: tuple[int, ...], id: int) -> tuple[int, ...]:
    return tuple(other for other in ids if other != id)
