"""When to take a snapshot, and taking it beside the running log.

The state is read on the event loop at one applied index; encoding, sealing and writing go to
a thread of their own, so that appends to the log do not wait for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Lane
from swarmd.cluster.model.defaults import default_spec
from swarmd.cluster.raft import MemoryStorage
from swarmd.cluster.store import Store
from swarmd.manager.raftnode.disk import RaftDisk
from swarmd.manager.raftnode.opening import encode_snapshot

log = logging.getLogger(__name__)


# Merged writes make entries large, so a count alone would let the log grow without bound, in
# memory too. Ours: also take a snapshot after so many bytes of entries, and, since that costs
# as much as the state is large, not before the log is this many times the last snapshot.
LOG_BYTES_MAX = 32 << 20
LOG_SNAPSHOT_RATIO = 4
# A try costs as much as the state is large, and a line in the daemon's log.
GAP_ENTRIES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Moment:
    """What a snapshot describes: the state after applying `index`."""

    index: int
    conf_state: raftpb.ConfState
    members: api.ClusterSnapshot
    store: api.StoreSnapshot
    config: api.RaftConfig
    log_bytes: int  # what the log weighs that this makes superfluous


class Snapshotter:
    """Takes the snapshots of one member; at most one at a time."""

    def __init__(self, disk: RaftDisk, storage: MemoryStorage, lane: Lane, log_bytes: int) -> None:
        self._disk = disk
        self._storage = storage
        self._lane = lane  # the log's own lane
        self._files_lane = Lane("raft-snapshot")
        self._rotation_index: int | None = None
        self.busy = asyncio.Lock()  # held while a snapshot is on its way
        self._asked = False  # one is on its way or about to be
        self._not_before = 0  # index of the entry after which it is tried again
        self._gap = 0  # entries between the last two tries that failed
        self.log_bytes = log_bytes  # of entries since the last snapshot
        self._snapshot_bytes = len(storage.snapshot().data)

    def note_appended(self, entries: Sequence[raftpb.Entry]) -> None:
        """Count what the log has grown by."""
        self.log_bytes += sum(len(entry.Data) for entry in entries)

    def due(self, applied: int, config: api.RaftConfig) -> bool:
        """Decide whether to take a snapshot now (PROTOCOL 3.6)."""
        newest = self._storage.snapshot().metadata.index
        if self._asked or applied <= newest or applied < self._not_before:
            return False
        if self._rotation_index is not None and applied >= self._rotation_index:
            return True
        if config.snapshot_interval == 0:
            return False
        if self.log_bytes > max(LOG_BYTES_MAX, LOG_SNAPSHOT_RATIO * self._snapshot_bytes):
            return True
        return applied - newest >= config.snapshot_interval

    def take(self, moment: Moment) -> Coroutine[None, None, None]:
        """What takes the snapshot, to be run as a task; until it ends no other is due."""
        self._asked = True
        return self._take(moment)

    async def _take(self, moment: Moment) -> None:
        try:
            async with self.busy:
                await self._write(moment)
        finally:
            self._asked = False

    async def _write(self, moment: Moment) -> None:
        """Write the snapshot, then drop what it makes superfluous, in memory and on disk.

        A snapshot that cannot be written is logged and tried again after the next entry, then
        after more and more of them: the older ones and the log still hold everything. Raises
        `DiskFailed` for the log itself.
        """
        data = await self._files_lane.run(partial(encode_snapshot, moment.members, moment.store))
        if moment.index <= self._storage.snapshot().metadata.index:
            return  # a leader's snapshot came in meanwhile
        term = self._storage.term(moment.index)
        metadata = raftpb.SnapshotMetadata(
            conf_state=moment.conf_state, index=moment.index, term=term
        )
        snapshot = raftpb.Snapshot(data=data, metadata=metadata)
        try:
            await self._lane.run(partial(self._disk.mark_snapshot, metadata))
            await self._files_lane.run(partial(self._disk.write_snapshot, snapshot))
        except OSError as error:
            self._gap = min(2 * self._gap, GAP_ENTRIES_MAX) or 1
            self._not_before = moment.index + self._gap
            log.error("raft snapshot at index %d not written: %s", moment.index, error)
            return
        self._gap = 0
        self._forget(moment, data)
        self.log_bytes = max(0, self.log_bytes - moment.log_bytes)
        self._snapshot_bytes = len(data)
        await self._lane.run(partial(self._disk.purge, moment.config.keep_old_snapshots))
        self._rotation_index = self._disk.rotation_index

    def _forget(self, moment: Moment, data: bytes) -> None:
        if moment.index <= self._storage.snapshot().metadata.index:
            return
        self._storage.create_snapshot(moment.index, moment.conf_state, data)
        kept = moment.index - moment.config.log_entries_for_slow_followers
        if kept >= self._storage.first_index():
            self._storage.compact(kept)

    def adopted(self, snapshot: raftpb.Snapshot) -> None:
        """A leader's snapshot replaced the log."""
        self.log_bytes = 0
        self._snapshot_bytes = len(snapshot.data)

    def rotation_begun(self, index: int) -> None:
        """A change of key now waits for a snapshot at `index` or above."""
        self._rotation_index = index

    def close(self) -> None:
        """End the thread."""
        self._files_lane.close()


def current_config(store: Store) -> api.RaftConfig:
    """The cluster's raft settings as of now; the defaults while there is no cluster object."""
    cluster = store.view().cluster()
    return cluster.spec.raft if cluster is not None else _DEFAULTS


_DEFAULTS = default_spec().raft
