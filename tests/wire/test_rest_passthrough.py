"""Requests that go through to the engine: bytes as they are, streams, raw connections."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmd.faces.http import hijack
from tests.wire.rest_kit import FakeBackend, Rest, serving

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nX-Mine: 1\r\n"


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """A request or response head."""
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n\r\n")


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end."""
    async with asyncio.timeout(20):
        return await reader.read()


@asynccontextmanager
async def beside(tmp_path: Path, play: Play) -> AsyncIterator[Rest]:
    """Our API with an engine that answers pings and plays one script for everything else."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peeked = await reader.readuntil(b"\r\n\r\n")
            if b" /_ping " in peeked:
                writer.write(OK + b"Content-Length: 2\r\n\r\nOK")
            else:
                await play(_Joined(peeked, reader), writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    path = str(tmp_path / "engine.sock")
    listener = await asyncio.start_unix_server(serve, path, limit=1 << 20)
    try:
        async with serving(tmp_path, FakeBackend(), engine=path) as rest:
            yield rest
    finally:
        listener.close()


class _Joined(asyncio.StreamReader):
    """A reader that gives the head again before the rest."""

    def __init__(self, head: bytes, rest: asyncio.StreamReader) -> None:
        super().__init__(limit=1 << 20)
        self._head = head
        self._rest = rest

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        head, self._head = self._head, b""
        return head or await self._rest.readuntil(separator)

    async def readexactly(self, n: int) -> bytes:
        return await self._rest.readexactly(n)

    async def readline(self) -> bytes:
        return await self._rest.readline()

    async def read(self, n: int = -1) -> bytes:
        return await self._rest.read(n)


@asynccontextmanager
async def client(
    rest: Rest,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to our API."""
    reader, writer = await asyncio.open_unix_connection(rest.path, limit=1 << 20)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


