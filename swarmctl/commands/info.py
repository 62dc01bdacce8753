"""`swarmctl info`: client, server and above all the swarm's section."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from swarmctl import __version__, shapes
from swarmctl.command import Call, Command
from swarmctl.connect import DEFAULT_API_VERSION
from swarmctl.errors import CliError, ConnectError
from swarmctl.human import duration, size
from swarmctl.options import INSPECT_FORMAT_HELP, formatted
from swarmctl.output import format_status, parse, print_typed

Info = Mapping[str, Any]
# What a template sees of the swarm when the daemon could not be asked.
_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


def _info(call: Call) -> None:
    form = call.given["format"]
    if form:
        _by_template(call, form)
        return
    call.say("Client:")
    call.say(f" Version:    {__version__}")
    call.say(" Context:    default")
    call.say(f" Debug Mode: {_word(call.debug)}")
    call.say()
    call.say("Server:")
    try:
        info = call.client.get("/info").json()
    except ConnectError:
        raise
    except CliError as error:
        call.out.flush()
        print("ERROR:", error.message, file=call.err)
        raise CliError("errors pretty printing info") from None
    lines = _server(info)
    if (info.get("Swarm") or {}).get("Managers") and _is_swarmd(call):
        lines = with_quorum(lines, _unreachable(call))
    for line in lines:
        call.say(line)
    call.say()
    call.out.flush()
    for warning in info.get("Warnings") or ():
        print(warning, file=call.err)


def _is_swarmd(call: Call) -> bool:
    """Whether the daemon is one of ours; what a stock engine says is shown as docker shows it."""
    try:
        components = call.client.get("/version").json().get("Components")
    except CliError:
        return False
    return any(component.get("Name") == "swarmd" for component in components or ())


def _unreachable(call: Call) -> int:
    """How many managers are lost at the moment, as the leader sees it; 0 if nobody knows."""
    query = {"filters": json.dumps({"role": ["manager"]})}
    try:
        nodes = call.client.get("/nodes", query).json()
    except CliError:
        return 0
    known = [node["ManagerStatus"] for node in nodes if node.get("ManagerStatus")]
    return sum(status.get("Reachability") != "reachable" for status in known)


def with_quorum(lines: Iterable[str], unreachable: int) -> Iterator[str]:
    """Add what the number of managers means to the line that tells it."""
    mark = "  Managers: "
    for line in lines:
        yield line
        if line.startswith(mark):
            yield f"  Quorum: {quorum_margin(int(line.removeprefix(mark)), unreachable)}"


def quorum_margin(managers: int, unreachable: int = 0) -> str:
    """How many managers are needed and may be lost now, with advice for an even number."""
    quorum = managers // 2 + 1
    spare = max(0, managers - unreachable - quorum) or "none"
    text = f"{quorum} of {managers} managers, "
    if unreachable:
        text += f"{unreachable} unreachable: {spare} of the others can be lost"
    else:
        text += f"{spare} can be lost"
    if managers % 2 == 0:
        text += f" (an even number is no safer than {managers - 1}: add one, or demote one)"
    elif managers == 1:
        text += " (three can lose one)"
    return text


def _by_template(call: Call, form: str) -> None:
    client = {
        "Debug": call.debug,
        "Version": __version__,
        "DefaultAPIVersion": DEFAULT_API_VERSION,
        "Context": "default",
        "Plugins": [],
        "Warnings": None,
    }
    try:
        template = parse("{{json .}}" if form == "json" else form)
    except CliError as error:
        raise CliError(error.message, format_status) from None
    info: dict[str, Any] = {"Swarm": _NO_SWARM}
    trouble: ConnectError | None = None
    try:
        info = dict(call.client.get("/info").json())
    except ConnectError as error:
        trouble = error
    except CliError as error:
        print(error.message, file=call.err)
        info["ServerErrors"] = [error.message]
    print_typed(template, shapes.typed({**info, "ClientInfo": client}, shapes.INFO), call.out)
    if trouble is not None:
        raise trouble


def _word(value: object) -> str:
    """As Go prints it."""
    return str(bool(value)).lower() if isinstance(value, bool | None) else str(value)


def _filled(label: str, value: object) -> list[str]:
    return [f" {label}: {value}"] if value else []


def _server(info: Info) -> Iterator[str]:
    yield from _counts(info)
    yield from _plugins(info)
    swarm = info.get("Swarm") or {}
    yield f" Swarm: {swarm.get('LocalNodeState', '')}"
    yield from swarm_lines(swarm)
    yield from _runtimes(info)
    yield from _host(info)
    yield from _settings(info)


def _counts(info: Info) -> Iterator[str]:
    yield f" Containers: {info.get('Containers', 0)}"
    for word in ("Running", "Paused", "Stopped"):
        yield f"  {word}: {info.get('Containers' + word, 0)}"
    yield f" Images: {info.get('Images', 0)}"
    yield from _filled("Server Version", info.get("ServerVersion"))
    yield from _filled("Storage Driver", info.get("Driver"))
    for key, value in info.get("DriverStatus") or ():
        yield f"  {key}: {value}"
    yield from _filled("Logging Driver", info.get("LoggingDriver"))
    yield from _filled("Cgroup Driver", info.get("CgroupDriver"))
    yield from _filled("Cgroup Version", info.get("CgroupVersion"))


def _plugins(info: Info) -> Iterator[str]:
    plugins = info.get("Plugins") or {}
    yield " Plugins:"
    for kind in ("Volume", "Network", "Authorization", "Log"):
        names = plugins.get(kind) or ()
        if names or kind != "Authorization":
            yield f"  {kind}: {' '.join(names)}"
    for title, key in (("CDI spec directories", "CDISpecDirs"),):
        if info.get(key):
            yield f" {title}:"
            yield from (f"  {entry}" for entry in info[key])
    if info.get("DiscoveredDevices"):
        yield " Discovered Devices:"
        for device in info["DiscoveredDevices"]:
            yield f"  {device.get('Source', '')}: {device.get('ID', '')}"


def swarm_lines(swarm: Info) -> Iterator[str]:
    """The block below `Swarm:`; nothing for a node outside a swarm or locked."""
    if swarm.get("LocalNodeState") in ("inactive", "locked"):
        return
    yield f"  NodeID: {swarm.get('NodeID', '')}"
    if swarm.get("Error"):
        yield f"  Error: {swarm['Error']}"
    manager = bool(swarm.get("ControlAvailable"))
    yield f"  Is Manager: {_word(manager)}"
    healthy = not swarm.get("Error") and swarm.get("LocalNodeState") != "error"
    if swarm.get("Cluster") and manager and healthy:
        yield from _cluster(swarm, swarm["Cluster"])
    yield f"  Node Address: {swarm.get('NodeAddr', '')}"
    addresses = sorted(entry.get("Addr", "") for entry in swarm.get("RemoteManagers") or ())
    if addresses:
        yield "  Manager Addresses:"
        yield from (f"   {address}" for address in addresses)


def _cluster(swarm: Info, cluster: Info) -> Iterator[str]:
    spec = cluster.get("Spec") or {}
    raft, ca = spec.get("Raft") or {}, spec.get("CAConfig") or {}
    yield f"  ClusterID: {cluster.get('ID', '')}"
    yield f"  Managers: {swarm.get('Managers', 0)}"
    yield f"  Nodes: {swarm.get('Nodes', 0)}"
    pools = cluster.get("DefaultAddrPool")
    if pools is not None:
        yield "  Default Address Pool: " + "".join(f"{pool}  " for pool in pools)
        yield f"  SubnetSize: {cluster.get('SubnetSize', 0)}"
    if cluster.get("DataPathPort", 0) > 0:
        yield f"  Data Path Port: {cluster['DataPathPort']}"
    yield "  Orchestration:"
    limit = (spec.get("Orchestration") or {}).get("TaskHistoryRetentionLimit") or 0
    yield f"   Task History Retention Limit: {limit}"
    yield "  Raft:"
    yield f"   Snapshot Interval: {raft.get('SnapshotInterval', 0)}"
    if raft.get("KeepOldSnapshots") is not None:
        yield f"   Number of Old Snapshots to Retain: {raft['KeepOldSnapshots']}"
    yield f"   Heartbeat Tick: {raft.get('HeartbeatTick', 0)}"
    yield f"   Election Tick: {raft.get('ElectionTick', 0)}"
    yield "  Dispatcher:"
    heartbeat = (spec.get("Dispatcher") or {}).get("HeartbeatPeriod", 0)
    yield f"   Heartbeat Period: {duration(heartbeat)}"
    yield from _ca(ca)
    locked = (spec.get("EncryptionConfig") or {}).get("AutoLockManagers", False)
    yield f"  Autolock Managers: {_word(locked)}"
    yield f"  Root Rotation In Progress: {_word(cluster.get('RootRotationInProgress', False))}"


def _ca(ca: Info) -> Iterator[str]:
    yield "  CA Configuration:"
    yield f"   Expiry Duration: {duration(ca.get('NodeCertExpiry', 0))}"
    yield f"   Force Rotate: {ca.get('ForceRotate', 0)}"
    certificate = (ca.get("SigningCACert") or "").strip()
    if certificate:
        yield f"   Signing CA Certificate: \n{certificate}\n"
    if ca.get("ExternalCAs"):
        yield "   External CAs:"
        for entry in ca["ExternalCAs"]:
            yield f"     {entry.get('Protocol', '')}: {entry.get('URL', '')}"


def _runtimes(info: Info) -> Iterator[str]:
    if info.get("Runtimes"):
        yield f" Runtimes: {' '.join(sorted(info['Runtimes']))}"
        yield f" Default Runtime: {info.get('DefaultRuntime', '')}"
    if info.get("OSType") != "linux":
        return
    yield f" Init Binary: {info.get('InitBinary', '')}"
    for word in ("Containerd", "Runc", "Init"):
        commit = (info.get(f"{word}Commit") or {}).get("ID", "")
        yield f" {word.lower()} version: {commit}"
    options = info.get("SecurityOptions") or ()
    if options:
        yield " Security Options:"
    for option in options:
        fields = dict(part.partition("=")[::2] for part in option.split(","))
        yield f"  {fields.get('name') or option}"
        if "profile" in fields:
            yield f"   Profile: {fields['profile']}"


def _host(info: Info) -> Iterator[str]:
    yield from _filled("Kernel Version", info.get("KernelVersion"))
    yield from _filled("Operating System", info.get("OperatingSystem"))
    yield from _filled("OSType", info.get("OSType"))
    yield from _filled("Architecture", info.get("Architecture"))
    yield f" CPUs: {info.get('NCPU', 0)}"
    yield f" Total Memory: {size(info.get('MemTotal', 0))}"
    yield from _filled("Name", info.get("Name"))
    yield from _filled("ID", info.get("ID"))
    yield f" Docker Root Dir: {info.get('DockerRootDir', '')}"
    yield f" Debug Mode: {_word(info.get('Debug', False))}"
    if info.get("Debug"):
        yield f"  File Descriptors: {info.get('NFd', 0)}"
        yield f"  Goroutines: {info.get('NGoroutines', 0)}"
        yield f"  System Time: {info.get('SystemTime', '')}"
        yield f"  EventsListeners: {info.get('NEventsListener', 0)}"


def _settings(info: Info) -> Iterator[str]:
    yield from _filled("HTTP Proxy", info.get("HttpProxy"))
    yield from _filled("HTTPS Proxy", info.get("HttpsProxy"))
    yield from _filled("No Proxy", info.get("NoProxy"))
    if info.get("Labels"):
        yield " Labels:"
        yield from (f"  {label}" for label in info["Labels"])
    yield f" Experimental: {_word(info.get('ExperimentalBuild', False))}"
    registry = info.get("RegistryConfig") or {}
    ranges, indexes = registry.get("InsecureRegistryCIDRs"), registry.get("IndexConfigs")
    if ranges or indexes:
        yield " Insecure Registries:"
        for index in (indexes or {}).values():
            if not index.get("Secure"):
                yield f"  {index.get('Name', '')}"
        yield from (f"  {entry}" for entry in ranges or ())
    if registry.get("Mirrors"):
        yield " Registry Mirrors:"
        yield from (f"  {mirror}" for mirror in registry["Mirrors"])
    yield f" Live Restore Enabled: {_word(info.get('LiveRestoreEnabled', False))}"
    yield from _filled("Product License", info.get("ProductLicense"))
    if info.get("DefaultAddressPools"):
        yield " Default Address Pools:"
        for pool in info["DefaultAddressPools"]:
            yield f"   Base: {pool.get('Base', '')}, Size: {pool.get('Size', 0)}"


INFO = Command(
    "info",
    "[OPTIONS]",
    "Display system-wide information",
    _info,
    flags=(formatted(INSPECT_FORMAT_HELP, "f"),),
)
