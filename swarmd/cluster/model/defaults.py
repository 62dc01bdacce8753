"""The objects a cluster begins with, as the reference makes them (PROTOCOL 4.3).

Written in one transaction by each new leader, in this order: cluster `default`, the leader's
own node, network `ingress`, then the predefined networks `bridge` and `host`. What exists is
left alone, so for all but the first leader this changes nothing.

Sub-messages the reference always writes are set here even when empty, so that our first
entry has the same fields as a stock one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarmd import api
from swarmd.cluster.model.names import DEFAULT_CLUSTER

HOUR_SECONDS = 3600
NODE_CERT_EXPIRY_SECONDS = 90 * 24 * HOUR_SECONDS
HEARTBEAT_PERIOD_SECONDS = 5
TASK_HISTORY_RETENTION_LIMIT = 5
SNAPSHOT_INTERVAL_ENTRIES = 10_000
LOG_ENTRIES_FOR_SLOW_FOLLOWERS = 500
HEARTBEAT_TICKS = 1
ELECTION_TICKS = 10
VXLAN_UDP_PORT = 4789
SUBNET_BITS = 24
INGRESS_NAME = "ingress"
PREDEFINED_LABEL = "com.docker.swarm.predefined"
PREDEFINED_NETWORKS = ("bridge", "host")
MANAGER_SUBSYSTEM = "swarm-manager"


@dataclass(frozen=True, slots=True)
class ClusterStart:
    """All that is decided when a cluster is initialised.

    `spec` holds what the operator asked for beside the defaults (see `merge_spec`).
    `ca_key` is empty with an external CA. `unlock_key` is the 32-byte key when managers are
    to be locked, else empty. Sizes: `subnet_size` is a prefix length, `data_path_port` a UDP
    port; 0 stands for the default of both.
    """

    cluster_id: str
    node_id: str
    ca_cert: bytes = field(repr=False)
    ca_key: bytes = field(repr=False)
    ca_cert_hash: str
    worker_token: str = field(repr=False)
    manager_token: str = field(repr=False)
    spec: api.ClusterSpec | None = None
    availability: api.NodeSpec.Availability = api.NodeSpec.Availability.ACTIVE
    default_address_pool: Sequence[str] = ()
    subnet_size: int = 0
    data_path_port: int = 0
    unlock_key: bytes = field(default=b"", repr=False)
    fips: bool = False


class Creator(Protocol):
    """What is needed of a store transaction."""

    def get(self, kind: type[Any], id: str) -> Any | None:
        """The object with this id."""
        ...

    def named(self, kind: type[Any], name: str) -> Any | None:
        """The object with this name."""
        ...

    def create(self, obj: Any) -> Any:
        """Add an object."""
        ...


def ensure_started(tx: Creator, start: ClusterStart, new_id: Callable[[], str]) -> bool:
    """Create whatever of the initial objects is missing; True when the node was new.

    The ingress network comes only with a new node: an operator may have removed it.
    """
    cluster = default_cluster(start)
    known = tx.get(api.Cluster, start.cluster_id) or tx.named(api.Cluster, DEFAULT_CLUSTER)
    if known is None:
        tx.create(cluster)
    fresh = tx.get(api.Node, start.node_id) is None
    if fresh:
        tx.create(first_node(start.node_id, start.availability, cluster.VXLANUDPPort))
        if tx.named(api.Network, INGRESS_NAME) is None:
            tx.create(ingress_network(new_id()))
    ensure_predefined(tx, new_id)
    return fresh


def ensure_predefined(tx: Creator, new_id: Callable[[], str]) -> None:
    """Create the node-local networks every engine has, where they are missing."""
    for name in PREDEFINED_NETWORKS:
        if tx.named(api.Network, name) is None:
            tx.create(predefined_network(new_id(), name))


def default_cluster(start: ClusterStart) -> api.Cluster:
    """The cluster object, without the network keys that the key manager adds."""
    cluster = api.Cluster(
        id=start.cluster_id,
        spec=merge_spec(default_spec(), start.spec) if start.spec else default_spec(),
        root_ca=api.RootCA(
            ca_key=start.ca_key,
            ca_cert=start.ca_cert,
            ca_cert_hash=start.ca_cert_hash,
            join_tokens=api.JoinTokens(worker=start.worker_token, manager=start.manager_token),
        ),
        fips=start.fips,
        defaultAddressPool=list(start.default_address_pool),
        subnetSize=start.subnet_size or SUBNET_BITS,
        VXLANUDPPort=start.data_path_port or VXLAN_UDP_PORT,
    )
    if start.unlock_key:
        cluster.spec.encryption_config.auto_lock_managers = True
        cluster.unlock_keys.add(subsystem=MANAGER_SUBSYSTEM, key=start.unlock_key)
    return cluster


def default_spec() -> api.ClusterSpec:
    """The spec of a cluster whose operator asked for nothing."""
    spec = api.ClusterSpec(
        annotations=api.Annotations(name=DEFAULT_CLUSTER),
        orchestration=api.OrchestrationConfig(
            task_history_retention_limit=TASK_HISTORY_RETENTION_LIMIT
        ),
        raft=api.RaftConfig(
            snapshot_interval=SNAPSHOT_INTERVAL_ENTRIES,
            log_entries_for_slow_followers=LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
            heartbeat_tick=HEARTBEAT_TICKS,
            election_tick=ELECTION_TICKS,
        ),
    )
    spec.dispatcher.heartbeat_period.seconds = HEARTBEAT_PERIOD_SECONDS
    spec.ca_config.node_cert_expiry.seconds = NODE_CERT_EXPIRY_SECONDS
    for empty in (spec.acceptance_policy, spec.task_defaults, spec.encryption_config):
        empty.SetInParent()
    return spec


def merge_spec(base: api.ClusterSpec, given: api.ClusterSpec) -> api.ClusterSpec:
    """Lay what an operator gave over `base`; a copy. Zero means: keep what `base` says.

    Always taken are `force_rotate` and `auto_lock_managers`, as the engine does at init
    (BEHAVIOUR 5.4); external CAs are added. The history limit is taken, zero included, when
    `given.orchestration` is present.
    """
    spec = api.ClusterSpec()
    spec.CopyFrom(base)
    if given.annotations.name:
        spec.annotations.name = given.annotations.name
    if given.annotations.labels:
        spec.annotations.labels.clear()
        spec.annotations.labels.update(given.annotations.labels)
    if given.HasField("orchestration"):
        spec.orchestration.CopyFrom(given.orchestration)
    spec.raft.MergeFrom(given.raft)  # proto3 merging skips zeros, which is the rule wanted
    if given.dispatcher.heartbeat_period.ByteSize():
        spec.dispatcher.heartbeat_period.CopyFrom(given.dispatcher.heartbeat_period)
    _merge_ca(spec.ca_config, given.ca_config)
    spec.encryption_config.auto_lock_managers = given.encryption_config.auto_lock_managers
    return spec


def _merge_ca(config: api.CAConfig, given: api.CAConfig) -> None:
    if given.node_cert_expiry.ByteSize():
        config.node_cert_expiry.CopyFrom(given.node_cert_expiry)
    if given.signing_ca_cert:
        config.signing_ca_cert = given.signing_ca_cert
    if given.signing_ca_key:
        config.signing_ca_key = given.signing_ca_key
    config.force_rotate = given.force_rotate
    config.external_cas.extend(given.external_cas)


def first_node(
    node_id: str, availability: api.NodeSpec.Availability, vxlan_udp_port: int
) -> api.Node:
    """The node object of the manager that starts a cluster.

    Its `role` is left for the role manager, and its certificate bytes are nowhere stored.
    """
    node = api.Node(id=node_id, VXLANUDPPort=vxlan_udp_port)
    node.spec.annotations.SetInParent()
    node.spec.desired_role = api.NodeRole.MANAGER
    node.spec.membership = api.NodeSpec.Membership.ACCEPTED
    node.spec.availability = availability
    node.status.SetInParent()
    node.certificate.cn = node_id
    node.certificate.role = api.NodeRole.MANAGER
    node.certificate.status.state = api.IssuanceStatus.State.ISSUED
    return node


def ingress_network(id: str) -> api.Network:
    """The routing mesh's network; the allocator gives it subnet and driver state."""
    network = api.Network(id=id)
    network.spec.annotations.name = INGRESS_NAME
    network.spec.ingress = True
    network.spec.driver_config.SetInParent()
    network.spec.ipam.driver.SetInParent()
    return network


def predefined_network(id: str, name: str) -> api.Network:
    """A network that every engine has of its own, so that services may name it."""
    network = api.Network(id=id)
    network.spec.annotations.name = name
    network.spec.annotations.labels[PREDEFINED_LABEL] = "true"
    network.spec.driver_config.name = name
    return network
