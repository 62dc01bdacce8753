"""What a leader does: append, replicate, commit, confirm reads, hand over."""

from __future__ import annotations

from swarmd.api import raftpb
from swarmd.base.errors import InvariantViolation
from swarmd.cluster.raft import quorum
from swarmd.cluster.raft.core import Raft
from swarmd.cluster.raft.messages import NORMAL, new_entry, new_message, sender
from swarmd.cluster.raft.progress import Progress, ProgressState
from swarmd.cluster.raft.readindex import PendingRead
from swarmd.cluster.raft.types import NONE, ConfChangeInFlight, ProposalDropped, ReadState

# -- taking over ---------------------------------------------------------------------------


def take_office(raft: Raft) -> None:
    """Become leader and append an empty entry: only own-term entries commit (paper, 5.4.2)."""
    raft.become_leader()
    append_entry(raft, NORMAL, b"")
    broadcast_append(raft)


def append_entry(raft: Raft, kind: raftpb.EntryType, data: bytes) -> None:
    """Put an entry at the end of the own log; it counts for commit once it is durable."""
    index = raft.log.last_index() + 1
    raft.log.append([new_entry(kind, raft.term, index, data)])
    raft.own_append = (raft.term, index)


# -- proposals -----------------------------------------------------------------------------


def propose(raft: Raft, kind: raftpb.EntryType, data: bytes) -> None:
    """Append and replicate one entry.

    Raises `ProposalDropped` while leadership is being handed over or after the own removal.
    """
    if raft.id not in raft.progress:
        raise ProposalDropped("raft: this member was removed from the configuration")
    if raft.transferee != NONE:
        raise ProposalDropped("raft: leadership is being transferred")
    append_entry(raft, kind, data)
    broadcast_append(raft)


def guard_conf_change(raft: Raft) -> None:
    """Raise `ConfChangeInFlight` unless every change up to now is applied.

    One at a time keeps any two successive quorums overlapping (thesis 4.1). etcd appends an
    empty entry instead; we refuse, so the proposer need not wait for nothing.
    """
    if raft.pending_conf_index > raft.log.applied:
        raise ConfChangeInFlight(
            f"raft: possible unapplied configuration change at {raft.pending_conf_index} "
            f"(applied {raft.log.applied})"
        )


# -- replication ---------------------------------------------------------------------------


def broadcast_append(raft: Raft) -> None:
    """Send every other member what it lacks, or at least the commit index."""
    for id, progress in raft.progress.items():
        if id != raft.id:
            send_append(raft, id, progress)


def send_append(raft: Raft, to: int, progress: Progress, *, even_if_empty: bool = True) -> bool:
    """Send entries from `progress.next` on, or a snapshot where these are gone.

    Returns whether a message was queued; nothing is sent to a paused member.
    """
    if progress.is_paused():
        return False
    log = raft.log
    previous = progress.next - 1
    previous_term = log.term(previous)
    if previous_term is None:
        return send_snapshot(raft, to, progress)
    entries: list[raftpb.Entry] | None = []
    # With a full window only empty appends go out, at the pace of heartbeat answers.
    if progress.state is not ProgressState.REPLICATE or not progress.inflights.is_full():
        last = log.last_index()
        entries = log.slice(progress.next, last + 1, raft.config.size_per_message_max)
    if entries is None:
        return send_snapshot(raft, to, progress)
    if not entries and not even_if_empty:
        return False
    message = new_message(
        raftpb.MsgApp, to, log_term=previous_term, index=previous, commit=log.committed
    )
    if entries:
        message.entries.extend(entries)
    raft.send(message)
    progress.sent_entries(len(entries))
    progress.sent_commit = log.committed
    return True


def send_snapshot(raft: Raft, to: int, progress: Progress) -> bool:
    """Send the newest snapshot to a member that was heard from recently."""
    if not progress.recent_active:
        return False
    snapshot = raft.log.unstable.snapshot or raft.log.storage.snapshot()
    index = snapshot.metadata.index
    if index == 0:
        raise InvariantViolation("raft: the log is compacted but there is no snapshot")
    progress.become_snapshot(index)
    message = new_message(raftpb.MsgSnap, to)
    message.snapshot.CopyFrom(snapshot)
    raft.send(message)
    raft.say(f"sends snapshot {index} to {to:x}")
    return True


