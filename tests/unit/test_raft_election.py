"""Elections: pre-vote, leases, quorum checks, transfers, members coming and going."""

import pytest

from swarmd.api import raftpb
from swarmd.cluster.raft import ProposalDropped, ReadState, Role, Timing, new_entry
from swarmd.cluster.raft.messages import CAMPAIGN_TRANSFER, NORMAL
from tests.harness.raft_group import Group, incoming

FOLLOWER, CANDIDATE, LEADER = Role.FOLLOWER, Role.CANDIDATE, Role.LEADER
VOTE, PRE_VOTE = raftpb.MsgVote, raftpb.MsgPreVote


def vote(kind, origin, to, term, *, index=1, log_term=1, context=b""):
    message = incoming(kind, origin, to, term=term, index=index, log_term=log_term)
    if context:
        message.context = context
    return message


def answers(group, id):
    return [(m.type, m.to, m.term, m.reject) for m in group.process(id)]


# -- pre-vote --------------------------------------------------------------------------------


def test_pre_vote_changes_no_term_anywhere():
    group = Group(3)
    group.isolate(1)
    group.tick(1, 100)
    group.stabilize()
    assert [group[id].raft.term for id in (1, 2, 3)] == [1, 1, 1]
    assert group[1].raft.role is Role.PRE_CANDIDATE


def test_without_pre_vote_a_cut_off_member_burns_terms():
    group = Group(3, pre_vote=False)
    group.isolate(1)
    group.tick(1, 100)
    group.process()
    assert group[1].raft.role is CANDIDATE
    assert group[1].raft.term > 4


def test_a_member_that_was_cut_off_does_not_disturb_with_pre_vote():
    group = Group(3)
    group.elect(1)
    group.isolate(3)
    group.tick(3, 60)
    group.stabilize()
    group.mend()
    group.tick(3, 20)
    group.stabilize()
    assert group[1].raft.role is LEADER
    assert group[1].raft.term == 2
    group.tick(1)
    group.stabilize()
    assert (group[3].raft.role, group[3].raft.leader) == (FOLLOWER, 1)


@pytest.mark.parametrize("pre_vote", [True, False])
@pytest.mark.parametrize(
    ("index", "log_term", "granted"), [(1, 1, False), (2, 2, True), (3, 2, True), (2, 3, True)]
)
def test_pre_votes_are_answered_whatever_the_own_setting(pre_vote, index, log_term, granted):
    group = Group(3, pre_vote=pre_vote)
    group.elect(1)
    group[2].raft.randomized_ticks = 19
    group.tick(2, 10)
    group[2].node.step(vote(PRE_VOTE, 3, 2, 3, index=index, log_term=log_term))
    # A grant carries the term asked for, a refusal the own one; the own term stays.
    expected = (raftpb.MsgPreVoteResp, 3, 3 if granted else 2, not granted)
    assert expected in answers(group, 2)
    assert group[2].raft.term == 2


def test_a_pre_vote_does_not_use_up_the_vote():
    group = Group(3)
    for candidate in (2, 3, 2):
        group[1].node.step(vote(PRE_VOTE, candidate, 1, 2))
        assert answers(group, 1) == [(raftpb.MsgPreVoteResp, candidate, 2, False)]
    assert group[1].raft.vote == 0


def test_a_pre_vote_of_a_lower_term_is_refused_aloud():
    group = Group(3)
    group.elect(1)
    group[2].node.step(vote(PRE_VOTE, 3, 2, 1, index=9, log_term=9))
    assert answers(group, 2) == [(raftpb.MsgPreVoteResp, 3, 2, True)]


def test_a_refused_pre_candidate_takes_the_higher_term():
    group = Group(3)
    group[1].node.campaign()
    message = incoming(raftpb.MsgPreVoteResp, 2, 1, term=7, reject=1)
    group[1].node.step(message)
    assert (group[1].raft.role, group[1].raft.term) == (FOLLOWER, 7)


def test_a_pre_candidate_follows_a_leader_it_hears():
    group = Group(3)
    group[1].node.campaign()
    group[1].node.step(incoming(raftpb.MsgHeartbeat, 2, 1, term=1))
    assert (group[1].raft.role, group[1].raft.leader) == (FOLLOWER, 2)


