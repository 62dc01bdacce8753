"""Streams through the front: size, flow control, cancellation, cut connections, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.errors import (
    Aborted,
    Code,
    DeadlineExceeded,
    Internal,
    InvariantViolation,
    NotFound,
    SwarmError,
    Unavailable,
)
from swarmd.rpc.client import dial
from swarmd.rpc.peer import ClosedHere, Disconnected, Peer
from swarmd.rpc.server import Server
from swarmd.rpc.streams import as_generator
from tests.wire.rpc_kit import (
    HEARTBEAT,
    Cluster,
    Root,
    Seen,
    both,
    call,
    dialled,
    dummy_services,
    serving,
)

MIB = 1 << 20
SESSION = api.SessionRequest()


class Endless:
    """A Session handler that never ends by itself and notes how it did end."""

    def __init__(self) -> None:
        self.open = 0
        self.ended: list[str] = []
        self.sent = 0
        self.changed = asyncio.Event()

    async def session(self, request: Any, peer: Peer) -> AsyncIterator[Any]:
        self.open += 1
        try:
            yield api.SessionMessage(session_id=peer.node_id)
            await asyncio.Event().wait()
        finally:
            self.open -= 1
            self.ended.append(peer.node_id)
            self.changed.set()

    async def flood(self, request: Any, peer: Peer) -> AsyncIterator[Any]:
        self.open += 1
        try:
            while True:
                yield api.SessionMessage(session_id="x" * MIB)
                self.sent += 1
        finally:
            self.open -= 1
            self.changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                self.changed.clear()
                await self.changed.wait()


def waiting(server: Server) -> int:
    """Bytes of answers that the server keeps for callers who do not take them.

    How much a caller takes without reading is the business of its own gRPC library, which
    widens its windows by what it measures.
    """
    assert server._front is not None
    lines = [link.line for link in server._front._links if link.line is not None]
    streams = [stream for line in lines for stream in line._protocol.streams.values()]
    kept = sum(len(piece) for stream in streams for piece in stream.pending or ())
    return kept + sum(line._protocol.sender.untaken for line in lines)


@contextlib.asynccontextmanager
async def pair(
    overrides: dict[str, Callable[..., Any]], by: Any = dial
) -> AsyncIterator[tuple[Server, Any]]:
    root = Root()
    manager = root.issue("m1", "swarm-manager")
    async with (
        serving(dummy_services([], overrides), manager) as server,
        dialled(server, manager, by) as caller,
    ):
        yield server, caller


@pytest.mark.parametrize("megabytes", [1, 16])
@both
async def test_large_answers(megabytes: int, by: Any) -> None:
    data = bytes(range(256)) * (megabytes * MIB // 256)

    async def certificate(request: Any, peer: Peer) -> Any:
        return api.GetRootCACertificateResponse(certificate=data)

    async with pair({"CA/GetRootCACertificate": certificate}, by) as (_, caller):
        answer = await call(caller, "CA/GetRootCACertificate", timeout=20)
    assert answer.certificate == data


@both
async def test_large_requests_up_to_the_limit(by: Any) -> None:
    got: list[int] = []

    async def token(request: Any, peer: Peer) -> Any:
        got.append(len(request.token))
        return api.IssueNodeCertificateResponse()

    async with pair({"NodeCA/IssueNodeCertificate": token}, by) as (_, caller):
        request = api.IssueNodeCertificateRequest(token="x" * (8 * MIB - 100))
        await caller.unary("NodeCA/IssueNodeCertificate", request, timeout=20)
    assert got == [8 * MIB - 100]


async def test_long_server_stream_arrives_in_order() -> None:
    async def tasks(request: Any, peer: Peer) -> AsyncIterator[Any]:
        for number in range(500):
            yield api.SessionMessage(session_id=f"{number}-" + "x" * 40_000)

    async with pair({"Dispatcher/Session": tasks}) as (_, caller):
        got = [m async for m in caller.server_stream("Dispatcher/Session", SESSION, timeout=30)]
    assert [message.session_id.partition("-")[0] for message in got] == [
        str(number) for number in range(500)
    ]


async def test_long_client_stream_arrives_in_order() -> None:
    got: list[int] = []

    async def publish(requests: AsyncIterator[Any], peer: Peer) -> Any:
        async for request in requests:
            got.append(int(request.subscription_id))
        return api.PublishLogsResponse()

    async def numbers() -> AsyncIterator[Any]:
        for number in range(1000):
            yield api.PublishLogsMessage(subscription_id=str(number))

    async with pair({"LogBroker/PublishLogs": publish}) as (_, caller):
        await caller.client_stream("LogBroker/PublishLogs", numbers(), timeout=30)
    assert got == list(range(1000))


@both
async def test_server_may_answer_a_client_stream_early(by: Any) -> None:
    async def publish(requests: AsyncIterator[Any], peer: Peer) -> Any:
        await anext(requests)
        return api.PublishLogsResponse()

    async def endless() -> AsyncIterator[Any]:
        while True:
            yield api.PublishLogsMessage(subscription_id="x")
            await asyncio.sleep(0.01)

    async with pair({"LogBroker/PublishLogs": publish}, by) as (_, caller):
        async with asyncio.timeout(5):
            answer = await caller.client_stream("LogBroker/PublishLogs", endless())
    assert answer == api.PublishLogsResponse()


async def test_server_may_refuse_a_client_stream_early() -> None:
    async def publish(requests: AsyncIterator[Any], peer: Peer) -> Any:
        raise NotFound("unknown subscription ID")

    async def endless() -> AsyncIterator[Any]:
        while True:
            yield api.PublishLogsMessage(subscription_id="x")
            await asyncio.sleep(0.01)

    async with pair({"LogBroker/PublishLogs": publish}) as (_, caller):
        async with asyncio.timeout(5):
            with pytest.raises(NotFound, match=r"^unknown subscription ID$"):
                await caller.client_stream("LogBroker/PublishLogs", endless())


@both
async def test_closing_a_stream_ends_its_handler(by: Any) -> None:
    house = Endless()
    async with pair({"Dispatcher/Session": house.session}, by) as (_, caller):
        async with aclosing(caller.server_stream("Dispatcher/Session", SESSION)) as stream:
            assert (await anext(stream)).session_id == "m1"
            assert house.open == 1
        await house.until(lambda: house.open == 0)
        await call(caller, "Health/Check", timeout=5)


@both
async def test_hanging_up_ends_all_handlers(by: Any) -> None:
    house = Endless()
    async with pair({"Dispatcher/Session": house.session}, by) as (server, caller):
        streams = [caller.server_stream("Dispatcher/Session", SESSION) for _ in range(3)]
        for stream in streams:
            await anext(stream)
        await caller.close()
        await house.until(lambda: house.open == 0)
        with pytest.raises(SwarmError):
            await anext(streams[0])
        with pytest.raises(Unavailable):
            await call(caller, "Health/Check")
        assert len(server.calls) == 0


@both
async def test_cancelling_a_call_cancels_its_handler(by: Any) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, peer: Peer) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with pair({"Health/Check": slow}, by) as (_, caller):
        task = asyncio.create_task(call(caller, "Health/Check"))
        await asyncio.wait_for(entered.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(left.wait(), 5)


@both
async def test_deadline_reaches_the_caller_and_the_handler(by: Any) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, peer: Peer) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with pair({"Health/Check": slow}, by) as (_, caller):
        # Connected already: what has to happen before the deadline is the handler's beginning.
        await call(caller, "Dispatcher/Heartbeat", timeout=20)
        with pytest.raises(DeadlineExceeded):
            await call(caller, "Health/Check", timeout=1.0)
        assert entered.is_set(), "the deadline passed before it got there"
        await asyncio.wait_for(left.wait(), 20)


@pytest.mark.parametrize("how", ["cancelled", "hung up", "oversized"])
async def test_broken_request_stream_never_looks_whole(how: str) -> None:
    begun, over = asyncio.Event(), asyncio.Event()
    outcome: list[str] = []

    async def receive(requests: AsyncIterator[Any], peer: Peer) -> Any:
        try:
            async for _ in requests:
                begun.set()
            outcome.append("whole")
        except asyncio.CancelledError:
            outcome.append("cut")
            raise
        finally:
            over.set()
        return api.StreamRaftMessageResponse()

    async def parts() -> AsyncIterator[Any]:
        message = raftpb.Message(entries=[raftpb.Entry(Data=b"x")])
        yield api.StreamRaftMessageRequest(message=message)
        await begun.wait()
        if how == "oversized":
            message.entries[0].Data = b"x" * (9 * MIB)
            yield api.StreamRaftMessageRequest(message=message)
        await asyncio.Event().wait()

    async with pair({"Raft/StreamRaftMessage": receive}) as (_, caller):
        task = asyncio.create_task(caller.client_stream("Raft/StreamRaftMessage", parts()))
        await asyncio.wait_for(begun.wait(), 5)
        if how == "cancelled":
            task.cancel()
        elif how == "hung up":
            assert caller._line is not None
            caller._line.tunnel._link.abort()
        await asyncio.wait_for(over.wait(), 5)
        task.cancel()
        await asyncio.wait({task})
    assert outcome == ["cut"]


async def test_slow_reader_stops_the_sender() -> None:
    """Flow control goes all the way: a reader that does not read costs one message, not all."""
    house = Endless()
    async with pair({"Dispatcher/Session": house.flood}) as (server, caller):
        async with aclosing(caller.server_stream("Dispatcher/Session", SESSION)) as stream:
            await anext(stream)
            before = -1
            async with asyncio.timeout(20):
                while house.sent != before:
                    before = house.sent
                    await asyncio.sleep(0.3)
            assert waiting(server) <= MIB + 5, "the server collects what nobody reads"
            stopped = house.sent
            for _ in range(40):
                await anext(stream)
            assert house.sent > stopped
            await call(caller, "Health/Check", timeout=5)
        await house.until(lambda: house.open == 0)


async def test_client_that_reads_no_bytes_at_all_stops_the_sender() -> None:
    house = Endless()
    async with pair({"Dispatcher/Session": house.flood}) as (server, caller):
        stream = caller.server_stream("Dispatcher/Session", SESSION)
        await anext(stream)
        assert caller._line is not None
        link = caller._line.tunnel._link
        link.hold()
        before = -1
        async with asyncio.timeout(20):
            while house.sent != before:
                before = house.sent
                await asyncio.sleep(0.3)
        assert waiting(server) <= MIB + 5
        async with dialled(server, caller.credentials) as other:
            await call(other, "Health/Check", timeout=5)
        link.abort()
        await house.until(lambda: house.open == 0)
        await as_generator(stream).aclose()


async def test_error_ends_a_stream_after_its_messages() -> None:
    async def session(request: Any, peer: Peer) -> AsyncIterator[Any]:
        yield api.SessionMessage(session_id="1")
        raise Aborted("dispatcher is stopped")

    got: list[str] = []
    async with pair({"Dispatcher/Session": session}) as (_, caller):
        with pytest.raises(Aborted, match=r"^dispatcher is stopped$"):
            async for message in caller.server_stream("Dispatcher/Session", SESSION, timeout=5):
                got.append(message.session_id)
    assert got == ["1"]


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
@both
async def test_every_error_code_crosses_the_wire(code: Code, by: Any) -> None:
    async def fail(request: Any, peer: Peer) -> Any:
        error = SwarmError("größer\nthan 'life' 100%")
        error.code = code
        raise error

    async with pair({"Health/Check": fail}, by) as (_, caller):
        with pytest.raises(SwarmError) as got:
            await call(caller, "Health/Check", timeout=5)
    assert got.value.code == code
    assert got.value.message == "größer\nthan 'life' 100%"


async def test_unexpected_errors_are_logged_once_and_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(request: Any, peer: Peer) -> Any:
        raise KeyError("inner detail")

    async with pair({"Health/Check": fail}) as (_, caller):
        with pytest.raises(Internal, match=r"^internal error in Health/Check$"):
            await call(caller, "Health/Check", timeout=5)
    (record,) = [item for item in caplog.records if item.levelname == "ERROR"]
    assert record.exc_info is not None and "inner detail" in str(record.exc_info[1])


@both
async def test_something_cancelled_inside_a_handler_is_answered(by: Any) -> None:
    async def waits(request: Any, peer: Peer) -> Any:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with pair({"Health/Check": waits}, by) as (_, caller):
        with pytest.raises(SwarmError) as error:
            await asyncio.wait_for(call(caller, "Health/Check"), 5)
    assert error.value.code == Code.CANCELLED


@both
async def test_very_long_error_text_still_arrives(by: Any) -> None:
    async def fail(request: Any, peer: Peer) -> Any:
        raise NotFound("x" * 100_000)

    async with pair({"Health/Check": fail}, by) as (_, caller):
        with pytest.raises(NotFound) as got:
            await call(caller, "Health/Check", timeout=5)
    assert len(got.value.message) == 4096


async def test_broken_invariant_ends_the_server() -> None:
    async def fail(request: Any, peer: Peer) -> Any:
        raise InvariantViolation("two leaders in one term")

    root = Root()
    manager = root.issue("m1", "swarm-manager")
    server = Server(dummy_services([], {"Health/Check": fail}), lambda: manager, Cluster(), None)
    ready = asyncio.Event()
    task = asyncio.create_task(server.run(ready, ["127.0.0.1:0"]))
    await ready.wait()
    async with dialled(server, manager) as caller:
        with pytest.raises(SwarmError):
            await call(caller, "Health/Check", timeout=5)
        await asyncio.wait({task}, timeout=5)
    assert task.done()
    error = task.exception()
    assert isinstance(error, InvariantViolation)


async def test_shutdown_ends_endless_streams_at_once() -> None:
    house = Endless()
    root = Root()
    manager = root.issue("m1", "swarm-manager")
    services = dummy_services([], {"Dispatcher/Session": house.session})
    server = Server(services, lambda: manager, Cluster(), None)
    ready = asyncio.Event()
    async with Tasks() as tasks:
        running = tasks.spawn(server.run(ready, ["127.0.0.1:0"], grace=60.0), "server")
        await ready.wait()
        callers = [await dial(f"127.0.0.1:{server.port}", manager) for _ in range(4)]
        streams = [
            caller.server_stream("Dispatcher/Session", SESSION)
            for caller in callers
            for _ in range(25)
        ]
        for stream in streams:
            await anext(stream)
        assert house.open == 100
        running.cancel()
        await asyncio.wait({running}, timeout=20)  # a third of the grace, however busy all are
        assert running.cancelled()
        assert house.open == 0 and len(server.registry) == 0
        for stream in streams:
            with pytest.raises(Unavailable):
                await anext(stream)
        with pytest.raises(Unavailable):
            await call(callers[0], "Health/Check", timeout=5)
        for caller in callers:
            await caller.close()


@both
async def test_shutdown_lets_short_calls_finish(by: Any) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, peer: Peer) -> Any:
        entered.set()
        await go.wait()
        return api.HealthCheckResponse()

    root = Root()
    manager = root.issue("m1", "swarm-manager")
    server = Server(dummy_services([], {"Health/Check": slow}), lambda: manager, Cluster(), None)
    ready = asyncio.Event()
    async with Tasks() as tasks:
        running = tasks.spawn(server.run(ready, ["127.0.0.1:0"], grace=5.0), "server")
        await ready.wait()
        async with dialled(server, manager, by) as caller:
            answer = asyncio.create_task(call(caller, "Health/Check", timeout=5))
            await entered.wait()
            running.cancel()
            await asyncio.sleep(0.1)
            go.set()
            assert await answer == api.HealthCheckResponse()
            await asyncio.wait({running}, timeout=3)
            assert running.done()


async def test_streams_are_ended_by_choice() -> None:
    house = Endless()
    root = Root()
    services = dummy_services([], {"Dispatcher/Session": house.session})
    async with (
        serving(services, root.issue("m1", "swarm-manager")) as server,
        dialled(server, root.issue("w1")) as one,
        dialled(server, root.issue("w2")) as two,
    ):
        first = one.server_stream("Dispatcher/Session", SESSION)
        second = two.server_stream("Dispatcher/Session", SESSION)
        await anext(first)
        await anext(second)
        ended = server.end_streams(
            lambda method, peer: peer.node_id == "w1", Aborted("dispatcher is stopped")
        )
        assert ended == 1
        with pytest.raises(Aborted, match=r"^dispatcher is stopped$"):
            await anext(first)
        assert house.ended == ["w1"] and house.open == 1
        await one.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        await second.aclose()


@both
async def test_a_caller_connects_again_after_its_manager_came_back(by: Any) -> None:
    root = Root()
    manager = root.issue("m1", "swarm-manager")
    seen: list[Seen] = []
    async with serving(dummy_services(seen), manager) as server:
        port = server.port
        caller = await by(f"127.0.0.1:{port}", root.issue("w1"))
        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        assert caller.connected
    with pytest.raises(Unavailable, match="connection error"):
        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
    assert not caller.connected
    async with serving(dummy_services(seen), manager, listen=f"127.0.0.1:{port}"):
        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        assert caller.connected
        await asyncio.gather(
            *(caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5) for _ in range(50))
        )
        await caller.close()
        await caller.close()
    assert len(seen) == 52


class Gate:
    """A Heartbeat handler that answers when it may."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.open = asyncio.Event()

    async def heartbeat(self, request: Any, peer: Peer) -> Any:
        self.asked.set()
        await self.open.wait()
        return api.HeartbeatResponse()


