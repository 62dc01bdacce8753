"""Converters against recordings of a stock engine: objects built by hand, JSON key by key."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from swarmd import api
from swarmd.faces.engineapi.convert.cidr import parse_cidr
from swarmd.faces.engineapi.convert.cluster import (
    cluster_json,
    cluster_spec,
    empty_cluster_json,
    merge_forced,
    merge_spec,
    swarm_json,
)
from swarmd.faces.engineapi.convert.common import duration, nanoseconds, quoted, time_text
from swarmd.faces.engineapi.convert.events import events_json
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.issuer import issuer
from swarmd.faces.engineapi.convert.network import network_json, network_spec
from swarmd.faces.engineapi.convert.node import node_json, node_spec
from swarmd.faces.engineapi.errors import Refusal
from tests.wire.rest_kit import recorded

V41 = (1, 41)


def bodies(path: str, method: str = "GET") -> list[Any]:
    """All distinct 200 bodies recorded for paths that match the pattern."""
    out = []
    for name in ("swarm", "node", "service", "stack", "network"):
        for case in recorded(f"rest/{name}.json").values():
            for exchange in case["exchanges"]:
                request, response = exchange["request"], exchange["response"]
                if request["method"] != method or response["status"] != 200:
                    continue
                if re.fullmatch(path, request["path"]) and response.get("body") not in out:
                    out.append(response["body"])
    return out


def stamp(text: str) -> Timestamp:
    """RFC 3339 with nanoseconds as a Timestamp."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return Timestamp(seconds=seconds, nanos=int((fraction + "000000000")[:9]))


def with_meta(obj: Any, body: Any) -> Any:
    """Fill id and meta from JSON."""
    obj.id = body["ID"]
    obj.meta.version.index = body["Version"].get("Index", 0)
    obj.meta.created_at.CopyFrom(stamp(body["CreatedAt"]))
    obj.meta.updated_at.CopyFrom(stamp(body["UpdatedAt"]))
    return obj


def node_of(body: Any) -> api.Node:
    """The stored node that a recorded body shows."""
    node: api.Node = with_meta(api.Node(), body)
    node.spec.annotations.labels.update(body["Spec"]["Labels"])
    node.spec.desired_role = api.NodeRole.Value(body["Spec"]["Role"].upper())
    node.spec.availability = api.NodeSpec.Availability.Value(body["Spec"]["Availability"].upper())
    description = body["Description"]
    node.description.hostname = description["Hostname"]
    node.description.platform.architecture = description["Platform"]["Architecture"]
    node.description.platform.os = description["Platform"]["OS"]
    node.description.resources.nano_cpus = description["Resources"]["NanoCPUs"]
    node.description.resources.memory_bytes = description["Resources"]["MemoryBytes"]
    node.description.engine.engine_version = description["Engine"]["EngineVersion"]
    node.description.engine.labels.update(description["Engine"].get("Labels", {}))
    for plugin in description["Engine"]["Plugins"]:
        node.description.engine.plugins.add(type=plugin["Type"], name=plugin["Name"])
    tls = description["TLSInfo"]
    node.description.tls_info.trust_root = tls["TrustRoot"].encode()
    node.description.tls_info.cert_issuer_subject = base64.b64decode(tls["CertIssuerSubject"])
    key = base64.b64decode(tls["CertIssuerPublicKey"])
    node.description.tls_info.cert_issuer_public_key = key
    node.status.state = api.NodeStatus.State.Value(body["Status"]["State"].upper())
    node.status.message = body["Status"].get("Message", "")
    node.status.addr = body["Status"].get("Addr", "")
    if "ManagerStatus" in body:
        status = body["ManagerStatus"]
        node.manager_status.leader = status.get("Leader", False)
        word = status["Reachability"].upper()
        node.manager_status.reachability = api.RaftMemberStatus.Reachability.Value(word)
        node.manager_status.addr = status["Addr"]
    return node


