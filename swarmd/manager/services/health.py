"""The service Health: other managers dial back and ask before they trust a member.

On port 2377 it knows `Raft`, on the control socket `ControlAPI`; the empty name asks about
the server itself, which serves if it answers (wire/PROTOCOL 3.3).
"""

from __future__ import annotations

from swarmd import api
from swarmd.base.errors import NotFound

UNKNOWN_SERVICE = "unknown service"


class Health:
    """Serving states by service name."""

    SERVICE = "docker.swarmkit.v1.Health"

    def __init__(self, *names: str) -> None:
        """Know `names`; none of them serves yet."""
        self._serving = dict.fromkeys(names, False)

    def set(self, name: str, serving: bool) -> None:
        """State whether `name` serves."""
        self._serving[name] = serving

    async def check(self, request: api.HealthCheckRequest, peer: object) -> api.HealthCheckResponse:
        """Whether a service serves. Raises NotFound for a name never heard of."""
        name = request.service
        if name and name not in self._serving:
            raise NotFound(UNKNOWN_SERVICE)
        serving = not name or self._serving[name]
        return api.HealthCheckResponse(
            status=api.HealthCheckResponse.SERVING
            if serving
            else api.HealthCheckResponse.NOT_SERVING
        )
