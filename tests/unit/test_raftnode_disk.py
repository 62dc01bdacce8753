"""Snapshots, what is kept and purged, falling back, and changing the key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster.ca.envelope import decryptor, fernet, secretbox
from swarmd.cluster.ca.errors import CannotDecrypt
from swarmd.manager.raftnode import DiskDamaged
from swarmd.manager.raftnode.disk import SNAPSHOT_DIR, WAL_DIR, Loaded, RaftDisk
from swarmd.manager.raftnode.files import Files
from swarmd.manager.raftnode.frames import SnapshotMark
from swarmd.manager.raftnode.snapshots import SnapshotFiles
from swarmd.manager.raftnode.wal import Wal

OLD, NEW = b"o" * 32, b"n" * 32
MEMBER = api.RaftMember(raft_id=7, node_id="n", addr="127.0.0.1:1")
SEGMENT_BYTES = 8192


def box(key: bytes = OLD):
    return secretbox(key, SeededEntropy(1))


def create(directory: Path) -> RaftDisk:
    return RaftDisk.create(directory, MEMBER, box(), segment_bytes=SEGMENT_BYTES)


def load(directory: Path, *keys: bytes) -> Loaded:
    loaded = RaftDisk.load(
        directory, box(), decryptor(*(keys or (OLD,))), segment_bytes=SEGMENT_BYTES
    )
    loaded.disk.close()
    return loaded


def write(disk: RaftDisk, first: int, last: int, size: int = 1000) -> None:
    for index in range(first, last + 1):
        entry = raftpb.Entry(Type=0, Term=1, Index=index, Data=b"%d" % index + bytes(size))
        disk.save(raftpb.HardState(term=1, vote=7, commit=index - 1), [entry])


def snapshot(index: int) -> raftpb.Snapshot:
    metadata = raftpb.SnapshotMetadata(index=index, term=1, conf_state=raftpb.ConfState(voters=[7]))
    return raftpb.Snapshot(data=b"state at %d" % index, metadata=metadata)


def names(directory: Path) -> tuple[list[str], list[str]]:
    logs = sorted(path.name for path in (directory / WAL_DIR).iterdir())
    snapshots = sorted(path.name for path in (directory / SNAPSHOT_DIR).iterdir())
    return logs, snapshots


def test_entries_follow_the_newest_snapshot(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 20)
    disk.adopt_snapshot(snapshot(12))
    write(disk, 21, 22)
    disk.close()
    loaded = load(tmp_path)
    assert loaded.snapshot == snapshot(12)
    assert [entry.Index for entry in loaded.entries] == list(range(13, 23))
    assert loaded.entries[0].Data.startswith(b"13")


def test_purge_keeps_what_the_oldest_kept_snapshot_needs(tmp_path: Path) -> None:
    disk = create(tmp_path)
    for index in range(10, 60, 10):
        write(disk, index - 9, index)
        disk.adopt_snapshot(snapshot(index))
        disk.purge(2)
    logs, snapshots = names(tmp_path)
    assert [int(name.split("-")[1][:16], 16) for name in snapshots] == [30, 40, 50]
    indexes = [int(name.split("-")[1][:16], 16) for name in logs]
    assert indexes[0] <= 30 < indexes[1]
    disk.purge(0)
    logs, snapshots = names(tmp_path)
    assert len(snapshots) == 1
    assert int(logs[0].split("-")[1][:16], 16) <= 50
    disk.close()
    assert load(tmp_path).snapshot == snapshot(50)


def test_a_damaged_snapshot_is_set_aside_and_the_older_one_used(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 10)
    disk.adopt_snapshot(snapshot(5))
    disk.adopt_snapshot(snapshot(10))
    disk.close()
    newest = tmp_path / SNAPSHOT_DIR / names(tmp_path)[1][-1]
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    loaded = load(tmp_path)
    assert loaded.snapshot == snapshot(5)
    assert [entry.Index for entry in loaded.entries] == [6, 7, 8, 9, 10]
    assert [damage.path for damage in loaded.damage] == [str(newest)]
    assert "checksum does not match; set aside" in loaded.damage[0].what
    assert newest.with_name(newest.name + ".broken").exists()
    assert load(tmp_path).damage == ()


def test_a_damaged_snapshot_without_an_older_state_is_refused(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 20)
    disk.adopt_snapshot(snapshot(20))
    disk.purge(0)
    disk.close()
    only = tmp_path / SNAPSHOT_DIR / names(tmp_path)[1][0]
    only.write_bytes(only.read_bytes()[:-1])
    with pytest.raises(DiskDamaged, match=r"cut off or changed.*no older state") as refused:
        load(tmp_path)
    assert refused.value.path == str(only)
    assert only.exists(), "a refused load changes nothing"


def test_a_snapshot_the_log_does_not_know_is_not_used(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 10)
    disk.write_snapshot(snapshot(8))
    disk.close()
    loaded = load(tmp_path)
    assert loaded.snapshot is None
    assert len(loaded.entries) == 10
    assert "does not know this snapshot" in str(loaded.damage[0])


def test_a_leaders_snapshot_may_skip_entries(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 3)
    disk.adopt_snapshot(snapshot(100))
    write(disk, 101, 102)
    disk.close()
    loaded = load(tmp_path)
    assert [entry.Index for entry in loaded.entries] == [101, 102]
    (tmp_path / SNAPSHOT_DIR / names(tmp_path)[1][0]).unlink()
    with pytest.raises(DiskDamaged, match="entry 101 follows entry 3: some are missing"):
        load(tmp_path)


def test_entries_of_a_new_leader_replace_older_ones(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 9)
    newer = raftpb.Entry(Type=0, Term=2, Index=5, Data=b"other")
    disk.save(raftpb.HardState(term=2, vote=9, commit=4), [newer])
    disk.close()
    loaded = load(tmp_path)
    assert [(entry.Index, entry.Term) for entry in loaded.entries][-2:] == [(4, 1), (5, 2)]


def test_a_commit_index_behind_the_snapshot_is_raised_to_it(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 10)
    disk.adopt_snapshot(snapshot(10))
    disk.close()
    assert load(tmp_path).hard_state == raftpb.HardState(term=1, vote=7, commit=10)


def test_committed_entries_that_are_not_there_are_missed(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 3)
    disk.save(raftpb.HardState(term=1, vote=7, commit=9), ())
    disk.close()
    with pytest.raises(DiskDamaged, match="up to 9 were committed, but the log ends at 3"):
        load(tmp_path)


def test_the_wrong_key_is_told(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 2)
    disk.close()
    with pytest.raises(CannotDecrypt):
        load(tmp_path, NEW)
    assert len(load(tmp_path).entries) == 2


def test_fernet_is_read_and_written_too(tmp_path: Path) -> None:
    disk = RaftDisk.create(tmp_path, MEMBER, fernet(OLD), segment_bytes=SEGMENT_BYTES)
    write(disk, 1, 2)
    disk.adopt_snapshot(snapshot(1))
    disk.close()
    loaded = load(tmp_path)
    assert loaded.snapshot == snapshot(1)
    assert loaded.entries[0].Data.startswith(b"2")


def test_a_change_of_key_ends_when_nothing_under_the_old_one_is_left(tmp_path: Path) -> None:
    done: list[bool] = []
    disk = create(tmp_path)
    write(disk, 1, 10)
    disk.adopt_snapshot(snapshot(4))
    assert disk.rotate(box(NEW), lambda: done.append(True)) == 10
    write(disk, 11, 12)
    disk.adopt_snapshot(snapshot(9))
    disk.purge(3)
    assert not done and disk.rotation_index == 10
    with pytest.raises(CannotDecrypt):
        load_copy(tmp_path, NEW)
    both = load_copy(tmp_path, NEW, OLD)
    assert [entry.Index for entry in both.entries] == [10, 11, 12]
    disk.adopt_snapshot(snapshot(10))
    disk.purge(3)
    assert done == [True] and disk.rotation_index is None
    disk.close()
    assert len(names(tmp_path)[1]) == 1
    loaded = load(tmp_path, NEW)
    assert [entry.Index for entry in loaded.entries] == [11, 12]
    for path in (tmp_path / WAL_DIR).iterdir():
        assert path.name.endswith(f"-{10:016x}.wal") or int(path.name[17:33], 16) > 10


def load_copy(directory: Path, *keys: bytes) -> Loaded:
    """Load a copy, as after a crash at this moment."""
    copy = directory.parent / f"copy-{len(list(directory.parent.iterdir()))}"
    shutil.copytree(directory, copy)
    return load(copy, *keys)


def test_a_snapshot_under_the_old_key_does_not_end_the_change(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 5)
    disk.adopt_snapshot(snapshot(5))
    done: list[bool] = []
    assert disk.rotate(box(NEW), lambda: done.append(True)) == 6
    disk.purge(0)
    assert not done
    write(disk, 6, 6)
    disk.adopt_snapshot(snapshot(6))
    disk.purge(0)
    disk.close()
    assert done
    assert load(tmp_path, NEW).snapshot == snapshot(6)


def test_a_change_of_key_can_be_begun_again_after_a_restart(tmp_path: Path) -> None:
    disk = create(tmp_path)
    write(disk, 1, 3)
    disk.rotate(box(NEW), lambda: None)
    write(disk, 4, 5)
    disk.close()
    again = RaftDisk.load(tmp_path, box(NEW), decryptor(NEW, OLD), segment_bytes=SEGMENT_BYTES)
    done: list[bool] = []
    assert again.disk.rotate(box(NEW), lambda: done.append(True)) == 5
    again.disk.adopt_snapshot(snapshot(5))
    again.disk.purge(0)
    again.disk.close()
    assert done
    assert load(tmp_path, NEW).entries == ()


@pytest.mark.parametrize(("wal_name", "snap_name"), [("wal-v3", "snap-v3"), ("wal", "snap")])
def test_older_names_are_migrated_with_their_snapshot(
    tmp_path: Path, wal_name: str, snap_name: str
) -> None:
    """Nothing in them is sealed; the old directories stay for the older engine."""
    files = Files()
    files.make_dir(tmp_path / snap_name)
    entries = [raftpb.Entry(Type=0, Term=1, Index=i, Data=b"%d" % i) for i in range(1, 9)]
    old = Wal.create(
        tmp_path / wal_name,
        MEMBER.SerializeToString(),
        hard_state=raftpb.HardState(term=1, vote=7, commit=8),
        entries=entries,
    )
    old.mark_snapshot(SnapshotMark(6, 1), raftpb.ConfState(voters=[7]))
    SnapshotFiles(tmp_path / snap_name, files).save(snapshot(6))
    old.save(raftpb.HardState(term=1, vote=7, commit=8), ())
    old.close()
    with open(tmp_path / wal_name / f"{0:016x}-{0:016x}.wal", "r+b") as log:
        log.truncate(len(log.read().rstrip(b"\0")) - 2)  # its last write was cut short
    assert RaftDisk.exists(tmp_path)
    loaded = load(tmp_path)
    assert loaded.snapshot == snapshot(6)
    assert list(loaded.entries) == entries[6:]
    assert loaded.damage and loaded.damage[0].path.startswith(str(tmp_path / wal_name))
    again = load(tmp_path)
    assert (again.snapshot, again.entries, again.damage) == (loaded.snapshot, loaded.entries, ())
    assert (tmp_path / wal_name).exists()


def test_an_empty_directory_holds_no_state(tmp_path: Path) -> None:
    assert not RaftDisk.exists(tmp_path)
    with pytest.raises(DiskDamaged, match="holds no raft log"):
        load(tmp_path)
