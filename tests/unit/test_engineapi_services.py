"""Services, tasks, secrets, configs and logs: recorded shapes and what requests become."""

from __future__ import annotations

import copy
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd import api
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.secret import (
    config_json,
    config_spec,
    read_base64,
    secret_json,
    secret_spec,
)
from swarmd.faces.engineapi.convert.service import (
    mode_word,
    service_json,
    service_spec,
    short_float,
    spec_json,
)
from swarmd.faces.engineapi.convert.task import task_json, task_spec
from swarmd.faces.engineapi.errors import Refusal
from swarmd.faces.engineapi.routes.logs import log_line
from tests.unit.test_engineapi_convert import bodies, stamp, with_meta
from tests.wire.rest_kit import FIXTURES, recorded

NEW, V41 = (1, 56), (1, 41)


def spec_of(body: Any, version: tuple[int, int] = V41) -> api.ServiceSpec:
    """What a JSON spec becomes."""
    return service_spec(Fields(body, "ServiceSpec"), version, "spare")


def recorded_services() -> list[Any]:
    """Every service body recorded, listed or single, with the one member of newer engines."""
    single = bodies(r"/v1\.41/services/[^/]+")
    services = single + [item for found in bodies(r"/v1\.41/services\?.*") for item in found]
    for service in services:
        for spec in filter(None, (service["Spec"], service.get("PreviousSpec"))):
            container = spec["TaskTemplate"]["ContainerSpec"]
            if "Privileges" in container:
                # Shown since API 1.44, to all clients.
                container["Privileges"]["NoNewPrivileges"] = False
    return services


def test_recorded_service_specs_survive_both_ways() -> None:
    found = recorded_services()
    assert len(found) > 10
    for service in found:
        for body in filter(None, (service["Spec"], service.get("PreviousSpec"))):
            # Stock 20.10 shows networks of old clients beside the template; none was recorded.
            assert "Networks" not in body
            shown = spec_json(spec_of(body))
            assert shown == body
            assert list(shown) == list(body)
            assert list(shown["TaskTemplate"]) == list(body["TaskTemplate"])
            container = "ContainerSpec"
            assert list(shown["TaskTemplate"][container]) == list(body["TaskTemplate"][container])


def test_recorded_services_are_rendered_key_by_key() -> None:
    for body in recorded_services():
        service: api.Service = with_meta(api.Service(), body)
        service.spec.CopyFrom(spec_of(body["Spec"]))
        if "PreviousSpec" in body:
            service.previous_spec.CopyFrom(spec_of(body["PreviousSpec"]))
        endpoint = body["Endpoint"]
        if endpoint["Spec"]:
            asked = spec_of({**body["Spec"], "EndpointSpec": endpoint["Spec"]})
            service.endpoint.spec.CopyFrom(asked.endpoint)
        given_ports = {"Mode": "vip", "Ports": endpoint.get("Ports", [])}
        ports = spec_of({**body["Spec"], "EndpointSpec": given_ports})
        service.endpoint.ports.extend(ports.endpoint.ports)
        for address in endpoint.get("VirtualIPs", []):
            service.endpoint.virtual_ips.add(
                network_id=address["NetworkID"], addr=address.get("Addr", "")
            )
        if "UpdateStatus" in body:
            status = body["UpdateStatus"]
            word = status["State"].upper()
            service.update_status.state = api.UpdateStatus.UpdateState.Value(word)
            service.update_status.message = status["Message"]
            for name, field in (("StartedAt", "started_at"), ("CompletedAt", "completed_at")):
                if name in status:
                    getattr(service.update_status, field).CopyFrom(stamp(status[name]))
        if "JobStatus" in body:
            index = body["JobStatus"]["JobIteration"].get("Index", 0)
            service.job_status.job_iteration.index = index
            last = stamp(body["JobStatus"]["LastExecution"])
            service.job_status.last_execution.CopyFrom(last)
        expected = {key: value for key, value in body.items() if key != "ServiceStatus"}
        shown = service_json(service)
        assert shown == expected
        assert list(shown) == list(expected)


def attachment_of(body: Any) -> api.NetworkAttachment:
    """A task's place in a network."""
    shown = body["Network"]
    network: api.Network = with_meta(api.Network(), shown)
    spec = shown["Spec"]
    network.spec.annotations.name = spec["Name"]
    network.spec.annotations.labels.update(spec["Labels"])
    network.spec.driver_config.SetInParent()
    network.spec.driver_config.name = spec["DriverConfiguration"].get("Name", "")
    network.spec.attachable = spec.get("Attachable", False)
    network.spec.ingress = spec.get("Ingress", False)
    for target, source in (
        (network.spec.ipam, spec["IPAMOptions"]),
        (network.ipam, shown["IPAMOptions"]),
    ):
        target.driver.name = source["Driver"].get("Name", "")
        for config in source.get("Configs", []):
            target.configs.add(subnet=config["Subnet"], gateway=config["Gateway"])
    network.driver_state.name = shown["DriverState"]["Name"]
    network.driver_state.options.update(shown["DriverState"]["Options"])
    return api.NetworkAttachment(network=network, addresses=body["Addresses"])


