"""The /swarm, /nodes, ping, version and info endpoints, over a real socket."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from swarmd import api
from swarmd.base.errors import (
    NO_LEADER,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    InvariantViolation,
    NotLeader,
    Unauthenticated,
    Unavailable,
)
from swarmd.faces.engineapi import InitRequest, JoinRequest, LocalState, Refusal, texts
from tests.wire.rest_kit import (
    INACTIVE,
    LOCKED,
    MANAGER,
    NODE_ID,
    PENDING,
    WORKER,
    FakeBackend,
    FakeControl,
    an_interface,
    recorded,
    serving,
)

NOT_IN_SWARM = texts.NOT_IN_SWARM_MANAGER_CALL


def a_cluster() -> api.Cluster:
    """A small cluster object."""
    cluster = api.Cluster(id="a2pc2g8p3j3x8g0yroy64h08o", subnetSize=24, VXLANUDPPort=4789)
    cluster.meta.version.index = 10
    cluster.spec.annotations.name = "default"
    cluster.spec.orchestration.task_history_retention_limit = 5
    cluster.spec.raft.snapshot_interval = 10000
    cluster.root_ca.join_tokens.worker = "SWMTKN-1-w"
    return cluster


def with_cluster(backend: FakeBackend) -> FakeBackend:
    """A manager that has the small cluster and accepts updates."""
    reply = api.ListClustersResponse(clusters=[a_cluster()])
    backend.caller.answers["Control/ListClusters"] = reply
    backend.caller.answers["Control/UpdateCluster"] = api.UpdateClusterResponse()
    return backend


INIT = recorded("rest/swarm.json")["swarm-init-autolock"]["exchanges"][1]["request"]["body"]
JOIN = recorded("rest/swarm.json")["swarm-join-worker"]["exchanges"][1]["request"]["body"]


async def test_ping_tells_versions_and_state(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        for method, body in (("GET", b"OK"), ("HEAD", b"")):
            reply = await rest.call(method, "/_ping")
            assert (reply.status, reply.body) == (200, body)
            expected = {
                "Api-Version": "1.56",
                "Cache-Control": "no-cache, no-store, must-revalidate",
                "Content-Type": "text/plain; charset=utf-8",
                "Docker-Experimental": "false",
                "Ostype": "linux",
                "Pragma": "no-cache",
                "Server": "Docker/28.5.2 (linux)",
                "Swarm": "active/manager",
            }
            assert {key: reply.head.header(key) for key in expected} == expected
            assert reply.head.header("Builder-Version") is None
        assert (await rest.call("GET", "/v1.41/_ping")).head.header("Swarm") is None
        states = {
            "inactive": INACTIVE,
            "pending": PENDING,
            "locked": LOCKED,
            "active/worker": WORKER,
            "error": LocalState(state="error"),
        }
        for word, state in states.items():
            rest.backend.state = state
            assert (await rest.call("HEAD", "/v1.42/_ping")).head.header("Swarm") == word


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        (
            "/v1.57/nodes",
            400,
            "client version 1.57 is too new. Maximum supported API version is 1.56",
        ),
        (
            "/v2.0/nodes",
            400,
            "client version 2.0 is too new. Maximum supported API version is 1.56",
        ),
        ("/foo", 404, "page not found"),
        ("/v1.41/foo/bar", 404, "page not found"),
        ("/nodes/a/b/c/d", 404, "page not found"),
        ("/nodes/", 404, "page not found"),
        ("/", 404, "page not found"),
        ("/vx/nodes", 404, "page not found"),
        ("/containers/json", 503, texts.NO_ENGINE),
        ("/v1.30/images/a/b/c/json", 503, texts.NO_ENGINE),
        ("/volumes/x", 503, texts.NO_ENGINE),
    ],
)
async def test_paths_and_versions(tmp_path: Path, target: str, status: int, message: str) -> None:
    async with serving(tmp_path) as rest:
        reply = await rest.call("GET", target)
        assert (reply.status, reply.message) == (status, message)
        assert reply.head.header("Content-Type") == "application/json"
        assert reply.head.header("Api-Version") == "1.56"


async def test_clients_from_before_json_errors_get_text(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        for version in ("1.11", "1.23", "0.9"):
            reply = await rest.call("GET", f"/v{version}/nodes")
            assert (reply.status, reply.body.decode()) == (
                400,
                f"client version {version} is too old. Minimum supported API version is 1.24, "
                "please upgrade your client to a newer version\n",
            )
            assert (reply.head.header("Content-Type") or "").startswith("text/plain")
        for version in ("1.24", "1.56"):
            assert await rest.get(f"/v{version}/nodes") == []


async def test_wrong_methods_are_not_found_and_options_are_fine(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        for method, target in (("PUT", "/nodes"), ("HEAD", "/nodes"), ("POST", "/swarm")):
            assert (await rest.call(method, target)).status == 404
        assert (await rest.call("OPTIONS", "/nodes")).status == 200


async def test_version_of_a_node_without_engine(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        shown = await rest.get("/version")
        assert (shown["Version"], shown["ApiVersion"], shown["MinAPIVersion"]) == (
            "28.5.2",
            "1.56",
            "1.24",
        )
        assert (shown["Os"], shown["Arch"]) == ("linux", "amd64")
        assert [part["Name"] for part in shown["Components"]] == ["Engine", "swarmd"]


def a_node(id: str, reachability: int | None = None) -> api.Node:
    """A node, a manager when it has a reachability."""
    node = api.Node(id=id)
    if reachability is not None:
        node.manager_status.reachability = reachability
    return node


REACHABLE = api.RaftMemberStatus.Reachability.REACHABLE
UNREACHABLE = api.RaftMemberStatus.Reachability.UNREACHABLE


@pytest.mark.parametrize(
    ("case", "state"),
    [("inactive", INACTIVE), ("worker", WORKER), ("locked", LOCKED), ("join_pending", PENDING)],
)
async def test_info_of_nodes_that_manage_nothing(
    tmp_path: Path, case: str, state: LocalState
) -> None:
    section = recorded("rest/info-swarm-section.json")[case]
    async with serving(tmp_path, FakeBackend(state)) as rest:
        info = await rest.get("/v1.41/info")
        expected = json.loads(json.dumps(section))
        assert info["Swarm"] | {"NodeID": expected["NodeID"]} == expected
        assert list(info["Swarm"]) == list(expected)
        assert info["Warnings"] is None
        assert info["Name"] == "se1" and info["NCPU"] == 2


async def test_info_warns_of_two_managers(tmp_path: Path) -> None:
    backend = with_cluster(FakeBackend())
    nodes = [a_node(NODE_ID, REACHABLE), a_node("b", REACHABLE), a_node("c")]
    backend.caller.answers["Control/ListNodes"] = api.ListNodesResponse(nodes=nodes)
    expected = recorded("rest/info-swarm-section.json")["two_managers"]
    async with serving(tmp_path, backend) as rest:
        info = await rest.get("/info")
        swarm = info["Swarm"]
        assert swarm["Warnings"] == expected["Warnings"] == info["Warnings"]
        assert (swarm["Nodes"], swarm["Managers"]) == (3, 2)
        assert "JoinTokens" not in swarm["Cluster"]
        assert list(swarm) == list(expected)
        backend.caller.answers["Control/ListNodes"] = api.ListNodesResponse(nodes=nodes[1:])
        assert "Warnings" not in (await rest.get("/info"))["Swarm"]


async def test_info_without_quorum_shows_why(tmp_path: Path) -> None:
    backend = FakeBackend()
    for method in ("ListClusters", "ListNodes"):
        backend.caller.answers[f"Control/{method}"] = NotLeader(NO_LEADER)
    expected = recorded("rest/info-swarm-section.json")["quorum_lost"]
    async with serving(tmp_path, backend) as rest:
        swarm = (await rest.get("/info"))["Swarm"]
        assert swarm["Error"] == expected["Error"]
        assert swarm["Cluster"] == expected["Cluster"]
        assert list(swarm) == list(expected)


async def test_init_hands_over_resolved_addresses_and_merges_the_spec(tmp_path: Path) -> None:
    backend = with_cluster(FakeBackend(INACTIVE, becomes=MANAGER))
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("POST", "/v1.41/swarm/init", INIT)
        assert (reply.status, reply.json) == (200, NODE_ID)
        assert reply.head.header("Content-Type") == "application/json"
    expected = InitRequest(
        listen_addr="0.0.0.0:2377",
        advertise_addr="10.77.30.2:2377",
        local_addr="10.77.30.2",
        data_path_port=5789,
        autolock=True,
        availability="drain",
        default_addr_pool=("10.20.0.0/16",),
        subnet_size=26,
    )
    assert backend.asked == [("init", expected)]
    update = backend.caller.sent("Control/UpdateCluster")
    assert update.cluster_id == "a2pc2g8p3j3x8g0yroy64h08o"
    assert update.cluster_version.index == 10
    assert update.spec.orchestration.task_history_retention_limit == 3
    assert update.spec.raft.snapshot_interval == 10000
    assert update.spec.encryption_config.auto_lock_managers is True


async def test_old_clients_cannot_set_what_they_do_not_know(tmp_path: Path) -> None:
    backend = with_cluster(FakeBackend(INACTIVE, becomes=MANAGER))
    async with serving(tmp_path, backend) as rest:
        assert (await rest.call("POST", "/v1.38/swarm/init", INIT)).status == 200
    (request,) = [value for name, value in backend.asked if name == "init"]
    assert (request.default_addr_pool, request.subnet_size) == (None, 0)
    assert request.data_path_port == 4789


async def test_refused_settings_leave_an_active_swarm(tmp_path: Path) -> None:
    backend = with_cluster(FakeBackend(INACTIVE, becomes=MANAGER))
    text = "minimum certificate expiry time is: 1h0m0s"
    backend.caller.answers["Control/UpdateCluster"] = InvalidArgument(text)
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377"})
        assert (reply.status, reply.message) == (
            500,
            f"error updating cluster settings: rpc error: code = InvalidArgument desc = {text}",
        )
        assert (await rest.get("/info"))["Swarm"]["LocalNodeState"] == "active"


async def test_forcing_a_new_cluster_needs_a_manager(tmp_path: Path) -> None:
    forced = {**INIT, "ForceNewCluster": True}
    backend = with_cluster(FakeBackend(MANAGER))
    async with serving(tmp_path, backend) as rest:
        assert (await rest.call("POST", "/swarm/init", forced)).status == 200
        assert backend.asked[0][1].force_new_cluster is True
        backend.state = WORKER
        reply = await rest.call("POST", "/swarm/init", forced)
        assert (reply.status, reply.message) == (503, texts.WORKER_MANAGER_CALL)


async def test_an_empty_pool_is_not_the_same_as_none(tmp_path: Path) -> None:
    backend = with_cluster(FakeBackend(INACTIVE, becomes=MANAGER))
    body = {**INIT, "DefaultAddrPool": [], "SubnetSize": 24}
    async with serving(tmp_path, backend) as rest:
        await rest.call("POST", "/swarm/init", body)
        backend.state = INACTIVE
        await rest.call("POST", "/swarm/init", {**body, "DefaultAddrPool": None})
    assert [request.default_addr_pool for _, request in backend.asked] == [(), None]


async def test_join_hands_over_the_first_remote(tmp_path: Path) -> None:
    backend = FakeBackend(INACTIVE, becomes=WORKER)
    async with serving(tmp_path, backend) as rest:
        body = {**JOIN, "RemoteAddrs": ["10.77.30.2", "10.0.0.9:1"], "AdvertiseAddr": "eth0:7"}
        reply = await rest.call("POST", "/v1.41/swarm/join", body)
        assert (reply.status, reply.body) == (200, b"")
        assert reply.head.header("Content-Type") is None
        assert reply.head.header("Content-Length") == "0"
        backend.state = INACTIVE
        await rest.call("POST", "/swarm/join", {**JOIN, "AdvertiseAddr": "nonsense"})
    expected = JoinRequest(
        listen_addr="0.0.0.0:2377",
        advertise_addr="10.77.30.2:7",
        remote_addr="10.77.30.2:2377",
        join_token=JOIN["JoinToken"],
    )
    assert backend.asked == [
        ("join", expected),
        ("join", dataclasses.replace(expected, advertise_addr="")),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RemoteAddrs": []}, "at least 1 RemoteAddr is required to join"),
        ({"RemoteAddrs": [""]}, 'invalid remoteAddr "": invalid empty address'),
        ({"ListenAddr": ""}, 'invalid ListenAddr "": invalid empty address'),
        (
            {"DataPathAddr": "x"},
            "data path address must be a non-zero IP address or network "
            "interface (without a port number)",
        ),
    ],
)
async def test_bad_joins(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    backend = FakeBackend(INACTIVE)
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("POST", "/swarm/join", {**JOIN, **change})
        assert (reply.status, reply.message) == (400, message)
    assert backend.asked == []


@pytest.mark.parametrize(
    ("nodes", "ending"),
    [
        ([a_node(NODE_ID, REACHABLE)], texts.LEAVE_LAST_MANAGER),
        (
            [a_node(NODE_ID, REACHABLE), a_node("b", REACHABLE)],
            "Removing this node leaves 1 managers out of 2. Without a Raft quorum your swarm "
            "will be inaccessible. " + texts.LEAVE_RESTORE,
        ),
        (
            [a_node(NODE_ID, REACHABLE), a_node("b", REACHABLE), a_node("c", UNREACHABLE)],
            "Removing this node leaves 1 managers out of 3. Without a Raft quorum your swarm "
            "will be inaccessible. " + texts.LEAVE_RESTORE,
        ),
        (
            [a_node(NODE_ID, REACHABLE), a_node("b", REACHABLE), a_node("c", REACHABLE)],
            texts.LEAVE_RESTORE,
        ),
        ([a_node(NODE_ID, UNREACHABLE), a_node("b", REACHABLE)], texts.LEAVE_RESTORE),
        (None, texts.LEAVE_RESTORE),
    ],
)
async def test_managers_leave_only_by_force(
    tmp_path: Path, nodes: list[api.Node] | None, ending: str
) -> None:
    backend = FakeBackend()
    answer: Any = NotLeader(NO_LEADER)
    if nodes is not None:
        answer = api.ListNodesResponse(nodes=nodes)
    backend.caller.answers["Control/ListNodes"] = answer
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("POST", "/swarm/leave")
        assert (reply.status, reply.message) == (503, texts.LEAVE_MANAGER + ending)
        assert backend.asked == []
        assert (await rest.call("POST", "/swarm/leave?force=1")).status == 200
        assert backend.asked == [("leave", True)]


async def test_workers_leave_freely_and_managers_in_trouble_are_warned(tmp_path: Path) -> None:
    backend = FakeBackend(WORKER)
    async with serving(tmp_path, backend) as rest:
        assert (await rest.call("POST", "/swarm/leave")).status == 200
        backend.state = dataclasses.replace(MANAGER, control_available=False)
        reply = await rest.call("POST", "/swarm/leave?force=false")
        expected = texts.LEAVE_MANAGER + texts.LEAVE_INACTIVE_MANAGER + texts.LEAVE_RESTORE
        assert reply.message == expected
        backend.fails["leave"] = Unavailable("stuck")
        reply = await rest.call("POST", "/swarm/leave?force=1")
        assert (reply.status, reply.message) == (503, "stuck")


async def test_update_replaces_the_spec_and_rotates(tmp_path: Path) -> None:
    backend = with_cluster(FakeBackend())
    query = "version=19&rotateWorkerToken=true&rotateManagerToken=0&rotateManagerUnlockKey="
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("POST", f"/v1.41/swarm/update?{query}", {"Labels": {"a": "b"}})
        assert (reply.status, reply.body) == (200, b"")
        sent = backend.caller.sent("Control/UpdateCluster")
        assert sent.cluster_version.index == 19
        assert sent.rotation == api.KeyRotation(worker_join_token=True)
        assert sent.spec.annotations.name == "default"
        assert dict(sent.spec.annotations.labels) == {"a": "b"}
        assert sent.spec.orchestration.task_history_retention_limit == 0


async def test_update_knows_the_cluster_of_its_manager_and_asks_each_new_one(
    tmp_path: Path,
) -> None:
    backend = with_cluster(FakeBackend())
    first = backend.caller
    async with serving(tmp_path, backend) as rest:
        for version in (19, 20):
            assert (await rest.call("POST", f"/swarm/update?version={version}", {})).status == 200
        asked = [name for name, _ in first.calls]
        assert asked == ["Control/ListClusters", *["Control/UpdateCluster"] * 2]
        # The node left that swarm and began another one.
        backend.caller = FakeControl()
        with_cluster(backend).caller.answers["Control/ListClusters"].clusters[0].id = "another"
        assert (await rest.call("POST", "/swarm/update?version=1", {})).status == 200
        assert backend.caller.sent("Control/UpdateCluster").cluster_id == "another"
        assert [name for name, _ in first.calls] == asked


@pytest.mark.parametrize(
    ("query", "body", "message"),
    [
        (
            "",
            {},
            "invalid swarm version '': strconv.ParseUint: parsing \"\": invalid syntax",
        ),
        (
            "version=-1",
            {},
            "invalid swarm version '-1': strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            "version=99999999999999999999",
            {},
            "invalid swarm version '99999999999999999999': strconv.ParseUint: parsing "
            '"99999999999999999999": value out of range',
        ),
        ("version=1&rotateWorkerToken=x", {}, "invalid value for rotateWorkerToken: x"),
        ("version=1", {"Name": "other"}, 'swarm spec must be named "default"'),
        ("version=1", b"", "got EOF while reading request body"),
        ("version=1", b"{", "invalid JSON: unexpected EOF"),
        ("version=1", b"{} {}", "invalid JSON: unexpected content after JSON"),
        (
            "version=1",
            b"x",
            "invalid JSON: invalid character 'x' looking for beginning of value",
        ),
    ],
)
async def test_bad_updates(tmp_path: Path, query: str, body: Any, message: str) -> None:
    async with serving(tmp_path, with_cluster(FakeBackend())) as rest:
        reply = await rest.call("POST", f"/swarm/update?{query}", body)
        assert (reply.status, reply.message) == (400, message)


async def test_bodies_must_be_json(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        reply = await rest.call("POST", "/swarm/join", b"{}", "text/plain")
        assert (reply.status, reply.message) == (
            400,
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        )
        reply = await rest.call("POST", "/swarm/join", b"{}", "")
        text = "malformed Content-Type header (): mime: no media type"
        assert (reply.status, reply.message) == (400, text)
        rest.backend.state = INACTIVE
        reply = await rest.call("POST", "/swarm/join", JOIN, "application/json; charset=utf-8")
        assert reply.status == 200


async def test_too_large_bodies_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        reply = await rest.call("POST", "/swarm/join", b"x" * (4 << 20) + b"x")
        assert reply.status == 400


async def test_unlock_key_is_readable(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.caller.answers["CA/GetUnlockKey"] = api.GetUnlockKeyResponse()
    async with serving(tmp_path, backend) as rest:
        assert await rest.get("/swarm/unlockkey") == {"UnlockKey": ""}
        key = bytes(range(32))
        backend.caller.answers["CA/GetUnlockKey"] = api.GetUnlockKeyResponse(unlock_key=key)
        assert await rest.get("/swarm/unlockkey") == {
            "UnlockKey": "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
        }


KEY = recorded("rest/swarm.json")["unlock-ok"]["exchanges"][2]["request"]["body"]["UnlockKey"]


async def test_unlock(tmp_path: Path) -> None:
    backend = FakeBackend(LOCKED, becomes=MANAGER)
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("POST", "/swarm/unlock", {"UnlockKey": KEY})
        assert (reply.status, reply.body) == (200, b"")
        assert backend.asked == [("unlock", KEY)]
        reply = await rest.call("POST", "/swarm/unlock", {"UnlockKey": KEY})
        assert (reply.status, reply.message) == (409, "swarm is not locked")
        backend.state = INACTIVE
        reply = await rest.call("POST", "/swarm/unlock", {"UnlockKey": KEY})
        assert (reply.status, reply.message) == (503, NOT_IN_SWARM)
        backend.state = LOCKED
        backend.fails["unlock"] = Unavailable("no disk")
        reply = await rest.call("POST", "/swarm/unlock", {"UnlockKey": KEY})
        text = "swarm component could not be started: no disk"
        assert (reply.status, reply.message) == (500, text)
        backend.fails["unlock"] = Unauthenticated("wrong")
        reply = await rest.call("POST", "/swarm/unlock", {"UnlockKey": KEY})
        assert (reply.status, reply.message) == (401, texts.WRONG_UNLOCK_KEY)


async def test_the_later_of_two_unlocks(tmp_path: Path) -> None:
    class Unlocked(FakeBackend):
        async def unlock(self, key: str) -> None:
            self.state = MANAGER  # by the other one
            raise FailedPrecondition("this node is active, not locked")

    async with serving(tmp_path, Unlocked(LOCKED)) as rest:
        reply = await rest.call("POST", "/swarm/unlock", {"UnlockKey": KEY})
        assert (reply.status, reply.message) == (409, texts.NOT_LOCKED)


@pytest.mark.parametrize(
    "key", ["", "x", "SWMKEY-2-AAAA", "SWMKEY-1-A", "SWMKEY-1-AA==", KEY + "!"]
)
async def test_malformed_unlock_keys(tmp_path: Path, key: str) -> None:
    async with serving(tmp_path, FakeBackend(LOCKED)) as rest:
        reply = await rest.call("POST", "/swarm/unlock", {"UnlockKey": key})
        assert (reply.status, reply.message) == (400, "invalid key string")


async def test_node_updates_by_id_need_one_call(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.caller.answers["Control/UpdateNode"] = api.UpdateNodeResponse()
    body = {"Labels": {"zone": "b"}, "Role": "manager", "Availability": "active"}
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("POST", f"/v1.41/nodes/{NODE_ID}/update?version=39", body)
        assert (reply.status, reply.body) == (200, b"")
    assert [name for name, _ in backend.caller.calls] == ["Control/UpdateNode"]
    sent = backend.caller.sent("Control/UpdateNode")
    assert (sent.node_id, sent.node_version.index) == (NODE_ID, 39)
    assert dict(sent.spec.annotations.labels) == {"zone": "b"}


async def test_node_updates_by_name_look_it_up(tmp_path: Path) -> None:
    backend = FakeBackend()
    nodes = api.ListNodesResponse(nodes=[api.Node(id=NODE_ID)])
    backend.caller.answers["Control/ListNodes"] = nodes
    backend.caller.answers["Control/UpdateNode"] = api.UpdateNodeResponse()
    body = {"Role": "worker", "Availability": "pause"}
    async with serving(tmp_path, backend) as rest:
        assert (await rest.call("POST", "/nodes/se%201/update?version=1", body)).status == 200
        assert backend.caller.calls[0][1] == api.GetNodeRequest(node_id="se 1")
        assert backend.caller.sent("Control/UpdateNode").node_id == NODE_ID
        backend.caller.answers["Control/UpdateNode"] = Conflict()
        reply = await rest.call("POST", "/nodes/se1/update?version=1", body)
        text = "rpc error: code = Unknown desc = update out of sequence"
        assert (reply.status, reply.message) == (500, text)


async def test_node_list_filters_and_junk(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        await rest.get("/nodes?filters=%7B%22role%22%3A%7B%22manager%22%3Atrue%7D%7D")
        sent = rest.backend.caller.sent("Control/ListNodes")
        assert list(sent.filters.roles) == [api.NodeRole.MANAGER]
        for version, status in (("1.41", 500), ("1.42", 400)):
            assert (await rest.call("GET", f"/v{version}/nodes?filters=junk")).status == status


async def test_daemon_errors_are_plain_and_bugs_end_the_server(tmp_path: Path) -> None:
    backend = FakeBackend(INACTIVE)
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(tmp_path, backend) as rest:
            backend.fails["init"] = Refusal(500, "manager stopped: failed to listen")
            reply = await rest.call("POST", "/swarm/init", INIT)
            assert (reply.status, reply.message) == (500, "manager stopped: failed to listen")
            backend.fails["init"] = RuntimeError("secret detail")
            reply = await rest.call("POST", "/swarm/init", INIT)
            assert (reply.status, reply.message) == (500, "internal error")
            backend.fails["init"] = InvariantViolation("a bug")
            assert (await rest.call("POST", "/swarm/init", INIT)).status == 500
            await asyncio.Event().wait()
    assert caught.group_contains(InvariantViolation)


async def test_a_manager_that_just_went_away_is_told_without_prefix(tmp_path: Path) -> None:
    class Fleeting(FakeBackend):
        def control(self) -> Any:
            raise Unavailable(texts.MANAGER_PREPARING)

    async with serving(tmp_path, Fleeting()) as rest:
        reply = await rest.call("GET", "/nodes")
        assert (reply.status, reply.message) == (503, texts.MANAGER_PREPARING)
        rest.backend.state = dataclasses.replace(MANAGER, control_available=False)
        reply = await rest.call("GET", "/swarm")
        assert (reply.status, reply.message) == (503, texts.MANAGER_PREPARING)
        rest.backend.state = LocalState(state="error", certificates_expired=True)
        reply = await rest.call("GET", "/swarm")
        assert (reply.status, reply.message) == (503, texts.CERTIFICATES_EXPIRED)


async def test_the_socket_is_for_owner_and_group_and_goes_away(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        mode = os.stat(rest.path).st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
        assert os.listdir(tmp_path) == ["api.sock"]
    assert os.listdir(tmp_path) == []


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    import socket

    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "api.sock"))
    stale.close()
    async with serving(tmp_path) as rest:
        assert await rest.get("/nodes") == []


async def test_engine_networks_do_not_confuse_a_host_without_one(tmp_path: Path) -> None:
    backend = with_cluster(FakeBackend(INACTIVE, becomes=MANAGER))
    interfaces = [an_interface("lo", "127.0.0.1"), an_interface("veA", "10.1.1.1", kind="veth")]
    async with serving(tmp_path, backend, interfaces=interfaces) as rest:
        body = {"ListenAddr": "0.0.0.0:2377"}
        assert (await rest.call("POST", "/swarm/init", body)).status == 200
    assert backend.asked[0][1].advertise_addr == "10.1.1.1:2377"
