"""List filters in both JSON forms, look-ups, and times in queries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd import api
from swarmd.base.errors import FailedPrecondition, NotFound, SwarmError
from swarmd.faces.engineapi.errors import Refusal
from swarmd.faces.engineapi.filters import (
    Filters,
    NetworkFilter,
    config_filters,
    node_filters,
    secret_filters,
    task_filters,
)
from swarmd.faces.engineapi.lookups import NETWORK, NODE, find
from swarmd.faces.engineapi.timestamps import moment_nanos, unix_nanos
from tests.wire.rest_kit import FakeControl


@pytest.mark.parametrize(
    "text",
    ['{"role":{"manager":true},"id":{"a":true,"b":true}}', '{"role":["manager"],"id":["a","b"]}'],
)
def test_both_json_forms_mean_the_same(text: str) -> None:
    filters = node_filters(Filters.parse(text))
    assert list(filters.id_prefixes) == ["a", "b"]
    assert list(filters.roles) == [api.NodeRole.MANAGER]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "invalid character 'x' looking for beginning of value"),
        ("[", "unexpected end of JSON input"),
        ('{"a":["b"]} z', "invalid character 'z' after top-level value"),
        ("[]", "cannot unmarshal array into Go value of type map[string]map[string]bool"),
        ('"s"', "cannot unmarshal string into Go value of type map[string]map[string]bool"),
        ('{"a":1}', "cannot unmarshal number into Go value of type map[string]bool"),
        ('{"a":[1]}', "cannot unmarshal array into Go value of type map[string]bool"),
        ('{"a":{"b":1}}', "cannot unmarshal number into Go value of type bool"),
    ],
)
def test_junk_is_refused_as_the_clients_time_did(text: str, why: str) -> None:
    for status in (400, 500):
        with pytest.raises(Refusal) as caught:
            Filters.parse(text, old_status=status)
        assert caught.value.status == status
        assert caught.value.message.removeprefix("json: ") == why
    with pytest.raises(Refusal) as caught:
        Filters.parse(text)
    assert (caught.value.status, caught.value.message) == (400, "invalid filter")
    assert len(Filters.parse("")) == len(Filters.parse("null")) == 0


def test_unknown_keys_are_named() -> None:
    for convert in (node_filters, secret_filters, config_filters, NetworkFilter):
        with pytest.raises(Refusal) as caught:
            convert(Filters({"foo": ["x"]}))
        assert (caught.value.status, caught.value.message) == (400, "Invalid filter 'foo'")


def test_node_filters_carry_every_key() -> None:
    filters = node_filters(
        Filters(
            {
                "name": ["se"],
                "label": ["a=1", "b"],
                "node.label": ["zone=b"],
                "membership": ["accepted"],
                "role": ["Worker"],
            }
        )
    )
    assert list(filters.name_prefixes) == ["se"]
    assert dict(filters.labels) == {"a": "1", "b": ""}
    assert dict(filters.node_labels) == {"zone": "b"}
    assert list(filters.memberships) == [api.NodeSpec.Membership.ACCEPTED]
    assert list(filters.roles) == [api.NodeRole.WORKER]


@pytest.mark.parametrize(
    ("convert", "key", "text"),
    [
        (node_filters, "role", "Invalid role filter: 'foo'"),
        (node_filters, "membership", "Invalid membership filter: 'foo'"),
        (task_filters, "desired-state", "Invalid desired-state filter: 'foo'"),
    ],
)
def test_unknown_words_are_500(convert: Any, key: str, text: str) -> None:
    with pytest.raises(Refusal) as caught:
        convert(Filters({key: ["foo"]}))
    assert (caught.value.status, caught.value.message) == (500, text)
    convert(Filters({key: [""]}))


def test_task_and_secret_filters() -> None:
    tasks = task_filters(Filters({"_up-to-date": ["true"], "desired-state": ["running"]}))
    assert tasks.up_to_date and list(tasks.desired_states) == [api.TaskState.RUNNING]
    secrets = secret_filters(Filters({"names": ["exact"], "name": ["pre"]}))
    assert (list(secrets.names), list(secrets.name_prefixes)) == (["exact"], ["pre"])


def a_network(name: str, driver: str = "overlay", **labels: str) -> api.Network:
    """An allocated network."""
    network = api.Network(id="abc" + name)
    network.spec.annotations.name = name
    network.spec.annotations.labels.update(labels)
    network.driver_state.name = driver
    return network


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["net1", "ingress", "host"]),
        ({"name": ["net"]}, ["net1"]),
        ({"name": ["^n.t1$", "["]}, ["net1"]),
        ({"id": ["abcnet1"]}, ["net1"]),
        ({"driver": ["host"]}, ["host"]),
        ({"scope": ["local"]}, []),
        ({"scope": ["swarm"]}, ["net1", "ingress", "host"]),
        ({"label": ["l=1"]}, ["net1"]),
        ({"label": ["l=2"]}, []),
        ({"label": ["l"]}, ["net1"]),
        ({"type": ["builtin"]}, ["host"]),
        ({"type": ["custom"]}, ["net1", "ingress"]),
        ({"dangling": ["true"]}, ["net1", "ingress"]),
        ({"dangling": ["0"]}, ["host"]),
        ({"name": ["net"], "label": ["x"]}, []),
    ],
)
def test_network_filters(filters: dict[str, list[str]], names: list[str]) -> None:
    networks = [a_network("net1", l="1"), a_network("ingress"), a_network("host", "host")]
    wanted = NetworkFilter(Filters(filters))
    assert [n.spec.annotations.name for n in networks if wanted.includes(n)] == names


@pytest.mark.parametrize(
    ("filters", "status"),
    [({"dangling": ["true", "false"]}, 400), ({"dangling": ["x"]}, 400), ({"type": ["x"]}, 500)],
)
def test_bad_network_filter_values(filters: dict[str, list[str]], status: int) -> None:
    with pytest.raises(Refusal) as caught:
        NetworkFilter(Filters(filters))
    assert caught.value.status == status


async def test_the_exact_id_wins() -> None:
    control = FakeControl()
    control.answers["Control/GetNode"] = api.GetNodeResponse(node=api.Node(id="x"))
    assert (await find(control, NODE, "x")).id == "x"
    assert [method for method, _ in control.calls] == ["Control/GetNode"]


async def test_then_the_name_then_the_prefix() -> None:
    control = FakeControl()

    def listed(request: api.ListNodesRequest) -> api.ListNodesResponse:
        if list(request.filters.names) == ["se1"]:
            return api.ListNodesResponse(nodes=[api.Node(id="by-name")])
        if list(request.filters.id_prefixes) == ["by-p"]:
            return api.ListNodesResponse(nodes=[api.Node(id="by-prefix")])
        if list(request.filters.id_prefixes) == ["by"]:
            return api.ListNodesResponse(nodes=[api.Node(id="1"), api.Node(id="2")])
        return api.ListNodesResponse()

    control.answers["Control/ListNodes"] = listed
    assert (await find(control, NODE, "se1")).id == "by-name"
    assert (await find(control, NODE, "by-p")).id == "by-prefix"
    with pytest.raises(Refusal) as caught:
        await find(control, NODE, "by")
    assert caught.value.message == "node by is ambiguous (2 matches found)"
    assert caught.value.status == 400
    with pytest.raises(Refusal) as caught:
        await find(control, NODE, "nosuch")
    assert (caught.value.status, caught.value.message) == (404, "node nosuch not found")


async def test_the_last_lists_error_is_the_answer() -> None:
    control = FakeControl()
    control.answers["Control/ListNetworks"] = SwarmError("no leader")
    with pytest.raises(SwarmError, match="no leader"):
        await find(control, NETWORK, "x")
    control.answers["Control/GetNetwork"] = FailedPrecondition("odd")
    control.answers["Control/ListNetworks"] = NotFound("gone")
    with pytest.raises(NotFound, match="gone"):
        await find(control, NETWORK, "x")


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("1795278386", 1795278386_000000000),
        ("1795278386.5", 1795278386_500000000),
        ("1795278386.085438649", 1795278386_085438649),
        ("1.0000000019", 1_000000001),
        ("-5", -5_000000000),
    ],
)
def test_unix_times(text: str, nanos: int) -> None:
    assert unix_nanos(text) == nanos


@pytest.mark.parametrize("text", ["x", "1.x", "", "1.5.5", "+1", "1." + "1" * 21])
def test_bad_unix_times(text: str) -> None:
    with pytest.raises(ValueError, match="invalid timestamp"):
        unix_nanos(text)


def test_until_is_a_duration_a_date_or_a_unix_time() -> None:
    now = 1_700_000_000.0
    assert moment_nanos("1h30m", now) == int((now - 5400) * 1e9)
    assert moment_nanos("2023-11-14T22:13:20Z", now) == int(now * 1e9)
    assert moment_nanos("2023-11-14", now) == 1699920000 * 10**9
    assert moment_nanos("10", now) == 10 * 10**9
    assert moment_nanos("0", now) == 0
    with pytest.raises(ValueError, match="invalid"):
        moment_nanos("soon", now)


@given(st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=5), max_size=4), max_size=4))
def test_parse_keeps_every_value_once(values: dict[str, list[str]]) -> None:
    import json

    as_list = Filters.parse(json.dumps(values))
    as_map = Filters.parse(json.dumps({k: dict.fromkeys(v, True) for k, v in values.items()}))
    for key, items in values.items():
        assert as_list.get(key) == as_map.get(key) == list(dict.fromkeys(items))
