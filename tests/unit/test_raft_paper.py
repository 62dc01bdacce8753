"""The rules of the Raft paper, section by section (Ongaro and Ousterhout, extended version)."""

import pytest

from swarmd.api import raftpb
from swarmd.cluster.raft import MemoryStorage, Role, new_conf_state, new_entry, new_hard_state
from swarmd.cluster.raft.messages import NORMAL
from tests.harness.raft_group import Group, Peer, incoming

FOLLOWER, CANDIDATE, LEADER = Role.FOLLOWER, Role.CANDIDATE, Role.LEADER


def put_in(peer, role):
    raft = peer.raft
    if role is FOLLOWER:
        raft.become_follower(1, 2)
    else:
        raft.become_candidate()
        if role is LEADER:
            raft.become_leader()


def with_log(terms, count=3, term=None, **settings):
    """A group whose member 1 has one entry per term, from index 1 on."""
    group = Group(0)
    for id in range(1, count + 1):
        peer = group.add(id, pre_vote=False, **settings)
        storage = peer.storage
        storage.conf_state = new_conf_state(tuple(range(1, count + 1)))
        if id == 1:
            storage.append([new_entry(NORMAL, t, i + 1, b"") for i, t in enumerate(terms)])
            storage.set_hard_state(new_hard_state(term or (terms[-1] if terms else 0), 0, 0))
        group.restart(id)
    return group


def log_of(peer):
    log = peer.raft.log
    return [(e.Index, e.Term) for e in log.slice(log.first_index(), log.last_index() + 1, None)]


# -- 5.1 terms -------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [FOLLOWER, CANDIDATE, LEADER])
def test_5_1_a_higher_term_makes_a_follower_of_that_term(role):
    peer = Group(3)[1]
    put_in(peer, role)
    peer.node.step(incoming(raftpb.MsgApp, 2, 1, term=9, index=1, log_term=1))
    assert (peer.raft.role, peer.raft.term, peer.raft.leader) == (FOLLOWER, 9, 2)


@pytest.mark.parametrize("role", [FOLLOWER, CANDIDATE, LEADER])
def test_5_1_a_stale_term_changes_nothing(role):
    peer = Group(3)[1]
    peer.raft.become_follower(5, 0)
    put_in_role = {FOLLOWER: 0, CANDIDATE: 1, LEADER: 2}[role]
    if put_in_role:
        peer.raft.become_candidate()
    if put_in_role == 2:
        peer.raft.become_leader()
    before = peer.node.status()
    for kind in (raftpb.MsgApp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgAppResp):
        peer.node.step(incoming(kind, 2, 1, term=4, index=1, log_term=1))
    assert peer.node.status() == before


# -- 5.2 elections ---------------------------------------------------------------------------


def test_5_2_members_start_as_followers():
    assert Group(3)[1].raft.role is FOLLOWER


def test_5_2_a_leader_sends_heartbeats_to_all():
    group = Group(3, heartbeat_ticks=2)
    group.elect(1)
    group.tick(1)
    assert group.process() == []
    group.tick(1)
    assert [(m.type, m.to, m.term) for m in group.process()] == [
        (raftpb.MsgHeartbeat, 2, 2),
        (raftpb.MsgHeartbeat, 3, 2),
    ]


@pytest.mark.parametrize("role", [FOLLOWER, CANDIDATE])
def test_5_2_silence_starts_an_election(role):
    group = Group(3, pre_vote=False)
    peer = group[1]
    put_in(peer, role)
    group.process()
    before = peer.raft.term
    group.tick(1, 19)
    assert (peer.raft.role, peer.raft.term, peer.raft.vote) == (CANDIDATE, before + 1, 1)
    sent = {(m.to, m.type, m.term) for m in group.process(1)}
    assert sent == {(id, raftpb.MsgVote, before + 1) for id in (2, 3)}


