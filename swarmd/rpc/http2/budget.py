"""How much of something useless a peer may do: a bucket that fills up again by itself."""

from __future__ import annotations


class Budget:
    """`burst` at once, then `per_second`. Time is told, not asked for."""

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._since = 0.0

    def spend(self, now: float) -> bool:
        """Take one; False when there is none left. `now` in monotonic seconds."""
        if self._left < 1:
            self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
            self._since = now
            if self._left < 1:
                return False
        elif self._left == self._burst:
            self._since = now
        self._left -= 1
        return True
