"""The contract of `RawNode` with its driver: what a `Ready` holds, when, and what advance does."""

import pytest

from swarmd.api import raftpb
from swarmd.base.errors import InvalidArgument, InvariantViolation
from swarmd.cluster.raft import (
    ConfChangeInFlight,
    Config,
    MemoryStorage,
    ProposalDropped,
    RawNode,
    Role,
    Timing,
    new_conf_state,
    new_entry,
    new_hard_state,
    new_snapshot,
)
from swarmd.cluster.raft.messages import NORMAL
from tests.harness.raft_group import Group, Peer, incoming


def a_sole_leader(**settings):
    group = Group(1, **settings)
    group.elect(1)
    return group[1]


def step_by_step(peer):
    """Process everything; the `Ready` values in order."""
    peer.readies.clear()
    while peer.node.has_ready():
        peer.process()
    return peer.readies


# -- founding, joining, restarting -----------------------------------------------------------


def founded(context=b"member"):
    peer = Peer(Config(id=7), MemoryStorage(), [])
    peer.node.bootstrap([(7, context)])
    return peer


def test_founder_writes_its_own_addition_first():
    peer = founded()
    (ready,) = step_by_step(peer)
    (entry,) = ready.entries
    assert (entry.Type, entry.Term, entry.Index) == (raftpb.EntryConfChange, 1, 1)
    change = raftpb.ConfChange.FromString(entry.Data)
    assert (change.type, change.node_id, change.context) == (0, 7, b"member")
    assert ready.committed == ready.entries
    assert ready.must_sync
    assert ready.hard_state == new_hard_state(1, 0, 1)
    peer.node.campaign()
    step_by_step(peer)
    status = peer.node.status()
    assert (status.role, status.term, status.commit) == (Role.LEADER, 2, 2)
    # The no-op of term 2 has no data field at all.
    assert not peer.applied[1].HasField("Data")


def test_founder_cannot_stand_before_its_addition_is_applied():
    peer = founded()
    peer.node.campaign()
    assert peer.node.status().role is Role.FOLLOWER


@pytest.mark.parametrize("peers", [[], None])
def test_founding_needs_an_empty_log_and_members(peers):
    peer = founded()
    if peers is None:
        step_by_step(peer)
        peers = [(7, b"")]
    else:
        peer = Peer(Config(id=7), MemoryStorage(), [])
    with pytest.raises(InvalidArgument):
        peer.node.bootstrap(peers)


def test_joiner_starts_knowing_nobody_and_learns_from_the_log():
    group = Group(1)
    leader = group.elect(1)
    joiner = group.add(2)
    for _ in range(50):
        joiner.node.tick()
    assert not joiner.node.has_ready()
    assert joiner.node.status().voters == ()
    leader.node.propose_conf_change(raftpb.ConfChange(type=raftpb.ConfChangeAddNode, node_id=2))
    group.stabilize()
    # The log begins with a snapshot the joiner is not in; the entry that adds it follows.
    assert joiner.restored == [leader.storage.snapshot().metadata.index]
    assert joiner.node.status().voters == (1, 2)
    leader.node.propose(b"x")
    group.stabilize()
    assert joiner.data == [b"x"]


def test_joiner_of_a_complete_log_replays_configuration_changes():
    group = Group(0)
    first = group.add(5)
    first.node.bootstrap([(5, b"")])
    group.stabilize()
    group.elect(5)
    joiner = group.add(3)
    first.node.propose_conf_change(raftpb.ConfChange(type=raftpb.ConfChangeAddNode, node_id=3))
    group.stabilize()
    assert joiner.node.status().voters == (3, 5)
    assert joiner.node.status().leader == 5
    assert [e.Index for e in joiner.applied] == [1, 2, 3]


def test_restart_hands_out_what_was_not_applied():
    storage = MemoryStorage()
    storage.apply_snapshot(new_snapshot(4, 2, new_conf_state((1, 2)), b""))
    storage.append([new_entry(NORMAL, 2, i, b"x") for i in (5, 6, 7)])
    storage.set_hard_state(new_hard_state(3, 2, 6))
    peer = Peer(Config(id=1, applied=5), storage, [])
    (ready,) = step_by_step(peer)
    assert [e.Index for e in ready.committed] == [6]
    assert ready.entries == ()
    assert ready.hard_state is None
    assert not ready.must_sync
    status = peer.node.status()
    assert (status.term, status.vote, status.commit, status.last_index) == (3, 2, 6, 7)


def test_restart_refuses_a_commit_index_beyond_the_log():
    storage = MemoryStorage()
    storage.set_hard_state(new_hard_state(3, 2, 6))
    with pytest.raises(InvariantViolation, match="commit 6 is beyond the last index 0"):
        RawNode(Config(id=1), storage)