def test_recorded_tasks_are_rendered_key_by_key() -> None:
    found = [task for tasks in bodies(r"/v1\.41/tasks\?.*") for task in tasks]
    found += recorded("rest/task-with-networks.json")
    assert len(found) > 3
    for body in found:
        task: api.Task = with_meta(api.Task(), body)
        task.spec.CopyFrom(task_spec(Fields(body["Spec"], "TaskSpec")))
        task.service_id, task.slot = body["ServiceID"], body.get("Slot", 0)
        task.node_id = body.get("NodeID", "")
        status = body["Status"]
        task.status.timestamp.CopyFrom(stamp(status["Timestamp"]))
        task.status.state = api.TaskState.Value(status["State"].upper())
        task.status.message = status.get("Message", "")
        task.status.err = status.get("Err", "")
        if "ContainerStatus" in status:
            container = status["ContainerStatus"]
            task.status.container.container_id = container["ContainerID"]
            task.status.container.pid = container["PID"]
            task.status.container.exit_code = container["ExitCode"]
        for port in status["PortStatus"].get("Ports", []):
            task.status.port_status.ports.add(
                target_port=port["TargetPort"],
                published_port=port["PublishedPort"],
                publish_mode=api.PortConfig.PublishMode.Value(port["PublishMode"].upper()),
            )
        task.desired_state = api.TaskState.Value(body["DesiredState"].upper())
        if "JobIteration" in body:
            task.job_iteration.index = body["JobIteration"].get("Index", 0)
        for attached in body.get("NetworksAttachments", []):
            task.networks.append(attachment_of(attached))
        shown = task_json(task, V41)
        assert shown == body
        assert list(shown) == list(body)
    assert task_json(api.Task(), (1, 42))["Volumes"] is None


def create(name: str = "service-create-full") -> Any:
    """A recorded create request."""
    exchanges = recorded("rest/service.json")[name]["exchanges"]
    return next(
        copy.deepcopy(item["request"]["body"])
        for item in exchanges
        if item["request"]["path"].endswith("/services/create")
    )


def test_defaults_of_a_request() -> None:
    spec = spec_of({"TaskTemplate": {"ContainerSpec": {"Image": "bb:1"}}})
    assert spec.annotations.name == "spare"
    assert spec.replicated.replicas == 1 and mode_word(spec) == "replicated"
    assert not spec.HasField("endpoint") and not spec.HasField("update")
    zero = spec_of({**create("service-create-min"), "Mode": {"Replicated": {"Replicas": 0}}})
    assert spec_json(zero)["Mode"] == {"Replicated": {"Replicas": 0}}
    job = spec_of({**create("service-create-min"), "Mode": {"ReplicatedJob": {}}})
    assert (job.replicated_job.max_concurrent, job.replicated_job.total_completions) == (1, 1)
    job = spec_of({**create("service-create-min"), "Mode": {"ReplicatedJob": {"MaxConcurrent": 4}}})
    assert job.replicated_job.total_completions == 4 and mode_word(job) == "replicated-job"


