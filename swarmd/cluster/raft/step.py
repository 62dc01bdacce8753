"""Where messages go: the rules about terms first, then votes, then one table for the rest."""

from __future__ import annotations

from collections.abc import Callable

from swarmd.api import raftpb
from swarmd.cluster.raft import candidate, follower, leader
from swarmd.cluster.raft.core import Raft
from swarmd.cluster.raft.messages import CAMPAIGN_TRANSFER, new_message, sender
from swarmd.cluster.raft.types import NONE, Role

Handler = Callable[[Raft, raftpb.Message], None]

_FROM_LEADER = frozenset((raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap))
_ASKS_VOTE = frozenset((raftpb.MsgVote, raftpb.MsgPreVote))


def step(raft: Raft, message: raftpb.Message) -> None:
    """Take a message of another member. Term 0 means: belongs to no term."""
    term, kind = message.term, message.type
    if term > raft.term:
        if not _on_higher_term(raft, message):
            return
    elif 0 < term < raft.term:
        _on_lower_term(raft, message)
        return
    if kind in _ASKS_VOTE:
        _on_vote_request(raft, message)
        return
    handler = HANDLERS[raft.role].get(kind)
    if handler is not None:
        handler(raft, message)


def _on_higher_term(raft: Raft, message: raftpb.Message) -> bool:
    """Move to the message's term where that is due; False if the message is to be ignored."""
    kind = message.type
    if kind in _ASKS_VOTE and message.context != CAMPAIGN_TRANSFER and _in_lease(raft):
        raft.say(f"ignores a vote request of {sender(message):x}: the leader was heard")
        return False
    if kind == raftpb.MsgPreVote:
        # The candidate does not hold that term yet.
        return True
    if kind == raftpb.MsgPreVoteResp and not message.reject:
        # Granted for the term we would campaign in; a refusal carries the voter's own term.
        return True
    leads = sender(message) if kind in _FROM_LEADER else NONE
    waited = raft.election_elapsed
    waits = kind == raftpb.MsgVote and raft.role is not Role.LEADER
    raft.become_follower(message.term, leads)
    if waits:
        # Only granting the vote starts the wait anew (paper, 5.2; etcd always does). Else a
        # candidate that cannot win, but has the shorter timeout, keeps the one that can from
        # ever standing.
        raft.election_elapsed = waited
    return True


def _in_lease(raft: Raft) -> bool:
    """Whether a leader was heard (or is) within the shortest election timeout (thesis 6.4.1)."""
    return (
        raft.config.check_quorum
        and raft.leader != NONE
        and raft.election_elapsed < raft.timing.election_ticks
    )


def _on_lower_term(raft: Raft, message: raftpb.Message) -> None:
    """Answer where silence could lock somebody out, else ignore.

    A member that came back with a higher term would be ignored by leases and could never catch
    up; its answer makes the old leader step down. A pre-candidate of a lower term must learn
    the higher one, too.
    """
    kind = message.type
    guarded = raft.config.check_quorum or raft.config.pre_vote
    if guarded and kind in (raftpb.MsgHeartbeat, raftpb.MsgApp):
        raft.reply(raftpb.MsgAppResp, sender(message))
    elif kind == raftpb.MsgPreVote:
        response = new_message(raftpb.MsgPreVoteResp, sender(message), term=raft.term)
        response.reject = True
        raft.send(response)


def _on_vote_request(raft: Raft, message: raftpb.Message) -> None:
    """Grant or refuse a vote or pre-vote (paper, 5.2 and 5.4.1); learners and strangers vote,
    as they may be voters without knowing it yet.
    """
    id, kind = sender(message), message.type
    pre = kind == raftpb.MsgPreVote
    free = (
        raft.vote == id
        or (raft.vote == NONE and raft.leader == NONE)
        or (pre and message.term > raft.term)
    )
    granted = free and raft.log.is_up_to_date(message.index, message.logTerm)
    if granted and pre and _stands_before(raft, message):
        granted = False
        candidate.ask(raft, id)
    answer = raftpb.MsgPreVoteResp if pre else raftpb.MsgVoteResp
    # A grant carries the term asked for (our own may be lower in a pre-vote and would be
    # ignored), a refusal carries our own.
    response = new_message(answer, id, term=message.term if granted else raft.term)
    response.reject = not granted
    raft.send(response)
    raft.say(f"{'grants' if granted else 'refuses'} {'pre-vote' if pre else 'vote'} to {id:x}")
    if granted and not pre:
        raft.election_elapsed = 0
        raft.vote = id


def _stands_before(raft: Raft, message: raftpb.Message) -> bool:
    """Whether this member asks for the same term with as good a log, and has the higher id.

    Two that grant each other the pre-vote split the vote, and the group waits once more. The
    one refused grants; it is asked again, as the first request may have been lost.
    """
    return (
        raft.role is Role.PRE_CANDIDATE
        and message.term == raft.term + 1
        and sender(message) < raft.id
        and (message.index, message.logTerm) == (raft.log.last_index(), raft.log.last_term())
        and sender(message) in raft.membership.voters
    )


def _transfer(raft: Raft, message: raftpb.Message) -> None:
    leader.transfer(raft, sender(message))


def _forward_transfer(raft: Raft, message: raftpb.Message) -> None:
    follower.forward_transfer(raft, sender(message))


# Every (role, kind) that does something; what is absent is ignored on purpose.
_HEARS_LEADER: dict[int, Handler] = {
    raftpb.MsgApp: follower.on_append,
    raftpb.MsgHeartbeat: follower.on_heartbeat,
    raftpb.MsgSnap: follower.on_snapshot,
}
HANDLERS: dict[Role, dict[int, Handler]] = {
    Role.FOLLOWER: {
        **_HEARS_LEADER,
        raftpb.MsgTimeoutNow: follower.on_timeout_now,
        raftpb.MsgTransferLeader: _forward_transfer,
        raftpb.MsgReadIndexResp: follower.on_read_response,
    },
    Role.PRE_CANDIDATE: {
        **_HEARS_LEADER,
        raftpb.MsgPreVoteResp: candidate.on_vote_response,
    },
    Role.CANDIDATE: {
        **_HEARS_LEADER,
        raftpb.MsgVoteResp: candidate.on_vote_response,
    },
    Role.LEADER: {
        raftpb.MsgAppResp: leader.on_append_response,
        raftpb.MsgHeartbeatResp: leader.on_heartbeat_response,
        raftpb.MsgTransferLeader: _transfer,
        raftpb.MsgReadIndex: leader.on_read_index,
    },
}