def broadcast_heartbeat(raft: Raft) -> None:
    """Tell every other member that this one still leads."""
    context = raft.reads.heartbeat_context()
    for id, progress in raft.progress.items():
        if id == raft.id:
            continue
        # Never a commit index beyond what the member is known to hold.
        commit = min(progress.match, raft.log.committed)
        raft.send(new_message(raftpb.MsgHeartbeat, id, commit=commit, context=context))
        progress.sent_commit = commit


def try_commit(raft: Raft) -> bool:
    """Raise the commit index to what a majority holds; returns whether it moved."""
    progress = raft.progress
    index = quorum.committed_index(raft.membership.voters, lambda id: progress[id].match)
    return raft.log.try_commit(index, raft.term)


def acknowledge_own(raft: Raft, index: int) -> None:
    """Count the own copy up to `index`, now durable."""
    progress = raft.progress.get(raft.id)
    if progress is not None and progress.maybe_update(index) and try_commit(raft):
        after_commit(raft)


def after_commit(raft: Raft) -> None:
    """Tell everybody the new commit index and serve reads that waited for the first one."""
    _release_early_reads(raft)
    broadcast_append(raft)


def on_members_changed(raft: Raft) -> None:
    """Go on under a new configuration.

    A smaller one may commit more; a new member is probed at once. A leader that is no longer
    a member goes on leading (etcd's default) so that the others learn of its removal; it takes
    no proposals, and its driver stops it.
    """
    if raft.id not in raft.membership.voters:
        return
    # Nor need reads wait any longer for members that are gone.
    _release_confirmed_reads(raft)
    if try_commit(raft):
        after_commit(raft)
    else:
        for id, progress in raft.progress.items():
            if id != raft.id:
                send_append(raft, id, progress, even_if_empty=False)
    if raft.transferee not in raft.membership.voters:
        raft.transferee = NONE


# -- time ----------------------------------------------------------------------------------


def tick(raft: Raft) -> None:
    """Count one tick: heartbeats, quorum check, end of a transfer that took too long."""
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.timing.election_ticks:
        raft.election_elapsed = 0
        if raft.config.check_quorum and not _check_quorum(raft):
            return
        raft.transferee = NONE
    if raft.heartbeat_elapsed >= raft.timing.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        broadcast_heartbeat(raft)


def _check_quorum(raft: Raft) -> bool:
    """Step down unless a majority was heard from in the period that ends now."""
    progress = raft.progress
    active = quorum.is_quorum(
        raft.membership.voters, lambda id: id == raft.id or progress[id].recent_active
    )
    if not active:
        raft.say("lost its quorum")
        raft.become_follower(raft.term, NONE)
    for id, other in raft.progress.items():
        if id != raft.id:
            other.recent_active = False
    return active


# -- messages ------------------------------------------------------------------------------


def on_append_response(raft: Raft, message: raftpb.Message) -> None:
    """An append or a snapshot was taken or refused."""
    id = sender(message)
    progress = raft.progress.get(id)
    if progress is None:
        return
    progress.recent_active = True
    if message.reject:
        _on_rejected(raft, id, progress, message)
    else:
        _on_accepted(raft, id, progress, message.index)


def _on_rejected(raft: Raft, id: int, progress: Progress, message: raftpb.Message) -> None:
    hint = message.rejectHint
    # Older libraries (3.3) leave the term of the hint out. With it, every probe at an index
    # where our term is above it must fail as well, so those are skipped.
    if message.logTerm > 0:
        hint, _ = raft.log.find_conflict_by_term(hint, message.logTerm)
    if progress.maybe_decrease(message.index, hint):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        send_append(raft, id, progress)


def _on_accepted(raft: Raft, id: int, progress: Progress, index: int) -> None:
    if index > raft.log.last_index():
        # No honest member holds more than its leader in the leader's term.
        raft.say(f"ignores an impossible acknowledgement of {index} by {id:x}")
        return
    news = progress.maybe_update(index)
    # An acknowledged probe proves a match even where it brings no new index.
    if not news and not (progress.match == index and progress.state is ProgressState.PROBE):
        return
    if progress.state is ProgressState.PROBE:
        progress.become_replicate()
    elif progress.state is ProgressState.SNAPSHOT:
        # Any acknowledgement that reaches our log again will do, whatever snapshot was sent.
        if progress.match + 1 >= raft.log.first_index():
            progress.become_probe()
            progress.become_replicate()
    else:
        progress.inflights.free_to(index)
    if try_commit(raft):
        after_commit(raft)
    elif progress.can_bump_commit(raft.log.committed):
        send_append(raft, id, progress)
    while send_append(raft, id, progress, even_if_empty=False):
        pass
    if id == raft.transferee and progress.match == raft.log.last_index():
        send_timeout_now(raft, id)


