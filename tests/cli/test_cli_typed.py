"""Templates over info, version and inspected objects: fields have the types docker gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarmctl.gotext import show_duration
from tests.cli.conftest import Run
from tests.harness.fakedaemon import FakeDaemon

PEER = {"NodeID": "n1", "Addr": "10.0.0.1:2377"}
WORKER = {"NodeID": "n2", "NodeAddr": "10.0.0.2", "LocalNodeState": "active"}
CLUSTER = {
    "ID": "c1",
    "CreatedAt": "2026-11-21T16:36:31.5Z",
    "DefaultAddrPool": None,
    "Spec": {
        "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000},
        "Dispatcher": {"HeartbeatPeriod": 5_000_000_000},
        "Raft": {"ElectionTick": 10},
    },
}
MANAGER = {**WORKER, "RemoteManagers": [PEER], "Nodes": 2, "Managers": 1, "Cluster": CLUSTER}


@pytest.mark.parametrize(
    ("swarm", "form", "out"),
    [
        (WORKER, "{{.Swarm.Nodes}} {{.Swarm.Managers}} {{.Swarm.Cluster}}", "0 0 <nil>"),
        (WORKER, "{{.Swarm.Warnings}}{{.Warnings}} {{len .Swarm.RemoteManagers}}", "[][] 0"),
        (WORKER, "{{if .Swarm.Cluster}}m{{else}}w{{end}}{{json .Swarm.Cluster}}", "wnull"),
        (WORKER, "{{eq .Swarm.Cluster nil}}", "true"),
        (WORKER, "{{.NCPU}} {{.Containers}} {{.ServerVersion}}|{{.Runtimes}}", "2 0 |map[a:1]"),
        (MANAGER, "{{.Swarm.RemoteManagers}}", "[{n1 10.0.0.1:2377}]"),
        (MANAGER, "{{range .Swarm.RemoteManagers}}{{.Addr}}{{end}}", "10.0.0.1:2377"),
        (MANAGER, "{{json .Swarm.RemoteManagers}}", json.dumps([PEER], separators=(",", ":"))),
        (
            MANAGER,
            "{{with .Swarm.Cluster.Spec}}{{.CAConfig.NodeCertExpiry}} "
            "{{.Dispatcher.HeartbeatPeriod}} {{.Raft.HeartbeatTick}}{{end}}",
            "2160h0m0s 5s 0",
        ),
        (MANAGER, "{{json .Swarm.Cluster.Spec.Dispatcher.HeartbeatPeriod}}", "5000000000"),
        (
            MANAGER,
            "{{.Swarm.Cluster.DefaultAddrPool}} {{.Swarm.Cluster.CreatedAt}}",
            "[] 2026-11-21 16:36:31.5 +0000 UTC",
        ),
    ],
)
def test_info_has_every_field(
    run: Run, daemon: FakeDaemon, swarm: dict[str, Any], form: str, out: str
) -> None:
    daemon.on("GET", "/info", {"Swarm": swarm, "NCPU": 2, "Warnings": None, "Runtimes": {"a": 1}})
    ran = run("info", "-f", form)
    assert (ran.out, ran.err, ran.exit) == (f"{out}\n", "", 0)


@pytest.mark.parametrize(
    ("form", "err"),
    [
        ("{{.Nope}}", '1:2: executing "" at <.Nope>: can\'t evaluate field Nope in type '
         "system.dockerInfo"),
        ("{{.Swarm.Nope}}", '1:8: executing "" at <.Swarm.Nope>: can\'t evaluate field Nope in '
         "type swarm.Info"),
        ("{{.Swarm.Cluster.ID}}", '1:8: executing "" at <.Swarm.Cluster.ID>: nil pointer '
         "evaluating *swarm.ClusterInfo.ID"),
    ],
)  # fmt: skip
def test_info_has_no_others(run: Run, daemon: FakeDaemon, form: str, err: str) -> None:
    daemon.on("GET", "/info", {"Swarm": WORKER})
    ran = run("info", "-f", form)
    assert (ran.out, ran.err, ran.exit) == ("\n", f"template: :{err}\n", 1)


VERSION = {
    "ApiVersion": "1.41",
    "MinAPIVersion": "1.24",
    "Components": [
        {"Name": "Engine", "Version": "1", "Details": {"BuildTime": "2026-01-02T03:04:05.0Z"}}
    ],
}


@pytest.mark.parametrize(
    ("form", "out"),
    [
        ("{{.Server.APIVersion}} {{.Server.MinAPIVersion}}", "1.41 1.24"),
        ("{{.Client.APIVersion}}", "1.41"),
        ("{{.Server.Experimental}} {{.Server.Platform.Name}}|{{.Client.GitCommit}}", "false |"),
        ("{{(index .Server.Components 0).Details.BuildTime}}", "Fri Jan  2 03:04:05 2026"),
        ("{{range .Server.Components}}{{.Name}}={{.Version}}{{end}}", "Engine=1"),
    ],
)
def test_version_has_the_names_of_fields(run: Run, daemon: FakeDaemon, form: str, out: str) -> None:
    daemon.on("GET", "/version", VERSION)
    ran = run("version", "-f", form)
    assert (ran.out, ran.err, ran.exit) == (f"{out}\n", "", 0)


def test_version_has_no_others(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/version", VERSION)
    ran = run("version", "-f", "{{.Client.ApiVersion}}")
    text = (
        'template: version:1:9: executing "version" at <.Client.ApiVersion>: '
        "can't evaluate field ApiVersion in type system.clientVersion\n"
    )
    assert (ran.out, ran.err, ran.exit) == ("\n", text, 1)
    ran = run("-H", "unix:///nonexistent", "version", "-f", "{{.Server.Version}}")
    assert (ran.out, ran.exit) == ("\n", 1)
    assert ran.err.startswith("Cannot connect to the daemon")
    assert run("-H", "unix:///nonexistent", "version", "-f", "{{.Server}}").out == "<nil>\n"


def test_a_worker_has_no_manager_status(run: Run, daemon: FakeDaemon) -> None:
    plugins = [{"Type": "Log", "Name": "local"}]
    node = {"ID": "w1", "Description": {"Engine": {"Plugins": plugins}}}
    daemon.on("GET", "/nodes/w1", node)
    assert run("node", "inspect", "-f", "{{.ManagerStatus}}", "w1").out == "<nil>\n"
    shown = run("node", "inspect", "-f", "{{.Description.Engine.Plugins}}", "w1").out
    assert shown == "[{Log local}]\n"
    ran = run("node", "inspect", "-f", "{{.ManagerStatus.Leader}}", "w1")
    text = (
        'template parsing error: template: :1:16: executing "" at <.ManagerStatus.Leader>: '
        "nil pointer evaluating *swarm.ManagerStatus.Leader\n"
    )
    assert (ran.out, ran.err, ran.exit) == ("\n", text, 1)


def test_networks_have_typed_subnets_and_their_json_as_well(run: Run, daemon: FakeDaemon) -> None:
    subnet = {"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1", "AuxiliaryAddresses": {"a": "b"}}
    network = {"Id": "n1", "Name": "net", "IPAM": {"Config": [subnet]}}
    daemon.on("GET", "/networks/net", network)
    for form, out in (
        ("{{.IPAM.Config}}", "[{10.0.0.0/24  10.0.0.1 map[a:b]}]"),
        ("{{range .IPAM.Config}}{{.Subnet}}|{{.IPRange}}{{end}}", "10.0.0.0/24|"),
        ("{{.Id}}", "n1"),
    ):
        assert run("network", "inspect", "-f", form, "net").out == f"{out}\n"


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (20_000_000, "20ms"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (3_661_000_000_001, "1h1m1.000000001s"),
        (-5_000_000_000, "-5s"),
    ],
)
def test_durations_are_written_as_go_writes_them(nanos: int, text: str) -> None:
    assert show_duration(nanos) == text
