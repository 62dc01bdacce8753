"""/info of a host without an engine: the members clients read, with nothing to count."""

from __future__ import annotations

from datetime import UTC, datetime

from swarmd.faces.engineapi.backend import HostFacts
from swarmd.faces.engineapi.convert.common import Json


def base_info(host: HostFacts, now: float) -> Json:
    """Everything but the Swarm section. Newer members are harmless to old clients."""
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")
    out: Json = {
        "ID": host.id,
        "Containers": 0,
        "ContainersRunning": 0,
        "ContainersPaused": 0,
        "ContainersStopped": 0,
        "Images": 0,
        "Driver": "",
        "DriverStatus": None,
        "Plugins": {"Volume": None, "Network": None, "Authorization": None, "Log": None},
        "SystemTime": moment.replace("+00:00", "Z"),
        "LoggingDriver": "",
        "CgroupDriver": "",
        "NEventsListener": 0,
        "KernelVersion": host.kernel_version,
        "OperatingSystem": host.operating_system,
        "OSVersion": host.os_version,
        "OSType": host.os_type,
        "Architecture": host.architecture,
        "IndexServerAddress": "",
        "RegistryConfig": None,
        "NCPU": host.cpus,
        "MemTotal": host.memory_bytes,
        "GenericResources": None,
        "DockerRootDir": host.root_dir,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": host.hostname,
        "Labels": list(host.labels),
        "ExperimentalBuild": False,
        "ServerVersion": host.server_version,
        "Runtimes": None,
        "DefaultRuntime": "",
        "LiveRestoreEnabled": False,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": None,
        "Debug": host.debug,
        "NFd": 0,
        "NGoroutines": 0,
        "Warnings": list(host.warnings) or None,
    }
    # The client warns about each of these that is false; they describe an engine, not a manager.
    for name in _ENGINE_ABILITIES:
        out[name] = True
    return out


_ENGINE_ABILITIES = (
    "MemoryLimit",
    "SwapLimit",
    "KernelMemory",
    "KernelMemoryTCP",
    "CpuCfsPeriod",
    "CpuCfsQuota",
    "CPUShares",
    "CPUSet",
    "PidsLimit",
    "IPv4Forwarding",
    "BridgeNfIptables",
    "BridgeNfIp6tables",
    "OomKillDisable",
)
