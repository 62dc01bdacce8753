"""Key files: headers, locking, raft key rotation, foreign forms."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster.ca import keyfile, keys, pem
from swarmd.cluster.ca.errors import CAError, InvalidKEK, InvalidPEM
from swarmd.cluster.ca.keyfile import KEK, KeyFile

ENTROPY = SeededEntropy(1)
KEY = keys.new_key()
PLAIN = keys.to_pkcs8(KEY)
LOCK = KEK(ENTROPY.token(32), 17)
DEK, NEXT = ENTROPY.token(32), ENTROPY.token(32)


def test_worker_file_has_only_the_version() -> None:
    text = keyfile.write(KeyFile(PLAIN), ENTROPY)
    assert text.startswith(b"-----BEGIN PRIVATE KEY-----\nkek-version: 0\n\nMIG")
    assert keyfile.strip_headers(text) == PLAIN
    assert keyfile.read(text) == KeyFile(PLAIN)


def test_manager_file_unlocked() -> None:
    text = keyfile.write(KeyFile(PLAIN, dek=DEK), ENTROPY)
    headers = keyfile.headers(text)
    assert list(headers) == ["kek-version", "raft-dek"]
    record = api.MaybeEncryptedRecord.FromString(base64.b64decode(headers["raft-dek"]))
    assert (record.algorithm, record.data, record.nonce) == (0, DEK, b"")
    assert keyfile.read(text) == KeyFile(PLAIN, dek=DEK)
    assert not keyfile.is_locked(text)


@pytest.mark.parametrize("fips", [False, True])
def test_manager_file_locked(fips: bool) -> None:
    file = KeyFile(PLAIN, LOCK, DEK, NEXT, True, fips)
    text = keyfile.write(file, ENTROPY)
    assert text.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nkek-version: 17\n")
    assert list(keyfile.headers(text)) == [
        "kek-version",
        "raft-dek",
        "raft-dek-needs-rotation",
        "raft-dek-pending",
    ]
    assert DEK not in base64.b64decode(keyfile.headers(text)["raft-dek"])
    assert keyfile.is_locked(text)
    assert keyfile.read(text, LOCK.key, fips=fips) == file
    # `cryptography` opens the key with the raw bytes as passphrase, as it opens stock ones
    opened = load_pem_private_key(keyfile.strip_headers(text), LOCK.key)
    assert isinstance(opened, keys.PrivateKey) and keys.to_pkcs8(opened) == PLAIN


def test_openssl_finds_the_stock_algorithms_in_a_locked_key(tmp_path: Path) -> None:
    text = keyfile.strip_headers(keyfile.write(KeyFile(PLAIN, LOCK), ENTROPY))
    (tmp_path / "key").write_bytes(text)
    done = subprocess.run(
        ["openssl", "asn1parse", "-in", str(tmp_path / "key")],
        capture_output=True,
        text=True,
        check=True,
    )
    words = ["PBES2", "PBKDF2", "aes-256-cbc", "prim: INTEGER           :0800"]
    assert [word in done.stdout for word in words] == [True] * 4
    assert "hmac" not in done.stdout.lower()
    (tmp_path / "hex").write_text("hexpass")
    other = keyfile.strip_headers(keyfile.write(KeyFile(PLAIN, KEK(b"hexpass", 1)), ENTROPY))
    (tmp_path / "key").write_bytes(other)
    done = subprocess.run(
        ["openssl", "pkey", "-in", str(tmp_path / "key"), "-passin", "pass:hexpass"],
        capture_output=True,
        check=True,
    )
    assert done.stdout == PLAIN


@pytest.mark.parametrize("kek", [b"", b"x" * 32, LOCK.key[:31], LOCK.key + b"z"])
def test_wrong_unlock_key(kek: bytes) -> None:
    text = keyfile.write(KeyFile(PLAIN, LOCK, DEK), ENTROPY)
    with pytest.raises(InvalidKEK):
        keyfile.read(text, kek)


def test_an_unlock_key_for_an_open_file_is_not_taken_over() -> None:
    text = keyfile.write(KeyFile(PLAIN, dek=DEK), ENTROPY)
    assert keyfile.read(text, LOCK.key).kek == KEK()


def test_older_encrypted_form_is_read() -> None:
    traditional = KEY.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(LOCK.key)
    )
    block = pem.first(traditional)
    assert block.headers["Proc-Type"] == "4,ENCRYPTED"
    text = pem.encode(pem.Block(block.label, block.der, {**block.headers, "kek-version": "5"}))
    assert keyfile.is_locked(text)
    file = keyfile.read(text, LOCK.key)
    assert (file.key_pem, file.kek) == (PLAIN, KEK(LOCK.key, 5))
    with pytest.raises(InvalidKEK):
        keyfile.read(text, b"wrong")


def test_locking_asks_for_new_raft_keys() -> None:
    file = KeyFile(PLAIN, dek=DEK)
    locked = file.with_kek(LOCK)
    assert locked.needs_rotation and locked.kek == LOCK
    begun = locked.begin_rotation(ENTROPY)
    assert len(begun.pending_dek) == 32 and not begun.needs_rotation
    assert begun.begin_rotation(ENTROPY) is begun
    done = begun.finish_rotation()
    assert (done.dek, done.pending_dek) == (begun.pending_dek, b"")
    assert done.finish_rotation() is done


def test_changing_or_removing_the_lock_keeps_the_raft_keys() -> None:
    file = KeyFile(PLAIN, LOCK, DEK)
    assert not file.with_kek(KEK(b"n" * 32, 18)).needs_rotation
    opened = file.with_kek(KEK(b"", 18))
    assert opened == replace(file, kek=KEK(b"", 18))
    assert file.with_kek(KEK(b"n" * 32, 16)) is file
    assert file.with_kek(KEK(LOCK.key, 99)) is file
    assert not KeyFile(PLAIN).with_kek(LOCK).needs_rotation


def test_one_version_with_two_keys_is_an_error() -> None:
    with pytest.raises(CAError, match="same version as the current KEK"):
        KeyFile(PLAIN, LOCK).with_kek(KEK(b"n" * 32, 17))


def test_demoted_node_forgets_the_raft_keys() -> None:
    file = KeyFile(PLAIN, LOCK, DEK, NEXT, True).without_deks()
    assert file == KeyFile(PLAIN, LOCK)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", InvalidPEM),
        (b"junk", InvalidPEM),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", InvalidPEM),
        (b"-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n", InvalidPEM),
        (pem.encode(pem.Block("PRIVATE KEY", pem.first(PLAIN).der, {"raft-dek": "?"})), InvalidPEM),
        (
            pem.encode(pem.Block("PRIVATE KEY", pem.first(PLAIN).der, {"raft-dek": "/w=="})),
            InvalidKEK,
        ),
        (
            pem.encode(
                pem.Block("PRIVATE KEY", pem.first(PLAIN).der, {"raft-dek-pending": "EgFh"})
            ),
            InvalidPEM,
        ),
    ],
)
def test_junk(text: bytes, error: type[CAError]) -> None:
    with pytest.raises(error):
        keyfile.read(text)


@pytest.mark.parametrize("version", ["", "x", "-1", "1" * 40, "²"])
def test_unreadable_version_counts_as_none(version: str) -> None:
    block = pem.Block("PRIVATE KEY", pem.first(PLAIN).der, {"kek-version": "0"})
    text = pem.encode(block).replace(b"kek-version: 0", f"kek-version: {version}".encode())
    assert keyfile.read(text).kek.version == 0
