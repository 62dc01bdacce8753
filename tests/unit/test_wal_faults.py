"""Failing fsync, full disks and half-made files: nothing is acknowledged, nothing is retried."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster.ca.envelope import decryptor, secretbox
from swarmd.manager.raftnode import DiskFailed
from swarmd.manager.raftnode.disk import WAL_DIR, Loaded, RaftDisk
from swarmd.manager.raftnode.files import Files
from tests.harness.lan import missing

KEY = b"k" * 32
MEMBER = api.RaftMember(raft_id=7, node_id="n", addr="127.0.0.1:1")


class Faulty(Files):
    """Real files whose calls fail when told to."""

    def __init__(self) -> None:
        self.fail: dict[str, OSError] = {}
        self.calls: list[str] = []
        self.part: int | None = None  # bytes written before a write fails

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail:
            raise self.fail[name]

    def write(self, fd: int, data: bytes | bytearray, offset: int) -> None:
        if "write" in self.fail and self.part is not None:
            super().write(fd, data[: self.part], offset)
        self._call("write")
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._call("sync")
        super().sync(fd)

    def sync_dir(self, path: Path) -> None:
        self._call("sync_dir")
        super().sync_dir(path)

    def allocate(self, fd: int, size: int) -> None:
        self._call("allocate")
        super().allocate(fd, size)

    def rename(self, source: Path, target: Path) -> None:
        self._call("rename")
        super().rename(source, target)


def entry(index: int, size: int = 100) -> raftpb.Entry:
    return raftpb.Entry(Type=0, Term=1, Index=index, Data=bytes(size))


def state(commit: int) -> raftpb.HardState:
    return raftpb.HardState(term=1, vote=7, commit=commit)


def create(directory: Path, files: Files, segment_bytes: int = 8192) -> RaftDisk:
    box = secretbox(KEY, SeededEntropy(1))
    return RaftDisk.create(directory, MEMBER, box, files=files, segment_bytes=segment_bytes)


def load(directory: Path, files: Files | None = None) -> Loaded:
    box = secretbox(KEY, SeededEntropy(2))
    return RaftDisk.load(directory, box, decryptor(KEY), files=files, segment_bytes=8192)


def test_a_failed_sync_is_final(tmp_path: Path) -> None:
    files = Faulty()
    disk = create(tmp_path, files)
    disk.save(state(0), [entry(1)])
    files.fail["sync"] = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(DiskFailed, match=r"write to .*\.wal: Input/output error"):
        disk.save(state(1), [entry(2)])
    del files.fail["sync"]
    files.calls.clear()
    for _ in range(2):  # it works again, but what was lost is not known
        with pytest.raises(DiskFailed):
            disk.save(state(1), [entry(2)])
    assert files.calls == [], "a failed log is not touched again"
    assert disk.failure is not None and disk.failure.errno == errno.EIO
    loaded = load(tmp_path)
    loaded.disk.close()
    assert [e.Index for e in loaded.entries][:1] == [1]


@pytest.mark.parametrize("part", [0, 8, 100, 700])
def test_a_full_disk_ends_the_log_at_what_was_acknowledged(tmp_path: Path, part: int) -> None:
    files = Faulty()
    disk = create(tmp_path, files)
    disk.save(state(0), [entry(1, 600)])
    files.fail["write"] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    files.part = part
    with pytest.raises(DiskFailed, match="No space left on device; nothing more is acknowledged"):
        disk.save(state(1), [entry(2, 900)])
    loaded = load(tmp_path)
    assert [e.Index for e in loaded.entries] == [1]
    assert bool(loaded.damage) == (part > 0)
    loaded.disk.save(state(1), [entry(2, 10)])  # there is room again
    loaded.disk.close()
    again = load(tmp_path)
    again.disk.close()
    assert [len(e.Data) for e in again.entries] == [600, 10]
    assert again.damage == ()


@pytest.mark.parametrize("end", range(3584, 8193, 512))
def test_a_write_past_the_end_that_a_kill_cut_short_is_a_torn_one(tmp_path: Path, end: int) -> None:
    """The kernel stops between pages, and the file has not grown yet."""
    files = Faulty()
    disk = create(tmp_path / "raft", files)
    disk.save(state(0), [entry(1, 3000)])
    wal = next((tmp_path / "raft" / WAL_DIR).glob("*.wal"))
    begun = len(wal.read_bytes().rstrip(b"\0")) // 8 * 8 + 8
    files.part, files.fail = end - begun, {"write": OSError(errno.EIO, "killed")}
    with pytest.raises(DiskFailed):
        disk.save(None, [entry(2, 9000)])
    disk.close()
    assert wal.stat().st_size == 8192
    loaded = load(tmp_path / "raft")
    assert [e.Index for e in loaded.entries] == [1]
    assert len(loaded.damage) == 1 and "cut short" in str(loaded.damage[0])
    loaded.disk.save(None, [entry(2, 9000)])
    loaded.disk.close()
    assert [e.Index for e in load(tmp_path / "raft").entries] == [1, 2]


@pytest.mark.parametrize("call", ["allocate", "write", "sync", "rename", "sync_dir"])
def test_a_new_segment_that_cannot_be_made_loses_nothing(tmp_path: Path, call: str) -> None:
    files = Faulty()
    disk = create(tmp_path, files)
    for index in range(1, 8):
        disk.save(state(index - 1), [entry(index, 1000)])
    files.fail[call] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(DiskFailed):
        disk.save(state(7), [entry(8, 2000)])
    loaded = load(tmp_path)
    assert [e.Index for e in loaded.entries][:7] == list(range(1, 8))
    loaded.disk.save(state(7), [entry(len(loaded.entries) + 1, 9000)])
    loaded.disk.save(state(8), [entry(len(loaded.entries) + 2)])
    loaded.disk.close()
    again = load(tmp_path)
    again.disk.close()
    assert [e.Index for e in again.entries] == list(range(1, len(loaded.entries) + 3))
    assert not list((tmp_path / WAL_DIR).glob("*.tmp"))


@pytest.mark.parametrize("call", ["allocate", "write", "sync", "rename", "sync_dir"])
def test_a_log_that_could_not_be_made_can_be_made_again(tmp_path: Path, call: str) -> None:
    files = Faulty()
    files.fail[call] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(DiskFailed, match="create"):
        create(tmp_path, files)
    if call == "sync_dir" and RaftDisk.exists(tmp_path):
        return  # it was there, only not known to be durable
    assert not RaftDisk.exists(tmp_path)
    create(tmp_path, Files()).close()
    loaded = load(tmp_path)
    loaded.disk.close()
    assert loaded.member == MEMBER


def test_a_log_in_use_is_refused_as_stock_refuses_it(tmp_path: Path) -> None:
    disk = create(tmp_path, Files())
    with pytest.raises(DiskFailed, match="in use by another process"):
        load(tmp_path)
    disk.save(state(0), [entry(1, 9000)])  # now the lock is on the next segment
    with pytest.raises(DiskFailed, match="in use by another process"):
        load(tmp_path)
    disk.close()
    load(tmp_path).disk.close()


def test_a_snapshot_that_cannot_be_written_leaves_the_older_state(tmp_path: Path) -> None:
    files = Faulty()
    disk = create(tmp_path, files)
    disk.save(state(0), [entry(1), entry(2)])
    metadata = raftpb.SnapshotMetadata(index=2, term=1)
    disk.mark_snapshot(metadata)
    files.fail["rename"] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        disk.write_snapshot(raftpb.Snapshot(data=b"state", metadata=metadata))
    disk.save(state(2), [entry(3)])  # the log itself goes on
    disk.close()
    loaded = load(tmp_path)
    loaded.disk.close()
    assert loaded.snapshot is None
    assert [e.Index for e in loaded.entries] == [1, 2, 3]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many bytes."""
    if reason := missing():
        pytest.skip(reason)
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        target = tmp_path / "disk"
        target.mkdir()
        options = f"size={size}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)], check=True)
        mounted.append(target)
        return target

    yield mount
    for target in mounted:
        subprocess.run(["umount", str(target)], check=True)


@pytest.mark.netns
def test_a_real_full_disk(small_disk: Callable[[int], Path]) -> None:
    """Segments are reserved whole, so the log fails when it needs a new one, not in between."""
    disk_path = small_disk(256 * 1024)
    directory = disk_path / "raft"
    disk = create(directory, Files(), segment_bytes=65_536)
    index = 0
    with pytest.raises(DiskFailed, match="No space left on device"):
        while index < 10_000:
            disk.save(state(index), [entry(index + 1, 3000)])
            index += 1
    assert index > 40
    ballast = list(directory.rglob("*.tmp"))
    assert len(ballast) <= 1
    loaded = load(directory)
    assert len(loaded.entries) in (index, index + 1), "the last one was written, not acknowledged"
    assert [e.Index for e in loaded.entries] == list(range(1, len(loaded.entries) + 1))
    metadata = raftpb.SnapshotMetadata(index=index, term=1)
    loaded.disk.adopt_snapshot(raftpb.Snapshot(data=b"state", metadata=metadata))
    loaded.disk.purge(0)
    last = len(loaded.entries)
    for number in range(last + 1, last + 30):  # a snapshot made room
        loaded.disk.save(state(number - 1), [entry(number, 1000)])
    loaded.disk.close()
