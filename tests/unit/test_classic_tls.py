"""TLS whose directions end apart: against itself and against asyncio's own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmd.faces.http.tls import open_secured, secured
from tests.harness.tlsfiles import Authority

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def server_context(authority: Authority) -> ssl.SSLContext:
    files = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    return context


class _Streams(asyncio.StreamReaderProtocol):
    """A stream protocol that gives up its caution: this TLS can end one direction."""

    def eof_received(self) -> bool:
        super().eof_received()
        return True


@asynccontextmanager
async def serving(context: ssl.SSLContext, play: Play) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()

    def make() -> asyncio.Protocol:
        return _Streams(asyncio.StreamReader(), play, loop=loop)

    server = await loop.create_server(secured(make, context), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def echo_behind_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read()
    writer.write(b"after the end: " + data)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
async def test_an_answer_comes_after_the_question_ended(
    tmp_path: Path, version: ssl.TLSVersion, size: int
) -> None:
    authority = Authority(tmp_path / "ca")
    context = authority.client_context(None)
    context.minimum_version = context.maximum_version = version
    async with serving(server_context(authority), echo_behind_the_end) as port:
        async with asyncio.timeout(20):
            reader, writer = await open_secured("127.0.0.1", port, context, 1 << 16)
            writer.write(b"x" * size)
            writer.write_eof()
            assert await reader.read() == b"after the end: " + b"x" * size
            writer.close()
            await writer.wait_closed()


async def test_the_other_side_may_end_first(tmp_path: Path) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    authority = Authority(tmp_path / "ca")
    async with serving(server_context(authority), play) as port:
        async with asyncio.timeout(20):
            context = authority.client_context(None)
            reader, writer = await open_secured("127.0.0.1", port, context, 1 << 16)
            assert await reader.read() == b"bye"
            writer.write(b"still here")
            await writer.drain()
            writer.write_eof()
            assert await heard == b"still here"
            writer.close()


async def test_a_slow_reader_holds_the_sender_back(tmp_path: Path) -> None:
    sent = 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(1000):
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        writer.close()

    authority = Authority(tmp_path / "ca")
    async with serving(server_context(authority), play) as port:
        async with asyncio.timeout(30):
            context = authority.client_context(None)
            reader, writer = await open_secured("127.0.0.1", port, context, 1 << 16)
            got = len(await reader.readexactly(1))
            before = -1
            while before != sent:  # until nothing moves any more
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 60_000_000
            while data := await reader.read(1 << 20):
                got += len(data)
            assert got == 1000 * 65536
            writer.close()


async def test_strangers_are_told_no(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    context = server_context(authority)
    async with serving(context, echo_behind_the_end) as port:
        async with asyncio.timeout(20):
            with pytest.raises(ssl.SSLCertVerificationError):
                await open_secured("127.0.0.1", port, other.client_context(None), 1 << 16)
    plain = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    async with plain:
        port = plain.sockets[0].getsockname()[1]
        async with asyncio.timeout(20):
            with pytest.raises(OSError):
                await open_secured("127.0.0.1", port, authority.client_context(None), 1 << 16)


async def test_asyncios_own_client_is_served(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    authority = Authority(tmp_path / "ca")
    async with serving(server_context(authority), play) as port:
        async with asyncio.timeout(20):
            context = authority.client_context(None)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"line\n")
            assert await reader.read() == b"line\n"
            writer.close()
