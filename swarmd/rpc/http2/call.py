"""One call as the code that answers it sees it: read requests, write answers, end.

A call that is withdrawn, cut off, over its deadline or not acceptable ends at once for its
caller, and its task is cancelled; so `read` never mistakes half a request for a whole one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from swarmd.base.errors import Code
from swarmd.rpc.http2 import request as written
from swarmd.rpc.http2.messages import Messages, Oversized, framed
from swarmd.rpc.http2.request import Metadata, Refused, Request
from swarmd.rpc.http2.stream import Stream
from swarmd.rpc.registry import Connection

TIMER_SECONDS_MAX = 10.0 * 86_400
"""Deadlines further off than this are not watched."""


class Call:
    """A call under way. `connection` says who made it."""

    __slots__ = (
        "_begun",
        "_deadline",
        "_kick",
        "_loop",
        "_messages",
        "_queue",
        "_reader",
        "_stream",
        "_timer",
        "_unread",
        "_writer",
        "code",
        "connection",
        "metadata",
        "oversized",
        "path",
        "task",
    )

    def __init__(
        self,
        request: Request,
        stream: Stream,
        connection: Connection,
        kick: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.connection = connection
        self.path = request.path
        self.metadata: Metadata = request.metadata
        self.code: Code | None = None
        """How the call ended for its caller; None while it goes on."""
        self.oversized = False
        """It ended because a message was too large."""
        self.task: asyncio.Task[Any] | None = None
        self._stream = stream
        self._kick = kick
        self._loop = loop
        self._begun = False
        self._messages = Messages()
        self._queue: deque[bytes] | None = None
        self._unread = 0
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if request.timeout is not None:
            self._deadline = loop.time() + request.timeout
            if request.timeout < TIMER_SECONDS_MAX:
                self._timer = loop.call_later(request.timeout, self._expired)

    # For the code that answers.

    def time_remaining(self) -> float | None:
        """Seconds until the caller gives up; None when it does not."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    async def read(self) -> bytes | None:
        """The next request message; None once all were read and the caller is done.

        One reader at a time. The caller may send on only as far as its messages are read.
        """
        while True:
            self._check_open()
            if self._queue:
                message = self._queue.popleft()
                if not self._queue:
                    self._took(self._unread)
                return message
            if self._stream.ended:
                return None
            self._took(self._unread)
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    async def write(self, message: bytes) -> None:
        """Send one answer; returns once it has gone out, which a slow caller delays."""
        self._check_open()
        stream = self._stream
        if not self._begun:
            self._begun = True
            stream.head(written.HEAD)
        stream.send(framed(message))
        self._kick()
        while stream.pending and not stream.over:
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        self._check_open()

    def answer(self, message: bytes) -> None:
        """Send the one answer of a call; it is over then."""
        if self._over(Code.OK):
            return
        if self._begun:
            self._stream.send(framed(message))
            self._stream.finish(written.OK_TAIL)
        else:
            self._stream.respond(written.HEAD, framed(message), written.OK_TAIL)
        self._kick()

    def end(self, code: Code, text: str = "", http: int = 200) -> None:
        """End the call with a status, unless it is over."""
        if self._over(code):
            return
        if self._begun:
            self._stream.finish(written.tail(code, text))
        elif code is Code.OK:
            self._stream.head(written.HEAD)
            self._stream.finish(written.OK_TAIL)
        else:
            self._stream.finish(written.only_tail(code, text, http))
        self._kick()

    # For the connection.

    def received(self, data: bytes, ended: bool) -> None:
        """More of the request (called by the connection)."""
        if self.code is not None:
            return
        if data:
            self._unread += len(data)
            try:
                found = self._messages.feed(data)
            except Refused as refusal:
                self.oversized = isinstance(refusal, Oversized)
                self._abort(refusal.code, str(refusal))
                return
            if found:
                if self._queue is None:
                    self._queue = deque()
                self._queue += found
            elif self._reader is not None:
                self._took(self._unread)
        if ended and self._messages.partial:
            self._abort(Code.INTERNAL, "unexpected EOF")
        elif self._reader is not None and (ended or self._queue) and not self._reader.done():
            self._reader.set_result(None)

    def cut(self) -> None:
        """The caller is gone or gave up (called by the connection)."""
        if not self._over(Code.CANCELLED):
            self._cancel()

    def drained(self) -> None:
        """All answers so far went out (called by the connection)."""
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _took(self, size: int) -> None:
        if size:
            self._unread -= size
            if not self._stream.ended:
                self._stream.credit(size)
                self._kick()

    def _expired(self) -> None:
        self._timer = None
        self._abort(Code.DEADLINE_EXCEEDED, "context deadline exceeded")

    def _abort(self, code: Code, text: str) -> None:
        """End the call from below: its caller is told, its task cancelled."""
        if self._stream.pending:
            # A message is half sent, and its caller slow; no status would get through.
            self._over(code)
            self._stream.reset()
            self._kick()
        else:
            self.end(code, text)
        self._cancel()

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _over(self, code: Code) -> bool:
        """Note how the call ends; True when it is over already."""
        if self.code is not None:
            return True
        self.code = code
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return False

    def _check_open(self) -> None:
        if self.code is not None:
            raise asyncio.CancelledError
