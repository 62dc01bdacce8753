"""The objects a cluster begins with."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from swarmd import api
from swarmd.cluster.model.defaults import (
    ClusterStart,
    default_cluster,
    default_spec,
    ensure_started,
    merge_spec,
)
from swarmd.cluster.store import Store, edit

START = ClusterStart(
    cluster_id="cluster1",
    node_id="node1",
    ca_cert=b"cert",
    ca_key=b"key",
    ca_cert_hash="sha256:00",
    worker_token="worker-token",
    manager_token="manager-token",
)


def started(start: ClusterStart = START) -> Store:
    store = Store(strict=True)
    tx = store.begin(2, 1000.0)
    numbers = count()
    ensure_started(tx, start, lambda: f"net{next(numbers)}")
    store.commit(tx, 3)
    return store


def test_objects_are_created_in_the_stock_order() -> None:
    store = Store(strict=True)
    tx = store.begin(2, 1000.0)
    numbers = count()
    assert ensure_started(tx, START, lambda: f"net{next(numbers)}")
    assert [action.WhichOneof("target") for action in tx.actions] == [
        "cluster",
        "node",
        "network",
        "network",
        "network",
    ]
    names = [a.network.spec.annotations.name for a in tx.actions if a.HasField("network")]
    assert names == ["ingress", "bridge", "host"]
    assert all(
        a.action == api.StoreActionKind.STORE_ACTION_CREATE and a.WhichOneof("target")
        for a in tx.actions
    )


def test_the_cluster_has_stock_values() -> None:
    cluster = started().view().cluster()
    assert cluster is not None
    spec = cluster.spec
    assert cluster.id == "cluster1" and spec.annotations.name == "default"
    assert spec.orchestration.task_history_retention_limit == 5
    assert spec.dispatcher.heartbeat_period.seconds == 5
    assert spec.ca_config.node_cert_expiry.seconds == 7_776_000
    assert (spec.raft.snapshot_interval, spec.raft.keep_old_snapshots) == (10_000, 0)
    assert spec.raft.log_entries_for_slow_followers == 500
    assert (spec.raft.heartbeat_tick, spec.raft.election_tick) == (1, 10)
    assert not spec.encryption_config.auto_lock_managers and not cluster.unlock_keys
    assert spec.HasField("acceptance_policy") and spec.HasField("task_defaults")
    assert (cluster.subnetSize, cluster.VXLANUDPPort) == (24, 4789)
    assert list(cluster.defaultAddressPool) == []
    assert cluster.root_ca.join_tokens.worker == "worker-token"
    assert (cluster.root_ca.ca_cert, cluster.root_ca.ca_key) == (b"cert", b"key")
    assert not cluster.network_bootstrap_keys


def test_the_first_node_has_no_role_yet() -> None:
    node = started().view().get(api.Node, "node1")
    assert node is not None
    assert node.role == api.NodeRole.WORKER
    assert node.spec.desired_role == api.NodeRole.MANAGER
    assert node.spec.membership == api.NodeSpec.Membership.ACCEPTED
    assert node.certificate.status.state == api.IssuanceStatus.State.ISSUED
    assert (node.certificate.cn, node.certificate.role) == ("node1", api.NodeRole.MANAGER)
    assert not node.certificate.csr and not node.certificate.certificate
    assert node.VXLANUDPPort == 4789


def test_networks_as_recorded() -> None:
    view = started().view()
    ingress = view.named(api.Network, "ingress")
    bridge = view.named(api.Network, "bridge")
    assert ingress is not None and bridge is not None
    assert ingress.spec.ingress and ingress.spec.HasField("driver_config")
    assert ingress.spec.ipam.HasField("driver") and not ingress.spec.ipam.configs
    assert dict(bridge.spec.annotations.labels) == {"com.docker.swarm.predefined": "true"}
    assert bridge.spec.driver_config.name == "bridge" and not bridge.spec.HasField("ipam")


def test_a_second_start_changes_nothing() -> None:
    store = started()
    tx = store.begin(9, 2000.0)
    assert not ensure_started(tx, START, lambda: "never")
    assert tx.actions == []


def test_a_removed_ingress_stays_removed_and_predefined_networks_come_back() -> None:
    store = started()
    tx = store.begin(9, 2000.0)
    for name in ("ingress", "host"):
        network = tx.named(api.Network, name)
        assert network is not None
        tx.delete(api.Network, network.id)
    store.commit(tx, 10)
    tx = store.begin(11, 3000.0)
    ensure_started(tx, START, lambda: "net9")
    assert [a.network.spec.annotations.name for a in tx.actions] == ["host"]


def test_autolock_pool_and_port() -> None:
    start = replace(
        START,
        unlock_key=b"k" * 32,
        default_address_pool=("10.20.0.0/16",),
        subnet_size=26,
        data_path_port=7777,
        availability=api.NodeSpec.Availability.DRAIN,
        fips=True,
    )
    view = started(start).view()
    cluster, node = view.cluster(), view.get(api.Node, "node1")
    assert cluster is not None and node is not None
    assert cluster.spec.encryption_config.auto_lock_managers and cluster.fips
    assert [(k.subsystem, k.key) for k in cluster.unlock_keys] == [("swarm-manager", b"k" * 32)]
    assert (list(cluster.defaultAddressPool), cluster.subnetSize) == (["10.20.0.0/16"], 26)
    assert cluster.VXLANUDPPort == node.VXLANUDPPort == 7777
    assert node.spec.availability == api.NodeSpec.Availability.DRAIN


def test_secrets_do_not_show_in_reprs() -> None:
    text = repr(replace(START, unlock_key=b"k" * 32))
    for secret in ("worker-token", "manager-token", "kkk", "b'key'"):
        assert secret not in text


class TestMergeSpec:
    def test_nothing_given_keeps_the_defaults(self) -> None:
        assert merge_spec(default_spec(), api.ClusterSpec()) == default_spec()

    def test_given_values_win_and_zero_keeps(self) -> None:
        given = api.ClusterSpec(raft=api.RaftConfig(snapshot_interval=77))
        given.annotations.labels["a"] = "b"
        given.dispatcher.heartbeat_period.seconds = 9
        given.ca_config.force_rotate = 3
        given.ca_config.external_cas.add(url="https://ca")
        given.encryption_config.auto_lock_managers = True
        spec = merge_spec(default_spec(), given)
        assert spec.raft.snapshot_interval == 77
        assert spec.raft.election_tick == 10
        assert dict(spec.annotations.labels) == {"a": "b"}
        assert spec.annotations.name == "default"
        assert spec.dispatcher.heartbeat_period.seconds == 9
        assert spec.ca_config.node_cert_expiry.seconds == 7_776_000
        assert spec.ca_config.force_rotate == 3
        assert [ca.url for ca in spec.ca_config.external_cas] == ["https://ca"]
        assert spec.encryption_config.auto_lock_managers

    @pytest.mark.parametrize("limit", [0, 7])
    def test_a_history_limit_counts_even_when_zero(self, limit: int) -> None:
        given = api.ClusterSpec()
        given.orchestration.task_history_retention_limit = limit
        given.orchestration.SetInParent()
        spec = merge_spec(default_spec(), given)
        assert spec.orchestration.task_history_retention_limit == limit

    def test_the_base_is_not_touched(self) -> None:
        base = default_spec()
        merge_spec(base, api.ClusterSpec(raft=api.RaftConfig(snapshot_interval=1)))
        assert base == default_spec()

    def test_given_spec_reaches_the_cluster(self) -> None:
        given = api.ClusterSpec()
        given.annotations.labels["team"] = "red"
        cluster = default_cluster(replace(START, spec=given))
        assert dict(cluster.spec.annotations.labels) == {"team": "red"}


def test_a_stored_start_can_be_edited() -> None:
    store = started()
    cluster = store.view().cluster()
    assert cluster is not None
    tx = store.begin(5, 1.0)
    draft = edit(cluster)
    draft.spec.annotations.labels["x"] = "y"
    tx.update(draft)
    store.commit(tx, 6)
