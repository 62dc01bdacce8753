"""Small clusters for tests of certificates: a store, a committer without Raft, builders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import chains, root
from swarmd.cluster.ca.root import RootCA
from swarmd.cluster.store import Store, Transaction, edit

T = TypeVar("T")

NOW = 1_792_600_578.5
CLUSTER_ID = "a2pc2g8p3j3x8g0yroy64h08o"
STOCK = Path(__file__).parents[1] / "fixtures" / "ca" / "stock-20.10.24"
State = api.IssuanceStatus.State


class LocalCommitter:
    """Writes to a store at once, as a leader without followers would."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = 10
        self.now = NOW

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` and apply what it wrote."""
        return self.write(change)

    def write(self, change: Callable[[Transaction], T]) -> T:
        """The same, for code that is not asynchronous."""
        tx = self.store.begin(self.index, self.now)
        result = change(tx)
        if tx.actions:
            self.index += 1
            self.store.commit(tx, self.index)
        return result


class World:
    """A store with a cluster and its root."""

    def __init__(self, seed: int = 1, *, with_key: bool = True) -> None:
        self.entropy = SeededEntropy(seed)
        self.root = ca.new_root(NOW, self.entropy)
        self.store = Store(strict=True)
        self.committer = LocalCommitter(self.store)
        cluster = api.Cluster(id=CLUSTER_ID, VXLANUDPPort=4789)
        cluster.spec.annotations.name = "default"
        cluster.spec.ca_config.node_cert_expiry.seconds = 7_776_000
        cluster.root_ca.CopyFrom(root.new_root_object(self.root, self.entropy))
        if not with_key:
            cluster.root_ca.ca_key = b""
        self.committer.write(lambda tx: tx.create(cluster))

    @property
    def cluster(self) -> api.Cluster:
        """The cluster object as it is now."""
        found = self.store.view().cluster()
        assert found is not None
        return found

    def node(self, node_id: str) -> api.Node:
        """A node as it is now."""
        found = self.store.view().get(api.Node, node_id)
        assert found is not None
        return found

    def change_cluster(self, change: Callable[[api.Cluster], None]) -> None:
        """Edit the cluster object."""

        def write(tx: Transaction) -> None:
            found = tx.cluster()
            assert found is not None
            draft = edit(found)
            change(draft)
            tx.update(draft)

        self.committer.write(write)

    def change_node(self, node_id: str, change: Callable[[api.Node], None]) -> None:
        """Edit a node."""

        def write(tx: Transaction) -> None:
            found = tx.get(api.Node, node_id)
            assert found is not None
            draft = edit(found)
            change(draft)
            tx.update(draft)

        self.committer.write(write)

    def add_node(
        self,
        node_id: str,
        *,
        state: api.IssuanceStatus.State = State.ISSUED,
        csr: bytes = b"",
        role: api.NodeRole = api.NodeRole.WORKER,
        issuer: RootCA | None = None,
    ) -> api.Node:
        """Create a node; `issuer` is the root it reports to have been signed by."""
        node = api.Node(id=node_id, role=role)
        node.spec.desired_role = role
        node.spec.membership = api.NodeSpec.Membership.ACCEPTED
        node.certificate.cn = node_id
        node.certificate.role = role
        node.certificate.csr = csr
        node.certificate.status.state = state
        if issuer is not None:
            report(node, issuer)
        return self.committer.write(lambda tx: tx.create(node))

    def pair(self, node_id: str, role: str = ca.WORKER) -> ca.KeyPair:
        """A certificate of this cluster for a node, with its key."""
        key, csr = ca.new_key_and_csr()
        chain = ca.sign(
            self.root,
            csr,
            ca.Subject(node_id, CLUSTER_ID, (role,)),
            now=NOW,
            entropy=self.entropy,
        )
        return ca.KeyPair(chain, key)


def report(node: api.Node, issuer: RootCA) -> None:
    """Let a node report a certificate signed by `issuer`."""
    info = ca.tls_info(issuer.pem, chains.issuer_of(issuer.certificates()[0]))
    node.description.tls_info.CopyFrom(info)
