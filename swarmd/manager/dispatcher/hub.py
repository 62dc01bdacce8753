"""From store events to the streams they concern, by node: one subscription serves them all.

A thousand nodes hold two thousand streams; each commit costs a dictionary lookup per event,
not a callback per stream. A listener only learns *what to look at again*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swarmd import api
from swarmd.base.aio import until
from swarmd.cluster.store import Action, Batch, Event


class Listener:
    """What one stream has to look at again. One reader."""

    __slots__ = ("_wake", "tasks", "volumes")

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self.tasks: dict[str, None] = {}  # ids, in the order they changed
        self.volumes: dict[str, None] = {}

    def wake(self) -> None:
        """Let the reader look again."""
        self._wake.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for a change since the last `wait`; False when `seconds` passed first."""
        if seconds is None:
            await self._wake.wait()
        elif not await until(self._wake, seconds):
            return False
        self._wake.clear()
        return True


class Ears:
    """Listeners by node id; a node may briefly hold several streams of a kind."""

    def __init__(self) -> None:
        self._by_node: dict[str, dict[int, Listener]] = {}

    @contextmanager
    def listen(self, node_id: str) -> Iterator[Listener]:
        """A listener for as long as the block lasts."""
        listener = Listener()
        self._by_node.setdefault(node_id, {})[id(listener)] = listener
        try:
            yield listener
        finally:
            listeners = self._by_node[node_id]
            del listeners[id(listener)]
            if not listeners:
                del self._by_node[node_id]

    def of(self, node_id: str) -> list[Listener]:
        """The listeners of one node."""
        listeners = self._by_node.get(node_id)
        return list(listeners.values()) if listeners else []

    def wake(self, node_id: str) -> None:
        """Wake the streams of one node."""
        for listener in self.of(node_id):
            listener.wake()

    def wake_all(self) -> None:
        """Wake the streams of all nodes."""
        for listeners in self._by_node.values():
            for listener in listeners.values():
                listener.wake()


class Hub:
    """Routes store events to listeners."""

    def __init__(
        self, on_cluster: Callable[[], None], on_node_deleted: Callable[[str], None]
    ) -> None:
        self.sessions = Ears()
        self.assignments = Ears()
        self._on_cluster = on_cluster
        self._on_node_deleted = on_node_deleted

    def on_batch(self, batch: Batch) -> None:
        """Take in one commit; called synchronously by the store."""
        for event in batch.events:
            match event.object:
                case api.Task():
                    self._on_task(event, event.object)
                case api.Node():
                    self._on_node(event, event.object)
                case api.Cluster():
                    self._on_cluster()
                    self.sessions.wake_all()
                case api.Volume():
                    self._on_volume(event, event.object)
                case _:
                    pass

    def wake_all(self) -> None:
        """Wake every stream."""
        self.sessions.wake_all()
        self.assignments.wake_all()

    def wake_node(self, node_id: str) -> None:
        """Wake every stream of one node."""
        self.sessions.wake(node_id)
        self.assignments.wake(node_id)

    def _on_task(self, event: Event, task: api.Task) -> None:
        node_ids = {task.node_id: None}
        if isinstance(event.old, api.Task):
            node_ids[event.old.node_id] = None
        for node_id in node_ids:
            for listener in self.assignments.of(node_id):
                listener.tasks[task.id] = None
                listener.wake()

    def _on_node(self, event: Event, node: api.Node) -> None:
        if event.action is Action.DELETE:
            self._on_node_deleted(node.id)
        self.sessions.wake(node.id)

    def _on_volume(self, event: Event, volume: api.Volume) -> None:
        node_ids = {status.node_id: None for status in volume.publish_status}
        if isinstance(event.old, api.Volume):
            node_ids.update({status.node_id: None for status in event.old.publish_status})
        for node_id in node_ids:
            for listener in self.assignments.of(node_id):
                listener.volumes[volume.id] = None
                listener.wake()
