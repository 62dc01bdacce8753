"""One engine: its state, its picture and the life that keeps the picture fresh."""

from __future__ import annotations

import asyncio
import enum
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from swarmd.base.aio import Tasks, until
from swarmd.base.backoff import Backoff
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import SwarmError
from swarmd.faces.classic.discovery.entries import split_host_port
from swarmd.faces.classic.engines.calls import EngineCalls, segment
from swarmd.faces.classic.engines.picture import DEFAULT_OVERCOMMIT, Picture
from swarmd.faces.classic.scheduler.node import Node
from swarmd.faces.http.refusal import Refusal, Unreachable

log = logging.getLogger("classic")

SPECS_SECONDS = 300.0
inspections_at_once_max = 8
_VALIDATION = Backoff(base_seconds=1.0, cap_seconds=30.0)
# What events of a container leave unchanged.
_HARMLESS = frozenset(
    {"top", "resize", "export", "exec_create", "exec_start", "exec_detach", "exec_die", "attach"}
    | {"detach", "extract-to-dir", "copy", "archive-path"}
)


class Status(enum.Enum):
    """What `docker info` shows."""

    PENDING = "Pending"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    DISCONNECTED = "Disconnected"


@dataclass(frozen=True, slots=True)
class Settings:
    """How engines are watched."""

    refresh_seconds_min: float = 30.0
    refresh_seconds_max: float = 60.0
    failures_max: int = 3
    overcommit: float = DEFAULT_OVERCOMMIT


