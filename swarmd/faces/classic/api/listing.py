"""Lists over all engines: what `ps`, `images`, `network ls` and `volume ls` show. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Any

from swarmd.faces.classic.api.filters import Filters
from swarmd.faces.classic.api.humane import health_word, state_text, state_word
from swarmd.faces.classic.engines.engine import Engine
from swarmd.faces.classic.engines.finding import (
    FoundNetwork,
    FoundVolume,
    pick_network,
    unique_networks,
)
from swarmd.faces.classic.scheduler.names import image_matches, split_reference
from swarmd.faces.classic.scheduler.node import Container
from swarmd.faces.http.refusal import bad_request

Pair = tuple[Engine, Container]
_PREDEFINED = ("none", "host", "bridge")
_UNTAGGED = ("<none>:<none>", "<none>@<none>")


def is_shown(pair: Pair, filters: Filters, *, all: bool) -> bool:
    """Whether `ps` lists it; without `all` only what runs on healthy nodes."""
    engine, container = pair
    state, summary = container.state, container.summary
    if not all:
        if not (state.get("Running") and engine.healthy):
            return False
        if str(summary.get("Image") or "").partition(":")[0] == "swarm":
            return False  # the cluster's own containers
    names = container.names
    if "name" in filters and not (names and filters.match("name", names[0].removeprefix("/"))):
        return False
    labels = container.wish.labels
    return (
        filters.match("id", container.id)
        and filters.labels(labels)
        and filters.match("status", state_word(state))
        and filters.match("node", engine.name)
        and filters.exact("health", health_word(state))
        and filters.exact("is-task", str("com.docker.swarm.task" in labels).lower())
        and _has_volume(container, filters)
        and _has_network(container, filters)
        and _has_exited(container, filters)
    )


def _has_volume(container: Container, filters: Filters) -> bool:
    mounts = container.info.get("Mounts") or ()
    known = {mount.get(key) for mount in mounts for key in ("Name", "Destination")}
    return "volume" not in filters or any(value in known for value in filters.get("volume"))


def _has_network(container: Container, filters: Filters) -> bool:
    if "network" not in filters:
        return True
    settings = container.summary.get("NetworkSettings") or {}
    networks: dict[str, Any] = settings.get("Networks") or {}
    ids = [str((network or {}).get("NetworkID") or "") for network in networks.values()]
    return any(
        value in networks or any(id.startswith(value) for id in ids)
        for value in filters.get("network")
    )


def _has_exited(container: Container, filters: Filters) -> bool:
    if "exited" not in filters:
        return True
    try:
        codes = [int(value) for value in filters.get("exited")]
    except ValueError as error:
        raise bad_request(str(error)) from error
    state = container.state
    return not state.get("Running") and state.get("ExitCode") in codes


def newest_first(pairs: Sequence[Pair]) -> list[Pair]:
    """In the order of `ps`."""
    return sorted(pairs, key=lambda pair: str(pair[1].info.get("Created") or ""), reverse=True)


def container_line(pair: Pair, now: float) -> dict[str, Any]:
    """One line of `ps`: names with their node, ports at the node's address."""
    engine, container = pair
    skewed = now - engine.picture.skew_seconds
    status = state_text(container.state, skewed) if engine.healthy else "Host Down"
    ports = [
        {**port, "IP": engine.ip} if _is_any(port.get("IP")) else port
        for port in container.summary.get("Ports") or ()
    ]
    created = int(container.summary.get("Created") or 0) + int(engine.picture.skew_seconds)
    return {
        **container.summary,
        "Created": created,
        "Status": status,
        "Labels": container.wish.labels,
        "Names": [f"/{engine.name}{name}" for name in container.names],
        "Ports": ports,
    }


def place_ports(info: dict[str, Any], ip: str) -> None:
    """Let an inspection's bindings to all interfaces name the node's address."""
    for bindings in ((info.get("NetworkSettings") or {}).get("Ports") or {}).values():
        for binding in bindings or ():
            if not binding.get("HostIp") or _is_any(binding["HostIp"]):
                binding["HostIp"] = ip


def _is_any(ip: Any) -> bool:
    try:
        return bool(ip) and ip_address(str(ip)).is_unspecified
    except ValueError:
        return False


