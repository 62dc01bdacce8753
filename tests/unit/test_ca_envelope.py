"""Sealed records: algorithms, key order, damage."""

from __future__ import annotations

import pytest
from nacl.secret import SecretBox

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import envelope
from swarmd.cluster.ca.errors import CannotDecrypt

ENTROPY = SeededEntropy(1)
KEY, OTHER = envelope.new_key(ENTROPY), envelope.new_key(ENTROPY)
Record = api.MaybeEncryptedRecord


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 100_000])
def test_secretbox_round_trip(data: bytes) -> None:
    sealed = ca.secretbox(KEY, ENTROPY).encrypt(data)
    record = Record.FromString(sealed)
    assert record.algorithm == Record.SECRETBOX_SALSA20_POLY1305
    assert len(record.nonce) == 24
    assert len(record.data) == len(data) + 16
    assert ca.decryptor(KEY).decrypt(sealed) == data
    # an independent reading of the same format: tag before ciphertext, nonce beside it
    assert SecretBox(KEY).decrypt(record.data, record.nonce) == data


def test_each_record_has_its_own_nonce() -> None:
    sealer = ca.secretbox(KEY, ENTROPY)
    nonces = {Record.FromString(sealer.encrypt(b"same")).nonce for _ in range(100)}
    assert len(nonces) == 100


def test_fernet_round_trip() -> None:
    sealed = ca.fernet(KEY, lambda: 1_700_000_000.0).encrypt(b"data")
    record = Record.FromString(sealed)
    assert record.algorithm == Record.FERNET_AES_128_CBC
    assert record.nonce == b""
    assert ca.decryptor(KEY).decrypt(sealed) == b"data"
    assert ca.decryptor(KEY, fips=True).decrypt(sealed) == b"data"


def test_plain_record_is_neither_sealed_nor_accepted_for_a_sealed_one() -> None:
    sealed = ca.plain().encrypt(b"data")
    assert Record.FromString(sealed).algorithm == Record.NONE
    assert ca.plain().decrypt(sealed) == b"data"
    assert ca.decryptor().decrypt(sealed) == b"data"
    with pytest.raises(CannotDecrypt, match="cannot decrypt record encrypted using NONE"):
        ca.decryptor(KEY).decrypt(sealed)
    with pytest.raises(CannotDecrypt, match="record is encrypted"):
        ca.plain().decrypt(ca.secretbox(KEY, ENTROPY).encrypt(b"data"))


@pytest.mark.parametrize("sealer", [ca.secretbox(OTHER, ENTROPY), ca.fernet(OTHER)])
def test_later_keys_are_tried(sealer: ca.Encryptor) -> None:
    sealed = sealer.encrypt(b"data")
    assert ca.decryptor(KEY, OTHER).decrypt(sealed) == b"data"
    with pytest.raises(CannotDecrypt, match="no decryption key for record encrypted with"):
        ca.decryptor(KEY).decrypt(sealed)


def test_fips_reads_fernet_only() -> None:
    with pytest.raises(CannotDecrypt, match="cannot decrypt"):
        ca.decryptor(KEY, fips=True).decrypt(ca.secretbox(KEY, ENTROPY).encrypt(b"data"))


@pytest.mark.parametrize(
    "record",
    [
        b"\xff\xff",
        Record(algorithm=1, data=b"short", nonce=b"n" * 24).SerializeToString(),
        Record(algorithm=1, data=b"d" * 40, nonce=b"n" * 23).SerializeToString(),
        Record(algorithm=1, data=b"", nonce=b"n" * 24).SerializeToString(),
        Record(algorithm=2, data=b"no token").SerializeToString(),
        Record(algorithm=9, data=b"?").SerializeToString(),
    ],
)
def test_damage_is_told(record: bytes) -> None:
    with pytest.raises(CannotDecrypt):
        ca.decryptor(KEY, OTHER).decrypt(record)


def test_every_flipped_bit_of_a_record_is_noticed() -> None:
    sealed = ca.secretbox(KEY, ENTROPY).encrypt(b"the data")
    record = Record.FromString(sealed)
    for at in range(len(record.data)):
        bent = bytearray(record.data)
        bent[at] ^= 1
        with pytest.raises(CannotDecrypt):
            ca.decryptor(KEY).decrypt(
                Record(algorithm=1, data=bytes(bent), nonce=record.nonce).SerializeToString()
            )


def test_keys_of_another_size_are_filled_or_cut_as_in_go() -> None:
    short = ca.secretbox(b"abc", ENTROPY).encrypt(b"data")
    assert ca.decryptor(b"abc" + bytes(29)).decrypt(short) == b"data"
    long = ca.secretbox(KEY + b"tail", ENTROPY).encrypt(b"data")
    assert ca.decryptor(KEY).decrypt(long) == b"data"
