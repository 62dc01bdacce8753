"""The front turned round: TLS to a manager by our own hand, plain bytes to a gRPC channel.

gRPC's own client can neither skip verification (for the root download), nor live without
ALPN (managers before 28.0 after a renewal), nor follow a root rotation (wire/PROTOCOL 0.2).
The server is verified before the channel exists, so nothing a caller says can reach an
unverified peer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Callable

from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.rpc import address
from swarmd.rpc.link import UNANSWERED_SECONDS, PlainLink, TlsLink, keep_alive
from swarmd.rpc.peer import Disconnected
from swarmd.rpc.tls import Credentials, client_context, peer_chain, probing_context, promoted

# OpenSSL's X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN: how it misreads a cross-signed intermediate.
_SELF_SIGNED_IN_CHAIN = 19


class Tunnel:
    """One verified TLS connection; a gRPC channel reaches it under `target`, once."""

    def __init__(self, link: Dialled, listener: asyncio.Server, target: str) -> None:
        self._link = link
        self._listener = listener
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
        return str(self._link.reason or "transport is closing")

    def close(self) -> None:
        """End the connection."""
        self._listener.close()
        self._link.finish()


async def open_tunnel(
    addr: str,
    credentials: Credentials,
    server_name: str,
    clock: Clock,
    entropy: Entropy,
) -> Tunnel:
    """Connect to the manager at `addr` and verify it as `server_name`.

    Raises `Disconnected` when it cannot be reached or is not who it should be. The caller
    sets the time limit.
    """
    host, port = address.split(addr)
    try:
        link = await _verified(host, port, credentials, server_name, clock)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Disconnected(unreachable(addr, error)) from error
    try:
        return await _listen(link, entropy)
    except BaseException:
        link.abort()
        raise


def unreachable(addr: str, reason: object) -> str:
    """What stock clients say of a manager they cannot connect to."""
    return f'connection error: desc = "transport: Error while dialing {addr}: {reason}"'


class Dialled(TlsLink):
    """A client connection; `ready` tells how its handshake went."""

    __slots__ = ("ready", "reason")

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        super().__init__(context, server_side=False, server_name=server_name)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reason: Exception | None = None
        """What ended a connection that was up, if it was not an orderly goodbye."""

    def opened(self) -> None:
        """The server is verified."""
        if not self.ready.done():
            self.ready.set_result(None)

    def closed(self, error: Exception | None) -> None:
        """The connection is over."""
        self.reason = error
        if not self.ready.done():
            self.ready.set_exception(error or ConnectionError("connection closed"))


async def _verified(
    host: str, port: int, credentials: Credentials, server_name: str, clock: Clock
) -> Dialled:
    roots = credentials.roots_pem
    if roots is None:
        return await _shake(host, port, client_context(credentials), None)
    try:
        return await _shake(host, port, client_context(credentials), server_name)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code != _SELF_SIGNED_IN_CHAIN:
            raise
        refusal = error
    # A root rotation? Fetch the chain without showing or saying anything, promote what a
    # trusted root signed, and let OpenSSL judge the whole again on a fresh connection.
    probe = await _shake(host, port, probing_context(), server_name)
    try:
        anchors = promoted(peer_chain(probe.tls)[1:], roots, clock.now())
    finally:
        probe.abort()
    if not anchors:
        raise refusal
    return await _shake(host, port, client_context(credentials, anchors), server_name)


async def _shake(host: str, port: int, context: ssl.SSLContext, server_name: str | None) -> Dialled:
    """One TCP connection and one handshake, verified as `context` says."""
    loop = asyncio.get_running_loop()
    transport, link = await loop.create_connection(
        lambda: Dialled(context, server_name), host, port
    )
    keep_alive(transport, UNANSWERED_SECONDS)
    try:
        link.begin()
        await link.ready
    except BaseException:
        link.abort()
        raise
    return link


async def _listen(link: Dialled, entropy: Entropy) -> Tunnel:
    """Wait at a private address for the one channel that will use this connection."""
    name = f"swarmd-{entropy.token(16).hex()}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind("\0" + name)
        loop = asyncio.get_running_loop()
        holder: list[asyncio.Server] = []
        server = await loop.create_unix_server(
            lambda: _Inside(link, lambda: holder[0].close()), sock=sock, backlog=1
        )
        holder.append(server)
    except BaseException:
        sock.close()
        raise
    return Tunnel(link, server, f"unix-abstract:{name}")


class _Inside(PlainLink):
    """The channel's end. The first connection of this very process gets the tunnel."""

    __slots__ = ("_link", "_taken")

    def __init__(self, link: Dialled, taken: Callable[[], None]) -> None:
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
        self._taken()
        self.partner = self._link
        self._link.attach(self)


def _pid_of(transport: asyncio.BaseTransport) -> int:
    """The process at the other end of a unix socket, by the kernel's word."""
    sock = transport.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[0])
