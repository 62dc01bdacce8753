"""Networks and volumes by name over all engines: NAME, NODE/NAME, NODEID/NAME, id or prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swarmd.faces.classic.engines.cluster import Cluster
from swarmd.faces.classic.engines.engine import Engine


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A network and an engine that has it."""

    engine: Engine
    network: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """A volume and an engine that has it."""

    engine: Engine
    volume: dict[str, Any]


def networks(cluster: Cluster) -> list[FoundNetwork]:
    """All networks of all engines; global ones once for each engine."""
    return [
        FoundNetwork(engine, engine.picture.networks[id])
        for engine in cluster.members()
        for id in sorted(engine.picture.networks)
    ]


def unique_networks(found: list[FoundNetwork]) -> list[FoundNetwork]:
    """One for each id, with the containers of all."""
    merged: dict[str, FoundNetwork] = {}
    for item in found:
        id = str(item.network["Id"])
        known = merged.get(id)
        if known is None:
            containers = dict(item.network.get("Containers") or {})
            merged[id] = FoundNetwork(item.engine, {**item.network, "Containers": containers})
        else:
            known.network["Containers"].update(item.network.get("Containers") or {})
    return list(merged.values())


def find_network(cluster: Cluster, wanted: str) -> FoundNetwork | None:
    """The one network called `wanted`; None when nothing or more than one is meant."""
    return pick_network(unique_networks(networks(cluster)), wanted)


def pick_network(found: list[FoundNetwork], wanted: str) -> FoundNetwork | None:
    """The one of `found` (each id once) called `wanted`."""
    if not wanted:
        return None
    for item in found:
        if wanted in (item.network["Id"], str(item.network["Id"])[:12]):
            return item
    named = [item for item in found if wanted in _names(item.engine, item.network["Name"])]
    if named:
        return named[0] if len(named) == 1 else None
    begun = [item for item in found if str(item.network["Id"]).startswith(wanted)]
    return begun[0] if len(begun) == 1 else None


def volumes(cluster: Cluster) -> list[FoundVolume]:
    """All volumes of all engines."""
    return [
        FoundVolume(engine, engine.picture.volumes[name])
        for engine in cluster.members()
        for name in sorted(engine.picture.volumes)
    ]


def find_volume(cluster: Cluster, wanted: str) -> FoundVolume | None:
    """The volume called `wanted`; of several one whose driver is not local, else None."""
    named = [v for v in volumes(cluster) if wanted in _names(v.engine, v.volume["Name"])]
    if len(named) > 1:
        named = [
            v for v in named if v.volume["Name"] == wanted and v.volume.get("Driver") != "local"
        ]
    return named[0] if named else None


def _names(engine: Engine, name: str) -> tuple[str, str, str]:
    return name, f"{engine.name}/{name}", f"{engine.id}/{name}"
