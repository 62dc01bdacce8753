"""What goes out on a connection: frames in order, data within the peer's windows and in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from swarmd.rpc.http2 import wire
from swarmd.rpc.http2.stream import Stream
from swarmd.rpc.http2.wire import HEAD, ConnectionFault, StreamFault, frame

TAKE_BYTES = 65_536
"""How much is given out at once."""


class Sender:
    """Collects frames until they are taken; data that has no window waits with its stream.

    `sent` is called when the last frame we send on a stream was made.
    """

    __slots__ = (
        "_fresh",
        "_out",
        "_ready",
        "_sent",
        "_table_update",
        "_window",
        "frame_max",
        "held",
        "initial_window",
        "untaken",
    )

    def __init__(self, sent: Callable[[Stream], None]) -> None:
        self._sent = sent
        self._out: list[bytes] = []
        self._ready: deque[Stream] = deque()
        self._window = self.initial_window = wire.WINDOW_DEFAULT
        self._table_update = b""
        self._fresh = False
        self.frame_max = wire.FRAME_BYTES_MAX
        self.untaken = 0
        """Bytes waiting to be taken."""
        self.held = False
        """The transport takes no more for now: nothing is given out."""

    def put(self, data: bytes) -> None:
        """Add one or more whole frames."""
        self._out.append(data)
        self.untaken += len(data)

    def take(self) -> bytes:
        """What can go out now, about `TAKE_BYTES` at a time; empty when nothing can."""
        if self.held:
            return b""
        if self._ready:
            self._pump()
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.untaken = 0
        return data

    # What streams send.

    def headers(self, stream: Stream, block: bytes, flags: int) -> None:
        """One header block; with END_STREAM in `flags` it is the end of the answer."""
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        stream.answering = self._fresh = True
        self.put(wire.headers_frames(stream.id, block, flags, self.frame_max))
        if flags & wire.END_STREAM:
            self._sent(stream)

    def data(self, stream: Stream, data: bytes) -> None:
        """Data of a stream; it waits with the stream until there is a window for it."""
        size = len(data)
        if not stream.pending and not self.held and self._fits(stream, size):
            self._window -= size
            stream.send_window -= size
            self._fresh = True
            self.put(frame(wire.DATA, 0, stream.id, data))
            return
        if stream.pending is None:
            stream.pending = deque()
        stream.pending.append(memoryview(data))
        self.wake(stream)

    def finish(self, stream: Stream, block: bytes) -> None:
        """Trailers, behind all data; without any (as requests end) just the end."""
        if stream.pending:
            stream.tail = block
        else:
            self._end(stream, block)

    def _end(self, stream: Stream, block: bytes) -> None:
        if block:
            self.headers(stream, block, wire.END_STREAM)
        else:
            self.put(frame(wire.DATA, wire.END_STREAM, stream.id))
            self._sent(stream)

    def respond(self, stream: Stream, head: bytes, data: bytes, tail: bytes) -> None:
        """Headers, one message and trailers; in the usual case as one piece of bytes."""
        size = len(data)
        if self._table_update or self.held or not self._fits(stream, size):
            self.headers(stream, head, 0)
            self.data(stream, data)
            self.finish(stream, tail)
            return
        self._window -= size
        stream.send_window -= size
        number, end = stream.id, wire.END_HEADERS | wire.END_STREAM
        self.put(
            b"".join(
                (
                    HEAD.pack(0, len(head), wire.HEADERS, wire.END_HEADERS, number),
                    head,
                    HEAD.pack(size >> 8, size & 0xFF, wire.DATA, 0, number),
                    data,
                    HEAD.pack(0, len(tail), wire.HEADERS, end, number),
                    tail,
                )
            )
        )
        self._sent(stream)

    def ask(self, stream: Stream, head: bytes, data: bytes) -> None:
        """Headers and one message, which is all; in the usual case as one piece of bytes."""
        size, length = len(data), len(head)
        if (
            self._table_update
            or self.held
            or length > self.frame_max
            or not self._fits(stream, size)
        ):
            self.headers(stream, head, 0)
            self.data(stream, data)
            self.finish(stream, b"")
            return
        self._window -= size
        stream.send_window -= size
        self._fresh = True
        number = stream.id
        self.put(
            b"".join(
                (
                    HEAD.pack(length >> 8, length & 0xFF, wire.HEADERS, wire.END_HEADERS, number),
                    head,
                    HEAD.pack(size >> 8, size & 0xFF, wire.DATA, wire.END_STREAM, number),
                    data,
                )
            )
        )
        self._sent(stream)

    def _fits(self, stream: Stream, size: int) -> bool:
        return size <= self._window and size <= stream.send_window and size <= self.frame_max

    def take_fresh(self) -> bool:
        """True once after something was answered or sent."""
        fresh, self._fresh = self._fresh, False
        return fresh

    # What the peer allows.

    def wake(self, stream: Stream) -> None:
        """Queue a stream that has data and a window."""
        if stream.pending and stream.send_window > 0 and not stream.queued:
            stream.queued = True
            self._ready.append(stream)

    def widen(self, size: int) -> None:
        """The peer widens the connection's window. Raises `ConnectionFault`."""
        self._window += size
        if self._window > wire.WINDOW_MAX:
            raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "window too large")

    def widen_stream(self, stream: Stream, size: int) -> None:
        """The peer widens a stream's window. Raises `StreamFault`."""
        stream.send_window += size
        if stream.send_window > wire.WINDOW_MAX:
            raise StreamFault(wire.FLOW_CONTROL_ERROR, "window too large")
        self.wake(stream)

    def resize_table(self, size: int) -> None:
        """The peer limits the table it decodes with: say once that we use none."""
        if size < wire.TABLE_DEFAULT:
            self._table_update = b"\x20"

    def _pump(self) -> None:
        """Move waiting data out, one frame of each stream in turn."""
        ready = self._ready
        while ready and self._window > 0 and self.untaken < TAKE_BYTES:
            stream = ready.popleft()
            stream.queued = False
            pending = stream.pending
            if not pending or stream.over:
                continue
            first = pending[0]
            size = min(len(first), self._window, stream.send_window, self.frame_max)
            if size <= 0:
                continue  # its window shrank; `wake` brings it back
            self._window -= size
            stream.send_window -= size
            self._fresh = True
            self.put(frame(wire.DATA, 0, stream.id, bytes(first[:size])))
            if size < len(first):
                pending[0] = first[size:]
            else:
                pending.popleft()
            if pending:
                self.wake(stream)
            elif stream.tail is not None:
                self._end(stream, stream.tail)
            else:
                stream.listener.drained()