@pytest.mark.parametrize("lost", [False, True])
def test_of_two_that_stand_at_once_one_wins_in_the_first_round(lost):
    group = Group(3)
    group.elect(1)
    group.isolate(1)
    for id in (3, 2):
        group.tick(id, 20)
    group.process(2, 3)
    assert {group[id].raft.role for id in (2, 3)} == {Role.PRE_CANDIDATE}
    if lost:
        group.drop(2)  # what the higher one asked of it
    group.stabilize(2, 3)
    assert (group[3].raft.role, group[3].raft.term) == (LEADER, 3)
    assert (group[2].raft.role, group[2].raft.leader) == (FOLLOWER, 3)


@pytest.mark.parametrize(
    ("origin", "term", "index", "log_term", "granted"),
    [
        (2, 2, 1, 1, False),
        (4, 2, 1, 1, True),  # the higher id stands before us
        (2, 2, 2, 1, True),  # its log has more
        (2, 2, 1, 2, True),
        (2, 3, 1, 1, True),  # it stands for another term
        (9, 2, 1, 1, True),
        (1, 2, 1, 1, True),  # no voter: it cannot be asked
    ],
)
def test_who_is_preferred_to_the_own_standing(origin, term, index, log_term, granted):
    group = Group(3)
    three = group.add(3, voters=[2, 3, 4])
    three.node.campaign()
    group.process(3)
    three.node.step(vote(PRE_VOTE, origin, 3, term, index=index, log_term=log_term))
    sent = [(m.type, m.to, m.reject) for m in group.process(3)]
    assert (raftpb.MsgPreVoteResp, origin, not granted) in sent
    assert ((PRE_VOTE, origin, False) in sent) is not granted


def test_old_pre_votes_do_not_elect():
    """A grant of the pre-vote is no vote once the real election runs."""
    group = Group(5)
    group[1].node.campaign()
    group.process(1)
    for id in (2, 3):
        group[1].node.step(incoming(raftpb.MsgPreVoteResp, id, 1, term=2))
    assert group[1].raft.role is CANDIDATE
    for id in (4, 5):
        group[1].node.step(incoming(raftpb.MsgPreVoteResp, id, 1, term=2))
    group.process(1)
    assert group[1].raft.role is CANDIDATE
    assert group[1].raft.votes == {1: True}


# -- lease and check-quorum ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VOTE, PRE_VOTE])
def test_votes_are_ignored_within_the_lease(kind):
    group = Group(3)
    group.elect(1)
    group.tick(2, 9)
    group[2].node.step(vote(kind, 3, 2, 9, index=9, log_term=9))
    assert answers(group, 2) == []
    assert (group[2].raft.term, group[2].raft.leader) == (2, 1)


@pytest.mark.parametrize("kind", [VOTE, PRE_VOTE])
def test_votes_are_given_after_the_lease(kind):
    group = Group(3)
    group.elect(1)
    group[2].raft.randomized_ticks = 19
    group.tick(2, 10)
    group[2].node.step(vote(kind, 3, 2, 9, index=9, log_term=9))
    ((_, to, term, reject),) = answers(group, 2)
    assert (to, term, reject) == (3, 9, False)


def test_a_leader_never_leaves_its_own_lease():
    group = Group(3)
    group.elect(1)
    for _ in range(35):
        group.tick(1)
        group.stabilize()
        group[1].node.step(vote(VOTE, 3, 1, 9, index=9, log_term=9))
        assert group[1].raft.role is LEADER


def test_a_transfer_overrides_the_lease():
    group = Group(3)
    group.elect(1)
    group[2].node.step(vote(VOTE, 3, 2, 3, index=9, log_term=9, context=CAMPAIGN_TRANSFER))
    assert answers(group, 2) == [(raftpb.MsgVoteResp, 3, 3, False)]


def test_there_is_no_lease_without_check_quorum():
    group = Group(3, check_quorum=False)
    group.elect(1)
    group[2].node.step(vote(VOTE, 3, 2, 3, index=9, log_term=9))
    assert answers(group, 2) == [(raftpb.MsgVoteResp, 3, 3, False)]


def test_a_leader_without_quorum_steps_down_within_two_periods():
    group = Group(3)
    group.elect(1)
    group.isolate(1)
    for _ in range(20):
        group.tick(1)
        group.stabilize()
    assert (group[1].raft.role, group[1].raft.leader) == (FOLLOWER, 0)
    assert group[1].raft.term == 2


def test_a_leader_with_a_bare_majority_stays():
    group = Group(3)
    group.elect(1)
    group.isolate(3)
    for _ in range(60):
        group.tick(1)
        group.stabilize(1, 2)
    assert group[1].raft.role is LEADER


