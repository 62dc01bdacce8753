"""Sealed records: `MaybeEncryptedRecord`, the form of everything secret at rest.

Raft entries, snapshots and the raft key itself are kept this way (wire/PROTOCOL 1.7, 3.7).
Written with NaCl secretbox, or Fernet in FIPS clusters; both are read. Sealing is on the
write path of every Raft entry, so objects are made once per key and reused.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Protocol

from cryptography.fernet import Fernet, InvalidToken
from google.protobuf.message import DecodeError
from nacl import bindings
from nacl.exceptions import CryptoError

from swarmd import api
from swarmd.cluster.ca.chance import Chance
from swarmd.cluster.ca.errors import CannotDecrypt

KEY_BYTES = 32
_NONCE_BYTES = 24
_NONE = api.MaybeEncryptedRecord.NONE
_SECRETBOX = api.MaybeEncryptedRecord.SECRETBOX_SALSA20_POLY1305
_FERNET = api.MaybeEncryptedRecord.FERNET_AES_128_CBC


class Encryptor(Protocol):
    """Seals bytes."""

    def encrypt(self, data: bytes) -> bytes:
        """`data` as a marshalled MaybeEncryptedRecord."""
        ...


class Decryptor(Protocol):
    """Opens sealed bytes."""

    def decrypt(self, data: bytes) -> bytes:
        """What a marshalled MaybeEncryptedRecord holds. Raises `CannotDecrypt`."""
        ...


class _Secretbox:
    __slots__ = ("_entropy", "_key")

    def __init__(self, key: bytes, entropy: Chance) -> None:
        self._key = _sized(key)
        self._entropy = entropy

    def encrypt(self, data: bytes) -> bytes:
        nonce = self._entropy.token(_NONCE_BYTES)
        sealed = bindings.crypto_secretbox_easy(data, nonce, self._key)
        return api.MaybeEncryptedRecord(
            algorithm=_SECRETBOX, data=sealed, nonce=nonce
        ).SerializeToString()


class _FernetSealer:
    __slots__ = ("_fernet", "_now")

    def __init__(self, key: bytes, now: Callable[[], float]) -> None:
        self._fernet = _fernet_of(key)
        self._now = now

    def encrypt(self, data: bytes) -> bytes:
        token = self._fernet.encrypt_at_time(data, int(self._now()))
        return api.MaybeEncryptedRecord(algorithm=_FERNET, data=token).SerializeToString()


class _Plain:
    __slots__ = ()

    def encrypt(self, data: bytes) -> bytes:
        return api.MaybeEncryptedRecord(algorithm=_NONE, data=data).SerializeToString()

    def decrypt(self, data: bytes) -> bytes:
        record = _record(data)
        if record.algorithm != _NONE:
            raise CannotDecrypt("record is encrypted")
        return record.data


class _AnyKey:
    __slots__ = ("_fernets", "_keys")

    def __init__(self, keys: tuple[bytes, ...], fips: bool) -> None:
        self._keys = () if fips else tuple(_sized(key) for key in keys)
        self._fernets = tuple(_fernet_of(key) for key in keys)

    def decrypt(self, data: bytes) -> bytes:
        record = _record(data)
        if record.algorithm == _SECRETBOX and self._keys:
            return self._open_box(record)
        if record.algorithm == _FERNET:
            return self._open_fernet(record.data)
        raise CannotDecrypt(f"cannot decrypt record encrypted using {_name(record.algorithm)}")

    def _open_box(self, record: api.MaybeEncryptedRecord) -> bytes:
        nonce = record.nonce
        if len(nonce) != _NONCE_BYTES:
            raise CannotDecrypt(
                f"invalid nonce size for NACL secretbox: require 24, got {len(nonce)}"
            )
        sealed = record.data
        for key in self._keys:
            try:
                opened: bytes = bindings.crypto_secretbox_open_easy(sealed, nonce, key)
            except (CryptoError, TypeError, ValueError):
                continue
            return opened
        raise CannotDecrypt(f"no decryption key for record encrypted with {_name(_SECRETBOX)}")

    def _open_fernet(self, token: bytes) -> bytes:
        for fernet_key in self._fernets:
            try:
                return fernet_key.decrypt(token)
            except InvalidToken:
                continue
        raise CannotDecrypt(f"no decryption key for record encrypted with {_name(_FERNET)}")


_PLAIN = _Plain()


def secretbox(key: bytes, entropy: Chance) -> Encryptor:
    """Seal with NaCl secretbox (XSalsa20-Poly1305), a fresh nonce from `entropy` each time."""
    return _Secretbox(key, entropy)


def fernet(key: bytes, now: Callable[[], float] = lambda: 0.0) -> Encryptor:
    """Seal with Fernet; `now` is written into the token and read by nobody."""
    return _FernetSealer(key, now)


def plain() -> _Plain:
    """Do not seal: records with algorithm NONE, both ways."""
    return _PLAIN


def decryptor(*keys: bytes, fips: bool = False) -> Decryptor:
    """Open records of either algorithm, trying `keys` in order; FIPS allows Fernet only.

    Without keys only records that are not sealed can be read; with keys such records are
    refused, as stock does, so that nobody can slip in a record in clear.
    """
    return _AnyKey(keys, fips) if keys else _PLAIN


def new_key(entropy: Chance) -> bytes:
    """A fresh key for either algorithm."""
    return entropy.token(KEY_BYTES)


def _sized(key: bytes) -> bytes:
    # Go copies the key into a fixed array: longer ones are cut, shorter ones zero-filled.
    return bytes(key[:KEY_BYTES]).ljust(KEY_BYTES, b"\0")


def _fernet_of(key: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_sized(key)))


def _record(data: bytes) -> api.MaybeEncryptedRecord:
    try:
        return api.MaybeEncryptedRecord.FromString(data)
    except DecodeError:
        raise CannotDecrypt("unable to unmarshal as MaybeEncryptedRecord") from None


def _name(algorithm: int) -> str:
    names = {value: name for name, value in api.MaybeEncryptedRecord.Algorithm.items()}
    return names.get(algorithm, str(algorithm))