async def test_replies_come_through_unchanged(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        body = b"HTTP/1.1 418 Odd\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 5\r\n\r\nhello"
        writer.write(body)

    async with beside(tmp_path, play) as rest:
        reply = await rest.call("GET", "/v1.41/containers/a%2Fb/json?x=%20y&size=1")
        assert (reply.status, reply.head.reason, reply.body) == (418, "Odd", b"hello")
        assert [value for key, value in reply.head.headers if key == "X-A"] == ["1", "2"]
        assert reply.head.header("Server") is None
        assert heads[0].startswith(b"GET /v1.41/containers/a%2Fb/json?x=%20y&size=1 HTTP/1.1\r\n")
        assert b"User-Agent: swarmd" in heads[0] and b"Host: docker" in heads[0]


async def test_connections_are_kept_between_requests(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if head.startswith(b"HEAD"):
            writer.write(OK + b"X-Docker-Container-Path-Stat: e30=\r\n\r\n")
        elif head.startswith(b"DELETE"):
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        writer.write(b"HEAD /containers/x/archive HTTP/1.1\r\nHost: d\r\n\r\n")
        assert b"Path-Stat: e30=" in await read_head(reader)
        writer.write(b"DELETE /containers/x HTTP/1.1\r\nHost: d\r\n\r\n")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 204")
        writer.write(b"GET /containers/json HTTP/1.1\r\nHost: d\r\n\r\n")
        assert b"chunked" in (await read_head(reader)).lower()
        assert await reader.readexactly(13) == b"3\r\nabc\r\n0\r\n\r\n"
        writer.write(b"GET /nodes HTTP/1.1\r\nHost: d\r\n\r\n")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200")


async def test_pieces_are_passed_on_as_they_come(tmp_path: Path) -> None:
    more = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n6\r\nline 1\r\n")
        await writer.drain()
        await more.wait()
        writer.write(b"6\r\nline 2\r\n0\r\n\r\n")

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        writer.write(b"GET /containers/x/logs?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
        await read_head(reader)
        async with asyncio.timeout(10):
            assert await reader.readexactly(11) == b"6\r\nline 1\r\n"
            more.set()
            assert await reader.readexactly(16) == b"6\r\nline 2\r\n0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_uploads_are_streamed(tmp_path: Path, chunked: bool) -> None:
    data = bytes(range(256)) * 20_000
    digests: list[str] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await read_head(reader)).lower()
        digest = hashlib.sha256()
        if chunked:
            assert b"transfer-encoding: chunked" in head and b"content-length" not in head
            while size := int(await reader.readline(), 16):
                digest.update(await reader.readexactly(size))
                await reader.readexactly(2)
        else:
            assert b"content-length: %d" % len(data) in head
            digest.update(await reader.readexactly(len(data)))
        digests.append(digest.hexdigest())
        writer.write(OK + b"Content-Length: 0\r\n\r\n")

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(data)
        writer.write(b"POST /build?t=x HTTP/1.1\r\nHost: d\r\n" + framing + b"\r\n\r\n")
        if chunked:
            for at in range(0, len(data), 100_000):
                piece = data[at : at + 100_000]
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(data)
        await writer.drain()
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200")
    assert digests == [hashlib.sha256(data).hexdigest()]


async def test_the_engine_may_answer_before_the_upload_is_over(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nstep\r\n")
        await writer.drain()
        assert await reader.readexactly(4) == b"late"
        writer.write(b"0\r\n\r\n")

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        writer.write(b"POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\n")
        await read_head(reader)
        async with asyncio.timeout(10):
            assert await reader.readexactly(9) == b"4\r\nstep\r\n"
            writer.write(b"late")
            assert await reader.readexactly(5) == b"0\r\n\r\n"


async def test_a_client_that_waits_to_continue_is_told_to(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"expect" not in (await read_head(reader)).lower()
        assert await reader.readexactly(2) == b"hi"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n")

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        head = b"HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
        writer.write(b"PUT /containers/x/archive " + head + b"\r\n")
        assert await read_head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200")
        kind = b"Content-Type: application/json\r\n\r\n"
        writer.write(b"POST /swarm/join " + head + kind)
        assert await read_head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 503")


async def test_a_reply_cut_short_ends_the_clients_connection(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK + b"Content-Length: 100\r\n\r\nonly this")

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        writer.write(b"GET /containers/json HTTP/1.1\r\nHost: d\r\n\r\n")
        assert b"Content-Length: 100" in await read_head(reader)
        with pytest.raises(asyncio.IncompleteReadError):
            async with asyncio.timeout(10):
                await reader.readexactly(100)


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200"])
async def test_an_engine_that_does_not_answer_is_a_bad_gateway(
    tmp_path: Path, reply: bytes
) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(reply)

    async with beside(tmp_path, play) as rest:
        answer = await rest.call("GET", "/containers/json")
        assert answer.status == 502 and answer.message.startswith("the container engine")


UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
SWITCH = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"


async def echo_upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer an upgrade, then send back what comes in capitals, and a word at the end."""
    head = await read_head(reader)
    if b"/exec/" in head:
        assert await reader.readexactly(27) == b'{"Detach":false,"Tty":true}'
    assert b"Connection: Upgrade" in head and b"Upgrade: tcp" in head
    writer.write(SWITCH + UPGRADE + b"\r\n")
    while data := await reader.read(1 << 16):
        writer.write(data.upper())
        await writer.drain()
    # The client only finished sending: it still gets this.
    writer.write(b"<end of input>")


async def test_a_raw_stream_goes_both_ways_and_ends_by_halves(tmp_path: Path) -> None:
    async with beside(tmp_path, echo_upper) as rest, client(rest) as (reader, writer):
        head = b"POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\r\nHost: d\r\n" + UPGRADE
        writer.write(head + b"\r\n")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: app")
        for word in (b"hello", b"\x00\xff GET / HTTP/1.1\r\n\r\n"):
            writer.write(word)
            async with asyncio.timeout(10):
                assert await reader.readexactly(len(word)) == word.upper()
        writer.write_eof()
        assert await read_all(reader) == b"<end of input>"


async def test_exec_sends_its_body_and_may_talk_early(tmp_path: Path) -> None:
    async with beside(tmp_path, echo_upper) as rest, client(rest) as (reader, writer):
        head = b"POST /exec/abc/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        head += b"Content-Length: 27\r\n" + UPGRADE + b"\r\n"
        writer.write(head + b'{"Detach":false,"Tty":true}early')
        await read_head(reader)
        writer.write(b" bird")
        writer.write_eof()
        assert await read_all(reader) == b"EARLY BIRD<end of input>"


async def test_much_data_crosses_in_both_directions_at_once(tmp_path: Path) -> None:
    data = b"abcdefgh" * 500_000
    async with beside(tmp_path, echo_upper) as rest, client(rest) as (reader, writer):
        writer.write(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
        await read_head(reader)

        async def send() -> None:
            for at in range(0, len(data), 1 << 16):
                writer.write(data[at : at + (1 << 16)])
                await writer.drain()
            writer.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            got = await read_all(reader)
    assert got == data.upper() + b"<end of input>"


async def test_old_clients_attach_without_asking_for_an_upgrade(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Upgrade" not in await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        writer.write(await reader.readexactly(5))

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        writer.write(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        assert b"raw-stream" in await read_head(reader)
        writer.write(b"first")
        assert await read_all(reader) == b"first"


async def test_http2_sessions_are_joined_too(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Upgrade: h2c" in await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n")
        writer.write(await reader.readexactly(24))

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        head = b"POST /session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        writer.write(head + b"X-Docker-Expose-Session-Uuid: u\r\n\r\n")
        await read_head(reader)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        writer.write(preface)
        assert await read_all(reader) == preface


async def test_a_refused_upgrade_leaves_the_connection_usable(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        body = b'{"message":"No such container: x"}'
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        writer.write(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 404")
        await reader.readexactly(34)
        writer.write(b"GET /nodes HTTP/1.1\r\nHost: d\r\n\r\n")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200")


async def test_a_client_that_goes_away_takes_the_engines_side_along(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await writer.drain()
        try:
            assert await reader.read() == b""
        except ConnectionError:
            pass
        gone.set()

    async with beside(tmp_path, play) as rest:
        async with client(rest) as (reader, writer):
            writer.write(b"GET /containers/x/logs?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
            await read_head(reader)
        async with asyncio.timeout(10):
            await gone.wait()


async def test_an_engine_that_ends_a_raw_stream_ends_it_for_the_client(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH + UPGRADE + b"\r\nbye")

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        writer.write(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
        await read_head(reader)
        assert await read_all(reader) == b"bye"


async def test_a_client_that_keeps_sending_after_the_end_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hijack, "LINGER_SECONDS", 0.05)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH + UPGRADE + b"\r\n")
        await writer.drain()
        writer.write_eof()
        assert await reader.read() == b""

    async with beside(tmp_path, play) as rest, client(rest) as (reader, writer):
        writer.write(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
        await read_head(reader)
        assert await read_all(reader) == b""
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(10):
                while True:
                    writer.write(b"x" * 4096)
                    await writer.drain()
                    await asyncio.sleep(0)
