"""One connection of the server in the event loop: calls to their tasks, answers to the link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from swarmd.base.errors import Code
from swarmd.rpc.http2 import request as written
from swarmd.rpc.http2 import wire
from swarmd.rpc.http2.call import Call
from swarmd.rpc.http2.connection import Allowance
from swarmd.rpc.http2.connection import Connection as Protocol2
from swarmd.rpc.http2.headers import LIST_BYTES_MAX, Header
from swarmd.rpc.http2.plain import PlainEnd, Transport
from swarmd.rpc.http2.request import Refused, Request
from swarmd.rpc.http2.shortcut import AnswerAtOnce, Shortcut
from swarmd.rpc.http2.stream import NOBODY, Listener, Stream
from swarmd.rpc.http2.wire import StreamFault
from swarmd.rpc.registry import Connection

Answer = Callable[[Call], Coroutine[Any, Any, None]]


class Desk(Protocol):
    """Whoever answers calls."""

    def find(self, path: bytes) -> Answer:
        """The code that answers calls of `path`. Raises `Refused`."""
        ...

    def find_at_once(self, path: bytes) -> AnswerAtOnce | None:
        """The code that answers such a call here and now without a task, if there is any."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run the answer to one call."""
        ...

    def ended(self, call: Call) -> None:
        """A call is over and its task done."""
        ...


class Line(PlainEnd[Protocol2]):
    """The plain end of one TLS connection (a `swarmd.rpc.link.Partner`)."""

    __slots__ = (
        "_connection",
        "_desk",
        "_lost",
        "_reader",
        "_running_max",
        "_timer",
        "calls",
    )

    def __init__(
        self,
        link: Transport,
        connection: Connection,
        desk: Desk,
        allowance: Allowance,
        lost: Callable[[Line], None],
    ) -> None:
        super().__init__(link, Protocol2(self._accept, allowance))
        self._connection = connection
        self._desk = desk
        self._lost: Callable[[Line], None] | None = lost
        self._reader = written.Reader()
        self._running_max = 2 * allowance.streams_max
        self._timer: asyncio.TimerHandle | None = None
        self.calls: set[Call] = set()
        """Calls whose tasks are not done."""

    @property
    def begun(self) -> bool:
        """True once the peer said that it speaks HTTP/2."""
        return self._protocol.begun

    @property
    def idle(self) -> bool:
        """True when nothing is under way: no task, and no answer that waits to go out."""
        return not self.calls and not self._protocol.streams

    def begin(self, seconds: float, late: Callable[[], None]) -> None:
        """Say hello; `late` is called when the peer has not after `seconds`."""
        self._timer = self._loop.call_later(seconds, late)
        self._flush()

    def goodbye(self) -> None:
        """Take no new calls; those under way go on."""
        if not self._protocol.leaving:
            self._protocol.goodbye()
            self._flush()

    # For the link (a `Partner`).

    def send(self, data: bytes) -> None:
        """Bytes of the peer (called by the link)."""
        super().send(data)
        if self._timer is not None and self._protocol.begun:
            self._timer.cancel()
            self._timer = None

    def finish(self) -> None:
        """The connection is over (called by the link)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._protocol.lost()
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(self)

    def _accept(self, stream: Stream, headers: list[Header] | None) -> Listener:
        """Begin a call, or refuse it."""
        if len(self.calls) >= self._running_max:
            raise StreamFault(wire.REFUSED_STREAM, "too many calls under way")
        try:
            if headers is None:
                text = f"received metadata size exceeds the limit of {LIST_BYTES_MAX} bytes"
                raise Refused(Code.RESOURCE_EXHAUSTED, text, 431)
            request = self._reader.read(headers)
            if at_once := self._desk.find_at_once(request.path):
                return Shortcut(request, stream, self._connection, at_once, self._begin_call)
            return self._begin_call(request, stream)
        except Refused as refusal:
            stream.finish(written.only_tail(refusal.code, str(refusal), refusal.http))
            return NOBODY

    def _begin_call(self, request: Request, stream: Stream) -> Listener:
        """A call with a task of its own. Raises `Refused`."""
        answer = self._desk.find(request.path)
        call = Call(request, stream, self._connection, self.kick, self._loop)
        self.calls.add(call)
        call.task = self._desk.spawn(answer(call), "rpc-call")
        call.task.add_done_callback(lambda _: self._done(call))
        return call

    def _done(self, call: Call) -> None:
        self.calls.discard(call)
        call.task = None
        # A task that was stopped from outside leaves its caller without an answer.
        call.end(Code.UNAVAILABLE, "transport is closing")
        self._desk.ended(call)
