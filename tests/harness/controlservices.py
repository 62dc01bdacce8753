"""Calls on services, and what they refuse, for tests of the Control service."""

from __future__ import annotations

from typing import Any

import pytest

from swarmd import api
from swarmd.base.errors import SwarmError
from tests.harness.controlroom import PEER, Room, told


async def create(room: Room, spec: api.ServiceSpec) -> api.Service:
    request = api.CreateServiceRequest(spec=spec)
    return (await room.control.create_service(request, PEER)).service


async def refused(room: Room, spec: api.ServiceSpec) -> tuple[str, str]:
    before = room.committer.proposals
    with pytest.raises(SwarmError) as caught:
        await create(room, spec)
    assert room.committer.proposals == before
    return told(caught.value)


def update_of(room: Room, id: str, spec: api.ServiceSpec | None = None) -> api.UpdateServiceRequest:
    stored = room.there(api.Service, id)
    return api.UpdateServiceRequest(
        service_id=id, service_version=stored.meta.version, spec=spec or stored.spec
    )


async def update(room: Room, message: api.UpdateServiceRequest) -> api.Service:
    return (await room.control.update_service(message, PEER)).service


async def update_refused(room: Room, message: api.UpdateServiceRequest) -> tuple[str, str]:
    before = room.committer.proposals
    with pytest.raises(SwarmError) as caught:
        await update(room, message)
    assert room.committer.proposals == before
    return told(caught.value)


def ports(*entries: api.PortConfig, dnsrr: bool = False) -> dict[str, Any]:
    resolution = api.EndpointSpec.ResolutionMode
    mode = resolution.DNSRR if dnsrr else resolution.VIP
    return {"endpoint": api.EndpointSpec(mode=mode, ports=entries)}
