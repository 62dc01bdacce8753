"""Who wants to know that something changed; what changed they look up themselves."""

from __future__ import annotations

from collections.abc import Callable


class Listeners:
    """Callbacks, called in the order they came. One may leave while they are called."""

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._numbers = 0

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from now on; returns the way to stop that."""
        self._numbers += 1
        number = self._numbers
        self._callbacks[number] = callback

        def leave() -> None:
            self._callbacks.pop(number, None)

        return leave

    def call(self) -> None:
        """Tell all of them."""
        for callback in list(self._callbacks.values()):
            callback()
