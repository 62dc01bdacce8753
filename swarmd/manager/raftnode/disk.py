"""The member's raft directory: encrypted log and snapshots behind one facade.

Opens what a stock engine wrote and writes what a stock engine opens, given the data
encryption key (PROTOCOL 1.7, 3.7). All calls block; use it from one thread, except
`write_snapshot`, which may run beside the others.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError

from swarmd import api
from swarmd.api import raftpb
from swarmd.manager.raftnode.errors import DiskDamaged, DiskFailed
from swarmd.manager.raftnode.files import Files
from swarmd.manager.raftnode.frames import SnapshotMark
from swarmd.manager.raftnode.segments import Damage
from swarmd.manager.raftnode.snapshots import SnapshotFiles, SnapshotName
from swarmd.manager.raftnode.wal import SEGMENT_BYTES, LogContent, Wal

WAL_DIR = "wal-v3-encrypted"
SNAPSHOT_DIR = "snap-v3-encrypted"
# Names that older engines used, newest first; records in them are in clear.
LEGACY_DIRS = (("wal-v3", "snap-v3"), ("wal", "snap"))


class Encryptor(Protocol):
    """Seals data as a marshalled `MaybeEncryptedRecord`."""

    def encrypt(self, data: bytes) -> bytes:
        """The sealed form of `data`."""
        ...


class Decryptor(Protocol):
    """Opens what an `Encryptor` sealed."""

    def decrypt(self, data: bytes) -> bytes:
        """The clear data; raises if no key fits."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A member's raft state, in clear, and the disk to go on with."""

    disk: RaftDisk
    member: api.RaftMember
    hard_state: raftpb.HardState
    entries: tuple[raftpb.Entry, ...]  # consecutive, behind the snapshot
    snapshot: raftpb.Snapshot | None
    damage: tuple[Damage, ...] = ()


@dataclass(slots=True)
class _Rotation:
    """A change of key under way: finished by a snapshot at `index` or above."""

    index: int
    done: Callable[[], None]


@dataclass(slots=True)
class _Choice:
    """Where to start from: the newest snapshot that is whole and known to the log."""

    content: LogContent
    snapshot: raftpb.Snapshot | None = None
    damage: list[Damage] = field(default_factory=list)
    broken: list[SnapshotName] = field(default_factory=list)


