"""Calls of a manager to itself: bypass, roles, timeouts, errors, streams; and ended calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from swarmd import api
from swarmd.base.clock import ManualClock
from swarmd.base.errors import (
    Aborted,
    Code,
    DeadlineExceeded,
    Internal,
    InvariantViolation,
    NotFound,
    PermissionDenied,
    SwarmError,
    Unimplemented,
)
from swarmd.rpc import methods
from swarmd.rpc.front import Limits, Refusals
from swarmd.rpc.inprocess import InProcess
from swarmd.rpc.peer import Caller, Peer
from swarmd.rpc.streams import ActiveCalls, as_generator
from tests.wire.rpc_kit import Seen, call, dummy_services

LOCAL = Peer("m1", "c", ("swarm-manager",), "192.0.2.1:2377", local=True)


def local(overrides: dict[str, Any] | None = None, seen: list[Seen] | None = None) -> Caller:
    return InProcess(dummy_services([] if seen is None else seen, overrides), LOCAL, None)


async def test_everything_the_control_socket_offers_is_open_to_the_node_itself() -> None:
    seen: list[Seen] = []
    caller = local(seen=seen)
    offered = [method for method in methods.table().values() if method.in_process]
    for method in offered:
        assert isinstance(await call(caller, method.short, timeout=5), method.response)
    assert [item.method for item in seen] == [method.short for method in offered]
    assert {item.peer for item in seen} == {LOCAL}
    await caller.close()


@pytest.mark.parametrize("short", ["Raft/ProcessRaftMessage", "RaftMembership/Join"])
async def test_raft_is_not_on_the_control_socket(short: str) -> None:
    with pytest.raises(Unimplemented):
        await call(local(), short)


@pytest.mark.parametrize("method", methods.table().values(), ids=lambda method: method.short)
async def test_other_peers_need_their_roles(method: methods.Method) -> None:
    services = dummy_services([])
    for peer in (
        Peer(),
        Peer("w", "c", ("swarm-worker",)),
        Peer("m", "c", ("swarm-manager",)),
    ):
        caller = InProcess(services, peer, None)
        if method.insecure or set(peer.roles) & set(method.roles):
            await call(caller, method.short)
        else:
            with pytest.raises(PermissionDenied, match="unauthorized peer role"):
                await call(caller, method.short)


@pytest.mark.parametrize("short", ["Health/Check", "Control/ListNodes", "Watch/Watch"])
async def test_deadline(short: str) -> None:
    left = asyncio.Event()

    async def slow(request: Any, peer: Peer) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def slow_stream(request: Any, peer: Peer) -> AsyncIterator[Any]:
        await slow(request, peer)
        yield

    handler = slow_stream if methods.find(short).server_streaming else slow
    with pytest.raises(DeadlineExceeded, match=r"^context deadline exceeded$"):
        await call(local({short: handler}), short, timeout=0.05)
    assert left.is_set()


async def test_a_cancelled_caller_ends_cancelled_whatever_its_deadline() -> None:
    waiting = asyncio.Event()

    async def slow(request: Any, peer: Peer) -> Any:
        waiting.set()
        await asyncio.Event().wait()

    asked = call(local({"Health/Check": slow}), "Health/Check", timeout=3600)
    task = asyncio.ensure_future(asked)
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_and_a_cancellation_at_once_are_a_cancellation() -> None:
    async def slow(request: Any, peer: Peer) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            task.cancel()

    task = asyncio.ensure_future(call(local({"Health/Check": slow}), "Health/Check", timeout=0.02))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_handler_that_answers_at_its_deadline_is_heard() -> None:
    async def stubborn(request: Any, peer: Peer) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return api.HealthCheckResponse(status=api.HealthCheckResponse.ServingStatus.SERVING)

    answer = await call(local({"Health/Check": stubborn}), "Health/Check", timeout=0.02)
    assert answer.status == api.HealthCheckResponse.ServingStatus.SERVING
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_errors_pass_and_surprises_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def known(request: Any, peer: Peer) -> Any:
        raise NotFound("node x not found")

    async def surprise(request: Any, peer: Peer) -> Any:
        raise KeyError("inner")

    async def own_timeout(request: Any, peer: Peer) -> Any:
        raise TimeoutError("of something else")

    async def bug(request: Any, peer: Peer) -> Any:
        raise InvariantViolation("two leaders")

    caller = local(
        {
            "Control/GetNode": known,
            "Control/GetTask": surprise,
            "Control/GetCluster": own_timeout,
            "Control/GetService": bug,
        }
    )
    with pytest.raises(NotFound, match=r"^node x not found$"):
        await call(caller, "Control/GetNode")
    with pytest.raises(InvariantViolation):
        await call(caller, "Control/GetService")
    assert not caplog.records
    for short in ("Control/GetTask", "Control/GetCluster"):
        with pytest.raises(Internal, match=f"^internal error in {short}$"):
            await call(caller, short, timeout=5)
    assert len(caplog.records) == 2


async def test_something_cancelled_inside_a_handler_is_not_our_cancellation() -> None:
    async def waits(request: Any, peer: Peer) -> Any:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(SwarmError) as error:
        await call(local({"Control/GetNode": waits}), "Control/GetNode")
    assert error.value.code == Code.CANCELLED


async def test_closing_a_stream_closes_the_handler() -> None:
    closed = asyncio.Event()

    async def watch(request: Any, peer: Peer) -> AsyncIterator[Any]:
        try:
            while True:
                yield api.WatchMessage()
        finally:
            closed.set()

    stream = local({"Watch/Watch": watch}).server_stream("Watch/Watch", api.WatchRequest())
    async with aclosing(as_generator(stream)) as messages:
        await anext(messages)
        await anext(messages)
        assert not closed.is_set()
    assert closed.is_set()


async def test_handlers_may_return_plain_iterators() -> None:
    class Three:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Three:
            return self

        async def __anext__(self) -> Any:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return api.WatchMessage()

    caller = local({"Watch/Watch": lambda request, peer: Three()})
    stream = caller.server_stream("Watch/Watch", api.WatchRequest())
    assert len([message async for message in stream]) == 3


async def test_client_stream_is_handed_over_message_by_message() -> None:
    got: list[str] = []

    async def publish(requests: AsyncIterator[Any], peer: Peer) -> Any:
        async for request in requests:
            got.append(request.subscription_id)
        return api.PublishLogsResponse()

    async def two() -> AsyncIterator[Any]:
        yield api.PublishLogsMessage(subscription_id="1")
        yield api.PublishLogsMessage(subscription_id="2")

    await local({"LogBroker/PublishLogs": publish}).client_stream("LogBroker/PublishLogs", two())
    assert got == ["1", "2"]


async def test_ending_a_call_turns_its_cancellation_into_the_error() -> None:
    calls = ActiveCalls()
    session = methods.find("Dispatcher/Session")
    cleaned = asyncio.Event()

    async def work() -> None:
        with calls.ending(session, Peer("w1")):
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.set()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert calls.end(lambda method, peer: peer.node_id == "w2", Aborted("no")) == 0
    assert calls.end(lambda method, peer: peer.node_id == "w1", Aborted("stopped")) == 1
    assert calls.end(lambda method, peer: True, Aborted("twice")) == 0
    with pytest.raises(Aborted, match=r"^stopped$"):
        await task
    assert cleaned.is_set() and len(calls) == 0
    assert task.cancelling() == 0


async def test_real_cancellation_stays_cancellation() -> None:
    calls = ActiveCalls()

    async def work() -> None:
        with calls.ending(methods.find("Dispatcher/Session"), Peer()):
            await asyncio.Event().wait()

    first, second = asyncio.create_task(work()), asyncio.create_task(work())
    await asyncio.sleep(0)
    first.cancel()
    calls.end(lambda method, peer: True, Aborted("stopped"))
    second.cancel()
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(calls) == 0


def test_refusals_are_capped_per_minute_and_say_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    refusals = Refusals(Limits(log_lines_max=3, log_seconds=60), clock)
    for number in range(10):
        refusals.note("tls", f"192.0.2.{number}:1", "bad")
    assert len(caplog.records) == 3
    assert caplog.records[0].getMessage() == "refused connection from 192.0.2.0:1: tls (bad)"
    clock.advance(61)
    refusals.note("tls", "192.0.2.77:1", "bad")
    assert [record.getMessage() for record in caplog.records[3:]] == [
        "7 more refusals were not logged",
        "refused connection from 192.0.2.77:1: tls (bad)",
    ]
