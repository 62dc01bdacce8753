"""Facts of this machine for /info and /version, read once at start."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from swarmd.faces.engineapi.backend import HostFacts


def read_host_facts(
    server_version: str,
    *,
    id: str = "",
    hostname: str = "",
    root_dir: str = "",
    git_commit: str = "",
    build_time: str = "",
    debug: bool = False,
    labels: Sequence[str] = (),
) -> HostFacts:
    """Describe this machine; `id` and `root_dir` are the daemon's."""
    system = os.uname()
    release = _os_release()
    return HostFacts(
        server_version=server_version,
        id=id,
        hostname=hostname or socket.gethostname(),
        git_commit=git_commit,
        build_time=build_time,
        architecture=system.machine,
        kernel_version=system.release,
        operating_system=release.get("PRETTY_NAME", system.sysname),
        os_version=release.get("VERSION_ID", ""),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        root_dir=root_dir,
        debug=debug,
        labels=tuple(labels),
    )


def _os_release() -> dict[str, str]:
    out: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    key, equals, value = line.strip().partition("=")
                    if equals:
                        out[key] = value.strip("\"'")
            return out
        except OSError:
            continue
    return out
