"""Networks: validation, names, the one ingress, removal in use (BEHAVIOUR 4.6)."""

from __future__ import annotations

import pytest

from swarmd import api
from swarmd.base.errors import SwarmError
from tests.harness.controlroom import PEER, Room, a_port, a_service_spec, an_ingress, told

PREDEFINED = "com.docker.swarm.predefined"


def ipam(**config: str) -> dict[str, object]:
    return {"ipam": {"driver": {"name": "default"}, "configs": [config]}}


async def created(room: Room, **fields: object) -> api.Network:
    spec = api.NetworkSpec(**{"annotations": {"name": "net1"}, **fields})
    request = api.CreateNetworkRequest(spec=spec)
    return (await room.control.create_network(request, PEER)).network


async def removal(room: Room, id: str) -> tuple[str, str]:
    with pytest.raises(SwarmError) as caught:
        await room.control.remove_network(api.RemoveNetworkRequest(network_id=id), PEER)
    return told(caught.value)


BAD_SPECS: list[tuple[dict[str, object], str, str]] = [
    (
        {"ingress": True, "attachable": True},
        "INVALID_ARGUMENT",
        "ingress network cannot be attachable",
    ),
    ({"annotations": {}}, "INVALID_ARGUMENT", "meta: name must be provided"),
    (
        {"annotations": {"name": "a b"}},
        "INVALID_ARGUMENT",
        "name must be valid as a DNS name component",
    ),
    (
        {"annotations": {"name": "n", "labels": {PREDEFINED: "x"}}},
        "PERMISSION_DENIED",
        f"label {PREDEFINED} is for internally created predefined networks and cannot be applied "
        "by users",
    ),
    (
        {"ingress": True, "driver_config": {"name": "bridge"}},
        "UNIMPLEMENTED",
        "only overlay driver is currently supported for ingress network",
    ),
    (
        {"driver_config": {}},
        "INVALID_ARGUMENT",
        "driver name: if driver is specified name is required",
    ),
    (
        {"driver_config": {"name": "weave"}},
        "INVALID_ARGUMENT",
        "error during lookup of plugin weave",
    ),
    (
        {"ipam": {"driver": {}}},
        "INVALID_ARGUMENT",
        "driver name: if driver is specified name is required",
    ),
    (
        {"ipam": {"driver": {"name": "infoblox"}}},
        "INVALID_ARGUMENT",
        "error during lookup of plugin infoblox",
    ),
    (ipam(subnet=""), "INVALID_ARGUMENT", "ipam configuration: invalid subnet "),
    (ipam(subnet="foo"), "INVALID_ARGUMENT", "ipam configuration: invalid subnet foo"),
    (ipam(subnet="10.0.0.0"), "INVALID_ARGUMENT", "ipam configuration: invalid subnet 10.0.0.0"),
    (
        ipam(subnet="10.0.0.0/33"),
        "INVALID_ARGUMENT",
        "ipam configuration: invalid subnet 10.0.0.0/33",
    ),
    (
        ipam(subnet="10.0.0.0/255.0.0.0"),
        "INVALID_ARGUMENT",
        "ipam configuration: invalid subnet 10.0.0.0/255.0.0.0",
    ),
    (
        ipam(subnet="10.0.0.0/24", range="10.0.0.5"),
        "INVALID_ARGUMENT",
        "ipam configuration: invalid range 10.0.0.5",
    ),
    (
        ipam(subnet="10.0.0.0/24", range="10.0.1.0/25"),
        "INVALID_ARGUMENT",
        "ipam configuration: subnet 10.0.0.0/24 does not contain range 10.0.1.0/25",
    ),
    (
        ipam(subnet="10.0.0.0/24", gateway="10.0.0.x"),
        "INVALID_ARGUMENT",
        "ipam configuration: invalid gateway 10.0.0.x",
    ),
    (
        ipam(subnet="10.0.0.0/24", gateway="10.0.1.1"),
        "INVALID_ARGUMENT",
        "ipam configuration: subnet 10.0.0.0/24 does not contain gateway 10.0.1.1",
    ),
    (
        ipam(subnet="10.0.0.0/24", gateway="fd00::1"),
        "INVALID_ARGUMENT",
        "ipam configuration: subnet 10.0.0.0/24 does not contain gateway fd00::1",
    ),
]