class Engine:
    """An engine that discovery names. `run` is its life; cancel it to let go."""

    def __init__(
        self,
        address: str,
        context: ssl.SSLContext | None,
        clock: Clock,
        entropy: Entropy,
        settings: Settings,
        on_event: Callable[[Engine, dict[str, Any]], None],
    ) -> None:
        self.address = address
        self.ip = ""
        self.calls = EngineCalls(address, context)
        self.picture = Picture(address, settings.overcommit)
        self.status = Status.PENDING
        self.error = ""
        self.failures = 0
        self.updated_at = clock.now()
        self._clock = clock
        self._entropy = entropy
        self._settings = settings
        self._on_event = on_event
        self._stale = asyncio.Event()
        self._full = False

    @property
    def id(self) -> str:
        """The engine's own id and its address; "" before the first contact."""
        return self.picture.id

    @property
    def name(self) -> str:
        """The engine's host name; "" before the first contact."""
        return self.picture.name

    @property
    def healthy(self) -> bool:
        """Whether it answers."""
        return self.status is Status.HEALTHY

    @property
    def health(self) -> int:
        """Per cent; each failure in a row takes some."""
        if not self.healthy or self.failures >= self._settings.failures_max:
            return 0
        return 100 - self.failures * 100 // self._settings.failures_max

    def node(self) -> Node:
        """What the scheduler looks at."""
        return self.picture.node(self.health)

    def describe(self) -> dict[str, Any]:
        """The Node of a container's inspection."""
        picture = self.picture
        return {
            "ID": picture.id,
            "IP": self.ip,
            "Addr": self.address,
            "Name": picture.name,
            "Cpus": picture.cpus,
            "Memory": picture.memory,
            "Labels": picture.labels,
        }

    # Life

    async def run(self) -> None:
        """Validate, then stay fresh until cancelled."""
        attempt = 0
        while not await self._validated():
            await asyncio.sleep(_VALIDATION.delay(attempt, self._entropy))
            attempt += 1
        self.status = Status.HEALTHY
        log.info("Registered Engine %s at %s", self.name, self.address)
        self._emit("engine_connect")
        try:
            async with Tasks() as tasks:
                tasks.spawn(self._follow_events(), f"engine-events-{self.address}")
                await self._stay_fresh()
        finally:
            self.status = Status.DISCONNECTED
            log.info("Removed Engine %s", self.name)
            self._emit("engine_disconnect")

    async def _validated(self) -> bool:
        try:
            await self.refresh_specs()
            await self.refresh_all(full=True)
        except (Refusal, SwarmError) as error:
            self._note(error.message)
            log.debug("Failed to validate pending node %s: %s", self.address, self.error)
            return False
        return True

    async def _stay_fresh(self) -> None:
        specs_at = self._clock.monotonic()
        while True:
            await until(self._stale, self._pause())
            self._stale.clear()
            try:
                old = self._clock.monotonic() - specs_at > SPECS_SECONDS
                if old or not self.healthy:
                    await self.refresh_specs()
                    specs_at = self._clock.monotonic()
                full, self._full = self._full, False
                await self.refresh_all(full=full)
            except (Refusal, SwarmError) as error:
                self._note(error.message)
                log.debug("Engine refresh failed: %s: %s", self.name, self.error)

    def _pause(self) -> float:
        settings = self._settings
        if 0 < self.failures < settings.failures_max:
            return float(self.failures)  # be sure soon
        extra = settings.refresh_seconds_min * max(0, self.failures - settings.failures_max)
        pause = self._entropy.uniform(settings.refresh_seconds_min, settings.refresh_seconds_max)
        return min(pause + extra, settings.refresh_seconds_max * 10)

    async def _follow_events(self) -> None:
        while True:
            try:
                async with self.checked() as calls:
                    await calls.link.call("GET", "/_ping")
                async with self.checked() as calls:
                    stream = calls.lines("GET", calls.target("/events"))
                    async with aclosing(stream):
                        async for event in stream:
                            await self._handle(event)
            except Refusal as error:
                log.debug("events of %s: %s", self.name, error.message)
            self._stale.set()
            await asyncio.sleep(min(self.failures + 1, 10))

    async def _handle(self, event: dict[str, Any]) -> None:
        try:
            await self._refresh_after(event)
        except (Refusal, SwarmError) as error:
            log.debug("after an event of %s: %s", self.name, error.message)
        self._on_event(self, event)

    async def _refresh_after(self, event: dict[str, Any]) -> None:
        action = str(event.get("Action") or event.get("status") or "").partition(":")[0]
        actor = event.get("Actor") or {}
        id = str(actor.get("ID") or event.get("id") or "")
        match event.get("Type"):
            case "network":
                await self.refresh_networks()
            case "volume":
                await self.refresh_volumes()
            case "image":
                await self.refresh_images()
            case "container" if action == "commit":
                await self.refresh_images()
            case "container" if action not in _HARMLESS and id:
                await self.refresh_container(id)
            case "daemon" if action == "reload":
                await self.refresh_specs()

    def _emit(self, action: str) -> None:
        now = self._clock.now()
        event = {
            "status": action,
            "from": "swarm",
            "Type": "swarm",
            "Action": action,
            "Actor": {"ID": "", "Attributes": {}},
            "time": int(now),
            "timeNano": int(now * 1e9),
        }
        self._on_event(self, event)

    # Health

    @asynccontextmanager
    async def checked(self) -> AsyncIterator[EngineCalls]:
        """Requests whose outcome says whether the engine is there; errors pass through."""
        try:
            yield self.calls
        except Unreachable as error:
            self._failed(error.message)
            raise
        except Refusal:
            self._answered()
            raise
        self._answered()

    def _failed(self, message: str) -> None:
        self.failures += 1
        self._note(message)
        if self.healthy and self.failures >= self._settings.failures_max:
            self.status = Status.UNHEALTHY
            log.error("Flagging engine %s as unhealthy: %s", self.name, message)
            self._emit("engine_disconnect")

    def _answered(self) -> None:
        self.failures = 0
        self.error = ""
        self.updated_at = self._clock.now()
        if self.status is Status.UNHEALTHY:
            self.status = Status.HEALTHY
            log.info("Engine %s came back to life", self.name)
            # Much may have happened unseen.
            self._full = True
            self._stale.set()
            self._emit("engine_reconnect")

    def _note(self, message: str) -> None:
        self.error = message.strip()
        self.updated_at = self._clock.now()

    # Refreshing; all raise `Refusal`

    async def refresh_specs(self) -> None:
        """Ask what the engine is. Raises `SwarmError` when it may not be a member."""
        self.ip = await self._resolve()
        async with self.checked() as calls:
            version = await calls.link.get_json("/version")
            calls.negotiate(
                str(version.get("ApiVersion") or ""), str(version.get("MinAPIVersion") or "")
            )
            info = await calls.get("/info")
        self.picture.take_specs(info, version, self._clock.now())

    async def _resolve(self) -> str:
        host, port = split_host_port(self.address)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            raise self.calls.link.gone(str(error)) from error
        return str(found[0][4][0])

    async def refresh_all(self, *, full: bool) -> None:
        """All lists; containers are inspected where their line changed, or all if `full`."""
        await self.refresh_containers(full=full)
        await self.refresh_images()
        await self.refresh_volumes()
        await self.refresh_networks()

    async def refresh_containers(self, *, full: bool = True) -> None:
        """All containers."""
        async with self.checked() as calls:
            summaries = await calls.get("/containers/json", all=True) or []
        present = {str(summary.get("Id")) for summary in summaries}
        picture = self.picture
        wanted = [s for s in summaries if full or picture.wants_inspection(s)]
        for start in range(0, len(wanted), inspections_at_once_max):
            await self._inspect(wanted[start : start + inspections_at_once_max])
        for summary in summaries:
            if str(summary.get("Id")) in picture.containers:
                picture.take_container(summary, None)
        for id in sorted(set(picture.containers) - present):
            del picture.containers[id]

    async def _inspect(self, summaries: Sequence[dict[str, Any]]) -> None:
        async with Tasks() as tasks:
            jobs = [tasks.spawn(self._inspection(str(s["Id"])), "inspect") for s in summaries]
            await asyncio.wait(jobs)
        for summary, job in zip(summaries, jobs, strict=True):
            outcome = job.result()
            if isinstance(outcome, Refusal):
                raise outcome
            if outcome is not None:
                self.picture.take_container(summary, outcome)

    async def _inspection(self, id: str) -> dict[str, Any] | Refusal | None:
        """None when it is gone meanwhile; other trouble is returned: a group would wrap it."""
        try:
            async with self.checked() as calls:
                found: dict[str, Any] = await calls.get(f"/containers/{segment(id)}/json")
                return found
        except Refusal as error:
            return None if error.status == 404 else error

    async def refresh_container(self, id: str) -> None:
        """One container, by its full id."""
        async with self.checked() as calls:
            found = await calls.get("/containers/json", all=True, filters={"id": [id]}) or []
        lines = [summary for summary in found if summary.get("Id") == id]
        if lines:
            await self._inspect(lines)
        else:
            self.picture.containers.pop(id, None)

    async def refresh_images(self) -> None:
        """All images."""
        async with self.checked() as calls:
            self.picture.images = await calls.get("/images/json", all=True) or []

    async def refresh_networks(self) -> None:
        """All networks."""
        async with self.checked() as calls:
            found = await calls.get("/networks") or []
        self.picture.networks = {str(network["Id"]): network for network in found}

    async def refresh_volumes(self) -> None:
        """All volumes."""
        async with self.checked() as calls:
            found = (await calls.get("/volumes") or {}).get("Volumes") or []
        self.picture.volumes = {str(volume["Name"]): volume for volume in found}
