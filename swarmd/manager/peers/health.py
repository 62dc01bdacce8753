"""Asking another manager whether it serves Raft: before it is believed to be reachable."""

from __future__ import annotations

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.rpc.peer import Caller


async def check_health(caller: Caller, timeout: float) -> None:
    """Return if the manager behind `caller` serves Raft; raises `SwarmError` if not."""
    request = api.HealthCheckRequest(service="Raft")
    answer = await caller.unary("Health/Check", request, timeout=timeout)
    if answer.status != api.HealthCheckResponse.ServingStatus.SERVING:
        name = api.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise SwarmError(f"health check returned status {name}")
