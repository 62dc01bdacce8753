"""What is known of one engine. Pure: answers go in, facts come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from swarmd.base.errors import SwarmError
from swarmd.faces.classic.scheduler.node import Container, Node
from swarmd.faces.classic.scheduler.wish import from_inspect

DEFAULT_OVERCOMMIT = 0.05
# Clocks that differ less are taken for equal, seconds.
CLOCK_SKEW_SECONDS = 2.0
_FACTS = {
    "storagedriver": "Driver",
    "kernelversion": "KernelVersion",
    "operatingsystem": "OperatingSystem",
    "ostype": "OSType",
}


@dataclass(slots=True)
class Picture:
    """An engine's specifications and objects, as last seen."""

    address: str
    overcommit: float = DEFAULT_OVERCOMMIT
    id: str = ""
    name: str = ""
    version: str = ""
    cpus: int = 0
    memory: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    skew_seconds: float = 0.0  # our clock minus the engine's
    containers: dict[str, Container] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def total_memory(self) -> int:
        """Bytes that may be reserved: overcommit included."""
        return self.memory + self.memory * int(self.overcommit * 100) // 100

    @property
    def total_cpus(self) -> int:
        """CPUs that may be reserved: overcommit included."""
        return self.cpus + self.cpus * int(self.overcommit * 100) // 100

    @property
    def used_memory(self) -> int:
        """Bytes reserved by containers, running or not."""
        return sum(container.wish.memory for container in self.containers.values())

    @property
    def used_cpus(self) -> int:
        """CPUs reserved by containers, running or not."""
        return sum(container.wish.cpus for container in self.containers.values())

    def take_specs(self, info: dict[str, Any], version: dict[str, Any], now: float) -> None:
        """Use the engine's /info and /version. Raises `SwarmError` when it is no member."""
        is_manager = str(version.get("Version") or "").startswith("swarm/")
        if is_manager or not info.get("NCPU") or not info.get("MemTotal"):
            raise SwarmError(
                f"cannot get resources for this engine, make sure {self.address} "
                "is a Docker Engine, not a Swarm manager"
            )
        id = f"{info.get('ID', '')}|{self.address}"
        if self.id and self.id != id:
            raise SwarmError(
                f"Engine (ID: {self.id}, Addr: {self.address}) shows up with another ID:{id}. "
                "Please remove it from cluster, it can be added back."
            )
        labels = self._labels(info)
        self.id = id
        self.name = str(info.get("Name") or "")
        self.version = str(version.get("Version") or "")
        self.cpus, self.memory = int(info["NCPU"]), int(info["MemTotal"])
        self.labels = labels
        self.skew_seconds = _skew(str(info.get("SystemTime") or ""), now)

    def _labels(self, info: dict[str, Any]) -> dict[str, str]:
        labels = {name: str(info[key]) for name, key in _FACTS.items() if info.get(key)}
        for text in info.get("Labels") or ():
            key, equals, value = str(text).partition("=")
            if not equals:
                raise SwarmError(
                    f"Engine (ID: {info.get('ID', '')}, Addr: {self.address}) contains an invalid "
                    f'label ({text}) not formatted as "key=value".'
                )
            # "node" is what constraints call the engine itself; facts cannot be overridden.
            if key != "node":
                labels.setdefault(key, value)
        return labels

    def wants_inspection(self, summary: dict[str, Any]) -> bool:
        """Whether the line of a list tells that our inspection of that container is old."""
        known = self.containers.get(str(summary.get("Id")))
        if known is None:
            return True
        return (
            bool(known.state.get("Restarting"))
            or known.summary.get("State") != summary.get("State")
            or known.names != list(summary.get("Names") or ())
        )

    def take_container(self, summary: dict[str, Any], info: dict[str, Any] | None) -> Container:
        """Put a container into the picture; without `info` only its line is new."""
        id = str(summary["Id"])
        known = self.containers.get(id)
        if info is None and known is not None:
            known.summary = summary
            return known
        info = info or {}
        made = Container(self.id, self.name, from_inspect(info, self.cpus), summary, info)
        self.containers[id] = made
        return made

    def node(self, health: int) -> Node:
        """What the scheduler looks at."""
        return Node(
            id=self.id,
            name=self.name,
            labels=self.labels,
            containers=[self.containers[id] for id in sorted(self.containers)],
            images=self.images,
            used_memory=self.used_memory,
            used_cpus=self.used_cpus,
            total_memory=self.total_memory,
            total_cpus=self.total_cpus,
            health=health,
        )


def _skew(system_time: str, now: float) -> float:
    when = parse_time(system_time)
    skew = now - when if when else 0.0
    return skew if abs(skew) >= CLOCK_SKEW_SECONDS else 0.0


def parse_time(text: str) -> float:
    """An RFC 3339 time of an engine, in seconds; 0.0 for none and for Go's zero time."""
    if not text or text.startswith("0001-01-01"):
        return 0.0
    # Nine digits of a second are more than fromisoformat takes.
    head, dot, tail = text.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
