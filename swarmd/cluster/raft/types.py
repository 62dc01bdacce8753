"""Values that cross the edge of the consensus core: settings in, `Ready` and `Status` out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from swarmd.api import raftpb
from swarmd.base.errors import InvalidArgument, SwarmError

NONE = 0
"""No member: ids start at 1, so zero stands for "nobody" as on the wire."""


class ProposalDropped(SwarmError):
    """The core refuses a proposal now; nothing was appended, so it is safe to try again."""


class ConfChangeInFlight(ProposalDropped):
    """An earlier configuration change may still be unapplied; only one may be in flight."""


class Role(enum.IntEnum):
    """What a member is at present (Raft paper, section 5.1; pre-candidate: thesis 9.6)."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one member; times are in ticks, sizes in bytes of marshalled entries."""

    id: int
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    check_quorum: bool = True
    pre_vote: bool = True
    size_per_message_max: int = 65535
    inflight_messages_max: int = 256
    applied: int = 0
    """Last index already applied (restart); entries after it are handed out again."""
    seed: int = 0
    """Source of the election jitter; the member id is mixed in."""
    committed_size_max: int = 4 << 20
    """Entries handed out by one `Ready.committed`; at least one is always handed out."""
    pending_reads_max: int = 4096
    """Reads waiting for a quorum or for the leader's first commit; more are dropped."""

    def __post_init__(self) -> None:
        Timing(self.election_ticks, self.heartbeat_ticks).check()
        if self.id == NONE:
            raise InvalidArgument("raft: member id must not be zero")
        if self.inflight_messages_max < 1:
            raise InvalidArgument("raft: at least one message must be allowed in flight")


class Timing(NamedTuple):
    """How long members wait for each other, in ticks; pairs are the shortest and longest wait."""

    election_ticks: int
    """For so long a leader that was heard is trusted, and trusts that it has a quorum."""
    heartbeat_ticks: int
    stand_ticks: tuple[int, int] | None = None
    """After so long without a leader a member stands; None: one to two election timeouts."""
    retry_ticks: tuple[int, int] | None = None
    """The first election without a result is repeated after so long; None: as `stand_ticks`."""

    def check(self) -> None:
        """Raise `InvalidArgument` unless 1 <= heartbeat < election <= stand, 1 <= retry."""
        if self.heartbeat_ticks < 1 or self.election_ticks <= self.heartbeat_ticks:
            raise InvalidArgument(
                f"raft: election ticks ({self.election_ticks}) must be greater than heartbeat "
                f"ticks ({self.heartbeat_ticks}), and these at least 1"
            )
        for least, wait in ((self.election_ticks, self.stand_ticks), (1, self.retry_ticks)):
            if wait is not None and not least <= wait[0] <= wait[1]:
                raise InvalidArgument(f"raft: no wait of {wait[0]} to {wait[1]} ticks is possible")


@dataclass(frozen=True, slots=True)
class SoftState:
    """What need not be persisted: who leads (0 = unknown) and the own role."""

    leader: int
    role: Role


@dataclass(frozen=True, slots=True)
class ReadState:
    """A confirmed read: state applied up to `index` is fresh enough for `context`."""

    index: int
    context: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """What the driver must do now, then `advance()`. See `RawNode` for the order."""

    soft_state: SoftState | None
    hard_state: raftpb.HardState | None
    entries: tuple[raftpb.Entry, ...]
    snapshot: raftpb.Snapshot | None
    committed: tuple[raftpb.Entry, ...]
    messages: tuple[raftpb.Message, ...]
    read_states: tuple[ReadState, ...]
    must_sync: bool
    """True if this must survive a power cut: all but a commit index over plain entries."""
    early: int = 0
    """So many of `messages`, the first ones, need not wait for the writes."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer as the leader sees it; `state` is probe, replicate or snapshot."""

    match: int
    next: int
    state: str
    recent_active: bool
    paused: bool
    inflight: int
    pending_snapshot: int
    learner: bool


@dataclass(frozen=True, slots=True)
class Status:
    """A copy of the member's state for display and decisions; progress only on the leader."""

    id: int
    role: Role
    term: int
    vote: int
    leader: int
    commit: int
    applied: int
    first_index: int
    last_index: int
    election_ticks: int
    heartbeat_ticks: int
    transferee: int
    pending_conf_index: int
    voters: tuple[int, ...]
    learners: tuple[int, ...]
    progress: dict[int, PeerStatus] = field(default_factory=dict)
