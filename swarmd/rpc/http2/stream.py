"""One stream as the connection sees it: what may still be sent and received, and who listens."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from swarmd.rpc.http2.wire import CANCEL

if TYPE_CHECKING:
    from swarmd.rpc.http2.endpoint import Endpoint
    from swarmd.rpc.http2.sender import Sender


class Listener(Protocol):
    """Whoever answers a stream."""

    def received(self, data: bytes, ended: bool) -> None:
        """More of the request; `ended` when this was all of it."""
        ...

    def cut(self) -> None:
        """The stream is over before its time: reset, or its connection broke."""
        ...

    def drained(self) -> None:
        """Everything sent so far has gone out."""
        ...


class Nobody:
    """Listens to a stream that was answered at once."""

    def received(self, data: bytes, ended: bool) -> None:
        """Ignore it."""

    def cut(self) -> None:
        """Ignore it."""

    def drained(self) -> None:
        """Ignore it."""


NOBODY = Nobody()


class Stream:
    """One request and its answer. Kept by its `Endpoint` until both sides are done."""

    __slots__ = (
        "_connection",
        "_sender",
        "answering",
        "ended",
        "id",
        "listener",
        "over",
        "pending",
        "queued",
        "receive_window",
        "send_window",
        "tail",
        "uncredited",
    )

    def __init__(
        self, connection: Endpoint[Any], sender: Sender, number: int, receive: int, send: int
    ) -> None:
        self._connection = connection
        self._sender = sender
        self.id = number
        self.listener: Listener = NOBODY
        self.receive_window = receive
        """What the peer may still send."""
        self.send_window = send
        """What we may still send; below zero after the peer made its windows smaller."""
        self.uncredited = 0
        """Bytes taken in by the listener that the peer has not been told of."""
        self.answering = False
        """The answer has begun."""
        self.ended = False
        """The request is complete."""
        self.over = False
        """Nothing more can be sent: the answer is complete, or the stream was reset."""
        self.pending: deque[memoryview] | None = None
        """Data that waits for a window."""
        self.tail: bytes | None = None
        """Trailers that wait behind `pending`."""
        self.queued = False
        """In the sender's queue of streams that have something to send."""

    def head(self, block: bytes) -> None:
        """Send the header block that begins the answer."""
        if not self.over:
            self._sender.headers(self, block, 0)

    def send(self, data: bytes) -> None:
        """Send data, now or when the windows allow; `drained` tells when it has gone out."""
        if not self.over and self.tail is None:
            self._sender.data(self, data)

    def finish(self, block: bytes) -> None:
        """Send trailers behind all data; the answer is complete then."""
        if not self.over and self.tail is None:
            self._sender.finish(self, block)

    def respond(self, head: bytes, data: bytes, tail: bytes) -> None:
        """A whole answer at once."""
        if not self.over:
            self._sender.respond(self, head, data, tail)

    def close(self) -> Listener:
        """Nothing goes either way any more; returns who listened.

        Stream and listener know each other: letting go here spares the garbage collector.
        """
        listener, self.listener = self.listener, NOBODY
        self.over = True
        self.pending = None
        return listener

    def reset(self, code: int = CANCEL) -> None:
        """End the stream without an answer, or without the rest of it."""
        if not self.over:
            self._connection.reset(self, code)

    def credit(self, size: int) -> None:
        """The listener took in `size` bytes: the peer may send as many more."""
        if not self.ended and not self.over:
            self._connection.credit(self, size)
