"""State of one member and the moves every role shares: send, reset, change role or members.

The roles live next door: `leader`, `candidate`, `follower`; `step` sends each message to the
right one. Nothing here or there reads a clock, a file or a socket.
"""

from __future__ import annotations

from collections.abc import Callable

from swarmd.api import raftpb
from swarmd.base.errors import InvariantViolation
from swarmd.cluster.raft import confchange
from swarmd.cluster.raft.confchange import Membership
from swarmd.cluster.raft.jitter import Jitter
from swarmd.cluster.raft.log import RaftLog
from swarmd.cluster.raft.messages import new_message, set_sender
from swarmd.cluster.raft.progress import Progress
from swarmd.cluster.raft.readindex import PendingRead, ReadOnly
from swarmd.cluster.raft.storage import MemoryStorage
from swarmd.cluster.raft.types import NONE, Config, ReadState, Role, SoftState, Timing

Trace = Callable[[str], None]

# Messages that carry the term of an election rather than the sender's own.
_ELECTION = frozenset(
    (raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp)
)
# Requests passed on to the leader; they belong to no term.
_TERMLESS = frozenset((raftpb.MsgProp, raftpb.MsgReadIndex))


class Raft:
    """One member. Fields are open to the role modules and to tests, to nobody else."""

    def __init__(self, config: Config, storage: MemoryStorage, trace: Trace | None = None) -> None:
        self.id = config.id
        self.config = config
        self.trace = trace
        self.log = RaftLog(storage, config.committed_size_max)
        self.term = 0
        self.vote = NONE
        self.role = Role.FOLLOWER
        self.leader = NONE
        self.votes: dict[int, bool] = {}
        self.membership = Membership()
        self.progress: dict[int, Progress] = {}
        self.transferee = NONE
        # A configuration change may be proposed only once everything up to here is applied.
        self.pending_conf_index = 0
        self.reads = ReadOnly()
        # Reads that wait for the leader's first commit of its term.
        self.early_reads: list[PendingRead] = []
        self.read_states: list[ReadState] = []
        self.outbox: list[raftpb.Message] = []
        # What this member owes itself once its own writes are durable: a vote (term, pre-vote?)
        # and an acknowledged index with the term it was appended in.
        self.own_vote: tuple[int, bool] | None = None
        self.own_append: tuple[int, int] | None = None
        self.timing = Timing(config.election_ticks, config.heartbeat_ticks)
        # Elections begun since a leader was last heard.
        self.elections = 0
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.jitter = Jitter(config.seed, config.id)
        self.randomized_ticks = 0
        self._load(storage, config.applied)
        self.become_follower(self.term, NONE)

    def _load(self, storage: MemoryStorage, applied: int) -> None:
        """Take over what was persisted before a restart."""
        log = self.log
        self.set_membership(confchange.restore(storage.conf_state))
        hard_state = storage.hard_state
        if hard_state.commit > log.last_index():
            raise InvariantViolation(
                f"raft: persisted commit {hard_state.commit} is beyond the last index "
                f"{log.last_index()}; was the log damaged, cut or lost?"
            )
        # A snapshot may be on disk without the hard state written after it: it is committed.
        log.committed = max(log.committed, hard_state.commit)
        self.term, self.vote = hard_state.term, hard_state.vote
        last_term = log.last_term()
        if last_term > self.term:
            self.term, self.vote = last_term, NONE
        if applied > log.applied:
            log.applied_to(applied)

    def say(self, text: str) -> None:
        """Tell the trace, if there is one; only on rare occasions such as elections."""
        if self.trace is not None:
            self.trace(f"{self.id:x} term {self.term} {self.role.name.lower()}: {text}")

    # -- sending ---------------------------------------------------------------------------

    def send(self, message: raftpb.Message) -> None:
        """Queue a message; it leaves only after everything before it is durable."""
        set_sender(message, self.id)
        kind = message.type
        if kind in _ELECTION:
            if message.term == 0:
                raise InvariantViolation(f"raft: election message {kind} without a term")
        elif kind not in _TERMLESS:
            message.term = self.term
        self.outbox.append(message)

    def reply(
        self, kind: raftpb.MessageType, to: int, index: int = 0, context: bytes = b""
    ) -> None:
        """Queue an answer at the own term."""
        self.send(new_message(kind, to, index=index, context=context))

    # -- roles -----------------------------------------------------------------------------

    def reset(self, term: int) -> None:
        """Forget what belonged to the former term or role."""
        if self.term != term:
            self.term = term
            self.vote = NONE
        self.leader = NONE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomize()
        self.transferee = NONE
        self.votes = {}
        self.pending_conf_index = 0
        self.reads = ReadOnly()
        self.early_reads = []
        last = self.log.last_index()
        capacity = self.config.inflight_messages_max
        for id, old in self.progress.items():
            progress = Progress(last + 1, capacity, is_learner=old.is_learner)
            if id == self.id:
                progress.match = last
            self.progress[id] = progress

    def become_follower(self, term: int, leader: int) -> None:
        """Follow `leader` (0: whoever will be) in `term`."""
        changed = self.role is not Role.FOLLOWER or self.term != term
        self.reset(term)
        self.leader = leader
        self.role = Role.FOLLOWER
        if changed:
            self.say(f"follows {leader:x}")

    def become_candidate(self) -> None:
        """Start a term of one's own and vote for oneself (paper, 5.2)."""
        if self.role is Role.LEADER:
            raise InvariantViolation("raft: a leader cannot become a candidate")
        self.reset(self.term + 1)
        self.vote = self.id
        self.role = Role.CANDIDATE
        self._draw_retry()
        self.say("stands for election")

    def become_pre_candidate(self) -> None:
        """Ask whether an election could be won; term and vote stay (thesis 9.6)."""
        if self.role is Role.LEADER:
            raise InvariantViolation("raft: a leader cannot become a pre-candidate")
        self.votes = {}
        self.leader = NONE
        self.role = Role.PRE_CANDIDATE
        self.elections += 1
        self._draw_retry()
        self.say("asks for pre-votes")

    def become_leader(self) -> None:
        """Lead the own term; the caller appends the first entry of the term."""
        if self.role is Role.FOLLOWER:
            raise InvariantViolation("raft: a follower cannot become leader at once")
        self.reset(self.term)
        self.leader = self.id
        self.elections = 0
        self.role = Role.LEADER
        own = self.progress[self.id]
        own.become_replicate()
        own.recent_active = True
        # There may be an unapplied change anywhere in the tail; waiting is cheaper than looking.
        self.pending_conf_index = self.log.last_index()
        self.say("leads")

    def soft_state(self) -> SoftState:
        """Leader and role as of now."""
        return SoftState(self.leader, self.role)

    # -- time ------------------------------------------------------------------------------

    def randomize(self) -> None:
        """Draw how long to wait for a leader before standing."""
        self._draw(self.timing.stand_ticks)

    def _draw(self, wait: tuple[int, int] | None) -> None:
        election_ticks = self.timing.election_ticks
        low, high = wait or (election_ticks, 2 * election_ticks - 1)
        self.randomized_ticks = low + self.jitter.below(high - low + 1)

    def _draw_retry(self) -> None:
        """As one who stands: draw when to ask again. Soon, but only once: where that does not
        help, votes need more time than that, or the other ones should stand.
        """
        if self.timing.retry_ticks is not None:
            first = self.elections == 1
            self._draw(self.timing.retry_ticks if first else self.timing.stand_ticks)

    def set_timers(self, timing: Timing) -> None:
        """Change the timers now; time already waited counts, short of acting at once."""
        if timing == self.timing:
            return
        timing.check()
        self.timing = timing
        self.election_elapsed = min(self.election_elapsed, timing.election_ticks - 1)
        self.heartbeat_elapsed = min(self.heartbeat_elapsed, timing.heartbeat_ticks - 1)
        self.randomize()

    # -- members ---------------------------------------------------------------------------

    def set_membership(self, membership: Membership) -> None:
        """Switch to another configuration, keeping progress of members that stay."""
        self.membership = membership
        self.progress = confchange.track(
            membership,
            self.progress,
            self.log.last_index(),
            self.config.inflight_messages_max,
        )

    def can_campaign(self) -> bool:
        """Whether this member is a voter and no snapshot is on its way in."""
        return self.id in self.membership.voters and self.log.unstable.snapshot is None
