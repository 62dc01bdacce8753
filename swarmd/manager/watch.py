"""`StoreWatch`: read the store's changes from a task, without ever holding up the writer."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from swarmd.base.aio import Channel
from swarmd.base.limits import watch_events_max
from swarmd.cluster.store import Batch, Event, Store


class StoreWatch:
    """Changes from the moment it is made, in order. A context manager; one reader.

    A reader that falls too far behind is cut off (`ChannelClosed`) and has to look at the
    whole store again: nothing is ever left out silently.
    """

    def __init__(
        self,
        store: Store,
        wanted: Callable[[Event], bool] | None = None,
        *,
        batches_max: int = watch_events_max,
    ) -> None:
        """`wanted` picks events; batches with none left are skipped. None takes all."""
        self._wanted = wanted
        self._channel: Channel[Batch] = Channel(batches_max)
        self._unsubscribe = store.subscribe(self._take)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; a waiting reader gets what is queued, then `ChannelClosed`."""
        self._unsubscribe()
        self._channel.close()

    async def next(self) -> Batch:
        """The next batch with wanted events, or a restored one (possibly without any).

        Raises `ChannelClosed` when the reader fell behind or the watch was closed.
        """
        return await self._channel.get()

    def _take(self, batch: Batch) -> None:
        if self._wanted is not None:
            events = tuple(event for event in batch.events if self._wanted(event))
            if not events and not batch.restored:
                return
            batch = Batch(events, batch.version, batch.restored)
        if not self._channel.put_nowait(batch):
            self._unsubscribe()
