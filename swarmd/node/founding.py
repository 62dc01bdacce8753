"""How a cluster begins: a root, this node's own certificate, keys for its log. Blocks on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace

from swarmd import api
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy, new_id
from swarmd.cluster import ca
from swarmd.cluster.ca import KeyPair, Subject, envelope
from swarmd.cluster.ca.keyfile import KEK
from swarmd.cluster.ca.root import new_root_object
from swarmd.cluster.model.defaults import ClusterStart
from swarmd.node.statedir import KeyStore, StateDir


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator may decide when a cluster begins."""

    availability: api.NodeSpec.Availability = api.NodeSpec.Availability.ACTIVE
    default_address_pool: tuple[str, ...] = ()
    subnet_size: int = 0
    data_path_port: int = 0
    autolock: bool = False


def found(
    state: StateDir, keys: KeyStore, wishes: Wishes, clock: Clock, entropy: Entropy
) -> ClusterStart:
    """Make root, identity and log key, write them, and say what the store begins with."""
    now = clock.now()
    root = ca.new_root(now, entropy)
    cluster_id, node_id = new_id(entropy), new_id(entropy)
    key_pem, csr = ca.new_key_and_csr()
    subject = Subject(node_id, cluster_id, (ca.MANAGER,))
    chain = ca.sign(root, csr, subject, now=now, entropy=entropy)
    unlock_key = envelope.new_key(entropy) if wishes.autolock else b""
    state.prepare()
    state.save_root(root.pem)
    keys.write(KeyPair(chain, key_pem), KEK(unlock_key, 1) if unlock_key else None)
    ensure_log_key(keys, entropy)
    described = new_root_object(root, entropy)
    return ClusterStart(
        cluster_id=cluster_id,
        node_id=node_id,
        ca_cert=described.ca_cert,
        ca_key=described.ca_key,
        ca_cert_hash=described.ca_cert_hash,
        worker_token=described.join_tokens.worker,
        manager_token=described.join_tokens.manager,
        availability=wishes.availability,
        default_address_pool=wishes.default_address_pool,
        subnet_size=wishes.subnet_size,
        data_path_port=wishes.data_path_port,
        unlock_key=unlock_key,
    )


def ensure_log_key(keys: KeyStore, entropy: Entropy) -> None:
    """Give the key file a data encryption key for the Raft log, if it has none."""
    keys.update(lambda file: file if file.holds else replace(file, dek=envelope.new_key(entropy)))
