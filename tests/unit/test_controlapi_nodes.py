"""Nodes: filters, manager status, demotion under quorum, removal (BEHAVIOUR 4.4)."""

from __future__ import annotations

import pytest

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.base.timestamps import seconds
from swarmd.cluster.ca import WORKER, Subject, new_key_and_csr, root_from_api, sign
from tests.harness.controlroom import PEER, FakeMember, Room, a_cluster, a_node, told

STATE = api.NodeStatus.State
ROLE = api.NodeRole


def demotion(room: Room, id: str) -> api.UpdateNodeRequest:
    node = room.there(api.Node, id)
    message = api.UpdateNodeRequest(node_id=id, node_version=node.meta.version, spec=node.spec)
    message.spec.desired_role = ROLE.WORKER
    return message


async def refused_update(room: Room, message: api.UpdateNodeRequest) -> tuple[str, str]:
    with pytest.raises(SwarmError) as caught:
        await room.control.update_node(message, PEER)
    return told(caught.value)


async def refused_removal(room: Room, id: str, force: bool = False) -> tuple[str, str]:
    before = room.committer.index
    with pytest.raises(SwarmError) as caught:
        await room.control.remove_node(api.RemoveNodeRequest(node_id=id, force=force), PEER)
    assert room.committer.index == before
    return told(caught.value)


async def test_manager_status_comes_from_the_member_list_and_is_not_stored() -> None:
    room = Room()
    a_node(room, "m1", manager=True)
    a_node(room, "w1")
    room.membership.listed = [
        FakeMember(1, "m1", "10.0.0.1:2377", leader=True),
        FakeMember(2, "gone", reachable=False),
    ]
    reply = await room.control.get_node(api.GetNodeRequest(node_id="m1"), PEER)
    status = reply.node.manager_status
    reachable = api.RaftMemberStatus.Reachability.REACHABLE
    assert (status.raft_id, status.addr, status.leader) == (1, "10.0.0.1:2377", True)
    assert status.reachability == reachable
    listed = (await room.control.list_nodes(api.ListNodesRequest(), PEER)).nodes
    assert [node.HasField("manager_status") for node in listed] == [True, False]
    assert not room.there(api.Node, "m1").HasField("manager_status")
    room.membership.listed = [FakeMember(1, "m1", reachable=False)]
    reply = await room.control.get_node(api.GetNodeRequest(node_id="m1"), PEER)
    unreachable = api.RaftMemberStatus.Reachability.UNREACHABLE
    assert reply.node.manager_status.reachability == unreachable


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "a1 a2 b1 mute"),
        ({"names": ["alpha", "zeta"]}, "a1"),
        ({"names": ["Alpha"]}, ""),
        ({"name_prefixes": ["al"]}, "a1 a2"),
        ({"name_prefixes": [""]}, "a1 a2 b1"),
        ({"id_prefixes": ["a"]}, "a1 a2"),
        ({"id_prefixes": ["a1", "m"]}, "a1 mute"),
        ({"node_labels": {"zone": ""}}, "a1 b1"),
        ({"node_labels": {"zone": "west"}}, "b1"),
        ({"labels": {"disk": "ssd"}}, "a2"),
        ({"labels": {"zone": "west"}}, ""),
        ({"roles": [ROLE.MANAGER]}, "a1"),
        ({"roles": [ROLE.MANAGER, ROLE.WORKER]}, "a1 a2 b1 mute"),
        ({"memberships": [api.NodeSpec.Membership.PENDING]}, ""),
        ({"memberships": [api.NodeSpec.Membership.ACCEPTED]}, "a1 a2 b1 mute"),
        ({"name_prefixes": ["al"], "roles": [ROLE.WORKER]}, "a2"),
    ],
)
async def test_list_filters(filters: dict[str, object], found: str) -> None:
    room = Room()
    a_node(room, "a1", manager=True, hostname="alpha", labels={"zone": "east"})
    node = a_node(room, "a2", hostname="alps")
    changed = api.Node()
    changed.CopyFrom(node)
    changed.description.engine.labels["disk"] = "ssd"
    room.committer.now(lambda tx: tx.update(changed))
    a_node(room, "b1", hostname="beta", labels={"zone": "west"})
    a_node(room, "mute")
    message = api.ListNodesRequest(filters=api.ListNodesRequest.Filters(**filters))
    reply = await room.control.list_nodes(message, PEER)
    assert " ".join(node.id for node in reply.nodes) == found


