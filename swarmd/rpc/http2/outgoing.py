"""The client side of one HTTP/2 connection, for unary calls, without I/O: bytes in, bytes out.

As on the server's side `receive` never raises. Every call comes to exactly one end: an answer,
an error of the other side's, or what `why` says when the connection is over before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from swarmd.base.errors import Internal, SwarmError
from swarmd.rpc.http2 import request, response, wire
from swarmd.rpc.http2.endpoint import Endpoint
from swarmd.rpc.http2.exchange import Exchange, Slot
from swarmd.rpc.http2.stream import Stream
from swarmd.rpc.http2.wire import ConnectionFault, StreamFault, frame
from swarmd.rpc.peer import Disconnected

STREAMS_MAX = 100
"""Calls at the same time before the server says how many it takes, as in grpc-go."""
WINDOW_BYTES = 1 << 20
USELESS_MAX = 20_000
"""Frames that achieve nothing, at once: what a manager may do as a client of ours, too."""
ANSWER_BYTES_MAX = 128 << 20
"""One answer: a list of everything in a large cluster, no more than that."""
LAST_STREAM = wire.WINDOW_MAX - 2
"""A connection ends here: numbers of streams are used once (12 days of 1000 calls a second)."""


# What our own servers say is the same bytes every time and leaves the header table alone.
_OURS = {request.HEAD: response.USUAL_HEAD, request.OK_TAIL: response.USUAL_TAIL}


def disconnected(reason: str = "transport is closing") -> SwarmError:
    """What a call is told when its connection ended."""
    return Disconnected(f'connection error: desc = "{reason}"')


class Outgoing(Endpoint[Exchange]):
    """Calls, frames and windows of one connection."""

    __slots__ = ("_departing", "_streams_max", "_waiting", "answer_bytes_max", "why")

    def __init__(
        self, window_bytes: int = WINDOW_BYTES, answer_bytes_max: int = ANSWER_BYTES_MAX
    ) -> None:
        super().__init__(window_bytes, USELESS_MAX, {wire.ENABLE_PUSH: 0}, wire.PREFACE)
        self.answer_bytes_max = answer_bytes_max
        self.why: Callable[[], SwarmError] = disconnected
        """Makes the error for calls that the end of the connection cuts off."""
        self._last = -1
        self._streams_max = STREAMS_MAX
        self._departing = False
        self._waiting: deque[Exchange] = deque()

    @property
    def usable(self) -> bool:
        """True while new calls may be made."""
        return self.fault is None and not self._departing and self._last < LAST_STREAM

    @property
    def window_bytes(self) -> int:
        """What one answer may bring unread."""
        return self._window_bytes

    @property
    def now(self) -> float:
        """The time of what came last, in monotonic seconds."""
        return self._now

    def ask(self, slot: Slot, block: bytes, body: bytes, deadline: float | None = None) -> Exchange:
        """Make a call: `block` is its header block, `body` its message with prefix.

        The outcome goes to `slot`. `deadline` (monotonic seconds) is not watched here.
        """
        exchange = Exchange(self, slot, block, body, deadline)
        if not self.usable:
            exchange.close().cut()
        elif self._waiting or len(self.streams) >= self._streams_max:
            self._waiting.append(exchange)
        else:
            self._start(exchange)
        return exchange

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection because of `fault`; its calls fail."""
        self.why = lambda: disconnected(str(fault))
        super().fail(fault)

    def lost(self) -> None:
        """The transport is gone, or soon will be: every call fails."""
        self._departing = True
        super().lost()
        self._dismiss()

    # What calls ask for.

    def withdraw(self, exchange: Exchange) -> None:
        """The answer to a call is not wanted any more."""
        if exchange.over:
            return
        if not exchange.id:
            exchange.close()  # it is passed over when its turn comes
        elif exchange.ended:
            self.finished(exchange)
        else:
            self.reset(exchange, wire.CANCEL)

    def finished(self, exchange: Exchange) -> None:
        """An answer is complete."""
        if exchange.pending:
            self.reset(exchange, wire.CANCEL)  # the rest of the request is not wanted
            return
        exchange.close()
        self.streams.pop(exchange.id, None)
        if self._waiting:
            self._next()

    def useless(self) -> None:
        """Count something that achieves nothing. Raises `ConnectionFault`."""
        self._useless()

    def _forget(self, stream: Exchange) -> None:
        super()._forget(stream)
        if self._waiting:
            self._next()

    def _start(self, exchange: Exchange) -> None:
        self._last += 2
        exchange.id = self._last
        exchange.send_window = self.sender.initial_window
        self.streams[exchange.id] = exchange
        block, body = exchange.block, exchange.body
        exchange.block = exchange.body = b""
        self.sender.ask(exchange, block, body)

    def _next(self) -> None:
        """Begin the calls whose turn has come."""
        while self._waiting and self.usable and len(self.streams) < self._streams_max:
            exchange = self._waiting.popleft()
            if not exchange.over:
                self._start(exchange)
        if self._waiting and not self.usable:
            self._dismiss()

    def _dismiss(self) -> None:
        """Calls that never went out will not any more."""
        waiting, self._waiting = self._waiting, deque()
        for exchange in waiting:
            exchange.close().cut()

    def _sent(self, stream: Stream) -> None:
        """A request is complete: its answer will end the stream."""

    def _newest_of_peer(self) -> int:
        return 0

    # What comes in.

    def _greeting(self, data: bytes) -> int:
        return 0  # servers say none

    def _fields(self, number: int, flags: int, block: bytes) -> None:
        fields = _OURS.get(block)
        if fields is None:
            fields = self._reader.read(block)  # always, or the table would be wrong
        ended = bool(flags & wire.END_STREAM)
        exchange = self._known(number, "HEADERS")
        if exchange is not None:
            exchange.answered(fields, ended)
            return
        self._useless()
        if number not in self._late:
            if number > self._forgotten:
                raise ConnectionFault(wire.STREAM_CLOSED, "headers on a closed stream")
        elif ended:
            del self._late[number]

    def _fail_stream(self, number: int, fault: StreamFault) -> None:
        self._useless()
        exchange = self.streams.get(number)
        if exchange is None:
            self.sender.put(frame(wire.RST_STREAM, 0, number, wire.number(fault.code)))
            return
        self.reset(exchange, fault.code)
        exchange.settle(Internal(f"the server broke the rules of HTTP/2: {fault}"))

    def _rst_stream(self, number: int, flags: int, payload: bytes) -> None:
        exchange = self._reset_stream(number, payload)
        if exchange is not None:
            self._forget(exchange)
            exchange.reset_by_peer(int.from_bytes(payload, "big"))

    def _setting(self, name: int, value: int) -> None:
        super()._setting(name, value)
        if name == wire.MAX_CONCURRENT_STREAMS:
            self._streams_max = value
            self._next()
        elif name == wire.ENABLE_PUSH and value:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "a server cannot be pushed to")

    def _goaway(self, number: int, flags: int, payload: bytes) -> None:
        """No new calls; those the server has not looked at fail, the others go on."""
        super()._goaway(number, flags, payload)
        self._departing = True
        last = int.from_bytes(payload[:4], "big") & wire.WINDOW_MAX
        for stream in [stream for stream in self.streams if stream > last]:
            self.streams.pop(stream).close().cut()
        self._dismiss()
