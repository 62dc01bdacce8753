"""Tasks, extensions, resources and volumes; and that the service offers every method."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from swarmd import api
from swarmd.api.pb import control_pb2
from swarmd.base.errors import SwarmError
from swarmd.manager.controlapi import Control
from tests.harness.controlroom import IMAGE, PEER, FakeMember, Room, a_node, a_service_spec, told

INVALID = "INVALID_ARGUMENT"


async def call(room: Room, method: str, **fields: Any) -> Any:
    name = "".join(word.capitalize() for word in method.split("_"))
    request = getattr(api, f"{name}Request")(**fields)
    return await getattr(room.control, method)(request, PEER)


async def refusal(room: Room, method: str, **fields: Any) -> tuple[str, str]:
    before = room.committer.proposals
    with pytest.raises(SwarmError) as caught:
        await call(room, method, **fields)
    assert room.committer.proposals == before
    return told(caught.value)


def test_every_method_of_the_wire_is_there_and_no_other() -> None:
    service = control_pb2.DESCRIPTOR.services_by_name["Control"]
    assert service.full_name == Control.SERVICE
    wire = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", m.name).lower() for m in service.methods}
    ours = dict(inspect.getmembers(Control, inspect.iscoroutinefunction))
    assert {name for name in ours if not name.startswith("_")} == wire
    for name in wire:
        assert list(inspect.signature(ours[name]).parameters) == ["self", "request", "peer"]


# -- tasks -----------------------------------------------------------------------------


def a_task(room: Room, id: str, **fields: Any) -> api.Task:
    return room.add(api.Task(id=id, spec={"container": {"image": IMAGE}}, **fields))


def tasks_room() -> Room:
    room = Room()
    run, down = api.TaskState.RUNNING, api.TaskState.SHUTDOWN
    web = {"name": "web", "labels": {"tier": "1"}}
    base = {"service_annotations": web, "service_id": "s1"}
    a_task(room, "t1", slot=1, node_id="n1", desired_state=run, **base)
    a_task(room, "t2", slot=2, node_id="n2", desired_state=down, **base)
    a_task(room, "u1", node_id="n1", service_id="s2", service_annotations={"name": "api"})
    room.add(api.Task(id="v1", annotations={"name": "own"}, spec={"attachment": {}}))
    return room


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "t1 t2 u1 v1"),
        ({"names": ["web.1.t1", "own"]}, "t1 v1"),
        ({"names": ["Web.1.t1"]}, ""),
        ({"name_prefixes": ["web."]}, "t1 t2"),
        ({"name_prefixes": ["api.n1."]}, "u1"),
        ({"id_prefixes": ["t", "v"]}, "t1 t2 v1"),
        ({"labels": {"tier": ""}}, "t1 t2"),
        ({"service_ids": ["s1", "s2", "s1"]}, "t1 t2 u1"),
        ({"node_ids": ["n1"]}, "t1 u1"),
        ({"service_ids": ["s1"], "node_ids": ["n1"]}, "t1"),
        ({"desired_states": [api.TaskState.SHUTDOWN]}, "t2"),
        ({"desired_states": [512, 640]}, "t1 t2"),
        ({"runtimes": ["attachment"]}, "v1"),
        ({"runtimes": ["container", "attachment"], "node_ids": ["n2"]}, "t2"),
        ({"up_to_date": True}, ""),
    ],
)
async def test_task_filters(filters: dict[str, Any], found: str) -> None:
    reply = await call(tasks_room(), "list_tasks", filters=filters)
    assert " ".join(task.id for task in reply.tasks) == found


async def test_task_get_and_remove() -> None:
    room = tasks_room()
    assert (await call(room, "get_task", task_id="t1")).task == room.there(api.Task, "t1")
    await call(room, "remove_task", task_id="t1")
    for method in ("get_task", "remove_task"):
        assert await refusal(room, method) == (INVALID, "invalid argument")
        answer = ("NOT_FOUND", "task t1 not found")
        assert await refusal(room, method, task_id="t1") == answer


def set_image(task: api.Task) -> None:
    task.spec.container.image = "other"


def set_auth(task: api.Task) -> None:
    task.spec.container.pull_options.registry_auth = "x"


def set_auth_running(task: api.Task) -> None:
    set_auth(task)
    task.desired_state = task.status.state = api.TaskState.RUNNING


def set_auth_running_but_going(task: api.Task) -> None:
    set_auth_running(task)
    task.desired_state = api.TaskState.SHUTDOWN


def set_placement(task: api.Task) -> None:
    task.spec.placement.constraints.append("node.hostname == old")
    task.node_id = "n1"


def set_placement_elsewhere(task: api.Task) -> None:
    set_placement(task)
    task.node_id = "n2"


def set_placement_and_image(task: api.Task) -> None:
    set_placement(task)
    set_image(task)


def set_endpoint(task: api.Task) -> None:
    task.endpoint.spec.mode = api.EndpointSpec.ResolutionMode.DNSRR


def set_endpoint_and_placement(task: api.Task) -> None:
    set_endpoint(task)
    set_placement(task)


def set_same_endpoint(task: api.Task) -> None:
    task.endpoint.ports.add()


def set_version_and_image(task: api.Task) -> None:
    task.spec_version.index = 9
    set_image(task)


def set_other_version(task: api.Task) -> None:
    task.spec_version.index = 8


@pytest.mark.parametrize(
    ("change", "current"),
    [
        (set_other_version, True),
        (set_version_and_image, True),
        (set_image, False),
        (set_auth, False),
        (set_auth_running, True),
        (set_auth_running_but_going, False),
        (set_placement, True),
        (set_placement_elsewhere, False),
        (set_placement_and_image, False),
        (set_endpoint, False),
        (set_endpoint_and_placement, True),
        (set_same_endpoint, True),
    ],
)
async def test_up_to_date(change: Any, current: bool) -> None:
    room = Room()
    spec = a_service_spec()
    spec.task.placement.constraints.append("node.hostname == here")
    room.add(api.Service(id="s1", spec=spec, spec_version=api.Version(index=9)))
    a_node(room, "n1", hostname="here")
    a_node(room, "n2", hostname="there")
    task = api.Task(id="t1", service_id="s1", node_id="n1", spec=spec.task)
    change(task)
    room.add(task)
    reply = await call(room, "list_tasks", filters={"up_to_date": True})
    assert [found.id for found in reply.tasks] == (["t1"] if current else [])


# -- extensions and resources ----------------------------------------------------------


async def test_extension_life() -> None:
    room = Room()
    answer = (INVALID, "extension name must be provided")
    assert await refusal(room, "create_extension") == answer
    made = await call(room, "create_extension", annotations={"name": "kind1"}, description="d")
    id = made.extension.id
    assert (await call(room, "get_extension", extension_id=id)).extension == made.extension
    assert made.extension.description == "d"
    for name in ("KIND1", "service"):
        answer = await refusal(room, "create_extension", annotations={"name": name})
        assert answer == ("ALREADY_EXISTS", f"extension {name} already exists")
    await call(room, "remove_extension", extension_id=id)
    answer = await refusal(room, "get_extension", extension_id=id)
    assert answer == ("NOT_FOUND", f"extension {id} not found")
    answer = await refusal(room, "remove_extension", extension_id=id)
    assert answer == ("NOT_FOUND", f"could not find extension {id}")
    for method in ("get_extension", "remove_extension"):
        assert await refusal(room, method) == (INVALID, "extension ID must be provided")


async def test_an_extension_with_resources_stays() -> None:
    room = Room()
    made = await call(room, "create_extension", annotations={"name": "kind1"})
    await call(room, "create_resource", annotations={"name": "r1"}, kind="kind1")
    answer = await refusal(room, "remove_extension", extension_id=made.extension.id)
    text = "cannot delete extension because objects of this type exist in the data store"
    assert answer == ("UNKNOWN", text)


async def test_resources_filed_under_the_extensions_id_are_named() -> None:
    room = Room()
    made = (await call(room, "create_extension", annotations={"name": "kind1"})).extension
    await call(room, "create_extension", annotations={"name": made.id})
    for number in range(12):
        annotations = {"name": f"r{number:02}"}
        await call(room, "create_resource", annotations=annotations, kind=made.id)
    code, text = await refusal(room, "remove_extension", extension_id=made.id)
    assert code == INVALID
    assert text.startswith("extension 'kind1' is in use by the following resources: r")
    assert len(text.split(", ")) == 10


async def test_resource_life() -> None:
    room = Room()
    assert await refusal(room, "create_resource") == (INVALID, "Resource must have a name")
    answer = await refusal(room, "create_resource", annotations={"name": "r"})
    assert answer == (INVALID, "Resource must belong to an Extension")
    answer = await refusal(room, "create_resource", annotations={"name": "r"}, kind="k")
    assert answer == (INVALID, "Kind k is not registered")
    await call(room, "create_extension", annotations={"name": "k"})
    payload = AnyMessage(type_url="t", value=b"v")
    made = await call(room, "create_resource", annotations={"name": "r"}, kind="k", payload=payload)
    resource = made.resource
    assert (await call(room, "get_resource", resource_id=resource.id)).resource == resource
    answer = await refusal(room, "create_resource", annotations={"name": "R"}, kind="k")
    assert answer == ("ALREADY_EXISTS", "A resource with name R already exists")
    await call(room, "remove_resource", resource_id=resource.id)
    for method in ("get_resource", "remove_resource"):
        answer = await refusal(room, method, resource_id=resource.id)
        assert answer == ("NOT_FOUND", f"resource {resource.id} not found")
        assert await refusal(room, method) == (INVALID, "resource ID must be present")


async def test_resource_update_touches_only_what_is_given() -> None:
    room = Room()
    await call(room, "create_extension", annotations={"name": "k"})
    payload = AnyMessage(type_url="t", value=b"v")
    made = await call(room, "create_resource", annotations={"name": "r"}, kind="k", payload=payload)
    id = made.resource.id

    def fields(**more: Any) -> dict[str, Any]:
        version = room.version(made.resource)
        return {"resource_id": id, "resource_version": version, **more}

    annotations = {"name": "r", "labels": {"a": "1"}}
    await call(room, "update_resource", **fields(annotations=annotations))
    other = AnyMessage(type_url="t2", value=b"w")
    await call(room, "update_resource", **fields(payload=other))
    stored = room.there(api.Resource, id)
    assert stored.payload == other and dict(stored.annotations.labels) == {"a": "1"}
    answer = await refusal(room, "update_resource", **fields(annotations={"name": "R"}))
    assert answer == (INVALID, "cannot change resource name")
    stale = fields()
    stale["resource_version"] = api.Version(index=1)
    answer = await refusal(room, "update_resource", **stale)
    assert answer == (INVALID, "update out of sequence")
    answer = (INVALID, "must include ID and version")
    assert await refusal(room, "update_resource", resource_id=id) == answer
    missing = fields()
    missing["resource_id"] = "x"
    answer = ("NOT_FOUND", "resource x not found")
    assert await refusal(room, "update_resource", **missing) == answer


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "one three two"),
        ({"kind": "k1"}, "one two"),
        ({"kind": "k1", "name_prefixes": ["T"]}, "two"),
        ({"names": ["three"], "name_prefixes": ["o"]}, "one three"),
        ({"labels": {"a": ""}}, "two"),
        ({"kind": "nothing"}, ""),
    ],
)
async def test_resource_filters(filters: dict[str, Any], found: str) -> None:
    room = Room()
    for kind in ("k1", "k2"):
        await call(room, "create_extension", annotations={"name": kind})
    for name, kind in (("one", "k1"), ("two", "k1"), ("three", "k2")):
        labels = {"a": "1"} if name == "two" else {}
        annotations = {"name": name, "labels": labels}
        await call(room, "create_resource", annotations=annotations, kind=kind)
    reply = await call(room, "list_resources", filters=filters)
    assert " ".join(sorted(entry.annotations.name for entry in reply.resources)) == found


# -- volumes ---------------------------------------------------------------------------

VOLUME: dict[str, Any] = {
    "annotations": {"name": "vol1"},
    "group": "g",
    "driver": {"name": "csi"},
    "access_mode": {"mount": {}},
}


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("driver", None, "driver must be specified"),
        ("annotations", {}, "meta: name must be provided"),
        ("access_mode", None, "AccessMode must not be nil"),
        ("access_mode", {}, "Volume AccessMode must specify either Mount or Block access type"),
        ("secrets", [{"key": "k", "secret": "a"}], "secret not found: a"),
        ("secrets", [{"secret": "a"}, {"secret": "b"}], "secrets not found: a, b"),
    ],
)
async def test_bad_volumes(field: str, value: Any, text: str) -> None:
    spec = {**VOLUME, field: value}
    assert await refusal(Room(), "create_volume", spec=spec) == (INVALID, text)


async def test_volume_life() -> None:
    room = Room()
    assert await refusal(room, "create_volume") == (INVALID, "spec must not be nil")
    volume = (await call(room, "create_volume", spec=VOLUME)).volume
    assert (await call(room, "get_volume", volume_id=volume.id)).volume == volume
    answer = ("UNKNOWN", "name conflicts with an existing object")
    assert await refusal(room, "create_volume", spec=VOLUME) == answer
    await call(room, "remove_volume", volume_id=volume.id)
    for method in ("get_volume", "remove_volume"):
        answer = ("NOT_FOUND", f"volume {volume.id} not found")
        assert await refusal(room, method, volume_id=volume.id) == answer


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("annotations", {"name": "other"}, "Name cannot be updated"),
        ("group", "h", "Group cannot be updated"),
        ("AccessibilityRequirements", {}, "AccessibilityRequirements cannot be updated"),
        ("driver", {"name": "other"}, "Driver cannot be updated"),
        ("driver", None, "Driver cannot be updated"),
        ("access_mode", {"block": {}}, "AccessMode cannot be updated"),
        ("secrets", [{"key": "k"}], "Secrets cannot be updated"),
        ("capacity_range", {"limit_bytes": 1}, "CapacityRange cannot be updated"),
    ],
)
async def test_most_of_a_volume_is_fixed(field: str, value: Any, text: str) -> None:
    room = Room()
    volume = (await call(room, "create_volume", spec=VOLUME)).volume
    fields = {"volume_id": volume.id, "volume_version": volume.meta.version}
    answer = await refusal(room, "update_volume", **fields, spec={**VOLUME, field: value})
    assert answer == (INVALID, text)


async def test_volume_labels_and_availability_change() -> None:
    room = Room()
    volume = (await call(room, "create_volume", spec=VOLUME)).volume
    annotations = {"name": "vol1", "labels": {"a": "1"}}
    drain = api.VolumeSpec.VolumeAvailability.DRAIN
    spec = {**VOLUME, "annotations": annotations, "availability": drain}
    fields = {"volume_id": volume.id, "volume_version": volume.meta.version, "spec": spec}
    updated = (await call(room, "update_volume", **fields)).volume
    assert updated.spec == api.VolumeSpec(**spec)
    assert await refusal(room, "update_volume", **fields) == ("UNKNOWN", "update out of sequence")
    for field, text in (
        ("volume_id", "VolumeID must not be empty"),
        ("spec", "Spec must not be empty"),
        ("volume_version", "VolumeVersion must not be empty"),
    ):
        partial = {key: value for key, value in fields.items() if key != field}
        assert await refusal(room, "update_volume", **partial) == (INVALID, text)
    fields["volume_id"] = "x"
    assert await refusal(room, "update_volume", **fields) == ("NOT_FOUND", "volume x not found")


async def test_a_made_volume_is_only_marked_and_a_used_one_stays() -> None:
    room = Room()
    for id, published in (("made", False), ("used", True)):
        volume = api.Volume(id=id, spec={**VOLUME, "annotations": {"name": id}})
        volume.volume_info.volume_id = "plugin's name"
        if published:
            volume.publish_status.add(node_id="n1")
        room.add(volume)
    await call(room, "remove_volume", volume_id="made")
    assert room.there(api.Volume, "made").pending_delete
    answer = await refusal(room, "remove_volume", volume_id="used")
    assert answer == ("FAILED_PRECONDITION", "volume is still in use")
    for id in ("made", "used"):
        await call(room, "remove_volume", volume_id=id, force=True)
        assert room.get(api.Volume, id) is None


@pytest.mark.parametrize(
    ("engine", "allowed"),
    [("20.10.24", False), ("19.03.15", False), ("23.0.0", True), ("28.2.2", True), ("dev", True)],
)
async def test_no_volume_is_written_beside_managers_that_drop_them(
    engine: str, allowed: bool
) -> None:
    room = Room()
    a_node(room, "m1", manager=True, hostname="h", engine="28.2.2")
    a_node(room, "m2", manager=True, hostname="h", engine=engine)
    a_node(room, "w1", hostname="h", engine="20.10.24")
    room.add(api.Volume(id="there", spec={**VOLUME, "annotations": {"name": "there"}}))
    room.membership.listed = [FakeMember(1, "m1"), FakeMember(2, "m2"), FakeMember(3, "gone")]
    if allowed:
        await call(room, "create_volume", spec=VOLUME)
        await call(room, "remove_volume", volume_id="there")
        return
    text = "cluster volumes need every manager to run engine 23.0 or later; older: m2"
    answer = ("FAILED_PRECONDITION", text)
    assert await refusal(room, "create_volume", spec=VOLUME) == answer
    assert await refusal(room, "remove_volume", volume_id="there", force=True) == answer
    fields = {"volume_id": "there", "volume_version": {"index": 1}, "spec": VOLUME}
    assert await refusal(room, "update_volume", **fields) == answer


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (None, "a b bare"),
        ({}, "a b"),  # with filters, one without a driver never matches (stock)
        ({"names": ["a"]}, "a"),
        ({"name_prefixes": ["b"]}, "b"),
        ({"groups": ["g2"]}, "b"),
        ({"drivers": ["csi"]}, "a b"),
        ({"drivers": ["other"]}, ""),
        ({"id_prefixes": ["v-a"]}, "a"),
    ],
)
async def test_volume_filters(filters: dict[str, Any] | None, found: str) -> None:
    room = Room()
    for name, group in (("a", "g1"), ("b", "g2")):
        spec = {**VOLUME, "annotations": {"name": name}, "group": group}
        room.add(api.Volume(id=f"v-{name}", spec=spec))
    room.add(api.Volume(id="x", spec={"annotations": {"name": "bare"}}))
    fields = {} if filters is None else {"filters": filters}
    reply = await call(room, "list_volumes", **fields)
    assert " ".join(sorted(v.spec.annotations.name for v in reply.volumes)) == found
