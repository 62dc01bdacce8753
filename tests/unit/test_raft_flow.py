"""Replication at work: probing, pipelining, windows, sizes, snapshots, lost messages."""

import pytest

from swarmd.api import raftpb
from swarmd.base.errors import InvariantViolation
from swarmd.cluster.raft import Role, new_conf_state, new_entry, new_snapshot
from swarmd.cluster.raft.messages import NORMAL
from tests.harness.raft_group import Group, incoming

APP, APP_RESP, SNAP = raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgSnap


def a_leader(count=2, **settings):
    group = Group(count, **settings)
    group.elect(1)
    return group


def appends(messages, to=2):
    return [[e.Index for e in m.entries] for m in messages if m.type == APP and m.to == to]


def progress(group, id=2):
    return group[1].node.status().progress[id]


def propose(group, count):
    for number in range(count):
        group[1].node.propose(b"%d" % number)


# -- sizes and windows -----------------------------------------------------------------------


def test_replicating_runs_ahead_of_acknowledgements():
    group = a_leader()
    propose(group, 3)
    assert appends(group.process(1)) == [[3], [4], [5]]
    assert (progress(group).next, progress(group).inflight) == (6, 3)
    group.stabilize()
    assert (progress(group).match, progress(group).inflight) == (5, 0)


def test_messages_are_cut_at_the_size_limit_but_never_empty():
    group = a_leader(size_per_message_max=20)
    group.isolate(2)
    for size in (2, 2, 2, 100, 2, 2):
        group[1].node.propose(b"." * size)
    group.process(1)
    group[1].node.report_unreachable(2)
    group.mend()
    group.tick(1)
    group.process(1)
    group.deliver(2)
    sent = []
    for _ in range(6):
        group.process(2)
        group.deliver(1)
        sent += appends(group.process(1))
        group.deliver(2)
    assert [indexes for indexes in sent if indexes] == [[3, 4], [5], [6], [7, 8]]
    group.stabilize()
    assert len(group[2].data) == 6


def test_a_full_window_stops_the_flow_and_acknowledgements_open_it():
    group = a_leader(inflight_messages_max=2)
    propose(group, 4)
    assert appends(group.process(1)) == [[3], [4]]
    assert progress(group).paused
    group.deliver(2)
    group.process(2)
    group.deliver(1, lambda m: m.index == 3)
    assert appends(group.process(1))[-1] == [5, 6]


def test_old_acknowledgements_do_not_open_a_window():
    group = a_leader(inflight_messages_max=2)
    propose(group, 4)
    group.process(1)
    group[1].node.step(incoming(APP_RESP, 2, 1, term=2, index=2))
    assert appends(group.process(1)) == []


def test_a_lost_window_is_found_by_heartbeats():
    group = a_leader(inflight_messages_max=2)
    propose(group, 4)
    group.process(1)
    group.drop(2)
    group.tick(1)
    group.stabilize()
    # The heartbeat answer lets one empty append out, which is refused: back to probing.
    assert len(group[2].data) == 4


def test_probing_sends_one_append_per_heartbeat_round():
    group = a_leader()
    group[1].node.report_unreachable(2)
    assert progress(group).state == "probe"
    propose(group, 3)
    assert appends(group.process(1)) == [[3]]
    group.drop(2)
    group.tick(1)
    group.process(1)
    group.deliver(2)
    group.process(2)
    group.deliver(1)
    assert appends(group.process(1)) == [[3, 4, 5]]


def test_an_acknowledged_probe_starts_the_pipeline():
    group = a_leader()
    group[1].node.report_unreachable(2)
    propose(group, 1)
    group.stabilize()
    assert progress(group).state == "replicate"


def test_unreachable_members_in_other_states_stay_as_they_are():
    group = a_leader()
    group[1].node.report_unreachable(2)
    group[1].node.report_unreachable(2)
    group[1].node.report_unreachable(99)
    group[2].node.report_unreachable(1)
    assert progress(group).state == "probe"


