"""What the event log keeps of the cluster's events for clients that come later."""

from __future__ import annotations

import asyncio

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.faces.engineapi.eventlog import EventLog, events_kept_max
from tests.wire.rest_kit import FakeBackend


def entry(first: int, count: int) -> api.WatchMessage:
    """One entry of the log that made networks."""
    message = api.WatchMessage()
    for number in range(first, first + count):
        event = message.events.add(action=api.WatchActionKind.WATCH_ACTION_CREATE)
        event.object.network.id = str(number)
    return message


@pytest.mark.parametrize("count", [1, 7, 100, events_kept_max, 2 * events_kept_max])
async def test_the_last_events_are_kept_and_little_more(count: int) -> None:
    backend = FakeBackend()
    log = EventLog(backend, ManualClock())
    total = 0
    async with Tasks() as tasks:
        tasks.spawn(log.run(), "events")
        with log.listen() as heard:
            while total < 3 * events_kept_max:
                assert backend.messages.put_nowait(entry(total, count))
                for _ in range(count):
                    async with asyncio.timeout(10):
                        await heard.get()
                total += count
    kept = [event["Actor"]["ID"] for event in log.past(0, None)]
    assert kept == [str(number) for number in range(total - events_kept_max, total)]
    # Whole entries are held: never one that the newer ones could do without.
    assert sum(changes.count for changes, _ in log._kept) < events_kept_max + count
