"""The TLS front of port 2377: certificate optional, ALPN h2 offered, bytes pumped to gRPC.

gRPC's own Python server can only forbid or demand client certificates; nodes join without
one and work with one on the same port (wire/FRONT 1). Each new connection takes the
credentials of the moment, so certificates and roots change without a restart. What is
refused here is refused before gRPC sees it, counted, and logged with a cap.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from swarmd.base import metrics
from swarmd.base.clock import Clock
from swarmd.rpc import address
from swarmd.rpc.identity import Subject, subject_of
from swarmd.rpc.link import HandshakeEnded, PlainLink, TlsLink, keep_alive
from swarmd.rpc.registry import Connection, Registry
from swarmd.rpc.tls import Credentials, server_context

log = logging.getLogger(__name__)
_OPEN = metrics.gauge("rpc_connections", "TLS connections open on the manager port")
_REFUSED = metrics.counter("rpc_refused_connections", "Connections refused at the door", "why")


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may take of us."""

    handshake_seconds: float = 5.0
    pending_max: int = 2048
    """Handshakes under way at once, all addresses."""
    pending_per_address_max: int = 1024
    """Handshakes under way at once from one IP address (many nodes behind one NAT)."""
    anonymous_per_address_max: int = 1024
    """Open connections without certificate from one IP address: joining nodes hold one each
    for seconds, and nobody else has a use for them."""
    connections_max: int = 16_384
    join_seconds: float = 5.0
    """How long gRPC may take to accept its end."""
    log_lines_max: int = 20
    """Refusals written per `log_seconds`; the rest is only counted."""
    log_seconds: float = 60.0


class Refusals:
    """Says once per connection why it was refused, but not without end."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._since = float("-inf")
        self._lines = 0
        self._untold = 0

    def note(self, why: str, remote_addr: str, detail: object, what: str = "connection") -> None:
        """Count one refusal and log it unless there were too many lately."""
        _REFUSED.labels(why).inc()
        now = self._clock.monotonic()
        if now - self._since >= self._limits.log_seconds:
            if self._untold:
                log.info("%d more refusals were not logged", self._untold)
            self._since, self._lines, self._untold = now, 0, 0
        if self._lines >= self._limits.log_lines_max:
            self._untold += 1
            return
        self._lines += 1
        log.info("refused %s from %s: %s (%s)", what, remote_addr, why, detail)


class Front:
    """Accepts, shakes hands, identifies, and joins each connection to the gRPC server."""

    def __init__(
        self,
        backend: str,
        credentials: Callable[[], Credentials],
        registry: Registry,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        limits: Limits,
        refusals: Refusals,
    ) -> None:
        self._backend = backend
        self._credentials = credentials
        self._registry = registry
        self._clock = clock
        self._spawn = spawn
        self._limits = limits
        self._refusals = refusals
        self._listeners: list[tuple[str, asyncio.Server]] = []
        self._links: set[Visitor] = set()
        self._pending: Counter[str] = Counter()
        self._anonymous: Counter[str] = Counter()
        self._pending_total = 0
        self._used: Credentials | None = None
        self._context: ssl.SSLContext | None = None
        self._empty = asyncio.Event()

    async def listen(self, addresses: Sequence[str]) -> list[str]:
        """Open the port(s); returns the addresses really bound. Raises `OSError`.

        The first credentials are loaded here, so a manager with an unusable certificate
        fails at start.
        """
        self.context()
        loop = asyncio.get_running_loop()
        bound = []
        for text in addresses:
            host, port = address.split(text)
            server = await loop.create_server(
                lambda: Visitor(self), host or None, port, backlog=1024, reuse_address=True
            )
            self._listeners.append((text, server))
            bound.append(address.of_socket(server.sockets[0].getsockname()))
        return bound

    def serves(self, text: str) -> bool:
        """True if connections to "ip:port" come in already, perhaps by a wildcard."""
        host, port = address.split(text)
        covering = {text, address.join("::" if ":" in host else "0.0.0.0", port)}
        return any(name in covering for _, server in self._listeners for name in _names(server))

    def quit(self, text: str) -> list[str]:
        """Close one port; connections stay. The addresses it was bound to."""
        closed = []
        for entry in [one for one in self._listeners if one[0] == text]:
            self._listeners.remove(entry)
            closed += _names(entry[1])
            entry[1].close()
        return closed

    def stop_accepting(self) -> None:
        """Close the port; connections stay."""
        for _, server in self._listeners:
            server.close()
        self._listeners.clear()

    async def close(self, seconds: float) -> None:
        """End every connection in order, by force after `seconds`."""
        self.stop_accepting()
        for link in list(self._links):
            link.finish()
        self._empty.clear()
        try:
            async with asyncio.timeout(seconds):
                while self._links:
                    await self._empty.wait()
                    self._empty.clear()
        except TimeoutError:
            for link in list(self._links):
                link.abort()

    def admit(self, link: Visitor) -> None:
        """Take on a new TCP connection, or cut it off when a limit is reached."""
        limits = self._limits
        _OPEN.inc()
        self._links.add(link)
        self._pending_total += 1
        self._pending[link.host] += 1
        if (
            self._pending_total > limits.pending_max
            or self._pending[link.host] > limits.pending_per_address_max
            or len(self._links) > limits.connections_max
        ):
            self._refusals.note("limit", link.remote_addr, "too many connections")
            link.abort()
            return
        link.begin(limits.handshake_seconds)

    def settled(self, host: str) -> None:
        """A handshake is over, for good or bad."""
        self._pending_total -= 1
        _decrement(self._pending, host)

    def identify(self, link: Visitor) -> None:
        """Look at a finished handshake and, if it is acceptable, join it to gRPC.

        ALPN is selected where it is offered, but not demanded: an engine of 20.10 offers none
        once its certificate was renewed (measured). gRPC itself hangs up on anything that does
        not begin with HTTP/2's preface.
        """
        der = link.tls.getpeercert(binary_form=True)
        subject: Subject | None = None
        if der:
            try:
                subject = subject_of(der)
            except ValueError as error:
                self._refuse(link, "certificate", error)
                return
        else:
            link.anonymous = True
            self._anonymous[link.host] += 1
            if self._anonymous[link.host] > self._limits.anonymous_per_address_max:
                self._refuse(link, "limit", "too many connections without certificate")
                return
        connection = self._registry.add(subject, link.remote_addr)
        self._spawn(self._join(link, connection), "front-join")

    def gone(self, link: Visitor, error: Exception | None) -> None:
        """A connection is over."""
        self._links.discard(link)
        if link.anonymous:
            _decrement(self._anonymous, link.host)
        _OPEN.dec()
        self._empty.set()
        if error is None:
            return
        if not link.shaken:
            self._refusals.note(_why(error), link.remote_addr, error)
        elif _is_harmless(error):
            log.debug("connection from %s ended: %s", link.remote_addr, error)
        else:
            self._refusals.note("garbage", link.remote_addr, error)

    def _refuse(self, link: Visitor, why: str, detail: object) -> None:
        self._refusals.note(why, link.remote_addr, detail)
        link.finish()

    async def _join(self, link: Visitor, connection: Connection) -> None:
        """Connect to gRPC under the connection's name and start pumping."""
        backend = PlainLink(link, lambda: self._registry.drop(connection))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.join_seconds):
                sock = await _connect(self._backend, connection.name)
                await loop.create_unix_connection(lambda: backend, sock=sock)
        except OSError as error:  # TimeoutError is one
            self._registry.drop(connection)
            self._refusals.note("backend", connection.remote_addr, repr(error))
            link.abort()
            return
        link.attach(backend)

    def context(self) -> ssl.SSLContext:
        """TLS settings for the credentials of this moment."""
        credentials = self._credentials()
        if self._context is None or credentials != self._used:
            try:
                self._context = server_context(credentials, self._clock.now())
            except (ValueError, ssl.SSLError) as error:
                if self._context is None:
                    raise
                log.error("new credentials cannot be used, keeping the old: %s", error)
            self._used = credentials
        return self._context


