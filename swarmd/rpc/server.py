"""The manager's port: the TLS front before a gRPC server, and what every call passes.

Order for each call: identity, role check, leader proxy, errors, metrics. gRPC sees bytes;
messages are parsed after the caller was let in. Endless streams are ended by us before
gRPC is asked to stop, because it would wait for them (wire/FRONT pitfall 14).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from swarmd.base import limits, metrics
from swarmd.base.aio import Tasks
from swarmd.base.clock import Clock, SystemClock
from swarmd.base.entropy import Entropy, SystemEntropy
from swarmd.base.errors import Code, Internal, InvariantViolation, SwarmError, Unavailable
from swarmd.rpc import identity, methods
from swarmd.rpc.authorize import authorize
from swarmd.rpc.front import Front, Limits, Refusals
from swarmd.rpc.leaderproxy import LeaderProxy, Origin, told
from swarmd.rpc.methods import Bound, Method
from swarmd.rpc.peer import Authorizer, Leadership, Peer
from swarmd.rpc.registry import Registry
from swarmd.rpc.status import STATUS, refusal_of
from swarmd.rpc.streams import ActiveCalls, as_generator, being_cancelled
from swarmd.rpc.tls import Credentials

__all__ = ["Credentials", "Limits", "Server"]

_CALLS = metrics.counter("rpc_calls", "Calls answered on the manager port", "method", "code")
_SECONDS = metrics.histogram("rpc_unary_seconds", "Time to answer one unary call", "method")
_BYE = "transport is closing"

_OPTIONS = [
    ("grpc.max_receive_message_length", limits.receive_bytes_max),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    # Pings of eager clients are no reason to hang up on them (wire/FRONT pitfall 11).
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class Server:
    """Serves `services` on TLS ports; one per manager, run once."""

    def __init__(
        self,
        services: Sequence[object],
        credentials: Callable[[], Credentials],
        authorizer: Authorizer,
        leadership: Leadership | None,
        *,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        front_limits: Limits | None = None,
    ) -> None:
        self._credentials = credentials
        self._clock = clock or SystemClock()
        self._limits = front_limits or Limits()
        self._registry = Registry(entropy or SystemEntropy())
        self._calls = ActiveCalls()
        self.refusals = Refusals(self._limits, self._clock)
        """Where everything turned away is counted and logged."""
        self._broken: asyncio.Future[None] | None = None
        desk = _Desk(self, authorizer, LeaderProxy(leadership))
        self._handlers = desk.handlers(methods.bind(services))
        self._served = frozenset(path.split("/")[1] for path in self._handlers)
        self.addresses: list[str] = []
        """The "ip:port"s really bound, in the order of `listen`."""

    @property
    def port(self) -> int:
        """The first port bound; 0 before `ready`."""
        return int(self.addresses[0].rpartition(":")[2]) if self.addresses else 0

    @property
    def registry(self) -> Registry:
        """The connections open now."""
        return self._registry

    @property
    def clock(self) -> Clock:
        """The clock certificates are judged by."""
        return self._clock

    @property
    def calls(self) -> ActiveCalls:
        """The streams under way."""
        return self._calls

    async def run(self, ready: asyncio.Event, listen: Sequence[str], *, grace: float = 0.5) -> None:
        """Serve on `listen` ("ip:port", port 0 for any) until cancelled.

        On the way out streams are ended, other calls get `grace` seconds, connections are
        closed. Raises `OSError` when a port cannot be opened, `ValueError` or `OSError` for
        unusable credentials, `InvariantViolation` when a handler found a bug.
        """
        self._broken = broken = asyncio.get_running_loop().create_future()
        backend = grpc.aio.server(options=_OPTIONS)
        backend.add_generic_rpc_handlers((self,))
        with _PrivateSocket() as private:
            backend.add_insecure_port(f"unix:{private.path}")
            await backend.start()
            try:
                front = private.hide()
                failure = await self._serve(backend, front, ready, listen, grace, broken)
            finally:
                await backend.stop(0)
        if failure is not None:
            raise failure

    async def _serve(
        self,
        backend: Any,
        address: str,
        ready: asyncio.Event,
        listen: Sequence[str],
        grace: float,
        broken: asyncio.Future[None],
    ) -> Exception | None:
        """Run the front until cancelled or broken; returns what broke, bare of any group."""
        async with Tasks() as tasks:
            front = Front(
                address,
                self._credentials,
                self._registry,
                self._clock,
                tasks.spawn,
                self._limits,
                self.refusals,
            )
            try:
                self.addresses = await front.listen(listen)
                ready.set()
                await broken
            except Exception as error:
                return error
            finally:
                front.stop_accepting()
                self.end_streams(lambda method, peer: True)
                await backend.stop(grace)
                await front.close(grace)
        return None

    def end_streams(
        self, wanted: Callable[[Method, Peer], bool], error: SwarmError | None = None
    ) -> int:
        """End the streams `wanted` names (lost leadership, removed node); returns how many.

        Their callers see `error`, by default that the transport is closing.
        """
        return self._calls.end(wanted, error or Unavailable(_BYE))

    def broke(self, error: InvariantViolation) -> None:
        """A handler found a bug: `run` raises it."""
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    def service(self, details: Any) -> Any:
        """gRPC's look-up of a method (called by gRPC for every call)."""
        handler = self._handlers.get(details.method)
        return handler or _unknown(details.method, self._served)