def test_doubled_and_late_messages_change_nothing():
    group = a_leader()
    propose(group, 3)
    first, second, third = group.process(1)
    for message in (third, second, first, first, third, second, third):
        group[2].node.step(message)
    group[2].process()
    group.stabilize()
    assert group[2].data == [b"0", b"1", b"2"]
    assert group[1].data == group[2].data


def test_stale_rejections_are_ignored():
    group = a_leader()
    propose(group, 3)
    group.stabilize()
    before = group[1].node.status()
    group[1].node.step(incoming(APP_RESP, 2, 1, term=2, index=3, reject=1, hint=2, log_term=2))
    assert group[1].node.status() == before


def test_a_late_commit_index_is_told_without_waiting_for_heartbeats():
    group = a_leader(3)
    group.isolate(3)
    propose(group, 1)
    group.stabilize()
    group.mend()
    group.tick(1)
    group.stabilize()
    assert group[3].raft.log.committed == group[1].raft.log.committed


def test_a_heartbeat_never_tells_more_than_the_member_holds():
    group = a_leader(3)
    group.isolate(3)
    propose(group, 3)
    group.stabilize()
    group.tick(1)
    commits = {m.to: m.commit for m in group.process(1) if m.type == raftpb.MsgHeartbeat}
    assert commits == {2: 5, 3: 2}


def test_a_member_that_lost_its_disk_stops_itself():
    """It acknowledged entries it no longer has; going on would break the log silently."""
    group = a_leader()
    empty = group.add(2, voters=[1, 2])
    with pytest.raises(InvariantViolation, match="beyond the last index"):
        empty.node.step(incoming(raftpb.MsgHeartbeat, 1, 2, term=2, commit=2))


# -- snapshots -------------------------------------------------------------------------------


def behind(group, id=3, keep=0):
    """Let `id` fall behind the leader's log."""
    group.isolate(id)
    propose(group, 5)
    group.stabilize()
    leader = group[1]
    applied = leader.raft.log.applied
    leader.storage.create_snapshot(applied, leader.node.conf_state(), b"state")
    leader.storage.compact(applied - keep)
    group.mend()
    return applied


def test_a_member_behind_the_log_gets_a_snapshot():
    group = a_leader(3)
    applied = behind(group)
    group.tick(1)
    group.stabilize()
    assert group[3].restored == [applied]
    assert group[3].storage.snapshot().data == b"state"
    assert progress(group, 3).state == "replicate"
    group[1].node.propose(b"after")
    group.stabilize()
    assert group[3].data == [b"after"]


def test_a_snapshot_is_followed_by_the_entries_kept():
    group = a_leader(3)
    behind(group, keep=2)
    propose(group, 2)
    group.tick(1)
    group.stabilize()
    assert len(group[3].restored) == 1
    assert group[3].raft.log.last_index() == group[1].raft.log.last_index()


def on_its_way(group):
    """Let a snapshot for member 3 leave the leader and keep it from arriving."""
    behind(group)
    group.tick(1)
    for _ in range(4):
        group.process(1)
        for message in group.inbox[3]:
            if message.type == SNAP:
                group.drop(3)
                return message
        group.deliver(3)
        group.process(3)
        group.deliver(1)
    raise AssertionError("no snapshot was sent")


def test_no_entries_while_a_snapshot_is_on_its_way():
    group = a_leader(3)
    on_its_way(group)
    assert progress(group, 3).state == "snapshot"
    group[1].node.propose(b"x")
    group.tick(1)
    assert {m.type for m in group.process(1) if m.to == 3} == {raftpb.MsgHeartbeat}


@pytest.mark.parametrize("ok", [True, False])
def test_the_outcome_of_a_snapshot_decides_where_to_probe(ok):
    group = a_leader(3)
    snapshot = on_its_way(group)
    if ok:
        group[3].node.step(snapshot)
        group.process(3)
        group.drop(1)
    group[1].node.report_snapshot(3, ok)
    found = progress(group, 3)
    assert (found.state, found.paused) == ("probe", True)
    assert found.next == (snapshot.snapshot.metadata.index + 1 if ok else found.match + 1)
    group.tick(1)
    group.stabilize()
    assert group[3].raft.log.last_index() == group[1].raft.log.last_index()