class RaftDisk:
    """Everything one raft member keeps on disk. Made by `create` or `load`."""

    def __init__(self, wal: Wal, snapshots: SnapshotFiles, encryptor: Encryptor) -> None:
        self._wal = wal
        self._snapshots = snapshots
        self._encryptor = encryptor
        self._rotation: _Rotation | None = None
        self._snapshot_index = 0
        self._current_key_index = 0  # newest snapshot sealed with the key in use

    @staticmethod
    def exists(directory: Path) -> bool:
        """True if `directory` (`<state>/raft`) holds a log, of today's or of an older name.

        Snapshots alone count too: a member that lost its log must not start a new cluster
        over them, so `load` has to refuse.
        """
        logs = (WAL_DIR, *(wal for wal, _ in LEGACY_DIRS))
        return any(any((directory / name).glob("*.wal")) for name in logs) or any(
            (directory / SNAPSHOT_DIR).glob("*.snap")
        )

    @classmethod
    def create(
        cls,
        directory: Path,
        member: api.RaftMember,
        encryptor: Encryptor,
        *,
        hard_state: raftpb.HardState | None = None,
        entries: Sequence[raftpb.Entry] = (),
        snapshot: raftpb.Snapshot | None = None,
        files: Files | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> RaftDisk:
        """Start the log of `member`; first records, if given, appear with it or not at all.

        `snapshot` (in clear) is where `entries` start from: to write a whole state anew.
        """
        files = files or Files()
        files.make_dir(directory / SNAPSHOT_DIR)
        snapshots = SnapshotFiles(directory / SNAPSHOT_DIR, files)
        start = None
        if snapshot is not None:
            snapshots.save(_sealed_snapshot(snapshot, encryptor))
            start = SnapshotMark(snapshot.metadata.index, snapshot.metadata.term)
        wal = Wal.create(
            directory / WAL_DIR,
            member.SerializeToString(),
            hard_state=hard_state,
            entries=[_sealed(entry, encryptor) for entry in entries],
            start=start,
            files=files,
            segment_bytes=segment_bytes,
        )
        files.sync_dir(directory.parent)
        disk = cls(wal, snapshots, encryptor)
        disk._snapshot_index = start.index if start is not None else 0
        return disk

    @classmethod
    def load(
        cls,
        directory: Path,
        encryptor: Encryptor,
        decryptor: Decryptor,
        *,
        files: Files | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Loaded:
        """Open the state in `directory`, putting a torn end right.

        Raises `DiskDamaged` (file and offset) when what was acknowledged cannot be had,
        `DiskFailed` when the log is in use, and what `decryptor` raises for a wrong key.
        """
        files = files or Files()
        migrated = _migrate(directory, encryptor, files, segment_bytes)
        files.make_dir(directory / SNAPSHOT_DIR)
        wal = Wal.open(directory / WAL_DIR, files=files, segment_bytes=segment_bytes)
        try:
            snapshots = SnapshotFiles(directory / SNAPSHOT_DIR, files)
            choice = _choose(wal, snapshots)
            loaded = _open(cls(wal, snapshots, encryptor), choice, decryptor)
            torn = wal.attach(choice.content)
            for name in choice.broken:
                snapshots.set_aside(name)
            snapshots.remove_leftovers()
        except BaseException:
            wal.close()
            raise
        return Loaded(
            loaded.disk,
            loaded.member,
            loaded.hard_state,
            loaded.entries,
            loaded.snapshot,
            (*migrated, *choice.damage, *torn),
        )

    # Writing

    @property
    def failure(self) -> DiskFailed | None:
        """Why the log is shut, once a write or sync failed."""
        return self._wal.failure

    def save(
        self,
        hard_state: raftpb.HardState | None,
        entries: Sequence[raftpb.Entry],
        *,
        sync: bool = True,
    ) -> None:
        """Append entries and hard state; with `sync`, return once durable. Raises `DiskFailed`."""
        sealed = [_sealed(entry, self._encryptor) for entry in entries]
        self._wal.save(hard_state, sealed, sync=sync)

    def mark_snapshot(self, metadata: raftpb.SnapshotMetadata) -> None:
        """Note in the log that this snapshot is being written. Raises `DiskFailed`."""
        mark = SnapshotMark(metadata.index, metadata.term)
        self._wal.mark_snapshot(mark, metadata.conf_state)

    def write_snapshot(self, snapshot: raftpb.Snapshot) -> None:
        """Write the file of a marked snapshot. Raises OSError; the older ones still count."""
        encryptor = self._encryptor
        self._snapshots.save(_sealed_snapshot(snapshot, encryptor))
        self._snapshot_index = max(self._snapshot_index, snapshot.metadata.index)
        if encryptor is self._encryptor:
            self._current_key_index = self._snapshot_index

    def adopt_snapshot(self, snapshot: raftpb.Snapshot) -> None:
        """Mark and write a snapshot that replaces the log. Raises `DiskFailed`."""
        self.mark_snapshot(snapshot.metadata)
        with self._wal.latched("write snapshot for", self._wal.tail_path):
            self.write_snapshot(snapshot)

    def purge(self, keep_old: int) -> None:
        """Delete snapshots beyond the newest and `keep_old` older ones, and log behind them.

        Ends a rotation when the newest snapshot has reached its index; then nothing sealed
        with the old key is kept, whatever `keep_old` says.
        """
        rotation = self._rotation
        finished = rotation is not None and self._current_key_index >= rotation.index
        oldest = self._snapshots.purge(0 if finished else keep_old)
        self._wal.release(oldest)
        if finished and rotation is not None:
            self._rotation = None
            rotation.done()

    # Change of key

    @property
    def rotation_index(self) -> int | None:
        """Index a snapshot must reach to finish the change of key; None when none is going on."""
        return self._rotation.index if self._rotation is not None else None

    def rotate(self, encryptor: Encryptor, done: Callable[[], None]) -> int:
        """Seal all that follows with a new key; returns the index a snapshot must reach.

        `done` is called by the `purge` that has deleted everything under the old key; until
        then both keys are needed to load. Raises `DiskFailed`.
        """
        self._wal.cut()
        self._encryptor = encryptor
        self._current_key_index = 0
        # A snapshot already at the last index was sealed with the old key: wait for the next.
        index = max(self._wal.last_index, self._snapshot_index + 1)
        self._rotation = _Rotation(index, done)
        return index

    def close(self) -> None:
        """Let go of the files and the lock."""
        self._wal.close()


def _sealed(entry: raftpb.Entry, encryptor: Encryptor) -> raftpb.Entry:
    """The entry as stored: index, term and type in clear, data sealed even when empty."""
    return raftpb.Entry(
        Type=entry.Type,
        Term=entry.Term,
        Index=entry.Index,
        Data=encryptor.encrypt(entry.Data),
    )


def _sealed_snapshot(snapshot: raftpb.Snapshot, encryptor: Encryptor) -> raftpb.Snapshot:
    return raftpb.Snapshot(data=encryptor.encrypt(snapshot.data), metadata=snapshot.metadata)


def _choose(wal: Wal, snapshots: SnapshotFiles) -> _Choice:
    """Pick the newest usable snapshot; note why newer ones are not."""
    damage: list[Damage] = []
    broken: list[SnapshotName] = []
    for name in snapshots.names():
        try:
            snapshot = snapshots.load(name)
        except DiskDamaged as trouble:
            damage.append(Damage(trouble.path, trouble.offset, f"{trouble.what}; set aside"))
            broken.append(name)
            continue
        content = wal.read(name.mark)
        if content.marked:
            return _Choice(content, snapshot, damage, broken)
        damage.append(Damage(str(name.path), None, "the log does not know this snapshot; not used"))
    try:
        content = wal.read(SnapshotMark(0, 0))
    except DiskDamaged as trouble:
        if damage:  # the snapshot is the cause, the missing start of the log its consequence
            first = damage[0]
            raise DiskDamaged(
                first.path, first.offset, f"{first.what}, and no older state is left to start from"
            ) from trouble
        raise
    return _Choice(content, None, damage, broken)


def _open(disk: RaftDisk, choice: _Choice, decryptor: Decryptor) -> Loaded:
    """Decrypt what was chosen and check that it is all there."""
    content = choice.content
    snapshot = None
    if choice.snapshot is not None:
        clear = decryptor.decrypt(choice.snapshot.data)
        snapshot = raftpb.Snapshot(data=clear, metadata=choice.snapshot.metadata)
        disk._snapshot_index = content.start.index
    state = content.hard_state
    if state.commit > content.last_index:
        raise DiskDamaged(
            str(disk._wal.tail_path),
            None,
            f"entries up to {state.commit} were committed, but the log ends at "
            f"{content.last_index}",
        )
    if state.commit < content.start.index:
        # The commit mark is written lazily; a snapshot proves that it was reached.
        state = raftpb.HardState(
            term=max(state.term, content.start.term), vote=state.vote, commit=content.start.index
        )
    entries = tuple(
        raftpb.Entry(
            Type=entry.Type, Term=entry.Term, Index=entry.Index, Data=decryptor.decrypt(entry.Data)
        )
        for entry in content.entries
    )
    try:
        member = api.RaftMember.FromString(content.metadata)
    except DecodeError as trouble:
        raise DiskDamaged(str(disk._wal.tail_path), None, f"member: {trouble}") from trouble
    return Loaded(disk, member, state, entries, snapshot)


class _Clear:
    """Records of the legacy directories are not sealed."""

    def encrypt(self, data: bytes) -> bytes:
        return data

    def decrypt(self, data: bytes) -> bytes:
        return data


def _migrate(
    directory: Path, encryptor: Encryptor, files: Files, segment_bytes: int
) -> list[Damage]:
    """Rewrite a log of an older name, sealed, under today's names; the old one is left alone.

    Returns what was found broken in the old one.
    """
    if any((directory / WAL_DIR).glob("*.wal")):
        return []
    for wal_name, snapshot_name in LEGACY_DIRS:
        if not any((directory / wal_name).glob("*.wal")):
            continue
        files.make_dir(directory / snapshot_name)
        wal = Wal.open(directory / wal_name, files=files)
        with contextlib.closing(wal):
            snapshots = SnapshotFiles(directory / snapshot_name, files)
            choice = _choose(wal, snapshots)
            old = _open(RaftDisk(wal, snapshots, _Clear()), choice, _Clear())
            torn = wal.torn
        shutil.rmtree(directory / SNAPSHOT_DIR, ignore_errors=True)
        RaftDisk.create(
            directory,
            old.member,
            encryptor,
            hard_state=old.hard_state,
            entries=old.entries,
            snapshot=old.snapshot,
            files=files,
            segment_bytes=segment_bytes,
        ).close()
        return choice.damage if torn is None else [*choice.damage, torn]
    raise DiskDamaged(os.fspath(directory), None, "holds no raft log")
