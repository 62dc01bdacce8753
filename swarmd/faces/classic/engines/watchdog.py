"""Containers that shall outlive their node: made anew elsewhere, and cleaned up when it is back."""

from __future__ import annotations

import asyncio
import logging

from swarmd.base.aio import ChannelClosed
from swarmd.base.errors import SwarmError
from swarmd.faces.classic.engines.calls import segment
from swarmd.faces.classic.engines.cluster import Cluster
from swarmd.faces.classic.engines.creation import Creator
from swarmd.faces.classic.engines.engine import Engine
from swarmd.faces.classic.scheduler.node import Container
from swarmd.faces.http.refusal import Refusal

log = logging.getLogger("classic")


class Watchdog:
    """Reacts to engines that vanish and return. Only containers that asked for it are moved."""

    def __init__(self, cluster: Cluster, creator: Creator) -> None:
        self._cluster = cluster
        self._creator = creator

    async def run(self, ready: asyncio.Event) -> None:
        """Follow the cluster's events until cancelled."""
        while True:
            channel, leave = self._cluster.listen()
            ready.set()
            try:
                while True:
                    event = await channel.get()
                    match event.message.get("Action"):
                        case "engine_disconnect":
                            await self._reschedule(event.engine)
                        case "engine_connect" | "engine_reconnect":
                            await self._remove_duplicates(event.engine)
            except ChannelClosed:
                log.warning("the watchdog fell behind the events and begins anew")
            finally:
                leave()

    async def _reschedule(self, engine: Engine) -> None:
        for id in sorted(engine.picture.containers):
            container = engine.picture.containers[id]
            if not container.wish.reschedules() or engine.healthy:
                continue
            # Out of the picture first: it holds the name that the new one needs.
            del engine.picture.containers[id]
            try:
                await self._move(engine, container)
            except (Refusal, SwarmError) as error:
                engine.picture.containers[id] = container
                log.error("Failed to reschedule container %s: %s", id, error.message)

    async def _move(self, engine: Engine, container: Container) -> None:
        names = container.names
        if not names:
            return
        wish = container.wish.copy()
        endpoints = wish.body["NetworkingConfig"].get("EndpointsConfig") or {}
        # Addresses and ids of the old node's own networks mean nothing elsewhere.
        wish.body["NetworkingConfig"]["EndpointsConfig"] = {
            name: {key: value for key, value in (settings or {}).items() if key == "Aliases"}
            for name, settings in endpoints.items()
            if name == wish.network_mode
        }
        where, id = await self._creator.create(wish, names[0].removeprefix("/"), "")
        log.info(
            "Rescheduled container %s from %s to %s as %s",
            *(container.id, engine.name, where.name, id),
        )
        if container.state.get("Running"):
            async with where.checked() as calls:
                await calls.post(f"/containers/{segment(id)}/start")
            await where.refresh_container(id)

    async def _remove_duplicates(self, engine: Engine) -> None:
        for id in sorted(engine.picture.containers):
            container = engine.picture.containers[id]
            swarm_id = container.wish.swarm_id
            if not swarm_id or not container.wish.reschedules():
                continue
            if not any(
                other is not engine and twin.wish.swarm_id == swarm_id
                for other, twin in self._cluster.containers()
            ):
                continue
            log.info("container %s was rescheduled, removing it from %s", id, engine.name)
            try:
                async with engine.checked() as calls:
                    await calls.delete(f"/containers/{segment(id)}", force=True, v=True)
                await engine.refresh_container(id)
            except (Refusal, SwarmError) as error:
                log.error("Failed to remove duplicate container %s: %s", id, error.message)