@pytest.mark.parametrize(
    ("count", "granted", "refused", "role"),
    [
        (1, 0, 0, LEADER),
        (3, 1, 0, LEADER),
        (3, 2, 0, LEADER),
        (5, 2, 0, LEADER),
        (5, 1, 0, CANDIDATE),
        (5, 0, 2, CANDIDATE),
        (5, 1, 2, CANDIDATE),
        (3, 0, 0, CANDIDATE),
        (3, 0, 2, FOLLOWER),
        (5, 1, 3, FOLLOWER),
        (5, 0, 4, FOLLOWER),
    ],
)
def test_5_2_a_majority_decides(count, granted, refused, role):
    group = Group(count, pre_vote=False)
    group[1].node.campaign()
    group.process(1)
    for id in range(2, 2 + granted):
        group[1].node.step(incoming(raftpb.MsgVoteResp, id, 1, term=2))
    for id in range(2 + granted, 2 + granted + refused):
        group[1].node.step(incoming(raftpb.MsgVoteResp, id, 1, term=2, reject=1))
    assert (group[1].raft.role, group[1].raft.term) == (role, 2)


def test_5_2_one_vote_per_member_counts():
    group = Group(5, pre_vote=False)
    group[1].node.campaign()
    group.process(1)
    for _ in range(5):
        group[1].node.step(incoming(raftpb.MsgVoteResp, 2, 1, term=2))
    assert group[1].raft.role is CANDIDATE


@pytest.mark.parametrize(
    ("voted", "asks", "granted"), [(0, 2, True), (0, 3, True), (2, 2, True), (2, 3, False)]
)
def test_5_2_one_vote_per_term_first_come_first_served(voted, asks, granted):
    peer = Group(3)[1]
    peer.raft.vote = voted
    peer.node.step(incoming(raftpb.MsgVote, asks, 1, term=1, index=1, log_term=1))
    (message,) = peer.process()
    assert (message.type, message.to, message.reject) == (raftpb.MsgVoteResp, asks, not granted)
    assert peer.raft.vote == (asks if granted else voted)


def test_5_2_the_vote_survives_a_restart():
    group = Group(3)
    group[1].node.step(incoming(raftpb.MsgVote, 2, 1, term=5, index=1, log_term=1))
    group[1].process()
    peer = group.restart(1)
    peer.node.step(incoming(raftpb.MsgVote, 3, 1, term=5, index=1, log_term=1))
    (message,) = peer.process()
    assert message.reject


@pytest.mark.parametrize("term", [2, 3])
def test_5_2_a_candidate_yields_to_a_leader_of_its_term(term):
    group = Group(3, pre_vote=False)
    group[1].node.campaign()
    group[1].node.step(incoming(raftpb.MsgApp, 2, 1, term=term, index=1, log_term=1))
    assert (group[1].raft.role, group[1].raft.term, group[1].raft.leader) == (FOLLOWER, term, 2)


def test_5_2_timeouts_are_random_within_one_and_two_periods():
    peer = Group(3)[1]
    drawn = set()
    for _ in range(500):
        peer.raft.reset(peer.raft.term)
        drawn.add(peer.raft.randomized_ticks)
    assert drawn == set(range(10, 20))


def test_5_2_members_rarely_draw_the_same_timeout():
    group = Group(5)
    conflicts = 0
    for _ in range(1000):
        for id in range(1, 6):
            group[id].raft.randomize()
        drawn = sorted(group[id].raft.randomized_ticks for id in range(1, 6))
        conflicts += drawn[0] == drawn[1]
    assert conflicts < 400


# -- 5.3 replication -------------------------------------------------------------------------


def test_5_3_a_proposal_goes_to_all_with_what_precedes_it():
    group = Group(3)
    group.elect(1)
    group[1].node.propose(b"some data")
    sent = group.process(1)
    assert [(m.to, m.type, m.index, m.logTerm, m.commit) for m in sent] == [
        (2, raftpb.MsgApp, 2, 2, 2),
        (3, raftpb.MsgApp, 2, 2, 2),
    ]
    for message in sent:
        assert [(e.Index, e.Term, e.Data) for e in message.entries] == [(3, 2, b"some data")]


