"""Where `swarm manage` listens: TCP, with TLS when given, and unix sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack

from swarmd.base.errors import InvalidArgument
from swarmd.faces.classic.api.app import ClassicAPI
from swarmd.faces.classic.api.call import body_bytes_max
from swarmd.faces.classic.discovery.entries import split_host_port
from swarmd.faces.classic.discovery.server import is_loopback
from swarmd.faces.http.server import RawServer
from swarmd.faces.http.tls import secured

log = logging.getLogger("classic")

backlog_max = 512


class ClassicServer:
    """Serves one `ClassicAPI` until cancelled."""

    def __init__(
        self, api: ClassicAPI, hosts: Sequence[str], context: ssl.SSLContext | None
    ) -> None:
        """`hosts` are [tcp://]ADDR:PORT or unix://PATH. Raises `InvalidArgument`."""
        self._api = api
        self._listens = [parse_host(host) for host in hosts]
        self._context = context
        self.ports: list[int] = []  # of the TCP listeners, once serving

    async def run(self, ready: asyncio.Event) -> None:
        """Listen, set `ready`, serve; raise what broke."""
        self._api.broken = asyncio.get_running_loop().create_future()
        web_server = RawServer(self._api.handle, body_bytes_max)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(web_server.shut_down)
            for kind, host, port in self._listens:
                if kind == "unix":
                    await _listen_unix(stack, web_server, host)
                else:
                    await self._listen_tcp(stack, web_server, host, port)
            ready.set()
            await self._api.broken

    async def _listen_tcp(
        self, stack: AsyncExitStack, web_server: RawServer, host: str, port: int
    ) -> None:
        if self._context is None and not is_loopback(host):
            log.warning(
                "listening on %s:%d without TLS: whoever reaches it is root on all nodes",
                *(host, port),
            )
        server = await asyncio.get_running_loop().create_server(
            secured(web_server, self._context), host or None, port, backlog=backlog_max
        )
        stack.callback(server.close)
        self.ports.append(server.sockets[0].getsockname()[1])
        log.info("Listening for HTTP: proto=tcp addr=%s:%d", host, self.ports[-1])


def parse_host(text: str) -> tuple[str, str, int]:
    """A -H value as (kind, host or path, port). Raises `InvalidArgument`."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "tcp", text
    if scheme == "unix" and rest:
        return "unix", rest, 0
    if scheme != "tcp":
        raise InvalidArgument(
            f"unsupported protocol in {text}: want tcp://ADDR:PORT or unix://PATH"
        )
    host, port = split_host_port(rest)
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise InvalidArgument(f"{text}: want ADDR:PORT")
    return "tcp", host, int(port)


async def _listen_unix(stack: AsyncExitStack, web_server: RawServer, path: str) -> None:
    before = os.umask(0o177)  # root on all nodes: for the owner only
    try:
        server = await asyncio.get_running_loop().create_unix_server(
            web_server, path, backlog=backlog_max
        )
    finally:
        os.umask(before)
    stack.callback(_remove, path)
    stack.callback(server.close)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