def on_heartbeat_response(raft: Raft, message: raftpb.Message) -> None:
    """A member is alive: let one append through, and count its read confirmation."""
    id = sender(message)
    progress = raft.progress.get(id)
    if progress is None:
        return
    progress.recent_active = True
    progress.flow_paused = False
    if progress.match < raft.log.last_index() or progress.state is ProgressState.PROBE:
        send_append(raft, id, progress)
    if message.context:
        raft.reads.acknowledge(id, message.context)
        _release_confirmed_reads(raft)


def report_snapshot(raft: Raft, id: int, ok: bool) -> None:
    """The driver says whether a snapshot reached `id`; then wait for a sign of life."""
    progress = raft.progress.get(id)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    if not ok:
        progress.pending_snapshot = 0
    progress.become_probe()
    progress.flow_paused = True


def report_unreachable(raft: Raft, id: int) -> None:
    """The driver could not send to `id`: stop running ahead, messages were lost."""
    progress = raft.progress.get(id)
    if progress is not None and progress.state is ProgressState.REPLICATE:
        progress.become_probe()


# -- handing over --------------------------------------------------------------------------


def transfer(raft: Raft, to: int) -> None:
    """Hand leadership to `to` as soon as its log is complete (thesis 3.10).

    Given up after one election timeout. Proposals are refused meanwhile.
    """
    progress = raft.progress.get(to)
    if progress is None or progress.is_learner or to in (raft.transferee, raft.id):
        if to == raft.id:
            raft.transferee = NONE
        return
    raft.election_elapsed = 0
    raft.transferee = to
    raft.say(f"hands over to {to:x}")
    if progress.match == raft.log.last_index():
        send_timeout_now(raft, to)
    else:
        send_append(raft, to, progress)


def send_timeout_now(raft: Raft, to: int) -> None:
    """Tell `to` to stand for election at once."""
    raft.send(new_message(raftpb.MsgTimeoutNow, to))


# -- reads ---------------------------------------------------------------------------------


def read_index(raft: Raft, origin: int, context: bytes) -> None:
    """Confirm a read for `origin` (maybe this member) at the present commit index."""
    log = raft.log
    read = PendingRead(origin, context, log.committed)
    if log.term(log.committed) != raft.term:
        # Without a commit of its own term a leader cannot know the newest commit index. That
        # goes for a sole voter, too: its last commit index need not have been on disk.
        if len(raft.early_reads) < raft.config.pending_reads_max:
            raft.early_reads.append(read)
    elif raft.membership.voters == (raft.id,):
        _answer_read(raft, read)
    elif len(raft.reads) < raft.config.pending_reads_max:
        _confirm(raft, read)


def _confirm(raft: Raft, read: PendingRead) -> None:
    raft.reads.add(read)
    raft.reads.acknowledge(raft.id, raft.reads.heartbeat_context())
    broadcast_heartbeat(raft)


def _release_early_reads(raft: Raft) -> None:
    reads, raft.early_reads = raft.early_reads, []
    for read in reads:
        read_index(raft, read.origin, read.context)


def _release_confirmed_reads(raft: Raft) -> None:
    for read in raft.reads.confirmed(raft.membership.voters):
        _answer_read(raft, read)


def _answer_read(raft: Raft, read: PendingRead) -> None:
    if read.origin == raft.id:
        raft.read_states.append(ReadState(read.index, read.context))
        return
    message = new_message(raftpb.MsgReadIndexResp, read.origin, index=read.index)
    message.entries.add(Type=NORMAL, Term=0, Index=0, Data=read.context)
    raft.send(message)


def on_read_index(raft: Raft, message: raftpb.Message) -> None:
    """A member asks for a read index; its context travels in the only entry."""
    if len(message.entries) == 1:
        read_index(raft, sender(message), message.entries[0].Data)