def test_without_check_quorum_a_lonely_leader_stays():
    group = Group(3, check_quorum=False)
    group.elect(1)
    group.isolate(1)
    group.tick(1, 60)
    group.process()
    assert group[1].raft.role is LEADER


def test_a_sole_leader_stays():
    group = Group(1)
    group.elect(1)
    group.tick(1, 100)
    assert group[1].raft.role is LEADER


@pytest.mark.parametrize("kind", [raftpb.MsgApp, raftpb.MsgHeartbeat])
def test_a_leader_of_a_lower_term_is_told_by_an_append_response(kind):
    """Stock leaders step down on it; otherwise the member could never come back."""
    group = Group(3, pre_vote=False)
    group.elect(1)
    group[3].raft.become_follower(9, 0)
    group[3].node.step(incoming(kind, 1, 3, term=2, index=2, log_term=2))
    assert answers(group, 3) == [(raftpb.MsgAppResp, 1, 9, False)]
    group.stabilize(1)
    assert (group[1].raft.role, group[1].raft.term) == (FOLLOWER, 9)


def test_without_check_quorum_and_pre_vote_a_lower_term_gets_no_answer():
    group = Group(3, pre_vote=False, check_quorum=False)
    group[3].raft.become_follower(9, 0)
    group[3].node.step(incoming(raftpb.MsgApp, 1, 3, term=2, index=2, log_term=2))
    assert answers(group, 3) == []


def test_other_messages_of_a_lower_term_get_no_answer():
    group = Group(3)
    group[3].raft.become_follower(9, 0)
    group.process()
    kinds = (raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgSnap, raftpb.MsgTimeoutNow)
    for kind in kinds:
        group[3].node.step(incoming(kind, 1, 3, term=2))
    assert answers(group, 3) == []
    assert group[3].raft.role is FOLLOWER


def test_a_candidate_that_cannot_win_does_not_delay_the_one_that_can():
    """Member 2 has the shorter timeout but the older log; 1 must stand in the end."""
    group = Group(2, pre_vote=False)
    group[1].raft.log.append([new_entry(NORMAL, 1, 2, b"more")])
    group.process()
    group[1].node.set_timers(Timing(14, 1))
    group[2].node.set_timers(Timing(5, 1))
    for _ in range(60):
        for id in (1, 2):
            group.tick(id)
            group.stabilize()
        if group[1].raft.role is LEADER:
            break
    assert group[1].raft.role is LEADER


# -- transfer --------------------------------------------------------------------------------


def test_transfer_to_a_member_that_is_up_to_date():
    group = Group(3)
    group.elect(1)
    group[1].node.transfer_leadership(2)
    group.stabilize()
    assert (group[2].raft.role, group[2].raft.term) == (LEADER, 3)
    assert (group[1].raft.role, group[1].raft.leader) == (FOLLOWER, 2)


def test_transfer_waits_for_the_heir_to_catch_up():
    group = Group(3)
    group.elect(1)
    group.isolate(3)
    group[1].node.propose(b"x")
    group.stabilize()
    group.mend()
    group[1].node.transfer_leadership(3)
    assert group[1].node.status().transferee == 3
    group.tick(1)
    group.stabilize()
    assert group[3].raft.role is LEADER
    assert group[3].data == [b"x"]


def test_proposals_are_refused_while_handing_over():
    group = Group(3)
    group.elect(1)
    group.isolate(3)
    group[1].node.transfer_leadership(3)
    with pytest.raises(ProposalDropped, match="transferred"):
        group[1].node.propose(b"x")


def test_transfer_is_given_up_after_an_election_timeout():
    group = Group(3)
    group.elect(1)
    group.isolate(3)
    group[1].node.transfer_leadership(3)
    for _ in range(10):
        group.tick(1)
        group.stabilize(1, 2)
    assert group[1].raft.role is LEADER
    assert group[1].node.status().transferee == 0
    group[1].node.propose(b"x")


@pytest.mark.parametrize("to", [1, 99])
def test_transfer_to_itself_or_a_stranger_does_nothing(to):
    group = Group(3)
    group.elect(1)
    group[1].node.transfer_leadership(to)
    assert not group[1].node.has_ready()
    group[1].node.propose(b"x")


