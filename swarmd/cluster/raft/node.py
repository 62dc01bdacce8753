"""`RawNode`: the one door of the room. Feed it messages and ticks, take `Ready` values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarmd.api import raftpb
from swarmd.base.errors import InvalidArgument, InvariantViolation
from swarmd.cluster.raft import candidate, confchange, follower, leader
from swarmd.cluster.raft.core import Raft, Trace
from swarmd.cluster.raft.messages import (
    CONF_CHANGE,
    NORMAL,
    encode_conf_change,
    new_entry,
    new_hard_state,
    sender,
)
from swarmd.cluster.raft.progress import Progress
from swarmd.cluster.raft.step import step
from swarmd.cluster.raft.storage import MemoryStorage
from swarmd.cluster.raft.types import (
    NONE,
    Config,
    PeerStatus,
    ProposalDropped,
    ReadState,
    Ready,
    Role,
    Status,
    Timing,
)

# Kinds a member may send to another. Proposals are made by the leader only and never forwarded
# (stock managers drop them too); the rest are internal to etcd's own library.
_FROM_PEERS = frozenset(
    (
        raftpb.MsgApp,
        raftpb.MsgAppResp,
        raftpb.MsgVote,
        raftpb.MsgVoteResp,
        raftpb.MsgSnap,
        raftpb.MsgHeartbeat,
        raftpb.MsgHeartbeatResp,
        raftpb.MsgTransferLeader,
        raftpb.MsgTimeoutNow,
        raftpb.MsgReadIndex,
        raftpb.MsgReadIndexResp,
        raftpb.MsgPreVote,
        raftpb.MsgPreVoteResp,
    )
)
# Answers count only from members; a stranger's are old news of a removed one.
_RESPONSES = frozenset(
    (
        raftpb.MsgAppResp,
        raftpb.MsgVoteResp,
        raftpb.MsgHeartbeatResp,
        raftpb.MsgPreVoteResp,
    )
)
_EARLY = (raftpb.MsgApp, raftpb.MsgHeartbeat)


@dataclass(frozen=True, slots=True)
class _Pending:
    """What `advance` acknowledges, fixed when its `Ready` was taken."""

    term: int
    last_index: int
    last_term: int
    has_entries: bool
    snapshot_index: int
    applied: int
    own_vote: tuple[int, bool] | None
    own_append: tuple[int, int] | None


class RawNode:
    """One member of a Raft group; single-threaded, deterministic, does no I/O.

    The driver's duties for every `Ready`, in this order:

    1. Persist `snapshot`, then `entries`, then `hard_state`, with fsync if `must_sync`; repeat
       the writes on the `MemoryStorage` (`apply_snapshot`, `append`, `set_hard_state`).
    2. Send `messages`, never before step 1 is done, but for the first `early` ones. Report
       failures with `report_unreachable`, and the outcome of every MsgSnap with
       `report_snapshot`.
    3. Restore `snapshot` into the state machine, then apply `committed` in order; for each
       configuration change call `apply_conf_change`, also while replaying after a restart.
    4. Call `advance()`.

    `step`, `tick` and proposals may come between `ready()` and `advance()`; what they cause
    goes into the next `Ready`.
    """

    def __init__(self, config: Config, storage: MemoryStorage, trace: Trace | None = None) -> None:
        """Start from `storage`: empty for a joiner, filled for a restart.

        Raises `InvariantViolation` if what was persisted contradicts itself.
        """
        self._raft = Raft(config, storage, trace)
        self._pending: _Pending | None = None
        self._hard = self._hard_now()
        self._soft = self._raft.soft_state()

    @property
    def id(self) -> int:
        """The own member id."""
        return self._raft.id

    @property
    def leading(self) -> bool:
        """Whether this member leads as far as it knows, this very moment."""
        return self._raft.role is Role.LEADER

    def bootstrap(self, peers: Sequence[tuple[int, bytes]]) -> None:
        """Found a group of `peers` (id, context) on an empty storage.

        As stock does: one AddNode entry per peer at term 1, committed from the start; the
        next `Ready` hands them out for persisting and applying.
        """
        raft = self._raft
        if raft.log.last_index() != 0 or raft.term != 0:
            raise InvalidArgument("raft: cannot found a group on a log that is not empty")
        if not peers:
            raise InvalidArgument("raft: a group needs at least one member")
        raft.become_follower(1, NONE)
        entries = []
        for position, (id, context) in enumerate(peers):
            change = raftpb.ConfChange(type=raftpb.ConfChangeAddNode, node_id=id, context=context)
            entries.append(new_entry(CONF_CHANGE, 1, position + 1, encode_conf_change(change)))
            raft.set_membership(confchange.change(raft.membership, change))
        raft.log.append(entries)
        raft.log.commit_to(len(entries))

    # -- input -----------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one tick pass."""
        raft = self._raft
        if raft.role is Role.LEADER:
            leader.tick(raft)
        else:
            candidate.tick(raft)

    def set_timers(self, timing: Timing) -> None:
        """Change the timers from now on; raises `InvalidArgument` for impossible ones."""
        self._raft.set_timers(timing)

    def campaign(self) -> None:
        """Stand for election now; nothing happens on a leader or where standing is not allowed."""
        candidate.hup(self._raft)

    def propose(self, data: bytes) -> None:
        """Append `data` to the log; raises `ProposalDropped` unless this member can lead on."""
        self._need_leader()
        leader.propose(self._raft, NORMAL, data)

    def propose_conf_change(self, change: raftpb.ConfChange) -> None:
        """Propose adding, removing or updating one member.

        Raises `ProposalDropped` as `propose` does, its subclass `ConfChangeInFlight` while an
        earlier change may be unapplied, `InvalidArgument` if no voter would be left.
        """
        self._need_leader()
        raft = self._raft
        leader.guard_conf_change(raft)
        confchange.change(raft.membership, change)
        leader.propose(raft, CONF_CHANGE, encode_conf_change(change))
        raft.pending_conf_index = raft.log.last_index()

    def apply_conf_change(self, change: raftpb.ConfChange) -> raftpb.ConfState:
        """Switch to the configuration after a committed change; returns it.

        Call it for every change in `Ready.committed`; with `node_id` 0 it changes nothing.
        """
        raft = self._raft
        try:
            membership = confchange.change(raft.membership, change)
        except InvalidArgument as error:
            raise InvariantViolation(error.message) from error
        raft.set_membership(membership)
        if raft.role is Role.LEADER:
            leader.on_members_changed(raft)
        elif change.type == raftpb.ConfChangeRemoveNode and change.node_id == raft.leader:
            # Its lease ends with its membership, so that `campaign` can succeed at once.
            raft.leader = NONE
        return membership.conf_state()

    def step(self, message: raftpb.Message) -> None:
        """Take a message that another member sent to this one.

        Kinds that never travel, messages without a term and answers of strangers are ignored.
        The message must not be changed afterwards: its entries are kept.
        """
        kind, raft = message.type, self._raft
        if kind not in _FROM_PEERS:
            return
        if message.term == 0 and kind != raftpb.MsgReadIndex:
            return
        if kind in _RESPONSES and sender(message) not in raft.progress:
            return
        step(raft, message)

    def report_unreachable(self, id: int) -> None:
        """Say that a message to `id` was lost."""
        if self._raft.role is Role.LEADER:
            leader.report_unreachable(self._raft, id)

    def report_snapshot(self, id: int, ok: bool) -> None:
        """Say whether the snapshot sent to `id` arrived."""
        if self._raft.role is Role.LEADER:
            leader.report_snapshot(self._raft, id, ok)

    def transfer_leadership(self, to: int) -> None:
        """Make `to` the leader: hand over, or ask the leader to. Best effort, watch `Ready`."""
        if self._raft.role is Role.LEADER:
            leader.transfer(self._raft, to)
        elif self._raft.role is Role.FOLLOWER:
            follower.forward_transfer(self._raft, to)

    def read_index(self, context: bytes) -> None:
        """Ask for a `ReadState` with `context`; may get lost, so callers need a timeout."""
        if self._raft.role is Role.LEADER:
            leader.read_index(self._raft, self._raft.id, context)
        elif self._raft.role is Role.FOLLOWER:
            follower.forward_read(self._raft, context)

    # -- output ----------------------------------------------------------------------------

    def take_heartbeats(self) -> tuple[raftpb.Message, ...]:
        """Heartbeats that may be sent at once, ahead of the next `Ready` and whatever it waits for.

        They promise nothing that is not on disk: a leader's term was made durable by its
        election, and they name a commit index only up to what the member acknowledged.
        """
        raft = self._raft
        if raft.role is not Role.LEADER or self._hard[0] != raft.term:
            return ()
        found = tuple(m for m in raft.outbox if m.type == raftpb.MsgHeartbeat)
        if found:
            raft.outbox = [m for m in raft.outbox if m.type != raftpb.MsgHeartbeat]
        return found

    def take_read_states(self) -> tuple[ReadState, ...]:
        """Confirmed reads, ahead of the next `Ready` and whatever it waits for.

        For a leader that knows its state machine holds all it ever acknowledged: what matters
        to it is that it was confirmed, not the index.
        """
        raft = self._raft
        found, raft.read_states = tuple(raft.read_states), []
        return found

    def has_ready(self) -> bool:
        """Whether `ready()` would say something."""
        raft, log = self._raft, self._raft.log
        return bool(
            raft.outbox
            or raft.own_append is not None
            or raft.own_vote is not None
            or raft.read_states
            or log.unstable.has_next_entries()
            or log.has_next_committed()
            or log.unstable.next_snapshot() is not None
            or self._hard != self._hard_now()
            or self._soft != raft.soft_state()
        )

    def ready(self) -> Ready:
        """Take what is to be done; call `advance` before taking the next one."""
        if self._pending is not None:
            raise InvariantViolation("raft: two Ready values taken without advance")
        raft, log = self._raft, self._raft.log
        entries = log.unstable.next_entries()
        committed = log.next_committed()
        snapshot = log.unstable.next_snapshot()
        hard, soft = self._hard_now(), raft.soft_state()
        settles = self._settles_members(committed)
        ready = Ready(
            soft_state=soft if soft != self._soft else None,
            hard_state=new_hard_state(*hard) if settles or hard != self._hard else None,
            entries=entries,
            snapshot=snapshot,
            committed=committed,
            messages=tuple(raft.outbox),
            read_states=tuple(raft.read_states),
            must_sync=bool(
                entries or settles or snapshot is not None or hard[:2] != self._hard[:2]
            ),
            early=0 if settles else self._count_early(hard),
        )
        self._accept(ready)
        self._hard, self._soft = hard, soft
        return ready

    def _settles_members(self, committed: tuple[raftpb.Entry, ...]) -> bool:
        """Whether this `Ready` applies a configuration or lets others do so.

        It must never be forgotten then: the members that were needed to commit it may stop for
        good once they know (etcd does not sync here and can get stuck).
        """
        raft = self._raft
        if raft.role is Role.LEADER:
            before, now = self._hard[2], raft.log.committed
            if before < raft.pending_conf_index <= now:
                return True
        return any(entry.Type != NORMAL for entry in committed)

    def _count_early(self, hard: tuple[int, int, int]) -> int:
        """How many messages at the head of the outbox may leave before anything is written.

        A leader writes beside its followers (thesis 10.2.1): its appends and heartbeats speak
        for a term that is durable since its election, and its own copy of an entry counts only
        once `advance` says it is durable. All else promises what must not be forgotten.
        """
        raft = self._raft
        if raft.role is not Role.LEADER or hard[:2] != self._hard[:2]:
            return 0
        count = 0
        for message in raft.outbox:
            if message.type not in _EARLY or message.term != raft.term:
                break
            count += 1
        return count

    def _accept(self, ready: Ready) -> None:
        """Remember what `advance` will acknowledge, and start the next batch."""
        raft, log = self._raft, self._raft.log
        self._pending = _Pending(
            term=raft.term,
            last_index=log.last_index(),
            last_term=log.last_term(),
            has_entries=bool(log.unstable.entries),
            snapshot_index=ready.snapshot.metadata.index if ready.snapshot is not None else 0,
            applied=ready.committed[-1].Index if ready.committed else 0,
            own_vote=raft.own_vote,
            own_append=raft.own_append,
        )
        raft.outbox = []
        raft.read_states = []
        raft.own_vote = None
        raft.own_append = None
        log.unstable.accept()
        if ready.committed:
            log.applying = ready.committed[-1].Index

    def advance(self) -> None:
        """Acknowledge the `Ready` taken last: persisted, sent and applied.

        Only now do the own vote and the own copy of new entries count, so the sole voter's
        entries appear as committed in the next `Ready`, with `must_sync` False.
        """
        pending = self._pending
        if pending is None:
            raise InvariantViolation("raft: advance without a Ready")
        self._pending = None
        raft, log = self._raft, self._raft.log
        if pending.own_vote is not None:
            candidate.count_own_vote(raft, *pending.own_vote)
        if pending.own_append is not None:
            term, index = pending.own_append
            if raft.role is Role.LEADER and raft.term == term:
                leader.acknowledge_own(raft, index)
        # In a newer term the tail may have been replaced and even grown back to the same last
        # entry; a later Ready, due to the new term, acknowledges whatever is there by then.
        if pending.has_entries and pending.term == raft.term:
            log.unstable.stable_to(pending.last_index, pending.last_term)
        if pending.snapshot_index:
            log.unstable.stable_snapshot_to(pending.snapshot_index)
            log.applied_to(max(pending.snapshot_index, log.applied))
        if pending.applied:
            log.applied_to(max(pending.applied, log.applied))

    def status(self) -> Status:
        """A copy of the present state; progress is filled in on the leader only."""
        raft = self._raft
        leads = raft.role is Role.LEADER
        return Status(
            id=raft.id,
            role=raft.role,
            term=raft.term,
            vote=raft.vote,
            leader=raft.leader,
            commit=raft.log.committed,
            applied=raft.log.applied,
            first_index=raft.log.first_index(),
            last_index=raft.log.last_index(),
            election_ticks=raft.timing.election_ticks,
            heartbeat_ticks=raft.timing.heartbeat_ticks,
            transferee=raft.transferee,
            pending_conf_index=raft.pending_conf_index,
            voters=raft.membership.voters,
            learners=raft.membership.learners,
            progress={id: _peer_status(p) for id, p in raft.progress.items()} if leads else {},
        )

    def conf_state(self) -> raftpb.ConfState:
        """The configuration as applied by now, for snapshots taken at the applied index."""
        return self._raft.membership.conf_state()

    def _hard_now(self) -> tuple[int, int, int]:
        raft = self._raft
        return raft.term, raft.vote, raft.log.committed

    def _need_leader(self) -> None:
        if self._raft.role is not Role.LEADER:
            raise ProposalDropped("raft: proposals are taken by the leader only")


def _peer_status(progress: Progress) -> PeerStatus:
    return PeerStatus(
        match=progress.match,
        next=progress.next,
        state=progress.state.value,
        recent_active=progress.recent_active,
        paused=progress.is_paused(),
        inflight=len(progress.inflights),
        pending_snapshot=progress.pending_snapshot,
        learner=progress.is_learner,
    )
