"""From store events to the streams they concern, by node: one subscription serves them all.

A thousand nodes hold two thousand streams; each commit costs a dictionary lookup per event,
not a callback per stream. A listener only learns *what to look at again*.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swarmd import api
from swarmd.base.aio import until
from swarmd.base.errors import ResourceExhausted
from swarmd.cluster.store import Action, Batch, Event

# News that a node does nothing about reach it at most this often: label scripts change the same
# nodes again and again, and telling a node costs as much as the change itself.
idle_news_seconds = 1.0
# Of one kind. A node needs one, and leaves some behind when it loses connections; each may hold
# a whole message of assignments for a reader that does not read.
streams_per_node_max = 64
TOO_MANY_STREAMS = "too many streams of this node"


class Listener:
    """What one stream has to look at again. One reader."""

    __slots__ = ("_later", "_told_at", "_wake", "tasks", "volumes")

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._told_at = -math.inf
        self._later: asyncio.TimerHandle | None = None
        self.tasks: dict[str, None] = {}  # ids, in the order they changed
        self.volumes: dict[str, None] = {}

    def wake(self) -> None:
        """Let the reader look again."""
        self._wake.set()

    def wake_in_time(self) -> None:
        """Let the reader look again, `idle_news_seconds` after it did so last."""
        if self._later is not None or self._wake.is_set():
            return
        loop = asyncio.get_running_loop()
        left = self._told_at + idle_news_seconds - loop.time()
        if left > 0:
            self._later = loop.call_later(left, self._wake.set)
        else:
            self._wake.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for a change since the last `wait`; False when `seconds` passed first."""
        if seconds is None:
            await self._wake.wait()
        elif not await until(self._wake, seconds):
            return False
        self._wake.clear()
        self._told_at = asyncio.get_running_loop().time()
        self.end()
        return True

    def end(self) -> None:
        """Forget what was put off."""
        if self._later is not None:
            self._later.cancel()
            self._later = None


class Ears:
    """Listeners by node id; a node may briefly hold several streams of a kind."""

    def __init__(self) -> None:
        self._by_node: dict[str, dict[int, Listener]] = {}

    @contextmanager
    def listen(self, node_id: str) -> Iterator[Listener]:
        """A listener for as long as the block lasts. Raises ResourceExhausted."""
        if len(self._by_node.get(node_id, ())) >= streams_per_node_max:
            raise ResourceExhausted(TOO_MANY_STREAMS)
        listener = Listener()
        self._by_node.setdefault(node_id, {})[id(listener)] = listener
        try:
            yield listener
        finally:
            listener.end()
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
        listeners = self.sessions.of(node.id)
        if not listeners:
            return
        idle = isinstance(event.old, api.Node) and _only_named_anew(event.old, node)
        for listener in listeners:
            if idle:
                listener.wake_in_time()
            else:
                listener.wake()

    def _on_volume(self, event: Event, volume: api.Volume) -> None:
        node_ids = {status.node_id: None for status in volume.publish_status}
        if isinstance(event.old, api.Volume):
            node_ids.update({status.node_id: None for status in event.old.publish_status})
        for node_id in node_ids:
            for listener in self.assignments.of(node_id):
                listener.volumes[volume.id] = None
                listener.wake()


def _only_named_anew(old: api.Node, new: api.Node) -> bool:
    """Whether a node has other labels or another name now, and all it acts upon is the same."""
    return (
        old.spec.annotations != new.spec.annotations
        and _acted_upon(old) == _acted_upon(new)
        and old.certificate == new.certificate
        and old.status == new.status
    )


def _acted_upon(node: api.Node) -> tuple[object, ...]:
    """What of a node it does something about, beside certificate and status.

    A stock node sets up the networks of `attachments` (of the older `attachment`, when ingress
    is not among those) and the VXLAN port, whenever it is told (swarmkit `node.run`, moby
    `executor.Configure`). The description is left out: the node itself told it to the manager,
    and only looks whether it is still what it was. So are the name and the labels, of course.
    """
    spec = node.spec
    return (
        spec.desired_role,
        spec.membership,
        spec.availability,
        node.role,
        list(node.attachments),
        node.attachment,
        node.VXLANUDPPort,
    )
