"""A Control service over a real store and a committer without Raft, with builders for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swarmd import api
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import SwarmError
from swarmd.cluster.ca.root import new_root, new_root_object
from swarmd.cluster.ca.rotation_start import ExternalCAs
from swarmd.cluster.store import Object, ObjectT, Store, Transaction
from swarmd.manager.controlapi import Control, Needs

T = TypeVar("T")
IMAGE = "sha256:" + "4d91" * 16
PEER = object()


@dataclass(frozen=True, slots=True)
class FakeMember:
    """A raft member as the test wants it."""

    raft_id: int
    node_id: str
    addr: str = "10.0.0.1:2377"
    leader: bool = False
    reachable: bool = True


@dataclass
class FakeMembership:
    """A member list that tests write down."""

    id: int = 1
    listed: list[FakeMember] = field(default_factory=list)

    def members(self) -> Sequence[FakeMember]:
        """All members."""
        return self.listed


@dataclass
class FakePlugins:
    """Plugins by (name, capability)."""

    installed: set[tuple[str, str]] = field(default_factory=set)

    def has(self, name: str, capability: str) -> bool:
        """True for the installed ones."""
        return (name, capability) in self.installed


class LocalCommitter:
    """Commits each change at once; counts entries as the commit index."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.index = 10
        self.proposals = 0
        self.before: Callable[[], None] | None = None

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` in its own transaction; nothing is kept when it raises."""
        if self.before is not None:
            self.before()
        return self.now(change)

    def now(self, change: Callable[[Transaction], T]) -> T:
        """The same, for builders."""
        tx = self.store.begin(self.index, self.clock.now())
        result = change(tx)
        if tx.actions:
            self.index += 1
            self.proposals += 1
            self.store.commit(tx, self.index)
        return result


class Room:
    """One Control service and everything under it."""

    def __init__(self, external_cas: ExternalCAs | None = None) -> None:
        self.clock = ManualClock()
        self.entropy = SeededEntropy(7)
        self.store = Store(strict=True)
        self.committer = LocalCommitter(self.store, self.clock)
        self.membership = FakeMembership()
        self.plugins = FakePlugins()
        self.control = Control(
            Needs(
                store=self.store,
                committer=self.committer,
                membership=self.membership,
                clock=self.clock,
                entropy=self.entropy,
                plugins=self.plugins,
                external_cas=external_cas,
            )
        )

    def add(self, obj: ObjectT) -> ObjectT:
        """Store an object as it is."""
        return self.committer.now(lambda tx: tx.create(obj))

    def get(self, kind: type[ObjectT], id: str) -> ObjectT | None:
        """The stored object."""
        return self.store.view().get(kind, id)

    def there(self, kind: type[ObjectT], id: str) -> ObjectT:
        """The stored object, which must exist."""
        found = self.get(kind, id)
        assert found is not None
        return found

    def version(self, obj: Object) -> api.Version:
        """The present version of a stored object."""
        kind = type(obj)
        return api.Version(index=self.there(kind, obj.id).meta.version.index)


def a_cluster(room: Room, **fields: Any) -> api.Cluster:
    """The default cluster with a real root CA."""
    root = new_root(room.clock.now(), room.entropy)
    cluster = api.Cluster(
        id="cluster1",
        spec=api.ClusterSpec(annotations=api.Annotations(name="default")),
        root_ca=new_root_object(root, room.entropy),
        network_bootstrap_keys=[api.EncryptionKey(subsystem="networking:gossip", key=b"g" * 16)],
        encryption_key_lamport_clock=77,
        **fields,
    )
    return room.add(cluster)


def a_node(
    room: Room,
    id: str,
    *,
    manager: bool = False,
    state: Any = api.NodeStatus.State.READY,
    hostname: str = "",
    engine: str = "",
    labels: dict[str, str] | None = None,
) -> api.Node:
    """A node that described itself, unless it has no hostname."""
    role = api.NodeRole.MANAGER if manager else api.NodeRole.WORKER
    node = api.Node(
        id=id,
        role=role,
        spec=api.NodeSpec(
            desired_role=role,
            membership=api.NodeSpec.Membership.ACCEPTED,
            annotations=api.Annotations(labels=labels or {}),
        ),
        status=api.NodeStatus(state=state),
    )
    if hostname:
        node.description.hostname = hostname
        node.description.engine.engine_version = engine
    return room.add(node)


def a_service_spec(name: str = "web", **fields: Any) -> api.ServiceSpec:
    """A valid replicated service."""
    spec = api.ServiceSpec(
        annotations=api.Annotations(name=name),
        task=api.TaskSpec(container=api.ContainerSpec(image=IMAGE)),
        **fields,
    )
    if spec.WhichOneof("mode") is None:
        spec.replicated.replicas = 1
    return spec


def a_port(published: int, *, host: bool = False, target: int = 80) -> api.PortConfig:
    """A published TCP port."""
    mode = api.PortConfig.PublishMode
    return api.PortConfig(
        target_port=target,
        published_port=published,
        publish_mode=mode.HOST if host else mode.INGRESS,
    )


def an_ingress(room: Room) -> api.Network:
    """The routing mesh's network."""
    spec = api.NetworkSpec(annotations=api.Annotations(name="ingress"), ingress=True)
    return room.add(api.Network(id="ingress1", spec=spec))


def told(error: SwarmError) -> tuple[str, str]:
    """(code, text) as a caller sees them."""
    return error.code.name, error.message
