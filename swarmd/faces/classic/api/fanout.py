"""What every engine gets at once: pulls, and bodies of load and import. Progress is merged."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from aiohttp import web

from swarmd.base.aio import Channel, Tasks
from swarmd.faces.classic.api.call import Call, quietly, streaming
from swarmd.faces.classic.engines.engine import Engine
from swarmd.faces.http.link import Connection
from swarmd.faces.http.refusal import Refusal
from swarmd.faces.http.relay import say_continue

Line = dict[str, Any]
Lines = Callable[[Engine], AsyncGenerator[Line, None]]
_lines_max = 10_000
_OTHER_SYSTEM = re.compile(r"image operating system|cannot load (.+) image on (.+)")


class Progress:
    """Lines of all engines on their way to one client, each with its engine's name as id."""

    def __init__(self, response: web.StreamResponse, doing: str) -> None:
        self._response = response
        self._doing = doing
        self._succeeded = False
        self._error = ""
        self._foreign_only = True  # all errors were images for another operating system

    async def tell(self, engine: Engine, status: str, line: Line | None = None) -> None:
        """One line of one engine."""
        text = f"{self._doing}... : {status}" if status else f"{self._doing}..."
        await self._write({**(line or {}), "id": engine.name, "status": text})

    async def done(self, engine: Engine) -> None:
        """It worked there."""
        self._succeeded = True
        await self.tell(engine, "done")

    async def failed(self, engine: Engine, message: str) -> None:
        """It did not."""
        self._error = message
        if not _OTHER_SYSTEM.search(message):
            self._foreign_only = False
        await self.tell(engine, message)

    async def end(self) -> None:
        """Say whether it worked on the whole."""
        if self._error and not (self._succeeded and self._foreign_only):
            detail = {"code": 1, "message": self._error}
            await self._write({"error": self._error, "errorDetail": detail})
        await self._response.write_eof()

    async def _write(self, line: Line) -> None:
        await self._response.write((json.dumps(line) + "\r\n").encode())


async def everywhere(call: Call, doing: str, lines: Lines) -> web.StreamResponse:
    """Run `lines` on every healthy engine and show their progress as one stream."""
    response = await streaming(call.request)
    progress = Progress(response, doing)
    engines = [engine for engine in call.cluster.members() if engine.healthy]
    news: Channel[tuple[Engine, Line | None, str]] = Channel(_lines_max)
    async with Tasks() as tasks:
        for engine in engines:
            tasks.spawn(_follow(engine, lines, news), f"everywhere-{engine.address}")
            await progress.tell(engine, "")
        left = len(engines)
        while left:
            engine, line, error = await news.get()
            if line is not None:
                await progress.tell(engine, str(line.get("status") or ""), _details(line))
                continue
            left -= 1
            await (progress.failed(engine, error) if error else progress.done(engine))
    await progress.end()
    return response


def _details(line: Line) -> Line:
    return {key: line[key] for key in ("progress", "progressDetail") if key in line}


async def _follow(
    engine: Engine, lines: Lines, news: Channel[tuple[Engine, Line | None, str]]
) -> None:
    error = ""
    try:
        async with engine.checked(), aclosing(lines(engine)) as found:
            async for line in found:
                if line.get("error"):
                    error = str(line["error"])
                else:
                    news.put_nowait((engine, line, ""))
    except Refusal as refusal:
        error = refusal.message
    await quietly(Engine.refresh_images, engine)
    news.put_nowait((engine, None, error))


async def feed_everywhere(call: Call, doing: str, path: str) -> web.StreamResponse:
    """Send the request's body to `path` of every healthy engine."""
    feeds: dict[str, Connection] = {}
    refused: dict[str, str] = {}
    engines = [engine for engine in call.cluster.members() if engine.healthy]
    try:
        for engine in engines:
            try:
                feeds[engine.address] = await _begin(call, engine, path)
            except Refusal as error:
                refused[engine.address] = error.message
        await _pour(call, feeds, refused)

        async def answer(engine: Engine) -> AsyncGenerator[Line, None]:
            if engine.address in refused:
                raise Refusal(502, refused[engine.address])
            async for line in engine.calls.answer_lines(feeds[engine.address]):
                yield line

        return await everywhere(call, doing, answer)
    finally:
        for connection in feeds.values():
            await connection.close()


async def _begin(call: Call, engine: Engine, path: str) -> Connection:
    connection = await engine.calls.link.open()
    kind = call.request.headers.get("Content-Type", "application/x-tar")
    headers = [("Host", engine.calls.link.host), ("Content-Type", kind)]
    headers += [("Transfer-Encoding", "chunked"), ("Connection", "close")]
    connection.send_head("POST", call.target(engine, path), headers)
    return connection


async def _pour(call: Call, feeds: dict[str, Connection], refused: dict[str, str]) -> None:
    """The body to all; an engine that breaks off is left out, the others go on."""
    await say_continue(call.request)

    async def write(data: bytes) -> None:
        for address, connection in feeds.items():
            if address in refused:
                continue
            try:
                connection.writer.write(data)
                await connection.writer.drain()
            except OSError as error:
                refused[address] = str(error)

    async for piece in call.request.content.iter_any():
        await write(b"%x\r\n%b\r\n" % (len(piece), piece))
    await write(b"0\r\n\r\n")
