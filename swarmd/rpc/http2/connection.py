"""The server side of one HTTP/2 connection, without I/O: bytes in, bytes out, streams between.

`receive` takes what the peer sent and never raises: a peer that breaks the rules ends up in
`fault`, with a GOAWAY in what the sender gives out next. Nothing a peer does costs more than
its own connection: windows bound what is buffered, budgets bound what is useless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from swarmd.rpc.http2 import wire
from swarmd.rpc.http2.budget import Budget
from swarmd.rpc.http2.headers import LIST_BYTES_MAX, Header, HeaderReader
from swarmd.rpc.http2.sender import Sender
from swarmd.rpc.http2.stream import Listener, Stream
from swarmd.rpc.http2.wire import ConnectionFault, StreamFault, frame

BLOCK_BYTES_MAX = 2 * LIST_BYTES_MAX
"""An encoded header block; one that is longer cannot be meant well."""
CONTINUATIONS_MAX = 8
UNTAKEN_BYTES_MAX = 4 << 20
"""Frames other than data that wait for a peer who reads nothing."""
LATE_MAX = 4096
"""Streams answered early whose requests may still be on their way."""

Accept = Callable[[Stream, "list[Header] | None"], Listener]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one peer may do on a connection."""

    streams_max: int = 100
    """Calls at the same time."""
    window_bytes: int = 256 * 1024
    """Unread request bytes of one call; the connection itself has four times as much."""
    resets_max: int = 400
    """Calls withdrawn before they were answered, at once; a quarter as many per second."""
    useless_max: int = 1000
    """Frames that achieve nothing (pings, empty data, settings), at once; as many per 4 s."""


