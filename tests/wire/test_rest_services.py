"""/services, /tasks, /secrets, /configs and logs over a socket, with a real Control service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from swarmd import api
from swarmd.base.errors import FailedPrecondition, NotFound
from swarmd.faces.engineapi.engine import EngineLink
from swarmd.rpc.inprocess import InProcess
from swarmd.rpc.peer import Peer
from tests.harness.controlroom import Room, a_cluster, a_service_spec
from tests.wire.rest_kit import MANAGER, FakeBackend, FakeControl, recorded, serving

ROWS = {row["name"]: row for row in recorded("cli/errors.json")}
IMAGE = "sha256:4d91494f54a45065b54f266677711c860ba01662e805a100a8355ad08a99faba"


def a_manager(room: Room) -> FakeBackend:
    """A node whose manager calls reach `room`."""
    return FakeBackend(MANAGER, InProcess([room.control], Peer(local=True), None))


def a_room() -> Room:
    """A cluster with a service, its task, a secret in use and the routing mesh."""
    room = Room()
    a_cluster(room)
    network = api.Network(id="rhshi4c22goeui4a9hyvivm47")
    network.spec.annotations.name = "ingress"
    network.spec.ingress = True
    room.add(network)
    secret = api.Secret(id="labsib5pmvtoamkco28w999ng")
    secret.spec.annotations.name = "sec1"
    secret.spec.data = b"s3cr3t"
    room.add(secret)
    config = api.Config(id="17phgoeaf00pekg3ohqbmilms")
    config.spec.annotations.name = "cfg1"
    config.spec.data = b"conf\n"
    room.add(config)
    spec = a_service_spec("full")
    used = spec.task.container.secrets.add(secret_id=secret.id, secret_name="sec1")
    used.file.name = "sec1"
    also = spec.task.container.configs.add(config_id=config.id, config_name="cfg1")
    also.file.name = "/c"
    for published, mode in ((8080, 0), (8443, 1)):
        spec.endpoint.ports.add(target_port=80, published_port=published, publish_mode=mode)
    full = api.Service(id="nkwjatyd91hktsf925ipwxkhy", spec=spec)
    full.endpoint.spec.CopyFrom(spec.endpoint)
    full.endpoint.ports.extend(spec.endpoint.ports)
    room.add(full)
    room.add(api.Service(id="3hapwc89ooxaa85kfcu1exuv8", spec=a_service_spec("min")))
    task = api.Task(id="task1", service_id=full.id, slot=1, desired_state=api.TaskState.RUNNING)
    task.spec.CopyFrom(spec.task)
    task.service_annotations.name = "full"
    room.add(task)
    return room


def body(**changes: Any) -> Any:
    """A small create request, `a__b=value` set inside."""
    out: Any = {
        "Name": "a",
        "TaskTemplate": {"ContainerSpec": {"Image": IMAGE}},
        "Mode": {"Replicated": {}},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = out
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = value
    return out


CONTAINER = "TaskTemplate__ContainerSpec__"
INGRESS = {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}
HOST = {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "host"}
REFUSED: dict[str, Any] = {
    "svc-badepmode": body(EndpointSpec__Mode="foo"),
    "svc-badname": body(Name="a b"),
    "svc-longname": body(Name="a" * 64),
    "svc-dup": body(Name="min"),
    "svc-constraint": body(TaskTemplate__Placement__Constraints=["foo"]),
    "svc-constraint2": body(TaskTemplate__Placement__Constraints=["foo=="]),
    "svc-cpu": body(TaskTemplate__Resources__Limits={"NanoCPUs": 100000}),
    "svc-mem": body(TaskTemplate__Resources__Limits={"MemoryBytes": 1048576}),
    "svc-dnsrr": body(EndpointSpec={"Mode": "dnsrr", "Ports": [{**INGRESS, "PublishedPort": 81}]}),
    "svc-dupmount": body(**{CONTAINER + "Mounts": [{"Type": "tmpfs", "Target": "/a"}] * 2}),
    "svc-dupport": body(
        EndpointSpec__Ports=[
            {**INGRESS, "PublishedPort": 81},
            {**INGRESS, "PublishedPort": 81, "TargetPort": 81},
        ]
    ),
    "svc-failaction": body(UpdateConfig={"FailureAction": "foo"}),
    "svc-order": body(UpdateConfig={"Order": "foo"}),
    "svc-ratio": body(UpdateConfig={"MaxFailureRatio": 2}),
    "svc-restartcond": body(TaskTemplate__RestartPolicy={"Condition": "foo"}),
    "svc-negdelay": body(TaskTemplate__RestartPolicy={"Delay": -(10**9)}),
    "svc-health": body(**{CONTAINER + "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000}}),
    "svc-tmpl": body(**{CONTAINER + "Env": ["A={{.Foo}}"]}),
    "svc-netingress": body(TaskTemplate__Networks=[{"Target": "ingress"}]),
    "svc-port": body(EndpointSpec__Ports=[{**INGRESS, "PublishedPort": 8080}]),
    "svc-port-hostmode": body(EndpointSpec__Ports=[{**HOST, "PublishedPort": 8080}]),
    "svc-port-ing-vs-host": body(EndpointSpec__Ports=[{**INGRESS, "PublishedPort": 8443}]),
    "svc-rollback-none": body(Name="min"),
    "svc-rm-nf": None,
    "svc-inspect-nf": None,
    "svc-update-nf": None,
    "svc-scale-global2": None,
    "secret-nf": None,
    "secret-insp-nf": None,
    "config-nf": None,
    "secret-inuse": None,
    "config-inuse": None,
    "secret-dup": {"Name": "sec1", "Data": "eA=="},
    "secret-badname": {"Name": "bad name", "Data": "eA=="},
    "secret-big": {"Name": "big1", "Data": "AAAA" * 170_667},
    "config-big": {"Name": "big1", "Data": "AAAA" * 341_334},
}


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_recorded_refusal(tmp_path: Path, name: str) -> None:
    ((method, target, status, message),) = ROWS[name]["http"]
    room = a_room()
    if name == "svc-rollback-none":
        version = room.there(api.Service, "3hapwc89ooxaa85kfcu1exuv8").meta.version.index
        target = target.replace("version=67", f"version={version}")
    async with serving(tmp_path, a_manager(room)) as rest:
        reply = await rest.call(method, target, REFUSED[name])
        assert (reply.status, reply.message) == (status, message)


async def test_a_service_lives(tmp_path: Path) -> None:
    room = a_room()
    async with serving(tmp_path, a_manager(room)) as rest:
        created = await rest.call("POST", "/v1.50/services/create", body(Name="web"))
        assert (created.status, list(created.json)) == (201, ["ID"])
        shown = await rest.get("/services/web?insertDefaults=false")
        assert shown["ID"] == created.json["ID"]
        assert "UpdateConfig" not in shown["Spec"]
        full = await rest.get("/services/web?insertDefaults=true")
        assert full["Spec"]["UpdateConfig"]["Monitor"] == 5_000_000_000
        prefix = created.json["ID"][:10]
        assert (await rest.get(f"/services/{prefix}?insertDefaults=1"))["Spec"] == full["Spec"]
        index = shown["Version"]["Index"]
        changed = {**shown["Spec"], "Labels": {"a": "b"}}
        target = f"/services/web/update?version={index}"
        updated = await rest.call("POST", target, changed)
        assert (updated.status, updated.json) == (200, {"Warnings": None})
        assert (await rest.get("/services/web"))["Spec"]["Labels"] == {"a": "b"}
        stale = await rest.call("POST", target, changed)
        assert stale.message == "rpc error: code = Unknown desc = update out of sequence"
        removed = await rest.call("DELETE", "/services/web")
        assert (removed.status, removed.body) == (200, b"")
        assert (await rest.call("GET", "/services/web")).status == 404


async def test_services_are_listed_filtered_and_counted(tmp_path: Path) -> None:
    room = a_room()
    spec = a_service_spec("everywhere")
    getattr(spec, "global").SetInParent()
    room.add(api.Service(id="global1", spec=spec))
    async with serving(tmp_path, a_manager(room)) as rest:

        async def names(filters: dict[str, list[str]]) -> list[str]:
            listed = await rest.get(f"/services?filters={quote(json.dumps(filters))}")
            return sorted(service["Spec"]["Name"] for service in listed)

        assert await names({}) == ["everywhere", "full", "min"]
        assert await names({"mode": ["global"]}) == ["everywhere"]
        assert await names({"mode": ["foo"]}) == []
        assert await names({"name": ["mi"]}) == ["min"]
        assert (await rest.call("GET", "/services?filters=%7B%22x%22%3A%5B%5D%7D")).status == 400
        counted = await rest.get("/services?status=true")
        status = {item["Spec"]["Name"]: item["ServiceStatus"] for item in counted}
        assert status["full"] == {"RunningTasks": 0, "DesiredTasks": 1, "CompletedTasks": 0}
        assert "ServiceStatus" not in (await rest.get("/v1.40/services?status=true"))[0]
        assert (await rest.call("GET", "/services?status=x")).status == 400


async def test_tasks_are_listed_by_service_and_state(tmp_path: Path) -> None:
    async with serving(tmp_path, a_manager(a_room())) as rest:

        async def ids(filters: dict[str, list[str]]) -> list[str]:
            listed = await rest.get(f"/tasks?filters={quote(json.dumps(filters))}")
            return [task["ID"] for task in listed]

        assert await ids({"service": ["full"]}) == ["task1"]
        assert await ids({"service": ["min"]}) == []
        assert await ids({"desired-state": ["running"], "_up-to-date": ["true"]}) == ["task1"]
        assert (await rest.get("/tasks/task1"))["Slot"] == 1
        for filters, status in (
            ({"service": ["nosuch"]}, 404),
            ({"node": ["nosuch"]}, 404),
            ({"foo": ["x"]}, 400),
            ({"desired-state": ["foo"]}, 500),
        ):
            target = f"/tasks?filters={quote(json.dumps(filters))}"
            assert (await rest.call("GET", target)).status == status
        for version, noun, status in (
            ("1.41", "tasks", 500),
            ("1.41", "services", 400),
            ("1.42", "tasks", 400),
            ("1.42", "services", 400),
        ):
            reply = await rest.call("GET", f"/v{version}/{noun}?filters=junk")
            assert reply.status == status


async def test_secrets_and_configs_live(tmp_path: Path) -> None:
    async with serving(tmp_path, a_manager(a_room())) as rest:
        for noun, data in (("secrets", None), ("configs", "c2VjcmV0")):
            sent = {"Name": "new", "Labels": {"a": "b"}, "Data": "c2VjcmV0"}
            created = await rest.call("POST", f"/{noun}/create", sent)
            assert (created.status, list(created.json)) == (201, ["ID"])
            shown = await rest.get(f"/{noun}/new")
            assert shown["Spec"].get("Data") == data
            listed = await rest.get(f"/{noun}?filters=%7B%22name%22%3A%5B%22ne%22%5D%7D")
            assert [item["ID"] for item in listed] == [created.json["ID"]]
            target = f"/{noun}/new/update?version={shown['Version']['Index']}"
            relabelled = {**sent, "Labels": {}}
            updated = await rest.call("POST", target, relabelled)
            assert (updated.status, updated.body) == (200, b"")
            assert (await rest.get(f"/{noun}/new"))["Spec"]["Labels"] == {}
            bad = await rest.call("POST", f"/{noun}/new/update", sent)
            assert (bad.status, bad.message) == (400, f"invalid {noun[:-1]} version")
            junk = await rest.call("POST", f"/{noun}/create", {**sent, "Data": "!"})
            text = "illegal base64 data at input byte 0"
            assert (junk.status, junk.message) == (400, text)
            assert (await rest.call("DELETE", f"/{noun}/new")).status == 204
            assert (await rest.call("GET", f"/{noun}/new")).status == 404


async def test_clients_too_old_for_secrets_and_templates(tmp_path: Path) -> None:
    async with serving(tmp_path, a_manager(a_room())) as rest:
        for target, text in (
            ("/v1.24/secrets", "GET /secrets requires minimum API version 1.25"),
            ("/v1.29/configs/x", "GET /configs/{id} requires minimum API version 1.30"),
        ):
            reply = await rest.call("GET", target)
            assert (reply.status, reply.message) == (400, text)
        sent = {"Name": "t", "Data": "eA==", "Templating": {"Name": "golang"}}
        reply = await rest.call("POST", "/v1.36/configs/create", sent)
        text = "config templating is not supported on the specified API version: 1.36"
        assert (reply.status, reply.message) == (400, text)


async def test_registry_credentials_are_kept_given_or_taken_from_before(tmp_path: Path) -> None:
    control = FakeControl()
    service = api.Service(id="s1", spec=a_service_spec("web"))
    service.spec.task.container.pull_options.registry_auth = "now"
    control.answers |= {
        "Control/GetService": lambda _: api.GetServiceResponse(service=service),
        "Control/UpdateService": api.UpdateServiceResponse(),
    }
    async with serving(tmp_path, FakeBackend(MANAGER, control)) as rest:

        async def update(query: str = "") -> str:
            reply = await rest.call("POST", f"/services/s1/update?version=1{query}", body())
            if reply.status != 200:
                return reply.message
            sent = control.sent("Control/UpdateService")
            return str(sent.spec.task.container.pull_options.registry_auth)

        assert await update() == "now"
        text = "service does not have a previous spec"
        assert await update("&registryAuthFrom=previous-spec") == text
        service.previous_spec.CopyFrom(service.spec)
        service.previous_spec.task.container.pull_options.registry_auth = "before"
        assert await update("&registryAuthFrom=previous-spec") == "before"
        assert await update("&registryAuthFrom=x") == "unsupported registryAuthFrom value"
        assert await update("&rollback=x") == "unrecognized rollback option x"
        assert await update("&rollback=previous") == "now"
        rollback = control.sent("Control/UpdateService").rollback
        assert rollback == api.UpdateServiceRequest.Rollback.PREVIOUS


async def test_networks_become_ids_and_nameless_services_get_a_name(tmp_path: Path) -> None:
    control = FakeControl()
    network = api.ListNetworksResponse(networks=[api.Network(id="net-id")])
    created = api.CreateServiceResponse(service=api.Service(id="s1"))
    control.answers |= {"Control/ListNetworks": network, "Control/CreateService": created}
    async with serving(tmp_path, FakeBackend(MANAGER, control)) as rest:
        wanted = body(Name="", TaskTemplate__Networks=[{"Target": "net1", "Aliases": ["x"]}])
        reply = await rest.call("POST", "/v1.29/services/create", wanted)
        assert reply.json == {"ID": "s1"}
        sent = control.sent("Control/CreateService").spec
        assert [item.target for item in sent.task.networks] == ["net-id"]
        assert sent.annotations.name.startswith("service-")
        wanted["TaskTemplate"]["ContainerSpec"]["Image"] = "bb:1"
        reply = await rest.call("POST", "/v1.29/services/create", wanted)
        assert reply.json["Warnings"][0].startswith("image bb:1 could not be accessed")
        control.answers["Control/ListNetworks"] = NotFound("no")
        reply = await rest.call("POST", "/services/create", wanted)
        assert reply.status == 404


def a_line(text: str, stream: int = 1) -> api.SubscribeLogsMessage:
    """One log line."""
    message = api.LogMessage(stream=stream, data=text.encode())
    return api.SubscribeLogsMessage(messages=[message])


@pytest.mark.parametrize("tty", [False, True])
async def test_logs_are_framed_unless_a_terminal_is_used(tmp_path: Path, tty: bool) -> None:
    control = FakeControl()
    service = api.Service(id="s1", spec=a_service_spec("lg"))
    service.spec.task.container.tty = tty
    control.answers |= {
        "Control/GetService": api.GetServiceResponse(service=service),
        "Logs/SubscribeLogs": [
            a_line("out\n"),
            a_line("err\n", 2),
            FailedPrecondition("gone"),
        ],
    }
    async with serving(tmp_path, FakeBackend(MANAGER, control)) as rest:
        query = "stdout=1&stderr=1&tail=5&since=10.5&follow=1"
        reply = await rest.call("GET", f"/v1.42/services/lg/logs?{query}")
        kind = "raw" if tty else "multiplexed"
        assert reply.head.header("Content-Type") == f"application/vnd.docker.{kind}-stream"
        last = b"Error grabbing logs: rpc error: code = FailedPrecondition desc = gone\n"
        if tty:
            assert reply.body == b"out\nerr\n" + last
        else:
            frames = b"\1\0\0\0\0\0\0\4out\n" + b"\2\0\0\0\0\0\0\4err\n"
            assert reply.body == frames + b"\3\0\0\0\0\0\0" + bytes([len(last)]) + last
    asked = control.sent("Logs/SubscribeLogs")
    assert list(asked.selector.service_ids) == ["s1"]
    assert asked.options.follow and asked.options.tail == -6
    assert (asked.options.since.seconds, asked.options.since.nanos) == (10, 500_000_000)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 500, "Bad parameters: you must choose at least one stream"),
        ("stdout=1&tail=x", 500, 'tail value must be a positive integer or "all"'),
        ("stdout=1&tail=-1", 500, "negative tail values not supported"),
        ("stdout=1&since=x", 400, 'invalid value for "since": invalid timestamp "x"'),
        ("stdout=1", 404, "task t not found"),
    ],
)
async def test_bad_log_requests(tmp_path: Path, query: str, status: int, message: str) -> None:
    async with serving(tmp_path) as rest:
        reply = await rest.call("GET", f"/tasks/t/logs?{query}")
        assert (reply.status, reply.message) == (status, message)


async def test_logs_of_one_task(tmp_path: Path) -> None:
    control = FakeControl()
    task = api.Task(id="t1")
    task.spec.container.image = "x"
    control.answers |= {
        "Control/GetTask": api.GetTaskResponse(task=task),
        "Logs/SubscribeLogs": [a_line("one\n")],
    }
    async with serving(tmp_path, FakeBackend(MANAGER, control)) as rest:
        head, data = await EngineLink(rest.path).call("GET", "/tasks/t1/logs?stdout=1&tail=all")
        assert (head.status, data) == (200, b"\1\0\0\0\0\0\0\4one\n")
    assert list(control.sent("Logs/SubscribeLogs").selector.task_ids) == ["t1"]
    assert control.sent("Logs/SubscribeLogs").options.tail == 0
