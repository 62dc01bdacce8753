"""Services after creation: the bookkeeping of updates (BEHAVIOUR 1.9), reads, statuses."""

from __future__ import annotations

from typing import Any, cast

import pytest

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.base.timestamps import seconds
from swarmd.manager.controlapi import constraints
from tests.harness.controlroom import PEER, Room, a_port, a_service_spec, an_ingress, told
from tests.harness.controlservices import create, ports, update, update_of, update_refused

INVALID, UNKNOWN = "INVALID_ARGUMENT", "UNKNOWN"
DNS_TEXT = "name must be valid as a DNS name component"


# -- updates ---------------------------------------------------------------------------


async def test_update_keeps_the_previous_spec_and_takes_the_callers_version() -> None:
    room = Room()
    made = await create(room, a_service_spec())
    room.committer.now(lambda tx: tx.update(with_status(room, made.id)))
    message = update_of(room, made.id)
    message.spec.replicated.replicas = 7
    seen = message.service_version.index
    updated = await update(room, message)
    assert updated == room.there(api.Service, made.id)
    assert updated.spec.replicated.replicas == 7
    assert updated.spec_version.index == seen < updated.meta.version.index
    assert updated.previous_spec == made.spec and updated.previous_spec_version.index == 0
    assert updated.HasField("previous_spec_version")
    assert not updated.HasField("update_status")


def with_status(room: Room, id: str) -> api.Service:
    service = api.Service()
    service.CopyFrom(room.there(api.Service, id))
    service.update_status.state = api.UpdateStatus.UpdateState.PAUSED
    return service


async def test_rollback_swaps_both_ways() -> None:
    room = Room()
    made = await create(room, a_service_spec())
    message = update_of(room, made.id)
    message.spec.replicated.replicas = 7
    second = await update(room, message)
    versions = second.spec_version, second.previous_spec_version
    for expected in (1, 7, 1):
        message = update_of(room, made.id)
        message.rollback = api.UpdateServiceRequest.Rollback.PREVIOUS
        message.spec.replicated.replicas = 99  # valid, and otherwise unused
        service = await update(room, message)
        assert service.spec.replicated.replicas == expected
        assert service.previous_spec.replicated.replicas == 8 - expected
        here, there = (versions[1], versions[0]) if expected == 1 else versions
        assert (service.spec_version, service.previous_spec_version) == (here, there)
        status = service.update_status
        assert status.state == api.UpdateStatus.UpdateState.ROLLBACK_STARTED
        assert status.message == "manually requested rollback"
        assert seconds(status.started_at) == pytest.approx(room.clock.now())


async def test_rollback_without_a_previous_spec() -> None:
    room = Room()
    made = await create(room, a_service_spec())
    message = update_of(room, made.id)
    message.rollback = api.UpdateServiceRequest.Rollback.PREVIOUS
    assert await update_refused(room, message) == (
        "FAILED_PRECONDITION",
        f"service {made.id} does not have a previous spec",
    )
    message.spec.annotations.name = "a b"
    assert await update_refused(room, message) == (INVALID, DNS_TEXT)


async def test_every_update_of_a_job_is_a_new_iteration() -> None:
    room = Room()
    made = await create(room, a_service_spec(global_job={}))
    room.clock.advance(60)
    for iteration in (1, 2):
        service = await update(room, update_of(room, made.id))
        assert service.job_status.job_iteration.index == iteration
        assert seconds(service.job_status.last_execution) == pytest.approx(room.clock.now())


async def test_update_refusals() -> None:
    room = Room()
    made = await create(room, a_service_spec())
    for field in ("service_id", "service_version", "spec"):
        message = update_of(room, made.id)
        message.ClearField(field)
        assert await update_refused(room, message) == (INVALID, "invalid argument")
    message = update_of(room, made.id)
    message.service_id = "x"
    assert await update_refused(room, message) == ("NOT_FOUND", "service x not found")
    message = update_of(room, made.id)
    message.service_version.index += 1
    assert await update_refused(room, message) == (UNKNOWN, "update out of sequence")
    message = update_of(room, made.id)
    message.spec.annotations.name = "other"
    answer = ("UNIMPLEMENTED", "renaming services is not supported")
    assert await update_refused(room, message) == answer
    getattr(message.spec, "global").SetInParent()
    answer = ("UNIMPLEMENTED", "service mode change is not allowed")
    assert await update_refused(room, message) == answer
    message = update_of(room, made.id)
    message.spec.task.container.secrets.add(secret_id="x", secret_name="y").file.name = "f"
    assert await update_refused(room, message) == (INVALID, "secret not found: y")
    message = update_of(room, made.id)
    message.spec.endpoint.ports.append(a_port(80))
    text = "service needs ingress network, but no ingress network is present"
    assert await update_refused(room, message) == ("FAILED_PRECONDITION", text)


