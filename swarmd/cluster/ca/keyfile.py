"""The node's key file: a PEM key whose headers hold the raft key (wire/PROTOCOL 1.7).

Headers: `kek-version` (version of the cluster object the unlock key came with), and on
managers `raft-dek`, `raft-dek-pending`, `raft-dek-needs-rotation`. With autolock the key is
`ENCRYPTED PRIVATE KEY` and the raft keys are sealed records; without, they are in clear.
Reading and writing are pure; files are `swarmd.node.statedir`'s business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from swarmd.cluster.ca import envelope, keys, pem
from swarmd.cluster.ca.chance import Chance
from swarmd.cluster.ca.errors import CAError, CannotDecrypt, InvalidKEK, InvalidPEM

VERSION = "kek-version"
DEK = "raft-dek"
PENDING = "raft-dek-pending"
NEEDS_ROTATION = "raft-dek-needs-rotation"
_PLAIN = "PRIVATE KEY"
_SEALED = "ENCRYPTED PRIVATE KEY"
_ITERATIONS = 2048
_SALT_BYTES = 8
_IV_BYTES = 16
_VERSION_MAX = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class KEK:
    """The key-encrypting key (empty: not locked) and the cluster version it came with."""

    key: bytes = field(default=b"", repr=False)
    version: int = 0


@dataclass(frozen=True, slots=True)
class KeyFile:
    """An opened key file. `key_pem` is plain PKCS#8; the raft keys are 32 raw bytes or empty."""

    key_pem: bytes = field(repr=False)
    kek: KEK = KEK()
    dek: bytes = field(default=b"", repr=False)
    pending_dek: bytes = field(default=b"", repr=False)
    needs_rotation: bool = False
    fips: bool = False

    def with_kek(self, kek: KEK) -> KeyFile:
        """The file under another unlock key; going from unlocked to locked asks for new raft
        keys, because the old ones lay open on disk. Raises `CAError` when the version is the
        same and the key is not. Returns itself when there is nothing newer."""
        update, locked = compare(self.kek, kek)
        if not update:
            return self
        return replace(self, kek=kek, needs_rotation=self.needs_rotation or (locked and self.holds))

    def adopt_kek(self, kek: KEK) -> KeyFile:
        """The file under the unlock key that came with a new certificate, whatever its version:
        a worker's certificate comes without a lock even if the node was a locked manager."""
        locks = self.kek.version < kek.version and bool(kek.key) and not self.kek.key
        return replace(self, kek=kek, needs_rotation=self.needs_rotation or (locks and self.holds))

    @property
    def holds(self) -> bool:
        """True when there is a raft key in the headers."""
        return bool(self.dek)

    def begin_rotation(self, entropy: Chance) -> KeyFile:
        """Put a fresh pending raft key into the headers, if one is wanted and none pending."""
        if not self.needs_rotation or self.pending_dek:
            return self
        return replace(self, pending_dek=envelope.new_key(entropy), needs_rotation=False)

    def finish_rotation(self) -> KeyFile:
        """Make the pending raft key the current one."""
        if not self.pending_dek:
            return self
        return replace(self, dek=self.pending_dek, pending_dek=b"")

    def without_deks(self) -> KeyFile:
        """The key file of a node that is no manager any more."""
        return replace(self, dek=b"", pending_dek=b"", needs_rotation=False)


def compare(current: KEK, candidate: KEK) -> tuple[bool, bool]:
    """Should `candidate` replace `current`, and does that lock what was open?

    Raises `CAError` when one version has two keys.
    """
    same = hmac.compare_digest(current.key, candidate.key)
    if current.version == candidate.version and not same:
        raise CAError(
            "candidate KEK has the same version as the current KEK, but a different KEK value"
        )
    if current.version >= candidate.version or same:
        return False, False
    return True, not current.key


def headers(text: bytes) -> Mapping[str, str]:
    """The raw headers of a key file; readable while it is locked. Raises `InvalidPEM`."""
    return pem.first(text).headers


def is_locked(text: bytes) -> bool:
    """True when the key file cannot be read without an unlock key. Raises `InvalidPEM`."""
    block = pem.first(text)
    return block.label == _SEALED or "ENCRYPTED" in block.headers.get("Proc-Type", "")


