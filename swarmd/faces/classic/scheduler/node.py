"""A node and its containers as filters and strategies see them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from swarmd.faces.classic.scheduler.names import short_id
from swarmd.faces.classic.scheduler.wish import Wish


@dataclass(slots=True)
class Container:
    """A container on some engine: its line in the list, its inspection, its wish.

    One that is still being made has no id and no inspection.
    """

    engine_id: str
    engine_name: str
    wish: Wish
    summary: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The engine's id for it; "" while it is being made."""
        return str(self.summary.get("Id") or "")

    @property
    def names(self) -> list[str]:
        """Names with their leading slash."""
        return list(self.summary.get("Names") or ())

    @property
    def state(self) -> dict[str, Any]:
        """The inspection's State."""
        found: dict[str, Any] = self.info.get("State") or {}
        return found


@dataclass(slots=True)
class Node:
    """An engine at the moment of a decision."""

    id: str
    name: str
    labels: dict[str, str]
    containers: list[Container]
    images: Sequence[dict[str, Any]] = ()
    used_memory: int = 0
    used_cpus: int = 0
    total_memory: int = 0
    total_cpus: int = 0
    health: int = 100  # per cent; 0 is unhealthy

    def add(self, container: Container) -> None:
        """Count one more container that is on its way to this node."""
        self.used_memory += container.wish.memory
        self.used_cpus += container.wish.cpus
        self.containers.append(container)

    def container(self, wanted: str) -> Container | None:
        """The one container here called `wanted`."""
        return find_container(self.containers, wanted)


def find_container(containers: Sequence[Container], wanted: str) -> Container | None:
    """By full or short id, swarm id, name (NAME, NODE/NAME, NODEID/NAME), then unique prefix.

    None when nothing or more than one thing is meant.
    """
    if not wanted:
        return None
    for container in containers:
        if wanted in (container.id, container.id[:12]):
            return container
    for container in containers:
        if wanted in (container.wish.swarm_id, short_id(container.wish.swarm_id)):
            return container
    named = [container for container in containers if _is_called(container, wanted)]
    if named:
        return named[0] if len(named) == 1 else None
    begun = [
        container
        for container in containers
        if container.id.startswith(wanted) or container.wish.swarm_id.startswith(wanted)
    ]
    return begun[0] if len(begun) == 1 else None


def _is_called(container: Container, wanted: str) -> bool:
    return any(
        wanted in (name, name[1:], f"{container.engine_id}{name}", f"{container.engine_name}{name}")
        for name in container.names
    )
