"""Calls between managers: unary ones by our own HTTP/2, straight on the TLS connection.

Raft's messages and what followers hand on to their leader are unary calls, many a second; a
call costs a future and a timer here, no task and no second connection within the process.
The few streams (snapshots, streams handed on) go by a `WireCaller` to the same address, which
is made, and gRPC's library loaded, when the first of them is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import DeadlineExceeded, SwarmError
from swarmd.rpc import methods
from swarmd.rpc.dialled import Dialled, open_link
from swarmd.rpc.http2 import response
from swarmd.rpc.http2.exchange import DEADLINE, Exchange
from swarmd.rpc.http2.messages import framed
from swarmd.rpc.http2.outgoing import Outgoing, disconnected
from swarmd.rpc.http2.plain import PlainEnd
from swarmd.rpc.peer import ClosedHere, Metadata
from swarmd.rpc.reconnect import CLOSING, Reconnecting
from swarmd.rpc.streams import as_generator
from swarmd.rpc.tls import Credentials

if TYPE_CHECKING:
    from swarmd.rpc.wirecaller import WireCaller

TIMER_SECONDS_MAX = 10.0 * 86_400
"""Deadlines further off than this are not watched."""


class UnaryCaller(Reconnecting["_Line"]):
    """A `Caller` for managers; made by `client.dial_manager`."""

    def __init__(
        self,
        addr: str,
        credentials: Credentials,
        server_name: str,
        timeout: float,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        super().__init__(addr, credentials, server_name, timeout, clock)
        self._entropy = entropy
        self._streaming: WireCaller | None = None

    async def unary(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Any:
        """Send one message, return one."""
        found = methods.find(method)
        self._calls += 1
        try:
            line = self._line
            if line is None or not line.usable:
                line, timeout = await self._line_in_time(timeout)
            block = response.head(found.path, self._authority)
            if metadata:
                block += response.metadata_fields(metadata)
            raw = await line.call(block, request.SerializeToString(), timeout)
        finally:
            self._calls -= 1
            if self._retiring and not self._calls:
                await self.close()
        return found.parse(raw)

    async def server_stream(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> AsyncIterator[Any]:
        """Send one message, iterate the answers; `aclose()` cancels the call."""
        async with self._under_way():
            answers = self._streams().server_stream(
                method, request, timeout=timeout, metadata=metadata
            )
            async with aclosing(as_generator(answers)) as open_answers:
                async for answer in open_answers:
                    yield answer

    async def client_stream(
        self,
        method: str,
        requests: AsyncIterable[Any],
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Any:
        """Send all of `requests`, return the one answer."""
        async with self._under_way():
            return await self._streams().client_stream(
                method, requests, timeout=timeout, metadata=metadata
            )

    async def close(self) -> None:
        """End the connections; calls under way fail. Closing twice is fine."""
        await super().close()
        if self._streaming is not None:
            await self._streaming.close()

    def _streams(self) -> WireCaller:
        """The caller for streams; it connects by itself."""
        self._check_open()
        if self._streaming is None:
            from swarmd.rpc.wirecaller import WireCaller

            self._streaming = WireCaller(
                self.addr,
                self.credentials,
                self._server_name,
                self._timeout,
                self._clock,
                self._entropy,
            )
        return self._streaming

    async def _line_in_time(self, timeout: float | None) -> tuple[_Line, float | None]:
        """A new connection, and how much of the call's time is left behind it."""
        if timeout is None:
            return await self._get_line(), None
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        line = await self._get_line(timeout)
        return line, end - loop.time()

    async def _open(self) -> _Line:
        link = await open_link(self.addr, self.credentials, self._server_name, self._clock)
        return _Line(link)


class _Line(PlainEnd[Outgoing]):
    """One connection in the event loop (a `reconnect.Line` and a `link.Partner`)."""

    __slots__ = ("link",)

    def __init__(self, link: Dialled) -> None:
        super().__init__(link, Outgoing())
        self.link = link
        link.attach(self)
        self._flush()

    @property
    def usable(self) -> bool:
        """False once the connection is over, or its server said goodbye (GOAWAY)."""
        return not self.link.closing and self._protocol.usable

    @property
    def lost(self) -> bool:
        """True once the connection is over."""
        return self.link.closing

    async def call(self, block: bytes, message: bytes, timeout: float | None) -> bytes | None:
        """One call: the answer's message, or None when it ended well without any."""
        loop = self._loop
        answer: asyncio.Future[bytes | None] = loop.create_future()
        timer, deadline = None, None
        if timeout is not None:
            if timeout <= 0:
                raise DeadlineExceeded(DEADLINE)
            block += response.timeout_field(timeout)
            deadline = loop.time() + timeout
        exchange = self._protocol.ask(answer, block, framed(message), deadline)
        if timeout is not None and timeout < TIMER_SECONDS_MAX:
            timer = loop.call_later(timeout, self._expired, exchange)
        self.kick()
        try:
            return await answer
        finally:
            if timer is not None:
                timer.cancel()
            if answer.cancelled():
                exchange.withdraw()
                self.kick()

    async def close(self) -> None:
        """Hang up; calls under way fail with `ClosedHere`."""
        self._end(_closed_here)
        self.link.finish()

    def finish(self) -> None:
        """The connection is over (called by the link)."""
        reason = self.link.reason
        self._end(lambda: disconnected(reason))

    def _end(self, why: Callable[[], SwarmError]) -> None:
        self._protocol.why = why
        self._protocol.lost()

    def _expired(self, exchange: Exchange) -> None:
        exchange.expire()
        self.kick()

    def _flush(self) -> None:
        super()._flush()
        if not self._protocol.usable and not self._protocol.streams:
            self.link.finish()  # the server said goodbye, and the last call is over


def _closed_here() -> SwarmError:
    return ClosedHere(CLOSING)
