"""The tail of the log that is not yet acknowledged as durable, and a snapshot on its way in."""

from __future__ import annotations

from collections.abc import Sequence

from swarmd.api import raftpb
from swarmd.base.errors import InvariantViolation


class Unstable:
    """Entries from `offset` on; those before `offset_in_progress` are with the driver now.

    `offset` may be below the storage's last index: then these entries replace stored ones.
    """

    __slots__ = ("entries", "offset", "offset_in_progress", "snapshot", "snapshot_in_progress")

    def __init__(self, offset: int) -> None:
        self.entries: list[raftpb.Entry] = []
        self.offset = offset
        self.offset_in_progress = offset
        self.snapshot: raftpb.Snapshot | None = None
        self.snapshot_in_progress = False

    def last_index(self) -> int | None:
        """Index of the last entry or of the snapshot; None if there is neither."""
        if self.entries:
            return self.offset + len(self.entries) - 1
        if self.snapshot is not None:
            return self.snapshot.metadata.index
        return None

    def term(self, index: int) -> int | None:
        """Term at `index`, or None if it is not known here."""
        position = index - self.offset
        if 0 <= position < len(self.entries):
            return self.entries[position].Term
        snapshot = self.snapshot
        if snapshot is not None and snapshot.metadata.index == index:
            return snapshot.metadata.term
        return None

    def next_entries(self) -> tuple[raftpb.Entry, ...]:
        """Entries the driver has not been given yet."""
        return tuple(self.entries[self.offset_in_progress - self.offset :])

    def has_next_entries(self) -> bool:
        """Whether `next_entries` is not empty."""
        return self.offset + len(self.entries) > self.offset_in_progress

    def next_snapshot(self) -> raftpb.Snapshot | None:
        """The snapshot the driver has not been given yet."""
        return None if self.snapshot_in_progress else self.snapshot

    def accept(self) -> None:
        """Note that the driver was given everything."""
        self.offset_in_progress = self.offset + len(self.entries)
        if self.snapshot is not None:
            self.snapshot_in_progress = True

    def stable_to(self, index: int, term: int) -> None:
        """Drop entries up to `index`, now durable, unless they were replaced meanwhile.

        The term tells: an entry of another term at that index is not the one made durable.
        """
        position = index - self.offset
        if position < 0 or position >= len(self.entries):
            return
        if self.entries[position].Term != term:
            return
        del self.entries[: position + 1]
        self.offset = index + 1
        self.offset_in_progress = max(self.offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """Drop the snapshot, now durable, unless a newer one came meanwhile."""
        if self.snapshot is not None and self.snapshot.metadata.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def restore(self, snapshot: raftpb.Snapshot) -> None:
        """Start over after a snapshot."""
        self.offset = snapshot.metadata.index + 1
        self.offset_in_progress = self.offset
        self.entries = []
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def append(self, entries: Sequence[raftpb.Entry]) -> None:
        """Add entries at their index, replacing what is there from the first one on."""
        first = entries[0].Index
        position = first - self.offset
        if position == len(self.entries):
            self.entries.extend(entries)
        elif position <= 0:
            # Everything here is replaced; storage keeps older entries until the driver writes.
            self.entries = list(entries)
            self.offset = first
            self.offset_in_progress = first
        elif position < len(self.entries):
            del self.entries[position:]
            self.entries.extend(entries)
            self.offset_in_progress = min(self.offset_in_progress, first)
        else:
            raise InvariantViolation(
                f"raft: gap in the log: last {self.offset + len(self.entries) - 1}, "
                f"appending at {first}"
            )