def test_restart_with_a_snapshot_newer_than_the_hard_state():
    storage = MemoryStorage()
    storage.set_hard_state(new_hard_state(3, 2, 4))
    storage.apply_snapshot(new_snapshot(9, 5, new_conf_state((1, 2)), b""))
    status = RawNode(Config(id=1), storage).status()
    assert (status.commit, status.term, status.vote) == (9, 5, 0)


# -- one fsync per write ---------------------------------------------------------------------


def test_sole_member_commits_in_the_ready_after_the_write_without_another_sync():
    peer = a_sole_leader()
    peer.node.propose(b"one")
    peer.node.propose(b"two")
    first, second = step_by_step(peer)
    assert [e.Data for e in first.entries] == [b"one", b"two"]
    assert first.committed == ()
    assert first.must_sync
    assert second.entries == ()
    assert second.committed == first.entries
    assert not second.must_sync
    assert second.hard_state.commit == second.committed[-1].Index


def test_an_applied_configuration_is_synced():
    peer = a_sole_leader()
    peer.node.propose_conf_change(raftpb.ConfChange(type=raftpb.ConfChangeAddNode, node_id=2))
    second = step_by_step(peer)[1]
    assert [e.Type for e in second.committed] == [raftpb.EntryConfChange]
    assert second.must_sync
    assert second.hard_state.commit >= second.committed[-1].Index


def test_proposals_between_ready_and_advance_go_into_the_next_ready():
    peer = a_sole_leader()
    peer.node.propose(b"one")
    ready = peer.node.ready()
    peer.node.propose(b"two")
    peer.storage.append(ready.entries)
    peer.node.advance()
    ready = peer.node.ready()
    assert [e.Data for e in ready.entries] == [b"two"]
    assert [e.Data for e in ready.committed] == [b"one"]


def test_committed_entries_are_handed_out_in_bounded_batches():
    peer = a_sole_leader(committed_size_max=1)
    for data in (b"a", b"b", b"c"):
        peer.node.propose(data)
    readies = step_by_step(peer)
    assert [[e.Data for e in r.committed] for r in readies] == [[], [b"a"], [b"b"], [b"c"]]


def test_ready_twice_and_advance_alone_are_bugs():
    peer = a_sole_leader()
    with pytest.raises(InvariantViolation):
        peer.node.advance()
    peer.node.propose(b"x")
    peer.node.ready()
    with pytest.raises(InvariantViolation):
        peer.node.ready()


def test_nothing_to_do_says_so():
    peer = a_sole_leader()
    assert not peer.node.has_ready()
    peer.node.tick()
    assert not peer.node.has_ready()


def test_soft_state_is_told_on_change_only():
    group = Group(1)
    group.elect(1)
    states = [r.soft_state for r in group[1].readies if r.soft_state is not None]
    assert [(s.leader, s.role) for s in states] == [
        (0, Role.PRE_CANDIDATE),
        (0, Role.CANDIDATE),
        (1, Role.LEADER),
    ]


# -- writes overtaken by a new leader --------------------------------------------------------


def append_from(leader, term, index, log_term, *terms, commit=0):
    message = incoming(
        raftpb.MsgApp, leader, 1, term=term, index=index, log_term=log_term, commit=commit
    )
    for offset, entry_term in enumerate(terms):
        message.entries.append(new_entry(NORMAL, entry_term, index + 1 + offset, b"%d" % leader))
    return message


def test_a_write_that_was_replaced_meanwhile_is_not_taken_for_durable():
    peer = Group(3)[1]
    peer.node.step(append_from(2, 2, 1, 1, 2, 2))
    first = peer.node.ready()
    assert [e.Index for e in first.entries] == [2, 3]
    # While the driver writes, a new leader replaces index 2 and 3.
    peer.node.step(append_from(3, 3, 1, 1, 3))
    peer.storage.append(first.entries)
    peer.storage.set_hard_state(first.hard_state)
    peer.node.advance()
    second = peer.node.ready()
    assert [(e.Index, e.Term) for e in second.entries] == [(2, 3)]
    assert [(m.index, m.term) for m in second.messages] == [(2, 3)]
    peer.storage.append(second.entries)
    peer.node.advance()
    assert peer.storage.last_index() == 2
    assert peer.raft.log.unstable.entries == []


def test_a_tail_that_came_back_needs_its_own_write():
    """Written, replaced, and replaced by the same again: only the last write counts."""
    peer = Group(3)[1]
    peer.node.step(append_from(2, 2, 1, 1, 2))
    first = peer.node.ready()
    peer.node.step(append_from(3, 3, 1, 1, 3))
    peer.node.step(append_from(2, 4, 1, 1, 2))
    peer.storage.append(first.entries)
    peer.node.advance()
    assert [(e.Index, e.Term) for e in peer.raft.log.unstable.entries] == [(2, 2)]
    second = peer.node.ready()
    assert [(e.Index, e.Term) for e in second.entries] == [(2, 2)]
    peer.storage.append(second.entries)
    peer.node.advance()
    assert peer.raft.log.unstable.entries == []


