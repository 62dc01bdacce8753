"""What all routes share: the node behind them, the engine beside them, and the manager calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from swarmd import api
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import SwarmError
from swarmd.faces.engineapi import texts
from swarmd.faces.engineapi.backend import Backend, Caller, HostFacts, LocalState
from swarmd.faces.engineapi.engine import EngineFacts, EngineLink
from swarmd.faces.engineapi.errors import Refusal, plain, unavailable
from swarmd.faces.engineapi.eventlog import EventLog
from swarmd.faces.engineapi.interfaces import Interfaces
from swarmd.faces.engineapi.lookups import CALL_SECONDS

# moby HEAD speaks 1.56; 1.24 is the oldest that stock engines of today can be set to serve.
NEWEST = (1, 56)
OLDEST = (1, 24)


def why_no_manager(local: LocalState) -> Refusal:
    """Why manager calls cannot be made in this state (moby cluster.errNoManager)."""
    if local.is_manager:
        return unavailable(texts.MANAGER_PREPARING)
    if local.state == "locked":
        return unavailable(texts.LOCKED)
    if local.certificates_expired:
        return unavailable(texts.CERTIFICATES_EXPIRED)
    if local.state == "active" and local.node_id:
        return unavailable(texts.WORKER_MANAGER_CALL)
    return unavailable(texts.NOT_IN_SWARM_MANAGER_CALL)


@dataclass(slots=True)
class Context:
    """One per app."""

    backend: Backend
    host: HostFacts
    clock: Clock
    events: EventLog
    interfaces: Interfaces
    entropy: Entropy
    engine: EngineLink | None = None
    engine_facts: EngineFacts | None = None
    default_advertise: str = ""
    _seen: tuple[Caller, str] | None = field(default=None, init=False)

    def control(self) -> Caller:
        """The manager's services. Raises the stock 503 when this node cannot reach them."""
        try:
            return self.backend.control()
        except SwarmError as error:
            # No call was made. The reason is looked up only now: this runs for every request.
            local = self.backend.local()
            if not local.control_available:
                raise why_no_manager(local) from error
            raise plain(error) from error

    async def ask(self, method: str, request: Message) -> Any:
        """One manager call within the stock time limit."""
        return await self.control().unary(method, request, timeout=CALL_SECONDS)

    async def cluster(self) -> api.Cluster:
        """The one cluster object."""
        reply = await self.ask("Control/ListClusters", api.ListClustersRequest())
        if not reply.clusters:
            raise unavailable(texts.NO_SWARM)
        cluster: api.Cluster = reply.clusters[0]
        return cluster

    async def cluster_id(self) -> str:
        """Id of the one cluster object; a manager has the same one for as long as it lives."""
        control = self.control()
        if self._seen is None or self._seen[0] is not control:
            self._seen = (control, (await self.cluster()).id)
        return self._seen[1]
