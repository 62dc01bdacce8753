"""The log as Raft sees it: storage, unstable tail, and the commit and applied cursors."""

from __future__ import annotations

from collections.abc import Sequence

from swarmd.api import raftpb
from swarmd.base.errors import InvariantViolation
from swarmd.cluster.raft.messages import CONF_CHANGE, size_of, take
from swarmd.cluster.raft.storage import MemoryStorage
from swarmd.cluster.raft.unstable import Unstable


class RaftLog:
    """applied <= applying <= committed <= last index, always.

    `applying` is the last index handed to the driver, `applied` the last it acknowledged.
    """

    __slots__ = ("applied", "applying", "committed", "committed_size_max", "storage", "unstable")

    def __init__(self, storage: MemoryStorage, committed_size_max: int | None = None) -> None:
        self.storage = storage
        self.unstable = Unstable(storage.last_index() + 1)
        before_first = storage.first_index() - 1
        self.committed = before_first
        self.applying = before_first
        self.applied = before_first
        self.committed_size_max = committed_size_max

    def first_index(self) -> int:
        """Index of the first entry that is not compacted away."""
        snapshot = self.unstable.snapshot
        if snapshot is not None:
            return snapshot.metadata.index + 1
        return self.storage.first_index()

    def last_index(self) -> int:
        """Index of the last entry, durable or not."""
        unstable = self.unstable
        if unstable.entries:
            return unstable.offset + len(unstable.entries) - 1
        if unstable.snapshot is not None:
            return unstable.snapshot.metadata.index
        return self.storage.last_index()

    def term(self, index: int) -> int | None:
        """Term at `index`; None if that entry is compacted away or does not exist."""
        known = self.unstable.term(index)
        if known is not None:
            return known
        if index > self.last_index() or index + 1 < self.first_index():
            return None
        return self.storage.term(index)

    def last_term(self) -> int:
        """Term of the last entry."""
        term = self.term(self.last_index())
        if term is None:
            raise InvariantViolation(f"raft: no term for the last index {self.last_index()}")
        return term

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at `index` exists here with that term."""
        return self.term(index) == term

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log ending there is at least as complete as ours (paper, 5.4.1)."""
        own = self.last_term()
        return term > own or (term == own and index >= self.last_index())

    def append(self, entries: Sequence[raftpb.Entry]) -> int:
        """Add entries, cutting a conflicting tail; returns the last index."""
        if not entries:
            return self.last_index()
        before = entries[0].Index - 1
        if before < self.committed:
            raise InvariantViolation(
                f"raft: appending after {before} would replace committed entries "
                f"(committed {self.committed})"
            )
        self.unstable.append(entries)
        return self.last_index()

    def try_append(
        self, index: int, term: int, entries: Sequence[raftpb.Entry], commit: int
    ) -> int | None:
        """Take a leader's entries that follow (index, term).

        Returns the last index they cover, or None if the log does not match there (5.3).
        """
        if not self.matches(index, term):
            return None
        last_new = index + len(entries)
        fresh = self._first_fresh(entries)
        if fresh is not None:
            conflict = entries[fresh].Index
            if conflict <= self.committed:
                raise InvariantViolation(
                    f"raft: entry {conflict} conflicts with a committed one "
                    f"(committed {self.committed})"
                )
            self.append(entries[fresh:] if fresh else entries)
        self.commit_to(min(commit, last_new))
        return last_new

    def _first_fresh(self, entries: Sequence[raftpb.Entry]) -> int | None:
        """Position of the first entry that is new or conflicts; None if all are here."""
        for position, entry in enumerate(entries):
            if not self.matches(entry.Index, entry.Term):
                return position
        return None

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """The last (index, term) at or before `index` whose term is not above `term`.

        Both sides use it to skip a whole term per rejected probe. The term is 0 where the log
        is compacted or does not reach.
        """
        while index > 0:
            own = self.term(index)
            if own is None:
                return index, 0
            if own <= term:
                return index, own
            index -= 1
        return 0, 0

    def commit_to(self, index: int) -> None:
        """Raise the commit index; a value beyond the log means lost data."""
        if index <= self.committed:
            return
        if index > self.last_index():
            raise InvariantViolation(
                f"raft: commit {index} is beyond the last index {self.last_index()}; "
                "was the log damaged, cut or lost?"
            )
        self.committed = index

    def try_commit(self, index: int, term: int) -> bool:
        """Commit up to `index` if its entry is of the leader's own `term` (5.4.2)."""
        if index <= self.committed or not self.matches(index, term):
            return False
        self.commit_to(index)
        return True

    def slice(self, lo: int, hi: int, bytes_max: int | None) -> list[raftpb.Entry] | None:
        """Entries lo <= index < hi up to `bytes_max`, at least one; None if compacted."""
        if lo >= hi:
            return []
        if lo < self.first_index():
            return None
        if hi > self.last_index() + 1:
            raise InvariantViolation(f"raft: slice to {hi} beyond the last {self.last_index()}")
        unstable = self.unstable
        offset = unstable.offset
        if lo >= offset:
            return take(unstable.entries, lo - offset, hi - offset, bytes_max)
        cut = min(hi, offset)
        entries = self.storage.entries(lo, cut, bytes_max)
        if hi <= offset or len(entries) < cut - lo:
            return entries
        if bytes_max is None:
            return entries + unstable.entries[: hi - offset]
        room = bytes_max - size_of(entries)
        more = take(unstable.entries, 0, hi - offset, room) if room > 0 else []
        if len(more) == 1 and more[0].ByteSize() > room:
            return entries
        return entries + more

    def next_committed(self) -> tuple[raftpb.Entry, ...]:
        """Committed entries the driver has not been given yet, a bounded batch of them."""
        if not self.has_next_committed():
            return ()
        entries = self.slice(self.applying + 1, self.committed + 1, self.committed_size_max)
        if entries is None:
            raise InvariantViolation(
                f"raft: entry {self.applying + 1} is compacted before it was applied"
            )
        return tuple(entries)

    def has_next_committed(self) -> bool:
        """Whether there are committed entries to apply; a pending snapshot comes first."""
        return self.committed > self.applying and self.unstable.snapshot is None

    def applied_to(self, index: int) -> None:
        """Move the applied cursor."""
        if index < self.applied or index > self.committed:
            raise InvariantViolation(
                f"raft: applied {index} outside [{self.applied}, {self.committed}]"
            )
        self.applied = index
        self.applying = max(self.applying, index)

    def has_unapplied_conf_change(self) -> bool:
        """Whether a committed configuration change waits to be applied."""
        lo = self.applied + 1
        while lo <= self.committed:
            page = self.slice(lo, self.committed + 1, self.committed_size_max)
            if not page:
                # Covered by a snapshot on its way in, which brings its own configuration.
                return False
            if any(entry.Type != 0 for entry in page):
                return True
            lo += len(page)
        return False

    def restore(self, snapshot: raftpb.Snapshot) -> None:
        """Start over from a received snapshot."""
        self.committed = snapshot.metadata.index
        self.unstable.restore(snapshot)


def is_conf_change(entry: raftpb.Entry) -> bool:
    """Whether the entry holds a single-step configuration change (never the V2 kind)."""
    return entry.Type == CONF_CHANGE