def test_own_vote_of_a_lost_term_does_not_count():
    group = Group(3, pre_vote=False)
    peer = group[1]
    peer.node.campaign()
    peer.node.ready()
    peer.node.step(append_from(2, 5, 1, 1))
    peer.node.advance()
    assert peer.node.status().role is Role.FOLLOWER
    assert peer.raft.votes == {}


# -- proposals -------------------------------------------------------------------------------


def test_only_a_leader_takes_proposals():
    group = Group(3)
    for call in (
        lambda: group[2].node.propose(b"x"),
        lambda: group[2].node.propose_conf_change(raftpb.ConfChange(node_id=9)),
    ):
        with pytest.raises(ProposalDropped):
            call()
    group.elect(1)
    with pytest.raises(ProposalDropped):
        group[2].node.propose(b"x")
    assert not group[2].node.has_ready()


def test_one_configuration_change_at_a_time():
    peer = a_sole_leader()
    update = raftpb.ConfChange(type=raftpb.ConfChangeUpdateNode, node_id=1, context=b"addr")
    peer.node.propose_conf_change(update)
    last = peer.node.status().last_index
    with pytest.raises(ConfChangeInFlight):
        peer.node.propose_conf_change(update)
    assert peer.node.status().last_index == last
    step_by_step(peer)
    peer.node.propose_conf_change(update)


def test_a_new_leader_applies_its_whole_log_before_it_changes_members():
    group = Group(1)
    peer = group[1]
    peer.node.campaign()
    while peer.node.status().role is not Role.LEADER:
        peer.process()
    # The no-op is not even written yet, but everything before it is applied.
    peer.node.propose_conf_change(raftpb.ConfChange(type=raftpb.ConfChangeAddNode, node_id=2))
    assert peer.node.status().pending_conf_index == peer.node.status().last_index


def test_removing_the_last_voter_is_refused():
    peer = a_sole_leader()
    remove = raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=1)
    with pytest.raises(InvalidArgument):
        peer.node.propose_conf_change(remove)
    with pytest.raises(InvariantViolation):
        peer.node.apply_conf_change(remove)


# -- what may come in ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        raftpb.MsgHup,
        raftpb.MsgBeat,
        raftpb.MsgProp,
        raftpb.MsgUnreachable,
        raftpb.MsgSnapStatus,
        raftpb.MsgCheckQuorum,
        raftpb.MsgStorageAppend,
        raftpb.MsgStorageAppendResp,
        raftpb.MsgStorageApply,
        raftpb.MsgStorageApplyResp,
        raftpb.MsgForgetLeader,
    ],
)
@pytest.mark.parametrize("term", [0, 2, 9])
def test_kinds_that_never_travel_are_ignored(kind, term):
    group = Group(3)
    group.elect(1)
    for id in (1, 2):
        before = group[id].node.status()
        message = incoming(kind, 3, id, term=term)
        message.entries.append(new_entry(NORMAL, 1, 1, b"x"))
        group[id].node.step(message)
        assert group[id].node.status() == before
        assert not group[id].node.has_ready()


@pytest.mark.parametrize(
    "kind",
    [raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgHeartbeatResp, raftpb.MsgPreVoteResp],
)
def test_answers_of_strangers_are_ignored(kind):
    group = Group(3)
    group.elect(1)
    before = group[1].node.status()
    group[1].node.step(incoming(kind, 99, 1, term=50))
    assert group[1].node.status() == before


def test_messages_without_a_term_are_ignored():
    group = Group(3)
    before = group[1].node.status()
    for kind in (raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap, raftpb.MsgVote):
        group[1].node.step(incoming(kind, 2, 1))
    assert group[1].node.status() == before


def test_an_impossible_acknowledgement_is_ignored():
    group = Group(3)
    group.elect(1)
    before = group[1].node.status()
    group[1].node.step(incoming(raftpb.MsgAppResp, 2, 1, term=before.term, index=1000))
    assert group[1].node.status() == before


# -- wire ------------------------------------------------------------------------------------

ALWAYS = [
    "type",
    "to",
    "from",
    "term",
    "logTerm",
    "index",
    "commit",
    "reject",
    "rejectHint",
    "vote",
]