async def test_get_refusals() -> None:
    room = Room()
    for id, answer in (
        ("", ("INVALID_ARGUMENT", "invalid argument")),
        ("x", ("NOT_FOUND", "node x not found")),
    ):
        with pytest.raises(SwarmError) as caught:
            await room.control.get_node(api.GetNodeRequest(node_id=id), PEER)
        assert told(caught.value) == answer


async def test_update_replaces_the_spec_only() -> None:
    room = Room()
    node = a_node(room, "w1", hostname="alpha", labels={"old": "1"})
    message = api.UpdateNodeRequest(node_id="w1", node_version=node.meta.version)
    message.spec.annotations.labels["new"] = "2"
    message.spec.availability = api.NodeSpec.Availability.DRAIN
    reply = await room.control.update_node(message, PEER)
    stored = room.there(api.Node, "w1")
    assert reply.node == stored
    assert stored.spec == message.spec
    assert stored.description == node.description
    assert stored.meta.version.index > node.meta.version.index


async def test_update_refusals() -> None:
    room = Room()
    a_node(room, "w1")
    for field in ("node_id", "node_version", "spec"):
        message = demotion(room, "w1")
        message.ClearField(field)
        assert await refused_update(room, message) == ("INVALID_ARGUMENT", "invalid argument")
    message = demotion(room, "w1")
    message.node_version.index += 5
    assert await refused_update(room, message) == ("UNKNOWN", "update out of sequence")
    message.node_id = "nobody"
    assert await refused_update(room, message) == ("NOT_FOUND", "node nobody not found")


async def test_the_last_manager_stays() -> None:
    room = Room()
    a_node(room, "m1", manager=True)
    room.membership.listed = [FakeMember(1, "m1", leader=True)]
    assert await refused_update(room, demotion(room, "m1")) == (
        "FAILED_PRECONDITION",
        "attempting to demote the last manager of the swarm",
    )


async def test_a_manager_outside_raft_cannot_be_demoted() -> None:
    room = Room()
    a_node(room, "m1", manager=True)
    a_node(room, "m2", manager=True)
    room.membership.listed = [FakeMember(1, "m1", leader=True)]
    assert await refused_update(room, demotion(room, "m2")) == (
        "NOT_FOUND",
        "can't find manager in raft memberlist",
    )


@pytest.mark.parametrize(
    ("reachable", "who", "allowed"),
    [
        ("11", 2, True),
        ("10", 2, True),  # the dead one of two: the other still is a majority of one
        ("10", 1, False),
        ("111", 2, True),
        ("110", 3, True),
        ("110", 2, False),
        ("0111", 2, True),  # this member counts itself as reachable, whatever the list says
        ("11100", 3, False),
        ("11100", 5, True),
        ("11110", 2, True),
    ],
)
async def test_demotion_needs_a_reachable_majority_of_the_rest(
    reachable: str, who: int, allowed: bool
) -> None:
    room = Room()
    room.membership.listed = [
        FakeMember(number, f"m{number}", reachable=mark == "1")
        for number, mark in enumerate(reachable, 1)
    ]
    for member in room.membership.listed:
        a_node(room, member.node_id, manager=True)
    message = demotion(room, f"m{who}")
    if allowed:
        reply = await room.control.update_node(message, PEER)
        assert reply.node.spec.desired_role == ROLE.WORKER
        assert reply.node.role == ROLE.MANAGER
        return
    assert await refused_update(room, message) == (
        "FAILED_PRECONDITION",
        "can't remove member from the raft: this would result in a loss of quorum",
    )


async def test_promotion_is_always_accepted() -> None:
    room = Room()
    node = a_node(room, "w1")
    message = api.UpdateNodeRequest(node_id="w1", node_version=node.meta.version, spec=node.spec)
    message.spec.desired_role = ROLE.MANAGER
    reply = await room.control.update_node(message, PEER)
    assert reply.node.spec.desired_role == ROLE.MANAGER and reply.node.role == ROLE.WORKER


