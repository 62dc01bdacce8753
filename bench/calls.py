"""What one unary call, and one idle connection, cost the manager port: CPU and memory.

    python -m bench.calls [--rounds 12] [--calls 1500] [--pause MS] [--connections 200]
    python -m bench.calls --between-managers [--rounds 6] [--calls 1000]

The server runs in a process of its own with the real front, role check and metrics; its
handlers do next to nothing. Calls are heartbeats of a worker over established TLS, one in
flight at a time, over several connections in turn: as nodes make them. Its processor time is
read from the kernel. With a pause between them calls find the caches cold and a server that
sleeps, as in a fleet: they cost more then. An idle connection holds a worker's three streams.

Between managers the caller is what is measured: a Raft message with an entry of 300 bytes, one
after the other on one connection, by gRPC's client and by our own, round by round in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from bench.managers import cpu_seconds, rss_bytes
from swarmd import api
from swarmd.api import raftpb
from swarmd.base.errors import SwarmError
from swarmd.rpc.client import dial, dial_manager
from swarmd.rpc.peer import Caller, Peer
from swarmd.rpc.streams import as_generator
from swarmd.rpc.tls import Credentials
from swarmd.rpc.wirecaller import WireCaller

ROOT = Path(__file__).resolve().parents[1]
LANES = 8
"""Connections the calls take turns on."""
STREAMS = ("Dispatcher/Session", "Dispatcher/Assignments", "LogBroker/ListenSubscriptions")


def handlers() -> dict[str, Any]:
    """Handlers that cost nothing: a heartbeat's answer, and streams that say one thing."""
    answer = api.HeartbeatResponse()
    answer.period.seconds = 5

    async def heartbeat(request: Any, peer: Peer) -> Any:
        return answer

    async def session(request: Any, peer: Peer) -> AsyncIterator[Any]:
        yield api.SessionMessage(session_id="s")
        await asyncio.Event().wait()

    async def assignments(request: Any, peer: Peer) -> AsyncIterator[Any]:
        yield api.AssignmentsMessage(results_in="1")
        await asyncio.Event().wait()

    async def subscriptions(request: Any, peer: Peer) -> AsyncIterator[Any]:
        yield api.SubscriptionMessage(id="1")
        await asyncio.Event().wait()

    made = (session, assignments, subscriptions)
    return {"Dispatcher/Heartbeat": heartbeat, **dict(zip(STREAMS, made, strict=True))}


async def serve() -> None:
    """The server's process: prints port and credentials, ends with its standard input."""
    from tests.wire.rpc_kit import Root, dummy_services, serving

    root = Root()
    services = dummy_services([], handlers())
    async with serving(services, root.issue("m1", "swarm-manager")) as server:
        peers = (root.issue("w1"), root.issue("m2", "swarm-manager"))
        parts = [part for peer in peers for part in (peer.roots_pem, peer.cert_pem, peer.key_pem)]
        told = [server.port, *((part or b"").decode() for part in parts)]
        print(json.dumps(told), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def cost_of_calls(
    pid: int, callers: list[WireCaller], given: argparse.Namespace, timeout: float | None
) -> float:
    """CPU microseconds of the server per call."""
    request = api.HeartbeatRequest(session_id="a-session-id-of-25-letters")
    before, calls = cpu_seconds(pid), int(given.calls)
    for number in range(calls):
        caller = callers[number % len(callers)]
        await caller.unary("Dispatcher/Heartbeat", request, timeout=timeout)
        if given.pause:
            await asyncio.sleep(given.pause / 1000)
    return (cpu_seconds(pid) - before) / calls * 1e6


async def cost_of_idling(pid: int, address: str, worker: Credentials, connections: int) -> float:
    """Resident kB per connection that holds a worker's three streams and beat four times."""
    requests = (
        api.SessionRequest(), api.AssignmentsRequest(), api.ListenSubscriptionsRequest(),
    )  # fmt: skip
    before = rss_bytes(pid)
    callers, streams = [], []
    for _ in range(connections):
        caller = await dial(address, worker)
        callers.append(caller)
        for name, request in zip(STREAMS, requests, strict=True):
            stream = as_generator(caller.server_stream(name, request))
            await anext(stream)
            streams.append(stream)
        for _ in range(4):
            await caller.unary("Dispatcher/Heartbeat", api.HeartbeatRequest(), timeout=5)
    after = rss_bytes(pid)
    for caller in callers:
        await caller.close()
    for stream in streams:
        with contextlib.suppress(SwarmError):
            await stream.aclose()
    return (after - before) / connections / 1000


async def between_managers(pid: int, address: str, manager: Credentials, given: Any) -> None:
    """What a Raft message costs its sender and its receiver, and how long it takes."""
    message = raftpb.Message(type=raftpb.MsgApp, to=2, term=4, index=7, commit=7)
    message.entries.add(Term=4, Index=8, Data=bytes(300))
    ways: dict[str, Caller] = {
        "grpcio": await dial(address, manager),
        "our own": await dial_manager(address, manager),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(given.rounds + 1):
        for name, caller in ways.items():
            loop = asyncio.get_running_loop()
            before = (time.process_time(), cpu_seconds(pid), loop.time())
            for _ in range(given.calls):
                request = api.ProcessRaftMessageRequest(message=message)
                await caller.unary("Raft/ProcessRaftMessage", request, timeout=2.0)
            after = (time.process_time(), cpu_seconds(pid), loop.time())
            used = [(b - a) / given.calls * 1e6 for a, b in zip(before, after, strict=True)]
            if number:  # the first round warms up
                found[name].append((used[0], used[1], used[2]))
    for name, caller in ways.items():
        await caller.close()
        for at, what in enumerate(("us CPU of the sender", "us CPU of the receiver", "us in all")):
            spread(f"Raft message by {name}", what, [values[at] for values in found[name]])


def spread(name: str, unit: str, values: list[float]) -> None:
    """One line: median, smallest, largest, n."""
    middle = statistics.median(values)
    print(f"{name}: {middle:.1f} {unit} ({min(values):.1f} .. {max(values):.1f}, n={len(values)})")


def started() -> subprocess.Popen[bytes]:
    """The server's process."""
    command = [sys.executable, "-m", "bench.calls", "--serve"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment
    )


async def measure(given: argparse.Namespace) -> None:
    """Run the rounds and print the figures."""
    server = started()
    assert server.stdin is not None and server.stdout is not None
    try:
        port, *parts = json.loads(server.stdout.readline())
        worker = Credentials(*(part.encode() for part in parts[:3]))
        address = f"127.0.0.1:{port}"
        if given.between_managers:
            manager = Credentials(*(part.encode() for part in parts[3:]))
            await between_managers(server.pid, address, manager, given)
            return
        callers = [await dial(address, worker) for _ in range(LANES)]
        await cost_of_calls(server.pid, callers, given, 5.0)
        with_limit, without = [], []
        for _ in range(given.rounds):
            with_limit.append(await cost_of_calls(server.pid, callers, given, 5.0))
            without.append(await cost_of_calls(server.pid, callers, given, None))
        for caller in callers:
            await caller.close()
        spread("heartbeat with a deadline", "us CPU", with_limit)
        spread("heartbeat without", "us CPU", without)
        if given.connections:
            idle = await cost_of_idling(server.pid, address, worker, given.connections)
            print(f"idle connection with three streams: {idle:.1f} kB (n={given.connections})")
    finally:
        server.stdin.close()
        server.wait(30)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--pause", type=float, default=0.0, help="ms between calls")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--between-managers", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    work = serve() if given.serve else measure(given)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


if __name__ == "__main__":
    main()
