"""The envelope of a backup: AES-256-GCM over pieces, the key from a passphrase or unlock key.

    "SWMBACKUP\n"  length of the head (4 bytes)  head (JSON)  SHA-256 of all before  pieces

Every piece but the last holds `PIECE_BYTES`. Its nonce counts pieces and marks the last one
(the STREAM construction), the digest of the head is authenticated with each, so that pieces
cannot be changed, left out, put elsewhere or cut off, and the head cannot be exchanged.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from swarmd.base.archive.errors import Damaged, NewerFormat, NotAnArchive, WrongKey

MAGIC = b"SWMBACKUP\n"
FORMAT = 1
PIECE_BYTES = 1 << 16
TAG_BYTES = 16
SALT_BYTES = 16
_DIGEST_BYTES = 32
head_bytes_max = 4096
# 128 MiB and about half a second: the cost of one guess at a passphrase.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 17, 8, 1
# A made-up head must not make a reader use more than this.
scrypt_n_max, scrypt_r_max, scrypt_p_max = 1 << 20, 8, 4
_INFO = b"swarmd backup 1"


class Kind(enum.Enum):
    """How a backup is protected."""

    CLEAR = "none"
    PASSPHRASE = "passphrase"
    UNLOCK_KEY = "unlock key"


_ARTICLES = {
    Kind.CLEAR: "nothing",
    Kind.PASSPHRASE: "a passphrase",
    Kind.UNLOCK_KEY: "an unlock key",
}


@dataclass(frozen=True, slots=True)
class Lock:
    """A way to make a key: what goes into the head, and the secret as bytes."""

    kind: Kind
    secret: bytes
    n: int = SCRYPT_N

    def __repr__(self) -> str:
        return f"Lock({self.kind.value})"


def from_passphrase(text: str, *, n: int = SCRYPT_N) -> Lock:
    """A key stretched from a passphrase by scrypt. Raises `WrongKey` for an empty one."""
    if not text:
        raise WrongKey("the passphrase is empty")
    return Lock(Kind.PASSPHRASE, text.encode(), n)


def from_unlock_key(text: str) -> Lock:
    """A key made from an unlock key (SWMKEY-1-...). Raises `WrongKey` for anything else."""
    prefix = "SWMKEY-1-"
    body = text.strip().removeprefix(prefix)
    try:
        if not text.strip().startswith(prefix):
            raise ValueError
        secret = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise WrongKey("this is not an unlock key") from None
    return Lock(Kind.UNLOCK_KEY, secret)


def kind_of(data: bytes) -> Kind:
    """How the backup that starts with `data` is protected. Raises as `open_sealed` does."""
    if not data.startswith(MAGIC):
        return Kind.CLEAR
    return _kind(_read_head(data)[0])


def seal(data: bytes, lock: Lock, token: Callable[[int], bytes] = os.urandom) -> Iterator[bytes]:
    """The sealed form of `data`, piece by piece."""
    salt = token(SALT_BYTES)
    settings: dict[str, Any] = {"Format": FORMAT, "Key": lock.kind.value}
    settings["Salt"] = base64.b64encode(salt).decode()
    if lock.kind is Kind.PASSPHRASE:
        settings |= {"N": lock.n, "R": SCRYPT_R, "P": SCRYPT_P}
    key, check = _derive(lock, settings, salt)
    settings["Check"] = base64.b64encode(check).decode()
    text = json.dumps(settings, separators=(",", ":")).encode()
    head = MAGIC + len(text).to_bytes(4, "big") + text
    digest = hashlib.sha256(head).digest()
    yield head + digest
    cipher = _cipher(key)
    count = max(1, -(-len(data) // PIECE_BYTES))
    for number in range(count):
        piece = data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        yield cipher.encrypt(_nonce(number, number == count - 1), piece, digest)


def open_sealed(data: bytes, lock: Lock) -> bytes:
    """What was sealed. Raises `NotAnArchive`, `NewerFormat`, `WrongKey`, `Damaged`."""
    from cryptography.exceptions import InvalidTag

    settings, digest, start = _read_head(data)
    kind = _kind(settings)
    if kind is not lock.kind:
        raise WrongKey(
            f"the backup is encrypted with {_ARTICLES[kind]}, not {_ARTICLES[lock.kind]}"
        )
    key, check = _derive(lock, settings, _decoded(settings, "Salt"))
    if not hmac.compare_digest(check, _decoded(settings, "Check")):
        raise WrongKey(f"the {kind.value} does not fit this backup")
    cipher, step = _cipher(key), PIECE_BYTES + TAG_BYTES
    count = max(1, -(-(len(data) - start) // step))
    pieces = []
    for number in range(count):
        piece = data[start + number * step : start + (number + 1) * step]
        try:
            pieces.append(cipher.decrypt(_nonce(number, number == count - 1), piece, digest))
        except (InvalidTag, ValueError):
            at = start + number * step
            raise Damaged(f"it is cut off or was changed at or after byte {at}") from None
    return b"".join(pieces)


def _read_head(data: bytes) -> tuple[Mapping[str, Any], bytes, int]:
    """(settings, digest, where the pieces start)."""
    if not data.startswith(MAGIC):
        raise NotAnArchive
    at = len(MAGIC) + 4
    size = int.from_bytes(data[len(MAGIC) : at], "big")
    end = at + size + _DIGEST_BYTES
    if size > head_bytes_max or len(data) < end:
        raise Damaged("its head is cut off or was changed")
    digest = hashlib.sha256(data[: at + size]).digest()
    if digest != data[at + size : end]:
        raise Damaged("its head was changed")
    try:
        settings = json.loads(data[at : at + size])
        version = settings["Format"]
        if not isinstance(version, int):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Damaged("its head is not understood") from None
    if version > FORMAT:
        raise NewerFormat(version, FORMAT)
    return settings, digest, end


def _kind(settings: Mapping[str, Any]) -> Kind:
    try:
        return Kind(settings.get("Key"))
    except ValueError:
        raise Damaged("its head names no known key") from None


def _derive(lock: Lock, settings: Mapping[str, Any], salt: bytes) -> tuple[bytes, bytes]:
    """(key, value that tells a wrong key from damage)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    if lock.kind is Kind.PASSPHRASE:
        n, r, p = _effort(settings)
        made = Scrypt(salt=salt, length=64, n=n, r=r, p=p).derive(lock.secret)
    else:
        made = HKDF(SHA256(), 64, salt, _INFO).derive(lock.secret)
    return made[:32], made[32:]


def _effort(settings: Mapping[str, Any]) -> tuple[int, int, int]:
    found = []
    for name, most in (("N", scrypt_n_max), ("R", scrypt_r_max), ("P", scrypt_p_max)):
        value = settings.get(name)
        if type(value) is not int or not 1 <= value <= most:
            raise Damaged("its head asks for an unreasonable effort")
        found.append(value)
    n, r, p = found
    if n < 2 or n & (n - 1):
        raise Damaged("its head asks for an unreasonable effort")
    return n, r, p


def _decoded(settings: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(settings[name], validate=True)
    except (KeyError, TypeError, ValueError):
        raise Damaged("its head is not understood") from None


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