def test_old_clients_cannot_mean_newer_members() -> None:
    body = create()
    container = body["TaskTemplate"]["ContainerSpec"]
    container["OomScoreAdj"] = 5
    container["Privileges"] = {
        "Seccomp": {"Mode": "unconfined"},
        "NoNewPrivileges": True,
        "SELinuxContext": {"Disable": True, "User": "u"},
        "CredentialSpec": {"Config": "c"},
    }
    container["Healthcheck"]["StartInterval"] = 7
    container["Mounts"][1]["TmpfsOptions"]["Options"] = [["noexec"], ["uid", "1"]]
    body["TaskTemplate"]["Resources"] |= {"SwapBytes": 1, "MemorySwappiness": 2}
    new = spec_of(body, NEW)
    shown = spec_json(new)["TaskTemplate"]
    assert shown["ContainerSpec"]["Privileges"] == {
        "CredentialSpec": {"Config": "c", "File": "", "Registry": ""},
        "SELinuxContext": {"Disable": True, "User": "u", "Role": "", "Type": "", "Level": ""},
        "Seccomp": {"Mode": "unconfined"},
        "NoNewPrivileges": True,
    }
    assert shown["ContainerSpec"]["Mounts"][1]["TmpfsOptions"]["Options"] == [
        ["noexec"],
        ["uid", "1"],
    ]
    assert shown["Resources"]["SwapBytes"] == 1
    # (first version that keeps it, where it is)
    kept: list[tuple[tuple[int, int], Any]] = [
        ((1, 52), lambda s: s.task.resources.HasField("swap_bytes")),
        ((1, 46), lambda s: s.task.container.oom_score_adj == 5),
        ((1, 46), lambda s: "noexec" in s.task.container.mounts[1].tmpfs_options.options),
        ((1, 44), lambda s: s.task.container.privileges.HasField("seccomp")),
        ((1, 44), lambda s: s.task.container.healthcheck.HasField("start_interval")),
        ((1, 41), lambda s: len(s.task.container.ulimits) == 1),
        ((1, 41), lambda s: s.task.container.pidsLimit == 100),
        ((1, 40), lambda s: len(s.task.container.sysctls) == 1),
        ((1, 40), lambda s: s.task.placement.max_replicas == 5),
        ((1, 40), lambda s: bool(s.task.container.privileges.credential_spec.config)),
    ]
    for (major, minor), has in kept:
        assert has(spec_of(body, (major, minor)))
        assert not has(spec_of(body, (major, minor - 1)))
    bare = spec_of({"TaskTemplate": {"ContainerSpec": {}}}, (1, 24))
    assert not bare.task.container.HasField("privileges")
    assert not bare.task.HasField("placement") and not bare.task.HasField("resources")


def test_jobs_and_networks_of_very_old_clients() -> None:
    job = {**create("service-create-min"), "Mode": {"GlobalJob": {}}}
    assert spec_of(job, (1, 40)).replicated.replicas == 1
    assert mode_word(spec_of(job)) == "global-job"
    old = {**create("service-create-min"), "Networks": [{"Target": "n", "Aliases": ["a"]}]}
    assert [item.target for item in spec_of(old, (1, 43)).task.networks] == ["n"]
    assert not spec_of(old, (1, 44)).task.networks
    stored = spec_of(create("service-create-min"))
    stored.networks.add(target="x")
    assert spec_json(stored)["TaskTemplate"]["Networks"] == [{"Target": "x"}]


@pytest.mark.parametrize(
    ("path", "value", "status", "message"),
    [
        ("TaskTemplate.ContainerSpec", None, 400, "mismatched Runtime and *Spec fields"),
        ("TaskTemplate.Runtime", "attachment", 400, "unsupported runtime"),
        ("Mode.Global", {}, 400, "must specify only one service mode"),
        ("EndpointSpec.Mode", "foo", 400, 'invalid resolution mode: "foo"'),
        ("UpdateConfig.FailureAction", "foo", 400, "unrecognized update failure action foo"),
        ("RollbackConfig.Order", "foo", 400, "unrecognized update order foo"),
        (
            "TaskTemplate.RestartPolicy.Condition",
            "foo",
            400,
            'invalid RestartCondition: "foo"',
        ),
        (
            "TaskTemplate.ContainerSpec.Mounts",
            [{"Type": "x"}],
            400,
            'invalid MountType: "x"',
        ),
        (
            "TaskTemplate.ContainerSpec.Mounts",
            [{"BindOptions": {"Propagation": "x"}}],
            400,
            'invalid MountPropagation: "x"',
        ),
        (
            "TaskTemplate.ContainerSpec.Configs",
            [{}],
            400,
            "invalid Config: either File or Runtime should be set",
        ),
        (
            "TaskTemplate.ContainerSpec.Configs",
            [{"File": {}, "Runtime": {}}],
            400,
            "invalid Config: cannot specify both File and Runtime",
        ),
        (
            "TaskTemplate.ContainerSpec.Privileges",
            {"CredentialSpec": {}},
            400,
            'invalid CredentialSpec: must either provide "file", "registry", or "config" for '
            "credential spec",
        ),
        (
            "TaskTemplate.ContainerSpec.Privileges",
            {"CredentialSpec": {"File": "a", "Registry": "b"}},
            400,
            'invalid CredentialSpec: cannot specify both "file" and "registry" credential specs',
        ),
        (
            "TaskTemplate.ContainerSpec.Privileges",
            {"CredentialSpec": {"Config": "c", "File": "a", "Registry": "b"}},
            400,
            'invalid CredentialSpec: cannot specify both "config", "file", and "registry" '
            "credential specs",
        ),
        (
            "TaskTemplate.Resources",
            {"SwapBytes": 5},
            400,
            "memory swap provided, but no memory-limit was set",
        ),
    ],
)
def test_bad_service_specs(path: str, value: Any, status: int, message: str) -> None:
    body = create()
    *parents, last = path.split(".")
    at = body
    for name in parents:
        at = at[name]
    at[last] = value
    with pytest.raises(Refusal) as caught:
        spec_of(body, NEW)
    assert (caught.value.status, caught.value.message) == (status, message)


