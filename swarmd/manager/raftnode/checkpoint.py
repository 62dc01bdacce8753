"""A member's state at one index, as it is taken away in a backup and put down again."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from swarmd import api
from swarmd.api import raftpb
from swarmd.manager.raftnode.disk import RaftDisk
from swarmd.manager.raftnode.errors import DiskDamaged
from swarmd.manager.raftnode.forcing import Log, force_alone
from swarmd.manager.raftnode.members import raft_member
from swarmd.manager.raftnode.opening import Place, decode_snapshot, encode_snapshot


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was applied up to `index`. Cheap to take; `encode` is the work."""

    raft_id: int
    term: int
    index: int
    conf_state: raftpb.ConfState
    members: api.ClusterSnapshot
    store: api.StoreSnapshot

    def encode(self) -> bytes:
        """A marshalled `raftpb.Snapshot`, in clear."""
        metadata = raftpb.SnapshotMetadata(
            conf_state=self.conf_state, index=self.index, term=self.term
        )
        data = encode_snapshot(self.members, self.store)
        return raftpb.Snapshot(data=data, metadata=metadata).SerializeToString()


@dataclass(frozen=True, slots=True)
class Restored:
    """A decoded checkpoint."""

    snapshot: raftpb.Snapshot
    state: api.Snapshot

    @property
    def cluster(self) -> api.Cluster | None:
        """The cluster object, if there is one."""
        return next(iter(self.state.store.clusters), None)


def decode(data: bytes) -> Restored:
    """Read what `encode` made. Raises `DiskDamaged`."""
    try:
        snapshot = raftpb.Snapshot.FromString(data)
    except DecodeError as trouble:
        raise DiskDamaged("backup", None, f"snapshot: {trouble}") from trouble
    if not snapshot.metadata.index or not snapshot.metadata.term:
        raise DiskDamaged("backup", None, "the snapshot names no place in the log")
    return Restored(snapshot, decode_snapshot(snapshot.data, "backup"))


def put_down(place: Place, raft_id: int, restored: Restored) -> None:
    """Write the log of member `raft_id` as if it had just taken this snapshot, and removed all
    other members. Blocks. Raises `FailedPrecondition`; then nothing was written.

    The removals are part of it from the start: should the machine fail before the node runs,
    its next start is not that of a member whose log is old, beside managers that live.
    """
    metadata = restored.snapshot.metadata
    own = raft_member(raft_id, place.node_id, place.addr)
    state = raftpb.HardState(term=metadata.term, vote=0, commit=metadata.index)
    voters = tuple(metadata.conf_state.voters)
    forced = force_alone(Log(restored.state.membership, state, (), voters), own)
    disk = RaftDisk.create(
        place.directory,
        own,
        place.encryptor,
        hard_state=forced.hard_state,
        entries=forced.changes,
        snapshot=restored.snapshot,
        files=place.files,
        segment_bytes=place.segment_bytes,
    )
    disk.close()
