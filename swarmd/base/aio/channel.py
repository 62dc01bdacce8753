"""A bounded, closable queue between two tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class ChannelClosed(Exception):
    """The channel ended: closed by its owner, or its reader fell too far behind."""


class Channel(Generic[T]):
    """Many writers, one reader. `put_nowait` on a full channel closes it: slow readers are cut."""

    def __init__(self, items_max: int) -> None:
        self._items: deque[T] = deque()
        self._items_max = items_max
        self._wake = asyncio.Event()
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """True once nothing more can be put."""
        return self._error is not None

    def put_nowait(self, item: T) -> bool:
        """Add `item`; False when the channel is closed or just overflowed."""
        if self._error is not None:
            return False
        if len(self._items) >= self._items_max:
            self.close(ChannelClosed(f"reader fell {self._items_max} items behind"))
            return False
        self._items.append(item)
        self._wake.set()
        return True

    def close(self, error: Exception | None = None) -> None:
        """End the channel; the reader gets what is queued, then `ChannelClosed` or `error`."""
        if self._error is None:
            self._error = error or ChannelClosed("closed")
        self._wake.set()

    async def get(self) -> T:
        """Next item, in order. Raises `ChannelClosed` (or the closer's error) at the end."""
        while not self._items:
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        return self._items.popleft()

    def get_all_nowait(self) -> list[T]:
        """Everything queued right now, possibly nothing."""
        items = list(self._items)
        self._items.clear()
        return items
