"""A disk that forgets: writes count only once synced; a crash keeps a prefix of the rest."""

from __future__ import annotations

import random
from dataclasses import dataclass

from swarmd.api import raftpb
from swarmd.cluster.raft import MemoryStorage, Ready


@dataclass(frozen=True, slots=True)
class Compaction:
    """A snapshot taken by the member itself, and up to where its log is dropped."""

    index: int
    conf_state: raftpb.ConfState
    data: bytes
    drop_to: int


Write = raftpb.Snapshot | raftpb.Entry | raftpb.HardState | Compaction


def replay(write: Write, storage: MemoryStorage) -> None:
    """Repeat one write on a storage."""
    if isinstance(write, raftpb.Entry):
        storage.append([write])
    elif isinstance(write, raftpb.HardState):
        storage.set_hard_state(write)
    elif isinstance(write, raftpb.Snapshot):
        storage.apply_snapshot(write)
    else:
        storage.create_snapshot(write.index, write.conf_state, write.data)
        if write.drop_to >= storage.first_index():
            storage.compact(write.drop_to)


class Disk:
    """Writes of one member in order. Entries are single writes, so a batch may be torn."""

    def __init__(self) -> None:
        self._writes: list[Write] = []
        self._synced = 0

    def start(self, ready: Ready) -> list[Write]:
        """Write what a `Ready` asks for, in the documented order, not yet synced."""
        writes: list[Write] = [*ready.entries]
        if ready.snapshot is not None:
            writes.insert(0, ready.snapshot)
        if ready.hard_state is not None:
            writes.append(ready.hard_state)
        self._writes.extend(writes)
        return writes

    def compact(self, storage: MemoryStorage, write: Compaction) -> None:
        """Take a snapshot, durably (this syncs the log before it as well)."""
        replay(write, storage)
        self._writes.append(write)
        self.sync()

    def sync(self) -> None:
        """Make everything written so far survive."""
        self._synced = len(self._writes)

    def crash(self, chance: random.Random) -> int:
        """Lose a random tail of what was not synced; returns how many writes that was."""
        kept = chance.randint(self._synced, len(self._writes))
        lost = len(self._writes) - kept
        del self._writes[kept:]
        return lost

    def load(self) -> MemoryStorage:
        """What is found after a restart."""
        storage = MemoryStorage()
        for write in self._writes:
            replay(write, storage)
        self.sync()
        return storage