async def test_old_networks_move_only_with_the_tasks() -> None:
    room = Room()
    spec = a_service_spec()
    spec.networks.add().target = "n1"
    made = await create(room, spec)
    message = update_of(room, made.id)
    message.spec.networks[0].target = "n2"
    answer = ("UNIMPLEMENTED", "networks must be migrated to TaskSpec before being changed")
    assert await update_refused(room, message) == answer
    message.spec.ClearField("networks")
    assert await update_refused(room, message) == answer
    message.spec.task.networks.add().target = "n1"
    await update(room, message)


async def test_own_ports_are_no_conflict_and_foreign_ones_are() -> None:
    room = Room()
    an_ingress(room)
    made = await create(room, a_service_spec("one", **ports(a_port(80))))
    await create(room, a_service_spec("two", **ports(a_port(81))))
    message = update_of(room, made.id)
    message.spec.endpoint.ports.append(a_port(82))
    await update(room, message)
    message = update_of(room, made.id)
    message.spec.endpoint.ports.append(a_port(81))
    assert (await update_refused(room, message))[1].startswith("port '81' is already in use")
    message = update_of(room, made.id)
    message.spec.task.networks.add().target = "ingress1"
    assert (await update_refused(room, message))[1].startswith("Service cannot be explicitly")


async def test_ports_are_not_looked_at_again_when_they_stay() -> None:
    """Two services may have come to one port before; an unrelated update still works."""
    room = Room()
    an_ingress(room)
    for name in ("one", "two"):
        room.add(api.Service(id=name, spec=a_service_spec(name, **ports(a_port(80)))))
    message = update_of(room, "one")
    message.spec.replicated.replicas = 3
    await update(room, message)


# -- reading and removing --------------------------------------------------------------


async def test_get_with_and_without_defaults() -> None:
    room = Room()
    made = await create(room, a_service_spec())
    request = api.GetServiceRequest(service_id=made.id)
    assert (await room.control.get_service(request, PEER)).service == made
    request.insert_defaults = True
    spec = (await room.control.get_service(request, PEER)).service.spec
    assert spec.task.container.stop_grace_period.seconds == 10
    assert spec.task.container.HasField("pull_options")
    assert spec.task.container.HasField("dns_config")
    assert spec.task.HasField("resources") and spec.task.HasField("placement")
    assert spec.task.restart.condition == api.RestartPolicy.RestartCondition.ANY
    assert spec.task.restart.delay.seconds == 5
    for update_config in (spec.update, spec.rollback):
        assert update_config.parallelism == 1 and update_config.monitor.seconds == 5
    assert room.there(api.Service, made.id).spec == made.spec


async def test_defaults_fill_gaps_only() -> None:
    room = Room()
    spec = a_service_spec()
    spec.task.restart.condition = api.RestartPolicy.RestartCondition.NONE
    spec.task.container.stop_grace_period.seconds = 3
    spec.update.parallelism = 0
    spec.update.SetInParent()
    spec.rollback.monitor.seconds = 9
    made = await create(room, spec)
    request = api.GetServiceRequest(service_id=made.id, insert_defaults=True)
    shown = (await room.control.get_service(request, PEER)).service.spec
    assert shown.task.restart.condition == api.RestartPolicy.RestartCondition.NONE
    assert shown.task.restart.delay.seconds == 5
    assert shown.task.container.stop_grace_period.seconds == 3
    assert shown.update.parallelism == 0 and shown.update.monitor.seconds == 5
    assert shown.rollback.parallelism == 0 and shown.rollback.monitor.seconds == 9


async def test_get_and_remove_refusals() -> None:
    room = Room()
    for id, answer in (
        ("", (INVALID, "invalid argument")),
        ("x", ("NOT_FOUND", "service x not found")),
    ):
        with pytest.raises(SwarmError) as caught:
            await room.control.get_service(api.GetServiceRequest(service_id=id), PEER)
        assert told(caught.value) == answer
        with pytest.raises(SwarmError) as caught:
            await room.control.remove_service(api.RemoveServiceRequest(service_id=id), PEER)
        assert told(caught.value) == answer