def read(text: bytes, kek: bytes = b"", *, fips: bool = False) -> KeyFile:
    """Open a key file. Raises `InvalidKEK` when `kek` does not open it, `InvalidPEM` for junk."""
    block = pem.first(text)
    locked = is_locked(text)
    if locked and not kek:
        raise InvalidKEK("x509: decryption password incorrect")
    key = _open(block, kek) if locked else keys.load_der(block.der)
    # A file that is not locked was written without a key, whatever key the caller holds.
    used = kek if locked else b""
    dek = _open_header(block.headers, DEK, used, fips)
    pending = _open_header(block.headers, PENDING, used, fips)
    if pending and not dek:
        raise InvalidPEM("there is a pending DEK, but no current DEK")
    return KeyFile(
        key_pem=keys.to_pkcs8(key),
        kek=KEK(used, _version(block.headers.get(VERSION, ""))),
        dek=dek,
        pending_dek=pending,
        needs_rotation=NEEDS_ROTATION in block.headers,
        fips=fips,
    )


def write(file: KeyFile, entropy: Chance) -> bytes:
    """The text of a key file, sealed with its own `kek` if it has one."""
    der = pem.first(file.key_pem).der
    names = {VERSION: str(file.kek.version)}
    for name, value in ((DEK, file.dek), (PENDING, file.pending_dek)):
        if value:
            names[name] = _seal_header(value, file, entropy)
    if file.needs_rotation:
        names[NEEDS_ROTATION] = "true"
    if not file.kek.key:
        return pem.encode(pem.Block(_PLAIN, der, names))
    return pem.encode(pem.Block(_SEALED, _seal(der, file.kek.key, entropy), names))


def strip_headers(text: bytes) -> bytes:
    """The key without headers, as OpenSSL wants it. Works on locked files too."""
    block = pem.first(text)
    return pem.encode(pem.Block(block.label, block.der))


def _version(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= _VERSION_MAX:
        return int(text)
    return 0


def _open(block: pem.Block, kek: bytes) -> keys.PrivateKey:
    try:
        if block.label == _SEALED:
            key = load_der_private_key(block.der, kek)
        else:  # before 18.09 engines wrote the older form, with Proc-Type and DEK-Info headers
            kept = {n: block.headers[n] for n in ("Proc-Type", "DEK-Info") if n in block.headers}
            key = load_pem_private_key(pem.encode(pem.Block(block.label, block.der, kept)), kek)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKEK("pkcs8: incorrect password") from error
    if not isinstance(key, keys.PrivateKey):
        raise InvalidPEM('{"code":2200,"message":"Private key algorithm is not RSA or ECC"}')
    return key


def _open_header(found: Mapping[str, str], name: str, kek: bytes, fips: bool) -> bytes:
    if name not in found:
        return b""
    try:
        record = base64.b64decode(found[name], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidPEM(f"unable to read TLS key headers: {name} is not base64") from None
    opener = envelope.decryptor(kek, fips=fips) if kek else envelope.plain()
    try:
        return opener.decrypt(record)
    except CannotDecrypt as error:
        raise InvalidKEK(f"unable to read TLS key headers: {error}") from error


def _seal_header(value: bytes, file: KeyFile, entropy: Chance) -> str:
    sealer: envelope.Encryptor = envelope.plain()
    if file.kek.key:
        key = file.kek.key
        sealer = envelope.fernet(key) if file.fips else envelope.secretbox(key, entropy)
    return base64.b64encode(sealer.encrypt(value)).decode()


def _seal(der: bytes, kek: bytes, entropy: Chance) -> bytes:
    salt, iv = entropy.token(_SALT_BYTES), entropy.token(_IV_BYTES)
    key = hashlib.pbkdf2_hmac("sha1", kek, salt, _ITERATIONS, 32)
    padder = padding.PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    sealed = cipher.update(padder.update(der) + padder.finalize()) + cipher.finalize()
    return _encrypted_key_info(salt, iv, sealed)


# Object identifiers, DER: PBES2, PBKDF2, AES-256-CBC.
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def _encrypted_key_info(salt: bytes, iv: bytes, sealed: bytes) -> bytes:
    """EncryptedPrivateKeyInfo in DER. `cryptography` would choose another PRF; stock leaves it
    out, which means HMAC-SHA1, and reads nothing else."""
    rounds = _der(0x02, _ITERATIONS.to_bytes(2, "big"))
    derivation = _der(0x30, _PBKDF2 + _der(0x30, _der(0x04, salt) + rounds))
    scheme = _der(0x30, _AES_256_CBC + _der(0x04, iv))
    algorithm = _der(0x30, _PBES2 + _der(0x30, derivation + scheme))
    return _der(0x30, algorithm + _der(0x04, sealed))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
