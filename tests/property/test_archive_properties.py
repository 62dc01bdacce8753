"""The backup format: what goes in comes out, and no changed bit or lost byte goes unseen."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.base import archive
from swarmd.base.archive import ArchiveError, Damaged, Kind, NewerFormat, NotAnArchive, WrongKey
from swarmd.base.archive.envelope import PIECE_BYTES, TAG_BYTES, Lock

PHRASE = archive.from_passphrase("correct horse", n=2)
KEY = archive.from_unlock_key("SWMKEY-1-" + "A" * 43)
FILES = {"raft/snapshot": b"s" * 700, "certificates/swarm-node.crt": b"", "x": b"y"}
PLAIN = archive.pack({"ClusterID": "c1"}, FILES)
names = st.text("abcdefghij/.-", min_size=1, max_size=60).filter(
    lambda name: not name.endswith("/") and "manifest" not in name
)


def sealed(data: bytes, lock: Lock = PHRASE) -> bytes:
    return b"".join(archive.seal(data, lock))


@given(st.dictionaries(names, st.binary(max_size=3000), max_size=5))
def test_files_come_out_as_they_went_in(files: dict[str, bytes]) -> None:
    bundle = archive.unpack(archive.pack({"Created": "now"}, files))
    assert bundle.files == files
    assert bundle.manifest["Created"] == "now"
    assert {n: f["Bytes"] for n, f in bundle.manifest["Files"].items()} == {
        name: len(data) for name, data in files.items()
    }


@given(
    st.sampled_from([0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES]),
    st.sampled_from([PHRASE, KEY]),
)
def test_sealed_data_comes_out_as_it_went_in(size: int, lock: Lock) -> None:
    data = hashlib.shake_128(b"x").digest(size)
    made = sealed(data, lock)
    assert archive.kind_of(made) is lock.kind
    assert archive.open_sealed(made, lock) == data
    assert data[:64] not in made or size < 16
    assert sealed(data, lock) != made, "every backup has a key of its own"


@given(st.data())
def test_a_flipped_bit_of_a_bundle_is_seen(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(PLAIN) * 8 - 1))
    broken = bytearray(PLAIN)
    broken[at // 8] ^= 1 << at % 8
    with pytest.raises(ArchiveError):
        archive.unpack(bytes(broken))


@given(st.data(), st.sampled_from([PHRASE, KEY]))
def test_a_flipped_bit_of_an_envelope_is_seen(data: st.DataObject, lock: Lock) -> None:
    made = sealed(PLAIN, lock)
    at = data.draw(st.integers(0, len(made) * 8 - 1))
    broken = bytearray(made)
    broken[at // 8] ^= 1 << at % 8
    with pytest.raises((Damaged, NotAnArchive)):
        archive.open_sealed(bytes(broken), lock)


@given(st.data(), st.booleans())
def test_a_file_cut_off_anywhere_is_seen(data: st.DataObject, closed: bool) -> None:
    made = sealed(PLAIN) if closed else PLAIN
    cut = made[: data.draw(st.integers(0, len(made) - 1))]
    with pytest.raises(ArchiveError):
        archive.unpack(archive.open_sealed(cut, PHRASE) if closed else cut)


@given(st.binary(max_size=600))
def test_junk_is_refused(junk: bytes) -> None:
    for read in (archive.unpack, lambda data: archive.open_sealed(data, PHRASE)):
        with pytest.raises(ArchiveError):
            read(junk)


@given(st.binary(max_size=200))
def test_a_head_may_say_anything(text: bytes) -> None:
    head = b"SWMBACKUP\n" + len(text).to_bytes(4, "big") + text
    with pytest.raises(ArchiveError):
        archive.open_sealed(head + hashlib.sha256(head).digest() + bytes(40), PHRASE)


def with_head(**changes: object) -> bytes:
    """A sealed bundle whose head is another, with a right digest."""
    made = sealed(PLAIN)
    size = int.from_bytes(made[10:14], "big")
    fields = json.loads(made[14 : 14 + size]) | changes
    text = json.dumps(fields).encode()
    head = b"SWMBACKUP\n" + len(text).to_bytes(4, "big") + text
    return head + hashlib.sha256(head).digest() + made[14 + size + 32 :]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"Format": 2}, NewerFormat, "has format 2.*reads formats up to 1"),
        ({"N": 1 << 40}, Damaged, "unreasonable effort"),
        ({"N": 3}, Damaged, "unreasonable effort"),
        ({"R": 0}, Damaged, "unreasonable effort"),
        ({"Key": "rot13"}, Damaged, "no known key"),
        ({"Salt": 5}, Damaged, "not understood"),
        ({"Note": "harmless"}, Damaged, "cut off or was changed"),
    ],
)
def test_a_head_made_by_somebody_else(
    changes: dict[str, object], error: type[ArchiveError], text: str
) -> None:
    with pytest.raises(error, match=text):
        archive.open_sealed(with_head(**changes), PHRASE)


def test_pieces_cannot_change_places_or_be_left_out() -> None:
    data = bytes(3 * PIECE_BYTES)
    made, step = sealed(data), PIECE_BYTES + TAG_BYTES
    start = len(made) - 3 * step
    first, second, third = (made[start + n * step : start + (n + 1) * step] for n in range(3))
    for pieces in (
        second + first + third,
        first + third,
        first + second,
        first + second + third * 2,
    ):
        with pytest.raises(Damaged):
            archive.open_sealed(made[:start] + pieces, PHRASE)


def test_wrong_keys_are_told_from_damage() -> None:
    with pytest.raises(WrongKey, match="the passphrase does not fit"):
        archive.open_sealed(sealed(PLAIN), archive.from_passphrase("wrong", n=2))
    other = archive.from_unlock_key("SWMKEY-1-" + "B" * 43)
    with pytest.raises(WrongKey, match="the unlock key does not fit"):
        archive.open_sealed(sealed(PLAIN, KEY), other)
    with pytest.raises(WrongKey, match="encrypted with an unlock key, not a passphrase"):
        archive.open_sealed(sealed(PLAIN, KEY), PHRASE)
    for text in ("", "SWMKEY-2-AAAA", "SWMKEY-1-*"):
        with pytest.raises(WrongKey):
            archive.from_unlock_key(text)
    with pytest.raises(WrongKey):
        archive.from_passphrase("")
    assert archive.kind_of(PLAIN) is Kind.CLEAR
    assert "horse" not in repr(PHRASE)


def test_a_bundle_of_a_later_release_is_named_so() -> None:
    text = json.dumps({"Format": 7, "Files": {}}).encode()
    total = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n".encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as tar:
        for name, data in (("manifest.json", text), ("manifest.json.sha256", total)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(NewerFormat, match="format 7"):
        archive.unpack(out.getvalue())


def test_any_tar_program_reads_a_bundle() -> None:
    with tarfile.open(fileobj=io.BytesIO(PLAIN)) as tar:
        assert tar.getnames() == ["manifest.json", "manifest.json.sha256", *FILES]
        assert all(member.mode == 0o600 for member in tar)