class _Desk:
    """What every call passes, from bytes to bytes."""

    def __init__(self, server: Server, authorizer: Authorizer, proxy: LeaderProxy) -> None:
        self._server = server
        self._authorizer = authorizer
        self._proxy = proxy

    def handlers(self, bound: dict[str, Bound]) -> dict[str, Any]:
        """gRPC handlers by path.

        All are told to gRPC as taking a stream: so the caller is checked before its message
        is taken in, and we see when that message never comes.
        """
        made = {}
        for path, item in bound.items():
            method = item.method
            if method.client_streaming:
                made[path] = grpc.stream_unary_rpc_method_handler(self._client_stream(item))
            elif method.server_streaming:
                made[path] = grpc.stream_stream_rpc_method_handler(self._server_stream(item))
            else:
                made[path] = grpc.stream_unary_rpc_method_handler(self._unary(item))
        return made

    def _unary(self, bound: Bound) -> Callable[[Any, Any], Awaitable[bytes]]:
        method, handler, proxy = bound.method, bound.handler, self._proxy
        seconds = _SECONDS.labels(method.short)

        async def answer(context: Any, peer: Peer, origin: Origin) -> bytes:
            request = _parse(method, await self._request(method, context, origin))
            if method.proxied:
                response = await proxy.unary(
                    method, request, origin, lambda: handler(request, peer)
                )
            else:
                response = await proxy.here(method, lambda: handler(request, peer))
            return bytes(response.SerializeToString())

        async def serve(_: Any, context: Any) -> bytes:
            with seconds.time():
                answered: bytes = await self._pass(
                    method, context, lambda peer, origin: answer(context, peer, origin)
                )
                return answered

        return serve

    def _server_stream(self, bound: Bound) -> Callable[[Any, Any], Awaitable[None]]:
        method, handler, proxy = bound.method, bound.handler, self._proxy

        async def answer(context: Any, peer: Peer, origin: Origin) -> None:
            request = _parse(method, await self._request(method, context, origin))
            if method.proxied:
                stream = proxy.server_stream(
                    method, request, origin, lambda: handler(request, peer)
                )
            else:
                stream = handler(request, peer)
            with self._server.calls.ending(method, peer):
                async with aclosing(as_generator(stream)) as answers:
                    async for response in answers:
                        await context.write(response.SerializeToString())

        async def serve(_: Any, context: Any) -> None:
            await self._pass(method, context, lambda peer, origin: answer(context, peer, origin))

        return serve

    def _client_stream(self, bound: Bound) -> Callable[[Any, Any], Awaitable[bytes]]:
        method, handler, proxy = bound.method, bound.handler, self._proxy

        async def answer(context: Any, peer: Peer, origin: Origin) -> bytes:
            with self._server.calls.ending(method, peer):
                async with aclosing(_requests(method, context)) as requests:
                    if method.proxied:
                        response = await proxy.client_stream(
                            method, requests, origin, lambda: handler(requests, peer)
                        )
                    else:
                        response = await handler(requests, peer)
            return bytes(response.SerializeToString())

        async def serve(_: Any, context: Any) -> bytes:
            answered: bytes = await self._pass(
                method, context, lambda peer, origin: answer(context, peer, origin)
            )
            return answered

        return serve

    async def _pass(
        self, method: Method, context: Any, work: Callable[[Peer, Origin], Awaitable[Any]]
    ) -> Any:
        """Identity and role check before `work`; errors and metrics after it."""
        code = Code.CANCELLED
        try:
            origin = self._origin(context)
            peer = authorize(
                method,
                origin.subject,
                identity.forwarded(origin.metadata),
                origin.remote_addr,
                self._authorizer,
                self._server.clock.now(),
            )
            answer = await work(peer, origin)
            code = Code.OK
            return answer
        except asyncio.CancelledError:
            if being_cancelled() or not self._server.registry.knows(context.peer()):
                raise
            # Something the handler waited for was cancelled, not the call: without an
            # answer its caller would wait for ever.
            await context.abort(STATUS[code], "context canceled")
        except Exception as error:
            if isinstance(error, InvariantViolation):
                self._server.broke(error)
            refusal = refusal_of(method.short, error)
            code = refusal.code
            await context.abort(STATUS[code], refusal.text)
        finally:
            _CALLS.labels(method.short, code.name).inc()

    async def _request(self, method: Method, context: Any, origin: Origin) -> bytes:
        """The one message of a call; gRPC itself has answered when it was too large."""
        peer = context.peer()
        try:
            raw = await context.read()
            if raw is not grpc.aio.EOF:
                return bytes(raw)
            await _whole(context)
        except asyncio.CancelledError:
            if self._server.registry.knows(peer):
                text = f"{method.short}: over {limits.receive_bytes_max} bytes, or withdrawn"
                self._server.refusals.note("oversized", origin.remote_addr, text, "request")
            raise
        raise Internal(f"{method.short}: no request message")

    def _origin(self, context: Any) -> Origin:
        connection = self._server.registry.find(context.peer())
        metadata = told(context.invocation_metadata() or ())
        return Origin(metadata, connection.subject, connection.remote_addr, context.time_remaining)


