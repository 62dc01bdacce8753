"""Where the Engine API listens: a unix socket, and TCP only with certificates on both sides."""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

from swarmd.base.aio import Tasks
from swarmd.faces.engineapi.app import EngineAPI
from swarmd.faces.engineapi.call import body_bytes_max
from swarmd.faces.http.server import RawServer
from swarmd.faces.http.tls import secured

logger = logging.getLogger("engineapi")

SOCKET_MODE = 0o660
PROBE_SECONDS = 1.0
# How many connections may wait to be accepted.
backlog_max = 512


@dataclass(frozen=True, slots=True)
class TcpListen:
    """A TCP address and the files of mutual TLS; clients need a certificate of `ca_file`."""

    host: str
    port: int
    ca_file: str
    cert_file: str
    key_file: str


class APIServer:
    """Serves one `EngineAPI` until cancelled."""

    def __init__(
        self,
        api: EngineAPI,
        *,
        unix_paths: Sequence[str] = (),
        group: str = "docker",
        tcp: Sequence[TcpListen] = (),
    ) -> None:
        self._api = api
        self._unix_paths = list(unix_paths)
        self._group = group
        self._tcp = list(tcp)
        self.ports: list[int] = []  # of the TCP listeners, once serving

    async def run(self, ready: asyncio.Event) -> None:
        """Listen, set `ready`, serve; raise what broke. Sockets are removed at the end."""
        self._api.broken = asyncio.get_running_loop().create_future()
        web_server = RawServer(self._api.handle, body_bytes_max)
        async with AsyncExitStack() as stack:
            # Unwound from below: listeners close first, so nobody comes in any more.
            stack.push_async_callback(web_server.shut_down)
            stack.callback(self._api.events.end)
            tasks = await stack.enter_async_context(Tasks())
            tasks.spawn(self._api.events.run(), "engineapi-events")
            for path in self._unix_paths:
                await _listen_unix(stack, web_server, path, self._group)
            for listen in self._tcp:
                self.ports.append(await _listen_tcp(stack, web_server, listen))
            ready.set()
            await self._api.broken


async def _listen_unix(stack: AsyncExitStack, web_server: RawServer, path: str, group: str) -> None:
    _remove_stale(path)
    # Born closed to others; opened to the group once its owner is right.
    before = os.umask(0o177)
    try:
        server = await asyncio.get_running_loop().create_unix_server(
            web_server, path, backlog=backlog_max
        )
    finally:
        os.umask(before)
    stack.callback(_remove_own, path, os.stat(path).st_ino)
    stack.callback(server.close)
    _give_to_group(path, group)


def _give_to_group(path: str, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except (
        KeyError,
        OSError,
    ):  # no such group, or not ours to give to (EINVAL in a user namespace)
        logger.debug("socket %s stays with this user's own group", path)
    os.chmod(path, SOCKET_MODE)


def _remove_stale(path: str) -> None:
    """Make room for our socket. Raises `OSError` when somebody answers at the present one."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EADDRINUSE, f"{path} exists and is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_SECONDS)
            probe.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:  # left behind by a process that is gone
        os.unlink(path)
        return
    raise OSError(errno.EADDRINUSE, f"{path} is in use by another program")


def _remove_own(path: str, inode: int) -> None:
    # Another daemon may have taken the path over meanwhile.
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass


@contextmanager
def _named(files: str) -> Iterator[None]:
    """Say which files cannot be used: OpenSSL's errors do not."""
    try:
        yield
    except OSError as error:  # ssl.SSLError is one too
        raise OSError(f"TLS files {files}: {error.strerror or error}") from error


async def _listen_tcp(stack: AsyncExitStack, web_server: RawServer, listen: TcpListen) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with _named(f"{listen.cert_file} with {listen.key_file}"):
        context.load_cert_chain(listen.cert_file, listen.key_file)
    with _named(listen.ca_file):
        context.load_verify_locations(listen.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.get_running_loop().create_server(
        secured(web_server, context), listen.host, listen.port, backlog=backlog_max
    )
    stack.callback(server.close)
    port: int = server.sockets[0].getsockname()[1]
    return port
