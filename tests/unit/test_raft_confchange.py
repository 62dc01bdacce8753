"""Configuration maths, and reads waiting for a quorum."""

import pytest

from swarmd.api import raftpb
from swarmd.base.errors import InvalidArgument
from swarmd.cluster.raft.confchange import Membership, change, restore, track
from swarmd.cluster.raft.jitter import Jitter
from swarmd.cluster.raft.messages import encode_conf_change, new_conf_state
from swarmd.cluster.raft.readindex import PendingRead, ReadOnly

ADD, REMOVE = raftpb.ConfChangeAddNode, raftpb.ConfChangeRemoveNode
UPDATE, LEARN = raftpb.ConfChangeUpdateNode, raftpb.ConfChangeAddLearnerNode


def wanted(kind, id):
    return raftpb.ConfChange(id=1, type=kind, node_id=id)


@pytest.mark.parametrize(
    ("start", "kind", "id", "voters", "learners"),
    [
        (((), ()), ADD, 5, (5,), ()),
        (((1, 9), ()), ADD, 5, (1, 5, 9), ()),
        (((1, 2), ()), ADD, 2, (1, 2), ()),
        (((1, 2), (3,)), ADD, 3, (1, 2, 3), ()),
        (((1, 2), ()), REMOVE, 2, (1,), ()),
        (((1, 2), ()), REMOVE, 7, (1, 2), ()),
        (((1, 2), (3,)), REMOVE, 3, (1, 2), ()),
        (((1, 2), ()), UPDATE, 2, (1, 2), ()),
        (((1, 2), ()), UPDATE, 7, (1, 2), ()),
        (((1, 2), ()), LEARN, 3, (1, 2), (3,)),
        (((1, 2), ()), LEARN, 2, (1,), (2,)),
        (((1, 2), ()), REMOVE, 0, (1, 2), ()),
        (((1, 2), ()), ADD, 0, (1, 2), ()),
    ],
)
def test_change(start, kind, id, voters, learners):
    assert change(Membership(*start), wanted(kind, id)) == Membership(voters, learners)


@pytest.mark.parametrize("kind", [REMOVE, LEARN])
def test_the_last_voter_stays(kind):
    with pytest.raises(InvalidArgument, match="last voter"):
        change(Membership((4,)), wanted(kind, 4))


def test_restore_and_back():
    membership = restore(new_conf_state((3, 1, 2, 1), (7, 5)))
    assert membership == Membership((1, 2, 3), (5, 7))
    state = membership.conf_state()
    assert restore(state) == membership
    assert state.HasField("auto_leave")
    assert 5 in membership
    assert 4 not in membership


@pytest.mark.parametrize(
    "state",
    [
        raftpb.ConfState(voters=[1], voters_outgoing=[2]),
        raftpb.ConfState(voters=[1], learners_next=[2]),
        raftpb.ConfState(voters=[1], auto_leave=True),
        raftpb.ConfState(voters=[1], learners=[1]),
        raftpb.ConfState(voters=[0]),
    ],
)
def test_restore_refuses(state):
    with pytest.raises(InvalidArgument):
        restore(state)


def test_track_keeps_what_is_known():
    before = track(Membership((1, 2)), {}, 0, 8)
    assert [before[id].next for id in (1, 2)] == [1, 1]
    after = track(Membership((2, 3), (1,)), before, 50, 8)
    assert list(after) == [1, 2, 3]
    assert after[2] is before[2]
    assert after[1].is_learner
    assert (after[3].next, after[3].recent_active, after[3].is_learner) == (50, True, False)


def test_encoded_change_has_every_scalar():
    data = encode_conf_change(raftpb.ConfChange(node_id=5))
    assert data == b"\x08\x00\x10\x00\x18\x05"
    data = encode_conf_change(raftpb.ConfChange(id=2, type=REMOVE, node_id=5, context=b"c"))
    assert data == b"\x08\x02\x10\x01\x18\x05\x22\x01c"


# -- reads -----------------------------------------------------------------------------------


def test_reads_are_confirmed_in_order_by_a_majority():
    reads = ReadOnly()
    assert reads.heartbeat_context() == b""
    first, second = PendingRead(1, b"same", 5), PendingRead(2, b"same", 6)
    reads.add(first)
    context = reads.heartbeat_context()
    reads.acknowledge(1, context)
    assert reads.confirmed((1, 2, 3)) == []
    reads.add(second)
    reads.acknowledge(2, context)
    assert reads.confirmed((1, 2, 3)) == [first]
    assert reads.confirmed((1, 2, 3)) == []
    later = reads.heartbeat_context()
    assert later != context
    reads.acknowledge(3, later)
    reads.acknowledge(3, context)
    reads.acknowledge(1, later)
    assert reads.confirmed((1, 2, 3)) == [second]
    assert len(reads) == 0
    assert reads.heartbeat_context() == b""


def test_strangers_and_odd_contexts_confirm_nothing():
    reads = ReadOnly()
    reads.add(PendingRead(1, b"x", 5))
    context = reads.heartbeat_context()
    for id in (1, 8, 9):
        reads.acknowledge(id, context)
    reads.acknowledge(2, b"odd")
    assert reads.confirmed((1, 2, 3)) == []


def test_an_absurd_position_confirms_only_what_waits():
    reads = ReadOnly()
    read = PendingRead(1, b"x", 5)
    reads.add(read)
    for id in (1, 2):
        reads.acknowledge(id, b"\xff" * 8)
    assert reads.confirmed((1, 2, 3)) == [read]
    assert reads.confirmed((1, 2, 3)) == []


# -- jitter ----------------------------------------------------------------------------------


def test_jitter_is_reproducible_and_differs_by_member_and_seed():
    def row(seed, id):
        jitter = Jitter(seed, id)
        return [jitter.below(1000) for _ in range(20)]

    assert row(0, 1) == row(0, 1)
    assert len({tuple(row(seed, id)) for seed in range(4) for id in range(1, 6)}) == 20


def test_jitter_covers_the_range_evenly():
    jitter = Jitter(1, 1)
    counts = [0] * 10
    for _ in range(10_000):
        counts[jitter.below(10)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150