class _PrivateSocket:
    """A place for gRPC to listen that nobody else can reach."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="swarmd-")  # mode 0700
        self._fd = -1
        self.path = os.path.join(self._folder, "rpc")

    def __enter__(self) -> _PrivateSocket:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        shutil.rmtree(self._folder, ignore_errors=True)

    def hide(self) -> str:
        """Remove the name once gRPC listens; returns the path only this process can use.

        A killed process then leaves nothing behind.
        """
        self._fd = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        shutil.rmtree(self._folder, ignore_errors=True)
        return f"/proc/self/fd/{self._fd}"


async def _requests(method: Method, context: Any) -> AsyncGenerator[Any, None]:
    """The messages of a client stream."""
    while (raw := await context.read()) is not grpc.aio.EOF:
        yield _parse(method, raw)
    await _whole(context)


async def _whole(context: Any) -> None:
    """Make sure a stream of requests ended because its sender was done.

    gRPC reports a stream that was cancelled, cut off or too large as ended, just like a
    good one, and cancels the call only afterwards. Asking once more is a barrier: the
    answer comes behind that cancellation, which is then raised here. Without this, half a
    Raft snapshot would pass for a whole one.
    """
    await context.read()


def _parse(method: Method, raw: bytes) -> Any:
    try:
        return method.request.FromString(raw)
    except DecodeError as error:
        # The code and the start of the text are grpc-go's.
        raise Internal(f"grpc: error unmarshalling request: {error}") from error


def _unknown(path: str, served: frozenset[str]) -> Any:
    """The answer to a method nobody serves, in grpc-go's words."""
    service, _, name = path.lstrip("/").rpartition("/")
    if service in served:
        text = f"unknown method {name} for service {service}"
    else:
        text = f"unknown service {service}"

    async def refuse(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

    return grpc.stream_unary_rpc_method_handler(refuse)
