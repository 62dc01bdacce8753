"""Every recorded output of swarm, node, network and info commands, byte for byte."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from swarmctl import __version__
from swarmctl.commands import ca, tasks
from tests.cli.conftest import Run, ours, recorded
from tests.harness.fakedaemon import FakeDaemon, Reply, sort_query

OUTPUTS = recorded("cli/outputs.json")
REST = {
    name: case
    for file in ("swarm", "node", "network")
    for name, case in recorded(f"rest/{file}.json").items()
}
SWARM_SECTIONS = recorded("rest/info-swarm-section.json")
NODE_ID = "38rnxpdn7t5jvo8jts0moqqes"
IMAGE = "sha256:4d91494f54a45065b54f266677711c860ba01662e805a100a8355ad08a99faba"


def concerned(name: str) -> bool:
    words = OUTPUTS[name]["args"]
    return words[1] in ("swarm", "node", "network", "info")


def check(run: Run, name: str, stdin: str = "") -> None:
    """The recorded command line gives the recorded result."""
    case = OUTPUTS[name]
    ran = run(*case["args"][1:], stdin=stdin)
    assert ran.out == ours(case["stdout"])
    assert ran.err == ours(case["stderr"])
    assert ran.exit == case["exit"]


# -- cases with recorded exchanges -----------------------------------------------------

REPLAYED = sorted(set(REST) & {name for name in OUTPUTS if concerned(name)})
# Tokens in the replies that a rotation makes between two recorded-once polls.
STDIN = {"unlock-ok": "SWMKEY-1-sKMggZHmrzOZX5IDjpDfFNbl5h53Uk0MTUGXPMvC+ZY\n"}


def script(daemon: FakeDaemon, name: str) -> list[tuple[str, str, Any]]:
    """Load the exchanges; gives the requests that carried a body or changed something."""
    wanted = []
    for exchange in REST[name]["exchanges"]:
        request, response = exchange["request"], exchange["response"]
        if request["path"] == "/_ping":
            continue
        target = request["path"].removeprefix("/v1.41")
        daemon.on(request["method"], target, Reply(response.get("body"), response["status"]))
        if request["method"] != "GET":
            wanted.append((request["method"], sort_query(request["path"]), request.get("body")))
    return wanted


def rotated_token(daemon: FakeDaemon, name: str) -> None:
    """After the rotation /swarm shows the token that was printed."""
    token = re.search(r"SWMTKN-\S+", OUTPUTS[name]["stdout"])
    assert token is not None
    replies = daemon.script["GET", "/swarm"]
    body = dict(replies[0].body)
    body["JoinTokens"] = {**body["JoinTokens"], "Worker": token.group()}
    replies.append(Reply(body))


@pytest.mark.parametrize("name", REPLAYED)
def test_recorded_exchange(run: Run, daemon: FakeDaemon, name: str) -> None:
    wanted = script(daemon, name)
    if name == "join-token-rotate":
        rotated_token(daemon, name)
    check(run, name, STDIN.get(name, ""))
    sent = [(r.method, r.target, r.body) for r in daemon.requests if r.method in ("POST", "DELETE")]
    assert sent == wanted
    recorded_targets = {
        f"{e['request']['method']} {sort_query(e['request']['path'])}"
        for e in REST[name]["exchanges"]
    }
    assert set(daemon.asked()) <= recorded_targets | {"GET /v1.41/networks/net1"}


# -- cases whose replies are made here -------------------------------------------------

HOST: dict[str, Any] = {
    "Containers": 0,
    "ContainersRunning": 0,
    "ContainersPaused": 0,
    "ContainersStopped": 0,
    "Images": 1,
    "ServerVersion": "20.10.24+dfsg1",
    "Driver": "overlay2",
    "DriverStatus": [
        ["Backing Filesystem", "extfs"],
        ["Supports d_type", "true"],
        ["Native Overlay Diff", "true"],
        ["userxattr", "false"],
    ],
    "LoggingDriver": "json-file",
    "CgroupDriver": "cgroupfs",
    "CgroupVersion": "1",
    "Plugins": {
        "Volume": ["local"],
        "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"],
        "Authorization": None,
        "Log": re.split(
            " ",
            "awslogs fluentd gcplogs gelf journald json-file local logentries splunk syslog",
        ),
    },
    "Runtimes": {"runc": {}, "io.containerd.runtime.v1.linux": {}, "io.containerd.runc.v2": {}},
    "DefaultRuntime": "runc",
    "OSType": "linux",
    "InitBinary": "docker-init",
    "ContainerdCommit": {"ID": "1.6.20~ds1-1+deb12u3"},
    "RuncCommit": {"ID": "1.1.5+ds1-1+deb12u1"},
    "InitCommit": {"ID": ""},
    "SecurityOptions": ["name=seccomp,profile=default"],
    "KernelVersion": "6.18.44-fixture",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "Architecture": "x86_64",
    "NCPU": 2,
    "MemTotal": 25276502016,
    "Name": "se1",
    "ID": "NSFI:FYUM:C6VK:REUW:SVKU:Q5GU:W2RV:DR7V:MQFK:IYPS:VMJT:DW3L",
    "DockerRootDir": "/var/lib/docker",
    "Debug": False,
    "ExperimentalBuild": False,
    "RegistryConfig": {
        "InsecureRegistryCIDRs": ["127.0.0.0/8"],
        "IndexConfigs": {"docker.io": {"Name": "docker.io", "Secure": True}},
        "Mirrors": None,
    },
    "LiveRestoreEnabled": False,
}
INFO_CASES = {
    "info-leader": ("single_manager", {}),
    "info-worker": ("worker", {"Name": "se2", "Images": 2}),
    "info-2mgr": ("two_managers", {}),
    "info-inactive": ("inactive", {"Images": 0}),
}


def comparable(text: str) -> str:
    """Runtimes come in any order from the reference; the version is each program's own."""
    text = re.sub(r"(?m)^ Runtimes: (.*)$", lambda m: " ".join(sorted(m[1].split())), text)
    return text.replace(f" Version:    {__version__}\n", " Version:    28.2.2\n")


