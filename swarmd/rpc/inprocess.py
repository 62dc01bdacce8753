"""Calls of this manager to itself: the same services and leader proxy, without a wire.

Stands for the stock control socket (wire/PROTOCOL 0.3): a local peer passes without
authorisation and its calls count as made by this node; what only the leader answers goes
to it as this manager's own request, with `redirect: @` and no forwarded identity.
Messages are handed over as they are: who sends one must not change it afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf.message import Message

from swarmd.base.errors import (
    Code,
    DeadlineExceeded,
    Internal,
    InvariantViolation,
    SwarmError,
    Unimplemented,
    error_for,
)
from swarmd.rpc import methods
from swarmd.rpc.authorize import authorize
from swarmd.rpc.identity import Subject
from swarmd.rpc.leaderproxy import LeaderProxy, Origin
from swarmd.rpc.methods import Bound
from swarmd.rpc.peer import Leadership, Metadata, Peer
from swarmd.rpc.streams import as_generator, being_cancelled

log = logging.getLogger(__name__)
_NAMELESS = "@"


class InProcess:
    """A `Caller` onto `services` of this very process, as `peer`.

    With `peer.local` every method is open; otherwise the roles in `peer` are checked as on
    the port, against `peer.organization`.
    """

    def __init__(
        self, services: Sequence[object], peer: Peer, leadership: Leadership | None
    ) -> None:
        bound = methods.bind(services)
        self._bound = {
            item.method.short: item
            for item in bound.values()
            if item.method.in_process or not peer.local
        }
        self._peer = peer
        self._proxy = LeaderProxy(leadership)

    async def unary(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Any:
        """Send one message, return one."""
        bound = self._find(method)
        local = bound.handler
        if not bound.method.proxied_in_process or self._proxy.answers_at_once(bound.method):
            return await _limited(method, local(request, self._peer), timeout)
        work = self._proxy.unary(
            bound.method,
            request,
            _origin(timeout, metadata),
            lambda: local(request, self._peer),
        )
        return await _limited(method, work, timeout)

    async def server_stream(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> AsyncIterator[Any]:
        """Send one message, iterate the answers; `aclose()` ends the call."""
        bound, origin = self._find(method), _origin(timeout, metadata)
        local = bound.handler
        if bound.method.proxied_in_process:
            stream = self._proxy.server_stream(
                bound.method, request, origin, lambda: local(request, self._peer)
            )
        else:
            stream = local(request, self._peer)
        remaining = origin.remaining
        async with aclosing(as_generator(stream)) as answers:
            while True:
                try:
                    answer = await _limited(method, anext(answers), remaining())
                except StopAsyncIteration:
                    return
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
        bound, origin = self._find(method), _origin(timeout, metadata)
        local = bound.handler
        async with aclosing(as_generator(requests)) as sent:
            if bound.method.proxied_in_process:
                work: Awaitable[Any] = self._proxy.client_stream(
                    bound.method, sent, origin, lambda: local(sent, self._peer)
                )
            else:
                work = local(sent, self._peer)
            return await _limited(method, work, timeout)

    async def close(self) -> None:
        """Nothing to close."""

    async def retire(self) -> None:
        """Nothing to close."""

    def _find(self, method: str) -> Bound:
        """Look the method up and, for others than this node itself, check the role."""
        bound = self._bound.get(method)
        if bound is None:
            raise Unimplemented(f"unknown service {methods.find(method).service}")
        if not self._peer.local:
            _check(bound, self._peer)
        return bound


def _origin(timeout: float | None, metadata: Metadata) -> Origin:
    """What a leader elsewhere is told of the caller, and the time it has left."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout

    def remaining() -> float | None:
        return None if deadline is None else max(0.0, deadline - loop.time())

    return Origin(metadata, None, _NAMELESS, remaining, own=True)


def _check(bound: Bound, peer: Peer) -> None:
    subject = None
    if peer.node_id or peer.roles:
        subject = Subject(peer.node_id, peer.organization, peer.roles, float("inf"))
    authorize(bound.method, subject, None, peer.remote_addr, _Trusting(peer.organization), 0.0)


class _Trusting:
    """Knows no removed nodes: who makes an in-process peer vouches for it."""

    def __init__(self, organization: str) -> None:
        self.organization = organization

    def is_blacklisted(self, node_id: str) -> bool:
        """Nobody is."""
        return False


async def _limited(method: str, work: Awaitable[Any], timeout: float | None) -> Any:
    """Wait for `work`; what is not an expected error is logged once and told as Internal."""
    deadline = None if timeout is None else _Deadline(timeout)
    try:
        return await work
    except (SwarmError, InvariantViolation, StopAsyncIteration):
        raise
    except asyncio.CancelledError as error:
        if deadline is not None and deadline.struck():
            raise DeadlineExceeded("context deadline exceeded") from error
        if being_cancelled():
            raise
        raise error_for(Code.CANCELLED, "context canceled") from error
    except Exception as error:
        log.error("%s failed", method, exc_info=error)
        raise Internal(f"internal error in {method}") from error
    finally:
        if deadline is not None:
            deadline.end()


class _Deadline:
    """Cancels the task it was made in after `seconds`; `asyncio.timeout` for half of its price,
    which every request pays.
    """

    __slots__ = ("_cancels", "_expired", "_handle", "_task")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise InvariantViolation("a deadline outside any task")
        self._task = task
        self._cancels = task.cancelling()
        self._expired = False
        self._handle = asyncio.get_running_loop().call_later(max(seconds, 0.0), self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def struck(self) -> bool:
        """In the handler of a cancellation: whether it is this one, and nobody else's beside it."""
        if not self._expired:
            return False
        self._expired = False
        return self._task.uncancel() <= self._cancels

    def end(self) -> None:
        """Time does not matter any more."""
        self._handle.cancel()
        if self._expired:
            self._task.uncancel()
