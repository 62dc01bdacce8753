"""The server side of one HTTP/2 connection, without I/O: bytes in, bytes out, streams between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from swarmd.rpc.http2 import wire
from swarmd.rpc.http2.budget import Budget
from swarmd.rpc.http2.endpoint import Endpoint
from swarmd.rpc.http2.headers import Header
from swarmd.rpc.http2.stream import Listener, Stream
from swarmd.rpc.http2.wire import ConnectionFault, StreamFault

Accept = Callable[[Stream, "list[Header] | None"], Listener]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one peer may do on a connection."""

    streams_max: int = 100
    """Calls at the same time."""
    window_bytes: int = 256 * 1024
    """Unread request bytes of one call; the connection itself has four times as much."""
    resets_max: int = 400
    """Calls withdrawn before they were answered, at once; a quarter as many per second."""
    useless_max: int = 1000
    """Frames that achieve nothing (pings, empty data, settings), at once; as many per 4 s."""


class Connection(Endpoint[Stream]):
    """Frames, windows and streams of one connection.

    `accept` is called with every new request (with None for headers that were too long) and
    returns who listens to it.
    """

    __slots__ = ("_accept", "_allowance", "_resets")

    def __init__(self, accept: Accept, allowance: Allowance) -> None:
        settings = {wire.MAX_CONCURRENT_STREAMS: allowance.streams_max}
        super().__init__(allowance.window_bytes, allowance.useless_max, settings)
        self._accept = accept
        self._allowance = allowance
        self._resets = Budget(allowance.resets_max, allowance.resets_max / 4)

    def _sent(self, stream: Stream) -> None:
        """An answer is complete; what is left of its request is not wanted (RFC 9113 8.1)."""
        if stream.ended:
            stream.close()
            self.streams.pop(stream.id, None)
        else:
            self.reset(stream, wire.NO_ERROR)

    def _greeting(self, data: bytes) -> int:
        if data[: len(wire.PREFACE)] != wire.PREFACE[: len(data)]:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "no HTTP/2 preface")
        self._greeted = len(data) >= len(wire.PREFACE)
        return len(wire.PREFACE)

    def _fields(self, number: int, flags: int, block: bytes) -> None:
        """A complete header block: a new stream, or the end of a request."""
        headers = self._reader.read(block)  # always, or the table would be wrong
        ended = bool(flags & wire.END_STREAM)
        if number <= self._last:
            self._trailers(number, ended)
            return
        if self.leaving:
            return
        self._last = number
        if len(self.streams) >= self._allowance.streams_max:
            self._withdrawn()
            if not ended:
                self._expect_late(number, self._allowance.window_bytes)
            raise StreamFault(wire.REFUSED_STREAM, "too many streams")
        stream = Stream(
            self,
            self.sender,
            number,
            self._allowance.window_bytes,
            self.sender.initial_window,
        )
        stream.ended = ended
        self.streams[number] = stream
        stream.listener = self._accept(stream, headers)
        if ended:
            stream.listener.received(b"", True)

    def _trailers(self, number: int, ended: bool) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            if stream.ended:
                raise StreamFault(wire.STREAM_CLOSED, "headers behind the end")
            if not ended:
                raise StreamFault(wire.PROTOCOL_ERROR, "a second header block")
            stream.ended = True
            stream.listener.received(b"", True)
        elif self._late.pop(number, None) is None:
            if number > self._forgotten:
                raise ConnectionFault(wire.STREAM_CLOSED, "headers on a closed stream")
            self._useless()

    def _withdrawn(self) -> None:
        """Count a call that was begun for nothing (the rapid reset, CVE-2023-44487)."""
        if not self._resets.spend(self._now):
            raise ConnectionFault(wire.ENHANCE_YOUR_CALM, "too many calls withdrawn")

    def _rst_stream(self, number: int, flags: int, payload: bytes) -> None:
        stream = self._reset_stream(number, payload)
        if stream is None:
            return
        listener = stream.listener
        self._forget(stream)
        listener.cut()
        if not stream.answering:
            self._withdrawn()
