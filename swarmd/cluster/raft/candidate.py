"""Standing for election: who may, how votes are asked for and counted (paper, 5.2)."""

from __future__ import annotations

from swarmd.api import raftpb
from swarmd.cluster.raft import leader, quorum
from swarmd.cluster.raft.core import Raft
from swarmd.cluster.raft.messages import CAMPAIGN_TRANSFER, new_message, sender
from swarmd.cluster.raft.quorum import VoteResult
from swarmd.cluster.raft.types import NONE, Role


def hup(raft: Raft, *, transfer: bool = False) -> None:
    """Start an election, unless this member leads or may not stand.

    A transfer skips the pre-vote and overrides the lease: the leader itself asked for it.
    """
    if raft.role is Role.LEADER or not raft.can_campaign():
        return
    # Standing with a committed but unapplied change would mean counting the wrong voters.
    if raft.log.has_unapplied_conf_change():
        raft.say("cannot stand: a configuration change is not applied yet")
        return
    if raft.config.pre_vote and not transfer:
        _campaign(raft, pre=True, context=b"")
    else:
        _campaign(raft, pre=False, context=CAMPAIGN_TRANSFER if transfer else b"")


def _campaign(raft: Raft, *, pre: bool, context: bytes) -> None:
    if pre:
        raft.become_pre_candidate()
    else:
        raft.become_candidate()
    # The own vote counts only once it is durable, see `RawNode.advance`.
    raft.own_vote = (raft.term + 1 if pre else raft.term, pre)
    for id in raft.membership.voters:
        if id != raft.id:
            ask(raft, id, context)


def ask(raft: Raft, id: int, context: bytes = b"") -> None:
    """Ask a member for its pre-vote or vote, as the role is."""
    pre = raft.role is Role.PRE_CANDIDATE
    raft.send(
        new_message(
            raftpb.MsgPreVote if pre else raftpb.MsgVote,
            id,
            term=raft.term + 1 if pre else raft.term,
            index=raft.log.last_index(),
            log_term=raft.log.last_term(),
            context=context,
        )
    )


def count_vote(raft: Raft, id: int, granted: bool) -> None:
    """Record a vote (the first one of a member stands) and act once the result is known."""
    raft.votes.setdefault(id, granted)
    result = quorum.vote_result(raft.membership.voters, raft.votes)
    if result is VoteResult.WON:
        if raft.role is Role.PRE_CANDIDATE:
            _campaign(raft, pre=False, context=b"")
        else:
            leader.take_office(raft)
    elif result is VoteResult.LOST:
        raft.say("lost the election")
        raft.become_follower(raft.term, NONE)


def count_own_vote(raft: Raft, term: int, pre: bool) -> None:
    """Count the vote for oneself if it still belongs to the election under way."""
    wanted = (Role.PRE_CANDIDATE, raft.term + 1) if pre else (Role.CANDIDATE, raft.term)
    if (raft.role, term) == wanted:
        count_vote(raft, raft.id, True)


def on_vote_response(raft: Raft, message: raftpb.Message) -> None:
    """A vote for the present term arrived."""
    count_vote(raft, sender(message), not message.reject)


def tick(raft: Raft) -> None:
    """Count one tick of a follower or candidate; past the timeout, stand for election."""
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.randomized_ticks and raft.can_campaign():
        raft.election_elapsed = 0
        hup(raft)