@pytest.mark.parametrize(("fields", "code", "text"), BAD_SPECS)
async def test_bad_specs(fields: dict[str, object], code: str, text: str) -> None:
    room = Room()
    with pytest.raises(SwarmError) as caught:
        await created(room, **fields)
    assert told(caught.value) == (code, text)
    assert not room.committer.proposals


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"driver_config": {"name": "overlay"}},
        {"driver_config": {"name": "macvlan"}},
        {"driver_config": {"name": "weave:latest"}},
        {"ingress": True},
        {"ingress": True, "driver_config": {"name": "overlay"}},
        {"ipam": {}},
        {"ipam": {"driver": {"name": "Default"}}},
        {"ipam": {"driver": {"name": "infoblox"}}},
        ipam(subnet="10.9.0.0/24", range="10.9.0.128/25", gateway="10.9.0.1"),
        ipam(subnet="10.9.0.7/24"),
        ipam(subnet="fd00:1::/64", gateway="fd00:1::1"),
        {"attachable": True, "internal": True, "ipv6_enabled": True},
    ],
)
async def test_good_specs_are_stored_unallocated(fields: dict[str, object]) -> None:
    room = Room()
    room.plugins.installed = {("weave:latest", "NetworkDriver"), ("infoblox", "IpamDriver")}
    network = await created(room, **fields)
    stored = room.there(api.Network, network.id)
    assert stored == network and len(network.id) == 25
    assert stored.spec == api.NetworkSpec(**{"annotations": {"name": "net1"}, **fields})
    assert not stored.HasField("driver_state") and not stored.HasField("ipam")
    assert stored.meta.version.index and stored.meta.HasField("created_at")


async def test_overlapping_subnets_are_the_allocators_business() -> None:
    room = Room()
    await created(room, **ipam(subnet="10.9.0.0/24"))
    await created(room, annotations={"name": "net2"}, **ipam(subnet="10.9.0.0/24"))


async def test_names_are_unique_without_regard_to_case() -> None:
    room = Room()
    await created(room)
    with pytest.raises(SwarmError) as caught:
        await created(room, annotations={"name": "NET1"})
    assert told(caught.value) == ("UNKNOWN", "name conflicts with an existing object")


async def test_there_is_one_ingress() -> None:
    room = Room()
    an_ingress(room)
    with pytest.raises(SwarmError) as caught:
        await created(room, ingress=True)
    assert told(caught.value) == (
        "ALREADY_EXISTS",
        "ingress network (ingress1) is already present",
    )


async def test_a_legacy_ingress_counts() -> None:
    room = Room()
    labels = {"com.docker.swarm.internal": "true"}
    annotations = api.Annotations(name="ingress", labels=labels)
    room.add(api.Network(id="old", spec=api.NetworkSpec(annotations=annotations)))
    with pytest.raises(SwarmError) as caught:
        await created(room, ingress=True)
    assert told(caught.value)[1] == "ingress network (old) is already present"


async def test_empty_requests() -> None:
    room = Room()
    with pytest.raises(SwarmError) as caught:
        await room.control.create_network(api.CreateNetworkRequest(), PEER)
    assert told(caught.value) == ("INVALID_ARGUMENT", "invalid argument")
    with pytest.raises(SwarmError) as caught:
        await room.control.get_network(api.GetNetworkRequest(name="by name"), PEER)
    assert told(caught.value) == ("INVALID_ARGUMENT", "invalid argument")
    with pytest.raises(SwarmError) as caught:
        await room.control.get_network(api.GetNetworkRequest(network_id="x"), PEER)
    assert told(caught.value) == ("NOT_FOUND", "network x not found")
    assert await removal(room, "") == ("INVALID_ARGUMENT", "invalid argument")
    assert await removal(room, "x") == ("NOT_FOUND", "network x not found")


