"""One session with a manager: any failure ends it, and the agent opens another.

Speaks Dispatcher and LogBroker as the reference's agent does (agent/session.go): Session
first, its first message within five seconds, then heartbeats, assignments and log
subscriptions side by side on the same connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from google.protobuf.message import Message

from swarmd import api
from swarmd.base.aio import Tasks, first_of
from swarmd.base.errors import DeadlineExceeded, SwarmError, Unavailable, Unimplemented

log = logging.getLogger(__name__)

call_seconds = 5.0
# A manager that answers no period would have us heartbeat in a tight loop.
heartbeat_seconds_default = 5.0
reports_per_call_max = 1024
answered_max = 1000

INITIATION_TIMED_OUT = "session initiation timed out"
NO_BEGINNING = "the manager's assignments begin in the middle"
STREAM_ENDED = "the manager ended the {} stream"


class Caller(Protocol):
    """A connection to a manager: `swarmd.rpc.Caller` fits."""

    async def unary(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        """Call and return the answer."""
        ...

    def server_stream(
        self, method: str, request: Message, *, timeout: float | None = None
    ) -> AsyncIterator[Any]:
        """Call and iterate over the answers; `aclose` cancels."""
        ...

    async def client_stream(
        self, method: str, requests: AsyncIterable[Any], *, timeout: float | None = None
    ) -> Any:
        """Send messages and return the one answer."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


class Owner(Protocol):
    """Who the session works for: the agent."""

    async def on_message(self, message: api.SessionMessage) -> None:
        """News about this node and its managers."""
        ...

    async def on_assignments(self, message: api.AssignmentsMessage) -> None:
        """What to run, in order and without gaps."""
        ...


@asynccontextmanager
async def opened(stream: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """A server stream that is cancelled when the block ends."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


class Session:
    """One registration. `id` may be an older session's, to keep it."""

    def __init__(self, caller: Caller, owner: Owner, id: str) -> None:
        self.id = id
        self._caller = caller
        self._owner = owner
        self._answered: dict[str, None] = {}  # log subscriptions

    async def run(
        self, description: api.NodeDescription, on_registered: Callable[[], None]
    ) -> None:
        """Register and serve until something fails; never returns normally.

        Raises the first SwarmError of any of its calls.
        """
        request = api.SessionRequest(description=description, session_id=self.id)
        async with opened(self._caller.server_stream("Dispatcher/Session", request)) as stream:
            first = await self._first(stream)
            self.id = first.session_id
            await self._owner.on_message(first)
            on_registered()
            try:
                async with Tasks() as tasks:
                    tasks.spawn(self._listen(stream), "agent-session")
                    tasks.spawn(self._heartbeats(), "agent-heartbeat")
                    tasks.spawn(self._assignments(), "agent-assignments")
                    tasks.spawn(self._subscriptions(), "agent-subscriptions")
                    await asyncio.Event().wait()
            except BaseExceptionGroup as group:
                _, others = group.split(SwarmError)
                raise first_of(others if others is not None else group) from None

    async def report(self, statuses: Sequence[tuple[str, api.TaskStatus]]) -> None:
        """Send task statuses, in portions."""
        for start in range(0, len(statuses), reports_per_call_max):
            request = api.UpdateTaskStatusRequest(session_id=self.id)
            for task_id, status in statuses[start : start + reports_per_call_max]:
                request.updates.add(task_id=task_id, status=status)
            await self._caller.unary("Dispatcher/UpdateTaskStatus", request, timeout=call_seconds)

    async def report_unpublished(self, volume_ids: Sequence[str]) -> None:
        """Tell that volumes are not in use here."""
        request = api.UpdateVolumeStatusRequest(session_id=self.id)
        for volume_id in volume_ids:
            request.updates.add(id=volume_id, unpublished=True)
        await self._caller.unary("Dispatcher/UpdateVolumeStatus", request, timeout=call_seconds)

    async def _first(self, stream: AsyncIterator[Any]) -> api.SessionMessage:
        try:
            async with asyncio.timeout(call_seconds):
                message: api.SessionMessage = await anext(stream)
        except TimeoutError:
            raise DeadlineExceeded(INITIATION_TIMED_OUT) from None
        except StopAsyncIteration:
            raise Unavailable(STREAM_ENDED.format("session")) from None
        return message

    async def _listen(self, stream: AsyncIterator[Any]) -> None:
        async for message in stream:
            await self._owner.on_message(message)
        raise Unavailable(STREAM_ENDED.format("session"))

    async def _heartbeats(self) -> None:
        request = api.HeartbeatRequest(session_id=self.id)
        while True:
            answer: api.HeartbeatResponse = await self._caller.unary(
                "Dispatcher/Heartbeat", request, timeout=call_seconds
            )
            period = answer.period.seconds + answer.period.nanos / 1e9
            await asyncio.sleep(period if period > 0 else heartbeat_seconds_default)

    async def _assignments(self) -> None:
        """Follow the assignments; after a gap ask for the complete set again."""
        while True:
            await self._follow_assignments()
            log.warning("gap in the assignments, asking for all of them again")

    async def _follow_assignments(self) -> None:
        """Hand on one stream of assignments; returns at a gap."""
        request = api.AssignmentsRequest(session_id=self.id)
        reference = ""
        async with opened(self._caller.server_stream("Dispatcher/Assignments", request)) as stream:
            async for message in stream:
                if message.type == api.AssignmentsMessage.INCREMENTAL:
                    if not reference:
                        raise Unavailable(NO_BEGINNING)  # asking again would not help
                    if message.applies_to != reference:
                        return
                reference = message.results_in
                await self._owner.on_assignments(message)
        raise Unavailable(STREAM_ENDED.format("assignments"))

    async def _subscriptions(self) -> None:
        """Answer log subscriptions: this node has no logs, and a client waits to be told."""
        request = api.ListenSubscriptionsRequest()
        stream = self._caller.server_stream("LogBroker/ListenSubscriptions", request)
        try:
            async with opened(stream):
                async for message in stream:
                    await self._on_subscription(message)
        except Unimplemented:
            log.warning("the manager does not support log subscriptions")
            await asyncio.Event().wait()
        raise Unavailable(STREAM_ENDED.format("subscriptions"))

    async def _on_subscription(self, message: api.SubscriptionMessage) -> None:
        if message.close:
            self._answered.pop(message.id, None)
            return
        if message.id in self._answered:
            return  # managers may say it twice
        if len(self._answered) >= answered_max:
            del self._answered[next(iter(self._answered))]
        self._answered[message.id] = None
        closing = api.PublishLogsMessage(subscription_id=message.id, close=True)
        try:
            await self._caller.client_stream(
                "LogBroker/PublishLogs", once(closing), timeout=call_seconds
            )
        except SwarmError as error:
            # Stock managers end this call without an answer, which counts as an error
            # here; and the client may have gone. Neither concerns the session.
            log.debug("closing log subscription %s: %s", message.id, error)


async def once(message: Message) -> AsyncIterator[Message]:
    """A stream of one message."""
    yield message
