"""Answers that are known whole: one write, with a head that was put together before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

# A longer body is worth waiting for a slow client.
_UNDRAINED_BYTES_MAX = 1 << 16


class Heads:
    """The heads of answers that have the same headers, by status."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._by_status: dict[int, bytes] = {}
        self._second = -1
        self._date = b""

    def head(self, status: int, length: int, now: float) -> bytes:
        """Everything before the body. `now`: monotonic seconds."""
        if int(now) != self._second:
            self._second, self._date = int(now), formatdate(usegmt=True).encode()
        begin = self._by_status.get(status)
        if begin is None:
            text = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{self._lines}"
            begin = self._by_status[status] = text.encode("latin-1") + b"Content-Length: "
        if status == HTTPStatus.NO_CONTENT:  # has no body, and must not give its length
            return b"%bDate: %b\r\n\r\n" % (begin.removesuffix(b"Content-Length: "), self._date)
        return b"%b%d\r\nDate: %b\r\n\r\n" % (begin, length, self._date)


class Ready(web.StreamResponse):
    """An answer known whole. aiohttp's own `Response` makes its head anew each time, which costs
    a tenth of a write; what is not asked for in the usual way still gets that one.
    """

    def __init__(self, heads: Heads, body: bytes, status: int) -> None:
        super().__init__(status=status)
        self._heads = heads
        self._whole = body
        self._usual: web.Response | None = None

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection goes on after this answer."""
        return True if self._usual is None else self._usual.keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write everything (called by aiohttp)."""
        transport, body = request.transport, self._whole
        if (
            transport is None
            or transport.is_closing()
            or request.version != HttpVersion11
            or not request.keep_alive
            or request.method == "HEAD"
        ):
            headers = self._heads.headers
            self._usual = web.Response(body=body or None, status=self.status, headers=headers)
            return await self._usual.prepare(request)
        now = asyncio.get_running_loop().time()
        transport.write(self._heads.head(self.status, len(body), now) + body)
        if len(body) > _UNDRAINED_BYTES_MAX:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write (called by aiohttp)."""
        if self._usual is not None:
            await self._usual.write_eof(data)
