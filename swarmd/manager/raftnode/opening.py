"""How a member's raft state comes to be: founded, joined or loaded. Blocks; runs in the lane."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf.message import DecodeError

from swarmd import api
from swarmd.api import raftpb
from swarmd.base import varint
from swarmd.base.entropy import Entropy
from swarmd.base.errors import FailedPrecondition
from swarmd.base.parsing import parse
from swarmd.cluster.raft import MemoryStorage
from swarmd.manager.raftnode.disk import Decryptor, Encryptor, Loaded, RaftDisk
from swarmd.manager.raftnode.errors import DiskDamaged
from swarmd.manager.raftnode.files import Files
from swarmd.manager.raftnode.forcing import Log, force_alone
from swarmd.manager.raftnode.members import Members, raft_member
from swarmd.manager.raftnode.segments import Damage
from swarmd.manager.raftnode.wal import SEGMENT_BYTES

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member keeps its raft state, who it is, and the keys to read and write it.

    `joined`: what the leader answered to Join; None founds a new cluster if there is no state.
    `alone`: make the member of an existing state its cluster's only one (`forcing`).
    """

    directory: Path  # <state>/raft
    node_id: str
    addr: str  # host:port that peers dial
    encryptor: Encryptor
    decryptor: Decryptor
    joined: api.JoinResponse | None = None
    segment_bytes: int = SEGMENT_BYTES
    files: Files = field(default_factory=Files)
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """State ready to run on: disk, own raft id, log in memory, members known so far."""

    disk: RaftDisk
    raft_id: int
    storage: MemoryStorage
    members: Members
    snapshot: api.Snapshot | None
    log_bytes: int  # what the entries in the log weigh
    may_campaign: bool  # false for a joiner, whose configuration comes from the leader


def open_place(place: Place, entropy: Entropy) -> tuple[Opened, Sequence[Damage]]:
    """Load the state in `place`, or make it; also returns the damage that was put right."""
    if RaftDisk.exists(place.directory):
        loaded = RaftDisk.load(
            place.directory,
            place.encryptor,
            place.decryptor,
            files=place.files,
            segment_bytes=place.segment_bytes,
        )
        try:
            return _resume(place, loaded), loaded.damage
        except BaseException:
            loaded.disk.close()
            raise
    if place.joined is not None:
        return _join(place, place.joined), ()
    return _found(place, entropy), ()


def new_raft_id(entropy: Entropy) -> int:
    """A random raft id, 1 to 2**63 (PROTOCOL 3.1)."""
    return (int.from_bytes(entropy.token(8), "big") >> 1) + 1


def _found(place: Place, entropy: Entropy) -> Opened:
    """Start a cluster: entry 1 at term 1 adds the member itself, committed from the start."""
    raft_id = new_raft_id(entropy)
    member = raft_member(raft_id, place.node_id, place.addr)
    change = raftpb.ConfChange(
        id=0,
        type=raftpb.ConfChangeAddNode,
        node_id=raft_id,
        context=member.SerializeToString(),
    )
    first = raftpb.Entry(
        Type=raftpb.EntryConfChange, Term=1, Index=1, Data=change.SerializeToString()
    )
    state = raftpb.HardState(term=1, vote=0, commit=1)
    disk = RaftDisk.create(
        place.directory,
        member,
        place.encryptor,
        hard_state=state,
        entries=[first],
        files=place.files,
        segment_bytes=place.segment_bytes,
    )
    storage = MemoryStorage()
    storage.append([first])
    storage.set_hard_state(state)
    return Opened(disk, raft_id, storage, Members(), None, 0, may_campaign=True)


def _join(place: Place, joined: api.JoinResponse) -> Opened:
    """Start with an empty log; entries and configuration come from the leader."""
    member = raft_member(joined.raft_id, place.node_id, place.addr)
    disk = RaftDisk.create(
        place.directory,
        member,
        place.encryptor,
        files=place.files,
        segment_bytes=place.segment_bytes,
    )
    members = Members()
    for other in joined.members:
        members.add(other)
    return Opened(disk, joined.raft_id, MemoryStorage(), members, None, 0, may_campaign=False)


def _resume(place: Place, loaded: Loaded) -> Opened:
    if loaded.member.node_id != place.node_id:
        raise FailedPrecondition(
            f"the raft state in {place.directory} belongs to node {loaded.member.node_id}, "
            f"this is node {place.node_id}"
        )
    storage, members = MemoryStorage(), Members()
    snapshot = None
    if loaded.snapshot is not None:
        snapshot = decode_snapshot(loaded.snapshot.data, str(place.directory))
    if place.alone:
        loaded = _alone(place, loaded, snapshot)
    if loaded.snapshot is not None and snapshot is not None:
        members.restore(snapshot.membership)
        storage.apply_snapshot(loaded.snapshot)
    storage.append(loaded.entries)
    storage.set_hard_state(loaded.hard_state)
    _note_removals(members, loaded)
    return Opened(
        loaded.disk,
        loaded.member.raft_id,
        storage,
        members,
        snapshot,
        sum(len(entry.Data) for entry in loaded.entries),
        may_campaign=True,
    )


def _alone(place: Place, loaded: Loaded, snapshot: api.Snapshot | None) -> Loaded:
    """Cut the other members off, on disk first."""
    own = raft_member(loaded.member.raft_id, place.node_id, place.addr)
    at_snapshot = snapshot.membership if snapshot is not None else api.ClusterSnapshot()
    voters = loaded.snapshot.metadata.conf_state.voters if loaded.snapshot is not None else ()
    forced = force_alone(Log(at_snapshot, loaded.hard_state, loaded.entries, tuple(voters)), own)
    log.warning(
        "forced to be the only member: %d other members removed, %d uncommitted entries dropped",
        len(forced.removed),
        forced.dropped,
    )
    loaded.disk.save(forced.hard_state, forced.changes)
    entries = (*forced.kept, *forced.changes)
    return replace(loaded, hard_state=forced.hard_state, entries=entries)


def _note_removals(members: Members, loaded: Loaded) -> None:
    """Take out members that the log removes, before anybody dials them (as stock does)."""
    for entry in loaded.entries:
        if entry.Index > loaded.hard_state.commit or entry.Type != raftpb.EntryConfChange:
            continue
        change = raftpb.ConfChange.FromString(entry.Data)
        if change.type == raftpb.ConfChangeRemoveNode:
            members.remove(change.node_id)


def decode_snapshot(data: bytes, where: str) -> api.Snapshot:
    """The cluster state in a snapshot. Raises `DiskDamaged`, also for a newer version."""
    try:
        snapshot = parse(api.Snapshot, data)
    except DecodeError as trouble:
        raise DiskDamaged(where, None, f"snapshot: {trouble}") from trouble
    if snapshot.version != api.Snapshot.V0:
        raise DiskDamaged(where, None, f"unrecognized snapshot version {snapshot.version}")
    return snapshot


def encode_snapshot(members: api.ClusterSnapshot, store: api.StoreSnapshot) -> bytes:
    """A marshalled `Snapshot` of version 0, written in one piece."""
    head = api.Snapshot(version=api.Snapshot.V0, membership=members)
    body = store.SerializeToString()
    # The parts of a message may follow each other on the wire: the store is not copied again.
    return b"".join((head.SerializeToString(), b"\x1a", varint.encode(len(body)), body))
