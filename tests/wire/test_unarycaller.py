"""Calls between managers over TLS: to gRPC's own server, to ours, and on one connection for all."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.errors import (
    Aborted,
    Code,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    SwarmError,
)
from swarmd.rpc.client import dial_manager
from swarmd.rpc.peer import ClosedHere, Disconnected, Peer
from swarmd.rpc.unarycaller import UnaryCaller
from tests.wire.rpc_kit import (
    HEARTBEAT,
    Root,
    Seen,
    dialled,
    dummy_services,
    link_of,
    serving,
    tls_door,
)

MIB = 1 << 20
SEND = "Raft/ProcessRaftMessage"
Handler = Callable[[bytes, Any], Awaitable[bytes]]


def carrying(size: int) -> api.ProcessRaftMessageRequest:
    """A Raft message with so many bytes in it."""
    message = raftpb.Message(type=raftpb.MsgApp, to=2, term=4, index=7)
    message.entries.add(Data=b"x" * size)
    return api.ProcessRaftMessageRequest(message=message)


class Stock(grpc.GenericRpcHandler):
    """gRPC's own server, with one handler for every unary call."""

    def __init__(self, handler: Handler) -> None:
        limit = ("grpc.max_receive_message_length", 16 * MIB)
        self.server = grpc.aio.server(options=[limit])
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.handler = handler

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.handler)


@contextlib.asynccontextmanager
async def stock(handler: Handler) -> AsyncIterator[tuple[Stock, UnaryCaller]]:
    """A caller to such a server behind TLS."""
    root = Root()
    made = Stock(handler)
    await made.server.start()
    manager = root.issue("m1", "swarm-manager")
    async with tls_door(manager, [made.port], alpn=True) as port, asyncio.timeout(60):
        caller = await dial_manager(f"127.0.0.1:{port}", manager)
        try:
            yield made, caller
        finally:
            await caller.close()
            await made.server.stop(0)


@contextlib.asynccontextmanager
async def ours(**handlers: Any) -> AsyncIterator[UnaryCaller]:
    root = Root()
    manager = root.issue("m1", "swarm-manager")
    named = {name.replace("__", "/"): handler for name, handler in handlers.items()}
    async with (
        serving(dummy_services([], named), manager) as server,
        dialled(server, manager, dial_manager) as caller,
        asyncio.timeout(60),
    ):
        yield caller


async def test_grpcs_own_server_gets_and_answers_four_mebibytes() -> None:
    got: list[int] = []

    async def echo(raw: bytes, context: Any) -> bytes:
        got.append(len(raw))
        return api.GetRootCACertificateResponse(certificate=raw).SerializeToString()

    async with stock(echo) as (_, caller):
        request = carrying(4 * MIB)
        found = await asyncio.gather(
            caller.unary(SEND, HEARTBEAT, timeout=20),
            *(caller.unary("CA/GetRootCACertificate", request, timeout=20) for _ in range(3)),
            caller.unary("CA/GetRootCACertificate", HEARTBEAT, timeout=20),
        )
    sizes = [len(answer.certificate) for answer in found[1:]]
    assert sizes == [request.ByteSize()] * 3 + [HEARTBEAT.ByteSize()]
    assert sorted(got)[-1] == request.ByteSize()


async def test_grpcs_own_server_sees_metadata_and_deadline() -> None:
    seen: list[tuple[dict[str, str], float]] = []

    async def look(raw: bytes, context: Any) -> bytes:
        seen.append((dict(context.invocation_metadata()), context.time_remaining()))
        return b""

    async with stock(look) as (_, caller):
        await caller.unary(SEND, HEARTBEAT, timeout=7, metadata=(("redirect", "@"), ("x", "")))
    ((told, left),) = seen
    assert told["redirect"] == "@" and told["x"] == "" and 0 < left <= 7.1


async def test_errors_of_grpcs_own_server() -> None:
    async def fail(raw: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.ABORTED, "größer\n100%")
        return b""

    async with stock(fail) as (_, caller):
        with pytest.raises(Aborted, match=r"^größer\n100%$"):
            await caller.unary(SEND, HEARTBEAT, timeout=5)
        with pytest.raises(InvalidArgument, match="metadata"):
            await caller.unary(SEND, HEARTBEAT, metadata=(("x", "\r\n"),))


async def test_withdrawn_and_late_calls_end_at_grpcs_own_server_too() -> None:
    entered: asyncio.Queue[None] = asyncio.Queue()
    left: asyncio.Queue[None] = asyncio.Queue()

    async def hang(raw: bytes, context: Any) -> bytes:
        entered.put_nowait(None)
        try:
            await asyncio.Event().wait()
        finally:
            left.put_nowait(None)
        return b""

    async with stock(hang) as (_, caller):
        task = asyncio.create_task(caller.unary(SEND, HEARTBEAT))
        await entered.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await left.get()
        with pytest.raises(DeadlineExceeded, match=r"^context deadline exceeded$"):
            await caller.unary(SEND, HEARTBEAT, timeout=1.0)
        await left.get()
        with pytest.raises(DeadlineExceeded):
            await caller.unary(SEND, HEARTBEAT, timeout=0)
        assert caller.connected


