"""Reading segments of the write-ahead log, and telling a torn tail from damage.

A crash may leave the write in progress half there: sectors of it read as zero, or the file
ends. It was never acknowledged, so the log ends before it. Anything else that does not verify
was once whole: the load is refused with the place, because it may have been acknowledged. The
two are told apart in `_Scan._torn`; when in doubt it is damage.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from swarmd.api import raftpb
from swarmd.manager.raftnode.errors import DiskDamaged
from swarmd.manager.raftnode.files import last_data
from swarmd.manager.raftnode.frames import (
    HEADER_BYTES,
    SECTOR_BYTES,
    Kind,
    Malformed,
    Record,
    extend_crc,
    parse_length,
    parse_record,
    read_varint,
    record_bytes_max,
)

_NAME = re.compile(r"^([0-9a-f]{16})-([0-9a-f]{16})\.wal$")
# A header with its four high length bytes, then the first two field tags of a record.
_FRAME = re.compile(rb"[^\0][\s\S]{3}\0\0\0[\0\x81-\x87]\x08[\x01-\x05]\x10")


# Every segment begins with these, so that it can be read alone. The type of a record is not
# covered by its checksum: this order, and the strict reading of contents, stand in for that.
_HEAD = (Kind.CRC, Kind.METADATA)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something found broken and put right while loading; to be reported, never hidden."""

    path: str
    offset: int | None
    what: str

    def __str__(self) -> str:
        where = self.path if self.offset is None else f"{self.path} at offset {self.offset}"
        return f"{where}: {self.what}"


