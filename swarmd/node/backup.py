"""Taking a manager's state away in one file, and putting it down on another machine. Blocks.

What a cluster needs to come back as itself: the Raft state at one index (all objects, among
them the root CA's key and the join tokens), this manager's certificate and key, and how it was
started. The data encryption key stays: state is sealed anew where it is put down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from swarmd import VERSION, api
from swarmd.base import archive
from swarmd.base.archive import ArchiveError, Damaged
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import FailedPrecondition, InvalidArgument, SwarmError
from swarmd.cluster import ca
from swarmd.cluster.ca import KeyPair, envelope, keyfile
from swarmd.cluster.ca.keyfile import KEK, KeyFile
from swarmd.manager.raftnode import Place
from swarmd.manager.raftnode.checkpoint import Checkpoint, Restored, decode, put_down
from swarmd.node.founding import ensure_log_key
from swarmd.node.locker import unlock_key_of
from swarmd.node.statedir import KeyStore, NodeSettings, StateDir

SNAPSHOT = "raft/snapshot"
ROOT = "certificates/swarm-root-ca.crt"
CERT = "certificates/swarm-node.crt"
KEY = "certificates/swarm-node.key"
SETTINGS = "docker-state.json"
NAMES = (SNAPSHOT, ROOT, CERT, KEY, SETTINGS)

_KINDS = tuple(field.name for field in api.StoreSnapshot.DESCRIPTOR.fields)


@dataclass(frozen=True, slots=True)
class Source:
    """Whose state is taken away."""

    state: StateDir
    keys: KeyStore
    settings: NodeSettings
    hostname: str


def take_away(source: Source, taken: Checkpoint, clock: Clock, entropy: Entropy) -> bytes:
    """The backup, not encrypted. Raises `FailedPrecondition` where there is no cluster yet."""
    cluster = next(iter(taken.store.clusters), None)
    if cluster is None:
        raise FailedPrecondition("this manager has not received the cluster's state yet")
    with_keys = source.keys.identity()
    opened = source.keys.file()
    # The raft keys stay behind, and the lock is a copy of the one in the cluster object.
    clear = KeyFile(opened.key_pem, KEK(b"", opened.kek.version))
    files = {
        SNAPSHOT: taken.encode(),
        ROOT: source.state.trusted_roots(),
        CERT: with_keys.pair.cert_pem,
        KEY: keyfile.write(clear, entropy),
        SETTINGS: source.settings.to_json(),
    }
    created = datetime.fromtimestamp(clock.now(), UTC)
    facts = {
        "Created": created.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "SwarmdVersion": VERSION,
        "ClusterID": cluster.id,
        "NodeID": with_keys.node_id,
        "Hostname": source.hostname,
        "RaftID": f"{taken.raft_id:x}",
        "RaftIndex": taken.index,
        "RaftTerm": taken.term,
        "Autolock": bool(unlock_key_of(cluster).key),
        "Managers": [
            {"NodeID": member.node_id, "Addr": member.addr} for member in taken.members.members
        ],
        "Objects": {kind: len(getattr(taken.store, kind)) for kind in _KINDS},
    }
    return archive.pack(facts, files)


@dataclass(frozen=True, slots=True)
class Found:
    """A backup that was read and found good."""

    raft_id: int
    pair: KeyPair
    node_id: str
    root_pem: bytes
    kek: KEK
    settings: NodeSettings
    restored: Restored


def read(data: bytes, clock: Clock) -> Found:
    """Check a backup through and through. Raises `InvalidArgument`; nothing is written."""
    try:
        bundle = archive.unpack(data)
        missing = [name for name in NAMES if name not in bundle.files]
        if missing:
            raise Damaged(f"{missing[0]} is missing")
        return _found(bundle.manifest, bundle.files, clock)
    except ArchiveError as error:
        raise InvalidArgument(error.message) from error
    except SwarmError as error:
        raise InvalidArgument(f"the backup cannot be used: {error.message}") from error


def _found(manifest: Mapping[str, Any], files: Mapping[str, bytes], clock: Clock) -> Found:
    restored = decode(files[SNAPSHOT])
    cluster = restored.cluster
    if cluster is None:
        raise Damaged("it holds no cluster")
    pair = KeyPair(files[CERT], keyfile.read(files[KEY]).key_pem)
    ca.verify(pair.cert_pem, files[ROOT], clock.now(), allow_expired=True)
    who = ca.identity(pair)
    if not who.is_manager or who.organization != cluster.id:
        raise Damaged("its certificate is not that of a manager of its cluster")
    try:
        raft_id = int(str(manifest["RaftID"]), 16)
    except (KeyError, ValueError):
        raise Damaged("it names no raft member") from None
    settings = NodeSettings.from_json(files[SETTINGS], SETTINGS)
    kek = unlock_key_of(cluster)
    return Found(raft_id, pair, who.node_id, files[ROOT], kek, settings, restored)


def put_back(
    state: StateDir, found: Found, settings: NodeSettings, entropy: Entropy
) -> tuple[KeyStore, NodeSettings]:
    """Write the state of a node that goes on as the manager of a backup; settings last.

    `settings` has this machine's addresses; the rest of them comes from the backup.
    """
    state.prepare()
    state.save_root(found.root_pem)
    keys = KeyStore(state, entropy)
    keys.write(found.pair, found.kek if found.kek.key else None)
    ensure_log_key(keys, entropy)
    dek = keys.file().dek
    place = Place(
        directory=state.raft,
        node_id=found.node_id,
        addr=settings.advertise_addr,
        encryptor=envelope.secretbox(dek, entropy),
        decryptor=envelope.decryptor(dek),
    )
    put_down(place, found.raft_id, found.restored)
    kept = replace(
        settings,
        default_address_pool=found.settings.default_address_pool,
        subnet_size=found.settings.subnet_size,
        data_path_port=found.settings.data_path_port,
    )
    state.save_remotes(())
    state.save_settings(kept)
    return keys, kept
