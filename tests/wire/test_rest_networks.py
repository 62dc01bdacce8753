"""/networks and /events: the cluster's and a small fake engine's, merged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from swarmd import api
from swarmd.base.errors import FailedPrecondition
from swarmd.faces.engineapi import texts
from swarmd.faces.engineapi.engine import Connection, EngineLink, Head
from tests.wire.rest_kit import (
    INACTIVE,
    NODE_ID,
    WORKER,
    FakeBackend,
    Rest,
    recorded,
    serving,
)

OVERLAY = recorded("rest/network-overlay.json")
BRIDGE = {
    "Name": "bridge",
    "Id": "b" * 64,
    "Scope": "local",
    "Driver": "bridge",
    "IPAM": {"Config": [{"Subnet": "10.77.0.0/16"}]},
}
NET1 = "g870g5m08i926ww4urp9taen2"


class StockEngine:
    """What a container engine of API 1.41 answers about its own networks and events."""

    def __init__(self) -> None:
        self.networks: list[dict[str, Any]] = [BRIDGE]
        self.version: dict[str, Any] = {"Version": "20.10.24", "ApiVersion": "1.41"}
        self.seen: list[str] = []
        self.bodies: list[Any] = []
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.past: list[bytes] | None = None
        self.gone = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        self.seen.append(f"{request.method} {request.raw_path}")
        path = request.path.removeprefix("/v1.41")
        if path == "/_ping":
            headers = {"Api-Version": "1.41", "Server": "Docker/20.10.24 (linux)"}
            headers |= {"Builder-Version": "2", "Docker-Experimental": "true"}
            return web.Response(text="OK", headers=headers)
        if path == "/version":
            return web.json_response(self.version)
        if path == "/info":
            body = {"Containers": 3, "Swarm": {"LocalNodeState": "inactive"}, "Warnings": ["w"]}
            return web.json_response(body)
        if path == "/events":
            return await self.events(request)
        if path == "/networks":
            return web.json_response(self.networks)
        if path == "/networks/create":
            self.bodies.append(await request.json())
            return web.json_response({"Id": "new", "Warning": ""}, status=201)
        if path == "/networks/prune":
            return web.json_response({"NetworksDeleted": ["local1"]})
        for network in self.networks:
            if path == f"/networks/{network['Id']}":
                if request.method == "DELETE":
                    return web.Response(status=204)
                return web.json_response({**network, "Containers": {"c": {}}})
        return web.json_response({"message": "page not found"}, status=404)

    async def events(self, request: web.BaseRequest) -> web.StreamResponse:
        """What is past, or a stream of the lines the test puts in."""
        if self.past is not None and "until" in request.query:
            return web.Response(body=b"".join(self.past), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while (line := await self.lines.get()) is not None:
                await response.write(line)
        finally:
            self.gone.set()
        return response


@asynccontextmanager
async def both(
    tmp_path: Path, backend: FakeBackend | None = None
) -> AsyncIterator[tuple[Rest, StockEngine]]:
    """Our API with the fake engine beside it."""
    engine = StockEngine()
    server = web.Server(engine.handle, handler_cancellation=True)
    path = str(tmp_path / "engine.sock")
    listener = await asyncio.get_running_loop().create_unix_server(server, path)
    try:
        async with serving(tmp_path, backend or a_manager(), engine=path) as rest:
            yield rest, engine
    finally:
        listener.close()
        await server.shutdown(1)


def a_network(id: str, name: str, **labels: str) -> api.Network:
    """A network of the cluster."""
    network = api.Network(id=id)
    network.spec.annotations.name = name
    network.spec.annotations.labels.update(labels)
    network.driver_state.name = "overlay"
    network.meta.created_at.seconds = 1_600_000_000
    return network


def a_manager() -> FakeBackend:
    """A manager of a cluster with two networks and a predefined one."""
    networks = [
        a_network(NET1, "net1", l="1"),
        a_network("rhshi4c22goeui4a9hyvivm47", "ingress"),
        a_network("predefined", "host", **{"com.docker.swarm.predefined": "true"}),
    ]
    networks[1].spec.ingress = True
    backend = FakeBackend()

    def listed(request: api.ListNetworksRequest) -> api.ListNetworksResponse:
        names, prefixes = list(request.filters.names), list(request.filters.id_prefixes)
        found = [n for n in networks if not names or n.spec.annotations.name in names]
        found = [n for n in found if not prefixes or n.id.startswith(prefixes[0])]
        return api.ListNetworksResponse(networks=found)

    created = api.CreateNetworkResponse(network=api.Network(id="created1"))
    backend.caller.answers |= {
        "Control/ListNetworks": listed,
        "Control/CreateNetwork": created,
        "Control/RemoveNetwork": api.RemoveNetworkResponse(),
    }
    return backend


def names(networks: list[dict[str, Any]]) -> list[str]:
    """Their names."""
    return [network["Name"] for network in networks]


async def test_without_engine_the_cluster_is_all_there_is(tmp_path: Path) -> None:
    async with serving(tmp_path, a_manager()) as rest:
        assert names(await rest.get("/networks")) == ["net1", "ingress"]
        filters = quote(json.dumps({"label": {"l=1": True}}))
        assert names(await rest.get(f"/networks?filters={filters}")) == ["net1"]
        assert (await rest.get("/networks/net1"))["Id"] == NET1
        assert (await rest.get("/networks/g870"))["Id"] == NET1
        assert (await rest.get("/networks/net1?scope=swarm"))["Id"] == NET1
        for path in ("nosuch", "net1?scope=local"):
            assert (await rest.call("GET", f"/networks/{path}")).status == 404
        rest.backend.state = WORKER
        assert await rest.get("/networks") == []
        reply = await rest.call("POST", "/networks/create", {"Name": "x", "Driver": "bridge"})
        assert (reply.status, reply.message) == (503, texts.NO_ENGINE)


async def test_ambiguous_and_bad_questions(tmp_path: Path) -> None:
    backend = a_manager()
    twins = [a_network("aa1", "x"), a_network("aa2", "x")]
    backend.caller.answers["Control/ListNetworks"] = api.ListNetworksResponse(networks=twins)
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("GET", "/networks/x")
        text = "network x is ambiguous: 2 matches found based on name"
        assert (reply.status, reply.message) == (400, text)
        reply = await rest.call("DELETE", "/networks/aa")
        text = "network aa is ambiguous (2 matches found based on ID prefix)"
        assert (reply.status, reply.message) == (400, text)
        reply = await rest.call("GET", "/networks/x?verbose=maybe")
        text = 'strconv.ParseBool: parsing "maybe": invalid syntax'
        assert (reply.status, reply.message) == (400, f"invalid value for verbose: maybe: {text}")
        reply = await rest.call("GET", "/networks?filters=%7B%22foo%22%3A%5B%22a%22%5D%7D")
        assert (reply.status, reply.message) == (400, "Invalid filter 'foo'")


async def test_lists_are_merged_and_the_cluster_wins(tmp_path: Path) -> None:
    async with both(tmp_path) as (rest, engine):
        engine.networks.append({**OVERLAY["net1"], "Containers": {"c": {}}})
        listed = await rest.get("/v1.41/networks?filters=%7B%7D")
        assert names(listed) == ["net1", "ingress", "bridge"]
        assert listed[0]["Containers"] is None
        assert "GET /v1.41/networks?filters=%7B%7D" in engine.seen


async def test_inspection_prefers_what_the_engine_knows(tmp_path: Path) -> None:
    async with both(tmp_path) as (rest, engine):
        assert (await rest.get("/networks/bridge"))["Containers"] == {"c": {}}
        assert (await rest.get("/networks/net1"))["Containers"] is None
        engine.networks.append(OVERLAY["net1"])
        for term in ("net1", NET1, "g870"):
            shown = await rest.get(f"/v1.41/networks/{term}?verbose=true")
            assert shown["Containers"] == {"c": {}}
            assert engine.seen[-1] == f"GET /v1.41/networks/{NET1}?verbose=true"


async def test_creates_go_where_the_driver_says(tmp_path: Path) -> None:
    create = recorded("rest/network.json")["network-create-min"]["exchanges"][1]
    async with both(tmp_path) as (rest, engine):
        reply = await rest.call("POST", "/v1.41/networks/create", create["request"]["body"])
        assert (reply.status, reply.json) == (201, {"Id": "created1", "Warning": ""})
        sent = rest.backend.caller.sent("Control/CreateNetwork").spec
        assert (sent.annotations.name, sent.driver_config.name) == ("net0", "overlay")
        assert sent.ipam.driver.name == "default" and not sent.ipam.configs
        local = {"Name": "lb1", "Driver": "bridge", "Labels": {"ü": "\n"}}
        reply = await rest.call("POST", "/v1.41/networks/create", local)
        assert (reply.status, reply.json["Id"]) == (201, "new")
        assert engine.bodies == [local]
        scoped = {"Name": "mv", "Driver": "macvlan", "Scope": "swarm"}
        assert (await rest.call("POST", "/networks/create", scoped)).json["Id"] == "created1"
        taken = {"Name": "bridge", "Driver": "overlay"}
        reply = await rest.call("POST", "/networks/create", taken)
        assert reply.status == 403
        engine.networks.append({**BRIDGE, "Name": "mine", "Id": "c" * 64})
        reply = await rest.call("POST", "/networks/create", {**taken, "Name": "mine"})
        text = "network with name mine already exists"
        assert (reply.status, reply.message) == (409, text)


async def test_removals_go_where_the_network_is(tmp_path: Path) -> None:
    async with both(tmp_path) as (rest, engine):
        assert (await rest.call("DELETE", "/networks/net1")).status == 204
        assert rest.backend.caller.sent("Control/RemoveNetwork").network_id == NET1
        reply = await rest.call("DELETE", f"/networks/{'b' * 64}")
        assert reply.status == 204
        assert engine.seen[-1] == f"DELETE /networks/{'b' * 64}"
        assert (await rest.call("DELETE", "/networks/nosuch")).status == 404


async def test_pruning_covers_both_and_skips_what_is_used(tmp_path: Path) -> None:
    async with both(tmp_path) as (rest, _):
        reply = await rest.call("POST", "/networks/prune")
        assert reply.json == {"NetworksDeleted": ["local1", "net1"]}
        removed = [m for m, _ in rest.backend.caller.calls if m == "Control/RemoveNetwork"]
        assert len(removed) == 1
        used = FailedPrecondition(f"network {NET1} is in use by service x")
        rest.backend.caller.answers["Control/RemoveNetwork"] = used
        reply = await rest.call("POST", "/networks/prune")
        assert reply.json == {"NetworksDeleted": ["local1"]}
        for filters in ({"label": ["other"]}, {"label!": ["l=1"]}, {"until": ["1500000000"]}):
            calls = len(rest.backend.caller.calls)
            target = f"/networks/prune?filters={quote(json.dumps(filters))}"
            assert (await rest.call("POST", target)).json == {"NetworksDeleted": ["local1"]}
            assert len(rest.backend.caller.calls) == calls + 1


async def test_the_engine_limits_the_version_and_lends_its_headers(tmp_path: Path) -> None:
    async with both(tmp_path) as (rest, _):
        ping = (await rest.call("HEAD", "/_ping")).head
        expected = {
            "Api-Version": "1.41",
            "Builder-Version": "2",
            "Docker-Experimental": "true",
            "Server": "Docker/20.10.24 (linux)",
        }
        assert {key: ping.header(key) for key in expected} == expected
        assert ping.header("Swarm") is None
        reply = await rest.call("GET", "/v1.42/nodes")
        text = "client version 1.42 is too new. Maximum supported API version is 1.41"
        assert (reply.status, reply.message) == (400, text)
        version = await rest.get("/version")
        assert (version["Version"], version["ApiVersion"]) == ("20.10.24", "1.41")
        assert [part["Name"] for part in version["Components"]] == ["swarmd"]
        info = await rest.get("/info")
        assert (info["Containers"], info["Warnings"]) == (3, ["w"])
        assert info["Swarm"]["NodeID"] == NODE_ID


async def test_an_engine_that_is_gone_is_said_so(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.sock")
    async with serving(tmp_path, a_manager(), engine=gone) as rest:
        reply = await rest.call("GET", "/containers/json")
        assert reply.status == 503 and "No such file or directory" in reply.message
        assert (await rest.call("GET", "/_ping")).status == 200
        assert await rest.get("/nodes") == []
        assert (await rest.get("/networks/net1"))["Id"] == NET1
        rest.backend.state = INACTIVE
        assert (await rest.call("POST", "/swarm/leave")).status == 503


class Stream:
    """A client of GET /events."""

    def __init__(self, connection: Connection, head: Head) -> None:
        self.connection = connection
        self.head = head
        self._pieces = connection.body(head)
        self._kept = b""

    async def next(self) -> Any:
        """The next event."""
        async with asyncio.timeout(10):
            while b"\n" not in self._kept:
                self._kept += await anext(self._pieces)
            line, _, self._kept = self._kept.partition(b"\n")
            return json.loads(line)

    async def ended(self) -> bool:
        """Wait for the end of the stream."""
        async with asyncio.timeout(10):
            return [piece async for piece in self._pieces] == [] and not self._kept


@asynccontextmanager
async def listening(rest: Rest, query: str = "") -> AsyncIterator[Stream]:
    """GET /events until the block ends."""
    connection = await EngineLink(rest.path).open()
    connection.send_head("GET", f"/v1.41/events{query}", [("Host", "docker")])
    try:
        yield Stream(connection, await connection.head())
    finally:
        connection.abort()


def created(kind: str, name: str, seconds: int) -> api.WatchMessage:
    """A watch message about a new object."""
    message = api.WatchMessage()
    event = message.events.add(action=api.WatchActionKind.WATCH_ACTION_CREATE)
    obj = getattr(event.object, kind)
    obj.id = f"id-{name}"
    obj.meta.created_at.seconds = seconds
    obj.spec.annotations.name = name
    return message


async def test_events_are_followed_filtered_and_kept(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        query = "?filters=" + quote(json.dumps({"type": {"network": True}}))
        async with listening(rest) as everything, listening(rest, query) as networks:
            assert everything.head.header("Content-Type") == "application/json"
            for kind, name in (("secret", "s1"), ("network", "n1"), ("config", "c1")):
                rest.backend.messages.put_nowait(created(kind, name, 1795278433))
            seen = [await everything.next() for _ in range(3)]
            assert [event["Type"] for event in seen] == ["secret", "network", "config"]
            assert await networks.next() == seen[1]
        async with listening(rest, "?since=1&until=1800000000") as past:
            rest.clock.advance(0)
            assert [await past.next() for _ in range(3)] == seen
        async with listening(rest, "?since=1795278434&until=1") as wrong:
            assert wrong.head.status == 400
        rest.clock.advance(1_000_000_000)
        async with listening(rest, "?until=1795278433") as past:
            assert [(await past.next())["Type"] for _ in range(3)] == [
                "secret",
                "network",
                "config",
            ]
            assert await past.ended()
        async with listening(rest, "?since=1795278434&until=1795278435") as past:
            assert await past.ended()


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"event": ["create"]}, 1),
        ({"event": ["remove"]}, 0),
        ({"network": ["n1"]}, 1),
        ({"network": ["id-n"]}, 1),
        ({"network": ["other"]}, 0),
        ({"scope": ["swarm"]}, 1),
        ({"scope": ["local"]}, 0),
        ({"label": ["name=n1"]}, 1),
        ({"label": ["x"]}, 0),
        ({"image": ["bb"]}, 0),
    ],
)
async def test_event_filters(tmp_path: Path, filters: dict[str, Any], count: int) -> None:
    async with serving(tmp_path) as rest:
        async with listening(rest) as all_events:
            rest.backend.messages.put_nowait(created("network", "n1", 1795278433))
            await all_events.next()
        rest.clock.advance(1_000_000_000)
        query = f"?until=1795278434&filters={quote(json.dumps(filters))}"
        async with listening(rest, query) as past:
            for _ in range(count):
                assert (await past.next())["Actor"]["ID"] == "id-n1"
            assert await past.ended()


async def test_bad_event_times(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        reply = await rest.call("GET", "/events?since=yesterday")
        text = "invalid value for 'since': invalid timestamp \"yesterday\""
        assert (reply.status, reply.message) == (400, text)


async def test_engine_events_come_in_between(tmp_path: Path) -> None:
    async with both(tmp_path) as (rest, engine):
        async with listening(rest, "?filters=%7B%7D") as stream:
            await engine.lines.put(b'{"Type":"container",')
            rest.backend.messages.put_nowait(created("network", "n1", 1795278433))
            assert (await stream.next())["Type"] == "network"
            await engine.lines.put(b'"status":"start"}\n{"Type":"image"}\n')
            assert await stream.next() == {"Type": "container", "status": "start"}
            assert await stream.next() == {"Type": "image"}
            assert engine.seen[-1] == "GET /v1.41/events?filters=%7B%7D"
        # The client went away: so does our listener at the engine.
        async with asyncio.timeout(10):
            await engine.gone.wait()
        swarm_only = "?filters=" + quote(json.dumps({"scope": ["swarm"]}))
        async with listening(rest, swarm_only) as stream:
            rest.backend.messages.put_nowait(created("network", "n2", 1795278433))
            assert (await stream.next())["Actor"]["ID"] == "id-n2"
            assert swarm_only not in engine.seen[-1]


async def test_the_end_of_the_engines_events_is_the_end(tmp_path: Path) -> None:
    async with both(tmp_path) as (rest, engine), listening(rest) as stream:
        await engine.lines.put(None)
        assert await stream.ended()
