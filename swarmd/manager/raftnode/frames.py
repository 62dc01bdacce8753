"""Records of the write-ahead log: bytes in, values out; no files (PROTOCOL 3.7).

A frame is an 8-byte little-endian length, a record and padding to 8 bytes. Low 56 bits of the
length: record bytes; if the top bit is set, the three bits above those 56 count the padding.
A record is {1: type, 2: crc, 3: data}; its crc is CRC-32C over the data of all records so
far, and a record of type CRC at the head of each segment hands that value on.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

import google_crc32c

from swarmd.api import raftpb
from swarmd.base import varint

HEADER_BYTES = 8
SECTOR_BYTES = 512  # a disk writes these whole or not at all
_LENGTH_BITS = (1 << 56) - 1
# Far above the largest entry (1.5 MiB and its envelope); a length beyond it is no length.
record_bytes_max = 64 << 20


class Kind(enum.IntEnum):
    """Record types, numbers as on disk."""

    METADATA = 1
    ENTRY = 2
    STATE = 3
    CRC = 4
    SNAPSHOT = 5


@dataclass(frozen=True, slots=True)
class Record:
    """One record as found: where its frame begins, its type and its data."""

    offset: int
    kind: Kind
    data: bytes


class Malformed(Exception):
    """The bytes at this place are not a record."""


def extend_crc(crc: int, data: bytes) -> int:
    """CRC-32C of what `crc` covers followed by `data`."""
    return int(google_crc32c.extend(crc, data))


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and the place after it. Raises `Malformed`."""
    try:
        return varint.decode(data, at)
    except ValueError as error:
        raise Malformed(str(error)) from None


def frame(kind: Kind, crc: int, data: bytes | None) -> bytes:
    """One frame; `crc` already covers `data`. None leaves the data field out (CRC records)."""
    record = b"\x08" + varint.encode(kind) + b"\x10" + varint.encode(crc)
    if data is not None:
        record = b"".join((record, b"\x1a", varint.encode(len(data)), data))
    padding = -len(record) % 8
    length = len(record) | ((0x80 | padding) << 56 if padding else 0)
    return b"".join((struct.pack("<Q", length), record, b"\0" * padding))


def parse_length(header: bytes) -> tuple[int, int]:
    """Record bytes and padding bytes announced by an 8-byte header."""
    (length,) = struct.unpack("<Q", header)
    padding = (length >> 56) & 0x7 if length >> 63 else 0
    return length & _LENGTH_BITS, padding


def parse_record(data: bytes) -> tuple[Kind, int, bytes]:
    """Type, crc and data of one record. Raises `Malformed`."""
    kind = crc = 0
    body = b""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag == 0x1A:
            size, at = read_varint(data, at)
            if at + size > len(data):
                raise Malformed("data is cut off")
            body = data[at : at + size]
            at += size
        elif tag in (0x08, 0x10):
            number, at = read_varint(data, at)
            kind, crc = (number, crc) if tag == 0x08 else (kind, number)
        else:
            raise Malformed(f"unknown field tag {tag:#x}")
    if kind not in Kind._value2member_map_:
        raise Malformed(f"unknown record type {kind}")
    return Kind(kind), crc, body


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """A snapshot record: the log says that a snapshot of this index and term was taken."""

    index: int
    term: int

    def encode(self, conf_state: raftpb.ConfState | None = None) -> bytes:
        """As stock writes it; `conf_state` is there from Engine 23 on and ignored before."""
        out = b"\x08" + varint.encode(self.index) + b"\x10" + varint.encode(self.term)
        if conf_state is not None:
            body = conf_state.SerializeToString()
            out += b"\x1a" + varint.encode(len(body)) + body
        return out

    @classmethod
    def decode(cls, data: bytes) -> SnapshotMark:
        """Raises `Malformed`."""
        index = term = 0
        at = 0
        while at < len(data):
            tag, at = read_varint(data, at)
            number, at = read_varint(data, at)
            if tag == 0x08:
                index = number
            elif tag == 0x10:
                term = number
            elif tag & 7 == 2:
                at += number
            elif tag & 7 != 0:
                raise Malformed(f"unknown field tag {tag:#x}")
        if at != len(data):
            raise Malformed("snapshot mark is cut off")
        return cls(index, term)
