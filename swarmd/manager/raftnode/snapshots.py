"""Snapshot files in the stock format: one .snap each, {1: crc32c, 2: raftpb.Snapshot}.

The snapshot's data is sealed (encrypted) before it comes here (PROTOCOL 3.7). A file gets its
name only when it is whole and durable, so a named file that does not verify is damage.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from swarmd.api import raftpb
from swarmd.base import varint
from swarmd.manager.raftnode.errors import DiskDamaged
from swarmd.manager.raftnode.files import Files
from swarmd.manager.raftnode.frames import Malformed, SnapshotMark, extend_crc, read_varint

_NAME = re.compile(r"^([0-9a-f]{16})-([0-9a-f]{16})\.snap$")


@dataclass(frozen=True, slots=True)
class SnapshotName:
    """One snapshot file and what its name says of it."""

    path: Path
    mark: SnapshotMark


class SnapshotFiles:
    """The snapshot directory."""

    def __init__(self, directory: Path, files: Files) -> None:
        self._directory = directory
        self._files = files

    def names(self) -> list[SnapshotName]:
        """All snapshots by name, newest first."""
        found = []
        for name in os.listdir(self._directory):
            match = _NAME.match(name)
            if match:
                mark = SnapshotMark(index=int(match[2], 16), term=int(match[1], 16))
                found.append(SnapshotName(self._directory / name, mark))
        return sorted(found, key=lambda found: found.path.name, reverse=True)

    def save(self, snapshot: raftpb.Snapshot) -> None:
        """Write a (sealed) snapshot durably. Raises OSError; then nothing has changed."""
        body = snapshot.SerializeToString()
        mark = SnapshotMark(snapshot.metadata.index, snapshot.metadata.term)
        final = self._directory / f"{mark.term:016x}-{mark.index:016x}.snap"
        temporary = final.with_name(final.name + ".tmp")
        head = b"\x08" + varint.encode(extend_crc(0, body)) + b"\x12" + varint.encode(len(body))
        fd = self._files.open(temporary, create=True)
        try:
            self._files.write(fd, head, 0)
            self._files.write(fd, body, len(head))
            self._files.sync(fd)
        except OSError:
            self._files.remove(temporary)
            raise
        finally:
            os.close(fd)
        self._files.rename(temporary, final)
        self._files.sync_dir(self._directory)

    def load(self, name: SnapshotName) -> raftpb.Snapshot:
        """Read and verify one file. Raises `DiskDamaged`."""
        try:
            return _decode(name)
        except (Malformed, DecodeError) as trouble:
            raise DiskDamaged(str(name.path), None, f"not a snapshot: {trouble}") from trouble

    def set_aside(self, name: SnapshotName) -> None:
        """Rename a damaged file to `.broken`, as stock does, so that it is not tried again."""
        self._files.rename(name.path, name.path.with_name(name.path.name + ".broken"))
        self._files.sync_dir(self._directory)

    def purge(self, keep: int) -> int:
        """Delete all but the newest and `keep` older ones; returns the oldest index kept (or 0)."""
        names = self.names()
        for name in names[keep + 1 :]:
            self._files.remove(name.path)
        kept = names[: keep + 1]
        return kept[-1].mark.index if kept else 0

    def remove_leftovers(self) -> None:
        """Delete files that never got their name."""
        for leftover in sorted(self._directory.glob("*.tmp")):
            self._files.remove(leftover)


def _decode(name: SnapshotName) -> raftpb.Snapshot:
    raw = name.path.read_bytes()
    if not raw:
        raise Malformed("file is empty")
    tag, at = read_varint(raw, 0)
    crc, at = read_varint(raw, at)
    body_tag, at = read_varint(raw, at)
    size, at = read_varint(raw, at)
    if (tag, body_tag) != (0x08, 0x12) or at + size != len(raw):
        raise Malformed("file is cut off or changed")
    body = raw[at:]
    if extend_crc(0, body) != crc:
        raise Malformed("checksum does not match")
    snapshot = raftpb.Snapshot.FromString(body)
    if SnapshotMark(snapshot.metadata.index, snapshot.metadata.term) != name.mark:
        raise Malformed("its name and its content disagree")
    if not snapshot.metadata.index:
        raise Malformed("index is zero")
    return snapshot