@pytest.mark.parametrize(
    ("count", "acks", "committed"),
    [
        (1, (), True),
        (3, (), False),
        (3, (2,), True),
        (3, (2, 3), True),
        (5, (2,), False),
        (5, (2, 3), True),
        (5, (2, 3, 4, 5), True),
    ],
)
def test_5_3_an_entry_commits_once_a_majority_holds_it(count, acks, committed):
    group = Group(count)
    group.elect(1)
    group[1].node.propose(b"x")
    group.process(1)
    for id in acks:
        group.deliver(id)
        group.process(id)
    group.deliver(1)
    group.process(1)
    assert (group[1].data == [b"x"]) is committed


@pytest.mark.parametrize("terms", [(), (2,), (1, 2), (1,)])
def test_5_3_committing_commits_everything_before(terms):
    group = with_log(terms)
    group[1].node.campaign()
    group.stabilize()
    group[1].node.propose(b"x")
    group.stabilize()
    expected = len(terms) + 2
    for id in (1, 2, 3):
        assert [e.Index for e in group[id].applied] == list(range(1, expected + 1))


def test_5_3_followers_apply_in_order_once_told():
    peer = Group(3)[1]
    message = incoming(raftpb.MsgApp, 2, 1, term=1, index=1, log_term=1, commit=1)
    for index in (2, 3, 4):
        message.entries.append(new_entry(NORMAL, 1, index, b"%d" % index))
    peer.node.step(message)
    peer.process()
    assert peer.data == []
    peer.node.step(incoming(raftpb.MsgHeartbeat, 2, 1, term=1, commit=3))
    peer.process()
    assert peer.data == [b"2", b"3"]


@pytest.mark.parametrize(
    ("index", "log_term", "answer"),
    [
        # (index, reject, hint, hint term); the member has 1/1 2/2 and committed 1
        (0, 0, (1, False, 0, 0)),
        (1, 1, (1, False, 0, 0)),
        (2, 2, (2, False, 0, 0)),
        (1, 2, (1, True, 1, 1)),
        (2, 3, (2, True, 2, 2)),
        (3, 3, (3, True, 2, 2)),
        (3, 1, (3, True, 1, 1)),
    ],
)
def test_5_3_the_consistency_check(index, log_term, answer):
    group = with_log((1, 2))
    peer = group[1]
    peer.raft.log.commit_to(1)
    peer.node.step(incoming(raftpb.MsgApp, 2, 1, term=2, index=index, log_term=log_term))
    message = peer.process()[-1]
    found = (message.index, message.reject, message.rejectHint, message.logTerm)
    assert found == answer


@pytest.mark.parametrize(
    ("index", "log_term", "added", "result", "written"),
    [
        (2, 2, [(3, 3)], [(1, 1), (2, 2), (3, 3)], [(3, 3)]),
        (1, 1, [(2, 3), (3, 4)], [(1, 1), (2, 3), (3, 4)], [(2, 3), (3, 4)]),
        (0, 0, [(1, 1)], [(1, 1), (2, 2)], []),
        (0, 0, [(1, 3)], [(1, 3)], [(1, 3)]),
    ],
)
def test_5_3_conflicting_entries_are_replaced(index, log_term, added, result, written):
    peer = with_log((1, 2))[1]
    message = incoming(raftpb.MsgApp, 2, 1, term=4, index=index, log_term=log_term)
    for position, term in added:
        message.entries.append(new_entry(NORMAL, term, position, b""))
    peer.node.step(message)
    assert log_of(peer) == result
    assert [(e.Index, e.Term) for e in peer.node.ready().entries] == written


FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("old_hints", [False, True])
@pytest.mark.parametrize("name", sorted(FIGURE_7))
def test_5_3_figure_7_logs_are_brought_in_line(name, old_hints):
    """With the hints of 3.5, and with rejects of older libraries that lack the hint's term."""
    group = with_log((1, 1, 1, 4, 4, 5, 5, 6, 6, 6), term=8)
    group[1].raft.log.commit_to(9 if name == "a" else 3)
    storage = MemoryStorage()
    storage.conf_state = new_conf_state((1, 2, 3))
    storage.append([new_entry(NORMAL, t, i + 1, b"") for i, t in enumerate(FIGURE_7[name])])
    storage.set_hard_state(new_hard_state(7, 0, 0))
    group.peers[2] = Peer(group[2].config, storage, [])
    group[1].node.campaign()
    group.process(1)
    # Member 3 is empty and votes; member 2 may be ahead and refuse.
    group.deliver(3)
    group.process(3)
    group.deliver(1)
    rounds = 0
    while log_of(group[2]) != log_of(group[1]) or rounds == 0:
        group.process()
        for id in (2, 1):
            if old_hints and id == 1:
                for message in group.inbox[1]:
                    message.logTerm = 0
            group.deliver(id)
        rounds += 1
        assert rounds < (20 if old_hints else 6)
    assert group[1].raft.role is LEADER


# -- 5.4 safety ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "index", "log_term", "granted"),
    [
        ((1,), 1, 1, True),
        ((1,), 2, 1, True),
        ((1, 1), 1, 1, False),
        ((1,), 1, 2, True),
        ((1, 1), 1, 2, True),
        ((2,), 1, 1, False),
        ((2,), 2, 1, False),
        ((1, 2), 5, 1, False),
    ],
)
def test_5_4_1_only_an_up_to_date_candidate_gets_the_vote(own, index, log_term, granted):
    peer = with_log(own)[1]
    peer.node.step(incoming(raftpb.MsgVote, 2, 1, term=9, index=index, log_term=log_term))
    (message,) = peer.process()
    assert message.reject is not granted


def test_5_4_1_a_vote_request_names_the_last_entry():
    group = with_log((1, 2, 2))
    group[1].node.campaign()
    assert {(m.index, m.logTerm) for m in group.process(1)} == {(3, 2)}


@pytest.mark.parametrize(("index", "commit"), [(1, 0), (2, 0), (3, 3)])
def test_5_4_2_only_entries_of_the_own_term_are_counted(index, commit):
    group = with_log((1, 2), term=2)
    raft = group[1].raft
    raft.become_candidate()
    raft.become_leader()
    group[1].node.propose(b"x")
    group.process(1)
    group[1].node.step(incoming(raftpb.MsgAppResp, 2, 1, term=3, index=index))
    assert raft.log.committed == commit


def test_5_4_2_a_leader_begins_its_term_with_an_empty_entry():
    group = Group(3)
    group.elect(1)
    (entry,) = group[1].raft.log.slice(2, 3, None)
    assert (entry.Term, entry.Type, entry.Data) == (2, NORMAL, b"")
    assert group[1].raft.log.committed == 2


# -- 6 membership ----------------------------------------------------------------------------


def test_6_a_new_member_catches_up_and_counts():
    group = Group(0)
    group.add(1).node.bootstrap([(1, b"")])
    group.stabilize()
    group.elect(1)
    for data in (b"a", b"b"):
        group[1].node.propose(data)
    group.stabilize()
    group.add(2)
    group[1].node.propose_conf_change(raftpb.ConfChange(type=0, node_id=2))
    group.stabilize()
    assert group[2].data == [b"a", b"b"]
    group.isolate(2)
    group[1].node.propose(b"c")
    group.stabilize()
    assert group[1].data == [b"a", b"b"]
    group.mend()
    group.tick(1)
    group.stabilize()
    assert group[1].data == group[2].data == [b"a", b"b", b"c"]


def test_6_removed_members_do_not_disturb():
    """A member that never learned of its removal keeps asking for votes, in vain."""
    group = Group(3, pre_vote=False)
    group.elect(1)
    group.isolate(3)
    remove = raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=3)
    group[1].node.propose_conf_change(remove)
    group.stabilize(1, 2)
    group.tick(3, 50)
    group.process(3)
    group.mend()
    for _ in range(30):
        for id in (1, 2, 3):
            group.tick(id)
        group.stabilize()
    assert (group[1].raft.role, group[1].raft.term) == (LEADER, 2)
    assert group[3].raft.term > 2