async def test_get_and_list() -> None:
    room = Room()
    one = await created(room)
    two = await created(room, annotations={"name": "other", "labels": {"a": "1"}})
    got = await room.control.get_network(api.GetNetworkRequest(network_id=one.id), PEER)
    assert got.network == one

    async def found(**fields: object) -> list[str]:
        filters = api.ListNetworksRequest.Filters(**fields)
        reply = await room.control.list_networks(api.ListNetworksRequest(filters=filters), PEER)
        return [network.spec.annotations.name for network in reply.networks]

    assert sorted(await found()) == ["net1", "other"]
    assert await found(names=["net1", "net2"]) == ["net1"]
    assert await found(name_prefixes=["ot"]) == ["other"]
    assert await found(id_prefixes=[two.id[:9]]) == ["other"]
    assert await found(labels={"a": ""}) == ["other"]
    assert await found(labels={"a": "2"}) == []


async def test_a_network_named_by_a_service_stays() -> None:
    room = Room()
    network = await created(room)
    spec = a_service_spec()
    spec.task.networks.add().target = network.id
    room.add(api.Service(id="s1", spec=spec))
    answer = ("FAILED_PRECONDITION", f"network {network.id} is in use by service s1")
    assert await removal(room, network.id) == answer


async def test_old_service_level_networks_count_when_the_task_names_none() -> None:
    room = Room()
    network = await created(room)
    spec = a_service_spec()
    spec.networks.add().target = network.id
    room.add(api.Service(id="s1", spec=spec))
    answer = ("FAILED_PRECONDITION", f"network {network.id} is in use by service s1")
    assert await removal(room, network.id) == answer


TASKS = [
    (api.TaskState.RUNNING, api.TaskState.RUNNING, True),
    (api.TaskState.RUNNING, api.TaskState.NEW, True),
    (api.TaskState.READY, api.TaskState.STARTING, True),
    (api.TaskState.SHUTDOWN, api.TaskState.RUNNING, False),
    (api.TaskState.REMOVE, api.TaskState.NEW, False),
    (api.TaskState.RUNNING, api.TaskState.FAILED, False),
    (api.TaskState.COMPLETE, api.TaskState.RUNNING, False),
]


@pytest.mark.parametrize(("desired", "state", "holds"), TASKS)
async def test_only_tasks_that_will_run_hold_a_network(
    desired: int, state: int, holds: bool
) -> None:
    room = Room()
    network = await created(room)
    task = api.Task(id="t1", desired_state=desired, status=api.TaskStatus(state=state))
    task.spec.networks.add().target = network.id
    room.add(task)
    if holds:
        answer = ("FAILED_PRECONDITION", f"network {network.id} is in use by task t1")
        assert await removal(room, network.id) == answer
        return
    await room.control.remove_network(api.RemoveNetworkRequest(network_id=network.id), PEER)
    assert room.get(api.Network, network.id) is None


async def test_ingress_goes_only_when_no_service_needs_it() -> None:
    room = Room()
    an_ingress(room)
    spec = a_service_spec(endpoint=api.EndpointSpec(ports=[a_port(80, host=True)]))
    room.add(api.Service(id="host", spec=spec))
    spec = a_service_spec("mesh", endpoint=api.EndpointSpec(ports=[a_port(0)]))
    room.add(api.Service(id="mesh", spec=spec))
    assert await removal(room, "ingress1") == (
        "FAILED_PRECONDITION",
        "ingress network cannot be removed because service mesh depends on it",
    )
    room.committer.now(lambda tx: tx.delete(api.Service, "mesh"))
    await room.control.remove_network(api.RemoveNetworkRequest(network_id="ingress1"), PEER)
    assert room.get(api.Network, "ingress1") is None


async def test_predefined_networks_stay() -> None:
    room = Room()
    annotations = api.Annotations(name="host", labels={PREDEFINED: "true"})
    room.add(api.Network(id="h1", spec=api.NetworkSpec(annotations=annotations)))
    assert await removal(room, "h1") == (
        "FAILED_PRECONDITION",
        "network h1 (host) is a swarm predefined network and cannot be removed",
    )
