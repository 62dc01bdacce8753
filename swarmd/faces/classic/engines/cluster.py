"""All engines of a cluster: discovery adds and removes them; look-ups go over their pictures."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swarmd.base.aio import Channel, Tasks, cancel_and_wait
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import SwarmError
from swarmd.base.limits import watch_events_max
from swarmd.faces.classic.discovery.backends import Backend, watch
from swarmd.faces.classic.engines.engine import Engine, Settings, Status
from swarmd.faces.classic.scheduler.node import Container, Node, find_container
from swarmd.faces.classic.scheduler.select import Scheduler
from swarmd.faces.classic.scheduler.wish import Wish

log = logging.getLogger("classic")


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """Something happened on an engine."""

    engine: Engine
    message: dict[str, Any]


class Cluster:
    """The engines, by address. `run` is its life."""

    def __init__(
        self,
        backend: Backend,
        scheduler: Scheduler,
        clock: Clock,
        entropy: Entropy,
        *,
        context: ssl.SSLContext | None = None,
        settings: Settings | None = None,
        heartbeat_seconds: float = 60.0,
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.entropy = entropy
        self.engines: dict[str, Engine] = {}
        # Being made: swarm id -> the container as the scheduler must see it.
        self.pending: dict[str, Container] = {}
        self._backend = backend
        self._context = context
        self._settings = settings or Settings()
        self._heartbeat_seconds = heartbeat_seconds
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._listeners: list[Channel[ClusterEvent]] = []

    async def run(self, ready: asyncio.Event) -> None:
        """Follow discovery until cancelled; `ready` is set at once: engines come and go."""
        async with Tasks() as tasks:
            ready.set()
            async for addresses in watch(self._backend, self._heartbeat_seconds, _complain):
                for gone in sorted(set(self.engines) - set(addresses)):
                    await self._remove(gone)
                for new in addresses:
                    if new not in self.engines:
                        self._add(tasks, new)

    def _add(self, tasks: Tasks, address: str) -> None:
        engine = Engine(
            address, self._context, self.clock, self.entropy, self._settings, self._tell
        )
        self.engines[address] = engine
        self._lives[address] = tasks.spawn(engine.run(), f"engine-{address}")

    async def _remove(self, address: str) -> None:
        log.info("discovery no longer names %s", address)
        await cancel_and_wait(self._lives.pop(address))
        self.engines.pop(address)

    # Looking

    def members(self) -> list[Engine]:
        """Engines that were validated once, by name; some may be unhealthy now."""
        return [engine for engine in self.everybody() if engine.status is not Status.PENDING]

    def everybody(self) -> list[Engine]:
        """All engines, pending ones included, by name."""
        return sorted(self.engines.values(), key=lambda engine: (engine.name, engine.address))

    def nodes(self) -> list[Node]:
        """Members for the scheduler, with what is being made on them."""
        nodes = []
        for engine in self.members():
            node = engine.node()
            for swarm_id, container in sorted(self.pending.items()):
                here = container.engine_id == node.id
                if here and not any(c.wish.swarm_id == swarm_id for c in node.containers):
                    node.add(container)
            nodes.append(node)
        return nodes

    def containers(self) -> list[tuple[Engine, Container]]:
        """All containers with their engines."""
        return [
            (engine, engine.picture.containers[id])
            for engine in self.members()
            for id in sorted(engine.picture.containers)
        ]

    def container(self, wanted: str) -> tuple[Engine, Container] | None:
        """The one container called `wanted`, by the rules of `find_container`."""
        pairs = self.containers()
        found = find_container([container for _, container in pairs], wanted)
        return next((pair for pair in pairs if pair[1] is found), None)

    def name_is_taken(self, name: str) -> bool:
        """Whether any container, being made or made, is called `name`."""
        bare = name.removeprefix("/")
        if not bare:
            return False
        taken = {known.removeprefix("/") for _, c in self.containers() for known in c.names}
        taken |= {known.removeprefix("/") for c in self.pending.values() for known in c.names}
        return bare in taken

    def select(self, wish: Wish) -> list[Engine]:
        """Engines that may take it, best first. Raises `NoNode`."""
        by_id = {engine.id: engine for engine in self.members()}
        return [by_id[node.id] for node in self.scheduler.select(wish, self.nodes())]

    def any_engine(self) -> Engine:
        """Some healthy engine, for what any of them can answer. Raises `NoNode`."""
        return self.select(Wish({}))[0]

    # Events

    def listen(self) -> tuple[Channel[ClusterEvent], Callable[[], None]]:
        """Events from now on, and how to stop. A listener that falls behind is cut off."""
        channel: Channel[ClusterEvent] = Channel(watch_events_max)
        self._listeners.append(channel)

        def leave() -> None:
            if channel in self._listeners:
                self._listeners.remove(channel)
            channel.close()

        return channel, leave

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def _tell(self, engine: Engine, message: dict[str, Any]) -> None:
        event = ClusterEvent(engine, message)
        for channel in list(self._listeners):
            if not channel.put_nowait(event):
                self._listeners.remove(channel)


def _complain(error: SwarmError) -> None:
    log.error("Discovery error: %s", error.message)
