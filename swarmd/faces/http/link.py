"""A small HTTP/1.1 client for container engines.

One connection per request: every connection may turn into a raw stream. `relay` and `hijack` use
it for clients, routes for merging.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarmd.faces.http.refusal import Refusal, Unreachable
from swarmd.faces.http.tls import open_secured

# A response head and one line of a chunked body.
head_bytes_max = 1 << 18
_piece_bytes_max = 1 << 16
# Bodies read whole (lists, info): far above what an engine with thousands of objects sends.
_body_bytes_max = 1 << 26
CONNECT_SECONDS = 5.0
REPLY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an engine's response."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        name = name.lower()
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in (self.header("Transfer-Encoding") or "").lower()

    @property
    def length(self) -> int | None:
        """The body's announced length."""
        text = self.header("Content-Length")
        return int(text) if text is not None and text.isdigit() else None


def reason(error: OSError | TimeoutError) -> str:
    """Why a connection failed, in the system's words."""
    return getattr(error, "strerror", None) or str(error) or "timeout"


def parse_head(raw: bytes, noun: str = "the container engine of this node") -> Head:
    """Read a response head. Raises a 502 `Refusal` when it is not one."""
    lines = raw.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdigit():
        raise Refusal(502, f"{noun} sent no HTTP response")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip(), value.strip()))
    reason = parts[2] if len(parts) > 2 else ""
    return Head(int(parts[1]), reason, tuple(headers), raw)


class Connection:
    """One connection to the engine, for one request."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, noun: str
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.noun = noun

    def send_head(self, method: str, target: str, headers: Sequence[tuple[str, str]]) -> None:
        """Write the request line and `headers`, which must frame the body."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{key}: {value}" for key, value in headers)]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def head(self) -> Head:
        """The response head; interim ones (100) are passed over."""
        while True:
            try:
                raw = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                text = f"{self.noun} closed the connection without an answer"
                raise Refusal(502, text) from None
            head = parse_head(raw, self.noun)
            if head.status >= 200 or head.status == 101:
                return head

    async def body(self, head: Head, *, empty: bool = False) -> AsyncIterator[bytes]:
        """The response body in pieces as they arrive. Raises ConnectionError when it is cut."""
        if empty or head.status in (204, 304):
            return
        if head.chunked:
            async for piece in self._chunks():
                yield piece
            return
        left = head.length
        while left is None or left > 0:
            want = _piece_bytes_max if left is None else min(left, _piece_bytes_max)
            piece = await self.reader.read(want)
            if not piece:
                if left is None:
                    return
                raise ConnectionError("engine response cut short")
            if left is not None:
                left -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            line = await self.reader.readline()
            size_text = line.split(b";", 1)[0].strip()
            try:
                left = int(size_text, 16)
            except ValueError:
                raise ConnectionError("engine response cut short") from None
            if left == 0:
                return
            while left:
                piece = await self.reader.read(min(left, _piece_bytes_max))
                if not piece:
                    raise ConnectionError("engine response cut short")
                left -= len(piece)
                yield piece
            await self.reader.readexactly(2)

    def abort(self) -> None:
        """End the connection at once, whoever is waiting on it."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """End the connection."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


class Link:
    """An engine at some address. Children say how it is reached."""

    def __init__(self, address: str, noun: str, host: str = "docker") -> None:
        """`noun` is what messages call the engine, `host` the Host header of its requests."""
        self.address = address
        self.host = host
        self.noun = noun

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Reach the engine. Raises `OSError`."""
        return await asyncio.open_unix_connection(self.address, limit=head_bytes_max)

    async def open(self) -> Connection:
        """Connect within `CONNECT_SECONDS`. Raises a 503 `Refusal` when nobody answers."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await self.connect()
        except (OSError, TimeoutError) as error:
            raise self.gone(reason(error)) from error
        return Connection(reader, writer, self.noun)

    def gone(self, why: str) -> Unreachable:
        """What is raised when the engine does not answer."""
        return Unreachable(f"{self.noun} cannot be reached at {self.address}: {why}")

    async def call(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        content_type: str = "",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Head, bytes]:
        """A whole small exchange: head and body of the reply."""
        fields = [("Host", self.host), ("User-Agent", "swarmd"), ("Connection", "close")]
        fields.extend((headers or {}).items())
        if content_type:
            fields.append(("Content-Type", content_type))
        if body or method == "POST":
            fields.append(("Content-Length", str(len(body))))
        connection = await self.open()
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                connection.send_head(method, target, fields)
                connection.writer.write(body)
                head = await connection.head()
                data = bytearray()
                async for piece in connection.body(head, empty=method == "HEAD"):
                    data += piece
                    if len(data) > _body_bytes_max:
                        raise Refusal(502, f"{self.noun}: the answer is too large")
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise self.gone(str(error) or "no answer in time") from error
        finally:
            await connection.close()
        return head, bytes(data)

    async def get_json(self, target: str) -> Any:
        """GET `target`, decoded. What the engine refuses is raised as its own `Refusal`."""
        head, data = await self.call("GET", target)
        return self.decode(head, data)

    def decode(self, head: Head, data: bytes) -> Any:
        """The JSON of a successful reply; an error reply is raised as it came."""
        try:
            value = json.loads(data) if data.strip() else None
        except ValueError:
            value = None
            if head.status < 400:
                raise Refusal(502, f"{self.noun} sent no JSON") from None
        if head.status >= 400:
            message = value.get("message") if isinstance(value, dict) else None
            text = message if isinstance(message, str) else data.decode("utf-8", "replace").strip()
            raise Refusal(head.status, text)
        return value


class TcpLink(Link):
    """A peer at "host:port", with TLS when a context is given."""

    def __init__(
        self, address: str, noun: str, context: ssl.SSLContext | None, *, host: str = "docker"
    ) -> None:
        """`host` is the Host header of requests made here."""
        super().__init__(address, noun, host)
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._context = context

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Reach the peer and shake hands. Raises `OSError`."""
        return await open_secured(self._host, self._port, self._context, head_bytes_max)