class Visitor(TlsLink):
    """One connection at the front."""

    __slots__ = ("_counted", "_front", "anonymous", "host", "remote_addr")

    def __init__(self, front: Front) -> None:
        super().__init__(front.context(), server_side=True)
        self._front = front
        self._counted = False
        self.anonymous = False
        self.host = ""
        self.remote_addr = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce a new TCP connection to the front (called by the event loop)."""
        super().connection_made(transport)
        keep_alive(transport)
        self.remote_addr = address.of_socket(transport.get_extra_info("peername"))
        self.host = self.remote_addr.rpartition(":")[0]
        self._counted = True
        self._front.admit(self)

    def opened(self) -> None:
        """The handshake succeeded."""
        self._settle()
        self._front.identify(self)

    def closed(self, error: Exception | None) -> None:
        """The connection is over."""
        self._settle()
        self._front.gone(self, error)

    def _settle(self) -> None:
        if self._counted:
            self._counted = False
            self._front.settled(self.host)


def _names(server: asyncio.Server) -> list[str]:
    """The "ip:port"s a listener is bound to."""
    return [address.of_socket(sock.getsockname()) for sock in server.sockets]


def _decrement(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


async def _connect(path: str, name: str) -> socket.socket:
    """A unix socket connected to `path`, its own end bound to the abstract `name`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.bind("\0" + name)
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                # A full accept queue; a unix socket cannot be waited for.
                await asyncio.sleep(0.01)
                continue
            return sock
    except BaseException:
        sock.close()
        raise


def _why(error: Exception) -> str:
    """A small set of reasons, for the counter's label."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate"
    if isinstance(error, ssl.SSLError):
        return {"HTTP_REQUEST": "plain http"}.get(error.reason or "", "tls")
    if isinstance(error, HandshakeEnded | OSError):
        return "hangup"
    return "other"


def _is_harmless(error: Exception) -> bool:
    """Go clients hang up with data in flight; sockets are reset; neither is an attack."""
    reason = getattr(error, "reason", None)
    harmless = ("APPLICATION_DATA_AFTER_CLOSE_NOTIFY", "PROTOCOL_IS_SHUTDOWN")
    return not isinstance(error, ssl.SSLError) or reason in harmless
