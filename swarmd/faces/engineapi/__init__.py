"""The Docker Engine REST API of a swarmd node. See README.md; start at `app.EngineAPI`."""

from swarmd.faces.engineapi.app import EngineAPI
from swarmd.faces.engineapi.backend import (
    Backend,
    Caller,
    HostFacts,
    InitRequest,
    JoinRequest,
    LocalState,
    Remote,
)
from swarmd.faces.engineapi.errors import Refusal
from swarmd.faces.engineapi.host import read_host_facts
from swarmd.faces.engineapi.server import APIServer, TcpListen

__all__ = [
    "APIServer",
    "Backend",
    "Caller",
    "EngineAPI",
    "HostFacts",
    "InitRequest",
    "JoinRequest",
    "LocalState",
    "Refusal",
    "Remote",
    "TcpListen",
    "read_host_facts",
]
