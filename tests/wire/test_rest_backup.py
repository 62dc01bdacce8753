"""The endpoints beside the stock ones: backup, restore, recovery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from swarmd.base.errors import InvalidArgument, Unavailable
from swarmd.faces.engineapi import texts
from swarmd.faces.engineapi.backend import KnownManager, LocalState, Outlook, RestoreRequest
from swarmd.faces.engineapi.routes import backup
from tests.wire.rest_kit import (
    INACTIVE,
    LOCKED,
    MANAGER,
    NODE_ID,
    WORKER,
    FakeBackend,
    serving,
)

DATA = bytes(range(256)) * 20_000  # larger than any body of a stock endpoint and several pieces
OUTLOOK = Outlook(
    cluster_id="c1",
    node_id=NODE_ID,
    managers=(KnownManager(NODE_ID, "se1", "10.77.30.2:2377", True, False, True),),
    quorum=1,
    reachable=1,
    nodes=4,
    term=2,
    commit=8,
    last=9,
    dropped=0,
)


@dataclass
class Keeper(FakeBackend):
    """A node that can be backed up."""

    async def backup(self) -> bytes:
        """Fixed data."""
        self._do("backup", None)
        return DATA

    async def restore(self, request: RestoreRequest) -> str:
        """Record a restore."""
        self._do("restore", request)
        return NODE_ID

    def outlook(self) -> Outlook:
        """A fixed one."""
        self._do("outlook", None)
        return OUTLOOK


async def test_a_backup_comes_whole(tmp_path: Path) -> None:
    async with serving(tmp_path, Keeper(MANAGER)) as rest:
        for target in ("/swarmd/backup", "/v1.41/swarmd/backup"):
            reply = await rest.call("POST", target)
            assert reply.status == 200
            assert reply.body == DATA
            assert reply.head.header("Content-Type") == "application/x-tar"
            assert reply.head.header("Content-Length") == str(len(DATA))


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (INACTIVE, texts.NOT_IN_SWARM_MANAGER_CALL),
        (WORKER, texts.WORKER_MANAGER_CALL),
        (LOCKED, texts.LOCKED),
    ],
)
@pytest.mark.parametrize("call", [("POST", "/swarmd/backup"), ("GET", "/swarmd/backup/recovery")])
async def test_only_managers_are_asked(
    tmp_path: Path, state: LocalState, text: str, call: tuple[str, str]
) -> None:
    node = Keeper(state)
    async with serving(tmp_path, node) as rest:
        reply = await rest.call(*call)
        assert (reply.status, reply.message) == (503, text)
    assert node.asked == []


@pytest.mark.parametrize(
    ("call", "name"),
    [(("POST", "/swarmd/backup"), "backup"), (("GET", "/swarmd/backup/recovery"), "outlook")],
)
async def test_a_manager_that_is_not_up_yet(
    tmp_path: Path, call: tuple[str, str], name: str
) -> None:
    node = Keeper(MANAGER, fails={name: Unavailable("not now")})
    async with serving(tmp_path, node) as rest:
        reply = await rest.call(*call)
        assert (reply.status, reply.message) == (503, "not now"), "no gRPC prefix: no call was made"


async def test_restoring_hands_over_data_and_addresses(tmp_path: Path) -> None:
    node = Keeper(INACTIVE, becomes=MANAGER)
    async with serving(tmp_path, node) as rest:
        target = "/swarmd/backup/restore?advertiseAddr=eth0&listenAddr=0.0.0.0:4000"
        reply = await rest.call("POST", target, DATA, "application/x-tar")
        assert (reply.status, reply.json) == (200, NODE_ID)
        again = await rest.call("POST", target, DATA, "application/x-tar")
        assert (again.status, again.message) == (503, texts.ALREADY_IN_SWARM)
    ((_, request),) = node.asked
    assert request == RestoreRequest(
        data=DATA,
        listen_addr="0.0.0.0:4000",
        advertise_addr="10.77.30.2:4000",
        local_addr="10.77.30.2",
    )


async def test_what_the_node_refuses_is_told(tmp_path: Path) -> None:
    node = Keeper(INACTIVE, fails={"restore": InvalidArgument("the backup is damaged: x")})
    async with serving(tmp_path, node) as rest:
        reply = await rest.call("POST", "/swarmd/backup/restore", b"x", "application/x-tar")
        assert (reply.status, reply.message) == (400, "the backup is damaged: x")
        bad = "/swarmd/backup/restore?advertiseAddr=nowhere"
        reply = await rest.call("POST", bad, b"x", "application/x-tar")
        assert reply.status == 400
    assert len(node.asked) == 1, "addresses are checked first"


async def test_a_body_without_end_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "backup_bytes_max", 1000)
    node = Keeper(INACTIVE)
    async with serving(tmp_path, node) as rest:
        reply = await rest.call("POST", "/swarmd/backup/restore", b"x" * 1001, "application/x-tar")
        assert (reply.status, reply.message) == (413, "http: request body too large")
    assert node.asked == []


async def test_recovery_tells_members_and_log(tmp_path: Path) -> None:
    async with serving(tmp_path, Keeper(MANAGER)) as rest:
        found = await rest.get("/swarmd/backup/recovery")
    assert found == {
        "ClusterID": "c1",
        "NodeID": NODE_ID,
        "Managers": [
            {
                "NodeID": NODE_ID,
                "Hostname": "se1",
                "Addr": "10.77.30.2:2377",
                "Reachable": True,
                "Leader": False,
                "Self": True,
            }
        ],
        "Quorum": 1,
        "Reachable": 1,
        "Nodes": 4,
        "RaftTerm": 2,
        "CommitIndex": 8,
        "LastIndex": 9,
        "Dropped": 0,
    }
