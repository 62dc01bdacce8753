"""What a stock `swarm` 1.2.9 put on the wire, replayed; and clients that mean no good."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.faces.classic.discovery.door import DoorLimits
from swarmd.faces.classic.discovery.server import DiscoveryListen, DiscoveryServer
from tests.harness.tlsfiles import Authority

# Recorded from `swarm list` and `swarm join --addr 10.0.0.11:2376 --ttl 3s`; only host and token
# are filled in.
LIST = (
    "GET /v1/clusters/{token} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"
)
JOIN = (
    "POST /v1/clusters/{token}?ttl=3 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "User-Agent: Go-http-client/1.1\r\nContent-Length: 14\r\nContent-Type: application/json\r\n"
    "Accept-Encoding: gzip\r\n\r\n10.0.0.11:2376"
)
CREATE = (
    "POST /v1/clusters HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Go-http-client/1.1\r\n"
    "Content-Length: 0\r\nAccept-Encoding: gzip\r\n\r\n"
)


class Client:
    """A connection that says exactly what it is told to."""

    def __init__(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.port, self.reader, self.writer = port, reader, writer

    def say(self, text: str, token: str = "") -> None:
        self.writer.write(text.format(port=self.port, token=token).encode())

    async def answer(self) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of the next response."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        return int(head[0].split()[1]), fields, body.decode()

    async def ask(self, text: str, token: str = "") -> tuple[int, str]:
        self.say(text, token)
        status, _, body = await self.answer()
        return status, body

    async def over(self) -> bytes:
        """What comes until the other side ends it."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