def test_every_message_has_every_scalar_and_no_empty_extras():
    """Stock managers write proto2 scalars even when zero (messages.tsv, 'always present')."""
    group = Group(3)
    sent = []
    post = group.post

    def record(messages):
        sent.extend(messages)
        post(messages)

    group.post = record
    group.elect(1)
    group[1].node.propose(b"x")
    group[2].node.read_index(b"r")
    group.stabilize()
    group.tick(1)
    group.stabilize()
    group[1].storage.create_snapshot(3, new_conf_state((1, 2, 3)), b"state")
    group[1].storage.compact(3)
    group[1].raft.progress[3].become_probe()
    group[1].raft.progress[3].next = 2
    group[1].node.propose(b"y")
    group.stabilize()
    group[2].node.transfer_leadership(2)
    group.stabilize()
    kinds = {m.type for m in sent}
    assert kinds >= {3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 18}
    for message in sent:
        assert [name for name in ALWAYS if not message.HasField(name)] == [], message
        assert message.HasField("snapshot") == (message.type == raftpb.MsgSnap)
        assert not message.HasField("context") or message.context
        for entry in message.entries:
            for name in ("Type", "Term", "Index"):
                assert entry.HasField(name)
            assert not entry.HasField("Data") or entry.Data


def test_hard_states_have_every_scalar():
    peer = founded()
    states = [r.hard_state for r in step_by_step(peer) if r.hard_state is not None]
    assert states
    for state in states:
        assert all(state.HasField(name) for name in ("term", "vote", "commit"))


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"id": 0},
        {"id": 1, "election_ticks": 1},
        {"id": 1, "heartbeat_ticks": 0},
        {"id": 1, "election_ticks": 5, "heartbeat_ticks": 5},
        {"id": 1, "inflight_messages_max": 0},
    ],
)
def test_impossible_settings(settings):
    with pytest.raises(InvalidArgument):
        Config(**settings)


def test_timers_change_at_run_time():
    group = Group(3)
    peer = group[1]
    with pytest.raises(InvalidArgument):
        peer.node.set_timers(Timing(3, 3))
    peer.node.set_timers(Timing(3, 1))
    assert (peer.node.status().election_ticks, peer.node.status().heartbeat_ticks) == (3, 1)
    assert 3 <= peer.raft.randomized_ticks < 6
    for _ in range(6):
        peer.node.tick()
    assert peer.node.status().role is Role.PRE_CANDIDATE
    group.stabilize()
    assert peer.node.status().role is Role.LEADER
    peer.node.set_timers(Timing(10, 2))
    group.tick(1)
    assert group.process() == []
    group.tick(1)
    assert {m.type for m in group.process()} == {raftpb.MsgHeartbeat}


@pytest.mark.parametrize(
    "wait", [{"stand_ticks": (9, 12)}, {"stand_ticks": (12, 11)}, {"retry_ticks": (0, 3)}]
)
def test_impossible_waits(wait):
    peer = Group(3)[1]
    with pytest.raises(InvalidArgument, match="no wait of"):
        peer.node.set_timers(Timing(10, 1, **wait))
    assert peer.node.status().election_ticks == 10


def test_who_stands_waits_within_its_bounds_and_asks_again_soon_but_once():
    """Many members whose requests nobody answers; when each asks, in ticks since it last did."""
    group = Group(60)
    waits = [set(), set(), set()]
    for id, peer in group.peers.items():
        peer.node.set_timers(Timing(10, 1, (11, 14), (3, 6)))
        asked = [0]
        for count in range(1, 40):
            group.tick(id)
            if any(message.type == raftpb.MsgPreVote for message in group.process(id)):
                asked.append(count)
        for number, drawn in enumerate(waits):
            drawn.add(asked[number + 1] - asked[number])
    assert waits == [{11, 12, 13, 14}, {3, 4, 5, 6}, {11, 12, 13, 14}]


def test_a_leader_in_between_lets_a_member_ask_again_soon():
    group = Group(3)
    peer = group[1]
    peer.node.set_timers(Timing(10, 1, (11, 11), (3, 3)))
    for leads in (False, True):
        if leads:
            group.elect(2)
        group.cut = {(1, 2), (1, 3)}
        group.tick(1, 11)
        group.process(1)
        assert peer.raft.role is Role.PRE_CANDIDATE
        assert peer.raft.randomized_ticks == 3
        group.tick(1, 3)
        group.process(1)
        assert peer.raft.randomized_ticks == 11
        group.cut = set()


def test_shorter_timers_do_not_act_at_once():
    group = Group(3)
    group.tick(1, 8)
    group[1].node.set_timers(Timing(4, 1))
    assert group[1].raft.election_elapsed == 3
    assert group[1].node.status().role is Role.FOLLOWER


def test_same_seed_same_run():
    def run():
        group = Group(3)
        sent = []
        for round_ in range(60):
            for id in (1, 2, 3):
                group.tick(id)
                sent.extend(m.SerializeToString() for m in group.process(id))
                if round_ % 3:
                    group.deliver(id)
        return sent

    first = run()
    assert len(first) > 100
    assert run() == first