@both
async def test_a_retired_connection_ends_with_its_last_call(by: Any) -> None:
    gate, house = Gate(), Endless()
    handlers = {"Dispatcher/Heartbeat": gate.heartbeat, "Dispatcher/Session": house.session}
    async with pair(handlers, by) as (_, caller), asyncio.timeout(20):
        stream = caller.server_stream("Dispatcher/Session", SESSION)
        await anext(stream)
        async with Tasks() as tasks:
            answer = tasks.spawn(caller.unary("Dispatcher/Heartbeat", HEARTBEAT), "beat")
            await gate.asked.wait()
            await caller.retire()
            gate.open.set()
            assert await answer == api.HeartbeatResponse()
        assert caller.connected and house.open == 1, "the stream goes on"
        await as_generator(stream).aclose()
        assert not caller.connected
        with pytest.raises(Disconnected):
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT)


@both
async def test_retiring_an_idle_connection_closes_it(by: Any) -> None:
    async with pair({}, by) as (_, caller):
        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        await caller.retire()
        assert not caller.connected


@both
async def test_a_call_closed_under_says_so(by: Any) -> None:
    gate = Gate()
    async with (
        pair({"Dispatcher/Heartbeat": gate.heartbeat}, by) as (_, caller),
        asyncio.timeout(20),
    ):

        async def refused() -> SwarmError:
            with pytest.raises(ClosedHere) as caught:
                await caller.unary("Dispatcher/Heartbeat", HEARTBEAT)
            return caught.value

        async with Tasks() as tasks:
            ended = tasks.spawn(refused(), "beat")
            await gate.asked.wait()
            await caller.close()
            error = await ended
    assert (error.code, error.message) == (1, "grpc: the client connection is closing")
