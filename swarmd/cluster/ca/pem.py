"""PEM blocks with headers: what Go writes into key files and OpenSSL refuses to read.

Neither `cryptography` nor OpenSSL accepts arbitrary headers such as `kek-version`, so
reading and writing them is done here (wire/PROTOCOL 1.7).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from swarmd.cluster.ca.errors import InvalidPEM

CERTIFICATE = "CERTIFICATE"
_LINE_LENGTH = 64
_BEGIN, _END, _TAIL = b"-----BEGIN ", b"-----END ", b"-----"


@dataclass(frozen=True, slots=True)
class Block:
    """One PEM block: its label, headers and binary content."""

    label: str
    der: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def encode(block: Block) -> bytes:
    """Write one block as Go does: `Proc-Type` first, other headers sorted, 64 columns."""
    lines = [f"-----BEGIN {block.label}-----"]
    names = sorted(block.headers, key=lambda name: (name != "Proc-Type", name))
    lines += [f"{name}: {block.headers[name]}" for name in names]
    if names:
        lines.append("")
    text = base64.b64encode(block.der).decode()
    lines += [text[at : at + _LINE_LENGTH] for at in range(0, len(text), _LINE_LENGTH)]
    lines.append(f"-----END {block.label}-----")
    return ("\n".join(lines) + "\n").encode()


def decode(text: bytes) -> tuple[list[Block], bytes]:
    """All blocks of `text` in order, and what follows the last one.

    Text before a block is skipped, as is a block whose inside is not base64.
    """
    blocks: list[Block] = []
    label: bytes | None = None
    inside: list[bytes] = []
    at = end = 0
    # One pass over the lines: a search for the end of every beginning would be quadratic.
    for line in text.splitlines(keepends=True):
        at += len(line)
        line = line.strip()
        if line.startswith(_BEGIN) and line.endswith(_TAIL):
            label, inside = line[len(_BEGIN) : -len(_TAIL)], []
        elif label is not None and line == _END + label + _TAIL:
            block = _block(label.decode("latin-1"), inside)
            if block is not None:
                blocks.append(block)
                end = at
            label = None
        elif label is not None:
            inside.append(line)
    return blocks, text[end:].strip()


def first(text: bytes) -> Block:
    """The first block of `text`. Raises `InvalidPEM` when there is none."""
    blocks, _ = decode(text)
    if not blocks:
        raise InvalidPEM("invalid PEM-encoded private key")
    return blocks[0]


def normalize(text: bytes) -> bytes:
    """Rewrite all blocks without headers and with uniform white space.

    Stock compares certificates in this form (wire/PROTOCOL 1.8, 1.9).
    """
    blocks, _ = decode(text)
    return b"".join(encode(Block(block.label, block.der)) for block in blocks)


def _block(label: str, inside: list[bytes]) -> Block | None:
    headers: dict[str, str] = {}
    start = 0
    while start < len(inside) and b":" in inside[start]:
        name, _, value = inside[start].decode("latin-1").partition(":")
        headers[name.strip()] = value.strip()
        start += 1
    try:
        der = base64.b64decode(b"".join(inside[start:]), validate=True)
    except (binascii.Error, ValueError):
        return None
    return Block(label, der, headers)
