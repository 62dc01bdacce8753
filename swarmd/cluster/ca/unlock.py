"""The unlock key of an autolocked manager as people see it: `SWMKEY-1-...` (wire/PROTOCOL 1.7)."""

from __future__ import annotations

import base64
import binascii

from swarmd.cluster.ca.chance import Chance
from swarmd.cluster.ca.errors import InvalidUnlockKey

PREFIX = "SWMKEY-1-"
KEY_BYTES = 32


def new_unlock_key(entropy: Chance) -> bytes:
    """A fresh key-encrypting key."""
    return entropy.token(KEY_BYTES)


def format_unlock_key(key: bytes) -> str:
    """Write a key for people: prefix and standard base64 without padding."""
    return PREFIX + base64.b64encode(key).decode().rstrip("=")


def parse_unlock_key(text: str) -> bytes:
    """Read what `format_unlock_key` wrote. Raises `InvalidUnlockKey` (`invalid key string`).

    Like stock, the length is not judged here: a key of the wrong size simply opens nothing.
    """
    if not text.startswith(PREFIX):
        raise InvalidUnlockKey
    # Go's decoder skips line breaks anywhere and refuses padding in this form.
    body = text[len(PREFIX) :].replace("\r", "").replace("\n", "")
    if "=" in body:
        raise InvalidUnlockKey
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidUnlockKey from None