def cluster_of(body: Any) -> api.Cluster:
    """The stored cluster that a recorded body shows."""
    cluster: api.Cluster = with_meta(api.Cluster(), body)
    spec = body["Spec"]
    cluster.spec.annotations.name = spec["Name"]
    cluster.spec.annotations.labels.update(spec["Labels"])
    limit = spec["Orchestration"]["TaskHistoryRetentionLimit"]
    cluster.spec.orchestration.task_history_retention_limit = limit
    raft = spec["Raft"]
    cluster.spec.raft.snapshot_interval = raft["SnapshotInterval"]
    cluster.spec.raft.keep_old_snapshots = raft["KeepOldSnapshots"]
    cluster.spec.raft.log_entries_for_slow_followers = raft["LogEntriesForSlowFollowers"]
    cluster.spec.raft.election_tick = raft["ElectionTick"]
    cluster.spec.raft.heartbeat_tick = raft["HeartbeatTick"]
    period = duration(spec["Dispatcher"]["HeartbeatPeriod"])
    cluster.spec.dispatcher.heartbeat_period.CopyFrom(period)
    ca = spec["CAConfig"]
    cluster.spec.ca_config.node_cert_expiry.CopyFrom(duration(ca["NodeCertExpiry"]))
    cluster.spec.ca_config.force_rotate = ca.get("ForceRotate", 0)
    lock = spec["EncryptionConfig"]["AutoLockManagers"]
    cluster.spec.encryption_config.auto_lock_managers = lock
    cluster.root_ca.ca_cert = body["TLSInfo"]["TrustRoot"].encode()
    cluster.defaultAddressPool.extend(body["DefaultAddrPool"] or [])
    cluster.subnetSize = body["SubnetSize"]
    cluster.VXLANUDPPort = body["DataPathPort"]
    tokens = body.get("JoinTokens", {})
    cluster.root_ca.join_tokens.worker = tokens.get("Worker", "")
    cluster.root_ca.join_tokens.manager = tokens.get("Manager", "")
    return cluster


def test_recorded_nodes_are_rendered_key_by_key() -> None:
    single = bodies(r"/v1\.41/nodes/[^/?]+")
    listed = [node for found in bodies(r"/v1\.41/nodes") for node in found]
    assert len(single) > 5 and len(listed) > 3
    for body in single + listed:
        rendered = node_json(node_of(body))
        assert rendered == body
        assert list(rendered) == list(body)


@pytest.mark.parametrize(
    ("said", "force_rotate", "locked"),
    [
        ({}, 3, True),
        (
            {"CAConfig": {"ForceRotate": 0}, "EncryptionConfig": {"AutoLockManagers": False}},
            3,
            True,
        ),
        ({"CAConfig": {"ForceRotate": 4}}, 4, True),
    ],
)
def test_silence_changes_neither_root_nor_lock_of_a_cluster_that_goes_on(
    said: Any, force_rotate: int, locked: bool
) -> None:
    base = api.ClusterSpec()
    base.ca_config.force_rotate = 3
    base.encryption_config.auto_lock_managers = True
    spec = merge_forced(Fields(said, "Spec"), base)
    assert spec.ca_config.force_rotate == force_rotate
    assert spec.encryption_config.auto_lock_managers is locked
    asked = Fields({"EncryptionConfig": {"AutoLockManagers": True}}, "Spec")
    assert merge_forced(asked, api.ClusterSpec()).encryption_config.auto_lock_managers is True


def test_recorded_swarms_are_rendered_key_by_key() -> None:
    recordings = [body for body in bodies(r"/v1\.41/swarm") if not body["RootRotationInProgress"]]
    assert len(recordings) > 5
    for body in recordings:
        rendered = swarm_json(cluster_of(body))
        assert rendered == body
        assert list(rendered) == list(body)
        assert list(rendered["Spec"]) == list(body["Spec"])


def test_during_a_root_rotation_the_issuer_is_the_new_root() -> None:
    before, after = [b for b in bodies(r"/v1\.41/swarm") if not b["RootRotationInProgress"]][:2]
    other = next(
        body
        for body in bodies(r"/v1\.41/swarm")
        if body["TLSInfo"]["TrustRoot"] != before["TLSInfo"]["TrustRoot"]
    )
    cluster = cluster_of(before)
    cluster.root_ca.root_rotation.ca_cert = other["TLSInfo"]["TrustRoot"].encode()
    rendered = swarm_json(cluster)
    assert rendered["RootRotationInProgress"] is True
    assert rendered["TLSInfo"]["TrustRoot"] == before["TLSInfo"]["TrustRoot"]
    assert rendered["TLSInfo"]["CertIssuerPublicKey"] == other["TLSInfo"]["CertIssuerPublicKey"]
    assert after is not None


def test_info_cluster_has_no_tokens_and_zero_values_when_unreadable() -> None:
    sections = recorded("rest/info-swarm-section.json")
    for case in ("single_manager", "two_managers"):
        body = sections[case]["Cluster"]
        assert cluster_json(cluster_of(body)) == body
    assert empty_cluster_json() == sections["quorum_lost"]["Cluster"]