@pytest.mark.parametrize("name", sorted(INFO_CASES))
def test_info(run: Run, daemon: FakeDaemon, name: str) -> None:
    section, host = INFO_CASES[name]
    swarm = dict(SWARM_SECTIONS[section])
    warnings = swarm.get("Warnings")
    if name == "info-2mgr":
        # The recorded section is from a later moment of the same cluster.
        swarm["Cluster"] = {**swarm["Cluster"], "Spec": spec_of_info("info-2mgr", swarm)}
    daemon.on("GET", "/info", {**HOST, **host, "Swarm": swarm, "Warnings": warnings})
    case = OUTPUTS[name]
    ran = run("info")
    shown = comparable(ran.out)
    expected = comparable(case["stdout"])
    if name == "info-inactive":  # recorded with trailing line breaks reduced to one
        shown = shown.rstrip("\n") + "\n"
    assert (shown, ran.err, ran.exit) == (expected, case["stderr"], case["exit"])


def spec_of_info(name: str, swarm: dict[str, Any]) -> dict[str, Any]:
    text = OUTPUTS[name]["stdout"]

    def number(label: str) -> int:
        found = re.search(rf"{label}: (\d+)", text)
        assert found is not None
        return int(found[1])

    spec: dict[str, Any] = {**swarm["Cluster"]["Spec"]}
    limit = number("Task History Retention Limit")
    spec["Orchestration"] = {"TaskHistoryRetentionLimit": limit}
    spec["Raft"] = {
        **spec["Raft"],
        "SnapshotInterval": number("Snapshot Interval"),
        "KeepOldSnapshots": number("Number of Old Snapshots to Retain"),
    }
    spec["Dispatcher"] = {"HeartbeatPeriod": number("Heartbeat Period") * 10**9}
    spec["CAConfig"] = {**spec["CAConfig"], "ForceRotate": number("Force Rotate")}
    return spec


def test_join_token_quiet(run: Run, daemon: FakeDaemon) -> None:
    token = OUTPUTS["join-token-q"]["stdout"].strip()
    daemon.on("GET", "/swarm", {"JoinTokens": {"Worker": token, "Manager": "other"}})
    check(run, "join-token-q")
    assert daemon.asked() == ["GET /v1.41/swarm"]


