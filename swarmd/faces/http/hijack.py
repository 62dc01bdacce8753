"""Raw streams: after the head, a client's connection and the engine's are joined byte by byte.

Used for attach, exec, BuildKit sessions and everything else that upgrades. Each direction ends
on its own (half-close): standard input may be over long before the output is.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from swarmd.base.aio import Tasks
from swarmd.faces.http.link import Connection, Head

# Read from one side and not yet taken by the other; then the reader is paused.
_pending_bytes_max = 1 << 18
_piece_bytes_max = 1 << 16
_UPGRADE_HEAD = re.compile(rb"[A-Z]+ [^ \r\n]+ HTTP/1\.[01]\r\n(?:[^\r\n]+\r\n)*\r\n")
_UPGRADE = re.compile(rb"\r\nupgrade:", re.I)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.I)
# After the engine ended its side, how long a client may keep sending.
LINGER_SECONDS = 30.0


class Handler(web.RequestHandler):
    """A client connection that can turn raw and tells when it is lost.

    What a client sends behind a request for an upgrade is held back until the answer is known:
    aiohttp's parser would take it for the next request, or drop it. It belongs to the raw stream
    if the engine accepts, and to the next request if not.
    """

    __slots__ = ("_body_left", "_held", "_holding_paused", "lost_callbacks", "raw")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.raw: RawInput | None = None
        self.lost_callbacks: list[Callable[[], None]] = []
        self._held: bytes | None = None
        self._body_left = 0
        self._holding_paused = False

    def data_received(self, data: bytes) -> None:
        """Sort what arrives: raw stream, held back, or HTTP."""
        if self.raw is not None:
            self.raw.feed_data(data)
            return
        if self._held is None:
            end = _upgrade_end(data) if b"pgrade:" in data else None
            if end is None:
                super().data_received(data)
                return
            self._held = b""
            self._body_left = end
        if self._body_left:
            part, data = data[: self._body_left], data[self._body_left :]
            self._body_left -= len(part)
            super().data_received(part)
        if data:
            self._held += data
            if len(self._held) > _pending_bytes_max and not self._holding_paused:
                self._holding_paused = True
                self._pause()

    def turn_raw(self, source: RawInput) -> None:
        """From now on all input is `source`'s, beginning with what was held back."""
        held, self._held = self._held, None
        self.raw = source
        self._resume()
        if held:
            source.feed_data(held)

    def release(self) -> None:
        """The upgrade did not happen: what was held back is the next request."""
        if self._held is None:
            return
        held, self._held = self._held, None
        if self.raw is None and self.transport is not None:
            self._resume()
            if held:
                super().data_received(held)

    def _pause(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume(self) -> None:
        if not self._holding_paused:
            return
        self._holding_paused = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def eof_received(self) -> Any:
        """Keep a raw connection open when its client has only finished sending."""
        if self.raw is not None:
            self.raw.feed_eof()
            return True
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell whoever waits on something else for this client."""
        super().connection_lost(exc)
        if self.raw is not None:
            self.raw.feed_eof()
        self.abandon()

    def abandon(self) -> None:
        """Tell whoever works for this client that nobody waits for it."""
        callbacks, self.lost_callbacks = self.lost_callbacks, []
        for callback in callbacks:
            callback()


def _upgrade_end(data: bytes) -> int | None:
    """Length of the request at the start of `data` if it asks for an upgrade, body included."""
    found = _UPGRADE_HEAD.match(data)
    if found is None or _UPGRADE.search(found[0]) is None:
        return None
    length = _LENGTH.search(found[0])
    return found.end() + (int(length[1]) if length else 0)


class RawInput:
    """Bytes from a raw client, in order, bounded by pausing the socket."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._paused = False
        self._ended = False
        self._wake = asyncio.Event()

    def feed_data(self, data: bytes) -> None:
        """Called by the connection with what arrived."""
        if data:
            self._pieces.append(bytes(data))
            self._bytes += len(data)
            self._wake.set()
            if self._bytes > _pending_bytes_max and not self._paused:
                self._paused = True
                self._transport.pause_reading()

    def feed_eof(self) -> None:
        """The client sends nothing more."""
        self._ended = True
        self._wake.set()

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        while not self._pieces:
            if self._ended:
                return b""
            self._wake.clear()
            await self._wake.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._bytes = 0
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return data


class Hijacked(web.StreamResponse):
    """What a route returns when all was said on the raw stream already."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to write."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


async def join(request: web.BaseRequest, engine: Connection, head: Head) -> web.StreamResponse:
    """Send `head` to the client and join both connections until both directions are over."""
    handler = request.protocol
    transport = request.transport
    if transport is None or not isinstance(handler, Handler):
        engine.abort()
        return Hijacked()
    source = RawInput(transport)
    handler.turn_raw(source)
    handler.lost_callbacks.append(engine.abort)
    transport.write(head.raw)
    try:
        async with Tasks() as tasks:
            upward = tasks.spawn(_to_engine(source, engine), "hijack-up")
            await _to_client(engine, request, transport)
            if transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
            await asyncio.wait({upward}, timeout=LINGER_SECONDS)
    finally:
        if engine.abort in handler.lost_callbacks:
            handler.lost_callbacks.remove(engine.abort)
        await engine.close()
    return Hijacked()


async def _to_engine(source: RawInput, engine: Connection) -> None:
    try:
        while data := await source.read():
            engine.writer.write(data)
            await engine.writer.drain()
        if engine.writer.can_write_eof():
            engine.writer.write_eof()
    except OSError:
        # The engine is gone; its end of file ends the other direction.
        return


async def _to_client(
    engine: Connection, request: web.BaseRequest, transport: asyncio.Transport
) -> None:
    try:
        while data := await engine.reader.read(_piece_bytes_max):
            if transport.is_closing():
                return
            transport.write(data)
            await request.writer.drain()
    except OSError:
        return