def test_signing_material_is_never_shown() -> None:
    cluster = api.Cluster()
    cluster.spec.ca_config.signing_ca_cert = b"cert"
    cluster.spec.ca_config.signing_ca_key = b"sekrit"
    cluster.root_ca.ca_key = b"sekrit"
    ca = cluster.spec.ca_config.external_cas.add(url="https://ca", ca_cert=b"PEM")
    ca.options["a"] = "b"
    shown = swarm_json(cluster)
    assert "sekrit" not in str(shown) and "SigningCACert" not in str(shown)
    assert shown["Spec"]["CAConfig"]["ExternalCAs"] == [
        {"Protocol": "cfssl", "URL": "https://ca", "Options": {"a": "b"}, "CACert": "PEM"}
    ]


def network_of(body: Any) -> api.Network:
    """The stored network that a recorded body shows."""
    network = api.Network(id=body["Id"])
    network.meta.created_at.CopyFrom(stamp(body["Created"]))
    network.spec.annotations.name = body["Name"]
    network.spec.annotations.labels.update(body["Labels"] or {})
    network.spec.attachable = body["Attachable"]
    network.driver_state.name = body["Driver"]
    network.driver_state.options.update(body["Options"])
    network.ipam.driver.name = body["IPAM"]["Driver"]
    for config in body["IPAM"]["Config"]:
        network.ipam.configs.add(subnet=config["Subnet"], gateway=config["Gateway"])
    return network


def test_recorded_networks_are_rendered_key_by_key() -> None:
    listed = [network for found in bodies(r"/v1\.41/networks\?.*") for network in found]
    for body in [recorded("rest/network-overlay.json")["net1"], *listed]:
        rendered = network_json(network_of(body), V41)
        assert rendered == body
        assert list(rendered) == list(body)


def test_network_members_follow_the_api_version() -> None:
    network = api.Network(id="n")
    old, middle, new = (network_json(network, (1, minor)) for minor in (41, 48, 52))
    assert "EnableIPv4" not in old and old["Containers"] is None
    assert middle["EnableIPv4"] is True and middle["Containers"] is None
    assert new["Containers"] == {}
    assert "Containers" not in network_json(network, (1, 52), listed=True)
    # Not allocated: the driver is empty and so is the IPAM.
    assert old["Driver"] == "" and old["Options"] is None and old["Labels"] is None
    assert old["IPAM"] == {"Driver": "", "Options": None, "Config": None}


def test_network_create_becomes_a_spec() -> None:
    create = recorded("rest/network.json")["network-create"]["exchanges"][1]["request"]["body"]
    spec = network_spec(Fields(create, "NetworkCreateRequest"))
    expected = api.NetworkSpec(attachable=True)
    expected.annotations.name = "net1"
    expected.annotations.labels["l"] = "1"
    expected.driver_config.name = "overlay"
    expected.ipam.driver.name = "default"
    expected.ipam.configs.add(subnet="10.50.0.0/24", gateway="10.50.0.1")
    assert spec == expected
    no_ipam = network_spec(Fields({"Name": "x", "Driver": "overlay", "IPAM": None}, "N"))
    assert not no_ipam.HasField("ipam")


def test_node_update_becomes_a_spec_without_membership() -> None:
    body = {"Labels": {"x": "", "zone": "b"}, "Role": "manager", "Availability": "drain"}
    spec = node_spec(Fields(body, "NodeSpec"))
    assert spec.desired_role == api.NodeRole.MANAGER
    assert spec.availability == api.NodeSpec.Availability.DRAIN
    assert dict(spec.annotations.labels) == {"x": "", "zone": "b"}
    assert spec.membership == api.NodeSpec.Membership.PENDING


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Role": "foo", "Availability": "active"}, 'invalid Role: "foo"'),
        ({"Role": "manager", "Availability": "foo"}, 'invalid Availability: "foo"'),
        ({"Availability": "active"}, 'invalid Role: ""'),
        ({"Role": "worker"}, 'invalid Availability: ""'),
        (
            {"Role": 3},
            "json: cannot unmarshal number into Go struct field NodeSpec.Role of type string",
        ),
        (
            {"Labels": ["a"], "Role": "worker", "Availability": "active"},
            "json: cannot unmarshal array into Go struct field NodeSpec.Labels of type "
            "map[string]string",
        ),
    ],
)
def test_bad_node_specs_are_refused(body: Any, message: str) -> None:
    with pytest.raises(Refusal) as caught:
        node_spec(Fields(body, "NodeSpec"))
    assert (caught.value.status, caught.value.message) == (400, message)


