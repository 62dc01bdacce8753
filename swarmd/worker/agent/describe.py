"""What this host is: the NodeDescription managers keep and schedule by."""

from __future__ import annotations

import os
import platform
import socket
from typing import Protocol

from swarmd import api

NANO = 1_000_000_000


class LocalEngine(Protocol):
    """A container engine found on this host."""

    async def describe(self) -> api.EngineDescription | None:
        """Its version, labels and plugins; None while it does not answer."""
        ...


def cpus() -> int:
    """Processors this process may use, as the engine counts them."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Physical memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def host_description(hostname: str = "") -> api.NodeDescription:
    """Name, platform and resources of this host; `hostname` overrides the kernel's."""
    return api.NodeDescription(
        hostname=hostname or socket.gethostname(),
        platform=api.Platform(architecture=platform.machine(), os=platform.system().lower()),
        resources=api.Resources(nano_cpus=cpus() * NANO, memory_bytes=memory_bytes()),
    )


def engine_description(found: api.EngineDescription) -> api.EngineDescription:
    """A copy with plugins sorted: the order an engine lists them in changes nothing."""
    copy = api.EngineDescription(engine_version=found.engine_version, labels=found.labels)
    plugins = sorted(found.plugins, key=lambda plugin: (plugin.type, plugin.name))
    copy.plugins.extend(plugins)
    return copy


async def describe(
    tls_info: api.NodeTLSInfo | None, engine: LocalEngine | None = None, hostname: str = ""
) -> api.NodeDescription:
    """The description to register with. Without an engine it has no engine part."""
    description = host_description(hostname)
    found = await engine.describe() if engine is not None else None
    if found is not None:
        description.engine.CopyFrom(engine_description(found))
    if tls_info is not None:
        description.tls_info.CopyFrom(tls_info)
    return description
