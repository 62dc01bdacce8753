"""Header blocks: reading them with the peer's dynamic table, writing them without any.

The table and the Huffman code are the `hpack` library's. The loop over a block is ours: the
library's costs 40 us for a typical request, most of it copies and log calls (measured), and it
cannot go on after a list that is too long, which would cost every stream of the connection.
What we send is written literally and never indexed, so answers are constant bytes.
"""

from __future__ import annotations

from itertools import chain

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from swarmd.rpc.http2.wire import COMPRESSION_ERROR, ConnectionFault

Header = tuple[bytes, bytes]
LIST_BYTES_MAX = 16_384
"""What a decoded header list may weigh, counted as RFC 9113 6.5.2 says."""
_OVERHEAD = 32
# One more header than this is too heavy whatever it says; what is beyond is not kept.
_COUNT_MAX = LIST_BYTES_MAX // _OVERHEAD
_STATIC = HeaderTable.STATIC_TABLE
_STATIC_COUNT = len(_STATIC)
_STRING_BYTES_MAX = 1 << 16


class HeaderReader:
    """Decodes the header blocks of one connection, in order."""

    __slots__ = ("_table",)

    def __init__(self) -> None:
        self._table = HeaderTable()

    def read(self, block: bytes) -> list[Header] | None:
        """The headers of a block; None when the list is too long (the table stays exact).

        Raises `ConnectionFault` for a block that cannot be decoded.
        """
        try:
            return self._read(block)
        except (HPACKError, IndexError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"header block: {error}") from error

    def _read(self, block: bytes) -> list[Header] | None:
        found: list[Header] = []
        recent = self._table.dynamic_entries
        at, end = 0, len(block)
        while at < end:
            first = block[at]
            if first >= 0x80:
                if first < 0xFF:
                    index, at = first & 0x7F, at + 1
                else:
                    index, at = _integer(block, at, 0x7F)
                # Index 0 is nobody's; -1 would be the last static entry.
                if index > _STATIC_COUNT:
                    header = recent[index - _STATIC_COUNT - 1]
                elif index:
                    header = _STATIC[index - 1]
                else:
                    raise IndexError("index 0")
            elif 0x20 <= first < 0x40:
                if found:
                    raise IndexError("table size update behind a header")
                at = self._resize(block, at)
                continue
            else:
                header, at = self._literal(block, at, first)
            if len(found) <= _COUNT_MAX:
                found.append(header)
        weight = _OVERHEAD * len(found) + sum(map(len, chain.from_iterable(found)))
        return found if weight <= LIST_BYTES_MAX else None

    def _literal(self, block: bytes, at: int, first: int) -> tuple[Header, int]:
        indexed = first >= 0x40
        index, at = _integer(block, at, 0x3F if indexed else 0x0F)
        if index:
            name = self._table.get_by_index(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        if indexed:
            self._table.add(name, value)
        return (name, value), at

    def _resize(self, block: bytes, at: int) -> int:
        size, at = _integer(block, at, 0x1F)
        if size > HeaderTable.DEFAULT_SIZE:
            raise IndexError("table size over its limit")
        self._table.maxsize = size
        return at


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """An integer whose first byte shares its place with other bits (RFC 7541 5.1)."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError("integer too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    packed = block[at] >= 0x80
    size, at = _integer(block, at, 0x7F)
    stop = at + size
    if stop > len(block) or size > _STRING_BYTES_MAX:
        raise IndexError("string longer than its block")
    text = block[at:stop]
    return (decode_huffman(text) if packed else text), stop


def indexed(index: int) -> bytes:
    """A whole field of the static table."""
    return bytes((0x80 | index,))


def named(index: int, value: bytes) -> bytes:
    """A field whose name is in the static table, for nobody's dynamic one."""
    first = bytes((index,)) if index < 0x0F else bytes((0x0F, index - 0x0F))
    return first + _sized(value)


def literal(name: bytes, value: bytes) -> bytes:
    """A header field as plain bytes, for nobody's table."""
    return b"\x00" + _sized(name) + _sized(value)


def status(code: int) -> bytes:
    """`:status`; the usual one is a single byte."""
    return b"\x88" if code == 200 else b"\x08" + _sized(str(code).encode())


def _sized(text: bytes) -> bytes:
    size = len(text)
    if size < 0x7F:
        return bytes((size,)) + text
    size -= 0x7F
    head = bytearray(b"\x7f")
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + text
