"""Blocking work (fsync, key derivation) in one named thread, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

_Order = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Lane:
    """A single worker thread; calls run one after the other in the order made.

    The standard executor does the same for several times the price, which every write pays.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in the lane. Once begun it finishes, even if the caller is cancelled.

        Raises `RuntimeError` after `close`.
        """
        if self._closed:
            raise RuntimeError(f"the lane {self._name} is closed")
        if self._thread is None:
            self._thread = Thread(target=self._drive, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._orders.put((work, loop, future))
        return await future

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._closed = True
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
            self._thread = None

    def _drive(self) -> None:
        while self._carry_out(self._orders.get()):
            pass

    def _carry_out(self, order: _Order | None) -> bool:
        """One order; False for the one to stop."""
        if order is None:
            return False
        work, loop, future = order
        if future.cancelled():
            return True
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, future, result, error)
        return True


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