def test_generic_resources_and_unknown_numbers_survive() -> None:
    node = api.Node()
    named = node.description.resources.generic.add().named_resource_spec
    named.kind, named.value = "GPU", "UUID1"
    node.description.resources.generic.add().discrete_resource_spec.kind = "SSD"
    info = node.description.csi_info.add(plugin_name="p", max_volumes_per_node=3)
    info.accessible_topology.segments["z"] = "1"
    shown = node_json(node)["Description"]
    assert shown["Resources"]["GenericResources"] == [
        {"NamedResourceSpec": {"Kind": "GPU", "Value": "UUID1"}},
        {"DiscreteResourceSpec": {"Kind": "SSD"}},
    ]
    assert shown["CSIInfo"] == [
        {
            "PluginName": "p",
            "MaxVolumesPerNode": 3,
            "AccessibleTopology": {"Segments": {"z": "1"}},
        }
    ]


def test_init_merges_and_update_replaces() -> None:
    base = api.ClusterSpec()
    base.annotations.name = "default"
    base.orchestration.task_history_retention_limit = 5
    base.raft.snapshot_interval = 10000
    base.raft.election_tick = 10
    base.dispatcher.heartbeat_period.seconds = 5
    base.encryption_config.auto_lock_managers = True
    base.ca_config.force_rotate = 4
    init = recorded("rest/swarm.json")["swarm-init-autolock"]["exchanges"][1]["request"]["body"]
    merged = merge_spec(Fields(init["Spec"], "Spec"), base)
    assert merged.orchestration.task_history_retention_limit == 3
    assert merged.raft.keep_old_snapshots == 2
    assert merged.raft.snapshot_interval == 10000 and merged.raft.election_tick == 10
    assert merged.ca_config.node_cert_expiry.seconds == 86400
    assert merged.ca_config.force_rotate == 0
    untouched = merge_spec(Fields({}, "Spec"), base)
    assert untouched.orchestration.task_history_retention_limit == 5
    assert untouched.encryption_config.auto_lock_managers is False
    zero = cluster_spec(Fields({}, "Spec"))
    assert zero.orchestration.task_history_retention_limit == 0
    assert zero.raft.election_tick == 0
    assert not zero.dispatcher.HasField("heartbeat_period")
    assert base.orchestration.task_history_retention_limit == 5


def test_sending_a_read_spec_back_changes_nothing() -> None:
    for body in bodies(r"/v1\.41/swarm"):
        spec = cluster_spec(Fields(body["Spec"], "Spec"))
        expected = cluster_of({**body, "RootRotationInProgress": False}).spec
        assert spec == expected


def test_external_cas_are_read_and_unknown_protocols_refused() -> None:
    body = {"CAConfig": {"ExternalCAs": [{"Protocol": "CFSSL", "URL": "u", "CACert": "c"}]}}
    (ca,) = cluster_spec(Fields(body, "Spec")).ca_config.external_cas
    assert (ca.url, ca.ca_cert) == ("u", b"c")
    body["CAConfig"]["ExternalCAs"][0]["Protocol"] = "acme"
    with pytest.raises(Refusal, match='invalid protocol: "acme"'):
        cluster_spec(Fields(body, "Spec"))


def changes(before: Any, after: Any, action: int = 2) -> Iterator[Any]:
    """The events of one watch message about one object."""
    kind = type(after).__name__.lower()
    message = api.WatchMessage()
    event = message.events.add(action=action)
    getattr(event.object, kind).CopyFrom(after)
    if before is not None:
        getattr(event.old_object, kind).CopyFrom(before)
    return events_json(message, 1795278460.5)


def test_recorded_service_events_are_made_from_changes() -> None:
    old, new = api.Service(id="3hapwc89ooxaa85kfcu1exuv8"), api.Service()
    old.spec.annotations.name = "min"
    old.spec.task.container.image = "bb:1"
    old.spec.replicated.replicas = 1
    new.CopyFrom(old)
    new.spec.replicated.replicas = 2
    image = "sha256:4d91494f54a45065b54f266677711c860ba01662e805a100a8355ad08a99faba"
    new.spec.task.container.image = image
    new.meta.updated_at.CopyFrom(Timestamp(seconds=1795278386, nanos=85438649))
    (event,) = changes(old, new)
    expected = recorded("rest/events-swarm-scope.json")
    assert event == expected[0]
    assert list(event) == list(expected[0])
    updating = api.Service()
    updating.CopyFrom(new)
    updating.update_status.state = api.UpdateStatus.UpdateState.UPDATING
    updating.meta.updated_at.nanos = 91923247
    (event,) = changes(new, updating)
    assert event == expected[1]
    done = api.Service()
    done.CopyFrom(updating)
    done.update_status.state = api.UpdateStatus.UpdateState.ROLLBACK_COMPLETED
    (event,) = changes(updating, done)
    assert event["Actor"]["Attributes"] == {
        "name": "min",
        "updatestate.new": "rollback_completed",
        "updatestate.old": "updating",
    }


