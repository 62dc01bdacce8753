"""Many deadlines, one heap. Pure: time is an argument.

Moving a deadline later, which is what every heartbeat does, only writes a dictionary entry;
the heap is corrected when the old deadline comes up. So a heartbeat costs no heap work.
"""

from __future__ import annotations

import heapq


class Timers:
    """Deadlines by key, in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}  # the truth
        self._queued: dict[str, float] = {}  # earliest heap entry per key
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def arm(self, key: str, at: float) -> None:
        """Set or move the deadline of `key`."""
        self._at[key] = at
        queued = self._queued.get(key)
        if queued is None or at < queued:
            self._queued[key] = at
            heapq.heappush(self._heap, (at, key))

    def disarm(self, key: str) -> bool:
        """Forget `key`; False when it had no deadline."""
        return self._at.pop(key, None) is not None

    def next(self) -> float | None:
        """No deadline falls before this moment; None without deadlines."""
        return self._heap[0][0] if self._heap and self._at else None

    def due(self, now: float) -> list[str]:
        """Take all keys whose deadline has come, earliest first."""
        taken: list[str] = []
        while self._heap and self._heap[0][0] <= now:
            queued, key = heapq.heappop(self._heap)
            if self._queued.get(key) != queued:
                continue  # an earlier entry of this key was handled already
            del self._queued[key]
            at = self._at.get(key)
            if at is None:
                continue
            if at <= now:
                del self._at[key]
                taken.append(key)
            else:
                self.arm(key, at)
        return taken
