"""Task groups with names. No task exists outside one; leaving the block means it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Tasks:
    """A task group whose remaining children are cancelled when the block ends.

    Unlike `asyncio.TaskGroup`, leaving the block normally does not wait for endless
    children: they are background work of the block and end with it. A child that raises
    cancels the block and its error comes out of it. A block that is cancelled from outside ends
    cancelled, also when a child fails on its way out: `asyncio.TaskGroup` of 3.11 would raise
    the child's error then, and whoever handles that goes on as if nobody had asked it to end.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._children: dict[int, asyncio.Task[Any]] = {}
        self._count = 0
        self._cancels = 0

    async def __aenter__(self) -> Self:
        self._cancels = _cancels()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as failures:
            if _cancels() > self._cancels:
                raise asyncio.CancelledError from failures
            raise
        return None

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a child; its failure ends the whole group."""
        task = self._group.create_task(work, name=name)
        self._count += 1
        number = self._count
        self._children[number] = task
        task.add_done_callback(lambda _: self._children.pop(number, None))
        return task

    def cancel(self) -> None:
        """Ask every child to stop, in the order they were born."""
        for number in sorted(self._children):
            self._children[number].cancel()


def _cancels() -> int:
    """How often this very task was asked to stop, and did not take it for done."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel one task and wait until it is over; its own errors are not raised again."""
    task.cancel()
    await asyncio.wait([task])


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain error in a group of groups; the others are mostly its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def until(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event` at most `seconds`; True when it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def race(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Run `work` until it is done or `stop` is set; None when stopped first."""
    async with Tasks() as tasks:
        task = tasks.spawn(work, "race-work")
        waiter = tasks.spawn(stop.wait(), "race-stop")
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
