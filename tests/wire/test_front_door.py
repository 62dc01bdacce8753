"""What is refused at the door, and that it disturbs nobody who is let in."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from swarmd import api
from swarmd.base.errors import ResourceExhausted, SwarmError, Unavailable, Unimplemented
from swarmd.rpc.client import dial
from swarmd.rpc.front import Limits
from swarmd.rpc.server import Server
from swarmd.rpc.tls import Credentials
from tests.wire.rpc_kit import (
    HEARTBEAT,
    Root,
    Seen,
    both,
    call,
    dialled,
    dummy_services,
    link_of,
    serving,
)

SHORT = Limits(handshake_seconds=0.3)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class House:
    """A running server, its root, a worker that is connected, and what reached it."""

    server: Server
    root: Root
    seen: list[Seen]

    async def raw(
        self, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = "swarm-manager" if context else None
        return await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=context, server_hostname=name
        )

    def context(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.root.pem.decode())
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


@contextlib.asynccontextmanager
async def house(limits: Limits = SHORT) -> AsyncIterator[House]:
    root = Root()
    seen: list[Seen] = []
    async with serving(
        dummy_services(seen), root.issue("m1", "swarm-manager"), limits=limits
    ) as server:
        yield House(server, root, seen)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All bytes until the server hangs up."""
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return await reader.read()
        return b""


async def plain_http(house: House) -> None:
    reader, writer = await house.raw()
    writer.write(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
    await ended(reader)
    writer.close()


async def plain_http2(house: House) -> None:
    reader, writer = await house.raw()
    writer.write(PREFACE)
    await ended(reader)
    writer.close()


async def noise(house: House) -> None:
    reader, writer = await house.raw()
    writer.write(bytes(range(256)) * 40)
    await ended(reader)
    writer.close()


async def half_a_hello(house: House) -> None:
    """Starts a TLS record and hangs up."""
    _, writer = await house.raw()
    writer.write(b"\x16\x03\x01\x02\x00\x01")
    await writer.drain()
    writer.close()
    await asyncio.sleep(0)


async def silent(house: House) -> None:
    reader, writer = await house.raw()
    assert await ended(reader) == b""
    writer.close()


async def drip(house: House) -> None:
    """Keeps the handshake going one byte at a time; the limit counts all the same."""
    reader, writer = await house.raw()
    gone = asyncio.ensure_future(ended(reader))
    for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10:
        writer.write(bytes([byte]))
        await asyncio.wait({gone}, timeout=0.02)
        if gone.done():
            break
    assert gone.done()
    writer.close()


async def old_tls(house: House) -> None:
    context = house.context("h2")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await house.raw(context)


async def other_alpn(house: House) -> None:
    """Good TLS, but for another protocol, which is then spoken."""
    reader, writer = await house.raw(house.context("http/1.1"))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await ended(reader)
    writer.close()


async def garbage_inside(house: House) -> None:
    """Good TLS, then anything but HTTP/2."""
    reader, writer = await house.raw(house.context("h2"))
    writer.write(b"\x00\xff" * 4000)
    await ended(reader)
    writer.close()


async def garbage_outside(house: House) -> None:
    """Good TLS, then bytes that are no TLS record."""
    reader, writer = await house.raw(house.context("h2"))
    raw = writer.get_extra_info("socket")
    raw = raw._sock if hasattr(raw, "_sock") else raw
    raw.send(b"\x00\xff" * 4000)
    await ended(reader)
    writer.close()


async def oversized(house: House) -> None:
    async with dialled(house.server, house.root.issue("w2")) as caller:
        update = api.UpdateTaskStatusRequest(session_id="x" * (9 << 20))
        with pytest.raises(ResourceExhausted):
            await caller.unary("Dispatcher/UpdateTaskStatus", update, timeout=10)
        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)


async def foreign(house: House) -> None:
    stranger = Root().issue("m1", "swarm-manager", roots=house.root.pem)
    await refused(house, stranger)


async def expired(house: House) -> None:
    past = datetime.timedelta(hours=-1)
    await refused(house, house.root.issue("m1", "swarm-manager", ends=past))


async def refused(house: House, credentials: Credentials) -> None:
    # TLS 1.3 lets the client finish before its certificate is judged: dial may succeed.
    with pytest.raises(Unavailable):
        async with dialled(house.server, credentials) as caller:
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)


