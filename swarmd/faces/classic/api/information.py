"""`docker info` and `docker version` of a classic cluster. Pure."""

from __future__ import annotations

import os
import platform
import socket
from datetime import UTC, datetime
from typing import Any

from swarmd.faces.classic.api.filters import Filters
from swarmd.faces.classic.api.humane import bytes_size
from swarmd.faces.classic.api.listing import image_lines
from swarmd.faces.classic.engines.cluster import Cluster
from swarmd.faces.classic.engines.engine import Engine

# The release whose behaviour this is.
SWARM_VERSION = "swarm/1.2.9"
API_VERSION = "1.40"
Pairs = list[tuple[str, str]]


def info(cluster: Cluster, now: float) -> dict[str, Any]:
    """The /info of the cluster; clients print SystemStatus line by line."""
    members = cluster.members()
    states = [container.state for _, container in cluster.containers()]
    paused = sum(bool(state.get("Paused")) for state in states)
    running = sum(bool(state.get("Running")) and not state.get("Paused") for state in states)
    status = system_status(cluster)
    found: dict[str, Any] = {
        "ID": "",
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(image_lines(members, Filters({}))),
        "Driver": "",
        "DriverStatus": None,
        "SystemStatus": [list(pair) for pair in status],
        "NEventsListener": cluster.listeners,
        "Name": socket.gethostname(),
        "ServerVersion": SWARM_VERSION,
        "OperatingSystem": "linux",
        "OSType": "linux",
        "Architecture": _architecture(),
        "KernelVersion": platform.release(),
        "NCPU": sum(engine.picture.total_cpus for engine in members),
        "MemTotal": sum(engine.picture.total_memory for engine in members),
        "SystemTime": datetime.fromtimestamp(now, UTC).isoformat(),
        "HttpProxy": os.environ.get("http_proxy", ""),
        "HttpsProxy": os.environ.get("https_proxy", ""),
        "NoProxy": os.environ.get("no_proxy", ""),
        "Plugins": {"Volume": None, "Network": None, "Authorization": None, "Log": None},
        "Labels": None,
        "Debug": False,
        "ExperimentalBuild": False,
    }
    for capability in (
        *("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet"),
        *("IPv4Forwarding", "BridgeNfIptables", "BridgeNfIp6tables", "OomKillDisable"),
    ):
        found[capability] = True
    return found


def system_status(cluster: Cluster) -> Pairs:
    """The lines about the cluster and each node."""
    everybody = cluster.everybody()
    lines: Pairs = [
        ("Role", "primary"),
        ("Strategy", cluster.scheduler.strategy),
        ("Filters", ", ".join(cluster.scheduler.filters)),
        ("Nodes", str(len(everybody))),
    ]
    for engine in everybody:
        lines += _engine_lines(engine)
    return lines


def _engine_lines(engine: Engine) -> Pairs:
    picture = engine.picture
    used, total = bytes_size(picture.used_memory), bytes_size(picture.total_memory)
    labels = ", ".join(sorted(f"{key}={value}" for key, value in picture.labels.items()))
    updated = datetime.fromtimestamp(engine.updated_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [
        (f" {engine.name or '(unknown)'}", engine.address),
        ("  └ ID", engine.id),
        ("  └ Status", engine.status.value),
        ("  └ Containers", _container_counts(engine)),
        ("  └ Reserved CPUs", f"{picture.used_cpus} / {picture.total_cpus}"),
        ("  └ Reserved Memory", f"{used} / {total}"),
        ("  └ Labels", labels),
    ]
    if engine.error:
        lines.append(("  └ Error", engine.error))
    return [*lines, ("  └ UpdatedAt", updated), ("  └ ServerVersion", picture.version)]


def _container_counts(engine: Engine) -> str:
    states = [container.state for container in engine.picture.containers.values()]
    if not engine.healthy:
        return str(len(states))
    paused = sum(bool(state.get("Paused")) for state in states)
    running = sum(bool(state.get("Running")) and not state.get("Paused") for state in states)
    stopped = len(states) - paused - running
    return f"{len(states)} ({running} Running, {paused} Paused, {stopped} Stopped)"


def version() -> dict[str, Any]:
    """The /version of the cluster."""
    return {
        "Platform": {"Name": "Docker Swarm - Community"},
        "Version": SWARM_VERSION,
        "ApiVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": _architecture(),
        "KernelVersion": platform.release(),
        "Experimental": False,
        "BuildTime": "",
    }


def _architecture() -> str:
    """The machine in Go's words."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
