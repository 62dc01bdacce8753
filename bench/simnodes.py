"""Simulated workers for any manager that speaks SwarmKit: real join, session and heartbeats.

    python -m bench.simnodes --manager 10.0.0.1:2377 --token-file FILE -n 500

Each one downloads the root (checked against the token), makes its own P-256 key, gets its
certificate, then holds one mutually authenticated connection with Session, Heartbeat and
Assignments. It runs no container. One JSON line per second on standard output tells how many
are joined and live; the program ends when its standard input closes or after --seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import ssl
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swarmd import api

ISSUED = (api.IssuanceStatus.State.ISSUED, api.IssuanceStatus.State.ROTATE)


@dataclass(slots=True)
class Counts:
    """What the fleet reached so far. `begun`, `last_session`: wall seconds; `cpu`: its own."""

    joined: int = 0
    live: int = 0
    heartbeats: int = 0
    errors: int = 0
    losses: int = 0
    begun: float = field(default_factory=time.time)
    last_session: float = 0.0
    cpu: float = 0.0
    join_seconds: list[float] = field(default_factory=list)
    last_error: str = ""


def digest_of(token: str) -> bytes:
    """SHA-256 of the root bundle, as carried in a join token."""
    return int(token.split("-")[-2], 36).to_bytes(32, "big")


def open_channel(addr: str, root: bytes, name: str, pair: tuple[bytes, bytes] | None = None) -> Any:
    """A channel of its own connection; `name` is the name the server must have."""
    key, cert = pair or (None, None)
    options = [
        ("grpc.ssl_target_name_override", name),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_retries", 0),
    ]
    credentials = grpc.ssl_channel_credentials(root, key, cert)
    return grpc.aio.secure_channel(addr, credentials, options=options)


def method(channel: Any, path: str, request: Any, response: Any, stream: bool = False) -> Any:
    """A callable for one SwarmKit method; `path` is "CA/GetRootCACertificate"."""
    make = channel.unary_stream if stream else channel.unary_unary
    return make(
        f"/docker.swarmkit.v1.{path}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


async def leaf_of(addr: str) -> bytes:
    """The server's own certificate, unverified; trust comes from the token's digest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = addr.rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(der).encode()


