"""The production event loop: a round through everything the pump does, on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest
import uvloop

from swarmd import api
from swarmd.base.errors import ResourceExhausted, Unavailable
from swarmd.rpc.front import Limits
from swarmd.rpc.tls import Credentials
from tests.wire.rpc_kit import HEARTBEAT, Root, Seen, call, dialled, dummy_services, serving
from tests.wire.test_front_streams import MIB, SESSION, Endless, waiting


def on_uvloop(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


async def everything() -> None:
    root, foreign, new = Root(), Root(), Root()
    house = Endless()
    seen: list[Seen] = []
    data = b"x" * (16 << 20)

    async def certificate(request: Any, peer: Any) -> Any:
        return api.GetRootCACertificateResponse(certificate=data)

    services = dummy_services(
        seen, {"Dispatcher/Session": house.session, "CA/GetRootCACertificate": certificate}
    )
    current = [root.issue("m1", "swarm-manager")]
    limits = Limits(handshake_seconds=0.3)
    async with serving(services, lambda: current[0], limits=limits) as server:
        async with dialled(server, Credentials(None)) as nobody:
            with pytest.raises(ResourceExhausted):
                await call(nobody, "CA/GetRootCACertificate")
        async with dialled(server, Credentials(root.pem)) as nobody:
            assert (await call(nobody, "CA/GetRootCACertificate")).certificate == data
        async with dialled(server, root.issue("w1")) as caller:
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
            async with aclosing(caller.server_stream("Dispatcher/Session", SESSION)) as stream:
                await anext(stream)
            await house.until(lambda: house.open == 0)
            await call(caller, "LogBroker/PublishLogs", timeout=5)
            big = api.UpdateTaskStatusRequest(session_id="x" * (9 << 20))
            with pytest.raises(ResourceExhausted):
                await caller.unary("Dispatcher/UpdateTaskStatus", big, timeout=5)
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        with pytest.raises(Unavailable):
            async with dialled(server, foreign.issue(roots=root.pem)) as stranger:
                await stranger.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await asyncio.wait_for(reader.read(), 5) == b"", "silent clients are cut off"
        writer.close()
        renewed = new.issue("m1", "swarm-manager", chain=root.cross(new), roots=root.pem)
        current[0] = renewed
        async with dialled(server, root.issue("w2")) as caller:
            stream = caller.server_stream("Dispatcher/Session", SESSION)
            await anext(stream)
    assert house.open == 0
    assert {item.peer.node_id for item in seen} == {"w1"}


def test_the_whole_path_on_uvloop() -> None:
    on_uvloop(everything())


def test_slow_reader_stops_the_sender_on_uvloop() -> None:
    async def work() -> None:
        house = Endless()
        root = Root()
        services = dummy_services([], {"Dispatcher/Session": house.flood})
        async with (
            serving(services, root.issue("m1", "swarm-manager")) as server,
            dialled(server, root.issue("w1")) as caller,
        ):
            async with aclosing(caller.server_stream("Dispatcher/Session", SESSION)) as stream:
                await anext(stream)
                caller._line.tunnel._link.hold()
                before = -1
                async with asyncio.timeout(20):
                    while house.sent != before:
                        before = house.sent
                        await asyncio.sleep(0.3)
                assert waiting(server) <= MIB + 5, "more than one message waits here"
                caller._line.tunnel._link.release()
                for _ in range(60):
                    await anext(stream)
            await house.until(lambda: house.open == 0)

    on_uvloop(work())