def test_join_token_rotate_quiet(run: Run, daemon: FakeDaemon) -> None:
    token = OUTPUTS["join-token-rotate-q"]["stdout"].strip()
    before = {"Version": {"Index": 12}, "Spec": {"Name": "default"}}
    daemon.on("GET", "/swarm", before, {"JoinTokens": {"Worker": "other", "Manager": token}})
    daemon.on("POST", "/swarm/update", Reply(None))
    check(run, "join-token-rotate-q")
    assert daemon.asked("POST") == [
        "POST /v1.41/swarm/update?rotateManagerToken=true&rotateManagerUnlockKey=false"
        "&rotateWorkerToken=false&version=12"
    ]


def test_update_without_flags_is_help(run: Run, daemon: FakeDaemon) -> None:
    check(run, "swarm-update-noflags")
    assert not daemon.requests


def locked_swarm(locked: bool) -> dict[str, Any]:
    return {
        "Version": {"Index": 5},
        "Spec": {"EncryptionConfig": {"AutoLockManagers": locked}},
        "TLSInfo": {"TrustRoot": "root"},
    }


def test_update_autolock_off(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/swarm", locked_swarm(True)).on("POST", "/swarm/update", Reply(None))
    check(run, "swarm-update-autolock-off")
    assert daemon.bodies() == [locked_swarm(False)["Spec"] | {"CAConfig": {}}]


@pytest.mark.parametrize("name", ["unlock-key-q", "unlock-key-rotate-q"])
def test_unlock_key_quiet(run: Run, daemon: FakeDaemon, name: str) -> None:
    key = OUTPUTS[name]["stdout"].strip()
    daemon.on("GET", "/swarm", locked_swarm(True)).on("POST", "/swarm/update", Reply(None))
    daemon.on("GET", "/swarm/unlockkey", {"UnlockKey": key})
    check(run, name)


def test_ca(run: Run, daemon: FakeDaemon) -> None:
    root = OUTPUTS["swarm-ca"]["stdout"]
    daemon.on("GET", "/swarm", {"TLSInfo": {"TrustRoot": root}})
    check(run, "swarm-ca")


def test_ca_rotate_quiet_waits_and_says_nothing(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ca, "POLL_SECONDS", 0)
    swarm = {"Version": {"Index": 5}, "Spec": {"CAConfig": {"ForceRotate": 1}}}
    old, new = {"TLSInfo": {"TrustRoot": "old"}}, {"TLSInfo": {"TrustRoot": "new"}}
    daemon.on("GET", "/swarm", swarm, {**old, "RootRotationInProgress": True}, new)
    daemon.on("POST", "/swarm/update", Reply(None))
    daemon.on("GET", "/nodes", [{"Description": old}], [{"Description": new}])
    check(run, "swarm-ca-rotate-q")
    assert daemon.bodies() == [{"CAConfig": {"ForceRotate": 2}}]
    assert daemon.asked().count("GET /v1.41/nodes") == 2


def test_node_ls_of_two_managers(run: Run, daemon: FakeDaemon) -> None:
    def node(id: str, hostname: str, availability: str, **manager: Any) -> dict[str, Any]:
        return {
            "ID": id,
            "Spec": {"Availability": availability},
            "Status": {"State": "ready"},
            "Description": {"Hostname": hostname, "Engine": {"EngineVersion": "20.10.24+dfsg1"}},
            "ManagerStatus": manager,
        }

    nodes = [
        node("patq0564de1mdd4uzni1u4454", "se2", "drain", Reachability="reachable"),
        node(NODE_ID, "se1", "active", Leader=True, Reachability="reachable"),
    ]
    daemon.on("GET", "/nodes", nodes).on("GET", "/info", {"Swarm": {"NodeID": NODE_ID}})
    check(run, "node-ls-2mgr")


@pytest.mark.parametrize(
    ("name", "role"), [("node-demote-again", "worker"), ("node-promote-again", "manager")]
)
def test_roles_that_are_there_already(run: Run, daemon: FakeDaemon, name: str, role: str) -> None:
    node = {"ID": "patq0564de1mdd4uzni1u4454", "Spec": {"Role": role}}
    daemon.on("GET", "/nodes/se2", node)
    check(run, name)
    assert not daemon.asked("POST")


def test_node_inspect_pretty(run: Run, daemon: FakeDaemon) -> None:
    """The recorded node with the plugin list it had before it was shortened."""
    text = OUTPUTS["node-inspect-pretty"]["stdout"]
    node = REST["node-inspect"]["exchanges"][1]["response"]["body"]
    node["Description"]["Engine"]["Plugins"] = [
        {"Type": kind, "Name": name}
        for kind in ("Log", "Network", "Volume")
        for name in re.findall(rf"(?m)^ {kind}:\t\t(.*)$", text)[0].split(", ")
    ]
    daemon.on("GET", "/nodes/se2", node)
    check(run, "node-inspect-pretty")


NOW = 1_795_278_000.0
STATES = {"less than a second": 0.4}


def task_of(line: str, number: int) -> dict[str, Any]:
    """A task that must be shown as `line` of the recorded table."""
    columns = re.split(r" {2,}", line.strip())
    id, name, image = columns[0], columns[1].removeprefix(r"\_ "), columns[2]
    state, _, age = columns[5].removesuffix(" ago").partition(" ")
    seconds = STATES.get(age) or int(age.split()[0]) + 0.5
    stamp = datetime.fromtimestamp(NOW - seconds, UTC).isoformat().replace("+00:00", "Z")
    error = columns[6].strip('"') if len(columns) > 6 else ""
    service, _, slot = name.rpartition(".")
    return {
        "ID": id + "0123456789abc",
        "CreatedAt": f"2026-11-21T16:{59 - number:02}:00Z",
        "ServiceID": f"id-of-{service}",
        "Slot": int(slot) if slot.isdigit() else 0,
        "NodeID": NODE_ID_PS,
        "Spec": {"ContainerSpec": {"Image": image}},
        "DesiredState": columns[4].lower(),
        "Status": {
            "State": state.lower(),
            "Timestamp": stamp,
            "Err": error.replace("…", "iled to create shim: and so on"),
            "PortStatus": {},
        },
    }


NODE_ID_PS = "t1zxx4rp5525d0wia90z51dbs"


def test_node_ps(run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "wall_seconds", lambda: NOW)
    rows = OUTPUTS["node-ps"]["stdout"].splitlines()[1:]
    listed = [task_of(line, number) for number, line in enumerate(rows)]
    daemon.on("GET", "/info", {"Swarm": {"NodeID": NODE_ID_PS}})
    node = {"ID": NODE_ID_PS, "Spec": {}, "Description": {"Hostname": "se1"}}
    daemon.on("GET", f"/nodes/{NODE_ID_PS}", node)
    daemon.on("GET", "/tasks", list(reversed(listed)))
    for service in {task["ServiceID"] for task in listed}:
        spec = {"Spec": {"Name": service.removeprefix("id-of-")}}
        daemon.on("GET", f"/services/{service}", spec)
    check(run, "node-ps")
    assert f'GET /v1.41/tasks?filters={{"node":{{"{NODE_ID_PS}":true}}}}' in daemon.asked()


def test_network_ls(run: Run, daemon: FakeDaemon) -> None:
    networks = []
    for line in OUTPUTS["network-ls"]["stdout"].splitlines()[1:]:
        id, name, *rest = line.split()
        driver, scope = rest if len(rest) == 2 else ("", *rest)
        entry = {"Id": id + "0" * 20, "Name": name, "Driver": driver, "Scope": scope}
        networks.insert(0, entry)
    daemon.on("GET", "/networks", networks)
    check(run, "network-ls")


COVERED = {
    *REPLAYED,
    *INFO_CASES,
    "join-token-q",
    "join-token-rotate-q",
    "swarm-update-noflags",
    "swarm-update-autolock-off",
    "unlock-key-q",
    "unlock-key-rotate-q",
    "swarm-ca",
    "swarm-ca-rotate-q",
    "node-ls-2mgr",
    "node-demote-again",
    "node-promote-again",
    "node-inspect-pretty",
    "node-ps",
    "network-ls",
}
# The token printed is of the same reply as join-token-worker's.
SAME_AS = {"join-token-manager": "join-token-worker"}


@pytest.mark.parametrize("name", sorted(SAME_AS))
def test_recorded_output_over_another_recorded_exchange(
    run: Run, daemon: FakeDaemon, name: str
) -> None:
    script(daemon, SAME_AS[name])
    check(run, name)


def test_nothing_recorded_is_left_out() -> None:
    assert {name for name in OUTPUTS if concerned(name)} == COVERED | set(SAME_AS)