class Worker:
    """One simulated node. `leaf`: the manager's own certificate, as `leaf_of` gives it.

    The leaf is fetched once for the whole fleet: a real node skips verification for its first
    call and so needs no handshake for that.
    """

    def __init__(self, number: int, addr: str, token: str, leaf: bytes, counts: Counts) -> None:
        self.number, self.addr, self.token, self.counts = number, addr, token, counts
        self.leaf = leaf
        self.root = b""
        self.pair = (b"", b"")
        self.first = asyncio.Event()

    async def join(self) -> None:
        """From token to certificate."""
        async with open_channel(self.addr, self.leaf, "swarm-manager") as channel:
            get = method(
                channel,
                "CA/GetRootCACertificate",
                api.GetRootCACertificateRequest,
                api.GetRootCACertificateResponse,
            )
            self.root = (await get(api.GetRootCACertificateRequest(), timeout=20)).certificate
        if hashlib.sha256(self.root).digest() != digest_of(self.token):
            raise ValueError("the root does not match the token")
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr_pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        async with open_channel(self.addr, self.root, "swarm-ca") as channel:
            cert = await self.certificate(channel, csr_pem)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.pair = (pem, cert)
        self.counts.joined += 1

    async def certificate(self, channel: Any, csr: bytes) -> bytes:
        """Ask for a certificate and wait until it is issued."""
        issue = method(
            channel,
            "NodeCA/IssueNodeCertificate",
            api.IssueNodeCertificateRequest,
            api.IssueNodeCertificateResponse,
        )
        status = method(
            channel,
            "NodeCA/NodeCertificateStatus",
            api.NodeCertificateStatusRequest,
            api.NodeCertificateStatusResponse,
        )
        request = api.IssueNodeCertificateRequest(csr=csr, token=self.token)
        node = (await issue(request, timeout=30)).node_id
        while True:
            reply = await status(api.NodeCertificateStatusRequest(node_id=node), timeout=30)
            if reply.status.state in ISSUED and reply.certificate.csr == csr:
                return bytes(reply.certificate.certificate)
            await asyncio.sleep(0.2)

    async def live(self) -> None:
        """One session until it breaks."""
        async with open_channel(self.addr, self.root, "swarm-manager", self.pair) as channel:
            session = method(
                channel, "Dispatcher/Session", api.SessionRequest, api.SessionMessage, True
            )
            stream = session(api.SessionRequest(description=self.description()))
            message = await asyncio.wait_for(stream.read(), 30)
            if message is grpc.aio.EOF:
                raise ConnectionError("session closed")
            self.counts.live += 1
            self.counts.last_session = time.time()
            self.first.set()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.drain(stream))
                    group.create_task(self.beat(channel, message.session_id))
                    group.create_task(self.assignments(channel, message.session_id))
            finally:
                self.counts.live -= 1
                self.counts.losses += 1

    def description(self) -> api.NodeDescription:
        """What a stock 20.10 worker with 64 cores would say of itself."""
        plugins = [("Log", "json-file"), ("Network", "bridge"), ("Network", "overlay")]
        return api.NodeDescription(
            hostname=f"sim{self.number:05d}",
            platform=api.Platform(architecture="x86_64", os="linux"),
            resources=api.Resources(nano_cpus=64 * 10**9, memory_bytes=256 << 30),
            engine=api.EngineDescription(
                engine_version="20.10.24",
                plugins=[api.PluginDescription(type=t, name=n) for t, n in plugins],
            ),
        )

    async def drain(self, stream: Any) -> None:
        """Read session messages; their end is the session's end."""
        while await stream.read() is not grpc.aio.EOF:
            pass
        raise ConnectionError("session closed")

    async def beat(self, channel: Any, session: str) -> None:
        """Heartbeat at the period the manager asks for."""
        call = method(channel, "Dispatcher/Heartbeat", api.HeartbeatRequest, api.HeartbeatResponse)
        while True:
            reply = await call(api.HeartbeatRequest(session_id=session), timeout=10)
            self.counts.heartbeats += 1
            await asyncio.sleep(max(0.5, reply.period.seconds + reply.period.nanos / 1e9))

    async def assignments(self, channel: Any, session: str) -> None:
        """Hold the assignments stream open."""
        call = method(
            channel, "Dispatcher/Assignments", api.AssignmentsRequest, api.AssignmentsMessage, True
        )
        stream = call(api.AssignmentsRequest(session_id=session))
        while await stream.read() is not grpc.aio.EOF:
            pass
        raise ConnectionError("assignments closed")

    async def run(self, gate: asyncio.Semaphore) -> None:
        """Join, then keep a session for ever."""
        async with gate:
            begun = time.perf_counter()
            await self.attempt(self.join)
            task = asyncio.get_running_loop().create_task(self.serve())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.first.wait(), 30)
                self.counts.join_seconds.append(time.perf_counter() - begun)
        await task

    async def serve(self) -> None:
        """Sessions one after the other."""
        while True:
            await self.attempt(self.live)

    async def attempt(self, step: Any) -> None:
        """Run `step` until it returns, with pauses between failures."""
        while True:
            try:
                await step()
                return
            except (
                grpc.aio.AioRpcError,
                OSError,
                ValueError,
                TimeoutError,
                ExceptionGroup,
            ) as error:
                self.counts.errors += 1
                self.counts.last_error = repr(error)[:300]
                await asyncio.sleep(random.uniform(0.1, 2.0))


def options() -> tuple[argparse.Namespace, str]:
    """The command line and the token it names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manager", required=True)
    parser.add_argument("--token-file", required=True)
    parser.add_argument("-n", type=int, default=10)
    parser.add_argument("--ramp", type=int, default=16, help="joins under way at once")
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    return given, Path(given.token_file).read_text().strip()


async def main(given: argparse.Namespace, token: str) -> None:
    """Run the fleet until standard input closes or the time is over."""
    counts = Counts()
    gate = asyncio.Semaphore(given.ramp)
    loop = asyncio.get_running_loop()
    leaf = await leaf_of(given.manager)
    workers = [Worker(i, given.manager, token, leaf, counts) for i in range(given.n)]
    tasks = [loop.create_task(worker.run(gate)) for worker in workers]
    closed = loop.run_in_executor(None, sys.stdin.read)
    end = time.monotonic() + given.seconds
    while time.monotonic() < end and not closed.done():
        counts.cpu = time.process_time()
        row = {name: getattr(counts, name) for name in Counts.__slots__ if name != "join_seconds"}
        times = sorted(counts.join_seconds)
        row["join_median"] = times[len(times) // 2] if times else None
        print(json.dumps(row), flush=True)
        await asyncio.wait({closed}, timeout=0.25)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(*options()))
