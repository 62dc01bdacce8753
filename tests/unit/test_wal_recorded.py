"""A stock engine's log and snapshot as recorded (20.10.24, after a change of key)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base import varint
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster.ca.envelope import decryptor, secretbox
from swarmd.cluster.store import Store
from swarmd.manager.raftnode.disk import SNAPSHOT_DIR, WAL_DIR, Loaded, RaftDisk
from swarmd.manager.raftnode.files import Files
from swarmd.manager.raftnode.frames import (
    Kind,
    Malformed,
    SnapshotMark,
    extend_crc,
    frame,
    parse_length,
    parse_record,
    read_varint,
)
from swarmd.manager.raftnode.segments import list_segments, read_segment
from swarmd.manager.raftnode.snapshots import SnapshotFiles

RECORDED = Path(__file__).resolve().parents[1] / "fixtures" / "raft" / "stock-20.10.24"


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    shutil.copytree(RECORDED, tmp_path / "raft")
    dek = bytes.fromhex((RECORDED / "dek.hex").read_text())
    box = secretbox(dek, SeededEntropy(1))
    loaded = RaftDisk.load(tmp_path / "raft", box, decryptor(dek), segment_bytes=65_536)
    loaded.disk.close()
    return loaded


def test_the_recorded_state_is_read_whole(loaded: Loaded) -> None:
    node_id = (RECORDED / "node-id").read_text().strip()
    assert loaded.damage == ()
    assert loaded.member.node_id == node_id
    assert loaded.snapshot is not None
    snapshot = api.Snapshot.FromString(loaded.snapshot.data)
    store = Store(strict=True)
    store.restore(snapshot.store)
    for entry in loaded.entries:
        store.apply(api.InternalRaftRequest.FromString(entry.Data).action)
    view = store.view()
    assert [config.spec.data for config in view.all(api.Config)] == [b"hello"]
    node = view.get(api.Node, node_id)
    assert node is not None and node.spec.annotations.labels == {"colour": "blue"}
    cluster = view.cluster()
    assert cluster is not None and cluster.spec.encryption_config.auto_lock_managers


def test_every_recorded_frame_is_written_by_us_byte_for_byte() -> None:
    (name,) = list_segments(RECORDED / WAL_DIR)
    raw = name.path.read_bytes()
    with open(name.path, "rb") as file:
        segment = read_segment(file.fileno(), name, None, tail=True)
    assert segment.torn is None and segment.end == len(raw)
    crc, out = 0, []
    for record in segment.records:
        crc = extend_crc(crc, record.data)
        data = None if record.kind is Kind.CRC else record.data
        if record.kind is Kind.STATE:
            state = raftpb.HardState.FromString(record.data)
            data = state.SerializeToString()
        elif record.kind is Kind.ENTRY:
            data = raftpb.Entry.FromString(record.data).SerializeToString()
        elif record.kind is Kind.SNAPSHOT:
            data = SnapshotMark.decode(record.data).encode()
        out.append(frame(record.kind, crc, data))
    assert b"".join(out) == raw


def test_the_recorded_snapshot_file_is_written_by_us_byte_for_byte(tmp_path: Path) -> None:
    recorded = SnapshotFiles(RECORDED / SNAPSHOT_DIR, Files())
    (name,) = recorded.names()
    SnapshotFiles(tmp_path, Files()).save(recorded.load(name))
    assert (tmp_path / name.path.name).read_bytes() == name.path.read_bytes()


def test_numbers_are_written_as_protobuf_does() -> None:
    for number in (0, 1, 127, 128, 300, 1 << 32, (1 << 64) - 1):
        assert read_varint(varint.encode(number), 0) == (number, len(varint.encode(number)))
        assert raftpb.HardState(term=number).SerializeToString() == b"\x08" + varint.encode(number)
    for broken in (b"", b"\x80", b"\xff" * 11):
        with pytest.raises(Malformed):
            read_varint(broken, 0)


@pytest.mark.parametrize("size", range(1, 40))
def test_frames_are_padded_to_eight_bytes(size: int) -> None:
    made = frame(Kind.ENTRY, 5, bytes(size))
    length, padding = parse_length(made[:8])
    assert len(made) % 8 == 0 and len(made) == 8 + length + padding
    assert parse_record(made[8 : 8 + length]) == (Kind.ENTRY, 5, bytes(size))


@pytest.mark.parametrize(
    "record",
    [
        b"\x08\x07\x10\x00",  # no such type
        b"\x10\x00",
        b"\x08\x02\x10\x00\x1a\x05ab",
        b"\x08\x02\x10\x00\x22\x00",
    ],
)
def test_what_is_no_record_is_malformed(record: bytes) -> None:
    with pytest.raises(Malformed):
        parse_record(record)


def test_marks_of_later_engines_carry_a_configuration() -> None:
    mark = SnapshotMark(index=300, term=4)
    assert SnapshotMark.decode(mark.encode(raftpb.ConfState(voters=[1, 2]))) == mark
    with pytest.raises(Malformed):
        SnapshotMark.decode(mark.encode(raftpb.ConfState(voters=[1, 2]))[:-1])
    with pytest.raises(Malformed):
        SnapshotMark.decode(b"\x0d\x00")
