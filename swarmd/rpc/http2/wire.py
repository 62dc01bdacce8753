"""Names and shapes of the frames (RFC 9113), and the two ways a peer can break the rules."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES_MAX = 16_384
"""The largest payload we accept: the protocol's own default."""
WINDOW_MAX = 2**31 - 1
WINDOW_DEFAULT = 65_535
TABLE_DEFAULT = 4096
HEAD = struct.Struct(">HBBBL")
"""Head of a frame: length (16 + 8 bits), type, flags, stream."""
HEAD_BYTES = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 9, 11, 12
CODES = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""Names of the error codes."""

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6


class ConnectionFault(Exception):
    """The peer broke the rules of the connection: GOAWAY with `code`, and the end."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):
    """The peer broke the rules of one stream: RST_STREAM with `code`; the others go on."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def headers_frames(stream: int, block: bytes, flags: int, size_max: int) -> bytes:
    """A header block as HEADERS and, when it is long, CONTINUATION frames."""
    if len(block) <= size_max:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    made = [frame(HEADERS, flags, stream, block[:size_max])]
    for start in range(size_max, len(block), size_max):
        piece = block[start : start + size_max]
        last = END_HEADERS if start + size_max >= len(block) else 0
        made.append(frame(CONTINUATION, last, stream, piece))
    return b"".join(made)


def number(value: int) -> bytes:
    """Four bytes, as windows and error codes are written."""
    return value.to_bytes(4, "big")


def settings_payload(values: dict[int, int]) -> bytes:
    """The payload of a SETTINGS frame."""
    return b"".join(struct.pack(">HL", name, value) for name, value in values.items())


def settings_in(payload: bytes) -> dict[int, int]:
    """The settings a peer sent, the last of each; raises `ConnectionFault` for impossible ones."""
    if len(payload) % 6:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS of the wrong size")
    found = dict(struct.iter_unpack(">HL", payload))
    if found.get(ENABLE_PUSH, 0) > 1:
        raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH out of range")
    if found.get(INITIAL_WINDOW_SIZE, 0) > WINDOW_MAX:
        raise ConnectionFault(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE out of range")
    if not FRAME_BYTES_MAX <= found.get(MAX_FRAME_SIZE, FRAME_BYTES_MAX) < 1 << 24:
        raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
    return found


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload without its padding."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
