"""The front turned round: TLS to a manager by our own hand, verified before a byte is said.

gRPC's own client can neither skip verification (for the root download), nor live without
ALPN (managers before 28.0 after a renewal), nor follow a root rotation (wire/PROTOCOL 0.2).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

from swarmd.base.clock import Clock
from swarmd.rpc import address
from swarmd.rpc.link import UNANSWERED_SECONDS, TlsLink, keep_alive
from swarmd.rpc.peer import Disconnected
from swarmd.rpc.tls import Credentials, client_context, peer_chain, probing_context, promoted

# OpenSSL's X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN: how it misreads a cross-signed intermediate.
_SELF_SIGNED_IN_CHAIN = 19


class Dialled(TlsLink):
    """A client connection; `ready` tells how its handshake went."""

    __slots__ = ("ready",)

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        super().__init__(context, server_side=False, server_name=server_name)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def reason(self) -> str:
        """Why it is over; a server that refuses our certificate says so here."""
        return str(self._error or "transport is closing")

    def opened(self) -> None:
        """The server is verified."""
        if not self.ready.done():
            self.ready.set_result(None)

    def closed(self, error: Exception | None) -> None:
        """The connection is over."""
        if not self.ready.done():
            self.ready.set_exception(error or ConnectionError("connection closed"))


async def open_link(addr: str, credentials: Credentials, server_name: str, clock: Clock) -> Dialled:
    """Connect to the manager at `addr` and verify it as `server_name`; reading is stopped.

    Raises `Disconnected` when it cannot be reached or is not who it should be. The caller
    sets the time limit.
    """
    host, port = address.split(addr)
    try:
        return await _verified(host, port, credentials, server_name, clock)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Disconnected(unreachable(addr, error)) from error


def unreachable(addr: str, reason: Exception | str) -> str:
    """What stock clients say of a manager they cannot connect to, or that is not who it says."""
    if isinstance(reason, ssl.SSLError):
        trouble = f"authentication handshake failed: {reason}"
    elif isinstance(reason, socket.gaierror):
        trouble = f"Error while dialing dial tcp: lookup {addr.rpartition(':')[0]}: no such host"
    elif isinstance(reason, OSError) and reason.errno:
        why = os.strerror(reason.errno).lower()
        trouble = f"Error while dialing dial tcp {addr}: connect: {why}"
    else:
        trouble = f"Error while dialing dial tcp {addr}: {reason}"
    return f'connection error: desc = "transport: {trouble}"'


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
