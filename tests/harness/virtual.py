"""A loop whose time jumps to the next timer: hours of sleeping take no time at all."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jump(selectors.SelectSelector):
    """Instead of waiting, moves the loop's time on."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready files now; if there are none, let `timeout` pass at once."""
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("nothing is left that could happen")
        self.loop.passed += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds; `passed` is its time."""

    def __init__(self) -> None:
        selector = _Jump()
        selector.loop = self
        self.passed = 0.0
        super().__init__(selector)
        # A timer is due when it lies before now + resolution. After half a year the real
        # resolution is too small to be added to a float, and no timer would ever be due.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.passed


class LoopClock:
    """Wall clock and monotonic clock that follow the running loop."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.start = start

    def now(self) -> float:
        """Wall seconds: the start plus the loop's time."""
        return self.start + self.monotonic()

    def monotonic(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
