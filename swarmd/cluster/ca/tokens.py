"""Join tokens: `SWMTKN-1-<root digest>-<secret>` (wire/PROTOCOL 1.2).

The digest lets a joining node check the root before it sends anything; the secret decides
the role. Clusters with mandatory FIPS use the form `SWMTKN-2-1-...`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from functools import lru_cache

from swarmd.base.entropy import base36
from swarmd.cluster.ca.chance import Chance
from swarmd.cluster.ca.errors import InvalidJoinToken

PREFIX = "SWMTKN"
DIGEST_LENGTH = 50
SECRET_LENGTH = 25
SECRET_BYTES = 16
_DIGEST = re.compile(r"[0-9a-zA-Z]{50}\Z")
_DIGEST_MAX = 1 << 256


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token taken apart."""

    version: int
    digest: str  # SHA-256 of the root bundle, 64 hexadecimal digits
    secret: str = field(repr=False)
    fips: bool = False


def join_token(root_pem: bytes, entropy: Chance, fips: bool = False) -> str:
    """Make a token with a fresh secret for the root bundle exactly as it is served."""
    number = int.from_bytes(entropy.token(SECRET_BYTES), "big")
    secret = base36(number).rjust(SECRET_LENGTH, "0")
    return f"{PREFIX}-{'2-1' if fips else '1'}-{_digest_text(root_pem)}-{secret}"


@lru_cache(maxsize=4)
def _digest_text(root_pem: bytes) -> str:
    return base36(int(root_hash(root_pem), 16)).rjust(DIGEST_LENGTH, "0")


def parse_token(text: str) -> JoinToken:
    """Take a token apart. Raises `InvalidJoinToken` for anything that cannot be one."""
    parts = text.split("-")
    if len(parts) < 4 or parts[0] != PREFIX:
        raise InvalidJoinToken
    version, fips = _version(parts)
    digest, secret = parts[-2], parts[-1]
    if _DIGEST.match(digest) is None or len(secret.encode("utf-8", "replace")) != SECRET_LENGTH:
        raise InvalidJoinToken
    number = int(digest, 36)
    if number >= _DIGEST_MAX:
        raise InvalidJoinToken
    return JoinToken(version, f"{number:064x}", secret, fips)


def _version(parts: list[str]) -> tuple[int, bool]:
    if parts[1] == "1" and len(parts) == 4:
        return 1, False
    if parts[1] == "2" and len(parts) == 5 and parts[2] in ("0", "1"):
        return 2, parts[2] == "1"
    raise InvalidJoinToken


def root_hash(root_pem: bytes) -> str:
    """SHA-256 of the exact bytes of a root bundle, in hexadecimal."""
    return hashlib.sha256(root_pem).hexdigest()


def same(left: str, right: str) -> bool:
    """Compare two tokens in constant time; an empty one equals nothing."""
    return hmac.compare_digest(
        left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass")
    ) and bool(left)
