"""Calls to a manager: a gRPC channel on a tunnel, speaking our words and our errors.

A caller outlives its connection: when that breaks, calls under way fail with
`Disconnected`, and the next call connects and verifies anew within its own task. Nothing
is retried here. Credentials are fixed; after a renewal dial again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import (
    DeadlineExceeded,
    Internal,
    SwarmError,
    Unavailable,
    error_for,
)
from swarmd.rpc import methods
from swarmd.rpc.methods import Method
from swarmd.rpc.names import CA_NAME
from swarmd.rpc.peer import ClosedHere, Disconnected, Metadata
from swarmd.rpc.streams import being_cancelled
from swarmd.rpc.tls import Credentials
from swarmd.rpc.tunnel import Tunnel, open_tunnel, unreachable

_NEVER_MS = 2**31 - 1
_UP = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.CONNECTING)


class WireCaller:
    """A `Caller` over TLS; made by `client.dial`."""

    def __init__(
        self,
        addr: str,
        credentials: Credentials,
        server_name: str,
        timeout: float,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self.addr = addr
        self.credentials = credentials
        self._server_name = server_name
        self._timeout = timeout
        self._clock = clock
        self._entropy = entropy
        self._line: _Line | None = None
        # Lines whose server said goodbye while calls were still under way on them.
        self._retired: list[_Line] = []
        self._closed = False
        self._retiring = False
        self._calls = 0
        # Held over the await of a connection attempt, which has a time limit and calls
        # nobody who could want this lock.
        self._connecting = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """True while the connection is up."""
        return self._line is not None and self._line.usable

    async def connect(self) -> None:
        """Make sure there is a connection. Raises `Disconnected`."""
        await self._get_line()

    async def close(self) -> None:
        """End the connection; calls under way fail. Closing twice is fine."""
        self._closed = True
        lines = [*self._retired, self._line]
        self._line = None
        self._retired = []
        for line in lines:
            if line is not None:
                await line.close()

    async def retire(self) -> None:
        """Close as soon as no call is under way any more; at once when there is none."""
        self._retiring = True
        if not self._calls:
            await self.close()

    @asynccontextmanager
    async def _under_way(self) -> AsyncIterator[None]:
        """Around every call: the last one out of a retired connection closes it."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if self._retiring and not self._calls:
                await self.close()

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
        async with self._under_way():
            line = await self._get_line(timeout)
            start = line.callable("unary_unary", found)
            call = start(request.SerializeToString(), timeout=timeout, metadata=tuple(metadata))
            with _Translated(line):
                return _parse(found, await call)

    async def server_stream(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> AsyncIterator[Any]:
        """Send one message, iterate the answers; `aclose()` cancels the call."""
        found = methods.find(method)
        async with self._under_way():
            line = await self._get_line(timeout)
            start = line.callable("unary_stream", found)
            call = start(request.SerializeToString(), timeout=timeout, metadata=tuple(metadata))
            try:
                while True:
                    with _Translated(line):
                        raw = await call.read()
                    if raw is grpc.aio.EOF:
                        break
                    yield _parse(found, raw)
                with _Translated(line):
                    await _finished(call)
            finally:
                call.cancel()

    async def client_stream(
        self,
        method: str,
        requests: AsyncIterable[Any],
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Any:
        """Send all of `requests`, return the one answer.

        A server that answers early ends the sending; its answer is returned.
        """
        found = methods.find(method)
        async with self._under_way():
            line = await self._get_line(timeout)
            call = line.callable("stream_unary", found)(timeout=timeout, metadata=tuple(metadata))
            try:
                async for request in requests:
                    with _Translated(line):
                        more = await _written(call, request.SerializeToString())
                    if not more:
                        break
                with _Translated(line):
                    if not call.done():
                        await call.done_writing()
                    return _parse(found, await call)
            finally:
                call.cancel()

    async def _get_line(self, timeout: float | None = None) -> _Line:
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        line = self._line
        if line is not None and line.usable:
            return line
        try:
            async with asyncio.timeout(limit), self._connecting:
                return await self._reconnect()
        except TimeoutError as error:
            text = unreachable(self.addr, "i/o timeout")
            if timeout is not None and timeout < self._timeout:
                raise DeadlineExceeded(text) from error
            raise Disconnected(text) from error

    async def _reconnect(self) -> _Line:
        if self._line is not None:
            if self._line.usable:
                return self._line
            self._retired.append(self._line)
            self._line = None
        await self._sweep()
        self._check_open()
        tunnel = await open_tunnel(
            self.addr, self.credentials, self._server_name, self._clock, self._entropy
        )
        authority = CA_NAME if self._server_name == CA_NAME else self.addr
        line = _Line(tunnel, authority)
        if self._closed:
            await line.close()
            self._check_open()
        self._line = line
        return line

    async def _sweep(self) -> None:
        """Close retired lines whose connection is over."""
        gone = [line for line in self._retired if line.tunnel.lost]
        self._retired = [line for line in self._retired if not line.tunnel.lost]
        for line in gone:
            await line.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Disconnected("grpc: the client connection is closing")


class _Line:
    """One tunnel and the channel on it."""

    def __init__(self, tunnel: Tunnel, authority: str) -> None:
        self.tunnel = tunnel
        self._callables: dict[str, Callable[..., Any]] = {}
        self._channel = grpc.aio.insecure_channel(
            tunnel.target,
            options=[
                ("grpc.default_authority", authority),
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_retries", 0),
                ("grpc.enable_http_proxy", 0),
                # The tunnel serves one connection; gRPC must not drop it for being idle.
                ("grpc.client_idle_timeout_ms", _NEVER_MS),
            ],
        )

    @property
    def usable(self) -> bool:
        """False once the connection is over, or its server said goodbye (GOAWAY).

        gRPC would answer a goodbye by connecting again, but a tunnel is one connection.
        """
        if self.tunnel.lost:
            return False
        return not self.tunnel.taken or self._channel.get_state() in _UP

    def callable(self, kind: str, method: Method) -> Callable[..., Any]:
        """gRPC's starter for `method`; messages go through as bytes."""
        found = self._callables.get(method.path)
        if found is None:
            found = getattr(self._channel, kind)(method.path)
            self._callables[method.path] = found
        return found

    async def close(self) -> None:
        """Cancel what is under way and hang up."""
        try:
            await self._channel.close()
        finally:
            self.tunnel.close()


class _Translated:
    """Turns gRPC's failures into our errors, once, at this door."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.aio.AioRpcError):
            meant = error_of(error)
            if isinstance(meant, Unavailable) and not self._line.usable:
                reason = self._line.tunnel.reason
                meant = Disconnected(f'connection error: desc = "{reason}"')
            raise meant from error
        if isinstance(error, grpc.aio.UsageError | asyncio.InvalidStateError):
            raise Disconnected("grpc: the client connection is closing") from error
        if isinstance(error, asyncio.CancelledError) and not being_cancelled():
            # close() of this caller, from another task: the call ended, not its task.
            raise ClosedHere("grpc: the client connection is closing") from error


def error_of(failure: grpc.aio.AioRpcError) -> SwarmError:
    """The error the other side meant."""
    return error_for(failure.code().value[0], failure.details() or "")


async def _finished(call: Any) -> None:
    """Raise what the call ended with, unless it ended well."""
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        raise error_for(code.value[0], await call.details() or "")


async def _written(call: Any, raw: bytes) -> bool:
    """Send one message; False when the server takes no more (its answer says why)."""
    if call.done():
        return False
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(raw)
        return True
    return False


def _parse(method: Method, raw: bytes | None) -> Any:
    if raw is None:
        # Stock managers end PublishLogs so when told `close`: OK, but no message.
        raise Internal(f"{method.short}: ended without an answer")
    try:
        return method.response.FromString(raw)
    except DecodeError as error:
        raise Internal(f"{method.short}: the answer cannot be read") from error
