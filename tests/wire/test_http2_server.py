"""The whole port against two kinds of client: gRPC's own library, and frames written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from swarmd import api
from swarmd.base import limits
from swarmd.base.errors import NotFound, ResourceExhausted
from swarmd.rpc.front import Limits
from swarmd.rpc.peer import Peer as Someone
from swarmd.rpc.server import Server
from tests.harness.h2peer import CALL, Frame, Peer, frame, frames, message, number
from tests.wire.rpc_kit import (
    Cluster,
    Root,
    Seen,
    call,
    dialled,
    dummy_services,
    serving,
)

MIB = 1 << 20
PUBLISH = "/docker.swarmkit.v1.LogBroker/PublishLogs"
SESSION = "/docker.swarmkit.v1.Dispatcher/Session"


class Raw:
    """A worker that writes its frames by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.peer = Peer()
        self.rest = b""
        self.frames: deque[Frame] = deque()
        self.over = False

    def say(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def frame(self, *kinds: str) -> Frame:
        """The next frame of one of `kinds`; others are dropped."""
        async with asyncio.timeout(10):
            while True:
                while self.frames:
                    found = self.frames.popleft()
                    if found.kind in kinds:
                        return found
                await self._more()

    async def _more(self) -> None:
        data = await self.reader.read(65536)
        if not data:
            self.over = True
            raise ConnectionError("the server hung up")
        self.rest += data
        at = 0
        while len(self.rest) - at >= 9:
            size = 9 + int.from_bytes(self.rest[at : at + 3], "big")
            if len(self.rest) - at < size:
                break
            at += size
        self.frames.extend(frames(self.rest[:at]))
        self.rest = self.rest[at:]

    async def status(self) -> dict[str, str]:
        """The headers of the next answer, and its trailers; data between them is dropped."""
        told: dict[str, str] = {}
        while True:
            head = await self.frame("HEADERS")
            told |= self.peer.read(head.payload)
            if head.flags & 1:
                return told

    async def hung_up(self) -> Frame | None:
        """The GOAWAY that the server hangs up after, if it says one."""
        goaway = None
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while True:
                goaway = await self.frame("GOAWAY")
        return goaway


@contextlib.asynccontextmanager
async def raw(server: Server, root: Root, *, begin: bool = True) -> AsyncIterator[Raw]:
    """A raw worker, connected."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    credentials = root.issue("w9")
    context.load_verify_locations(cadata=root.pem.decode())
    context.set_alpn_protocols(["h2"])
    load(context, credentials.cert_pem, credentials.key_pem)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=context, server_hostname="swarm-manager"
    )
    client = Raw(reader, writer)
    if begin:
        client.say(client.peer.begin())
    try:
        yield client
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def load(context: ssl.SSLContext, cert_pem: bytes | None, key_pem: bytes | None) -> None:
    """Certificate and key from memory."""
    fd = os.memfd_create("pair")
    os.write(fd, (key_pem or b"") + (cert_pem or b""))
    context.load_cert_chain(f"/proc/self/fd/{fd}")
    os.close(fd)


@contextlib.asynccontextmanager
async def house(
    overrides: dict[str, Callable[..., Any]] | None = None, limits_: Limits | None = None
) -> AsyncIterator[tuple[Server, Root, list[Seen]]]:
    root = Root()
    seen: list[Seen] = []
    services = dummy_services(seen, overrides)
    async with serving(services, root.issue("m1", "swarm-manager"), limits=limits_) as server:
        yield server, root, seen


def path(text: str) -> list[tuple[str, str]]:
    return [(name, text if name == ":path" else value) for name, value in CALL]


SIZES = [0, 1, 5, 1000, 16_379, 16_384, 65_535, 70_000, MIB, 4 * MIB, 9 * MIB]


async def test_messages_of_all_sizes_with_grpcs_own_client() -> None:
    async def echo(request: Any, peer: Someone) -> Any:
        if request.token.startswith("back"):
            return api.IssueNodeCertificateResponse(node_id="x" * int(request.token[4:]))
        return api.IssueNodeCertificateResponse(node_id=str(len(request.token)))

    async with (
        house({"NodeCA/IssueNodeCertificate": echo}) as (server, root, _),
        dialled(server, root.issue("w1")) as caller,
    ):
        for size in SIZES:
            back = api.IssueNodeCertificateRequest(token=f"back{size}")
            answer = await caller.unary("NodeCA/IssueNodeCertificate", back, timeout=30)
            assert len(answer.node_id) == size
            forth = api.IssueNodeCertificateRequest(token="x" * size)
            if size > limits.receive_bytes_max:
                over = f"({forth.ByteSize()} vs. {limits.receive_bytes_max})"
                with pytest.raises(ResourceExhausted) as refused:
                    await caller.unary("NodeCA/IssueNodeCertificate", forth, timeout=30)
                assert refused.value.message.endswith(f"message larger than max {over}")
                continue
            answer = await caller.unary("NodeCA/IssueNodeCertificate", forth, timeout=30)
            assert answer.node_id == str(size)


async def test_streams_of_all_sizes_with_grpcs_own_client() -> None:
    sizes = [size for size in SIZES if size <= 4 * MIB] * 2
    got: list[int] = []

    async def subscribe(request: Any, peer: Someone) -> AsyncIterator[Any]:
        for size in sizes:
            yield api.SubscriptionMessage(id="x" * size)

    async def publish(requests: AsyncIterator[Any], peer: Someone) -> Any:
        async for request in requests:
            got.append(len(request.subscription_id))
        return api.PublishLogsResponse()

    async def all_sizes() -> AsyncIterator[Any]:
        for size in sizes:
            yield api.PublishLogsMessage(subscription_id="x" * size)

    overrides = {"LogBroker/ListenSubscriptions": subscribe, "LogBroker/PublishLogs": publish}
    async with (
        house(overrides) as (server, root, _),
        dialled(server, root.issue("w1")) as caller,
    ):
        request = api.ListenSubscriptionsRequest()
        stream = caller.server_stream("LogBroker/ListenSubscriptions", request, timeout=60)
        assert [len(item.id) async for item in stream] == sizes
        await caller.client_stream("LogBroker/PublishLogs", all_sizes(), timeout=60)
        assert got == sizes


async def test_many_calls_at_once_on_one_connection() -> None:
    async def echo(request: Any, peer: Someone) -> Any:
        await asyncio.sleep(0)
        return api.IssueNodeCertificateResponse(node_id=request.token)

    async with (
        house({"NodeCA/IssueNodeCertificate": echo}) as (server, root, _),
        dialled(server, root.issue("w1")) as caller,
    ):
        tokens = [f"{number_}-" + "x" * (number_ * 50) for number_ in range(600)]
        answers = await asyncio.gather(
            *(
                caller.unary(
                    "NodeCA/IssueNodeCertificate",
                    api.IssueNodeCertificateRequest(token=token),
                    timeout=30,
                )
                for token in tokens
            )
        )
        assert [answer.node_id for answer in answers] == tokens


async def test_compressed_requests_get_the_stock_answer() -> None:
    import grpc

    async with house() as (server, root, seen), dialled(server, root.issue("w1")) as caller:
        channel = (await caller._get_line())._channel
        beat = channel.unary_unary("/docker.swarmkit.v1.Dispatcher/Heartbeat")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await beat(b"\n\x01s" * 100, compression=grpc.Compression.Gzip, timeout=5)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        text = 'grpc: Decompressor is not installed for grpc-encoding "gzip"'
        assert error.value.details() == text and not seen


ANSWERS = [
    ("text/plain", "POST", {":status": "415", "grpc-status": "3"}),
    ("application/grpc", "GET", {":status": "405", "grpc-status": "13"}),
]


@pytest.mark.parametrize(("kind", "method", "expected"), ANSWERS)
async def test_other_http_is_refused_in_http(
    kind: str, method: str, expected: dict[str, str]
) -> None:
    async with house() as (server, root, seen), raw(server, root) as client:
        fields = dict(CALL) | {"content-type": kind, ":method": method}
        client.say(client.peer.headers(1, call=list(fields.items()), end=True))
        told = await client.status()
        assert expected.items() <= told.items()
        client.say(client.peer.call(3, b""))
        assert (await client.status())["grpc-status"] == "0"
        assert len(seen) == 1


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (message(b"", 1), "13", "grpc: compressed flag set with identity or empty encoding"),
        (message(b"", 7), "13", "grpc: received unexpected payload format 7"),
        (message(b"abc")[:-1], "13", "unexpected EOF"),
        (b"\0", "13", "unexpected EOF"),
        (b"", "13", "Dispatcher/Heartbeat: no request message"),
        (message(b"\xff"), "13", None),
    ],
)
async def test_requests_that_are_no_message(body: bytes, code: str, text: str | None) -> None:
    async with house() as (server, root, seen), raw(server, root) as client:
        client.say(client.peer.headers(1), frame("DATA", 1, body, 1))
        told = await client.status()
        assert told["grpc-status"] == code
        assert text is None or told["grpc-message"] == text
        client.say(client.peer.call(3, b""))
        assert (await client.status())["grpc-status"] == "0"
        assert len(seen) == 1


async def test_text_that_is_no_utf8_does_not_keep_a_node_out() -> None:
    async with house() as (server, root, seen), raw(server, root) as client:
        client.say(client.peer.headers(1), frame("DATA", 1, message(b"\x0a\x02s\xfc"), 1))
        assert (await client.status())["grpc-status"] == "0"
        assert seen[0].request.session_id == "s\ufffd"


async def test_deadline_is_kept_by_the_server_too() -> None:
    left = asyncio.Event()

    async def slow(request: Any, peer: Someone) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with (
        house({"Dispatcher/Heartbeat": slow}) as (server, root, _),
        raw(server, root) as client,
    ):
        client.say(client.peer.call(1, b"", ("grpc-timeout", "50m")))
        told = await client.status()
        assert told["grpc-status"] == "4" and told["grpc-message"] == "context deadline exceeded"
        await asyncio.wait_for(left.wait(), 5)


async def test_a_request_nobody_reads_gets_no_window() -> None:
    go, got = asyncio.Event(), []

    async def publish(requests: AsyncIterator[Any], peer: Someone) -> Any:
        await go.wait()
        async for request in requests:
            got.append(len(request.subscription_id))
        return api.PublishLogsResponse()

    async with (
        house({"LogBroker/PublishLogs": publish}) as (server, root, _),
        raw(server, root) as client,
    ):
        greeting = await client.frame("SETTINGS")
        window = int.from_bytes(greeting.payload[8:12], "big")
        client.say(client.peer.headers(1, call=path(PUBLISH)))
        body = message(api.PublishLogsMessage(subscription_id="x" * 997).SerializeToString())
        part = body * 16
        assert len(part) <= 16_384
        for _ in range(window // len(part)):
            client.say(frame("DATA", 1, part))
        client.say(frame("PING", 0, b"unread!!"))
        while (await client.frame("PING", "WINDOW_UPDATE")).kind != "PING":
            pass
        assert not any(item.stream == 1 for item in client.frames)
        go.set()
        update = await client.frame("WINDOW_UPDATE")
        while update.stream == 0:
            update = await client.frame("WINDOW_UPDATE")
        client.say(frame("DATA", 1, b"", 1))
        assert (await client.status())["grpc-status"] == "0"
        assert got == [997] * (window // len(part) * 16)


async def test_an_early_answer_ends_the_sending() -> None:
    async def publish(requests: AsyncIterator[Any], peer: Someone) -> Any:
        raise NotFound("unknown subscription")

    async with (
        house({"LogBroker/PublishLogs": publish}) as (server, root, _),
        raw(server, root) as client,
    ):
        client.say(client.peer.headers(1, call=path(PUBLISH)), frame("DATA", 1, b"\0\0"))
        assert (await client.status())["grpc-status"] == "5"
        reset = await client.frame("RST_STREAM")
        assert (reset.stream, reset.number) == (1, 0)
        client.say(frame("DATA", 1, b"was on its way"), client.peer.call(3, b""))
        assert (await client.status())["grpc-status"] == "0"


async def test_slow_keepalive_pings_are_no_offence() -> None:
    async with house() as (server, root, _), raw(server, root) as client:
        for _ in range(60):
            client.say(frame("PING", 0, b"12345678"))
            assert (await client.frame("PING")).payload == b"12345678"


FLOODS = {
    "pings": lambda client, n: frame("PING", 0, b"12345678"),
    "settings": lambda client, n: frame("SETTINGS"),
    "rapid reset": lambda client, n: (
        client.peer.headers(2 * n + 1) + number("RST_STREAM", 2 * n + 1, 8)
    ),
    "empty data": lambda client, n: (client.peer.headers(1) if not n else b"") + frame("DATA", 1),
    "continuation": lambda client, n: (
        frame("CONTINUATION", 1, b"\x82") if n else frame("HEADERS", 1)
    ),
}


@pytest.mark.parametrize("what", FLOODS)
async def test_a_flood_costs_its_own_connection_only(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        house() as (server, root, _),
        dialled(server, root.issue("m2", "swarm-manager")) as good,
    ):
        async with raw(server, root) as client:
            for count in range(6000):
                client.say(FLOODS[what](client, count))
                if count % 500 == 0:
                    with contextlib.suppress(ConnectionError, ssl.SSLError):
                        await client.writer.drain()
            await call(good, "Health/Check", timeout=10)
            goaway = await client.hung_up()
        assert goaway is None or goaway.number == 11
        await call(good, "Health/Check", timeout=10)
        for _ in range(1000):
            if len(server.registry) == 1:
                break
            await asyncio.sleep(0.01)
        assert len(server.registry) == 1
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("front")]
    assert any(line.startswith("refused connection") and ": http2 (" in line for line in lines)


async def test_whoever_says_nothing_behind_the_handshake_is_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    short = Limits(preface_seconds=0.2)
    async with house(limits_=short) as (server, root, _):
        for said in (b"", Peer().begin()[:20], Peer().begin()[:24]):
            async with raw(server, root, begin=False) as client:
                client.say(said)
                assert await client.hung_up() is None and client.over
        async with raw(server, root) as client:
            client.say(client.peer.call(1, b""))
            assert (await client.status())["grpc-status"] == "0"
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("front")]
    assert len(lines) == 3 and all(": timeout (" in line for line in lines)


async def test_shutdown_says_goodbye_and_lets_calls_finish() -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, peer: Someone) -> Any:
        entered.set()
        await go.wait()
        return api.HeartbeatResponse()

    async def endless(request: Any, peer: Someone) -> AsyncIterator[Any]:
        yield api.SessionMessage()
        await asyncio.Event().wait()

    root = Root()
    manager = root.issue("m1", "swarm-manager")
    overrides = {"Dispatcher/Heartbeat": slow, "Dispatcher/Session": endless}
    server = Server(dummy_services([], overrides), lambda: manager, Cluster(), None)
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ready, ["127.0.0.1:0"], grace=20.0))
    await ready.wait()
    async with raw(server, root) as client:
        client.say(client.peer.headers(1, call=path(SESSION)), frame("DATA", 1, message(b""), 1))
        await client.frame("DATA")
        client.say(client.peer.call(3, b""))
        await asyncio.wait_for(entered.wait(), 10)
        running.cancel()
        goaway = await client.frame("GOAWAY")
        assert goaway.payload[:8] == b"\0\0\0\3\0\0\0\0"
        ended = await client.status()
        assert ended["grpc-status"] == "14" and ended["grpc-message"] == "transport is closing"
        client.say(client.peer.call(5, b""))
        go.set()
        assert (await client.status())["grpc-status"] == "0"
        assert await client.hung_up() is None
    await asyncio.wait({running}, timeout=10)
    assert running.cancelled()


async def test_shutdown_does_not_wait_longer_than_its_grace() -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def stuck(request: Any, peer: Someone) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    root = Root()
    manager = root.issue("m1", "swarm-manager")
    services = dummy_services([], {"Dispatcher/Heartbeat": stuck})
    server = Server(services, lambda: manager, Cluster(), None)
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ready, ["127.0.0.1:0"], grace=0.1))
    await ready.wait()
    async with raw(server, root) as client:
        client.say(client.peer.call(1, b""))
        await asyncio.wait_for(entered.wait(), 10)
        running.cancel()
        await asyncio.wait({running}, timeout=20)
        assert running.done() and left.is_set()


async def test_metadata_too_long_is_refused_and_the_connection_lives() -> None:
    async with house() as (server, root, seen), raw(server, root) as client:
        long = ("x-long", "y" * 15_900)
        client.say(client.peer.headers(1, long, ("x-more", "z" * 900), end=True))
        told = await client.status()
        assert (told[":status"], told["grpc-status"]) == ("431", "8")
        client.say(client.peer.call(3, b"", ("x", "y")))
        assert (await client.status())["grpc-status"] == "0" and len(seen) == 1