def test_plugins_need_an_experimental_engine() -> None:
    with pytest.raises(Refusal) as caught:
        spec_of({"TaskTemplate": {"Runtime": "plugin", "PluginSpec": {"name": "x"}}})
    text = 'runtime type "plugin" only supported in experimental'
    assert (caught.value.status, caught.value.message) == (500, text)


def test_mounts_survive_both_ways() -> None:
    mounts = [
        {
            "Type": "bind",
            "Source": "/a",
            "Target": "/b",
            "BindOptions": {"Propagation": "rslave", "NonRecursive": True},
        },
        {
            "Type": "volume",
            "Target": "/v",
            "VolumeOptions": {
                "NoCopy": True,
                "Labels": {"a": "b"},
                "Subpath": "s",
                "DriverConfig": {"Name": "d", "Options": {"o": "1"}},
            },
        },
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 5, "Mode": 511}},
        {"Type": "cluster", "Source": "c", "Target": "/c", "ReadOnly": True},
    ]
    body = {"TaskTemplate": {"ContainerSpec": {"Mounts": mounts}}}
    shown = spec_json(spec_of(body, NEW))["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert shown == mounts


def test_recorded_secrets_and_configs() -> None:
    cases = recorded("rest/secret-config.json")
    listed = cases["secret-ls"]["exchanges"][-1]["response"]["body"]
    for body in listed:
        secret: api.Secret = with_meta(api.Secret(), body)
        secret.spec.CopyFrom(secret_spec(Fields(body["Spec"], "SecretSpec")))
        assert secret_json(secret) == body
    body = cases["config-inspect"]["exchanges"][-1]["response"]["body"]
    config: api.Config = with_meta(api.Config(), body)
    config.spec.CopyFrom(config_spec(Fields(body["Spec"], "ConfigSpec")))
    assert config.spec.data == b"conf\n"
    assert config_json(config) == body
    driven = {"Name": "x", "Labels": {}, "Driver": {"Name": "vault", "Options": {"a": "b"}}}
    spec = secret_spec(Fields(driven, "SecretSpec"))
    assert secret_json(api.Secret(spec=spec))["Spec"] == driven


@pytest.mark.parametrize(
    ("text", "place"), [("!", 0), ("AAA!", 3), ("AAAAA", 4), ("AA=", 2), ("AAAA=", 4)]
)
def test_bad_base64_is_refused_at_its_place(text: str, place: int) -> None:
    with pytest.raises(Refusal) as caught:
        read_base64(text)
    assert caught.value.message == f"illegal base64 data at input byte {place}"


@given(st.floats(width=32, min_value=0, max_value=1))
def test_ratios_are_printed_as_short_as_go_prints_them(ratio: float) -> None:
    shown = short_float(ratio)
    assert struct.pack("f", shown) == struct.pack("f", ratio)
    assert len(json.dumps(shown)) <= len(json.dumps(ratio))


def test_log_lines_match_the_recording() -> None:
    data = (FIXTURES / "rest/service-logs-multiplexed.bin").read_bytes()
    at = 0
    while at < len(data):
        stream, length = struct.unpack_from(">BxxxI", data, at)
        line = data[at + 8 : at + 8 + length]
        at += 8 + length
        stamped, details, text = line.decode().split(" ", 2)
        pairs = dict(pair.split("=") for pair in details.split(","))
        message = api.LogMessage(stream=stream, data=text.encode())
        message.timestamp.CopyFrom(stamp(stamped))
        message.context.node_id = pairs["com.docker.swarm.node.id"]
        message.context.service_id = pairs["com.docker.swarm.service.id"]
        message.context.task_id = pairs["com.docker.swarm.task.id"]
        # What a container claims about its place does not count.
        message.attrs.add(key="com.docker.swarm.node.id", value="forged")
        assert log_line(message, details=True, timestamps=True) == line
        assert log_line(message, details=False, timestamps=False) == text.encode()
    assert at == len(data)


def test_log_details_are_escaped_and_sorted() -> None:
    message = api.LogMessage(data=b"x\n")
    message.attrs.add(key="a b", value="c,d")
    line = log_line(message, details=True, timestamps=False).decode()
    assert line.startswith("a+b=c%2Cd,com.docker.swarm.node.id=,")
