"""The TLS front of port 2377: certificate optional, ALPN h2 offered, calls inside.

Nodes join without a certificate and work with one on the same port (wire/FRONT 1). Each new
connection takes the credentials of the moment, so certificates and roots change without a
restart. What is refused here is refused before a call is looked at, counted, and logged with
a cap.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarmd.base import metrics
from swarmd.base.clock import Clock
from swarmd.rpc import address
from swarmd.rpc.http2.connection import Allowance
from swarmd.rpc.http2.line import Desk, Line
from swarmd.rpc.identity import Subject, subject_of
from swarmd.rpc.link import HandshakeEnded, TlsLink, keep_alive
from swarmd.rpc.peer import MANAGER_ROLE
from swarmd.rpc.ports import Ports
from swarmd.rpc.registry import Registry
from swarmd.rpc.tls import Credentials, server_context

log = logging.getLogger(__name__)
_OPEN = metrics.gauge("rpc_connections", "TLS connections open on the manager port")
_REFUSED = metrics.counter("rpc_refused_connections", "Connections refused at the door", "why")


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may take of us."""

    handshake_seconds: float = 5.0
    pending_max: int = 2048
    """Handshakes under way at once, all addresses; the oldest makes room for another. Who means
    it is done in a moment, and silent strangers must not keep nodes out."""
    pending_per_address_max: int = 1024
    """Handshakes under way at once from one IP address (many nodes behind one NAT)."""
    anonymous_per_address_max: int = 1024
    """Open connections without certificate from one IP address: joining nodes hold one each
    for seconds, and nobody else has a use for them."""
    anonymous_max: int = 8192
    """The same from all addresses: a network of IPv6 has more of them than connections fit."""
    per_node_max: int = 256
    """Open connections with the certificate of one node: it needs a few."""
    connections_max: int = 16_384
    preface_seconds: float = 20.0
    """From the handshake to the HTTP/2 preface and settings. Longer than the handshake: our
    own clients verify a manager first and open their channel with the first call."""
    log_lines_max: int = 20
    """Refusals written per `log_seconds`; the rest is only counted."""
    log_seconds: float = 60.0


