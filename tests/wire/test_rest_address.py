"""The endpoint for a manager's address: what it checks, hands over and answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from swarmd.base.errors import AlreadyExists, FailedPrecondition, NotLeader, SwarmError, Unavailable
from swarmd.faces.engineapi import addresses, texts
from swarmd.faces.engineapi.addresses import Resolved
from swarmd.faces.engineapi.backend import LocalState, MoveRequest
from tests.wire.rest_kit import INACTIVE, LOCKED, MANAGER, PENDING, WORKER, FakeBackend, serving

PATH = "/swarmd/address"
NOW = Resolved("0.0.0.0:2377", "10.77.30.9:2377", "10.77.30.9")


@dataclass
class Mover(FakeBackend):
    """A manager with an address."""

    now: Resolved = field(default=NOW)

    def addresses(self) -> Resolved:
        """The present ones."""
        if "addresses" in self.fails:
            raise self.fails["addresses"]
        return self.now

    async def move(self, request: MoveRequest) -> None:
        """Record it."""
        self._do("move", request)
        self.now = request.addresses


async def test_the_address_is_shown_and_changed(tmp_path: Path) -> None:
    node = Mover(MANAGER)
    async with serving(tmp_path, node) as rest:
        assert await rest.get(PATH) == {
            "AdvertiseAddr": "10.77.30.9:2377",
            "ListenAddr": "0.0.0.0:2377",
        }
        reply = await rest.call("POST", "/v1.41" + PATH, {"AdvertiseAddr": "eth0:4000"})
        assert (reply.status, reply.json) == (
            200,
            {
                "AdvertiseAddr": "10.77.30.2:4000",
                "ListenAddr": "0.0.0.0:4000",
                "PreviousAddr": "10.77.30.9:2377",
                "Warnings": [],
            },
        )
        more = {"AdvertiseAddr": "192.0.2.1:99", "ListenAddr": "eth0:5000", "Force": True}
        assert (await rest.call("POST", PATH, more)).status == 200
    assert [request for _, request in node.asked] == [
        MoveRequest(Resolved("0.0.0.0:4000", "10.77.30.2:4000", "10.77.30.2")),
        MoveRequest(Resolved("10.77.30.2:5000", "192.0.2.1:99", "10.77.30.2"), force=True),
    ]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (INACTIVE, texts.NOT_IN_SWARM_MANAGER_CALL),
        (WORKER, texts.WORKER_MANAGER_CALL),
        (LOCKED, texts.LOCKED),
        (replace(MANAGER, control_available=False), texts.MANAGER_PREPARING),
        (replace(PENDING, is_manager=True), texts.MANAGER_PREPARING),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_managers_have_one(
    tmp_path: Path, state: LocalState, text: str, method: str
) -> None:
    node = Mover(state)
    async with serving(tmp_path, node) as rest:
        body = {"AdvertiseAddr": "eth0"} if method == "POST" else None
        reply = await rest.call(method, PATH, body)
        assert (reply.status, reply.message) == (503, text)
    assert node.asked == []


async def test_a_manager_that_is_not_up_yet(tmp_path: Path) -> None:
    node = Mover(MANAGER, fails={"addresses": Unavailable("not now")})
    async with serving(tmp_path, node) as rest:
        reply = await rest.call("POST", PATH, {"AdvertiseAddr": "eth0"})
        assert (reply.status, reply.message) == (503, "not now")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, 'invalid AdvertiseAddr "": invalid empty address'),
        ({"AdvertiseAddr": "0.0.0.0"}, addresses.BAD_ADVERTISE),
        ({"AdvertiseAddr": "nosuch0"}, addresses.BAD_ADVERTISE),
        ({"AdvertiseAddr": "eth0:port"}, addresses.BAD_ADVERTISE),
        ({"AdvertiseAddr": "eth0", "ListenAddr": "nosuch0"}, addresses.BAD_LISTEN),
    ],
)
async def test_bad_addresses_are_refused_here(
    tmp_path: Path, body: dict[str, Any], text: str
) -> None:
    node = Mover(MANAGER)
    async with serving(tmp_path, node) as rest:
        reply = await rest.call("POST", PATH, body)
        assert (reply.status, reply.message) == (400, text)
    assert node.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AlreadyExists("raft: address 10.77.30.2:2377 belongs to another manager"), 409),
        (FailedPrecondition("This is the only manager"), 400),
        (SwarmError("could not connect to prospective new cluster member"), 500),
        (NotLeader("The swarm does not have a leader."), 500),
        (Unavailable("no other manager could be asked"), 503),
    ],
)
async def test_what_the_managers_refuse_is_told(
    tmp_path: Path, error: SwarmError, status: int
) -> None:
    node = Mover(MANAGER, fails={"move": error})
    async with serving(tmp_path, node) as rest:
        reply = await rest.call("POST", PATH, {"AdvertiseAddr": "eth0"})
        assert (reply.status, reply.message) == (status, error.message)


@pytest.mark.parametrize(
    ("option", "warned"),
    [("", False), ("eth0", False), ("10.77.30.2", False), ("10.77.30.9", True), ("gone0", True)],
)
async def test_an_option_that_says_otherwise_is_a_warning(
    tmp_path: Path, option: str, warned: bool
) -> None:
    async with serving(tmp_path, Mover(MANAGER), default_advertise=option) as rest:
        reply = await rest.call("POST", PATH, {"AdvertiseAddr": "eth0"})
        (*warnings,) = reply.json["Warnings"]
        assert bool(warnings) is warned
        assert not warned or f"--advertise-addr {option}:" in warnings[0]