BAD = [
    plain_http, plain_http2, noise, half_a_hello, silent, drip, old_tls, other_alpn,
    garbage_inside, garbage_outside, oversized, foreign, expired,
]  # fmt: skip
REASON = {
    plain_http: "plain http",
    plain_http2: "tls",
    noise: "tls",
    half_a_hello: "hangup",
    silent: "timeout",
    drip: "timeout",
    old_tls: "tls",
    other_alpn: "preface",
    garbage_inside: "preface",
    garbage_outside: "garbage",
    oversized: "oversized",
    foreign: "certificate",
    expired: "certificate",
}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
async def test_bad_input_is_refused_once_and_others_go_on(
    bad: Callable[[House], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with house() as at, dialled(at.server, at.root.issue("w1")) as good:
        stop = asyncio.Event()

        async def beat() -> None:
            while not stop.is_set():
                await good.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(beat())
            await bad(at)
            stop.set()
        await good.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        assert {call.peer.node_id for call in at.seen} <= {"w1", "w2"}
        for _ in range(200):
            if len(at.server.registry) == 1:
                break
            await asyncio.sleep(0.01)
        assert len(at.server.registry) == 1, "only the good connection is left"
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("front")]
    reason = REASON.get(bad)
    if reason is not None:
        (line,) = lines
        what = "request" if bad is oversized else "connection"
        assert f": {reason} (" in line and line.startswith(f"refused {what} from 127.0.0.1:")
    else:
        assert not lines


async def test_a_client_without_alpn_is_served() -> None:
    """As engines of 20.10 are once their certificate was renewed."""
    async with house() as at:
        reader, writer = await at.raw(at.context())
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        async with asyncio.timeout(5):
            head = await reader.readexactly(9)
        assert head[3] == 4, "the server's SETTINGS frame"
        writer.close()


async def test_a_crowd_of_silent_clients_does_not_delay_others() -> None:
    async with house(Limits(handshake_seconds=30)) as at:
        crowd = [await at.raw() for _ in range(100)]
        async with asyncio.timeout(5), dialled(at.server, at.root.issue("w1")) as caller:
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        for _, writer in crowd:
            writer.close()


async def test_too_many_pending_handshakes_are_turned_away_and_places_come_back() -> None:
    limits = Limits(handshake_seconds=30, pending_max=3, pending_per_address_max=3)
    async with house(limits) as at:
        crowd = [await at.raw() for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable):
            await dial(f"127.0.0.1:{at.server.port}", at.root.issue("w1"))
        for _, writer in crowd:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(Unavailable):
                    async with dialled(at.server, at.root.issue("w1")) as caller:
                        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
                        break
                await asyncio.sleep(0.02)


async def test_silent_strangers_do_not_keep_nodes_out() -> None:
    limits = Limits(handshake_seconds=30, pending_max=3)
    async with house(limits) as at:
        crowd = [await at.raw() for _ in range(3)]
        await asyncio.sleep(0.05)
        async with dialled(at.server, at.root.issue("w1")) as caller:
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
            (oldest, _), *others = crowd
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(oldest.read(1), 5) == b""
            assert not any(reader.at_eof() for reader, _ in others)
        for _, writer in crowd:
            writer.close()
        for _ in range(200):
            if not at.server._front._links:
                break
            await asyncio.sleep(0.01)
        front = at.server._front
        assert not front._shaking and not front._pending


async def test_open_connections_without_certificate_are_limited_per_address() -> None:
    async with house(Limits(anonymous_per_address_max=2)) as at:
        nobody = Credentials(at.root.pem)
        async with dialled(at.server, nobody) as one, dialled(at.server, nobody) as two:
            for caller in (one, two):
                await call(caller, "CA/GetRootCACertificate", timeout=5)
            with pytest.raises(Unavailable):
                async with dialled(at.server, nobody) as three:
                    await call(three, "CA/GetRootCACertificate", timeout=5)
            async with dialled(at.server, at.root.issue("w1")) as known:
                await known.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        for _ in range(200):
            if not len(at.server.registry):
                break
            await asyncio.sleep(0.01)
        async with dialled(at.server, nobody) as again:
            await call(again, "CA/GetRootCACertificate", timeout=5)


async def test_strangers_from_many_addresses_leave_room_for_nodes() -> None:
    async with house(Limits(anonymous_max=2)) as at:
        nobody = Credentials(at.root.pem)
        async with dialled(at.server, nobody), dialled(at.server, nobody):
            at.server._front._anonymous.clear()  # as if each came from an address of its own
            with pytest.raises(Unavailable):
                async with dialled(at.server, nobody) as three:
                    await call(three, "CA/GetRootCACertificate", timeout=5)
            async with dialled(at.server, at.root.issue("w1")) as known:
                await known.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)


