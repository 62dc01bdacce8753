"""Calls to a manager: a gRPC channel on a tunnel, speaking our words and our errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import Message

from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import SwarmError, Unavailable, error_for
from swarmd.rpc import methods
from swarmd.rpc.methods import Method
from swarmd.rpc.peer import ClosedHere, Disconnected, Metadata
from swarmd.rpc.reconnect import CLOSING, Reconnecting
from swarmd.rpc.streams import being_cancelled
from swarmd.rpc.tls import Credentials
from swarmd.rpc.tunnel import Tunnel, open_tunnel

_NEVER_MS = 2**31 - 1
# What an unverified manager may answer: a bundle of roots, no more than its reader takes.
_UNVERIFIED_BYTES_MAX = 1 << 20
_UNLIMITED = -1
_UP = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.CONNECTING)


class WireCaller(Reconnecting["_Line"]):
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
        super().__init__(addr, credentials, server_name, timeout, clock)
        self._entropy = entropy

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
                return found.parse(await call)

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
                    yield found.parse(raw)
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
                    return found.parse(await call)
            finally:
                call.cancel()

    async def _open(self) -> _Line:
        tunnel = await open_tunnel(
            self.addr, self.credentials, self._server_name, self._clock, self._entropy
        )
        verified = self.credentials.roots_pem is not None
        return _Line(tunnel, self._authority, _UNLIMITED if verified else _UNVERIFIED_BYTES_MAX)


class _Line:
    """One tunnel and the channel on it (a `reconnect.Line`)."""

    def __init__(self, tunnel: Tunnel, authority: str, receive_bytes_max: int) -> None:
        self.tunnel = tunnel
        self._callables: dict[str, Callable[..., Any]] = {}
        self._channel = grpc.aio.insecure_channel(
            tunnel.target,
            options=[
                ("grpc.default_authority", authority),
                ("grpc.max_receive_message_length", receive_bytes_max),
                ("grpc.max_send_message_length", _UNLIMITED),
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

    @property
    def lost(self) -> bool:
        """True once the connection is over."""
        return self.tunnel.lost

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
            raise Disconnected(CLOSING) from error
        if isinstance(error, asyncio.CancelledError) and not being_cancelled():
            # close() of this caller, from another task: the call ended, not its task.
            raise ClosedHere(CLOSING) from error


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
