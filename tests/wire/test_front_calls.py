"""Calls of every shape through the whole path: tunnel, TLS, front, gRPC, handler and back."""

from __future__ import annotations

import pytest

from swarmd import api
from swarmd.base.errors import ResourceExhausted
from swarmd.rpc import methods
from swarmd.rpc.tls import Credentials
from tests.wire.rpc_kit import Root, Seen, call, dialled, dummy_services, serving


async def test_root_download_without_verification_or_certificate() -> None:
    root = Root()
    seen: list[Seen] = []
    async with (
        serving(dummy_services(seen), root.issue(role="swarm-manager")) as server,
        dialled(server, Credentials(roots_pem=None)) as caller,
    ):
        await call(caller, "CA/GetRootCACertificate", timeout=5)
    assert seen[0].peer.node_id == "" and seen[0].peer.roles == ()
    assert seen[0].peer.remote_addr.startswith("127.0.0.1:")


async def test_an_unverified_manager_cannot_fill_our_memory() -> None:
    async def huge(request: object, peer: object) -> api.GetRootCACertificateResponse:
        return api.GetRootCACertificateResponse(certificate=b"x" * (2 << 20))

    root = Root()
    services = dummy_services([], {"CA/GetRootCACertificate": huge})
    async with serving(services, root.issue(role="swarm-manager")) as server:
        async with dialled(server, Credentials(roots_pem=None)) as caller:
            with pytest.raises(ResourceExhausted):
                await call(caller, "CA/GetRootCACertificate", timeout=5)
        async with dialled(server, Credentials(root.pem)) as caller:
            answer = await call(caller, "CA/GetRootCACertificate", timeout=5)
            assert len(answer.certificate) == 2 << 20


@pytest.mark.parametrize(
    "short", ["CA/GetUnlockKey", "Dispatcher/Session", "LogBroker/PublishLogs"]
)
async def test_manager_reaches_each_shape_of_call(short: str) -> None:
    root = Root()
    seen: list[Seen] = []
    manager = root.issue("m1", "swarm-manager")
    async with (
        serving(dummy_services(seen), manager) as server,
        dialled(server, manager) as caller,
    ):
        answer = await call(caller, short, timeout=5)
    assert isinstance(answer, methods.find(short).response)
    assert seen[0].peer.node_id == "m1" and seen[0].peer.roles == ("swarm-manager",)
