"""TLS on the network side, and whoever takes the plain bytes on the other.

At the front that is a `Line` of ours; in the tunnel of a client it is a `PlainLink`, the unix
socket of a gRPC channel: then both are a pump with flow control across, where one end stops
reading when the other cannot write. TLS runs on memory buffers here rather than in the event
loop because the loop's own keeps 256 KiB per connection, and because it lets us judge a
connection between its handshake and its first byte.
"""

from __future__ import annotations

import abc
import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol, cast

# Piece sizes keep the memory buffers (which never shrink) near one TLS record.
PIECE_BYTES = 16 * 1024
LINGER_SECONDS = 5.0
# In front of an answer of OpenSSL's own. Whoever asks for new keys all the time and reads nothing
# would have as much of our memory as it sends.
UNREAD_BYTES_MAX = 1 << 20
# Go's defaults: a dead peer is noticed by the kernel within minutes, without gRPC pings.
_KEEPALIVE_SECONDS = 15
# Without it the kernel sends in vain for a quarter of an hour: to a host that is gone, or from
# an address that this one does not have any more. Calls would wait on such a connection.
UNANSWERED_SECONDS = 20


class Partner(Protocol):
    """The other end: it gets what was decrypted, and is told how the transport fares."""

    def send(self, data: bytes) -> None:
        """Take `data`, which came in on this end."""
        ...

    def hold(self) -> None:
        """The other end cannot write for now."""
        ...

    def release(self) -> None:
        """The other end can write again."""
        ...

    def finish(self) -> None:
        """The other end is over: close after what was sent has gone out."""
        ...


def keep_alive(transport: asyncio.BaseTransport, unanswered_seconds: int = 0) -> None:
    """Let the kernel probe an idle TCP peer, as Go does on all its connections.

    `unanswered_seconds`: give up on one that acknowledges nothing for so long (0: the kernel's).
    """
    sock = cast(socket.socket | None, transport.get_extra_info("socket"))
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS)
    if unanswered_seconds:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unanswered_seconds * 1000)


class Link(asyncio.Protocol):
    """What both ends share: a transport, a partner, flow control, an orderly end."""

    __slots__ = ("_linger", "_transport", "partner")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._linger: asyncio.TimerHandle | None = None
        self.partner: Partner | None = None

    @property
    def closing(self) -> bool:
        """True once the connection is over or on its way there."""
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the event loop)."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the partner down too (called by the event loop)."""
        if self._linger is not None:
            self._linger.cancel()
        self._transport = None
        partner, self.partner = self.partner, None
        if partner is not None:
            partner.finish()

    def pause_writing(self) -> None:
        """Our peer is slow: stop the partner's peer (called by the event loop)."""
        if self.partner is not None:
            self.partner.hold()

    def resume_writing(self) -> None:
        """Our peer caught up (called by the event loop)."""
        if self.partner is not None:
            self.partner.release()

    def hold(self) -> None:
        """Stop reading from our peer."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def release(self) -> None:
        """Read from our peer again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def finish(self) -> None:
        """Close after what was sent has gone out; a peer that does not take it is cut off."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.close()
        if self._transport is not None and self._linger is None:
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER_SECONDS, self.abort)

    def abort(self) -> None:
        """Close at once; unsent bytes are lost."""
        if self._transport is not None:
            self._transport.abort()


class PlainLink(Link):
    """The gRPC side, a unix socket within this process."""

    __slots__ = ("_closed",)

    def __init__(self, partner: Partner | None, closed: Callable[[], None]) -> None:
        super().__init__()
        # Known from the start: gRPC speaks first, maybe before anybody could attach.
        self.partner = partner
        self._closed = closed

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner (called by the event loop)."""
        super().connection_lost(exc)
        self._closed()

    def data_received(self, data: bytes) -> None:
        """Hand plain bytes to the TLS side (called by the event loop)."""
        if self.partner is not None:
            self.partner.send(data)

    def send(self, data: bytes) -> None:
        """Write bytes that came out of TLS."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _pieces(data: bytes) -> Sequence[bytes | memoryview]:
    """`data` in pieces of at most `PIECE_BYTES`; mostly it is one."""
    if len(data) <= PIECE_BYTES:
        return (data,)
    view = memoryview(data)
    return [view[at : at + PIECE_BYTES] for at in range(0, len(view), PIECE_BYTES)]


class HandshakeEnded(ConnectionError):
    """The connection ended before its TLS handshake did; no error but the peer's going."""