async def test_removal_leaves_the_tasks_to_the_orchestrator() -> None:
    room = Room()
    made = await create(room, a_service_spec())
    room.add(api.Task(id="t1", service_id=made.id))
    await room.control.remove_service(api.RemoveServiceRequest(service_id=made.id), PEER)
    assert room.get(api.Service, made.id) is None
    assert room.get(api.Task, "t1") is not None


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "api plug web"),
        ({"names": ["web"]}, "web"),
        ({"name_prefixes": ["a", "p"]}, "api plug"),
        ({"id_prefixes": ["w"]}, "web"),
        ({"labels": {"tier": "1"}}, "web"),
        ({"runtimes": ["container"]}, "api web"),
        ({"runtimes": ["plugin"]}, "plug"),
        ({"runtimes": ["container"], "names": ["plug"]}, ""),
    ],
)
async def test_list_filters(filters: dict[str, Any], found: str) -> None:
    room = Room()
    room.add(api.Service(id="w", spec=a_service_spec("web")))
    labelled = api.Service()
    labelled.CopyFrom(room.there(api.Service, "w"))
    labelled.spec.annotations.labels["tier"] = "1"
    room.committer.now(lambda tx: tx.update(labelled))
    room.add(api.Service(id="a", spec=a_service_spec("api")))
    generic = api.TaskSpec(generic=api.GenericRuntimeSpec(kind="Plugin"))
    spec = api.ServiceSpec(annotations=api.Annotations(name="plug"), task=generic)
    room.add(api.Service(id="p", spec=spec))
    message = api.ListServicesRequest(filters=api.ListServicesRequest.Filters(**filters))
    reply = await room.control.list_services(message, PEER)
    assert " ".join(service.spec.annotations.name for service in reply.services) == found


# -- statuses --------------------------------------------------------------------------

S = api.TaskState
MODES: list[tuple[dict[str, Any], list[tuple[int, int]], tuple[int, int, int]]] = [
    (
        {"replicated": {"replicas": 3}},
        [(S.RUNNING, S.RUNNING), (S.RUNNING, S.STARTING), (S.SHUTDOWN, S.RUNNING)],
        (3, 2, 0),
    ),
    (
        {"global": {}},
        [(S.RUNNING, S.RUNNING), (S.RUNNING, S.NEW), (S.SHUTDOWN, S.SHUTDOWN)],
        (2, 1, 0),
    ),
    (
        {"replicated_job": {"max_concurrent": 2, "total_completions": 3}},
        [(S.COMPLETE, S.COMPLETE), (S.COMPLETE, S.COMPLETE), (S.COMPLETE, S.RUNNING)],
        (2, 1, 2),
    ),
    (
        {"global_job": {}},
        [(S.COMPLETE, S.COMPLETE), (S.COMPLETE, S.RUNNING), (S.SHUTDOWN, S.FAILED)],
        (1, 1, 1),
    ),
]


@pytest.mark.parametrize(("mode", "tasks", "counts"), MODES)
async def test_statuses(
    mode: dict[str, Any], tasks: list[tuple[int, int]], counts: tuple[int, int, int]
) -> None:
    room = Room()
    service = await create(room, a_service_spec(**mode))
    if service.HasField("job_status"):
        service = await update(room, update_of(room, service.id))
    job = service.HasField("job_status")
    for number, (desired, state) in enumerate(tasks):
        task = api.Task(id=f"t{number}", service_id=service.id, desired_state=desired)
        task.status.state = state
        if job:
            task.job_iteration.index = 1
        room.add(task)
    old = api.Task(id="old", service_id=service.id, desired_state=S.COMPLETE)
    if job:
        old.status.state = S.COMPLETE
        room.add(old)
        old.id, old.job_iteration.index = "older", 0
        room.add(old)
    request = api.ListServiceStatusesRequest(services=[service.id, "unknown"])
    found, unknown = (await room.control.list_service_statuses(request, PEER)).statuses
    assert (found.desired_tasks, found.running_tasks, found.completed_tasks) == counts
    assert unknown == api.ListServiceStatusesResponse.ServiceStatus(service_id="unknown")


async def test_a_removed_service_wants_nothing_but_may_still_run() -> None:
    room = Room()
    task = api.Task(id="t", service_id="gone", desired_state=S.RUNNING)
    task.status.state = S.RUNNING
    room.add(task)
    request = api.ListServiceStatusesRequest(services=["gone"])
    (status,) = (await room.control.list_service_statuses(request, PEER)).statuses
    assert (status.desired_tasks, status.running_tasks) == (0, 1)


def test_a_role_of_a_newer_swarm_fits_no_constraint_of_ours() -> None:
    node = api.Node(id="n", role=cast("Any", 7))
    assert not constraints.node_matches(constraints.parse(["node.role==manager"]), node)
    assert constraints.node_matches(constraints.parse(["node.role!=manager"]), node)
