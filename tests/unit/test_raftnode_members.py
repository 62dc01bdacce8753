"""The member list follows every committed change as far as it makes sense."""

from __future__ import annotations

from swarmd import api
from swarmd.api import raftpb
from swarmd.manager.raftnode.members import Members, raft_member

ADD, REMOVE, UPDATE = (
    raftpb.ConfChangeAddNode,
    raftpb.ConfChangeRemoveNode,
    raftpb.ConfChangeUpdateNode,
)


def change(kind: raftpb.ConfChangeType, raft_id: int, addr: str = "a:1") -> raftpb.ConfChange:
    member = raft_member(raft_id, f"n{raft_id}", addr)
    context = b"" if kind == REMOVE else member.SerializeToString()
    return raftpb.ConfChange(type=kind, node_id=raft_id, context=context)


def test_members_come_move_and_go() -> None:
    members = Members()
    assert members.apply(change(ADD, 2)) is None
    assert members.apply(change(ADD, 1)) is None
    assert [member.raft_id for member in members.all()] == [1, 2]
    assert members.apply(change(UPDATE, 2, "b:1")) is None
    found = members.of_node("n2")
    assert found is not None and found.addr == "b:1"
    assert members.apply(change(REMOVE, 2)) is None
    assert 2 not in members and members.is_removed(2) and members.get(2) is None
    assert members.of_node("n2") is None and len(members) == 1


def test_changes_that_make_no_sense_name_the_trouble_and_are_followed() -> None:
    members = Members()
    members.apply(change(ADD, 1))
    assert members.apply(change(ADD, 1, "c:1")) == "raft: node already exists"
    assert members.all()[0].addr == "c:1"
    assert members.apply(change(UPDATE, 9)) == "raft: node doesn't exist"
    assert 9 in members
    assert members.apply(change(REMOVE, 8)) == "raft: node doesn't exist"
    assert members.is_removed(8)
    assert members.apply(change(ADD, 8)) == "raft: can't add removed member"
    assert 8 not in members


def test_changes_that_cannot_be_read_change_nothing() -> None:
    members = Members()
    learner = raftpb.ConfChange(type=raftpb.ConfChangeAddLearnerNode, node_id=3)
    assert "not supported" in str(members.apply(learner))
    broken = raftpb.ConfChange(type=ADD, node_id=3, context=b"\xff\xff")
    assert "without a member" in str(members.apply(broken))
    other = raftpb.ConfChange(type=ADD, node_id=3, context=change(ADD, 4).context)
    assert "names two members" in str(members.apply(other))
    assert len(members) == 0


def test_a_snapshot_replaces_members_but_forgets_no_removal() -> None:
    members = Members()
    for raft_id in (1, 2, 3):
        members.apply(change(ADD, raft_id))
    members.apply(change(REMOVE, 3))
    saved = members.save()
    assert [member.raft_id for member in saved.members] == [1, 2]
    assert list(saved.removed) == [3]
    other = api.ClusterSnapshot(members=[raft_member(1, "n1", "a:1"), raft_member(5, "n5", "e:1")])
    other.removed.append(2)
    members.restore(other)
    assert [member.raft_id for member in members.all()] == [1, 5]
    assert members.is_removed(2) and members.is_removed(3)


def test_a_member_is_marshalled_as_stock_does() -> None:
    raw = raft_member(1, "n", "a:1").SerializeToString()
    assert raw == b'\x08\x01\x12\x01n\x1a\x03a:1"\x00', "with the empty status"
