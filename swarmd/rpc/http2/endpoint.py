"""What both sides of an HTTP/2 connection do alike, without I/O: frames, windows, header blocks.

`receive` takes what the peer sent and never raises: a peer that breaks the rules ends up in
`fault`, with a GOAWAY in what the sender gives out next. Nothing a peer does costs more than
its own connection: windows bound what is buffered, budgets bound what is useless.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from swarmd.rpc.http2 import wire
from swarmd.rpc.http2.budget import Budget
from swarmd.rpc.http2.headers import LIST_BYTES_MAX, HeaderReader
from swarmd.rpc.http2.sender import Sender
from swarmd.rpc.http2.stream import Stream
from swarmd.rpc.http2.wire import ConnectionFault, StreamFault, frame

BLOCK_BYTES_MAX = 2 * LIST_BYTES_MAX
"""An encoded header block; one that is longer cannot be meant well."""
CONTINUATIONS_MAX = 8
UNTAKEN_BYTES_MAX = 4 << 20
"""Frames other than data that wait for a peer who reads nothing."""
LATE_MAX = 4096
"""Streams we ended early whose peers may still be sending."""

AnyStream = TypeVar("AnyStream", bound=Stream)
_Rule = Callable[[Any, int, int, bytes], None]


class Endpoint(abc.ABC, Generic[AnyStream]):
    """Frames, windows and streams of one connection; `Connection` serves, `Outgoing` asks."""

    __slots__ = (
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
        "_rest",
        "_uncredited",
        "_window_bytes",
        "begun",
        "fault",
        "leaving",
        "sender",
        "streams",
    )

    _rules: ClassVar[tuple[_Rule, ...]]
    """What is done with a frame, by its type."""

    def __init_subclass__(cls) -> None:
        """Look the rules up once, rather than with every frame."""
        super().__init_subclass__()
        cls._rules = tuple(getattr(cls, name) for name in _RULES)

    def __init__(
        self, window_bytes: int, useless_max: int, settings: dict[int, int], preface: bytes = b""
    ) -> None:
        """`window_bytes`: what one stream may bring unread; the connection gets four times as
        much. `useless_max`: frames that achieve nothing, at once; as many per 4 s."""
        self._window_bytes = window_bytes
        self._reader = HeaderReader()
        self.sender = Sender(self._sent)
        self.streams: dict[int, AnyStream] = {}
        """Those not yet over on both sides."""
        self.begun = False
        """The peer said its settings (and, to a server, its preface)."""
        self.fault: ConnectionFault | None = None
        """Why the connection must end."""
        self.leaving = False
        """We said GOAWAY: new streams are not looked at."""
        self._rest = b""
        self._greeted = bool(preface)  # who says one waits for none
        self._now = 0.0
        self._last = 0  # the newest stream of the client, whichever side that is
        self._block: bytearray | None = None
        self._block_id = self._block_flags = self._continuations = 0
        self._calm = Budget(useless_max, useless_max / 4)
        # Streams we ended early, and what their peers may still send; the newest of those we
        # no longer remember.
        self._late: dict[int, int] = {}
        self._forgotten = 0
        self._receive_window = max(4 * window_bytes, wire.WINDOW_DEFAULT)
        self._uncredited = 0
        settings = settings | {
            wire.INITIAL_WINDOW_SIZE: window_bytes,
            wire.MAX_HEADER_LIST_SIZE: LIST_BYTES_MAX,
        }
        self.sender.put(preface + frame(wire.SETTINGS, 0, 0, wire.settings_payload(settings)))
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
        payload = wire.number(self._newest_of_peer()) + wire.number(code) + text.encode()
        self.sender.put(frame(wire.GOAWAY, 0, 0, payload))

    def _newest_of_peer(self) -> int:
        """The newest stream of the peer's that was looked at."""
        return self._last

    # What streams ask for.

    def reset(self, stream: AnyStream, code: int) -> None:
        """End a stream from our side."""
        self.sender.put(frame(wire.RST_STREAM, 0, stream.id, wire.number(code)))
        self._forget(stream)

    def credit(self, stream: AnyStream, size: int) -> None:
        """Let the peer send more on a stream, in steps worth a frame."""
        stream.uncredited += size
        if stream.uncredited >= self._window_bytes // 4:
            size, stream.uncredited = stream.uncredited, 0
            stream.receive_window += size
            self.sender.put(frame(wire.WINDOW_UPDATE, 0, stream.id, wire.number(size)))

    @abc.abstractmethod
    def _sent(self, stream: Stream) -> None:
        """The last frame we send on a stream was made."""

    @abc.abstractmethod
    def _greeting(self, data: bytes) -> int:
        """Where the peer's frames begin; `_greeted` is set once that is known."""

    @abc.abstractmethod
    def _fields(self, number: int, flags: int, block: bytes) -> None:
        """A header block is complete."""

    def _forget(self, stream: AnyStream) -> None:
        stream.close()
        if self.streams.pop(stream.id, None) is None or stream.ended:
            return
        self._expect_late(stream.id, stream.receive_window)

    def _expect_late(self, number: int, size: int) -> None:
        """The peer may still send so much on a stream that is over for us."""
        self._late[number] = size
        if len(self._late) > LATE_MAX:
            oldest = next(iter(self._late))
            del self._late[oldest]
            self._forgotten = max(self._forgotten, oldest)

    # What comes in.

    def _receive(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._greeted:
            at = self._greeting(data)
            if not self._greeted:
                self._rest = data
                return
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
                raise ConnectionFault(wire.PROTOCOL_ERROR, "no SETTINGS at first")
            self.begun = True
        if self._block is not None and (kind != wire.CONTINUATION or number != self._block_id):
            raise ConnectionFault(wire.PROTOCOL_ERROR, "header block interrupted")
        try:
            if kind < len(_RULES):
                self._rules[kind](self, number, flags, payload)
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

    def _known(self, number: int, kind: str) -> AnyStream | None:
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
        if self._uncredited >= self._window_bytes:
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
            self._fields(number, flags, payload)
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
            self._fields(number, self._block_flags, block)

    def _priority(self, number: int, flags: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise StreamFault(wire.FRAME_SIZE_ERROR, "PRIORITY of the wrong size")
        self._useless()

    @abc.abstractmethod
    def _rst_stream(self, number: int, flags: int, payload: bytes) -> None:
        """The peer ends a stream."""

    def _reset_stream(self, number: int, payload: bytes) -> AnyStream | None:
        """The open stream that a RST_STREAM ends."""
        if len(payload) != 4:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "RST_STREAM of the wrong size")
        stream = self._known(number, "RST_STREAM")
        if stream is not None:
            stream.ended = True
        elif self._late.pop(number, None) is None:
            self._useless()
        return stream

    def _settings(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & wire.ACK:
            if payload:
                raise ConnectionFault(wire.FRAME_SIZE_ERROR, "SETTINGS of the wrong size")
            self._useless()
            return
        for name, value in wire.settings_in(payload).items():
            self._setting(name, value)
        self._useless()
        self.sender.put(frame(wire.SETTINGS, wire.ACK, 0))

    def _setting(self, name: int, value: int) -> None:
        """Follow one setting of the peer."""
        if name == wire.INITIAL_WINDOW_SIZE:
            self._resize_windows(value)
        elif name == wire.MAX_FRAME_SIZE:
            self.sender.frame_max = min(value, wire.FRAME_BYTES_MAX)
        elif name == wire.HEADER_TABLE_SIZE:
            self.sender.resize_table(value)

    def _resize_windows(self, size: int) -> None:
        change = size - self.sender.initial_window
        self.sender.initial_window = size
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > wire.WINDOW_MAX:
                raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "window too large")
            self.sender.wake(stream)

    def _push_promise(self, number: int, flags: int, payload: bytes) -> None:
        raise ConnectionFault(wire.PROTOCOL_ERROR, "nothing may be promised")

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
    "_data",
    "_headers",
    "_priority",
    "_rst_stream",
    "_settings",
    "_push_promise",
    "_ping",
    "_goaway",
    "_window_update",
    "_continuation",
)
