"""Asking another manager whether it serves Raft: before it is believed to be reachable."""

from __future__ import annotations

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.rpc.peer import Caller

_Status = api.HealthCheckResponse.ServingStatus
# gRPC's own health protocol has a number more than swarmkit's.
_NAMES: dict[int, str] = {number: name for name, number in _Status.items()}


async def check_health(caller: Caller, timeout: float) -> None:
    """Return if the manager behind `caller` serves Raft; raises `SwarmError` if not."""
    request = api.HealthCheckRequest(service="Raft")
    answer = await caller.unary("Health/Check", request, timeout=timeout)
    if answer.status != _Status.SERVING:
        raise SwarmError(f"health check returned status {_NAMES.get(answer.status, answer.status)}")
