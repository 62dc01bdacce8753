"""A manager that serves one address, then all of them, or the other way round: on both loops."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from swarmd.base.errors import Unavailable
from swarmd.rpc import ports
from swarmd.rpc.client import dial
from swarmd.rpc.peer import Caller
from swarmd.rpc.server import Server
from swarmd.rpc.tls import Credentials
from tests.wire.rpc_kit import HEARTBEAT, Root, dialled, dummy_services, serving

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs the work of a test on one of the event loops."""

    def on_loop(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return on_loop


@asynccontextmanager
async def manager(listen: str) -> AsyncIterator[tuple[Server, Credentials]]:
    """A server, and what a worker shows it."""
    root = Root()
    credentials = root.issue("m1", "swarm-manager")
    async with serving(dummy_services([]), credentials, listen=listen) as server:
        yield server, root.issue("w1")


async def answers(caller: Caller) -> None:
    await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)


async def answers_at(addr: str, worker: Credentials) -> None:
    caller = await dial(addr, worker)
    try:
        await answers(caller)
    finally:
        await caller.close()


async def demand_silent(addr: str, worker: Credentials) -> None:
    text = f"transport: Error while dialing dial tcp {addr}: connect: connection refused"
    with pytest.raises(Unavailable, match=re.escape(text)):
        await dial(addr, worker)


def demand_closed_to_others(addr: str) -> None:
    """Nobody can have a part of a port of ours, not even who is willing to share it."""
    host, port = addr.rsplit(":", 1)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))
            other.listen()


def test_one_address_then_all_and_back(run: Run) -> None:
    async def work() -> None:
        async with manager("127.0.0.1:0") as (server, worker):
            first, other = f"127.0.0.1:{server.port}", f"127.0.0.5:{server.port}"
            everywhere = f"0.0.0.0:{server.port}"
            async with dialled(server, worker) as before:
                await answers(before)
                await demand_silent(other, worker)
                for _ in range(2):
                    assert await server.listen_also(everywhere)
                    assert not await server.listen_also(everywhere), "open already"
                    assert not await server.listen_also(first), "by the wildcard"
                    assert server.addresses == [everywhere]
                    await answers_at(first, worker)
                    by_wildcard = await dial(other, worker)
                    await answers(by_wildcard)
                    demand_closed_to_others(everywhere)
                    demand_closed_to_others(first)
                    await server.stop_listening(everywhere)
                    assert server.addresses == [first]
                    await demand_silent(other, worker)
                    await answers(by_wildcard)
                    await by_wildcard.close()
                    await answers_at(first, worker)
                await answers(before)

    run(work())


def test_all_addresses_then_one(run: Run) -> None:
    async def work() -> None:
        async with manager("0.0.0.0:0") as (server, worker):
            one = f"127.0.0.1:{server.port}"
            assert not await server.listen_also(one), "it is one of all"
            await answers_at(one, worker)
            assert server.addresses == [f"0.0.0.0:{server.port}"]

    run(work())


def test_ipv6_has_its_own_wildcard(run: Run) -> None:
    async def work() -> None:
        async with manager("[::1]:0") as (server, worker):
            first = f"[::1]:{server.port}"
            assert await server.listen_also(f"[::]:{server.port}")
            assert await server.listen_also(f"127.0.0.1:{server.port}")
            assert await server.listen_also(f"0.0.0.0:{server.port}")
            for addr in (first, f"127.0.0.1:{server.port}", f"127.0.0.5:{server.port}"):
                await answers_at(addr, worker)

    run(work())


def test_a_stranger_on_the_port_is_not_shared_with(run: Run) -> None:
    async def work() -> None:
        async with manager("127.0.0.1:0") as (server, worker):
            first = f"127.0.0.1:{server.port}"
            with socket.create_server(("127.0.0.9", server.port)) as stranger:
                async with dialled(server, worker) as before:
                    with pytest.raises(OSError, match="in use") as refused:
                        await server.listen_also(f"0.0.0.0:{server.port}")
                    assert refused.value.errno == errno.EADDRINUSE
                    await answers(before)
                assert server.addresses == [first]
                await answers_at(first, worker)
                demand_closed_to_others(first)
                await demand_silent(f"127.0.0.5:{server.port}", worker)
                assert stranger.fileno() >= 0
            assert await server.listen_also(f"0.0.0.0:{server.port}"), "the stranger has gone"
            await answers_at(f"127.0.0.9:{server.port}", worker)

    run(work())


def test_a_wildcard_stays_if_what_it_replaced_cannot_be_had(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> socket.socket:
        raise OSError(errno.EADDRNOTAVAIL, f"{name} is gone")

    async def work() -> None:
        async with manager("127.0.0.1:0") as (server, worker):
            everywhere = f"0.0.0.0:{server.port}"
            assert await server.listen_also(everywhere)
            monkeypatch.setattr(ports, "_listening", gone)
            await server.stop_listening(everywhere)
            assert server.addresses == [everywhere]
            await answers_at(f"127.0.0.1:{server.port}", worker)
            await answers_at(f"127.0.0.5:{server.port}", worker)

    run(work())