def test_transfer_to_itself_ends_another_transfer():
    group = Group(3)
    group.elect(1)
    group.isolate(3)
    group[1].node.transfer_leadership(3)
    group[1].node.transfer_leadership(1)
    group[1].node.propose(b"x")


def test_the_last_transfer_counts():
    group = Group(3)
    group.elect(1)
    group.isolate(3)
    group[1].node.transfer_leadership(3)
    group[1].node.transfer_leadership(2)
    group.stabilize()
    assert group[2].raft.role is LEADER


def test_transfer_to_a_learner_does_nothing():
    group = Group(1)
    group.elect(1)
    change = raftpb.ConfChange(type=raftpb.ConfChangeAddLearnerNode, node_id=2)
    group[1].node.propose_conf_change(change)
    group.stabilize()
    group[1].node.transfer_leadership(2)
    assert group[1].node.status().transferee == 0


def test_transfer_ends_when_the_heir_is_removed():
    group = Group(3)
    group.elect(1)
    group.isolate(3)
    remove = raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=3)
    group[1].node.propose_conf_change(remove)
    group[1].node.transfer_leadership(3)
    group.stabilize()
    assert group[1].node.status().transferee == 0


def test_a_follower_passes_a_transfer_on():
    group = Group(3)
    group.elect(1)
    group[3].node.transfer_leadership(2)
    group.stabilize()
    assert group[2].raft.role is LEADER


def test_timeout_now_skips_pre_vote_and_says_so_in_the_context():
    group = Group(3)
    group.elect(1)
    group[2].node.step(incoming(raftpb.MsgTimeoutNow, 1, 2, term=2))
    sent = group.process(2)
    assert {(m.type, m.term, m.context) for m in sent} == {(VOTE, 3, CAMPAIGN_TRANSFER)}


def test_timeout_now_moves_only_members():
    group = Group(2)
    joiner = group.add(9)
    joiner.node.step(incoming(raftpb.MsgTimeoutNow, 1, 9, term=2))
    assert joiner.raft.role is FOLLOWER


# -- members ---------------------------------------------------------------------------------


def change_members(group, leader, kind, id):
    group[leader].node.propose_conf_change(raftpb.ConfChange(type=kind, node_id=id))
    group.stabilize()


def test_removing_a_member_lets_the_rest_commit():
    group = Group(2)
    group.elect(1)
    change_members(group, 1, raftpb.ConfChangeRemoveNode, 2)
    group.isolate(2)
    group[1].node.propose(b"alone")
    group.stabilize()
    assert group[1].data == [b"alone"]


def test_a_smaller_configuration_commits_what_waited():
    group = Group(4)
    group.elect(1)
    group.isolate(4)
    change = raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=4)
    group[1].node.propose_conf_change(change)
    group.process(1)
    group.deliver(2)
    group.deliver(3)
    group.process(2, 3)
    group.isolate(3)
    group[1].node.propose(b"x")
    group.stabilize()
    # Two of four are no majority; the change itself needed three and got them.
    assert group[1].node.status().voters == (1, 2, 3)
    assert group[1].data == [b"x"]


def test_a_removed_leader_goes_on_until_stopped_but_takes_nothing():
    group = Group(3)
    group.elect(1)
    change_members(group, 1, raftpb.ConfChangeRemoveNode, 1)
    assert group[1].raft.role is LEADER
    assert [group[id].node.status().voters for id in (2, 3)] == [(2, 3), (2, 3)]
    with pytest.raises(ProposalDropped, match="removed"):
        group[1].node.propose(b"x")


def test_followers_can_replace_a_removed_leader_at_once():
    group = Group(3)
    group.elect(1)
    change_members(group, 1, raftpb.ConfChangeRemoveNode, 1)
    assert group[2].raft.leader == 0
    group.isolate(1)
    group[2].node.campaign()
    group.stabilize(2, 3)
    assert group[2].raft.role is LEADER


def test_a_removed_follower_cannot_stand():
    group = Group(3)
    group.elect(1)
    change_members(group, 1, raftpb.ConfChangeRemoveNode, 3)
    group.isolate(3)
    group.tick(3, 100)
    group[3].node.campaign()
    assert group[3].raft.role is FOLLOWER