@dataclass(frozen=True, slots=True)
class SegmentName:
    """One segment file: running number, and an index no entry of it lies below."""

    path: Path
    sequence: int
    index: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as read: its records, where they end and the checksum so far."""

    records: tuple[Record, ...]
    end: int
    crc: int
    torn: Damage | None = None


def list_segments(directory: Path) -> list[SegmentName]:
    """The segments in `directory`, oldest first. Raises `DiskDamaged` if one is missing."""
    found = []
    for name in sorted(os.listdir(directory)):
        match = _NAME.match(name)
        if match:
            found.append(SegmentName(directory / name, int(match[1], 16), int(match[2], 16)))
        elif name.endswith(".wal"):
            raise DiskDamaged(str(directory / name), None, "not the name of a log segment")
    for before, after in itertools.pairwise(found):
        if after.sequence != before.sequence + 1 or after.index < before.index:
            raise DiskDamaged(
                str(after.path),
                None,
                f"segments are not consecutive: {before.path.name} comes before it",
            )
    return found


def read_segment(fd: int, name: SegmentName, crc: int | None, *, tail: bool) -> Segment:
    """Read a segment that follows records with checksum `crc` (None: not known).

    Raises `DiskDamaged`; only in the last segment (`tail`) a torn end is accepted.
    """
    return _Scan(fd, name, tail).run(crc)


class _Scan:
    def __init__(self, fd: int, name: SegmentName, tail: bool) -> None:
        self._path = name.path
        self._index = name.index
        self._tail = tail
        self._size = os.fstat(fd).st_size
        self._end = last_data(fd, 0, self._size)  # everything from here on is zero
        self._data = self._read(fd)

    def _read(self, fd: int) -> bytes:
        parts = []
        offset = 0
        while offset < self._end:
            block = os.pread(fd, min(1 << 24, self._end - offset), offset)
            if not block:
                raise DiskDamaged(str(self._path), offset, "file shrank while reading")
            parts.append(block)
            offset += len(block)
        return b"".join(parts)

    def _take(self, start: int, stop: int) -> bytes:
        """Bytes `start`..`stop` (within the file), with the zeros behind the data."""
        return self._data[start:stop].ljust(stop - start, b"\0")

    def run(self, crc: int | None) -> Segment:
        records: list[Record] = []
        offset = 0
        torn: Damage | None = None
        while offset < self._end:
            try:
                record, crc, after = self._next(offset, crc)
            except Malformed as trouble:
                torn = self._torn(offset, crc, str(trouble), records)
                break
            if len(records) < len(_HEAD) and record.kind is not _HEAD[len(records)]:
                raise DiskDamaged(str(self._path), offset, "not the head of a segment")
            records.append(record)
            offset = after
        return Segment(tuple(records), offset, self._known(crc), torn)

    def _known(self, crc: int | None) -> int:
        if crc is None:
            raise DiskDamaged(str(self._path), 0, "segment does not begin with a checksum record")
        return crc

    def _next(self, offset: int, crc: int | None) -> tuple[Record, int, int]:
        """The record at `offset`, the checksum after it and the place after its frame."""
        if offset + HEADER_BYTES > self._size:
            raise Malformed("frame header is cut off")
        header = self._take(offset, offset + HEADER_BYTES)
        if not any(header):
            raise Malformed("data after the end mark")
        length, padding = parse_length(header)
        start = offset + HEADER_BYTES
        stop = start + length
        if length > record_bytes_max or stop + padding > self._size:
            raise Malformed("record does not fit in the file")
        if padding != -length % 8 or header[7] not in (0, 0x80 | padding) or not length:
            raise Malformed("frame header is not valid")
        kind, stored, data = parse_record(self._take(start, stop))
        if kind is Kind.CRC:
            if crc is not None and stored != crc:
                raise Malformed("checksum handed on does not match the records before it")
            return Record(offset, kind, data), stored, stop + padding
        if crc is None:
            raise DiskDamaged(
                str(self._path), offset, "segment does not begin with a checksum record"
            )
        if extend_crc(crc, data) != stored:
            raise Malformed("checksum does not match")
        return Record(offset, kind, data), stored, stop + padding

    def _torn(self, offset: int, crc: int | None, what: str, before: list[Record]) -> Damage:
        """The report of a write cut short at `offset`; raises `DiskDamaged` if it is not one."""
        following = self._following(offset)
        stop = following[0].offset if following else None
        if not self._tail or not self._is_torn(offset, crc, stop):
            raise DiskDamaged(str(self._path), offset, what)
        if self._was_durable(before, following):
            raise DiskDamaged(
                str(self._path), offset, f"{what}, and records behind it were written later"
            )
        return Damage(
            str(self._path),
            offset,
            f"{what}: a write was cut short; {self._end - offset} bytes that were never "
            "acknowledged were removed",
        )

    def _following(self, offset: int) -> list[Record]:
        """Everything shaped like a whole record behind the broken one at `offset`.

        Shape is proof enough: the fixed bytes of a header and a record hit by chance in
        encrypted data once in 2**50 places.
        """
        found = []
        at = offset + HEADER_BYTES
        while match := _FRAME.search(self._data, at):
            at = match.start() + 1
            if match.start() % HEADER_BYTES:
                continue
            length, padding = parse_length(match[0][:HEADER_BYTES])
            start = match.start() + HEADER_BYTES
            if start + length > self._size or padding != -length % 8:
                continue
            try:
                kind, _, data = parse_record(self._take(start, start + length))
            except Malformed:
                continue
            found.append(Record(match.start(), kind, data))
            at = start + length + padding
        return found

    def _was_durable(self, before: list[Record], following: list[Record]) -> bool:
        """True if later records prove that the broken one was synced, so it was damaged since.

        Sectors of one write reach the disk in any order, so its end may be there and its
        start not. But each sync ends a write, and a commit index covering the broken entry is
        written in a later one: unless that entry's own write carries it, with nothing between.
        """
        entries = [record for record in before if record.kind is Kind.ENTRY]
        lost = raftpb.Entry.FromString(entries[-1].data).Index + 1 if entries else self._index
        later = False
        for record in following:
            if record.kind in (Kind.METADATA, Kind.CRC, Kind.SNAPSHOT):
                return True  # written and synced on their own
            if record.kind is Kind.STATE:
                if later and raftpb.HardState.FromString(record.data).commit >= lost:
                    return True
            else:
                later = True
        return False

    def _is_torn(self, offset: int, crc: int | None, following: int | None) -> bool:
        """Decide whether the record at `offset` was cut short rather than changed later.

        `following`: where the next whole record begins, if there is one.
        """
        start = offset + HEADER_BYTES
        length, padding = parse_length(self._take(offset, start))
        stop = start + length
        if stop <= self._size < stop + padding:
            return True  # the file ends in the padding
        if self._whole_behind_bad_header(start, crc):
            return False
        if following is not None:
            return self._has_empty_sector(offset, following)
        if self._end <= start or not any(self._take(offset, start)):
            return True  # a header at most, or its sector never reached the disk
        if length > record_bytes_max or stop + padding > self._size:
            # A tear if the file ends where its data does, or if the record says of itself that
            # it is so long: a process that is killed leaves whole pages of the write behind,
            # and the file not yet longer. A header changed later would stand alone with that.
            return self._size - self._end < SECTOR_BYTES or self._says_length(start, length)
        boundary = (stop - 1) // SECTOR_BYTES * SECTOR_BYTES
        missing = stop - self._end
        if missing >= HEADER_BYTES or (missing > 0 and self._end <= boundary and boundary > start):
            return True
        return self._has_empty_sector(start, stop)

    def _says_length(self, start: int, length: int) -> bool:
        """True if the record at `start` is, by its own fields, as long as its header says."""
        fields = self._fields(start)
        return fields is not None and fields[1] + fields[0][0x1A] == start + length

    def _fields(self, start: int) -> tuple[dict[int, int], int] | None:
        """The numbers of a record with data (the last one is its size) and where that begins."""
        try:
            at = start
            fields: dict[int, int] = {}
            for tag in (0x08, 0x10, 0x1A):
                found, at = read_varint(self._data, at)
                if found != tag:
                    return None
                fields[tag], at = read_varint(self._data, at)
        except Malformed:
            return None
        return fields, at

    def _whole_behind_bad_header(self, start: int, crc: int | None) -> bool:
        """True if the record itself is whole, so only its header was changed."""
        found = self._fields(start)
        if found is None:
            return False
        fields, at = found
        stop = at + fields[0x1A]
        if crc is None or stop > self._size or fields[0x1A] > record_bytes_max:
            return False
        return extend_crc(crc, self._take(at, stop)) == fields[0x10]

    def _has_empty_sector(self, start: int, stop: int) -> bool:
        at = start
        while at < stop:
            edge = min((at // SECTOR_BYTES + 1) * SECTOR_BYTES, stop)
            if edge - at >= HEADER_BYTES and not any(self._take(at, edge)):
                return True
            at = edge
        return False
