"""Creating services: every refusal of BEHAVIOUR 4.5, and what is stored."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.base.timestamps import seconds
from tests.harness.controlroom import IMAGE, PEER, Room, a_port, a_service_spec, an_ingress, told
from tests.harness.controlservices import create, ports, refused

INVALID, UNKNOWN = "INVALID_ARGUMENT", "UNKNOWN"
MAX = 2**63


def task(**fields: Any) -> dict[str, Any]:
    return {"task": {"container": {"image": IMAGE}, **fields}}


def container(**fields: Any) -> dict[str, Any]:
    return {"task": {"container": {"image": IMAGE, **fields}}}


def secret(id: str = "i", name: str = "n", **target: Any) -> dict[str, Any]:
    return {"secret_id": id, "secret_name": name, **target}


def config(id: str = "i", name: str = "n", **target: Any) -> dict[str, Any]:
    return {"config_id": id, "config_name": name, **target}


DNS_TEXT = "name must be valid as a DNS name component"
RATIO_TEXT = "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"
FOO = 'executing "expansion" at <.Foo>: can\'t evaluate field Foo in type *template.Context'
MINUS = Duration(seconds=-1)
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"annotations": {}}, INVALID, "meta: name must be provided"),
    ({"annotations": {"name": "a b"}}, INVALID, DNS_TEXT),
    ({"annotations": {"name": "a-"}}, INVALID, DNS_TEXT),
    ({"annotations": {"name": "_a"}}, INVALID, DNS_TEXT),
    ({"annotations": {"name": "a.b"}}, INVALID, DNS_TEXT),
    ({"annotations": {"name": "a\n"}}, INVALID, DNS_TEXT),
    ({"annotations": {"name": "a" * 64}}, INVALID, "name must be 63 characters or fewer"),
    ({"annotations": {"name": "a b" * 64}}, INVALID, DNS_TEXT),
    ({"task": {}}, INVALID, "TaskSpec: missing runtime"),
    (
        {"task": {"attachment": {}}},
        "UNIMPLEMENTED",
        "RuntimeSpec: unimplemented runtime in service spec",
    ),
    (
        task(resources={"limits": {"nano_cpus": 100000}}),
        INVALID,
        "invalid cpu value 0.0001: Must be at least 0.001",
    ),
    (
        task(resources={"limits": {"nano_cpus": 999_999}}),
        INVALID,
        "invalid cpu value 0.000999999: Must be at least 0.001",
    ),
    (
        task(resources={"reservations": {"nano_cpus": 1}}),
        INVALID,
        "invalid cpu value 1e-09: Must be at least 0.001",
    ),
    (
        task(resources={"reservations": {"nano_cpus": -2_500_000_000}}),
        INVALID,
        "invalid cpu value -2.5: Must be at least 0.001",
    ),
    (
        task(resources={"limits": {"memory_bytes": 1048576}}),
        INVALID,
        "invalid memory value 1048576: Must be at least 4MiB",
    ),
    (
        task(resources={"reservations": {"memory_bytes": -1}}),
        INVALID,
        "invalid memory value -1: Must be at least 4MiB",
    ),
    (task(restart={"delay": MINUS}), INVALID, "TaskSpec: restart-delay cannot be negative"),
    (task(restart={"window": MINUS}), INVALID, "TaskSpec: restart-window cannot be negative"),
    (
        task(restart={"window": Duration(seconds=10**12)}),
        UNKNOWN,
        "duration: seconds:1000000000000 : seconds out of range",
    ),
    (
        task(placement={"constraints": ["node.role"]}),
        UNKNOWN,
        "constraint expected one operator from ==, !=",
    ),
    (task(placement={"constraints": ["node.role=="]}), UNKNOWN, "value '' is invalid"),
    (task(placement={"constraints": [" .. == x"]}), UNKNOWN, "key '..' is invalid"),
    (task(placement={"constraints": ["a.b == x,y"]}), UNKNOWN, "value 'x,y' is invalid"),
    (container(image=""), INVALID, "ContainerSpec: image reference must be provided"),
    (
        container(image="UPPER/case:latest"),
        INVALID,
        'ContainerSpec: "UPPER/case:latest" is not a valid repository/tag',
    ),
    (
        container(mounts=[{"target": "/a"}, {"target": "/b"}, {"target": "/a"}]),
        INVALID,
        "ContainerSpec: duplicate mount point: /a",
    ),
    (
        container(
            mounts=[{"target": "/{{.Service.Name}}"}, {"target": "/servicename"}],
        ),
        INVALID,
        "ContainerSpec: duplicate mount point: /servicename",
    ),
    *(
        (
            container(healthcheck={field: Duration(nanos=nanos)}),
            INVALID,
            f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms",
        )
        for field, name, nanos in (
            ("interval", "Interval", 999_999),
            ("timeout", "Timeout", 1),
            ("start_period", "StartPeriod", -1),
            ("start_interval", "StartInterval", 10),
        )
    ),
    (
        container(healthcheck={"retries": -1}),
        INVALID,
        "ContainerSpec: Retries in HealthConfig cannot be negative",
    ),
    (
        container(env=["A={{.Foo}}"]),
        INVALID,
        f'expanding env failed: expanding env "A={{{{.Foo}}}}": template: expansion:1:2: {FOO}',
    ),
    (
        container(mounts=[{"source": "{{.Foo}}", "target": "/a"}]),
        INVALID,
        'expanding mounts failed: expanding mount source "{{.Foo}}": template: expansion:1:2: '
        + FOO,
    ),
    (
        container(mounts=[{"target": "a{{.Foo}}"}]),
        INVALID,
        'expanding mounts failed: expanding mount target "a{{.Foo}}": template: expansion:1:3: '
        + FOO,
    ),
    (
        container(mounts=[{"target": "/", "volume_options": {"labels": {"k": "{{.Foo}}"}}}]),
        INVALID,
        "expanding mounts failed: expanding volume labels: expanding map entry "
        f'"k"="{{{{.Foo}}}}": template: expansion:1:2: {FOO}',
    ),
    (
        container(
            mounts=[
                {
                    "target": "/",
                    "volume_options": {"driver_config": {"options": {"k": "{{.Foo}}"}}},
                }
            ]
        ),
        INVALID,
        "expanding mounts failed: expanding volume driver config: expanding map entry "
        f'"k"="{{{{.Foo}}}}": template: expansion:1:2: {FOO}',
    ),
    (
        container(hostname="{{.Foo}}"),
        INVALID,
        f"expanding hostname failed: template: expansion:1:2: {FOO}",
    ),
    (
        container(hostname="{{.Service.Labels.zone}}"),
        INVALID,
        'expanding hostname failed: template: expansion:1:10: executing "expansion" at '
        '<.Service.Labels.zone>: map has no entry for key "zone"',
    ),
    (
        container(hostname="{{foo}}"),
        INVALID,
        'expanding hostname failed: template: expansion:1: function "foo" not defined',
    ),
    (container(secrets=[secret(id="")]), INVALID, "malformed secret reference"),
    (container(secrets=[secret(name="")]), INVALID, "malformed secret reference"),
    (
        container(secrets=[secret()]),
        INVALID,
        "malformed secret reference, no target provided",
    ),
    (
        container(secrets=[secret(file={})]),
        INVALID,
        "malformed file secret reference, invalid target file name provided",
    ),
    (
        container(
            secrets=[secret(name="a", file={"name": "f"}), secret(name="b", file={"name": "f"})]
        ),
        INVALID,
        "secret references 'a' and 'b' have a conflicting target: 'f'",
    ),
    (container(configs=[config(id="")]), INVALID, "malformed config reference"),
    (
        container(configs=[config()]),
        INVALID,
        "malformed config reference, no target provided",
    ),
    (
        container(configs=[config(file={})]),
        INVALID,
        "malformed file config reference, invalid target file name provided",
    ),
    (
        container(
            configs=[config(name="a", file={"name": "f"}), config(name="b", file={"name": "f"})]
        ),
        INVALID,
        "config references 'a' and 'b' have a conflicting target: 'f'",
    ),
    (
        container(
            privileges={"credential_spec": {"config": "c9"}},
            configs=[config(id="c9", file={"name": "f"})],
        ),
        INVALID,
        "CredentialSpec references config 'c9', but that config isn't in config references with "
        "RuntimeTarget",
    ),
    ({"task": {"generic": {"kind": "ab"}}}, INVALID, 'Generic runtime: Invalid name "ab"'),
    (
        {"task": {"generic": {"kind": "Container"}}},
        INVALID,
        'Generic runtime: "Container" is a reserved name',
    ),
    ({"task": {"generic": {"kind": "abc"}}}, INVALID, "Generic runtime is missing payload"),
    (
        {"task": {"generic": {"kind": "abc", "payload": AnyMessage(value=b"x")}}},
        INVALID,
        "Generic runtime is missing payload type",
    ),
    (
        {"task": {"generic": {"kind": "abc", "payload": AnyMessage(type_url="x")}}},
        INVALID,
        "Generic runtime has an empty payload",
    ),
    ({"replicated": {"replicas": MAX}}, INVALID, "Number of replicas must be non-negative"),
    (
        {"replicated_job": {"max_concurrent": MAX}},
        INVALID,
        "Maximum concurrent jobs must not be negative",
    ),
    (
        {"replicated_job": {"total_completions": MAX}},
        INVALID,
        "Total completed jobs must not be negative",
    ),
    ({"global_job": {}, "update": {}}, INVALID, "Jobs may not have an update config"),
    ({"update": {"delay": MINUS}}, INVALID, "TaskSpec: update-delay cannot be negative"),
    ({"update": {"monitor": MINUS}}, INVALID, "TaskSpec: update-monitor cannot be negative"),
    ({"update": {"max_failure_ratio": -0.1}}, INVALID, RATIO_TEXT),
    ({"update": {"max_failure_ratio": 1.1}}, INVALID, RATIO_TEXT),
    (
        ports(a_port(80), a_port(80, target=81)),
        INVALID,
        "EndpointSpec: duplicate published ports provided",
    ),
    (
        ports(a_port(80), a_port(80, host=True)),
        INVALID,
        "EndpointSpec: duplicate published ports provided",
    ),
    (
        ports(a_port(0), dnsrr=True),
        INVALID,
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    (
        {"task": {"container": {"image": IMAGE}, "networks": [{"target": "ingress1"}]}},
        INVALID,
        'Service cannot be explicitly attached to the ingress network "ingress"',
    ),
    (
        container(secrets=[secret(name="a", file={"name": "f"})]),
        INVALID,
        "secret not found: a",
    ),
    (
        container(
            secrets=[secret(name="a", file={"name": "f"}), secret(name="b", file={"name": "g"})]
        ),
        INVALID,
        "secrets not found: a, b",
    ),
    (
        container(configs=[config(name="a", file={"name": "f"})]),
        INVALID,
        "config not found: a",
    ),
]


@pytest.mark.parametrize(("fields", "code", "text"), BAD)
async def test_refused(fields: dict[str, Any], code: str, text: str) -> None:
    room = Room()
    an_ingress(room)
    spec = a_service_spec()
    for name, value in fields.items():
        spec.ClearField(name)
        spec.MergeFrom(api.ServiceSpec(**{name: value}))
    assert await refused(room, spec) == (code, text)


GOOD: list[dict[str, Any]] = [
    {},
    {"annotations": {"name": "a" * 63}},
    {"annotations": {"name": "A_-9"}},
    {"annotations": {"name": "x"}},
    task(resources={"limits": {"nano_cpus": 1_000_000, "memory_bytes": 4 << 20}}),
    task(resources={"reservations": {"generic": [{"named_resource_spec": {"kind": "gpu"}}]}}),
    task(restart={"delay": Duration(), "window": Duration(seconds=5)}),
    task(placement={"constraints": ["node.role == manager", "Engine.labels.x!=a b"]}),
    task(networks=[{"target": "not known yet"}]),
    container(healthcheck={"interval": Duration(nanos=1_000_000), "timeout": Duration()}),
    container(env=["A={{.Service.Name}}-{{.Task.Slot}}", "B", 'C={{join "-" "a" "b"}}']),
    container(hostname="{{.Node.Hostname}}-{{.Node.Platform.OS}}-{{.Task.Name}}"),
    container(hostname='{{index .Service.Labels "zone"}}'),
    container(image="registry.example.com:5000/a/b:1@sha256:" + "0" * 64),
    {"task": {"generic": {"kind": "abc", "payload": AnyMessage(type_url="x", value=b"x")}}},
    {"global": {}},
    {"global_job": {}},
    {"replicated_job": {"max_concurrent": 2, "total_completions": 0}},
    {"global_job": {}, "rollback": {"max_failure_ratio": 5}},
    {"replicated": {"replicas": 0}, "rollback": {"max_failure_ratio": 5}},
    {"update": {"max_failure_ratio": 1, "delay": Duration(), "monitor": Duration(seconds=1)}},
    ports(a_port(80), a_port(443), a_port(0), a_port(0)),
    ports(a_port(80, host=True), dnsrr=True),
]


@pytest.mark.parametrize("fields", GOOD)
async def test_accepted_and_stored_as_given(fields: dict[str, Any]) -> None:
    room = Room()
    an_ingress(room)
    spec = a_service_spec()
    for name, value in fields.items():
        spec.ClearField(name)
        spec.MergeFrom(api.ServiceSpec(**{name: value}))
    service = await create(room, spec)
    stored = room.there(api.Service, service.id)
    assert stored == service and stored.spec == spec and len(service.id) == 25
    assert stored.HasField("spec_version") and stored.spec_version.index == 0
    assert not stored.HasField("update_status") and not stored.HasField("previous_spec")
    job = spec.WhichOneof("mode") in ("replicated_job", "global_job")
    assert stored.HasField("job_status") == job
    if job:
        assert stored.job_status.job_iteration.index == 0
        assert seconds(stored.job_status.last_execution) == pytest.approx(room.clock.now())


async def test_missing_specs_and_modes() -> None:
    room = Room()
    with pytest.raises(SwarmError) as caught:
        await room.control.create_service(api.CreateServiceRequest(), PEER)
    assert told(caught.value) == (INVALID, "invalid argument")
    spec = a_service_spec()
    spec.ClearField("replicated")
    assert await refused(room, spec) == (INVALID, "Unrecognized service mode")


async def test_first_check_wins() -> None:
    """Annotations, task, mode, update, endpoint, networks, ports, ingress, payloads, name."""
    room = Room()
    room.add(api.Service(id="s1", spec=a_service_spec("web", **ports(a_port(80)))))
    spec = a_service_spec("web", **ports(a_port(80)))
    spec.task.container.secrets.add(secret_id="x", secret_name="x").file.name = "f"
    spec.task.container.configs.add(config_id="y", config_name="y").file.name = "f"
    spec.update.max_failure_ratio = 2
    spec.task.container.image = "a:b:c:d"
    spec.annotations.name = "a b"
    expected = [
        (DNS_TEXT, lambda: setattr(spec.annotations, "name", "web")),
        (
            'ContainerSpec: "a:b:c:d" is not a valid repository/tag',
            lambda: setattr(spec.task.container, "image", "a"),
        ),
        (RATIO_TEXT, lambda: spec.ClearField("update")),
        (
            "port '80' is already in use by service 'web' (s1) as an ingress port",
            lambda: setattr(spec.endpoint.ports[0], "published_port", 81),
        ),
        (
            "service needs ingress network, but no ingress network is present",
            lambda: an_ingress(room),
        ),
        ("secret not found: x", lambda: spec.task.container.ClearField("secrets")),
        ("config not found: y", lambda: spec.task.container.ClearField("configs")),
        (
            "name conflicts with an existing object: service web already exists",
            lambda: setattr(spec.annotations, "name", "web2"),
        ),
    ]
    for text, mend in expected:
        assert (await refused(room, spec))[1] == text
        mend()
    await create(room, spec)


async def test_duplicate_names_differ_in_more_than_case() -> None:
    room = Room()
    await create(room, a_service_spec("web"))
    text = "name conflicts with an existing object: service WEB already exists"
    assert await refused(room, a_service_spec("WEB")) == ("ALREADY_EXISTS", text)


async def test_ingress_must_be_there_for_mesh_ports_only() -> None:
    room = Room()
    text = "service needs ingress network, but no ingress network is present"
    for number in (0, 80):
        spec = a_service_spec(**ports(a_port(number)))
        assert await refused(room, spec) == ("FAILED_PRECONDITION", text)
    await create(room, a_service_spec(**ports(a_port(80, host=True))))


PORTS = [
    # wanted host?, taken host?, where the taken one is recorded, answer
    (False, False, "spec", "an ingress port"),
    (True, False, "spec", "an ingress port"),
    (False, True, "spec", "a host-published port"),
    (True, True, "spec", None),
    (False, False, "endpoint", "an ingress port"),
    (False, True, "endpoint", "a host-published port"),
    (True, True, "endpoint", None),
]


@pytest.mark.parametrize(("host", "taken_host", "where", "how"), PORTS)
async def test_published_ports_are_cluster_wide(
    host: bool, taken_host: bool, where: str, how: str | None
) -> None:
    room = Room()
    an_ingress(room)
    taken = a_port(8080, host=taken_host)
    service = api.Service(id="s1", spec=a_service_spec("full"))
    if where == "spec":
        service.spec.endpoint.ports.append(taken)
    else:
        service.endpoint.ports.append(taken)
    room.add(service)
    spec = a_service_spec("new", **ports(a_port(8080, host=host)))
    if how is None:
        await create(room, spec)
        return
    text = f"port '8080' is already in use by service 'full' (s1) as {how}"
    assert await refused(room, spec) == (INVALID, text)
    udp = a_port(8080, host=host)
    udp.protocol = api.PortConfig.Protocol.UDP
    await create(room, a_service_spec("new", **ports(udp)))


async def test_payloads_must_carry_the_name_the_reference_claims() -> None:
    room = Room()
    room.add(api.Secret(id="i", spec=api.SecretSpec(annotations={"name": "real"}, data=b"x")))
    room.add(api.Config(id="i", spec=api.ConfigSpec(annotations={"name": "real"}, data=b"x")))
    spec = a_service_spec()
    reference = spec.task.container.secrets.add(secret_id="i", secret_name="claimed")
    reference.file.name = "f"
    assert await refused(room, spec) == (INVALID, "secret not found: claimed")
    reference.secret_name = "real"
    spec.task.container.configs.add(config_id="i", config_name="claimed").file.name = "f"
    assert await refused(room, spec) == (INVALID, "config not found: claimed")
    spec.task.container.configs[0].config_name = "real"
    await create(room, spec)


async def test_a_runtime_config_serves_as_credential_spec() -> None:
    room = Room()
    room.add(api.Config(id="c9", spec=api.ConfigSpec(annotations={"name": "n"}, data=b"x")))
    spec = a_service_spec()
    spec.task.container.privileges.credential_spec.config = "c9"
    spec.task.container.configs.add(config_id="c9", config_name="n").runtime.SetInParent()
    await create(room, spec)