class Connection:
    """Frames, windows and streams of one connection.

    `accept` is called with every new request (with None for headers that were too long) and
    returns who listens to it.
    """

    __slots__ = (
        "_accept",
        "_allowance",
        "_block",
        "_block_flags",
        "_block_id",
        "_calm",
        "_continuations",
        "_forgotten",
        "_greeted",
        "_last",
        "_late",
        "_now",
        "_reader",
        "_receive_window",
        "_resets",
        "_rest",
        "_uncredited",
        "begun",
        "fault",
        "leaving",
        "sender",
        "streams",
    )

    def __init__(self, accept: Accept, allowance: Allowance) -> None:
        self._accept = accept
        self._allowance = allowance
        self._reader = HeaderReader()
        self.sender = Sender(self._answered)
        self.streams: dict[int, Stream] = {}
        """Those not yet over on both sides."""
        self.begun = False
        """The peer said its preface and its settings."""
        self.fault: ConnectionFault | None = None
        """Why the connection must end."""
        self.leaving = False
        """We said GOAWAY: new streams are not looked at."""
        self._rest = b""
        self._greeted = False
        self._now = 0.0
        self._last = 0
        self._block: bytearray | None = None
        self._block_id = self._block_flags = self._continuations = 0
        self._calm = Budget(allowance.useless_max, allowance.useless_max / 4)
        self._resets = Budget(allowance.resets_max, allowance.resets_max / 4)
        # Streams we answered early, and what their senders may still send; the newest of
        # those we no longer remember.
        self._late: dict[int, int] = {}
        self._forgotten = 0
        self._receive_window = max(4 * allowance.window_bytes, wire.WINDOW_DEFAULT)
        self._uncredited = 0
        settings = {
            wire.MAX_CONCURRENT_STREAMS: allowance.streams_max,
            wire.INITIAL_WINDOW_SIZE: allowance.window_bytes,
            wire.MAX_HEADER_LIST_SIZE: LIST_BYTES_MAX,
        }
        self.sender.put(frame(wire.SETTINGS, 0, 0, wire.settings_payload(settings)))
        more = self._receive_window - wire.WINDOW_DEFAULT
        if more:
            self.sender.put(frame(wire.WINDOW_UPDATE, 0, 0, wire.number(more)))

    def receive(self, data: bytes, now: float) -> None:
        """Take in bytes of the peer at `now` (monotonic seconds)."""
        if self.fault is not None:
            return
        self._now = now
        try:
            self._receive(self._rest + data if self._rest else data)
            if self.sender.held and self.sender.untaken > UNTAKEN_BYTES_MAX:
                raise ConnectionFault(wire.ENHANCE_YOUR_CALM, "answers are left unread")
        except ConnectionFault as fault:
            self.fail(fault)

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection because of `fault`; its streams are cut."""
        if self.fault is None:
            self.fault = fault
            self._rest = b""
            self.goodbye(fault.code, str(fault))
            self.lost()

    def lost(self) -> None:
        """The transport is gone, or soon will be: every stream is cut."""
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.close().cut()

    def goodbye(self, code: int = wire.NO_ERROR, text: str = "") -> None:
        """Tell the peer that nothing new is looked at (GOAWAY); streams may go on."""
        self.leaving = True
        payload = wire.number(self._last) + wire.number(code) + text.encode()
        self.sender.put(frame(wire.GOAWAY, 0, 0, payload))

    # What streams ask for.

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream from our side."""
        self.sender.put(frame(wire.RST_STREAM, 0, stream.id, wire.number(code)))
        self._forget(stream)

    def credit(self, stream: Stream, size: int) -> None:
        """Let the peer send more on a stream, in steps worth a frame."""
        stream.uncredited += size
        if stream.uncredited >= self._allowance.window_bytes // 4:
            size, stream.uncredited = stream.uncredited, 0
            stream.receive_window += size
            self.sender.put(frame(wire.WINDOW_UPDATE, 0, stream.id, wire.number(size)))

    def _answered(self, stream: Stream) -> None:
        """An answer is complete; what is left of its request is not wanted (RFC 9113 8.1)."""
        if stream.ended:
            stream.close()
            self.streams.pop(stream.id, None)
        else:
            self.reset(stream, wire.NO_ERROR)

    def _forget(self, stream: Stream) -> None:
        stream.close()
        if self.streams.pop(stream.id, None) is None or stream.ended:
            return
        self._late[stream.id] = stream.receive_window
        if len(self._late) > LATE_MAX:
            oldest = next(iter(self._late))
            del self._late[oldest]
            self._forgotten = max(self._forgotten, oldest)

    # What comes in.

    def _receive(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._greeted:
            if data[: len(wire.PREFACE)] != wire.PREFACE[:end]:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "no HTTP/2 preface")
            if end < len(wire.PREFACE):
                self._rest = data
                return
            self._greeted = True
            at = len(wire.PREFACE)
        while end - at >= wire.HEAD_BYTES:
            high, low, kind, flags, number = wire.HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > wire.FRAME_BYTES_MAX:
                raise ConnectionFault(wire.FRAME_SIZE_ERROR, f"frame of {size} bytes")
            stop = at + wire.HEAD_BYTES + size
            if stop > end:
                break
            self._frame(kind, flags, number & wire.WINDOW_MAX, data[at + wire.HEAD_BYTES : stop])
            at = stop
        self._rest = data[at:] if at < end else b""

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if not self.begun:
            if kind != wire.SETTINGS or flags & wire.ACK:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "no SETTINGS behind the preface")
            self.begun = True
        if self._block is not None and (kind != wire.CONTINUATION or number != self._block_id):
            raise ConnectionFault(wire.PROTOCOL_ERROR, "header block interrupted")
        try:
            if kind < len(_RULES):
                _RULES[kind](self, number, flags, payload)
            else:
                self._useless()
        except StreamFault as fault:
            self._fail_stream(number, fault)

    def _fail_stream(self, number: int, fault: StreamFault) -> None:
        self._useless()
        stream = self.streams.get(number)
        if stream is None:
            self.sender.put(frame(wire.RST_STREAM, 0, number, wire.number(fault.code)))
            return
        listener = stream.listener
        self.reset(stream, fault.code)
        listener.cut()

    def _useless(self) -> None:
        if not self._calm.spend(self._now):
            raise ConnectionFault(wire.ENHANCE_YOUR_CALM, "too many frames that achieve nothing")

    def _known(self, number: int, kind: str) -> Stream | None:
        """The open stream a frame is for; None when it is over. Raises for one that never was."""
        stream = self.streams.get(number)
        if stream is None and (number > self._last or not number & 1):
            if self.leaving and number & 1:
                return None
            raise ConnectionFault(wire.PROTOCOL_ERROR, f"{kind} on a stream that never was")
        return stream

    def _data(self, number: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "more data than the window allows")
        self._uncredited += size
        if self._uncredited >= self._allowance.window_bytes:
            # The bound on what is unread is the stream's window, so that one call that is
            # not read holds up no other.
            self.sender.put(frame(wire.WINDOW_UPDATE, 0, 0, wire.number(self._uncredited)))
            self._receive_window += self._uncredited
            self._uncredited = 0
        stream = self._known(number, "DATA")
        ended = bool(flags & wire.END_STREAM)
        if stream is None:
            self._late_data(number, size, ended)
            return
        if stream.ended:
            raise StreamFault(wire.STREAM_CLOSED, "data behind the end")
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(wire.FLOW_CONTROL_ERROR, "more data than the window allows")
        if flags & wire.PADDED:
            payload = wire.unpadded(payload, flags)
            stream.credit(size - len(payload))
        if ended:
            stream.ended = True
        elif not payload:
            self._useless()
        stream.listener.received(payload, ended)

    def _late_data(self, number: int, size: int, ended: bool) -> None:
        """Data of a request that was answered or reset before it was complete."""
        left = self._late.get(number)
        if left is None:
            if number > self._forgotten and not self.leaving:
                raise ConnectionFault(wire.STREAM_CLOSED, "data on a closed stream")
            self._useless()
            return
        if size > left:
            raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "more data than the window allows")
        if not size and not ended:
            self._useless()
        if ended:
            del self._late[number]
        else:
            self._late[number] = left - size

    def _headers(self, number: int, flags: int, payload: bytes) -> None:
        if not number & 1:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "a client's streams are odd")
        payload = wire.unpadded(payload, flags)
        if flags & wire.PRIORITISED:
            if len(payload) < 5:
                raise ConnectionFault(wire.FRAME_SIZE_ERROR, "HEADERS too short")
            payload = payload[5:]
        if flags & wire.END_HEADERS:
            self._request(number, flags, payload)
            return
        self._block = bytearray(payload)
        self._block_id, self._block_flags, self._continuations = number, flags, 0

    def _continuation(self, number: int, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._continuations += 1
        self._block += payload
        if self._continuations > CONTINUATIONS_MAX or len(self._block) > BLOCK_BYTES_MAX:
            raise ConnectionFault(wire.ENHANCE_YOUR_CALM, "header block too long")
        if flags & wire.END_HEADERS:
            block, self._block = bytes(self._block), None
            self._request(number, self._block_flags, block)

    def _request(self, number: int, flags: int, block: bytes) -> None:
        """A complete header block: a new stream, or the end of a request."""
        headers = self._reader.read(block)  # always, or the table would be wrong
        ended = bool(flags & wire.END_STREAM)
        if number <= self._last:
            self._trailers(number, ended)
            return
        if self.leaving:
            return
        self._last = number
        if len(self.streams) >= self._allowance.streams_max:
            self._withdrawn()
            if not ended:
                self._late[number] = self._allowance.window_bytes
            raise StreamFault(wire.REFUSED_STREAM, "too many streams")
        stream = Stream(
            self,
            self.sender,
            number,
            self._allowance.window_bytes,
            self.sender.initial_window,
        )
        stream.ended = ended
        self.streams[number] = stream
        stream.listener = self._accept(stream, headers)
        if ended:
            stream.listener.received(b"", True)

    def _trailers(self, number: int, ended: bool) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            if stream.ended:
                raise StreamFault(wire.STREAM_CLOSED, "headers behind the end")
            if not ended:
                raise StreamFault(wire.PROTOCOL_ERROR, "a second header block")
            stream.ended = True
            stream.listener.received(b"", True)
        elif self._late.pop(number, None) is None:
            if number > self._forgotten:
                raise ConnectionFault(wire.STREAM_CLOSED, "headers on a closed stream")
            self._useless()

    def _withdrawn(self) -> None:
        """Count a call that was begun for nothing (the rapid reset, CVE-2023-44487)."""
        if not self._resets.spend(self._now):
            raise ConnectionFault(wire.ENHANCE_YOUR_CALM, "too many calls withdrawn")

    def _priority(self, number: int, flags: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise StreamFault(wire.FRAME_SIZE_ERROR, "PRIORITY of the wrong size")
        self._useless()

    def _rst_stream(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "RST_STREAM of the wrong size")
        stream = self._known(number, "RST_STREAM")
        if stream is None:
            if self._late.pop(number, None) is None:
                self._useless()
            return
        stream.ended = True
        listener = stream.listener
        self._forget(stream)
        listener.cut()
        if not stream.answering:
            self._withdrawn()

    def _settings(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & wire.ACK:
            if payload:
                raise ConnectionFault(wire.FRAME_SIZE_ERROR, "SETTINGS of the wrong size")
            self._useless()
            return
        for name, value in wire.settings_in(payload).items():
            if name == wire.INITIAL_WINDOW_SIZE:
                self._resize_windows(value)
            elif name == wire.MAX_FRAME_SIZE:
                self.sender.frame_max = min(value, wire.FRAME_BYTES_MAX)
            elif name == wire.HEADER_TABLE_SIZE:
                self.sender.resize_table(value)
        self._useless()
        self.sender.put(frame(wire.SETTINGS, wire.ACK, 0))

    def _resize_windows(self, size: int) -> None:
        change = size - self.sender.initial_window
        self.sender.initial_window = size
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > wire.WINDOW_MAX:
                raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "window too large")
            self.sender.wake(stream)

    def _push_promise(self, number: int, flags: int, payload: bytes) -> None:
        raise ConnectionFault(wire.PROTOCOL_ERROR, "clients promise nothing")

    def _ping(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "PING of the wrong size")
        # Peers measure the line with a ping per round trip while we send them data.
        if not self.sender.take_fresh():
            self._useless()
        if not flags & wire.ACK:
            self.sender.put(frame(wire.PING, wire.ACK, 0, payload))

    def _goaway(self, number: int, flags: int, payload: bytes) -> None:
        """The peer opens no more streams; those it has go on, and it hangs up when it likes."""
        if number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "GOAWAY of the wrong size")
        self._useless()

    def _window_update(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "WINDOW_UPDATE of the wrong size")
        size = int.from_bytes(payload, "big") & wire.WINDOW_MAX
        if not number:
            if not size:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "window widened by nothing")
            self.sender.widen(size)
            return
        stream = self._known(number, "WINDOW_UPDATE")
        if not size:
            raise StreamFault(wire.PROTOCOL_ERROR, "window widened by nothing")
        if stream is None:
            return
        self.sender.widen_stream(stream, size)


_RULES = (
    Connection._data,
    Connection._headers,
    Connection._priority,
    Connection._rst_stream,
    Connection._settings,
    Connection._push_promise,
    Connection._ping,
    Connection._goaway,
    Connection._window_update,
    Connection._continuation,
)