async def test_a_server_that_goes_fails_what_it_did_not_answer() -> None:
    entered = asyncio.Event()

    async def hang(raw: bytes, context: Any) -> bytes:
        entered.set()
        await asyncio.Event().wait()
        return b""

    async with stock(hang) as (made, caller):
        task = asyncio.create_task(caller.unary(SEND, HEARTBEAT))
        await entered.wait()
        await made.server.stop(0)
        with pytest.raises(SwarmError) as failed:
            await task
        assert failed.value.code in (Code.UNAVAILABLE, Code.CANCELLED)
        with pytest.raises(Disconnected, match="connection error"):
            while True:
                await caller.unary(SEND, HEARTBEAT, timeout=5)


async def test_answers_that_cannot_be_read_and_answers_without_message() -> None:
    async def noise(raw: bytes, context: Any) -> bytes:
        return b"\xff\xff"

    async with stock(noise) as (_, caller):
        with pytest.raises(Internal, match="cannot be read"):
            await caller.unary("Health/Check", HEARTBEAT, timeout=5)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (7, 1), (8, 1), (20, 3)])
async def test_a_few_calls_of_one_turn_share_a_write(
    count: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ours() as caller:
        await caller.unary(SEND, carrying(1), timeout=5)
        link, writes = link_of(caller), []
        real = link.send
        monkeypatch.setattr(type(link), "send", lambda _, data: (writes.append(data), real(data)))
        calls = [caller.unary(SEND, carrying(100), timeout=5) for _ in range(count)]
        await asyncio.gather(*calls)
        assert len(writes) == expected


async def test_a_lost_connection_fails_calls_and_the_next_one_connects() -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, peer: Peer) -> Any:
        entered.set()
        await go.wait()
        return api.HealthCheckResponse()

    async with ours(Health__Check=slow) as caller:
        tasks = [asyncio.create_task(caller.unary("Health/Check", HEARTBEAT)) for _ in range(3)]
        await entered.wait()
        link_of(caller).abort()
        failed = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in failed] == [Disconnected] * 3
        assert {str(error) for error in failed} == {
            'connection error: desc = "transport is closing"'
        }
        go.set()
        assert not caller.connected
        await caller.unary("Health/Check", HEARTBEAT, timeout=5)
        assert caller.connected


async def test_closing_here_ends_calls_and_streams() -> None:
    entered = asyncio.Event()

    async def slow(request: Any, peer: Peer) -> Any:
        entered.set()
        await asyncio.Event().wait()

    async def session(request: Any, peer: Peer) -> AsyncIterator[Any]:
        yield api.SessionMessage(session_id="1")
        await asyncio.Event().wait()

    async with ours(Health__Check=slow, Dispatcher__Session=session) as caller:
        stream = caller.server_stream("Dispatcher/Session", api.SessionRequest())
        assert (await anext(stream)).session_id == "1"
        task = asyncio.create_task(caller.unary("Health/Check", HEARTBEAT))
        await entered.wait()
        await caller.close()
        for waiting in (task, anext(stream)):
            with pytest.raises(ClosedHere, match=r"^grpc: the client connection is closing$"):
                await waiting
        for again in (
            caller.unary("Health/Check", HEARTBEAT),
            anext(caller.server_stream("Dispatcher/Session", api.SessionRequest())),
        ):
            with pytest.raises(Disconnected, match="closing"):
                await again


async def test_a_peer_that_speaks_no_http2_is_hung_up_on() -> None:
    root = Root()

    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(noise, "127.0.0.1", 0)
    inner = [server.sockets[0].getsockname()[1]]
    manager = root.issue("m1", "swarm-manager")
    async with tls_door(manager, inner, alpn=True) as port, asyncio.timeout(30):
        caller = await dial_manager(f"127.0.0.1:{port}", manager)
        with pytest.raises(Disconnected, match="connection error"):
            await caller.unary(SEND, HEARTBEAT, timeout=5)
        assert not caller.connected
        await caller.close()
    server.close()


async def test_many_calls_at_once_on_one_connection() -> None:
    seen: list[Seen] = []
    root = Root()
    manager = root.issue("m1", "swarm-manager")
    async with (
        serving(dummy_services(seen), manager) as server,
        dialled(server, root.issue("w1"), dial_manager) as caller,  # 1000 at a time, as a node
    ):
        calls = (caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=30) for _ in range(1500))
        assert len(await asyncio.gather(*calls)) == len(seen) == 1500
        assert len(server.registry) == 1


def test_who_opens_no_stream_does_not_load_grpc() -> None:
    code = """
import asyncio, sys
import swarmd.manager.manager
from swarmd.rpc.client import Credentials, dial_manager
from swarmd.rpc.peer import Disconnected
async def main():
    try:
        await dial_manager("127.0.0.1:1", Credentials(None))
    except Disconnected:
        print("grpc" in sys.modules, "swarmd.rpc.unarycaller" in sys.modules)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
