"""Torn tails, lost sectors and flipped bits over copies of a log.

Whatever happens to the files, a load gives a prefix of what was written that contains all
that was acknowledged, or it is refused. Flips are always refused or harmless; what a crash
leaves behind is always repaired and reported.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import itertools
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd import api
from swarmd.api import raftpb
from swarmd.manager.raftnode import DiskDamaged
from swarmd.manager.raftnode.disk import WAL_DIR, Loaded, RaftDisk
from swarmd.manager.raftnode.files import Files
from swarmd.manager.raftnode.frames import HEADER_BYTES, parse_length
from swarmd.manager.raftnode.segments import list_segments

SEGMENT_BYTES = 16_384
HEAD_RECORD_BYTES = 16  # frame and record of the checksum a segment begins with
SECTOR = 512


class Sealing:
    """Stand-in for encryption that leaves no run of zeros in the files."""

    def encrypt(self, data: bytes) -> bytes:
        sealed = bytes(byte | 1 for byte in hashlib.shake_128(data).digest(16)) + data
        return api.MaybeEncryptedRecord(
            algorithm=1, data=sealed, nonce=b"n" * 24
        ).SerializeToString()

    def decrypt(self, data: bytes) -> bytes:
        record = api.MaybeEncryptedRecord.FromString(data)
        if record.algorithm != 1:
            raise ValueError("not sealed")
        return record.data[16:]


class Unsynced(Files):
    """Nothing here is about the disk's cache, so no time is lost on it."""

    def sync(self, fd: int) -> None:
        pass

    def sync_dir(self, path: Path) -> None:
        pass


@dataclass
class Written:
    """A log on disk, and what was written to it."""

    directory: Path
    entries: list[raftpb.Entry] = field(default_factory=list)
    acknowledged: int = 0  # entries synced before the last write began
    tail: Path = Path()
    last_write: tuple[int, int] = (0, 0)  # its bytes in the tail segment

    def load(self) -> Loaded:
        loaded = RaftDisk.load(
            self.directory, Sealing(), Sealing(), files=Unsynced(), segment_bytes=SEGMENT_BYTES
        )
        loaded.disk.close()
        return loaded

    def check_prefix(self, loaded: Loaded) -> None:
        kept = list(loaded.entries)
        assert kept == self.entries[: len(kept)]
        assert len(kept) >= self.acknowledged


def used(path: Path) -> int:
    return len(path.read_bytes().rstrip(b"\0"))


def kind_bytes(content: bytes) -> set[int]:
    """Where the types of a segment's records are: the only bytes no checksum covers."""
    found, at = set(), 0
    while at + HEADER_BYTES <= len(content) and any(content[at : at + HEADER_BYTES]):
        found.add(at + HEADER_BYTES + 1)  # behind the field's tag
        at += HEADER_BYTES + sum(parse_length(content[at : at + HEADER_BYTES]))
    return found


@functools.cache
def template(seed: int, writes: int) -> Written:
    """Write a log once; examples work on copies."""
    rng = random.Random(seed)
    log = Written(Path(tempfile.mkdtemp(prefix="wal-")))
    atexit.register(shutil.rmtree, log.directory, ignore_errors=True)
    member = api.RaftMember(raft_id=7, node_id="n", addr="127.0.0.1:1")
    disk = RaftDisk.create(
        log.directory, member, Sealing(), files=Unsynced(), segment_bytes=SEGMENT_BYTES
    )
    for _ in range(writes):
        log.acknowledged = len(log.entries)
        batch = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = bytes(rng.choices(range(1, 256), k=rng.choice((0, 3, 40, 300, 700, 2000))))
            batch.append(raftpb.Entry(Type=0, Term=2, Index=len(log.entries) + 1, Data=data))
            log.entries.append(batch[-1])
        tail, begin = disk._wal.tail_path, disk._wal._offset
        disk.save(raftpb.HardState(term=2, vote=7, commit=log.acknowledged), batch)
        log.tail, end = disk._wal.tail_path, disk._wal._offset
        log.last_write = (begin, end)
        if log.tail != tail:  # the write filled the segment; all of it was synced
            log.acknowledged = len(log.entries)
            log.last_write = (end, end)
    disk.close()
    return log


@contextmanager
def a_log(seed: int, writes: int) -> Iterator[Written]:
    log = template(seed, writes)
    with tempfile.TemporaryDirectory(prefix="wal-") as name:
        copy = Path(name) / "raft"
        shutil.copytree(log.directory, copy)
        yield replace(log, directory=copy, tail=copy / WAL_DIR / log.tail.name)


logs = st.tuples(st.integers(0, 3), st.integers(1, 30))


@settings(max_examples=150)
@given(logs)
def test_an_undamaged_log_reads_back(shape: tuple[int, int]) -> None:
    with a_log(*shape) as log:
        loaded = log.load()
        assert list(loaded.entries) == log.entries
        assert loaded.damage == ()