def image_lines(
    engines: Sequence[Engine], filters: Filters, *, all: bool = False
) -> list[dict[str, Any]]:
    """`images`: each id once, with the names it has anywhere; newest first."""
    found = [(engine, image) for engine in engines for image in engine.picture.images]
    before, since = (
        _boundary(filters, name, [i for _, i in found]) for name in ("before", "since")
    )
    if "dangling" in filters and filters.get("dangling")[0] not in ("true", "false"):
        raise bad_request("Invalid filter: 'type'='dangling'")
    merged: dict[str, dict[str, Any]] = {}
    for engine, image in found:
        created = image.get("Created") or 0
        if (
            not _image_is_shown(image, filters, all=all)
            or (before is not None and created >= before)
            or (since is not None and created <= since)
            or ("node" in filters and not {engine.name, engine.id} & set(filters.get("node")))
        ):
            continue
        line = merged.setdefault(str(image["Id"]), {**image, "RepoTags": [], "RepoDigests": []})
        for key in ("RepoTags", "RepoDigests"):
            line[key] += [name for name in image.get(key) or () if name not in line[key]]
    return sorted(merged.values(), key=lambda image: -(image.get("Created") or 0))


def _boundary(filters: Filters, name: str, images: Sequence[dict[str, Any]]) -> int | None:
    if name not in filters:
        return None
    wanted = filters.get(name)[0]
    for image in images:
        if image_matches(image, wanted, with_tag=False):
            return int(image.get("Created") or 0)
    raise bad_request(f"Invalid filter: 'type'='{name}': no such image found: '{wanted}'")


def _image_is_shown(image: dict[str, Any], filters: Filters, *, all: bool) -> bool:
    names = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
    named = any(name not in _UNTAGGED for name in names)
    if "dangling" in filters:
        if named == (filters.get("dangling")[0] == "true"):
            return False
    elif not (all or named):
        return False
    return filters.labels(image.get("Labels") or {}) and _refers(names, filters)


def _refers(names: Sequence[str], filters: Filters) -> bool:
    if "reference" not in filters:
        return True
    candidates = {form for name in names for form in (name, split_reference(name)[0])}
    return any(
        _glob(pattern, candidate)
        for pattern in filters.get("reference")
        for candidate in candidates
    )


def _glob(pattern: str, text: str) -> bool:
    """Match a path pattern: "*" stays within one segment, as in Go's path.Match."""
    wanted, given = pattern.split("/"), text.split("/")
    return len(wanted) == len(given) and all(
        fnmatchcase(part, shape) for part, shape in zip(given, wanted, strict=True)
    )


def network_lines(found: list[FoundNetwork], filters: Filters) -> list[dict[str, Any]]:
    """`network ls`: global networks once, local ones as NODE/NAME."""
    for wanted in filters.get("type"):
        if wanted not in ("custom", "builtin"):
            raise bad_request(f"Invalid filter: 'type'='{wanted}'")
    unique = unique_networks(found)
    if "name" in filters or "id" in filters:
        wanted_ids = {
            picked.network["Id"]
            for text in [*filters.get("name"), *filters.get("id")]
            if (picked := pick_network(unique, text)) is not None
        }
        named = "name" in filters
        unique = [
            item
            for item in unique
            if item.network["Id"] in wanted_ids
            or (named and filters.match("name", str(item.network["Name"])))
        ]
    return [_network_line(item) for item in unique if _network_is_shown(item, filters)]


def _network_is_shown(item: FoundNetwork, filters: Filters) -> bool:
    network = item.network
    kind = "builtin" if network["Name"] in _PREDEFINED else "custom"
    return (
        all(wanted == kind for wanted in filters.get("type"))
        and filters.labels(network.get("Labels") or {})
        and filters.exact("driver", str(network.get("Driver") or ""))
        and all(node == item.engine.name for node in filters.get("node"))
    )


def _network_line(item: FoundNetwork) -> dict[str, Any]:
    if item.network.get("Scope") != "local":
        return item.network
    return {**item.network, "Name": f"{item.engine.name}/{item.network['Name']}"}


def volume_lines(found: Sequence[FoundVolume], filters: Filters) -> list[dict[str, Any]]:
    """`volume ls`: local volumes as NODE/NAME."""
    lines = []
    for item in found:
        volume, local = item.volume, item.volume.get("Driver") == "local"
        names = filters.get("name")
        if names and not any(name in volume["Name"] for name in names):
            continue
        if not filters.labels(volume.get("Labels") or {}):
            continue
        if local and not filters.exact("node", item.engine.name):
            continue
        name = f"{item.engine.name}/{volume['Name']}" if local else volume["Name"]
        lines.append({**volume, "Name": name})
    return lines
