"""Protobuf's numbers of variable length, for the few formats that are read by hand."""

from __future__ import annotations

_BITS_MAX = 70


def encode(number: int) -> bytes:
    """The wire form of a number that is not negative."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and the place after it. Raises `ValueError`."""
    number = shift = 0
    while shift < _BITS_MAX:
        if at >= len(data):
            raise ValueError("number is cut off")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise ValueError("number is too long")
