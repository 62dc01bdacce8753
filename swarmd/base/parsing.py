"""Reading messages of Go peers, whose text may be no UTF-8.

SwarmKit's decoders and encoders never look into a `string`; Python's refuses the whole message
for one wrong byte in a label or an error text. A stock member applies such an entry, so one that
drops it is not its equal any more; a node that sends such a label could not even register. Here
those bytes become U+FFFD, which is what Go's JSON shows of them at the stock REST API.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from swarmd.base import varint

M = TypeVar("M", bound=Message)

NESTED_MAX = 100
"""Messages in messages, as in the library."""
FIELDS_MAX = 10_000
"""Fields looked at in a message of a stranger: some 10 ms of work."""

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def parse(kind: type[M], raw: bytes, fields_max: int | None = None) -> M:
    """`kind.FromString`, but wrong bytes in texts are replaced. Raises `DecodeError`.

    Costs nothing more unless there are some. `fields_max` bounds the work then; None for
    messages of managers and of our own disk.
    """
    try:
        return kind.FromString(raw)
    except DecodeError:
        try:
            mended = _Mender(fields_max).message(kind.DESCRIPTOR, raw, 0)
        except ValueError:  # broken in some other way, or too much work
            mended = None
        if mended is None or mended == raw:
            raise
    return kind.FromString(mended)


class _Mender:
    """Copies one message's wire form, with every text made UTF-8."""

    def __init__(self, fields_max: int | None) -> None:
        # Below zero it never comes to its end.
        self._fields_left = fields_max if fields_max is not None else -1

    def message(self, kind: Any, raw: bytes, depth: int) -> bytes:
        """The mended form of `raw`; `kind` is its descriptor. Raises `ValueError`."""
        if raw.isascii() or depth > NESTED_MAX:
            return raw
        out: list[bytes] = []
        at = copied = 0
        while at < len(raw):
            if not self._fields_left:
                raise ValueError("too many fields")
            self._fields_left -= 1
            tag, at = varint.decode(raw, at)
            begin, end = _extent(raw, at, tag & 7)
            field = kind.fields_by_number.get(tag >> 3)
            if field is not None and tag & 7 == _DELIMITED:
                before = raw[begin:end]
                after = self._mended(field, before, depth)
                if after != before:
                    out += (raw[copied:at], varint.encode(len(after)), after)
                    copied = end
            at = end
        out.append(raw[copied:])
        return b"".join(out)

    def _mended(self, field: FieldDescriptor, body: bytes, depth: int) -> bytes:
        if field.type == FieldDescriptor.TYPE_STRING:
            return body if body.isascii() else body.decode("utf-8", "replace").encode()
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            return self.message(field.message_type, body, depth + 1)
        return body


def _extent(raw: bytes, at: int, shape: int) -> tuple[int, int]:
    """Where the value that begins at `at` has its first byte and where it is over.

    Raises `ValueError`.
    """
    begin = at
    if shape == _VARINT:
        _, end = varint.decode(raw, at)
    elif shape == _DELIMITED:
        size, begin = varint.decode(raw, at)
        end = begin + size
    elif shape in (_FIXED64, _FIXED32):
        end = at + (8 if shape == _FIXED64 else 4)
    else:
        raise ValueError("unknown wire type")
    if end > len(raw):
        raise ValueError("field is cut off")
    return begin, end