def test_a_learner_gets_entries_but_does_not_count():
    group = Group(1)
    group[1].storage.conf_state.learners.append(2)
    group.restart(1)
    learner = group.add(2, voters=[1])
    learner.storage.conf_state.learners.append(2)
    learner = group.restart(2)
    group.elect(1)
    group.isolate(2)
    group[1].node.propose(b"x")
    group.stabilize()
    assert group[1].data == [b"x"]
    group.mend()
    group.tick(1)
    group.stabilize()
    assert learner.data == [b"x"]
    group.isolate(2)
    group.tick(2, 100)
    assert learner.raft.role is FOLLOWER
    assert group[1].node.status().progress[2].learner


def test_nobody_stands_with_an_unapplied_configuration_change():
    group = Group(3)
    group.elect(1)
    change = raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=3)
    group[1].node.propose_conf_change(change)
    group.process(1)
    group.deliver(2)
    group.process(2)
    group.deliver(1)
    group.process(1)
    group.deliver(2)
    assert group[2].raft.log.committed > group[2].raft.log.applied
    group[2].node.campaign()
    assert group[2].raft.role is FOLLOWER
    group.process(2)
    group[2].node.campaign()
    assert group[2].raft.role is Role.PRE_CANDIDATE


# -- reads -----------------------------------------------------------------------------------


def test_a_read_needs_a_quorum_to_confirm():
    group = Group(3)
    group.elect(1)
    group[1].node.read_index(b"ctx")
    group.process(1)
    assert group[1].read_states == []
    group.stabilize()
    assert group[1].read_states == [ReadState(2, b"ctx")]


def test_followers_ask_the_leader():
    group = Group(3)
    group.elect(1)
    group[1].node.propose(b"x")
    group[2].node.read_index(b"same")
    group[3].node.read_index(b"same")
    group.stabilize()
    assert [s.context for s in group[2].read_states] == [b"same"]
    assert [s.context for s in group[3].read_states] == [b"same"]
    assert group[1].read_states == []


def test_a_deposed_leader_confirms_nothing():
    group = Group(3)
    group.elect(1)
    group.isolate(1)
    for id in (2, 3):
        group.tick(id, 10)
    group[2].node.campaign()
    group.stabilize(2, 3)
    assert group[2].raft.role is LEADER
    group[1].node.read_index(b"stale")
    for _ in range(30):
        group.tick(1)
        group.stabilize()
    assert group[1].read_states == []


def test_one_follower_of_five_is_not_enough_to_confirm():
    group = Group(5, check_quorum=False)
    group.elect(1)
    for id in (3, 4, 5):
        group.isolate(id)
    group[1].node.read_index(b"minority")
    group.tick(1, 3)
    group.stabilize(1, 2)
    assert group[1].read_states == []
    group.mend()
    group.tick(1)
    group.stabilize()
    assert group[1].read_states == [ReadState(2, b"minority")]


def test_a_sole_leader_confirms_alone_but_not_before_its_first_commit():
    group = Group(1)
    group[1].node.campaign()
    while group[1].raft.role is not LEADER:
        group[1].process()
    group[1].node.read_index(b"early")
    assert group[1].raft.read_states == []
    group.stabilize()
    assert group[1].read_states == [ReadState(2, b"early")]


def test_a_new_leader_confirms_reads_after_its_first_commit():
    group = Group(3)
    group[1].node.campaign()
    while group[1].raft.role is not LEADER:
        group.process()
        for id in (1, 2, 3):
            group.deliver(id)
    group[1].node.read_index(b"early")
    group.stabilize()
    assert group[1].read_states == [ReadState(2, b"early")]


@pytest.mark.parametrize("cut_off", [False, True])
def test_waiting_reads_are_bounded(cut_off):
    group = Group(3, pending_reads_max=2)
    group.elect(1)
    if cut_off:
        group.isolate(1)
    for number in range(5):
        group[1].node.read_index(b"%d" % number)
    group.stabilize()
    assert [s.context for s in group[1].read_states] == ([] if cut_off else [b"0", b"1"])
    assert len(group[1].raft.reads) == (2 if cut_off else 0)


def test_reads_without_a_leader_are_lost():
    group = Group(3)
    group[1].node.read_index(b"x")
    group[1].node.campaign()
    group[1].node.read_index(b"y")
    group.stabilize()
    assert group[1].read_states == []


def test_odd_read_messages_are_ignored():
    group = Group(3)
    group.elect(1)
    group[1].node.step(incoming(raftpb.MsgReadIndex, 2, 1))
    group[2].node.step(incoming(raftpb.MsgReadIndexResp, 1, 2, term=2, index=9))
    assert not group[1].node.has_ready()
    assert not group[2].node.has_ready()
