"""Hands calls for the leader on to it, with the caller's identity beside them.

A follower repeats the call on its own connection to the leader and adds who asked
(wire/PROTOCOL 0.3). Blank identity is sent for callers without certificate: without it
the leader would take the follower itself for the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from swarmd import api
from swarmd.base.errors import (
    NO_LEADER,
    InvalidArgument,
    NotLeader,
    ResourceExhausted,
    SwarmError,
    Unavailable,
)
from swarmd.rpc import identity
from swarmd.rpc.identity import Subject
from swarmd.rpc.methods import Method
from swarmd.rpc.peer import Caller, ClosedHere, Disconnected, Leadership, Metadata
from swarmd.rpc.streams import as_generator

CONNECTION_POLL_SECONDS = 1.0
# Without news of a new leader the one that is known is asked again so often; sooner at first, as
# the news may have come before the connection broke.
NEW_LEADER_POLL_SECONDS = 0.5
NEW_LEADER_FIRST_SECONDS = 0.05
# How managers tell from a failure that a call is to be repeated on the next leader (PROTOCOL 0.3).
IS_CLOSING = "is closing"
# Said by a manager that is asked to show its state but does not lead (any more).
DEPOSED = "the leader has changed: transport is closing"
_OWN = frozenset(
    (
        identity.FORWARDED,
        identity.FORWARDED_ID,
        identity.FORWARDED_ORGANIZATION,
        identity.FORWARDED_ROLE,
        identity.REMOTE_ADDR,
        identity.REDIRECT,
    )
)
_RESERVED = frozenset(("user-agent", "content-type", "te", "accept-encoding"))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from, before anybody believed anything about it."""

    metadata: Metadata
    subject: Subject | None
    """The TLS peer's certificate."""
    remote_addr: str
    """ "ip:port" of the TLS peer; "@" (a nameless socket) for this manager's own calls."""
    remaining: Callable[[], float | None]
    """Seconds left until the caller's deadline."""
    own: bool = False
    """A call of this manager: goes on under its own certificate."""

    def onward(self) -> list[tuple[str, str]]:
        """Metadata for the leader. Raises `ResourceExhausted` on the second hop."""
        before = [value for key, value in self.metadata if key == identity.REDIRECT]
        if before:
            raise ResourceExhausted(f"more than one redirect to leader from: [{' '.join(before)}]")
        out = [(key, value) for key, value in self.metadata if key not in _OWN]
        out.append((identity.REDIRECT, self.remote_addr))
        if self.own:
            return out
        subject = self.subject or Subject("", "", (), 0.0)
        out += [
            (identity.FORWARDED, "true"),
            (identity.FORWARDED_ID, subject.node_id),
            (identity.FORWARDED_ORGANIZATION, subject.organization),
            (identity.REMOTE_ADDR, self.remote_addr),
        ]
        return out + [(identity.FORWARDED_ROLE, role) for role in subject.roles]


class LeaderProxy:
    """Answers here when this manager leads (or there is no leadership), else asks the leader."""

    def __init__(self, leadership: Leadership | None) -> None:
        self._leadership = leadership

    def answers_at_once(self, method: Method) -> bool:
        """True when a call needs neither to be forwarded nor to wait for a confirmation."""
        if self._leadership is None or self._leadership.is_certain():
            return True
        return not method.reads and self._leadership.is_leader()

    async def be_certain(self, method: Method) -> None:
        """Before this manager answers a call whoever leads: nothing old is shown for new.

        Raises `Unavailable` where another manager would know better. Its text makes stock
        managers, who asked because they took us for the leader, ask the next one.
        """
        if method.reads and self._leadership is not None and not self._leadership.is_certain():
            try:
                await self._leadership.confirm()
            except NotLeader as error:
                if error.message == NO_LEADER:
                    raise
                raise Unavailable(DEPOSED) from error

    async def unary(
        self, method: Method, request: Message, origin: Origin, local: Callable[[], Awaitable[Any]]
    ) -> Any:
        """One call; repeated once on the next leader when the connection to this one broke."""
        try:
            return await self._once(method, request, origin, local, await self._leader())
        except SwarmError as error:
            if not isinstance(error, Disconnected | ClosedHere) and IS_CLOSING not in error.message:
                raise
            lost = error
        following = await self._next_leader(origin)
        try:
            return await self._once(method, request, origin, local, following)
        except InvalidArgument:
            raise
        except SwarmError as error:
            if method.reads:
                raise
            # Refused maybe because the first attempt had come through: nobody can know.
            raise lost from error

    async def _once(
        self,
        method: Method,
        request: Message,
        origin: Origin,
        local: Callable[[], Awaitable[Any]],
        caller: Caller | None,
    ) -> Any:
        """One attempt, at the leader's or here; raises `Unavailable` when it was deposed."""
        if caller is None:
            await self.be_certain(method)
            return await local()
        return await caller.unary(
            method.short, request, timeout=origin.remaining(), metadata=origin.onward()
        )

    async def server_stream(
        self,
        method: Method,
        request: Message,
        origin: Origin,
        local: Callable[[], AsyncIterator[Any]],
    ) -> AsyncIterator[Any]:
        """One stream of answers; a broken one is the caller's to open again."""
        caller = await self._leader()
        if caller is None:
            stream = local()
        else:
            stream = caller.server_stream(
                method.short, request, timeout=origin.remaining(), metadata=origin.onward()
            )
        async with aclosing(as_generator(stream)) as answers:
            async for answer in answers:
                yield answer

    async def client_stream(
        self,
        method: Method,
        requests: AsyncIterable[Any],
        origin: Origin,
        local: Callable[[], Awaitable[Any]],
    ) -> Any:
        """One stream of requests; a broken one is the caller's to open again."""
        caller = await self._leader()
        if caller is None:
            return await local()
        return await caller.client_stream(
            method.short, requests, timeout=origin.remaining(), metadata=origin.onward()
        )

    async def _leader(self) -> Caller | None:
        """The leader's connection, None when that is us; waits for one that is coming up."""
        leadership = self._leadership
        while True:
            if leadership is None or leadership.is_leader():
                return None
            try:
                return await leadership.leader_caller()
            except Unavailable:
                await asyncio.sleep(CONNECTION_POLL_SECONDS)
            except SwarmError:
                if leadership.is_leader():
                    return None
                raise

    async def _next_leader(self, origin: Origin) -> Caller | None:
        """After a broken connection: whoever leads next and says it serves."""
        check = api.HealthCheckRequest(service="Raft")
        pause = NEW_LEADER_FIRST_SECONDS
        while True:
            if self._leadership is not None:
                await self._leadership.news(pause)
            pause = min(2 * pause, NEW_LEADER_POLL_SECONDS)
            caller = await self._leader()
            if caller is None:
                return None
            try:
                answer = await caller.unary("Health/Check", check, timeout=origin.remaining())
            except SwarmError:
                continue
            if answer.status == api.HealthCheckResponse.ServingStatus.SERVING:
                return caller


def told(metadata: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    """What a caller itself put into its metadata, without what its gRPC library did."""
    return [(key, value) for key, value in metadata if isinstance(value, str) and _is_told(key)]


def _is_told(key: str) -> bool:
    return key not in _RESERVED and not key.startswith((":", "grpc-"))