async def test_one_node_does_not_take_all_connections() -> None:
    async with house(Limits(per_node_max=2)) as at:
        w1 = at.root.issue("w1")
        async with dialled(at.server, w1), dialled(at.server, w1):
            with pytest.raises(Unavailable):
                async with dialled(at.server, w1) as three:
                    await three.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
            async with dialled(at.server, at.root.issue("w2")) as other:
                await other.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        for _ in range(200):
            if not len(at.server.registry):
                break
            await asyncio.sleep(0.01)
        assert not at.server._front._nodes
        async with dialled(at.server, w1) as again:
            await again.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)


async def test_refusals_are_not_logged_without_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with house(Limits(handshake_seconds=0.3, log_lines_max=5)) as at:
        for _ in range(20):
            await plain_http(at)
    lines = [record for record in caplog.records if record.name.endswith("front")]
    assert len(lines) == 5


async def test_unknown_methods_get_the_stock_answer() -> None:
    import grpc

    root = Root()
    services = [item for item in dummy_services([]) if type(item).__name__ != "NodeCA"]
    async with (
        serving(services, root.issue("m1", "swarm-manager")) as server,
        dialled(server, root.issue("w1")) as caller,
    ):
        with pytest.raises(Unimplemented, match=r"^unknown service docker\.swarmkit\.v1\.NodeCA$"):
            await call(caller, "NodeCA/IssueNodeCertificate", timeout=5)
        line = await caller._get_line()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await line._channel.unary_unary("/docker.swarmkit.v1.CA/Nonsense")(b"", timeout=5)
        assert error.value.details() == (
            "unknown method Nonsense for service docker.swarmkit.v1.CA"
        )


async def test_unreadable_request_is_the_callers_fault_only() -> None:
    import grpc

    async with house() as at, dialled(at.server, at.root.issue("w1")) as caller:
        line = await caller._get_line()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await line._channel.unary_unary("/docker.swarmkit.v1.Dispatcher/Heartbeat")(
                b"\xff\xff\xff", timeout=5
            )
        assert error.value.code() is grpc.StatusCode.INTERNAL
        assert not at.seen
        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)


async def test_unusable_credentials_fail_at_start() -> None:
    root = Root()
    with pytest.raises(ValueError, match="roots and a certificate"):
        async with serving(dummy_services([]), Credentials(root.pem)):
            pass


async def test_port_taken_fails_at_start() -> None:
    async with house() as at:
        with pytest.raises(OSError, match="address already in use"):
            async with serving(
                dummy_services([]),
                at.root.issue("m2", "swarm-manager"),
                listen=f"127.0.0.1:{at.server.port}",
            ):
                pass
        async with dialled(at.server, at.root.issue("w1")) as caller:
            with contextlib.suppress(SwarmError):
                await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        assert at.seen


async def test_ports_come_and_go_while_it_serves() -> None:
    async with house() as at:
        server, first = at.server, f"127.0.0.1:{at.server.port}"
        for_worker = at.root.issue("w1")
        assert not await server.listen_also(first), "open already"
        second = f"127.0.0.2:{at.server.port}"
        assert await server.listen_also(second)
        assert server.addresses == [first, second]
        caller = await dial(second, for_worker)
        try:
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
            with pytest.raises(OSError, match="cannot assign requested address"):
                await server.listen_also(f"192.0.2.1:{at.server.port}")
            await server.stop_listening(second)
            assert server.addresses == [first]
            with pytest.raises(Unavailable):
                await dial(second, for_worker)
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        finally:
            await caller.close()
        await server.stop_listening(second)  # closed already
        async with dialled(server, for_worker) as caller:
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
    with pytest.raises(Unavailable):
        await server.listen_also(second)


async def test_a_wildcard_covers_every_address_of_its_family() -> None:
    root = Root()
    credentials = root.issue("m1", "swarm-manager")
    async with serving(dummy_services([]), credentials, listen="0.0.0.0:0") as server:
        assert not await server.listen_also(f"127.0.0.7:{server.port}")
        assert await server.listen_also(f"[::1]:{server.port}")


@both
async def test_a_manager_that_acknowledges_nothing_is_given_up(by: Any) -> None:
    async with house() as at, dialled(at.server, at.root.issue("w1"), by) as caller:
        sock = link_of(caller)._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
