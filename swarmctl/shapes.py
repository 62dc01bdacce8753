"""The API's objects as a Go template sees them: every field there, absent ones empty.

Templates first run over the typed object, then over the raw JSON (`inspect`). A shape lists
the fields of a type with their zero values; a nested dict is a nested struct, `None` a pointer
that may be nil, and `TIME` a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmctl.gotext import Stamp
from swarmd.base.gotemplate import Struct

TIME = "0001-01-01T00:00:00Z"
_META: dict[str, Any] = {"Version": {"Index": 0}, "CreatedAt": TIME, "UpdatedAt": TIME}
_TLS: dict[str, Any] = {"TrustRoot": "", "CertIssuerSubject": "", "CertIssuerPublicKey": ""}
_RESOURCES: dict[str, Any] = {"NanoCPUs": 0, "MemoryBytes": 0, "GenericResources": []}

NODE: dict[str, Any] = {
    "ID": "",
    **_META,
    "Spec": {"Name": "", "Labels": {}, "Role": "", "Availability": ""},
    "Description": {
        "Hostname": "",
        "Platform": {"Architecture": "", "OS": ""},
        "Resources": _RESOURCES,
        "Engine": {"EngineVersion": "", "Labels": {}, "Plugins": []},
        "TLSInfo": _TLS,
        "CSIInfo": [],
    },
    "Status": {"State": "", "Message": "", "Addr": ""},
    "ManagerStatus": None,
}
MANAGER_STATUS: dict[str, Any] = {"Leader": False, "Reachability": "", "Addr": ""}
NETWORK: dict[str, Any] = {
    "Name": "",
    "ID": "",
    "Created": TIME,
    "Scope": "",
    "Driver": "",
    "EnableIPv4": False,
    "EnableIPv6": False,
    "IPAM": {"Driver": "", "Options": {}, "Config": []},
    "Internal": False,
    "Attachable": False,
    "Ingress": False,
    "ConfigFrom": {"Network": ""},
    "ConfigOnly": False,
    "Containers": {},
    "Options": {},
    "Labels": {},
    "Peers": [],
    "Services": {},
}
EVENT: dict[str, Any] = {
    "Type": "",
    "Action": "",
    "Actor": {"ID": "", "Attributes": {}},
    "Scope": "",
    "Time": 0,
    "TimeNano": 0,
    "Status": "",
    "ID": "",
    "From": "",
}


def typed(data: Mapping[str, Any], shape: Mapping[str, Any], type_name: str) -> Struct:
    """`data` as a value with all the fields of `shape`; others are not to be seen.

    JSON keys are matched without regard to case, as Go's decoder does.
    """
    by_name = {key.lower(): value for key, value in data.items()}
    fields: dict[str, Any] = {}
    for name, zero in shape.items():
        value = by_name.get(name.lower())
        fields[name] = _field(value, zero, f"{type_name}.{name}")
    return Struct(type_name, fields, source=data)


def _field(value: Any, zero: Any, type_name: str) -> Any:
    if isinstance(zero, dict) and zero:
        return typed(value or {}, zero, type_name)
    if zero == TIME:
        return Stamp(value or TIME)
    if zero is None and type_name.endswith(".ManagerStatus") and value is not None:
        return typed(value, MANAGER_STATUS, "*swarm.ManagerStatus")
    return zero if value is None else value
