"""What a follower does: take entries, heartbeats and snapshots from the leader."""

from __future__ import annotations

from swarmd.api import raftpb
from swarmd.base.errors import InvalidArgument
from swarmd.cluster.raft import candidate, confchange
from swarmd.cluster.raft.core import Raft
from swarmd.cluster.raft.messages import new_message, sender, set_sender
from swarmd.cluster.raft.types import NONE, ReadState, Role


def _hear_leader(raft: Raft, message: raftpb.Message) -> None:
    """Follow the sender: there is one leader per term, so whoever stood has lost."""
    if raft.role is not Role.FOLLOWER:
        raft.become_follower(message.term, sender(message))
    raft.election_elapsed = 0
    raft.elections = 0
    raft.leader = sender(message)


def on_append(raft: Raft, message: raftpb.Message) -> None:
    """Take entries that fit, or say where the logs may meet (paper, 5.3)."""
    _hear_leader(raft, message)
    log = raft.log
    to = sender(message)
    if message.index < log.committed:
        raft.reply(raftpb.MsgAppResp, to, log.committed)
        return
    last = log.try_append(message.index, message.logTerm, message.entries, message.commit)
    if last is not None:
        raft.reply(raftpb.MsgAppResp, to, last)
        return
    # Entries above the leader's term at that point cannot match, so the hint skips them.
    start = min(message.index, log.last_index())
    hint, hint_term = log.find_conflict_by_term(start, message.logTerm)
    response = new_message(raftpb.MsgAppResp, to, index=message.index, log_term=hint_term)
    response.reject = True
    response.rejectHint = hint
    raft.send(response)


def on_heartbeat(raft: Raft, message: raftpb.Message) -> None:
    """Take the commit index and answer with the same context."""
    _hear_leader(raft, message)
    raft.log.commit_to(message.commit)
    raft.reply(raftpb.MsgHeartbeatResp, sender(message), context=message.context)


def on_snapshot(raft: Raft, message: raftpb.Message) -> None:
    """Start over from a snapshot, unless the log is already as far."""
    _hear_leader(raft, message)
    if restore(raft, message.snapshot):
        raft.say(f"restores snapshot {message.snapshot.metadata.index}")
        raft.reply(raftpb.MsgAppResp, sender(message), raft.log.last_index())
    else:
        raft.reply(raftpb.MsgAppResp, sender(message), raft.log.committed)


def restore(raft: Raft, snapshot: raftpb.Snapshot) -> bool:
    """Replace log and configuration by `snapshot`; False if it is of no use here."""
    index, term = snapshot.metadata.index, snapshot.metadata.term
    if index <= raft.log.committed:
        return False
    try:
        membership = confchange.restore(snapshot.metadata.conf_state)
    except InvalidArgument as error:
        raft.say(f"ignores snapshot {index}: {error.message}")
        return False
    # It need not name this member: leaders of 20.10 send a newcomer the configuration as it was
    # at the snapshot, and the entry that adds it follows. Until then it cannot stand.
    if raft.log.matches(index, term):
        # The log holds everything up to there; only the commit index is news.
        raft.log.commit_to(index)
        return False
    raft.log.restore(snapshot)
    raft.progress = {}
    raft.set_membership(membership)
    return True


def on_timeout_now(raft: Raft, message: raftpb.Message) -> None:
    """The leader hands over: stand at once."""
    raft.say(f"was asked to take over by {sender(message):x}")
    candidate.hup(raft, transfer=True)


def forward_transfer(raft: Raft, to: int) -> None:
    """Pass a wish for another leader on to the present one; sender is the heir, as in etcd."""
    if raft.leader != NONE:
        message = new_message(raftpb.MsgTransferLeader, raft.leader)
        raft.send(message)
        set_sender(message, to)


def forward_read(raft: Raft, context: bytes) -> None:
    """Ask the leader for a read index; without one the read is lost, callers time out."""
    if raft.leader != NONE:
        message = new_message(raftpb.MsgReadIndex, raft.leader)
        message.entries.add(Type=raftpb.EntryNormal, Term=0, Index=0, Data=context)
        raft.send(message)


def on_read_response(raft: Raft, message: raftpb.Message) -> None:
    """The leader confirmed a read of ours."""
    if len(message.entries) == 1:
        raft.read_states.append(ReadState(message.index, message.entries[0].Data))
