"""The manager's port: TLS front, HTTP/2, and what every call passes.

Order for each call: identity, role check, leader proxy, errors, metrics. Messages are taken
in and parsed after the caller was let in. Endless streams are ended first when the server
stops; other calls get some time.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf.message import DecodeError

from swarmd.base import limits, metrics, parsing
from swarmd.base.aio import Tasks
from swarmd.base.clock import Clock, SystemClock
from swarmd.base.errors import Code, Internal, InvariantViolation, SwarmError, Unavailable
from swarmd.rpc import identity, methods
from swarmd.rpc.authorize import authorize
from swarmd.rpc.front import Front, Limits, Refusals
from swarmd.rpc.http2.call import Call
from swarmd.rpc.http2.line import Answer
from swarmd.rpc.http2.request import Metadata, Refused
from swarmd.rpc.http2.shortcut import AnswerAtOnce
from swarmd.rpc.leaderproxy import LeaderProxy, Origin, told
from swarmd.rpc.methods import Bound, Method
from swarmd.rpc.peer import Authorizer, Leadership, Peer
from swarmd.rpc.registry import Connection, Registry
from swarmd.rpc.status import Refusal, refusal_of
from swarmd.rpc.streams import ActiveCalls, as_generator, being_cancelled
from swarmd.rpc.tls import Credentials

__all__ = ["Credentials", "Limits", "Server"]

_CALLS = metrics.counter("rpc_calls", "Calls answered on the manager port", "method", "code")
_SECONDS = metrics.histogram("rpc_unary_seconds", "Time to answer one unary call", "method")
_BYE = "transport is closing"


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
        front_limits: Limits | None = None,
    ) -> None:
        self._credentials = credentials
        self._clock = clock or SystemClock()
        self._limits = front_limits or Limits()
        self._registry = Registry()
        self._calls = ActiveCalls()
        self.refusals = Refusals(self._limits, self._clock)
        """Where everything turned away is counted and logged."""
        self._broken: asyncio.Future[None] | None = None
        self._front: Front | None = None
        proxy = LeaderProxy(leadership)
        self._desk = _Desk(self, authorizer, proxy, methods.bind(services))
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
        failure = await self._serve(ready, listen, grace, broken)
        if failure is not None:
            raise failure

    async def _serve(
        self,
        ready: asyncio.Event,
        listen: Sequence[str],
        grace: float,
        broken: asyncio.Future[None],
    ) -> Exception | None:
        """Serve until cancelled or broken; returns what broke, bare of any group."""
        async with Tasks() as tasks:
            front = self._front = Front(
                self._desk,
                self._credentials,
                self._registry,
                self._clock,
                self._limits,
                self.refusals,
            )
            self._desk.open(tasks, front.changed)
            try:
                await front.listen(listen)
                self.addresses = front.ports.addresses
                self._front = front
                ready.set()
                await broken
            except Exception as error:
                return error
            finally:
                self._front = None
                front.ports.close()
                self.end_streams(lambda method, peer: True)
                await front.finish_calls(grace)
                await front.close(grace)
        return None

    async def listen_also(self, listen: str) -> bool:
        """Serve on one more "ip:port"; False when it is served already.

        A wildcard takes the place of the addresses of its port. Raises `OSError` when it cannot
        be opened, `Unavailable` while the server is not up.
        """
        if self._front is None:
            raise Unavailable(_BYE)
        ports = self._front.ports
        if ports.serves(listen):
            return False
        await ports.open(listen)
        self.addresses = ports.addresses
        return True

    async def stop_listening(self, listen: str) -> None:
        """Undo a `listen_also`; connections stay."""
        if self._front is not None:
            ports = self._front.ports
            await ports.quit(listen)
            self.addresses = ports.addresses

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


class _Desk:
    """What every call passes, from bytes to bytes."""

    def __init__(
        self,
        server: Server,
        authorizer: Authorizer,
        proxy: LeaderProxy,
        bound: dict[str, Bound],
    ) -> None:
        self._server = server
        self._authorizer = authorizer
        self._proxy = proxy
        self._tasks: Tasks | None = None
        self._changed: Callable[[], None] = lambda: None
        self._answers = {path.encode(): self._answer(item) for path, item in bound.items()}
        self._at_once = {
            path.encode(): (item.method, self._answer_at_once(item))
            for path, item in bound.items()
            if item.at_once is not None
        }
        self._served = frozenset(item.method.service for item in bound.values())

    def open(self, tasks: Tasks, changed: Callable[[], None]) -> None:
        """Answer calls in `tasks` from now on, and tell `changed` of each that ended."""
        self._tasks, self._changed = tasks, changed

    def find(self, path: bytes) -> Answer:
        """The code that answers calls of `path`. Raises `Refused`, in grpc-go's words."""
        found = self._answers.get(path)
        if found is None:
            raise Refused(Code.UNIMPLEMENTED, _unknown(path.decode("latin-1"), self._served))
        return found

    def find_at_once(self, path: bytes) -> AnswerAtOnce | None:
        """The code that answers such a call without a task; None where it takes one."""
        found = self._at_once.get(path)
        if found is None:
            return None
        method, answer = found
        return None if method.proxied and not self._proxy.answers_at_once(method) else answer

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run the answer to one call."""
        if self._tasks is None:
            raise InvariantViolation("a call before the server runs")
        return self._tasks.spawn(work, name)

    def ended(self, call: Call) -> None:
        """A call is over: note why, if its caller must be known for it."""
        self._changed()
        if call.oversized:
            text = f"{call.path.decode('latin-1')}: over {limits.receive_bytes_max} bytes"
            remote_addr = call.connection.remote_addr
            self._server.refusals.note("oversized", remote_addr, text, "request")

    def _answer(self, bound: Bound) -> Answer:
        if bound.method.client_streaming:
            return self._client_stream(bound)
        if bound.method.server_streaming:
            return self._server_stream(bound)
        return self._unary(bound)

    def _unary(self, bound: Bound) -> Answer:
        method, handler, proxy = bound.method, bound.handler, self._proxy
        seconds = _SECONDS.labels(method.short)

        async def answer(call: Call, peer: Peer) -> None:
            request = await _request(method, call)
            if method.proxied and not proxy.answers_at_once(method):
                response = await proxy.unary(
                    method, request, _origin(call), lambda: handler(request, peer)
                )
            else:
                await proxy.be_certain(method)
                response = await handler(request, peer)
            call.answer(response.SerializeToString())

        async def serve(call: Call) -> None:
            with seconds.time():
                await self._pass(method, call, answer)

        return serve

    def _answer_at_once(self, bound: Bound) -> AnswerAtOnce:
        method, handler = bound.method, bound.at_once
        seconds, answered = _SECONDS.labels(method.short), _counter(method.short, Code.OK)
        monotonic = self._server.clock.monotonic

        def answer(connection: Connection, metadata: Metadata, raw: bytes) -> bytes | None:
            begun = monotonic()
            try:
                peer = self._admit(method, connection, metadata)
                assert handler is not None
                response = handler(_parse(method, raw), peer)
                reply = None if response is None else bytes(response.SerializeToString())
            except Exception as error:
                refusal = self._refusal(method, error)
                _counter(method.short, refusal.code).inc()
                raise Refused(refusal.code, refusal.text) from error
            if reply is not None:
                answered.inc()
                seconds.observe(monotonic() - begun)
            return reply

        return answer

    def _server_stream(self, bound: Bound) -> Answer:
        method, handler, proxy = bound.method, bound.handler, self._proxy

        async def answer(call: Call, peer: Peer) -> None:
            request = await _request(method, call)
            if method.proxied and not proxy.answers_at_once(method):
                stream = proxy.server_stream(
                    method, request, _origin(call), lambda: handler(request, peer)
                )
            else:
                stream = handler(request, peer)
            with self._server.calls.ending(method, peer):
                async with aclosing(as_generator(stream)) as answers:
                    async for response in answers:
                        await call.write(response.SerializeToString())
            call.end(Code.OK)

        async def serve(call: Call) -> None:
            await self._pass(method, call, answer)

        return serve

    def _client_stream(self, bound: Bound) -> Answer:
        method, handler, proxy = bound.method, bound.handler, self._proxy

        async def answer(call: Call, peer: Peer) -> None:
            with self._server.calls.ending(method, peer):
                async with aclosing(_requests(method, call)) as requests:
                    if method.proxied and not proxy.answers_at_once(method):
                        response = await proxy.client_stream(
                            method, requests, _origin(call), lambda: handler(requests, peer)
                        )
                    else:
                        response = await handler(requests, peer)
            call.answer(response.SerializeToString())

        async def serve(call: Call) -> None:
            await self._pass(method, call, answer)

        return serve

    async def _pass(
        self,
        method: Method,
        call: Call,
        work: Callable[[Call, Peer], Awaitable[None]],
    ) -> None:
        """Identity and role check before `work`; errors and metrics after it."""
        try:
            await work(call, self._admit(method, call.connection, call.metadata))
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            # Something the handler waited for was cancelled, not the call: without an
            # answer its caller would wait for ever.
            call.end(Code.CANCELLED, "context canceled")
        except Exception as error:
            refusal = self._refusal(method, error)
            call.end(refusal.code, refusal.text)
        finally:
            _counter(method.short, call.code or Code.CANCELLED).inc()

    def _admit(self, method: Method, connection: Connection, metadata: Metadata) -> Peer:
        """Identity and role check. Raises `PermissionDenied`."""
        return authorize(
            method,
            connection.subject,
            identity.forwarded(told(metadata)) if metadata else None,
            connection.remote_addr,
            self._authorizer,
            self._server.clock.now(),
        )

    def _refusal(self, method: Method, error: Exception) -> Refusal:
        if isinstance(error, InvariantViolation):
            self._server.broke(error)
        return refusal_of(method.short, error)


@functools.cache
def _counter(short: str, code: Code) -> Any:
    """The counter of one outcome; looking it up by its labels costs as much as the handler."""
    return _CALLS.labels(short, code.name)


def _origin(call: Call) -> Origin:
    """Where a call came from, for whoever hands it on."""
    connection = call.connection
    return Origin(
        told(call.metadata), connection.subject, connection.remote_addr, call.time_remaining
    )


async def _request(method: Method, call: Call) -> Any:
    """The one message of a call."""
    raw = await call.read()
    if raw is None:
        raise Internal(f"{method.short}: no request message")
    return _parse(method, raw)


async def _requests(method: Method, call: Call) -> AsyncGenerator[Any, None]:
    """The messages of a client stream; it ends only when its sender was done."""
    while (raw := await call.read()) is not None:
        yield _parse(method, raw)


def _parse(method: Method, raw: bytes) -> Any:
    try:
        return parsing.parse(method.request, raw, parsing.FIELDS_MAX)
    except DecodeError as error:
        # The code and the start of the text are grpc-go's.
        raise Internal(f"grpc: error unmarshalling request: {error}") from error


def _unknown(path: str, served: frozenset[str]) -> str:
    """What is said of a method nobody serves."""
    service, _, name = path.removeprefix("/").rpartition("/")
    if not service:
        return f'malformed method name: "{path}"'
    if service in served:
        return f"unknown method {name} for service {service}"
    return f"unknown service {service}"
