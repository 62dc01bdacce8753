"""Who wants to hear of something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Listeners(Generic[P]):
    """Callbacks, called in the order they came. One may leave while they are called."""

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[P, None]] = {}
        self._numbers = 0

    def add(self, callback: Callable[P, None]) -> Callable[[], None]:
        """Call `callback` from now on; returns the way to stop that."""
        self._numbers += 1
        number = self._numbers
        self._callbacks[number] = callback

        def leave() -> None:
            self._callbacks.pop(number, None)

        return leave

    def call(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell all of them."""
        for callback in list(self._callbacks.values()):
            callback(*args, **kwargs)
