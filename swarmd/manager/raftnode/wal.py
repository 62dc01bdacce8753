"""The write-ahead log: segments in the stock format, appended and synced (PROTOCOL 3.7).

Entries arrive here sealed (encrypted); this module knows order, checksums and durability.
One thread at a time may use a `Wal`. The first failing write or sync shuts it for good.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from swarmd.api import raftpb
from swarmd.manager.raftnode.errors import DiskDamaged, DiskFailed
from swarmd.manager.raftnode.files import Files
from swarmd.manager.raftnode.frames import Kind, Malformed, Record, SnapshotMark, extend_crc, frame
from swarmd.manager.raftnode.segments import (
    Damage,
    Segment,
    SegmentName,
    list_segments,
    read_segment,
)

SEGMENT_BYTES = 64_000_000


@dataclass(slots=True)
class LogContent:
    """What the log says, starting behind one snapshot."""

    start: SnapshotMark
    metadata: bytes = b""
    hard_state: raftpb.HardState = field(default_factory=raftpb.HardState)
    entries: list[raftpb.Entry] = field(default_factory=list)  # consecutive, from start.index + 1
    marked: bool = False  # the start snapshot has its record in the log

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the snapshot when there is none."""
        return self.start.index + len(self.entries)


class Wal:
    """An open, locked log. Made by `create` or by `open` followed by `read` and `attach`."""

    def __init__(self, directory: Path, files: Files, segment_bytes: int) -> None:
        self._directory = directory
        self._files = files
        self._segment_bytes = segment_bytes
        self._segments: list[SegmentName] = []
        self._read: dict[int, Segment] = {}
        self._fd = -1
        self._offset = 0
        self._crc = 0
        self._metadata = b""
        self._state: raftpb.HardState | None = None
        self._failed: DiskFailed | None = None
        self.last_index = 0

    # Making and opening

    @classmethod
    def create(
        cls,
        directory: Path,
        metadata: bytes,
        *,
        hard_state: raftpb.HardState | None = None,
        entries: Sequence[raftpb.Entry] = (),
        start: SnapshotMark | None = None,
        files: Files | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Wal:
        """Make a log that appears on disk whole, with its first records, or not at all.

        `start`: also note a snapshot the entries follow (used when a log is rewritten).
        """
        wal = cls(directory, files or Files(), segment_bytes)
        wal._metadata = metadata
        temporary = directory.with_name(directory.name + ".tmp")
        with wal.latched("create", temporary):
            shutil.rmtree(temporary, ignore_errors=True)
            wal._files.make_dir(temporary)
            name = SegmentName(temporary / _name(0, 0), 0, 0)
            head = [(Kind.SNAPSHOT, SnapshotMark(0, 0).encode())]
            if start is not None and start.index:
                head.append((Kind.SNAPSHOT, start.encode()))
                wal.last_index = start.index
            wal._begin_segment(name, head)
            wal._segments = [SegmentName(directory / name.path.name, 0, 0)]
            wal._put(wal._encode(hard_state, entries))
            wal._files.sync(wal._fd)
            wal._files.sync_dir(temporary)
            wal._files.rename(temporary, directory)
            wal._files.sync_dir(directory.parent)
        return wal

    @classmethod
    def open(
        cls, directory: Path, *, files: Files | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> Wal:
        """Lock the log in `directory`. Raises `DiskDamaged`, or `DiskFailed` when it is in use."""
        wal = cls(directory, files or Files(), segment_bytes)
        wal._segments = list_segments(directory)
        if not wal._segments:
            raise DiskDamaged(str(directory), None, "no log segment in it")
        tail = wal._segments[-1].path
        with wal.latched("open", tail):
            wal._fd = wal._files.open(tail)
            if not wal._files.lock(wal._fd):
                raise BlockingIOError(11, "in use by another process")
        return wal

    def read(self, start: SnapshotMark) -> LogContent:
        """Read what follows snapshot `start`. Raises `DiskDamaged` if that cannot be had."""
        content = LogContent(start)
        first = max((i for i, s in enumerate(self._segments) if s.index <= start.index), default=-1)
        if first < 0:
            raise DiskDamaged(
                str(self._directory),
                None,
                f"no segment reaches back to index {start.index}; "
                f"the first one is {self._segments[0].path.name}",
            )
        crc: int | None = None
        for name in self._segments[first:]:
            segment = self._segment(name, crc)
            crc = segment.crc
            for record in segment.records:
                try:
                    _take(content, record)
                except (Malformed, DecodeError, ValueError) as trouble:
                    raise DiskDamaged(str(name.path), record.offset, str(trouble)) from trouble
        return content

    def _segment(self, name: SegmentName, crc: int | None) -> Segment:
        tail = name is self._segments[-1]
        known = self._read.get(name.sequence)
        if known is None:
            fd = self._fd if tail else self._files.open(name.path)
            try:
                known = read_segment(fd, name, crc, tail=tail)
            finally:
                if not tail:
                    os.close(fd)
            if len(known.records) < 2:
                raise DiskDamaged(str(name.path), 0, "segment has no head")
            self._read[name.sequence] = known
        return known

    @property
    def torn(self) -> Damage | None:
        """What `read` found cut short at the end, until `attach` has cut it off."""
        tail = self._read.get(self._segments[-1].sequence)
        return tail.torn if tail is not None else None

    def attach(self, content: LogContent) -> list[Damage]:
        """Go on behind what `read` found: cut off a torn end, and report it."""
        tail = self._segments[-1]
        segment = self._read[tail.sequence]
        self._offset, self._crc = segment.end, segment.crc
        self._metadata = content.metadata
        self._state = content.hard_state if _is_set(content.hard_state) else None
        self.last_index = content.last_index
        self._read = {}
        with self.latched("repair", tail.path):
            if segment.torn is not None:
                self._files.truncate(self._fd, segment.end)
            if segment.torn is not None or os.fstat(self._fd).st_size < self._segment_bytes:
                self._files.allocate(self._fd, max(self._segment_bytes, segment.end))
                self._files.sync(self._fd)
            for leftover in sorted(self._directory.glob("*.tmp")):
                self._files.remove(leftover)
        return [segment.torn] if segment.torn is not None else []

    # Writing

    @property
    def failure(self) -> DiskFailed | None:
        """Why the log is shut, once a write or sync failed."""
        return self._failed

    @property
    def tail_path(self) -> Path:
        """The segment being written."""
        return self._segments[-1].path

    def save(
        self,
        hard_state: raftpb.HardState | None,
        entries: Sequence[raftpb.Entry],
        *,
        sync: bool = True,
    ) -> None:
        """Append sealed entries, then the hard state; with `sync`, return when durable.

        Raises `DiskFailed`, from then on always.
        """
        with self.latched("write to", self._segments[-1].path):
            self._put(self._encode(hard_state, entries))
            if self._offset >= self._segment_bytes:
                self._cut(self.last_index + 1)
            elif sync:
                self._files.sync(self._fd)

    def mark_snapshot(self, mark: SnapshotMark, conf_state: raftpb.ConfState) -> None:
        """Note durably that a snapshot exists (or is about to). Raises `DiskFailed`."""
        with self.latched("write to", self._segments[-1].path):
            self._put(self._frame(Kind.SNAPSHOT, mark.encode(conf_state)))
            self.last_index = max(self.last_index, mark.index)
            self._files.sync(self._fd)

    def cut(self) -> None:
        """Begin a new segment now; a snapshot at the last index lets all older ones go.

        Its name carries the last index rather than the next one: readers pick the last
        segment not above their snapshot's index, and this one is complete for that index.
        """
        with self.latched("write to", self._segments[-1].path):
            self._cut(self.last_index)

    def release(self, index: int) -> None:
        """Delete segments not needed by a reader that starts at snapshot `index`."""
        needed = max((i for i, s in enumerate(self._segments) if s.index <= index), default=0)
        if needed == 0:
            return
        with self.latched("delete from", self._directory):
            for name in self._segments[:needed]:
                self._files.remove(name.path)
            self._segments = self._segments[needed:]
            self._files.sync_dir(self._directory)

    def close(self) -> None:
        """Let go of the file and its lock; what was not synced is the kernel's affair."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Inside

    @contextlib.contextmanager
    def latched(self, action: str, path: Path) -> Iterator[None]:
        """Turn an OSError into `DiskFailed`, now and at every later use of the log."""
        if self._failed is not None:
            raise self._failed
        try:
            yield
        except OSError as error:
            self._failed = DiskFailed(action, str(path), error)
            self.close()
            raise self._failed from error

    def _frame(self, kind: Kind, data: bytes) -> bytes:
        self._crc = extend_crc(self._crc, data)
        return frame(kind, self._crc, data)

    def _encode(
        self, hard_state: raftpb.HardState | None, entries: Sequence[raftpb.Entry]
    ) -> bytes:
        frames = []
        for entry in entries:
            frames.append(self._frame(Kind.ENTRY, entry.SerializeToString()))
            self.last_index = entry.Index
        if hard_state is not None and _is_set(hard_state):
            self._state = hard_state
            frames.append(self._frame(Kind.STATE, _state_bytes(hard_state)))
        return b"".join(frames)

    def _put(self, data: bytes) -> None:
        self._files.write(self._fd, data, self._offset)
        self._offset += len(data)

    def _begin_segment(self, name: SegmentName, records: Sequence[tuple[Kind, bytes]]) -> None:
        """Make a segment file with its head; it becomes the tail. Not synced, not renamed."""
        self._fd = self._files.open(name.path, create=True)
        if not self._files.lock(self._fd):
            raise BlockingIOError(11, "in use by another process")
        self._files.allocate(self._fd, self._segment_bytes)
        self._offset = 0
        self._put(frame(Kind.CRC, self._crc, None))
        self._put(self._frame(Kind.METADATA, self._metadata))
        for kind, data in records:
            self._put(self._frame(kind, data))

    def _cut(self, index: int) -> None:
        old = self._fd
        self._files.truncate(old, self._offset)
        self._files.sync(old)
        last = self._segments[-1]
        final = self._directory / _name(last.sequence + 1, index)
        name = SegmentName(final, last.sequence + 1, index)
        temporary = final.with_name(final.name + ".tmp")
        state = [] if self._state is None else [(Kind.STATE, _state_bytes(self._state))]
        try:
            self._begin_segment(SegmentName(temporary, name.sequence, index), state)
        finally:
            if self._fd != old:
                os.close(old)
        self._files.sync(self._fd)
        self._files.rename(temporary, final)
        self._files.sync_dir(self._directory)
        self._segments.append(name)


def _name(sequence: int, index: int) -> str:
    return f"{sequence:016x}-{index:016x}.wal"


def _is_set(state: raftpb.HardState) -> bool:
    return bool(state.term or state.vote or state.commit)


def _state_bytes(state: raftpb.HardState) -> bytes:
    """Marshalled with every field, as stock does."""
    full = raftpb.HardState(term=state.term, vote=state.vote, commit=state.commit)
    return full.SerializeToString()


def _take(content: LogContent, record: Record) -> None:
    """Add one record to what the log says. Raises `Malformed`, `DecodeError`, `ValueError`."""
    if record.kind is Kind.METADATA:
        if content.metadata and content.metadata != record.data:
            raise Malformed("two different members wrote this log")
        content.metadata = record.data
    elif record.kind is Kind.STATE:
        content.hard_state = raftpb.HardState.FromString(record.data)
        if _state_bytes(content.hard_state) != record.data:
            raise Malformed("not a hard state")
    elif record.kind is Kind.SNAPSHOT:
        mark = SnapshotMark.decode(record.data)
        if mark.index == content.start.index:
            if mark.term != content.start.term:
                raise Malformed(f"snapshot {mark.index} has term {mark.term} here")
            content.marked = True
    elif record.kind is Kind.ENTRY:
        _take_entry(content, raftpb.Entry.FromString(record.data))


def _take_entry(content: LogContent, entry: raftpb.Entry) -> None:
    place = entry.Index - content.start.index - 1
    if place < 0:
        return
    if place > len(content.entries):
        raise Malformed(f"entry {entry.Index} follows entry {content.last_index}: some are missing")
    del content.entries[place:]  # a new leader replaced what followed
    content.entries.append(entry)
