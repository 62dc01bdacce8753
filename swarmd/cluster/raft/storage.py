"""`MemoryStorage`: the log since the last snapshot, mirrored in memory by the driver.

The driver persists first and then repeats the write here, before `RawNode.advance()`. Errors
are values: a position that was compacted away or does not exist yet reads as None.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmd.api import raftpb
from swarmd.base.errors import InvariantViolation, OutOfRange
from swarmd.cluster.raft.messages import new_conf_state, new_hard_state, new_snapshot, take


class MemoryStorage:
    """Stable part of the log: one snapshot and the entries kept in memory.

    `_entries[i]` has index `_offset + 1 + i`; the term at `_offset` itself stays known, so a
    follower that is exactly there can still be matched (etcd keeps a dummy entry for it).
    """

    def __init__(self) -> None:
        self.hard_state: raftpb.HardState = new_hard_state(0, 0, 0)
        self.conf_state: raftpb.ConfState = new_conf_state(())
        self._snapshot: raftpb.Snapshot = new_snapshot(0, 0, self.conf_state, b"")
        self._entries: list[raftpb.Entry] = []
        self._offset = 0
        self._offset_term = 0

    def first_index(self) -> int:
        """Index of the first entry that `entries` can return."""
        return self._offset + 1

    def last_index(self) -> int:
        """Index of the last entry, or of the snapshot if there is none after it."""
        return self._offset + len(self._entries)

    def term(self, index: int) -> int | None:
        """Term of the entry at `index`; None if it is compacted away or not there yet."""
        position = index - self._offset
        if position == 0:
            return self._offset_term
        if 0 < position <= len(self._entries):
            return self._entries[position - 1].Term
        return None

    def entries(self, lo: int, hi: int, bytes_max: int | None = None) -> list[raftpb.Entry]:
        """Entries with lo <= index < hi, at most `bytes_max` but at least one.

        Raises `OutOfRange` where part of the range is compacted away or not there yet.
        """
        if lo <= self._offset:
            raise OutOfRange(f"raft: index {lo} is compacted, the first is {self.first_index()}")
        if hi > self.last_index() + 1:
            raise OutOfRange(f"raft: index {hi - 1} is not there, the last is {self.last_index()}")
        start = lo - self._offset - 1
        return take(self._entries, start, hi - self._offset - 1, bytes_max)

    def snapshot(self) -> raftpb.Snapshot:
        """The newest snapshot; metadata.index 0 if there is none. Not to be changed."""
        return self._snapshot

    def set_hard_state(self, hard_state: raftpb.HardState) -> None:
        """Keep the newest hard state."""
        self.hard_state = hard_state

    def append(self, entries: Sequence[raftpb.Entry]) -> None:
        """Write entries, replacing what is there from the first one's index on.

        Entries the snapshot already covers are left out. A gap is a bug of the driver.
        """
        if not entries:
            return
        first = entries[0].Index
        if first <= self._offset:
            entries = entries[self._offset + 1 - first :]
            if not entries:
                return
            first = self._offset + 1
        position = first - self._offset - 1
        if position > len(self._entries):
            raise InvariantViolation(
                f"raft: gap in the log: last {self.last_index()}, appending at {first}"
            )
        if position < len(self._entries):
            del self._entries[position:]
        self._entries.extend(entries)

    def apply_snapshot(self, snapshot: raftpb.Snapshot) -> None:
        """Replace log and configuration by a received snapshot.

        Raises `OutOfRange` if it is older than the one at hand.
        """
        index = snapshot.metadata.index
        if index <= self._snapshot.metadata.index and self._snapshot.metadata.index > 0:
            raise OutOfRange(
                f"raft: snapshot {index} is older than {self._snapshot.metadata.index}"
            )
        self._snapshot = snapshot
        self.conf_state = snapshot.metadata.conf_state
        self._entries = []
        self._offset = index
        self._offset_term = snapshot.metadata.term

    def create_snapshot(
        self, index: int, conf_state: raftpb.ConfState, data: bytes
    ) -> raftpb.Snapshot:
        """Make and keep a snapshot of the state after applying `index`; the log stays.

        `conf_state` is the configuration as of `index`. Raises `OutOfRange` if a snapshot at or
        after `index` exists, or the log does not reach it.
        """
        if index <= self._snapshot.metadata.index:
            raise OutOfRange(
                f"raft: snapshot {index} is older than {self._snapshot.metadata.index}"
            )
        term = self.term(index)
        if term is None:
            raise OutOfRange(f"raft: no entry {index} to take a snapshot at")
        self._snapshot = new_snapshot(index, term, conf_state, data)
        self.conf_state = self._snapshot.metadata.conf_state
        return self._snapshot

    def compact(self, index: int) -> None:
        """Forget entries up to and including `index`; never beyond what is applied.

        Raises `OutOfRange` if that was done before or the log does not reach it.
        """
        if index <= self._offset:
            raise OutOfRange(f"raft: already compacted to {self._offset}, asked for {index}")
        term = self.term(index)
        if term is None:
            raise OutOfRange(f"raft: cannot compact to {index}, the last is {self.last_index()}")
        del self._entries[: index - self._offset]
        self._offset = index
        self._offset_term = term