async def test_removal_refusals() -> None:
    room = Room()
    a_cluster(room)
    a_node(room, "m1", manager=True, state=STATE.DOWN)
    a_node(room, "w1")
    room.membership.listed = [FakeMember(1, "m1")]
    assert await refused_removal(room, "") == ("INVALID_ARGUMENT", "invalid argument")
    assert await refused_removal(room, "x") == ("NOT_FOUND", "node x not found")
    for force in (False, True):
        assert await refused_removal(room, "m1", force) == (
            "FAILED_PRECONDITION",
            "node m1 is a cluster manager and is a member of the raft cluster. It must be demoted "
            "to worker before removal",
        )
    assert await refused_removal(room, "w1") == (
        "FAILED_PRECONDITION",
        "node w1 is not down and can't be removed",
    )


async def test_removal_without_a_cluster_object_is_internal() -> None:
    room = Room()
    a_node(room, "w1", state=STATE.DOWN)
    assert await refused_removal(room, "w1") == ("INTERNAL", "could not fetch cluster object")


@pytest.mark.parametrize(
    ("state", "force"),
    [
        (STATE.DOWN, False),
        (STATE.UNKNOWN, False),
        (STATE.DISCONNECTED, False),
        (STATE.READY, True),
    ],
)
async def test_removal_blacklists_and_orphans_in_one_entry(state: int, force: bool) -> None:
    room = Room()
    cluster = a_cluster(room)
    a_node(room, "w1", state=state)
    _, csr = new_key_and_csr()
    expiry, now = 7200.0, room.clock.now()
    subject = Subject("w1", "cluster1", (WORKER,))
    root = root_from_api(cluster.root_ca, now)
    node = api.Node()
    node.CopyFrom(room.there(api.Node, "w1"))
    node.certificate.certificate = sign(
        root, csr, subject, now=now, entropy=room.entropy, expiry=expiry
    )
    room.committer.now(lambda tx: tx.update(node))
    task_state = api.TaskState
    kept = (task_state.COMPLETE, task_state.FAILED, task_state.SHUTDOWN)
    for value in (task_state.NEW, task_state.RUNNING, *kept):
        name = task_state.Name(value).lower()
        status = api.TaskStatus(state=value)
        room.add(api.Task(id=f"t-{name}", node_id="w1", status=status))
    room.add(api.Task(id="other", node_id="w2", status=api.TaskStatus(state=task_state.RUNNING)))
    before = room.committer.proposals
    await room.control.remove_node(api.RemoveNodeRequest(node_id="w1", force=force), PEER)
    assert room.committer.proposals == before + 1
    assert room.get(api.Node, "w1") is None
    entry = room.there(api.Cluster, "cluster1").blacklisted_certificates["w1"]
    assert seconds(entry.expiry) == pytest.approx(room.clock.now() + expiry, abs=61)
    orphaned = [t for t in room.store.view().all(api.Task) if t.status.state == 832]
    assert [task.id for task in orphaned] == ["t-new", "t-running"]
    for task in orphaned:
        assert task.status.message == "Task belonged to a node that has been deleted"
        assert seconds(task.status.timestamp) == pytest.approx(room.clock.now())


@pytest.mark.parametrize("pem", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
async def test_an_unreadable_certificate_gives_an_entry_without_expiry(pem: bytes) -> None:
    room = Room()
    a_cluster(room)
    node = api.Node(id="w1", certificate=api.Certificate(certificate=pem))
    room.add(node)
    await room.control.remove_node(api.RemoveNodeRequest(node_id="w1"), PEER)
    blacklist = room.there(api.Cluster, "cluster1").blacklisted_certificates
    assert "w1" in blacklist and not blacklist["w1"].HasField("expiry")


async def test_a_demoted_manager_still_in_raft_can_be_removed() -> None:
    """Only the wish counts: the role manager takes it out of raft (stock behaviour)."""
    room = Room()
    a_cluster(room)
    node = api.Node(id="m2", role=ROLE.MANAGER, status=api.NodeStatus(state=STATE.DOWN))
    room.add(node)
    room.membership.listed = [FakeMember(1, "m1"), FakeMember(2, "m2")]
    await room.control.remove_node(api.RemoveNodeRequest(node_id="m2"), PEER)
    assert room.get(api.Node, "m2") is None
