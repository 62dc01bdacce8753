"""TLS whose two directions end apart, which asyncio's own does not offer.

`docker run -i` and `docker exec` finish sending (a close_notify) long before the container has
finished printing. asyncio takes the peer's close_notify for the end of both directions; here it
is an end of input only, and `write_eof` sends one of ours and goes on reading.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

HANDSHAKE_SECONDS = 20.0
_piece_bytes_max = 1 << 16


class TLSLayer(asyncio.Protocol):
    """Stands between a TCP transport and a protocol that is to speak in the clear."""

    def __init__(
        self, context: ssl.SSLContext, app: asyncio.Protocol, server_hostname: str | None = None
    ) -> None:
        """A client when it knows the server's name, a server otherwise."""
        self.app = app
        self.transport = TLSTransport(self)
        # Done once the app is connected; a client waits for it.
        self.shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_server = server_hostname is None
        self.context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self._incoming, self._outgoing, self.is_server, server_hostname
        )
        self.tcp: asyncio.Transport | None = None
        self._clear: deque[bytes] = deque()  # decrypted, not yet taken by the app
        self._paused = False
        self._input_ended = False  # their close_notify, or end of file
        self._eof_told = False
        self._output_ended = False
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None

    # From the TCP transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self.tcp = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HANDSHAKE_SECONDS, self.abort)
        self._shake()

    def data_received(self, data: bytes) -> None:
        """Decrypt what is whole."""
        self._incoming.write(data)
        if self.shaken.done():
            self._take()
        else:
            self._shake()

    def eof_received(self) -> bool:
        """A peer that ends without close_notify ends its direction all the same."""
        if not self.shaken.done():
            return False
        self._input_ended = True
        self._deliver()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the app, or the client that still waits for the handshake."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.shaken.done():
            self._fail(exc or ConnectionResetError("connection lost during the TLS handshake"))
        elif not self.shaken.cancelled() and self.shaken.exception() is None:
            self.app.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        if self._is_up():
            self.app.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        if self._is_up():
            self.app.resume_writing()

    def _is_up(self) -> bool:
        return (
            self.shaken.done() and not self.shaken.cancelled() and self.shaken.exception() is None
        )

    # The handshake and the records

    def _shake(self) -> None:
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, ssl.CertificateError) as error:
            self._flush()  # the alert
            self._fail(error)
            if self.tcp is not None:
                self.tcp.close()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        if not self.shaken.done():
            self.shaken.set_result(None)
        self.app.connection_made(self.transport)
        self._take()

    def _fail(self, error: BaseException) -> None:
        if not self.shaken.done():
            self.shaken.set_exception(error)
            # A server does not wait for it; a strange client is not worth a word in the log.
            self.shaken.exception()

    def _take(self) -> None:
        if not self._decrypt():
            return
        self._flush()  # key updates are answered
        self._deliver()

    def _decrypt(self) -> bool:
        """Move all whole records to `_clear`; False when the peer broke the protocol."""
        try:
            while not self._input_ended:
                data = self.object.read(_piece_bytes_max)
                if data:
                    self._clear.append(data)
                else:
                    self._input_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._input_ended = True
        except ssl.SSLError:
            self._flush()
            self.abort()
            return False
        return True

    def _deliver(self) -> None:
        while self._clear and not self._paused and not self._closing:
            self.app.data_received(self._clear.popleft())
        if self._clear or self._paused or self._closing:
            return
        if self._input_ended and not self._eof_told:
            self._eof_told = True
            if not self.app.eof_received():
                self.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self.tcp is not None and not self.tcp.is_closing():
            self.tcp.write(data)

    # From the app

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if not data or self._output_ended or self._closing:
            return
        try:
            self.object.write(data)
        except ssl.SSLError:
            self.abort()
            return
        self._flush()

    def end_output(self) -> None:
        """Send close_notify; input goes on."""
        if self._output_ended:
            return
        self._output_ended = True
        # OpenSSL looks for their close_notify as well: what lies before it must be out first.
        if not self._decrypt():
            return
        try:
            self.object.unwrap()
        except ssl.SSLError:  # "want read": theirs has not come yet
            pass
        self._flush()
        self._deliver()

    def close(self) -> None:
        """Send what is left, say good-bye, close."""
        if self._closing:
            return
        self.end_output()
        self._closing = True
        if self.tcp is not None:
            self.tcp.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self.tcp is not None:
            self.tcp.abort()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closing or self.tcp is None or self.tcp.is_closing()

    def pause(self) -> None:
        """Deliver nothing more for now."""
        self._paused = True
        if self.tcp is not None and not self.tcp.is_closing():
            self.tcp.pause_reading()

    def resume(self) -> None:
        """Deliver again, what is waiting first."""
        if not self._paused:
            return
        self._paused = False
        if self.tcp is not None and not self.tcp.is_closing():
            self.tcp.resume_reading()
        # Not from inside the app's own call.
        asyncio.get_running_loop().call_soon(self._deliver)

    @property
    def paused(self) -> bool:
        """Whether the app asked for no more."""
        return self._paused


class TLSTransport(asyncio.Transport):
    """What the app sees: an ordinary transport that can end its output."""

    def __init__(self, layer: TLSLayer) -> None:
        super().__init__()
        self._layer = layer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The socket's facts; of TLS only what servers ask for.

        A stream reader that finds an SSL context gives up half-close, so clients show none.
        """
        layer = self._layer
        if layer.is_server and name in ("sslcontext", "ssl_object", "peercert"):
            return {
                "sslcontext": layer.context,
                "ssl_object": layer.object,
                "peercert": layer.object.getpeercert(),
            }[name]
        return default if layer.tcp is None else layer.tcp.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        self._layer.write(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all at once."""
        self._layer.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """It can."""
        return True

    def write_eof(self) -> None:
        """End our direction only."""
        self._layer.end_output()

    def close(self) -> None:
        """End both directions once everything is sent."""
        self._layer.close()

    def abort(self) -> None:
        """End at once."""
        self._layer.abort()

    def is_closing(self) -> bool:
        """Whether it is over."""
        return self._layer.is_closing()

    def pause_reading(self) -> None:
        """No more for now."""
        self._layer.pause()

    def resume_reading(self) -> None:
        """More again."""
        self._layer.resume()

    def is_reading(self) -> bool:
        """Whether input is wanted."""
        return not self._layer.paused

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The app."""
        return self._layer.app

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Another app."""
        self._layer.app = cast(asyncio.Protocol, protocol)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As TCP does it."""
        if self._layer.tcp is not None:
            self._layer.tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes not sent yet."""
        return 0 if self._layer.tcp is None else self._layer.tcp.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """As TCP has it."""
        return (0, 0) if self._layer.tcp is None else self._layer.tcp.get_write_buffer_limits()


def secured(
    factory: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None
) -> Callable[[], asyncio.Protocol]:
    """A server's connection factory, with TLS in front when there is a context."""
    if context is None:
        return factory
    return lambda: TLSLayer(context, factory())


async def open_secured(
    host: str, port: int, context: ssl.SSLContext | None, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Like `asyncio.open_connection`, with this TLS. Raises `OSError`."""
    if context is None:
        return await asyncio.open_connection(host, port, limit=limit)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    layer = TLSLayer(context, protocol, host)
    await loop.create_connection(lambda: layer, host, port)
    try:
        await layer.shaken
    except BaseException:
        layer.abort()
        raise
    return reader, asyncio.StreamWriter(layer.transport, protocol, reader, loop)
