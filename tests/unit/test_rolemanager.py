"""Roles follow wishes: promotion at once, demotion after leaving Raft."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster.housekeeping.rolemanager import (
    RemoveRaftMember,
    RoleManager,
    TransferLeadership,
    can_remove,
)
from swarmd.cluster.planning import Plan, Update
from swarmd.cluster.store import Action, Event, Store, edit
from swarmd.manager.reconciler import Reconciler
from tests.harness.planners import StoreCommitter, a_moment, plan_twice, settle, store_of
from tests.harness.virtual import LoopClock, run_virtual

NOW = 1_700_000_000.0
WORKER, MANAGER = api.NodeRole.WORKER, api.NodeRole.MANAGER


@dataclass(frozen=True)
class Peer:
    """A Raft member for tests."""

    node_id: str
    leader: bool = False
    reachable: bool = True


THREE = (Peer("n1", leader=True), Peer("n2"), Peer("n3"))


def a_node(id: str, role: api.NodeRole, desired: api.NodeRole) -> api.Node:
    node = api.Node(id=id, role=role)
    node.spec.desired_role = desired
    return node


def plan_for(members: tuple[Peer, ...], node: api.Node | None, memo: object = None) -> Plan:
    store = store_of(*([] if node is None else [node]))
    key = "gone" if node is None else node.id
    return plan_twice(RoleManager(lambda: members), store, key, a_moment(NOW, memo=memo))


def role_set(plan: Plan) -> api.NodeRole:
    (change,) = plan.changes
    assert isinstance(change, Update) and isinstance(change.object, api.Node)
    return change.object.role


def test_promotion_is_written_at_once() -> None:
    plan = plan_for(THREE, a_node("n9", WORKER, MANAGER))
    assert role_set(plan) == MANAGER
    assert plan.effects == () and plan.wake_at is None


def test_the_first_manager_becomes_manager_before_raft_lists_it() -> None:
    assert role_set(plan_for((), a_node("n1", WORKER, MANAGER))) == MANAGER


@pytest.mark.parametrize("role", [WORKER, MANAGER])
def test_agreement_needs_nothing(role: api.NodeRole) -> None:
    assert plan_for(THREE, a_node("n2", role, role)) == Plan()


def test_demotion_leaves_raft_first() -> None:
    plan = plan_for(THREE, a_node("n2", MANAGER, WORKER))
    assert plan.changes == ()
    assert plan.effects == (RemoveRaftMember("n2"),)
    assert plan.wake_at == NOW + 5


def test_demotion_is_written_once_the_member_is_gone() -> None:
    plan = plan_for(THREE, a_node("n9", MANAGER, WORKER))
    assert role_set(plan) == WORKER and plan.effects == ()


def test_demotion_waits_for_a_safe_quorum() -> None:
    members = (Peer("n1", leader=True), Peer("n2"), Peer("n3", reachable=False))
    plan = plan_for(members, a_node("n2", MANAGER, WORKER))
    assert not plan.acts and plan.wake_at == NOW + 5


def test_a_demoted_leader_hands_over_and_leaves_only_if_that_failed() -> None:
    node = a_node("n1", MANAGER, WORKER)
    first = plan_for(THREE, node)
    assert first.effects == (TransferLeadership("n1"),)
    second = plan_for(THREE, node, first.memo)
    assert second.effects == (RemoveRaftMember("n1"),)
    assert second.memo == first.memo


def test_the_last_manager_stays() -> None:
    plan = plan_for((Peer("n1", leader=True),), a_node("n1", MANAGER, WORKER))
    assert not plan.acts and plan.wake_at == NOW + 5


def test_a_member_without_node_object_is_evicted() -> None:
    plan = plan_for((*THREE, Peer("gone", reachable=False)), None)
    assert plan.effects == (RemoveRaftMember("gone"),)
    assert plan_for(THREE, None) == Plan()


@pytest.mark.parametrize(
    ("size", "down", "removed_is_down", "fine"),
    [
        (1, 0, False, False),
        (2, 0, False, True),  # (2-1)//2 + 1 = 1 other is enough: the leader itself
        (3, 0, False, True),
        (3, 1, False, False),
        (3, 1, True, True),
        (5, 1, False, True),
        (5, 2, False, False),
        (5, 2, True, True),
    ],
)
def test_quorum_rule(size: int, down: int, removed_is_down: bool, fine: bool) -> None:
    members = [Peer(f"n{number}", leader=number == 0) for number in range(size)]
    victim = members[-1]
    dead = members[-down:] if removed_is_down else members[-1 - down : -1]
    for member in dead if down else []:
        members[members.index(member)] = replace(member, reachable=False)
    assert can_remove(members, victim.node_id) is fine


def test_keys() -> None:
    manager = RoleManager(lambda: (*THREE, Peer("gone")))
    nodes = [a_node(id, MANAGER, MANAGER) for id in ("n3", "n1", "n2")]
    view = store_of(*nodes).view()
    assert list(manager.all_keys(view)) == ["n1", "n2", "n3", "gone"]
    wish = a_node("n1", MANAGER, WORKER)
    assert list(manager.keys_for(Event(Action.UPDATE, wish), view)) == ["n1"]
    assert list(manager.keys_for(Event(Action.UPDATE, nodes[0]), view)) == []
    assert list(manager.keys_for(Event(Action.DELETE, nodes[0]), view)) == ["n3"]
    assert list(manager.keys_for(Event(Action.CREATE, api.Task(id="t")), view)) == []


def test_it_comes_to_rest() -> None:
    nodes = [
        a_node("n1", WORKER, MANAGER),
        a_node("n2", MANAGER, WORKER),
        a_node("n9", MANAGER, WORKER),
    ]
    store = store_of(*nodes)
    settle(RoleManager(lambda: THREE), store, NOW)
    assert [node.role for node in store.view().all(api.Node)] == [MANAGER, MANAGER, WORKER]


class Raft:
    """Members that leave when told."""

    def __init__(self, *peers: Peer) -> None:
        self.peers = list(peers)
        self.log: list[object] = []
        self.fails = 0

    def members(self) -> list[Peer]:
        return list(self.peers)

    async def remove(self, effect: RemoveRaftMember) -> None:
        self.log.append(effect)
        if self.fails:
            self.fails -= 1
            raise TimeoutError
        self.peers = [peer for peer in self.peers if peer.node_id != effect.node_id]

    async def transfer(self, effect: TransferLeadership) -> None:
        self.log.append(effect)
        raise TimeoutError("nobody took it")


async def run(raft: Raft, store: Store, seconds: float, *wishes: api.Node) -> StoreCommitter:
    committer = StoreCommitter(store)
    runner = Reconciler(
        [RoleManager(raft.members)],
        store,
        committer,
        LoopClock(),
        SeededEntropy(3),
        {RemoveRaftMember: raft.remove, TransferLeadership: raft.transfer},
    )
    async with Tasks() as tasks:
        ready = asyncio.Event()
        tasks.spawn(runner.run(ready), "reconciler")
        await ready.wait()
        for wish in wishes:
            held = store.view().get(api.Node, wish.id)
            assert held is not None
            draft = edit(held)
            draft.spec.desired_role = wish.spec.desired_role
            committer.now(lambda tx, draft=draft: tx.update(draft))
        await asyncio.sleep(seconds)
    return committer


def test_a_demotion_in_the_runner_takes_no_retry_interval() -> None:
    raft = Raft(*THREE)
    store = store_of(*(a_node(peer.node_id, MANAGER, MANAGER) for peer in THREE))
    run_virtual(run(raft, store, 0.5, a_node("n2", MANAGER, WORKER)))
    node = store.view().get(api.Node, "n2")
    assert node is not None and node.role == WORKER
    assert raft.log == [RemoveRaftMember("n2")]


def test_a_demotion_in_the_runner_outlives_failures() -> None:
    raft = Raft(*THREE)
    raft.fails = 3
    store = store_of(*(a_node(peer.node_id, MANAGER, MANAGER) for peer in THREE))
    run_virtual(run(raft, store, 60, a_node("n2", MANAGER, WORKER)))
    node = store.view().get(api.Node, "n2")
    assert node is not None and node.role == WORKER
    assert raft.log == [RemoveRaftMember("n2")] * 4


def test_a_leader_that_cannot_hand_over_leaves_by_itself() -> None:
    raft = Raft(*THREE)
    store = store_of(*(a_node(peer.node_id, MANAGER, MANAGER) for peer in THREE))
    run_virtual(run(raft, store, 60, a_node("n1", MANAGER, WORKER)))
    assert raft.log == [TransferLeadership("n1"), RemoveRaftMember("n1")]
    node = store.view().get(api.Node, "n1")
    assert node is not None and node.role == WORKER


def test_a_blocked_demotion_goes_on_when_peers_come_back() -> None:
    raft = Raft(Peer("n1", leader=True), Peer("n2"), Peer("n3", reachable=False))
    store = store_of(*(a_node(peer.node_id, MANAGER, MANAGER) for peer in raft.peers))

    async def main() -> None:
        async with Tasks() as tasks:
            work = tasks.spawn(run(raft, store, 30, a_node("n2", MANAGER, WORKER)), "run")
            await asyncio.sleep(12)
            assert raft.log == []
            raft.peers[2] = Peer("n3")
            await work

    run_virtual(main())
    assert raft.log == [RemoveRaftMember("n2")]