class TlsLink(Link, abc.ABC):
    """The network side: TLS over one TCP connection, server or client.

    Its user derives from it: `opened` is called once, after the handshake and with reading
    stopped, before any application byte went either way; `attach` then starts the pump.
    `closed` is called once at the very end, with the error that ended it, if any.
    """

    __slots__ = ("_error", "_in", "_out", "_shaken", "_timer", "tls")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_name: str | None = None,
    ) -> None:
        super().__init__()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._in, self._out, server_side=server_side, server_hostname=server_name
        )
        self._shaken = False
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    @abc.abstractmethod
    def opened(self) -> None:
        """The handshake succeeded."""

    @abc.abstractmethod
    def closed(self, error: Exception | None) -> None:
        """The connection is over, because of `error` if there was one."""

    @property
    def shaken(self) -> bool:
        """True once the handshake succeeded."""
        return self._shaken

    def begin(self, seconds: float | None = None) -> None:
        """Start the handshake; the connection is cut when it takes longer than `seconds`."""
        if seconds is not None:
            late = TimeoutError("handshake timeout")
            self._timer = asyncio.get_running_loop().call_later(seconds, self.fail, late)
        self._shake()

    def attach(self, partner: Partner) -> None:
        """Start pumping: what came since the handshake goes first."""
        if self.closing:
            partner.finish()
            return
        self.partner = partner
        self.release()
        self._drain()

    def fail(self, error: Exception) -> None:
        """End the connection at once because of `error`; the first one counts."""
        self._error = self._error or error
        self._flush()
        if self._transport is not None and not self._transport.is_closing():
            # close() lets a pending TLS alert out; abort follows if the peer takes nothing.
            self.finish()

    def data_received(self, data: bytes) -> None:
        """Feed TLS piece by piece (called by the event loop)."""
        for piece in _pieces(data):
            if self._error is not None:
                return
            self._in.write(piece)
            if self._shaken:
                self._drain()
            else:
                self._shake()

    def eof_received(self) -> bool:
        """The peer stopped sending: the connection is over (called by the event loop)."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end (called by the event loop)."""
        self._stop_timer()
        super().connection_lost(exc)
        if not self._shaken and self._error is None:
            self._error = exc or HandshakeEnded("connection ended during the handshake")
        self.closed(self._error)

    def send(self, data: bytes) -> None:
        """Encrypt and write bytes of the partner."""
        try:
            pieces = _pieces(data)
            if len(pieces) == 1:
                self._encrypt(data)
                self._flush()
                return
            # One write for all of it: each would wake the peer's host up on its own.
            sealed = []
            for piece in pieces:
                self._encrypt(piece)
                sealed.append(self._out.read())
            self._write(b"".join(sealed))
        except ssl.SSLError as error:
            self.fail(error)

    def _encrypt(self, data: bytes | memoryview) -> None:
        while data:
            data = data[self.tls.write(data) :]

    def finish(self) -> None:
        """Say goodbye in TLS and close."""
        if self._shaken and not self.closing:
            try:
                self.tls.unwrap()
            except (ssl.SSLError, OSError):
                pass  # the peer's own goodbye is not waited for
            self._flush()
        super().finish()

    def _shake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, OSError) as error:
            self.fail(error)
            return
        self._stop_timer()
        self._shaken = True
        self._flush()
        self.hold()
        self.opened()

    def _drain(self) -> None:
        """Give the partner all that can be decrypted; stays put until there is one."""
        if self.partner is None:
            return
        pieces = []
        ended = False
        try:
            while True:
                piece = self.tls.read(PIECE_BYTES)
                if not piece:
                    ended = True
                    break
                pieces.append(piece)
                if len(piece) < PIECE_BYTES and not self._in.pending:
                    break  # asking again would only cost an exception
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except (ssl.SSLError, OSError) as error:
            self.fail(error)
            return
        if pieces:
            self.partner.send(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._out.pending:
            self._answer()
        if ended:
            self.finish()

    def _answer(self) -> None:
        """Send what OpenSSL itself has to say, to a key update for one: to who reads it."""
        self._flush()
        if self._transport is not None:
            size = self._transport.get_write_buffer_size()
            if size > UNREAD_BYTES_MAX:
                self.fail(ssl.SSLError(f"{size} bytes of answers are left unread"))

    def _flush(self) -> None:
        if self._out.pending:
            self._write(self._out.read())

    def _write(self, sealed: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(sealed)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
