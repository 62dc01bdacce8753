"""Small things a stock engine 20.10 was seen to answer, beside ours, to the same odd requests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from swarmd import api
from tests.wire.rest_kit import INACTIVE, MANAGER, FakeBackend, serving
from tests.wire.test_rest_networks import a_manager, both, created, listening
from tests.wire.test_rest_swarm import with_cluster

NODE = {"Role": "worker", "Availability": "active"}
FORM = "application/x-www-form-urlencoded"


def a_node() -> FakeBackend:
    """A manager that updates any node."""
    backend = FakeBackend()
    backend.caller.answers["Control/UpdateNode"] = api.UpdateNodeResponse()
    return backend


async def test_a_spec_of_wrong_types_begins_no_swarm(tmp_path: Path) -> None:
    backend = with_cluster(FakeBackend(INACTIVE, becomes=MANAGER))
    spec = {"Orchestration": {"TaskHistoryRetentionLimit": "x"}}
    async with serving(tmp_path, backend) as rest:
        reply = await rest.call("POST", "/swarm/init", {"ListenAddr": "0.0.0.0", "Spec": spec})
        assert reply.status == 400
        assert reply.message.startswith("json: cannot unmarshal string into Go struct field")
        assert backend.asked == []


@pytest.mark.parametrize("kind", [FORM, "text/plain", ""])
async def test_old_clients_need_not_say_that_they_send_json(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path, a_node()) as rest:
        body = json.dumps(NODE).encode() + b"\n and more"
        target = f"/nodes/{'n' * 25}/update?version=1"
        assert (await rest.call("POST", f"/v1.41{target}", body, kind)).status == 200
        assert (await rest.call("POST", f"/v1.42{target}", body, kind)).status == 400


async def test_old_clients_say_so_of_networks(tmp_path: Path) -> None:
    async with serving(tmp_path, a_manager()) as rest:
        body = json.dumps({"Name": "x", "Driver": "overlay"}).encode()
        reply = await rest.call("POST", "/v1.41/networks/create", body, FORM)
        text = f"Content-Type specified ({FORM}) must be 'application/json'"
        assert (reply.status, reply.message) == (400, text)
        reply = await rest.call("POST", "/v1.41/networks/create", body)
        assert reply.status == 201


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "got EOF while reading request body"),
        (b"{", "unexpected EOF"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"[]", "json: cannot unmarshal array into Go value of type swarm.NodeSpec"),
    ],
)
async def test_bodies_that_are_no_json_are_refused_in_old_words(
    tmp_path: Path, body: bytes, message: str
) -> None:
    async with serving(tmp_path) as rest:
        reply = await rest.call("POST", "/v1.41/nodes/x/update?version=1", body)
        assert (reply.status, reply.message) == (400, message)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Name": " ", "Driver": "overlay"}, 500, "invalid name:  "),
        (
            {"Name": "x", "Driver": "overlay", "Scope": "local"},
            403,
            "cannot downgrade network scope for overlay networks",
        ),
    ],
)
async def test_networks_an_engine_refuses_itself(
    tmp_path: Path, body: dict[str, Any], status: int, message: str
) -> None:
    async with both(tmp_path) as (rest, engine):
        reply = await rest.call("POST", "/networks/create", body)
        assert (reply.status, reply.message) == (status, message)
        assert engine.bodies == []
        assert "Control/CreateNetwork" not in [name for name, _ in rest.backend.caller.calls]


async def test_a_network_that_only_lends_its_configuration_is_the_engines(tmp_path: Path) -> None:
    body = {"Name": "x", "Driver": "overlay", "ConfigOnly": True}
    async with both(tmp_path) as (rest, engine):
        reply = await rest.call("POST", "/networks/create", body)
        assert (reply.status, reply.json["Id"]) == (201, "new")
        assert engine.bodies == [body]


async def test_clients_that_know_no_task_counts_may_say_anything_of_them(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.caller.answers["Control/ListServices"] = api.ListServicesResponse()
    async with serving(tmp_path, backend) as rest:
        assert await rest.get("/v1.40/services?status=x") == []
        reply = await rest.call("GET", "/v1.41/services?status=x")
        why = 'strconv.ParseBool: parsing "x": invalid syntax'
        assert (reply.status, reply.message) == (400, f"invalid value for status: x: {why}")


@pytest.mark.parametrize("name", ["since", "until"])
async def test_times_of_events_are_refused_in_old_words(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as rest:
        reply = await rest.call("GET", f"/v1.41/events?{name}={quote('1e3.5')}")
        text = 'strconv.ParseInt: parsing "1e3": invalid syntax'
        assert (reply.status, reply.message) == (500, text)


async def test_lengths_are_given_where_there_may_be_one(tmp_path: Path) -> None:
    async with serving(tmp_path, a_manager()) as rest:
        assert (await rest.call("HEAD", "/_ping")).head.header("Content-Length") == "0"
        reader, writer = await asyncio.open_unix_connection(rest.path)
        for target in ("DELETE /networks/net1", "GET /_ping"):
            writer.write(f"{target} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        first = await reader.readuntil(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 204 ") and b"Content-Length" not in first
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_the_lowest_version_told_is_the_lowest_served(tmp_path: Path) -> None:
    async with both(tmp_path) as (rest, engine):
        details = {"ApiVersion": "1.41", "MinAPIVersion": "1.12"}
        engine.version = {**details, "Components": [{"Name": "Engine", "Details": details}]}
        shown = await rest.get("/version")
        assert shown["MinAPIVersion"] == "1.24"
        assert shown["Components"][0]["Details"]["MinAPIVersion"] == "1.24"


def at(nanos: int, kind: str) -> bytes:
    """An event of the engine."""
    return json.dumps({"Type": kind, "timeNano": nanos}).encode() + b"\n"


async def test_what_is_past_comes_in_the_order_of_its_time(tmp_path: Path) -> None:
    second = 1_000_000_000
    async with both(tmp_path) as (rest, engine):
        async with listening(rest) as stream:
            for name, seconds in (("n1", 10), ("n2", 30)):
                rest.backend.messages.put_nowait(created("network", name, seconds))
                await stream.next()
        engine.past = [at(5 * second, "a"), at(20 * second, "b"), at(40 * second, "c")]
        rest.clock.advance(100 - rest.clock.now())
        types = ["a", "network", "b", "network", "c"]
        filters = "filters=" + quote('{"label":["x"]}')
        async with listening(rest, "?since=1&until=50") as past:
            assert [(await past.next())["Type"] for _ in types] == types
            assert await past.ended()
            assert engine.seen[-1].endswith("/events?since=1.000000000&until=50.000000000")
        async with listening(rest, f"?since=1&{filters}") as stream:
            assert [(await stream.next())["Type"] for _ in "abc"] == ["a", "b", "c"]
            await engine.lines.put(at(100 * second, "d"))
            assert (await stream.next())["Type"] == "d"
            assert engine.seen[-1].endswith(f"/events?since=100.000000001&{filters}")
        async with listening(rest, "?since=150") as stream:
            await engine.lines.put(at(160 * second, "e"))
            assert (await stream.next())["Type"] == "e"
            assert engine.seen[-1].endswith("/events?since=150.000000000")