def test_node_events_name_the_host_and_tell_every_change() -> None:
    old, new = api.Node(id="n"), api.Node(id="n")
    for node in (old, new):
        node.description.hostname = "se2"
        node.manager_status.leader = node is new
    old.manager_status.reachability = api.RaftMemberStatus.Reachability.UNREACHABLE
    new.manager_status.reachability = api.RaftMemberStatus.Reachability.REACHABLE
    new.spec.availability = api.NodeSpec.Availability.DRAIN
    new.role = api.NodeRole.MANAGER
    new.status.state = api.NodeStatus.State.READY
    (event,) = changes(old, new)
    assert event["Actor"]["Attributes"] == {
        "availability.new": "drain",
        "availability.old": "active",
        "leader.new": "true",
        "leader.old": "false",
        "name": "se2",
        "reachability.new": "reachable",
        "reachability.old": "unreachable",
        "role.new": "manager",
        "role.old": "worker",
        "state.new": "ready",
        "state.old": "unknown",
    }
    (plain,) = changes(new, new)
    assert plain["Actor"]["Attributes"] == {"name": "se2"}
    new.spec.annotations.name = "given"
    (created,) = changes(None, new, 1)
    assert created["Actor"]["Attributes"] == {"name": "given"}


def test_removals_carry_the_present_time_and_tasks_make_no_events() -> None:
    network = api.Network(id="x")
    network.spec.annotations.name = "stk_default"
    (event,) = changes(None, network, 4)
    assert (event["Action"], event["time"], event["timeNano"]) == (
        "remove",
        1795278460,
        1795278460500000000,
    )
    assert list(changes(None, api.Task(id="t"))) == []
    assert list(changes(None, api.Cluster(id="c"))) == []
    assert list(changes(None, network, 0)) == []


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00Z"),
        (1795278386, 85438649, "2026-11-21T16:26:26.085438649Z"),
        (1795278386, 500_000_000, "2026-11-21T16:26:26.5Z"),
        (-62135596800, 0, "0001-01-01T00:00:00Z"),
        (1 << 60, 0, "0001-01-01T00:00:00Z"),
    ],
)
def test_times_have_their_trailing_zeros_cut(seconds: int, nanos: int, text: str) -> None:
    assert time_text(Timestamp(seconds=seconds, nanos=nanos)) == text


@given(st.integers(-(1 << 62), 1 << 62))
def test_durations_round_trip(nanos: int) -> None:
    value = duration(nanos)
    assert nanoseconds(value) == nanos
    assert value.seconds * value.nanos >= 0


@given(st.binary(max_size=400))
def test_the_issuer_walk_survives_anything(junk: bytes) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(junk)
    assert issuer(pem + b"\n-----END CERTIFICATE-----\n") is None or len(junk) > 10
    assert issuer(junk) is None or b"BEGIN" in junk


def test_json_members_are_found_as_go_finds_them() -> None:
    fields = Fields({"availability": "drain", "Role": None, "n": 3.5, "Big": 1 << 70}, "T")
    assert fields.text("Availability") == "drain"
    assert fields.text("Role") == ""
    assert Fields({"A": "x", "a": "y"}, "T").text("a") == "y"
    for read in (lambda: fields.number("n"), lambda: fields.number("Big")):
        with pytest.raises(Refusal, match="cannot unmarshal number"):
            read()
    with pytest.raises(Refusal, match="cannot unmarshal array into Go value of type T"):
        Fields([], "T")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("10.0.0.0/8", True),
        ("10.1.2.3/24", True),
        ("fd00::/64", True),
        ("foo", False),
        ("10.0.0.0", False),
        ("10.0.0.0/255.0.0.0", False),
        ("10.0.0.0/33", False),
        ("10.0.0.0/+8", False),
        ("010.0.0.0/8", False),
        ("", False),
    ],
)
def test_cidrs_are_read_strictly(text: str, good: bool) -> None:
    assert (parse_cidr(text) is not None) is good


def test_quoting() -> None:
    assert quoted('a"b\\c\n') == '"a\\"b\\\\c\\n"'