def test_reports_about_others_change_nothing():
    group = a_leader(3)
    before = group[1].node.status()
    for id in (2, 99):
        group[1].node.report_snapshot(id, False)
    group[2].node.report_snapshot(1, True)
    assert group[1].node.status() == before


def test_a_snapshot_is_not_sent_to_a_silent_member():
    group = a_leader(3)
    behind(group)
    group.isolate(3)
    for _ in range(20):
        group.tick(1)
        group.stabilize(1, 2)
    group[1].raft.progress[3].become_probe()
    group[1].node.propose(b"x")
    assert not [m for m in group.process(1) if m.type == SNAP]


def test_catching_up_without_the_snapshot_ends_the_wait():
    """Any acknowledgement that reaches the log again resumes replication."""
    group = a_leader(3)
    snapshot = on_its_way(group)
    index = snapshot.snapshot.metadata.index
    group[1].node.step(incoming(APP_RESP, 3, 1, term=2, index=index))
    assert progress(group, 3).state == "replicate"


def test_an_acknowledgement_below_the_log_does_not_end_the_wait():
    group = a_leader(3)
    snapshot = on_its_way(group)
    index = snapshot.snapshot.metadata.index
    group[1].node.step(incoming(APP_RESP, 3, 1, term=2, index=index - 1))
    assert progress(group, 3).state == "snapshot"


def a_snapshot_message(index, term, voters, learners=()):
    message = incoming(SNAP, 2, 1, term=1)
    message.snapshot.CopyFrom(new_snapshot(index, term, new_conf_state(voters, learners), b"s"))
    return message


def test_a_snapshot_replaces_log_and_members():
    peer = Group(3)[1]
    peer.node.step(a_snapshot_message(11, 7, (1, 2, 9)))
    ready = peer.node.ready()
    assert ready.snapshot.metadata.index == 11
    assert ready.must_sync
    assert ready.committed == ()
    assert ready.hard_state.commit == 11
    assert [(m.type, m.index, m.reject) for m in ready.messages] == [(APP_RESP, 11, False)]
    peer.storage.apply_snapshot(ready.snapshot)
    peer.node.advance()
    status = peer.node.status()
    assert (status.voters, status.applied, status.last_index) == ((1, 2, 9), 11, 11)
    assert peer.node.conf_state().voters == [1, 2, 9]


@pytest.mark.parametrize(
    "message",
    [
        a_snapshot_message(1, 1, (1, 2, 3)),
        a_snapshot_message(0, 0, ()),
        incoming(SNAP, 2, 1, term=1),
    ],
    ids=["old", "zero", "without"],
)
def test_useless_snapshots_are_answered_with_the_commit_index(message):
    peer = Group(3)[1]
    peer.node.step(message)
    ready = peer.node.ready()
    assert ready.snapshot is None
    assert [(m.type, m.index) for m in ready.messages] == [(APP_RESP, 1)]


def test_a_snapshot_older_than_ones_own_membership_is_taken():
    peer = Group(3)[1]
    peer.node.step(a_snapshot_message(11, 7, (2, 3)))
    ready = peer.node.ready()
    assert ready.snapshot.metadata.index == 11
    peer.storage.apply_snapshot(ready.snapshot)
    peer.node.advance()
    peer.node.campaign()
    assert not peer.node.has_ready(), "it stood without being a member"
    change = raftpb.ConfChange(type=raftpb.ConfChangeAddNode, node_id=1)
    assert peer.node.apply_conf_change(change).voters == [1, 2, 3]
    peer.node.campaign()
    assert peer.node.has_ready()


