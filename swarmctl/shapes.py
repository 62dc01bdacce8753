"""The API's objects as a Go template sees them: every field there, absent ones empty.

Templates run over the typed object; for some commands, if that fails, over the raw JSON
(`inspect`). A `Shape` lists the fields of a type with their zero values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarmctl.gotext import Span, Stamp
from swarmd.base.gotemplate import NilPointer, Struct


@dataclass(frozen=True, slots=True)
class Shape:
    """A Go struct type. A `pointer` to one may be nil; an `open` one has unlisted fields too."""

    go_type: str
    fields: Mapping[str, Any]
    pointer: bool = False
    open: bool = False


@dataclass(frozen=True, slots=True)
class Called:
    """A field that JSON calls otherwise."""

    name: str
    zero: Any = field(default_factory=dict)


TIME = "0001-01-01T00:00:00Z"
DURATION = object()
_VERSION = Shape("swarm.Version", {"Index": 0})
_META: dict[str, Any] = {"Version": _VERSION, "CreatedAt": TIME, "UpdatedAt": TIME}
_TLS = Shape("swarm.TLSInfo", {"TrustRoot": "", "CertIssuerSubject": "", "CertIssuerPublicKey": ""})
_RESOURCES = Shape("swarm.Resources", {"NanoCPUs": 0, "MemoryBytes": 0, "GenericResources": []})
_PLUGIN = Shape("swarm.PluginDescription", {"Type": "", "Name": ""})
_ENGINE = Shape(
    "swarm.EngineDescription", {"EngineVersion": "", "Labels": {}, "Plugins": [_PLUGIN]}
)

NODE = Shape(
    "swarm.Node",
    {
        "ID": "",
        **_META,
        "Spec": Shape("swarm.NodeSpec", {"Name": "", "Labels": {}, "Role": "", "Availability": ""}),
        "Description": Shape(
            "swarm.NodeDescription",
            {
                "Hostname": "",
                "Platform": Shape("swarm.Platform", {"Architecture": "", "OS": ""}),
                "Resources": _RESOURCES,
                "Engine": _ENGINE,
                "TLSInfo": _TLS,
                "CSIInfo": [],
            },
        ),
        "Status": Shape("swarm.NodeStatus", {"State": "", "Message": "", "Addr": ""}),
        "ManagerStatus": Shape(
            "swarm.ManagerStatus",
            {"Leader": False, "Reachability": "", "Addr": ""},
            pointer=True,
        ),
    },
)
_SUBNET = Shape(
    "network.IPAMConfig",
    {"Subnet": "", "IPRange": "", "Gateway": "", "AuxAddress": Called("AuxiliaryAddresses")},
)
NETWORK = Shape(
    "network.Inspect",
    {
        "Name": "",
        "ID": "",
        "Created": TIME,
        "Scope": "",
        "Driver": "",
        "EnableIPv4": False,
        "EnableIPv6": False,
        "IPAM": Shape("network.IPAM", {"Driver": "", "Options": {}, "Config": [_SUBNET]}),
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": Shape("network.ConfigReference", {"Network": ""}),
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
        "Peers": [],
        "Services": {},
    },
)
EVENT = Shape(
    "*events.Message",
    {
        "Type": "",
        "Action": "",
        "Actor": Shape("events.Actor", {"ID": "", "Attributes": {}}),
        "Scope": "",
        "Time": 0,
        "TimeNano": 0,
        "Status": "",
        "ID": "",
        "From": "",
    },
)
_SPEC = Shape(
    "swarm.Spec",
    {
        "Name": "",
        "Labels": {},
        "Orchestration": Shape("swarm.OrchestrationConfig", {"TaskHistoryRetentionLimit": None}),
        "Raft": Shape(
            "swarm.RaftConfig",
            {
                "SnapshotInterval": 0,
                "KeepOldSnapshots": None,
                "LogEntriesForSlowFollowers": 0,
                "ElectionTick": 0,
                "HeartbeatTick": 0,
            },
        ),
        "Dispatcher": Shape("swarm.DispatcherConfig", {"HeartbeatPeriod": DURATION}),
        "CAConfig": Shape(
            "swarm.CAConfig",
            {
                "NodeCertExpiry": DURATION,
                "ExternalCAs": [],
                "SigningCACert": "",
                "SigningCAKey": "",
                "ForceRotate": 0,
            },
        ),
        "TaskDefaults": Shape("swarm.TaskDefaults", {"LogDriver": None}),
        "EncryptionConfig": Shape("swarm.EncryptionConfig", {"AutoLockManagers": False}),
    },
)
_CLUSTER = Shape(
    "swarm.ClusterInfo",
    {
        "ID": "",
        **_META,
        "Spec": _SPEC,
        "TLSInfo": _TLS,
        "RootRotationInProgress": False,
        "DefaultAddrPool": [],
        "SubnetSize": 0,
        "DataPathPort": 0,
    },
    pointer=True,
)
INFO = Shape(
    "system.dockerInfo",
    {
        **dict.fromkeys(
            (
                *("ID", "Name", "Driver", "ServerVersion", "OSType", "OSVersion", "SystemTime"),
                *("OperatingSystem", "KernelVersion", "Architecture", "DockerRootDir"),
                *("LoggingDriver", "CgroupDriver", "CgroupVersion", "DefaultRuntime"),
                *("HTTPProxy", "HTTPSProxy", "NoProxy", "ProductLicense", "Isolation"),
            ),
            "",
        ),
        **dict.fromkeys(
            (
                *("NCPU", "MemTotal", "Images", "Containers", "ContainersRunning"),
                *("ContainersPaused", "ContainersStopped"),
            ),
            0,
        ),
        "DriverStatus": [],
        "GenericResources": [],
        "Labels": [],
        "DefaultAddressPools": [],
        "CDISpecDirs": [],
        "SecurityOptions": [],
        "Swarm": Shape(
            "swarm.Info",
            {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": [Shape("swarm.Peer", {"NodeID": "", "Addr": ""})],
                "Nodes": 0,
                "Managers": 0,
                "Cluster": _CLUSTER,
                "Warnings": [],
            },
        ),
        "Warnings": [],
        "ServerErrors": [],
        "ClientErrors": [],
    },
    open=True,
)
_COMPONENT = Shape("types.ComponentVersion", {"Name": "", "Version": "", "Details": {}})
_SERVER = Shape(
    "types.Version",
    {
        "Platform": Shape("struct { Name string }", {"Name": ""}),
        "Components": [_COMPONENT],
        "Version": "",
        "APIVersion": "",
        "MinAPIVersion": "",
        "GitCommit": "",
        "GoVersion": "",
        "Os": "",
        "Arch": "",
        "KernelVersion": "",
        "Experimental": False,
        "BuildTime": "",
    },
    pointer=True,
)
_CLIENT = Shape(
    "system.clientVersion",
    {
        "Platform": Shape("system.platformInfo", {"Name": ""}, pointer=True),
        "Version": "",
        "APIVersion": "",
        "DefaultAPIVersion": "",
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": "",
        "Os": "",
        "Arch": "",
        "BuildTime": "",
        "Context": "",
    },
)
VERSION = Shape("system.versionInfo", {"Client": _CLIENT, "Server": _SERVER})


def typed(data: Mapping[str, Any], shape: Shape) -> Struct:
    """`data` as a value with all the fields of `shape`; others are not to be seen.

    JSON keys are matched without regard to case, as Go's decoder does.
    """
    by_name = {key.lower(): value for key, value in data.items()}
    fields: dict[str, Any] = dict(data) if shape.open else {}
    for name, zero in shape.fields.items():
        called = zero.name if isinstance(zero, Called) else name
        fields[name] = _field(by_name.get(called.lower()), zero)
    return Struct(("*" if shape.pointer else "") + shape.go_type, fields, source=data)


def _field(value: Any, zero: Any) -> Any:
    if isinstance(zero, Called):
        zero = zero.zero
    if isinstance(zero, Shape):
        if zero.pointer and value is None:
            return NilPointer(f"*{zero.go_type}")
        return typed(value or {}, zero)
    if isinstance(zero, list) and zero and isinstance(zero[0], Shape):
        return [typed(item, zero[0]) for item in value or ()]
    if zero is DURATION:
        return Span(value or 0)
    if zero == TIME:
        return Stamp(value or TIME)
    return zero if value is None else value
