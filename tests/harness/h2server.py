"""A server's side of HTTP/2, written apart from ours: frames by hand, headers by `hpack`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from swarmd.base.errors import SwarmError
from swarmd.rpc.http2 import response
from swarmd.rpc.http2.exchange import Exchange
from swarmd.rpc.http2.outgoing import Outgoing
from tests.harness.h2peer import PREFACE, Frame, frame, frames, message, settings

Fields = Iterable[tuple[str, str]]
HEAD: Fields = ((":status", "200"), ("content-type", "application/grpc"))
TAIL: Fields = (("grpc-status", "0"), ("grpc-message", ""))
"""As grpc-go says them."""
BLOCK = response.head("/docker.swarmkit.v1.Raft/ProcessRaftMessage", "10.0.0.1:2377")


@dataclass
class Answer:
    """Where the outcome of one call goes; more than one is an error."""

    result: bytes | None = None
    error: SwarmError | None = None
    given: int = 0

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.given > 0

    def set_result(self, result: bytes | None, /) -> None:
        """It went well."""
        self.result, self.given = result, self.given + 1

    def set_exception(self, exception: SwarmError, /) -> None:
        """It did not."""
        self.error, self.given = exception, self.given + 1


@dataclass
class Far:
    """The server at the other end of an `Outgoing`, and what it has heard."""

    client: Outgoing = field(default_factory=Outgoing)
    encoder: Encoder = field(default_factory=Encoder)
    decoder: Decoder = field(default_factory=Decoder)
    now: float = 0.0
    greeted: bool = False

    def heard(self) -> list[Frame]:
        """What the client sent since last asked."""
        raw = b""
        while piece := self.client.sender.take():
            raw += piece
        if not self.greeted and raw:
            if not raw.startswith(PREFACE):
                raise ValueError("no preface")
            self.greeted, raw = True, raw[len(PREFACE) :]
        return list(frames(raw))

    def say(self, *data: bytes) -> list[Frame]:
        """Say something, and hear what comes back."""
        self.client.receive(b"".join(data), self.now)
        return self.heard()

    def begin(self, *pairs: tuple[int, int]) -> list[Frame]:
        """The server's settings."""
        return self.say(settings(*pairs))

    def ask(self, body: bytes = b"m", deadline: float | None = None) -> tuple[Answer, Exchange]:
        """Let the client make a call."""
        answer = Answer()
        return answer, self.client.ask(answer, BLOCK, message(body), deadline)

    def headers(self, stream: int, fields: Fields = HEAD, end: bool = False) -> bytes:
        """A header block."""
        return frame("HEADERS", stream, self.encoder.encode(list(fields)), 4 | end)

    def whole(self, stream: int, body: bytes) -> bytes:
        """A whole answer."""
        data = frame("DATA", stream, message(body))
        return self.headers(stream) + data + self.headers(stream, TAIL, True)

    def read(self, block: bytes) -> dict[str, str]:
        """A header block of the client's."""
        return {str(name): str(value) for name, value in self.decoder.decode(block)}
