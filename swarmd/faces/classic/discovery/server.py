"""The discovery service as a long-lived part: listen, serve, sweep."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web

from swarmd.base.aio import Lane, Tasks
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.faces.classic.discovery.door import Door, DoorLimits, Visit
from swarmd.faces.classic.discovery.entries import split_host_port
from swarmd.faces.classic.discovery.registry import Limits, Registry
from swarmd.faces.classic.discovery.service import DiscoveryService, body_bytes_max
from swarmd.faces.http.tls import TLSLayer

SWEEP_SECONDS = 600.0
SHUTDOWN_SECONDS = 1.0
# Longer than the heartbeat clients have unless told, so that they keep their connection.
KEEPALIVE_SECONDS = 75.0
# How long the rest of a body nobody wants may still come.
LINGER_SECONDS = 1.0
backlog_max = 512
line_bytes_max = 2048
field_bytes_max = 4096


@dataclass(frozen=True, slots=True)
class DiscoveryListen:
    """Where the service listens; without a certificate only on loopback, unless allowed."""

    host: str
    port: int
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False


def parse_listen(
    text: str, cert_file: str = "", key_file: str = "", *, insecure: bool = False
) -> DiscoveryListen:
    """Read ADDR:PORT and weigh its safety. Raises `InvalidArgument`."""
    host, port = split_host_port(text)
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise InvalidArgument(f"{text}: want ADDR:PORT")
    if bool(cert_file) != bool(key_file):
        raise InvalidArgument("the discovery service's certificate and key go together")
    if not cert_file and not insecure and not is_loopback(host):
        raise InvalidArgument(
            f"{text}: outside loopback the discovery service needs a certificate and key: "
            "whoever overhears a token can list and join its cluster"
        )
    return DiscoveryListen(host, int(port), cert_file, key_file, insecure)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DiscoveryServer:
    """Serves one registry until cancelled."""

    def __init__(
        self,
        listen: DiscoveryListen,
        path: Path,
        clock: Clock,
        entropy: Entropy,
        limits: Limits | None = None,
        door: DoorLimits | None = None,
    ) -> None:
        self._listen = listen
        self.door = Door(door)
        self._registry = Registry(path, entropy, limits)
        self._clock = clock
        self.port = 0  # the one in use, once serving

    async def run(self, ready: asyncio.Event) -> None:
        """Open the file, listen, set `ready`, serve. Raises `SwarmError` or `OSError`."""
        async with self._opened() as lane, Tasks() as tasks:
            limits = self.door.limits
            service = DiscoveryService(self._registry, lane, self._clock, limits.body_seconds_max)
            server = _WebServer(service)
            context = _context(self._listen)
            listener = await asyncio.get_running_loop().create_server(
                self.door.guarded(lambda visit: server.connection(visit, context)),
                self._listen.host or None,
                self._listen.port,
                backlog=backlog_max,
            )
            try:
                self.port = listener.sockets[0].getsockname()[1]
                tasks.spawn(self._sweep(lane), "discovery-sweep")
                ready.set()
                await asyncio.Event().wait()
            finally:
                listener.close()
                await server.shutdown(SHUTDOWN_SECONDS)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Lane]:
        lane = Lane("discovery")
        try:
            await lane.run(self._registry.open)
            yield lane
        finally:
            # Behind whatever is still queued, in the lane's own thread.
            await lane.run(self._registry.close)
            lane.close()

    async def _sweep(self, lane: Lane) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await lane.run(lambda: self._registry.sweep(self._clock.now()))


class _Connection(web.RequestHandler):
    """aiohttp's connection, which knows whose visit it serves."""

    __slots__ = ("visit",)

    visit: Visit


class _WebServer(web.Server):
    """aiohttp's low-level server behind a `Door`."""

    def __init__(self, service: DiscoveryService) -> None:
        super().__init__(
            self._answer,
            request_factory=_make_request,
            access_log=None,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=line_bytes_max,
            max_field_size=field_bytes_max,
        )
        self._service = service

    def connection(self, visit: Visit, context: ssl.SSLContext | None) -> asyncio.Protocol:
        """What serves `visit`, with TLS in front when there is a context."""
        made = _Connection(self, loop=self._loop, **self._kwargs)
        made.visit = visit
        return made if context is None else TLSLayer(context, made)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, _Connection):
            request.protocol.visit.heard()
        return await self._service.handle(request)


def _context(listen: DiscoveryListen) -> ssl.SSLContext | None:
    if not listen.cert_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(listen.cert_file, listen.key_file)
    except OSError as error:  # ssl.SSLError is one too; OpenSSL does not say which file
        raise SwarmError(
            f"discovery: {listen.cert_file} with {listen.key_file}: {error.strerror or error}"
        ) from error
    return context


def _make_request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: Any
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=body_bytes_max
    )