class Hub:
    """The service on loopback and the clients connected to it."""

    def __init__(self, server: DiscoveryServer, clock: ManualClock, ca: Path | None) -> None:
        self.server, self.clock = server, clock
        self._ca = ca
        self._clients: list[Client] = []

    async def client(self) -> Client:
        context = ssl.create_default_context(cafile=str(self._ca)) if self._ca else None
        opened = await asyncio.open_connection("127.0.0.1", self.server.port, ssl=context)
        client = Client(self.server.port, *opened)
        self._clients.append(client)
        return client

    async def settled(self, connections: int) -> None:
        """Wait until so many connections are counted."""
        async with asyncio.timeout(20):
            for pause in itertools.repeat(0.01):
                if self.server.door.connections == connections:
                    return
                await asyncio.sleep(pause)

    async def close(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()
        await self.settled(0)


@asynccontextmanager
async def hub(
    path: Path, limits: DoorLimits | None = None, authority: Authority | None = None
) -> AsyncIterator[Hub]:
    files = authority.issue("hub") if authority else None
    listen = DiscoveryListen(
        "127.0.0.1", 0, str(files.cert) if files else "", str(files.key) if files else ""
    )
    clock = ManualClock()
    server = DiscoveryServer(listen, path / "d.db", clock, SeededEntropy(5), door=limits)
    ready = asyncio.Event()
    made = Hub(server, clock, authority.ca if authority else None)
    async with Tasks() as tasks:
        tasks.spawn(server.run(ready), "hub")
        async with asyncio.timeout(10):
            await ready.wait()
        yield made
        await made.close()


async def test_the_recorded_exchange_is_answered_as_the_client_wants(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with hub(tmp_path, authority=authority) as service:
        client = await service.client()
        client.say(CREATE)
        status, fields, token = await client.answer()
        assert (status, len(token)) == (200, 32)
        assert fields["content-type"].startswith("text/plain")
        client.say(LIST, token)
        status, fields, body = await client.answer()
        # The client asked for gzip; it takes a plain answer, which ours is.
        assert (status, body, "content-encoding" in fields) == (200, "[]", False)
        assert fields["content-type"].startswith("application/json")
        other = await service.client()
        for _ in range(3):  # heartbeats on one connection
            assert (await other.ask(JOIN, token))[0] == 200
        assert await client.ask(LIST, token) == (200, '["10.0.0.11:2376"]')
        service.clock.advance(3.0)
        assert await client.ask(LIST, token) == (200, "[]")
        # Any other status than 200 is an error to the client.
        assert (await client.ask(LIST, token[:-1] + "g"))[0] == 404


async def test_one_address_gets_so_many_connections(tmp_path: Path) -> None:
    async with hub(tmp_path, DoorLimits(per_address_max=3)) as service:
        guests = [await service.client() for _ in range(3)]
        for guest in guests:
            assert (await guest.ask(LIST, "no"))[0] == 404
        assert await (await service.client()).over() == b""
        assert (await guests[0].ask(LIST, "no"))[0] == 404
        guests[1].writer.close()
        await service.settled(2)
        assert (await (await service.client()).ask(LIST, "no"))[0] == 404


async def test_all_addresses_together_get_so_many(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with hub(tmp_path, DoorLimits(connections_max=1), authority) as service:
        guest = await service.client()
        # Turned away before TLS costs anything.
        with pytest.raises(OSError):
            await service.client()
        assert (await guest.ask(LIST, "no"))[0] == 404
        assert service.server.door.connections == 1


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("said", ["", "GET /clusters/x HTTP/1.1\r\nHost: h\r\nX-Slow: "])
async def test_who_does_not_finish_a_question_loses_the_place(
    tmp_path: Path, said: str, tls: bool
) -> None:
    authority = Authority(tmp_path / "ca") if tls else None
    async with hub(tmp_path, DoorLimits(request_seconds_max=0.3), authority) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
        slow = Client(service.server.port, reader, writer)
        slow.say(said)  # where TLS is wanted, not even that
        assert b"200 OK" not in await slow.over()
        await service.settled(0)
        writer.close()


async def test_who_asked_once_may_be_silent(tmp_path: Path) -> None:
    async with hub(tmp_path, DoorLimits(request_seconds_max=1.0)) as service:
        client = await service.client()
        assert (await client.ask(LIST, "no"))[0] == 404
        await asyncio.sleep(1.5)  # longer than the limit: the next heartbeat finds it open
        assert (await client.ask(LIST, "no"))[0] == 404


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async with hub(tmp_path, DoorLimits(body_seconds_max=0.2)) as service:
        client = await service.client()
        _, token = await client.ask(CREATE)
        status, _ = await client.ask(JOIN.removesuffix("10.0.0.11:2376") + "10.", token)
        assert status == 408
        assert await client.over() == b""
        assert await (await service.client()).ask(LIST, token) == (200, "[]")


async def test_who_does_not_read_the_answers_loses_the_place(tmp_path: Path) -> None:
    async with hub(tmp_path, DoorLimits(stalled_seconds_max=0.3)) as service:
        client = await service.client()
        _, token = await client.ask(CREATE)
        for number in range(50):  # so that an answer is long
            address = f"{'h' * 200}-{number:03}:2376"
            text = JOIN.replace("10.0.0.11:2376", address).replace(" 14", f" {len(address)}")
            assert (await client.ask(text, token))[0] == 200
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        with deaf:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, ("127.0.0.1", service.server.port))
            await service.settled(2)
            await loop.sock_sendall(deaf, LIST.format(port=1, token=token).encode() * 1000)
            await service.settled(1)


HEADS = [
    ("a long line", "GET /" + "x" * 5000 + " HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a long field", "GET /clusters HTTP/1.1\r\nHost: h\r\nX: " + "y" * 9000 + "\r\n\r\n"),
    ("no HTTP", "hello\r\n\r\n"),
]


@pytest.mark.parametrize("head", [head for _, head in HEADS], ids=[name for name, _ in HEADS])
async def test_heads_have_a_size(tmp_path: Path, head: str) -> None:
    async with hub(tmp_path) as service:
        client = await service.client()
        assert (await client.ask(head))[0] == 400
        await service.settled(0)
