"""Small pieces for streams: closable iterators, and the list of calls that can be ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from swarmd.base.errors import InvariantViolation, SwarmError
from swarmd.rpc.methods import Method
from swarmd.rpc.peer import Peer


def as_generator(stream: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """`stream` itself if it can be closed, else a closable generator over it."""
    if isinstance(stream, AsyncGenerator):
        return stream
    return _over(stream)


async def _over(stream: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    async for item in stream:
        yield item


class ActiveCalls:
    """The streams under way, each in a task of its own, endable from outside."""

    def __init__(self) -> None:
        self._calls: dict[int, _Active] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._calls)

    @contextmanager
    def ending(self, method: Method, peer: Peer) -> Iterator[None]:
        """Run a call in this block; raises the error given to `end` when it is ended.

        Works as `asyncio.timeout` does: the task is cancelled, so handlers and generators
        clean up, and that cancellation turns into the error here.
        """
        task = asyncio.current_task()
        if task is None:
            raise InvariantViolation(f"{method.short} runs outside any task")
        active = _Active(method, peer, task)
        self._count += 1
        number = self._count
        self._calls[number] = active
        cancels = task.cancelling()
        try:
            yield
        except asyncio.CancelledError:
            if active.error is not None and task.uncancel() <= cancels:
                raise active.error from None
            raise
        finally:
            del self._calls[number]

    def end(self, wanted: Callable[[Method, Peer], bool], error: SwarmError) -> int:
        """End all calls that `wanted` names; returns how many."""
        ended = 0
        for active in list(self._calls.values()):
            if active.error is None and wanted(active.method, active.peer):
                active.error = error
                active.task.cancel()
                ended += 1
        return ended


class _Active:
    __slots__ = ("error", "method", "peer", "task")

    def __init__(self, method: Method, peer: Peer, task: asyncio.Task[Any]) -> None:
        self.method = method
        self.peer = peer
        self.task = task
        self.error: SwarmError | None = None


def being_cancelled() -> bool:
    """True when this very task is asked to stop, not just something it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