@settings(max_examples=200)
@given(logs, st.floats(0, 1), st.booleans())
def test_a_write_cut_short_is_repaired_and_reported(
    shape: tuple[int, int], where: float, truncate: bool
) -> None:
    with a_log(*shape) as log:
        begin, end = log.last_write
        cut = begin + int((end - begin) * where)
        if not truncate:  # the kernel and the disk write whole sectors
            cut = min(max(begin, cut // SECTOR * SECTOR), end)
        size = log.tail.stat().st_size
        with open(log.tail, "r+b") as file:
            file.truncate(cut)
            if not truncate:
                file.truncate(size)
        loaded = log.load()
        log.check_prefix(loaded)
        again = log.load()
        assert again.entries == loaded.entries
        assert again.damage == (), "the first load repaired it"
        missing = len(loaded.entries) < len(log.entries)
        if loaded.damage:
            assert loaded.damage[0].path == str(log.tail)
        elif missing:
            assert used(log.tail) <= cut, "cut exactly between two records"


@settings(max_examples=200)
@given(logs, st.randoms(use_true_random=False))
def test_sectors_lost_in_a_power_cut_are_repaired(
    shape: tuple[int, int], rng: random.Random
) -> None:
    with a_log(*shape) as log:
        begin, end = log.last_write
        content = bytearray(log.tail.read_bytes())
        smallest = SECTOR
        for sector in range(begin // SECTOR, -(-end // SECTOR)):
            if rng.random() < 0.5:
                start, stop = max(begin, sector * SECTOR), min(end, (sector + 1) * SECTOR)
                content[start:stop] = bytes(stop - start)
                smallest = min(smallest, stop - start)
        log.tail.write_bytes(content)
        try:
            loaded = log.load()
        except DiskDamaged as refused:
            # Losing a few bytes of a record cannot be told from a change: refusing is safe.
            assert smallest < 64
            assert refused.path == str(log.tail)
            assert refused.offset is not None and refused.offset >= begin
        else:
            log.check_prefix(loaded)
            assert log.load().entries == loaded.entries


@settings(max_examples=400)
@given(
    logs, st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.floats(0, 1, exclude_max=True)
)
def test_a_flipped_bit_is_never_skipped(
    shape: tuple[int, int], which: float, bit: int, where: float
) -> None:
    with a_log(*shape) as log:
        segments = [segment.path for segment in list_segments(log.directory / WAL_DIR)]
        path = segments[int(len(segments) * which)]
        flip(log, path, int(used(path) * where), bit)


@pytest.mark.parametrize("shape", [(0, 25), (1, 30)])
def test_no_type_of_a_record_can_change_unnoticed(shape: tuple[int, int]) -> None:
    """Chance hits these bytes too seldom."""
    with a_log(*shape) as log:
        for segment in list_segments(log.directory / WAL_DIR):
            content = segment.path.read_bytes()
            places = kind_bytes(content)
            assert len(places) > 2
            for place, bit in itertools.product(places, range(8)):
                flip(log, segment.path, place, bit)
                segment.path.write_bytes(content)


def flip(log: Written, path: Path, place: int, bit: int) -> None:
    """Change one bit of a segment, and see what a load makes of it."""
    content = bytearray(path.read_bytes())
    kinds = kind_bytes(content)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    try:
        loaded = log.load()
    except DiskDamaged as refused:
        assert refused.path == str(path) or "commit" in refused.what or "missing" in refused.what
        # A wrong seed in the head record shows at the record behind it. What is taken for
        # another type of record (a state for an entry) shows where that does not go on.
        begin = len(content) if place in kinds else max(place, HEAD_RECORD_BYTES)
        assert refused.offset is None or refused.offset <= begin or refused.path != str(path)
    except ValueError as wrong:
        assert str(wrong) == "not sealed"
    else:
        # Only bytes that mean nothing (padding) may change unnoticed.
        assert list(loaded.entries) == log.entries
        assert loaded.damage == ()


@settings(max_examples=60)
@given(logs, st.integers(0, 7), st.floats(0, 1, exclude_max=True))
def test_garbage_in_reserved_space_costs_nothing(
    shape: tuple[int, int], bit: int, where: float
) -> None:
    with a_log(*shape) as log:
        content = bytearray(log.tail.read_bytes())
        end = log.last_write[1]
        content[end + int((len(content) - end - 1) * where)] ^= 1 << bit
        log.tail.write_bytes(content)
        loaded = log.load()
        assert list(loaded.entries) == log.entries
        assert len(loaded.damage) == 1
        assert log.load().damage == ()


def test_a_segment_in_the_middle_must_be_there() -> None:
    with a_log(5, 60) as log:
        segments = list_segments(log.directory / WAL_DIR)
        assert len(segments) > 2
        segments[1].path.unlink()
        with pytest.raises(DiskDamaged, match="not consecutive"):
            log.load()


def test_the_start_of_the_log_must_be_there() -> None:
    with a_log(5, 60) as log:
        list_segments(log.directory / WAL_DIR)[0].path.unlink()
        with pytest.raises(DiskDamaged, match="no segment reaches back"):
            log.load()