# A joining node asks one thing at a time; a worker has a stream per log it sends; a manager
# that follows brings the calls of all nodes connected to it.
_ANYBODY = Allowance(streams_max=20, window_bytes=64 * 1024)
_NODE = Allowance(streams_max=1000, resets_max=2000)
_MANAGER = Allowance(
    streams_max=100_000, window_bytes=1 << 20, resets_max=200_000, useless_max=20_000
)


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
    """Accepts, shakes hands, identifies, and takes calls for a desk."""

    def __init__(
        self,
        desk: Desk,
        credentials: Callable[[], Credentials],
        registry: Registry,
        clock: Clock,
        limits: Limits,
        refusals: Refusals,
    ) -> None:
        self._desk = desk
        self._credentials = credentials
        self._registry = registry
        self._clock = clock
        self._limits = limits
        self._refusals = refusals
        self.ports = Ports(lambda: Visitor(self))
        """Where connections come in."""
        self._links: set[Visitor] = set()
        self._pending: Counter[str] = Counter()
        self._anonymous: Counter[str] = Counter()  # by address
        self._anonymous_total = 0
        self._nodes: Counter[str] = Counter()  # by node id
        self._shaking: dict[Visitor, None] = {}  # in the order they came
        self._used: Credentials | None = None
        self._context: ssl.SSLContext | None = None
        self._changed = asyncio.Event()

    async def listen(self, addresses: Sequence[str]) -> None:
        """Open the port(s). Raises `OSError`.

        The first credentials are loaded here, so a manager with an unusable certificate
        fails at start.
        """
        self.context()
        for text in addresses:
            await self.ports.open(text)

    async def finish_calls(self, seconds: float) -> None:
        """Take no new calls, and give those under way `seconds` to end."""
        for link in list(self._links):
            if link.line is not None:
                link.line.goodbye()
        await self._until(self._quiet, seconds)

    async def close(self, seconds: float) -> None:
        """End every connection in order, by force after `seconds`."""
        self.ports.close()
        for link in list(self._links):
            link.finish()
        if not await self._until(lambda: not self._links, seconds):
            for link in list(self._links):
                link.abort()

    def changed(self) -> None:
        """A call or a connection ended: whoever waits for the end of all looks again."""
        self._changed.set()

    def _quiet(self) -> bool:
        return all(link.line is None or link.line.idle for link in self._links)

    async def _until(self, true: Callable[[], bool], seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def admit(self, link: Visitor) -> None:
        """Take on a new TCP connection, or cut it off when a limit is reached."""
        limits = self._limits
        _OPEN.inc()
        self._links.add(link)
        self._shaking[link] = None
        self._pending[link.host] += 1
        if (
            self._pending[link.host] > limits.pending_per_address_max
            or len(self._links) > limits.connections_max
        ):
            self._turn_away(link, "too many connections")
            return
        if len(self._shaking) > limits.pending_max:
            self._turn_away(next(iter(self._shaking)), "too many handshakes")
        link.begin(limits.handshake_seconds)

    def _turn_away(self, link: Visitor, why: str) -> None:
        self._refusals.note("limit", link.remote_addr, why)
        self.settled(link)
        link.abort()

    def settled(self, link: Visitor) -> None:
        """A handshake is over, for good or bad."""
        if link in self._shaking:
            del self._shaking[link]
            _decrement(self._pending, link.host)

    def identify(self, link: Visitor) -> None:
        """Look at a finished handshake and, if it is acceptable, take calls on it.

        ALPN is selected where it is offered, but not demanded: an engine of 20.10 offers none
        once its certificate was renewed (measured). Whoever does not begin with HTTP/2's
        preface is hung up on all the same.
        """
        der = link.tls.getpeercert(binary_form=True)
        subject: Subject | None = None
        if der:
            try:
                subject = subject_of(der)
            except ValueError as error:
                self._refuse(link, "certificate", error)
                return
        if trouble := self._count(link, subject):
            self._refuse(link, "limit", trouble)
            return
        connection = self._registry.add(subject, link.remote_addr)

        def lost(_: Line) -> None:
            self._registry.drop(connection)

        line = Line(link, connection, self._desk, _allowance(subject), lost)
        link.line = line
        late = TimeoutError("no HTTP/2 preface in time")
        line.begin(self._limits.preface_seconds, lambda: link.fail(late))
        link.attach(line)

    def _count(self, link: Visitor, subject: Subject | None) -> str:
        """Count a connection for whoever made it; why it is one too many, if it is."""
        limits = self._limits
        if subject is None:
            link.anonymous = True
            self._anonymous[link.host] += 1
            self._anonymous_total += 1
            if (
                self._anonymous[link.host] > limits.anonymous_per_address_max
                or self._anonymous_total > limits.anonymous_max
            ):
                return "too many connections without certificate"
            return ""
        link.node_id = subject.node_id
        self._nodes[link.node_id] += 1
        if self._nodes[link.node_id] > limits.per_node_max:
            return f"too many connections of node {link.node_id}"
        return ""

    def _forget(self, link: Visitor) -> None:
        if link.anonymous:
            self._anonymous_total -= 1
            _decrement(self._anonymous, link.host)
        elif link.node_id is not None:
            _decrement(self._nodes, link.node_id)

    def gone(self, link: Visitor, error: Exception | None) -> None:
        """A connection is over."""
        self._links.discard(link)
        self._forget(link)
        _OPEN.dec()
        self.changed()
        line = link.line
        if line is not None and line.fault is not None:
            why = "http2" if line.begun else "preface"
            self._refusals.note(why, link.remote_addr, line.fault)
        elif error is None:
            return
        elif not link.shaken or isinstance(error, TimeoutError):
            self._refusals.note(_why(error), link.remote_addr, error)
        elif _is_harmless(error):
            log.debug("connection from %s ended: %s", link.remote_addr, error)
        else:
            self._refusals.note("garbage", link.remote_addr, error)

    def _refuse(self, link: Visitor, why: str, detail: object) -> None:
        self._refusals.note(why, link.remote_addr, detail)
        link.finish()

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

    __slots__ = ("_front", "anonymous", "host", "line", "node_id", "remote_addr")

    def __init__(self, front: Front) -> None:
        super().__init__(front.context(), server_side=True)
        self._front = front
        self.anonymous = False
        self.node_id: str | None = None
        self.line: Line | None = None
        self.host = ""
        self.remote_addr = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce a new TCP connection to the front (called by the event loop)."""
        super().connection_made(transport)
        keep_alive(transport)
        self.remote_addr = address.of_socket(transport.get_extra_info("peername"))
        self.host = self.remote_addr.rpartition(":")[0]
        self._front.admit(self)

    def opened(self) -> None:
        """The handshake succeeded."""
        self._front.settled(self)
        self._front.identify(self)

    def closed(self, error: Exception | None) -> None:
        """The connection is over."""
        self._front.settled(self)
        self._front.gone(self, error)


def _decrement(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


def _allowance(subject: Subject | None) -> Allowance:
    """What a peer may do, by what its certificate says."""
    if subject is None:
        return _ANYBODY
    return _MANAGER if MANAGER_ROLE in subject.roles else _NODE


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
