"""A manager that says goodbye (GOAWAY): its streams may finish, new calls connect anew.

Stock managers do this on demotion and on shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc

from swarmd import api
from swarmd.base.errors import Unavailable
from swarmd.rpc.streams import as_generator
from tests.wire.rpc_kit import (
    HEARTBEAT,
    Root,
    both,
    dialled,
    dummy_services,
    link_of,
    serving,
    tls_door,
    until,
)
from tests.wire.test_front_streams import SESSION, Endless


class Backend:
    """A bare gRPC server: heartbeats are counted, sessions end when told."""

    def __init__(self) -> None:
        self.beats = 0
        self.finish = asyncio.Event()
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def service(self, details: Any) -> Any:
        async def beat(raw: bytes, context: Any) -> bytes:
            self.beats += 1
            return b""

        async def session(raw: bytes, context: Any) -> AsyncIterator[bytes]:
            yield api.SessionMessage(session_id="1").SerializeToString()
            await self.finish.wait()
            yield api.SessionMessage(session_id="2").SerializeToString()

        if details.method.endswith("Session"):
            return grpc.unary_stream_rpc_method_handler(session)
        return grpc.unary_unary_rpc_method_handler(beat)


@both
async def test_new_calls_leave_a_manager_that_said_goodbye_and_old_streams_finish(by: Any) -> None:
    root = Root()
    first, second = Backend(), Backend()
    await first.server.start()
    await second.server.start()
    inner = [first.port]
    async with tls_door(root.issue("m1", "swarm-manager"), inner, alpn=True) as port:
        caller = await by(f"127.0.0.1:{port}", root.issue("w1"))
        stream = as_generator(caller.server_stream("Dispatcher/Session", SESSION))
        assert (await anext(stream)).session_id == "1"
        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        stopping = asyncio.create_task(first.server.stop(20))
        inner[0] = second.port
        await until(lambda: not caller.connected)
        for _ in range(3):
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        assert (first.beats, second.beats) == (1, 3)
        first.finish.set()
        assert [message.session_id async for message in stream] == ["2"]
        await stopping
        await caller.close()
        await second.server.stop(0)


@both
async def test_connections_leave_nothing_behind(by: Any) -> None:
    """Good, refused and broken connections alike: no descriptors, no entries."""
    root, foreign = Root(), Root()
    house = Endless()
    services = dummy_services([], {"Dispatcher/Session": house.session})

    async def one(number: int) -> None:
        async with dialled(server, root.issue(f"w{number}"), by) as caller:
            stream = caller.server_stream("Dispatcher/Session", SESSION)
            await anext(stream)
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
            if number % 2:
                link_of(caller).abort()
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        writer.close()
        with contextlib.suppress(Unavailable):
            stranger = foreign.issue("w1", roots=root.pem)
            async with dialled(server, stranger, by) as caller:
                await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)

    async with serving(services, root.issue("m1", "swarm-manager")) as server:
        counts = []
        for _ in range(4):
            await asyncio.gather(*(one(number) for number in range(10)))
            await until(lambda: not len(server.registry) and not house.open)
            gc.collect()
            await asyncio.sleep(0.1)
            counts.append(len(os.listdir("/proc/self/fd")))
        assert not len(server.registry) and not len(server.calls) and not house.open
    assert counts[-1] <= counts[0] + 3, counts
