"""A gRPC channel on a verified TLS connection: a pump over a private unix socket between them."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.rpc.dialled import Dialled, open_link
from swarmd.rpc.link import PlainLink
from swarmd.rpc.tls import Credentials


class Tunnel:
    """One verified TLS connection; a gRPC channel reaches it under `target`, once."""

    def __init__(
        self, link: Dialled, listener: asyncio.Server, inside: list[_Inside], target: str
    ) -> None:
        self._link = link
        self._listener = listener
        self._inside = inside
        self.target = target

    @property
    def lost(self) -> bool:
        """True once the connection is over; a new tunnel is needed then."""
        return self._link.closing

    @property
    def taken(self) -> bool:
        """True once the channel uses it."""
        return self._link.partner is not None

    @property
    def reason(self) -> str:
        """Why it is over; a server that refuses our certificate says so here."""
        return self._link.reason

    def close(self) -> None:
        """End the connection; call it after the channel is closed."""
        self._listener.close()
        self._link.finish()
        for inside in self._inside:
            inside.abort()  # nobody reads any more what it still holds


async def open_tunnel(
    addr: str,
    credentials: Credentials,
    server_name: str,
    clock: Clock,
    entropy: Entropy,
) -> Tunnel:
    """Connect to the manager at `addr` and verify it as `server_name`.

    Raises `Disconnected`, as `open_link`. The caller sets the time limit.
    """
    link = await open_link(addr, credentials, server_name, clock)
    try:
        return await _listen(link, entropy)
    except BaseException:
        link.abort()
        raise


async def _listen(link: Dialled, entropy: Entropy) -> Tunnel:
    """Wait at a private address for the one channel that will use this connection."""
    name = f"swarmd-{entropy.token(16).hex()}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind("\0" + name)
        loop = asyncio.get_running_loop()
        holder: list[asyncio.Server] = []
        inside: list[_Inside] = []

        def taken(by: _Inside) -> None:
            inside.append(by)
            holder[0].close()

        server = await loop.create_unix_server(lambda: _Inside(link, taken), sock=sock, backlog=1)
        holder.append(server)
    except BaseException:
        sock.close()
        raise
    return Tunnel(link, server, inside, f"unix-abstract:{name}")


class _Inside(PlainLink):
    """The channel's end. The first connection of this very process gets the tunnel."""

    __slots__ = ("_link", "_taken")

    def __init__(self, link: Dialled, taken: Callable[[_Inside], None]) -> None:
        super().__init__(None, lambda: None)
        self._link = link
        self._taken = taken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check who connects (called by the event loop)."""
        super().connection_made(transport)
        # Abstract names have no file mode: anybody on the host could knock here.
        if self._link.partner is not None or _pid_of(transport) != os.getpid():
            self.abort()
            return
        self._taken(self)
        self.partner = self._link
        self._link.attach(self)


def _pid_of(transport: asyncio.BaseTransport) -> int:
    """The process at the other end of a unix socket, by the kernel's word."""
    sock = transport.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[0])
