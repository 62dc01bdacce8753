"""The two standing properties, for the key manager and the role manager.

Planning twice on the same view gives the same plan; replanning on the result soon gives an
empty one. `settle` checks both.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd import api
from swarmd.cluster.housekeeping.keymanager import SUBSYSTEMS, KeyManager
from swarmd.cluster.housekeeping.rolemanager import RoleManager, can_remove
from tests.harness.planners import a_moment, carry_out, plan_twice, settle, store_of

NOW = 1_700_000_000.0
ROLES = (api.NodeRole.WORKER, api.NodeRole.MANAGER)


@dataclass(frozen=True)
class Peer:
    """A Raft member."""

    node_id: str
    leader: bool
    reachable: bool


PEERS = st.dictionaries(st.integers(0, 6), st.booleans(), max_size=5).map(
    lambda found: [
        Peer(f"n{number}", leader=index == 0, reachable=up)
        for index, (number, up) in enumerate(sorted(found.items()))
    ]
)
NODES = st.lists(st.tuples(st.sampled_from(ROLES), st.sampled_from(ROLES)), min_size=0, max_size=6)


@settings(max_examples=150)
@given(NODES, PEERS)
def test_roles_settle(nodes: list[tuple[api.NodeRole, api.NodeRole]], peers: list[Peer]) -> None:
    objects = []
    for number, (role, desired) in enumerate(nodes):
        node = api.Node(id=f"n{number}", role=role)
        node.spec.desired_role = desired
        objects.append(node)
    store, planner = store_of(*objects), RoleManager(lambda: peers)
    settle(planner, store, NOW)
    members = {peer.node_id for peer in peers}
    for node in store.view().all(api.Node):
        if node.role == node.spec.desired_role:
            assert planner.plan(store.view(), node.id, a_moment(NOW)).wake_at is None
        else:  # only a demotion waits, and only for Raft
            assert node.role == api.NodeRole.MANAGER and node.id in members
    for key in planner.all_keys(store.view()):
        plan = plan_twice(planner, store, key, a_moment(NOW))
        assert not plan.changes
        if plan.effects:
            assert key in members and can_remove(peers, key)
            assert plan.wake_at == NOW + 5


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from((*SUBSYSTEMS, "other")), st.integers(1, 60)),
        max_size=8,
        unique_by=lambda key: key[1],
    ),
    st.lists(st.floats(0, 60 * 3600), max_size=4).map(sorted),
)
def test_keys_settle_and_times_only_grow(held: list[tuple[str, int]], passing: list[float]) -> None:
    cluster = api.Cluster(id="c1", encryption_key_lamport_clock=60)
    cluster.spec.annotations.name = "default"
    for subsystem, time in held:
        cluster.network_bootstrap_keys.add(subsystem=subsystem, lamport_time=time, key=b"k")
    store, planner = store_of(cluster), KeyManager()
    settle(planner, store, NOW)
    memo: object = NOW
    for number, after in enumerate(passing):
        before = store.view().cluster()
        assert before is not None
        newest = max(key.lamport_time for key in before.network_bootstrap_keys)
        moment = a_moment(NOW + after, memo=memo)
        plan = plan_twice(planner, store, "c1", moment)
        memo = plan.memo
        if not plan.changes:
            assert plan.wake_at is not None and plan.wake_at > NOW + after
            continue
        carry_out(store, plan, 200 + number)
        again = plan_twice(planner, store, "c1", a_moment(NOW + after, memo=memo))
        assert not again.changes
        cluster_now = store.view().cluster()
        assert cluster_now is not None
        keys = cluster_now.network_bootstrap_keys
        times = [key.lamport_time for key in keys]
        assert len(set(times)) == len(times)
        assert max(times) > newest
        assert cluster_now.encryption_key_lamport_clock >= max(times)
        known = {key.subsystem for key in before.network_bootstrap_keys}
        assert {key.subsystem for key in keys} == known
        for subsystem in known:
            assert sum(1 for key in keys if key.subsystem == subsystem) <= 3
