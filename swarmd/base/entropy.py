"""Chance as an argument: random bytes, identifiers and jitter behind one small protocol."""

from __future__ import annotations

import random
import secrets
from typing import Protocol

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 25


class Entropy(Protocol):
    """Where chance comes from; seeded in tests and simulation."""

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`; not for secrets."""
        ...


class SystemEntropy:
    """The operating system's random source."""

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        return secrets.token_bytes(size)

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`; not for secrets."""
        return random.uniform(low, high)


class SeededEntropy:
    """Reproducible chance for tests and simulation; never for real keys."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        """`size` bytes of the seeded sequence."""
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return self._random.uniform(low, high)


_TEN_DIGITS = 36**10


def base36(number: int) -> str:
    """Write a non-negative integer in base 36, lower case, without padding."""
    if number == 0:
        return "0"
    digits = []
    while number:
        # Ten at a time: dividing the long number is what costs.
        number, part = divmod(number, _TEN_DIGITS)
        for _ in range(10):
            part, rest = divmod(part, 36)
            digits.append(DIGITS[rest])
    return "".join(reversed(digits)).lstrip("0")


def new_id(entropy: Entropy) -> str:
    """Make a SwarmKit identifier: 25 characters of base 36.

    17 random bytes with the top bit forced to one, read big-endian, written in base 36;
    the first character is dropped because that bit makes it uneven (wire/PROTOCOL 1.1).
    """
    raw = bytearray(entropy.token(17))
    raw[0] |= 0x80
    return base36(int.from_bytes(raw, "big"))[1 : 1 + ID_LENGTH]
