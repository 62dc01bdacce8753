"""The cluster's events on this node: the last ones kept, new ones handed to every listener."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from swarmd.base.aio import Channel, until
from swarmd.base.clock import Clock
from swarmd.base.errors import SwarmError
from swarmd.faces.engineapi.backend import Backend, Changes
from swarmd.faces.engineapi.convert.common import Json
from swarmd.faces.engineapi.convert.events import events_json
from swarmd.faces.engineapi.errors import Refusal

logger = logging.getLogger("engineapi")

# How many past events `since` can reach, and how far a slow listener may fall behind
# (moby daemon/events).
events_kept_max = 256
events_behind_max = 1024
# How soon to look again for a manager that is not there.
RETRY_SECONDS = 1.0


class EventLog:
    """Follows the local manager while this node is a manager."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        # As they came, with the time: most are never asked for, so nothing is converted yet.
        self._kept: deque[tuple[Changes, float]] = deque()
        self._kept_events = 0
        self._listeners: dict[int, Channel[Json]] = {}
        self._count = 0
        self._poke = asyncio.Event()

    def poke(self) -> None:
        """The node may just have become a manager: look now."""
        self._poke.set()

    async def run(self) -> None:
        """Follow events for ever."""
        while True:
            self._poke.clear()
            if self._backend.local().control_available:
                await self._follow()
            await until(self._poke, RETRY_SECONDS)

    async def _follow(self) -> None:
        try:
            async for changes in self._backend.events():
                self._publish(changes, self._clock.now())
        except (SwarmError, Refusal) as error:
            logger.debug("cluster events end for now: %s", error)

    def _publish(self, changes: Changes, now: float) -> None:
        self._kept.append((changes, now))
        self._kept_events += changes.count
        # Whole entries go, once the others hold enough: one of a busy manager has many events.
        while self._kept_events - self._kept[0][0].count >= events_kept_max:
            self._kept_events -= self._kept.popleft()[0].count
        if self._listeners:
            for event in events_json(changes.message(), now):
                for channel in self._listeners.values():
                    channel.put_nowait(event)

    def past(self, since: int, until_nanos: int | None) -> list[Json]:
        """Kept events between two times in nanoseconds, oldest first."""
        kept = [event for made, now in self._kept for event in events_json(made.message(), now)]
        return [
            event
            for event in kept[-events_kept_max:]
            if event["timeNano"] >= since
            and (until_nanos is None or event["timeNano"] <= until_nanos)
        ]

    def end(self) -> None:
        """Let every listener read what it has, and then the end."""
        for channel in self._listeners.values():
            channel.close()

    @contextmanager
    def listen(self) -> Iterator[Channel[Json]]:
        """New events while the block lasts; a listener that falls behind is cut off."""
        channel: Channel[Json] = Channel(events_behind_max)
        self._count += 1
        number = self._count
        self._listeners[number] = channel
        try:
            yield channel
        finally:
            del self._listeners[number]
            channel.close()