def test_a_joint_configuration_is_not_taken():
    message = a_snapshot_message(11, 7, (1, 2, 3))
    message.snapshot.metadata.conf_state.voters_outgoing.append(4)
    peer = Group(3)[1]
    peer.node.step(message)
    assert peer.node.ready().snapshot is None


def test_a_snapshot_of_what_the_log_holds_only_moves_the_commit_index():
    peer = Group(3)[1]
    append = incoming(APP, 2, 1, term=1, index=1, log_term=1, commit=1)
    for index in (2, 3, 4):
        append.entries.append(new_entry(NORMAL, 1, index, b"x"))
    peer.node.step(append)
    peer.process()
    peer.node.step(a_snapshot_message(3, 1, (1, 2, 3)))
    ready = peer.node.ready()
    assert ready.snapshot is None
    assert [e.Index for e in ready.committed] == [2, 3]
    assert peer.node.status().last_index == 4


def test_nobody_stands_while_a_snapshot_waits_to_be_restored():
    peer = Group(3)[1]
    peer.node.step(a_snapshot_message(11, 7, (1, 2, 3)))
    peer.node.campaign()
    assert peer.node.status().role is Role.FOLLOWER


def test_a_newer_snapshot_may_overtake_one_being_written():
    peer = Group(3)[1]
    peer.node.step(a_snapshot_message(11, 1, (1, 2, 3)))
    first = peer.node.ready()
    peer.node.step(a_snapshot_message(15, 1, (1, 2, 3)))
    peer.storage.apply_snapshot(first.snapshot)
    peer.node.advance()
    assert peer.node.status().applied == 11
    second = peer.node.ready()
    assert second.snapshot.metadata.index == 15
    peer.storage.apply_snapshot(second.snapshot)
    peer.node.advance()
    assert peer.node.status().applied == 15


def test_entries_may_follow_a_snapshot_being_written():
    peer = Group(3)[1]
    peer.node.step(a_snapshot_message(11, 1, (1, 2, 3)))
    first = peer.node.ready()
    append = incoming(APP, 2, 1, term=1, index=11, log_term=1, commit=12)
    append.entries.append(new_entry(NORMAL, 1, 12, b"x"))
    peer.node.step(append)
    peer.storage.apply_snapshot(first.snapshot)
    peer.node.advance()
    peer.process()
    assert [e.Index for e in peer.applied] == [12]


# -- leader changes --------------------------------------------------------------------------


def test_uncommitted_entries_of_a_lost_leader_are_replaced():
    group = a_leader(3)
    group.isolate(1)
    propose(group, 5)
    group.process(1)
    for id in (2, 3):
        group.tick(id, 10)
    group[2].node.campaign()
    group.stabilize(2, 3)
    group[2].node.propose(b"new")
    group.stabilize(2, 3)
    group.mend()
    group.tick(2)
    group.stabilize()
    assert group[1].data == group[3].data == [b"new"]
    assert group[1].raft.role is Role.FOLLOWER
    assert group[1].raft.log.last_index() == group[2].raft.log.last_index()


@pytest.mark.parametrize("hints", ["3.5", "3.3"])
def test_long_divergent_tails_are_skipped_term_by_term(hints):
    """A tail of 100 foreign entries costs a few probes with the hint's term, many without."""
    group = Group(2, pre_vote=False)
    log = group[2].raft.log
    log.append([new_entry(NORMAL, 1, index, b"") for index in range(2, 102)])
    group[2].raft.become_follower(1, 0)
    group.process()
    raft = group[1].raft
    raft.log.append([new_entry(NORMAL, 2, index, b"") for index in range(2, 102)])
    raft.become_follower(2, 0)
    group.process()
    group[1].node.campaign()
    rounds = 0
    while group[2].raft.log.term(101) != 2:
        group.process()
        if hints == "3.3":
            for message in group.inbox[1]:
                message.logTerm = 0
        group.deliver(2)
        group.deliver(1)
        rounds += 1
        assert rounds < 250
    assert (rounds < 15) is (hints == "3.5")
