"""A client's side of HTTP/2, written apart from ours: frames by hand, headers by `hpack`."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KINDS = (
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
)
CALL = (
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/docker.swarmkit.v1.Dispatcher/Heartbeat"),
    (":authority", "10.0.0.1:2377"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.33.3"),
    ("te", "trailers"),
)


@dataclass(frozen=True)
class Frame:
    """One frame as it came in."""

    kind: str
    flags: int
    stream: int
    payload: bytes

    @property
    def number(self) -> int:
        """The payload of WINDOW_UPDATE and RST_STREAM, or the code of a GOAWAY."""
        start = 4 if self.kind == "GOAWAY" else 0
        return int.from_bytes(self.payload[start : start + 4], "big")


def frame(kind: str, stream: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """One frame."""
    head = struct.pack(">L", len(payload))[1:]
    return head + bytes((KINDS.index(kind), flags)) + struct.pack(">L", stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame("SETTINGS", 0, b"".join(struct.pack(">HL", *pair) for pair in pairs))


def number(kind: str, stream: int, value: int) -> bytes:
    """A WINDOW_UPDATE or RST_STREAM."""
    return frame(kind, stream, struct.pack(">L", value))


def message(body: bytes, flag: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return bytes((flag,)) + struct.pack(">L", len(body)) + body


def frames(data: bytes) -> Iterator[Frame]:
    """What a server sent, frame by frame; a part at the end is an error."""
    while data:
        size = int.from_bytes(data[:3], "big")
        payload = data[9 : 9 + size]
        if len(payload) != size:
            raise ValueError("half a frame")
        stream = int.from_bytes(data[5:9], "big")
        yield Frame(KINDS[data[3]], data[4], stream, payload)
        data = data[9 + size :]


class Peer:
    """The state of a client: its two header tables."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.decoder = Decoder()

    def begin(self, *pairs: tuple[int, int]) -> bytes:
        """Preface and settings."""
        return PREFACE + settings(*pairs)

    def headers(
        self,
        stream: int,
        *more: tuple[str, str],
        end: bool = False,
        call: Sequence[tuple[str, str]] = CALL,
    ) -> bytes:
        """A request's headers."""
        block = self.encoder.encode([*call, *more])
        return frame("HEADERS", stream, block, 4 | end)

    def call(self, stream: int, body: bytes, *more: tuple[str, str]) -> bytes:
        """A whole unary call."""
        return self.headers(stream, *more) + frame("DATA", stream, message(body), 1)

    def read(self, block: bytes) -> dict[str, str]:
        """A header block of the server."""
        return {str(name): str(value) for name, value in self.decoder.decode(block)}
