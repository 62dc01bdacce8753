"""What the recordings do not show: other flags, bodies, several objects, progress, events."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from swarmctl.commands import ca, events
from swarmctl.connect import DEFAULT_API_VERSION
from tests.cli.conftest import Run, recorded
from tests.harness.fakedaemon import FakeDaemon, Reply

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def swarm(**config: Any) -> dict[str, Any]:
    return {
        "Version": {"Index": 5},
        "Spec": {
            "Name": "default",
            "Raft": {"SnapshotInterval": 1},
            "CAConfig": config,
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "TLSInfo": {"TrustRoot": "the root\n"},
    }


def sent(daemon: FakeDaemon) -> Any:
    return daemon.bodies()[-1]


def test_init_sends_what_was_asked(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.on("POST", "/swarm/init", "n1").on("GET", "/swarm", swarm())
    daemon.on("GET", "/nodes/n1", {"ID": "n1"})
    cert = tmp_path / "ca.pem"
    cert.write_text(PEM)
    ran = run(
        *("init", "--listen-addr", "eth1:99", "--data-path-addr", "eth2", "--autolock=false"),
        *("--snapshot-interval", "7", "--dispatcher-heartbeat", "2s", "--availability", "PAUSE"),
        *("--default-addr-pool", "10.1.2.3/16,fd00::/8", "--default-addr-pool", "10.9.0.0/24"),
        *("--external-ca", f"protocol=CFSSL,url=https://ca,cacert={cert},profile=x"),
    )
    assert ran.exit == 0
    body = sent(daemon)
    assert (body["ListenAddr"], body["DataPathAddr"]) == ("eth1:99", "eth2")
    assert body["Availability"] == "pause" and body["AutoLockManagers"] is False
    assert body["DefaultAddrPool"] == ["10.1.0.0/16", "fd00::/8", "10.9.0.0/24"]
    assert body["Spec"]["Raft"] == {"ElectionTick": 0, "HeartbeatTick": 0, "SnapshotInterval": 7}
    assert body["Spec"]["Dispatcher"] == {"HeartbeatPeriod": 2 * 10**9}
    external = {"Protocol": "cfssl", "URL": "https://ca", "Options": {"profile": "x"}}
    assert body["Spec"]["CAConfig"] == {"ExternalCAs": [{**external, "CACert": PEM}]}


def test_no_join_command_where_there_is_no_manager_address(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("POST", "/swarm/init", "n1").on("GET", "/swarm", swarm())
    daemon.on("GET", "/nodes/n1", {"ID": "n1"})
    assert run("swarm", "init").out == (
        "Swarm initialized: current node (n1) is now a manager.\n\n"
        "To add a manager to this swarm, run 'swarmctl join-token manager' and follow the "
        "instructions.\n"
    )


@pytest.mark.parametrize("command", [["init"], ["join", "x"]])
def test_bad_availability(run: Run, daemon: FakeDaemon, command: list[str]) -> None:
    ran = run(*command, "--availability", "foo")
    text = 'invalid availability "foo", only active, pause and drain are supported\n'
    assert (ran.err, ran.exit) == (text, 1)
    assert not daemon.requests


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("url=https://x", "the external-ca option needs a protocol= parameter"),
        ("protocol=cfssl", "the external-ca option needs a url= parameter"),
        ("protocol=x,url=y", "unrecognized external CA protocol x"),
        ("x", "invalid field 'x' must be a key=value pair"),
        (
            "protocol=cfssl,url=x,cacert=/nonexistent",
            "unable to read CA cert for external CA: open /nonexistent: no such file or directory",
        ),
    ],
)
def test_bad_external_cas(run: Run, spec: str, text: str) -> None:
    ran = run("update", "--external-ca", spec)
    assert ran.exit == 125
    line = f'invalid argument "{spec}" for "--external-ca" flag: {text}'
    assert ran.err.splitlines()[0] == line


def test_update_gives_external_cas_the_present_root(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/swarm", swarm(NodeCertExpiry=1)).on("POST", "/swarm/update", Reply(None))
    run("update", "--external-ca", "protocol=cfssl,url=https://ca", "--cert-expiry", "2h")
    config = sent(daemon)["CAConfig"]
    assert config["NodeCertExpiry"] == 7200 * 10**9
    external = {"Protocol": "cfssl", "URL": "https://ca", "CACert": "the root\n"}
    assert config["ExternalCAs"] == [external]
    assert sent(daemon)["Raft"] == {"SnapshotInterval": 1}


# -- ca --------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["ca-cert", "ca-key", "cert-expiry", "external-ca"])
def test_ca_flags_need_rotate(run: Run, daemon: FakeDaemon, tmp_path: Path, flag: str) -> None:
    daemon.on("GET", "/swarm", swarm())
    file = tmp_path / "x.pem"
    file.write_text(PEM)
    value = {"cert-expiry": "2h", "external-ca": "protocol=cfssl,url=x"}.get(flag, str(file))
    ran = run("ca", f"--{flag}", value)
    text = f"`--{flag}` flag requires the `--rotate` flag to update the CA\n"
    assert (ran.err, ran.exit) == (text, 1)


def test_ca_rotate_wants_certificate_and_signer_together(
    run: Run, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.on("GET", "/swarm", swarm())
    file = tmp_path / "x.pem"
    file.write_text(PEM)
    assert run("ca", "--rotate", "--external-ca", "protocol=cfssl,url=x").err == (
        "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's "
        "cert - to add an external CA with the current root CA certificate, use the `update` "
        "command instead\n"
    )
    assert run("ca", "--rotate", "--ca-cert", str(file)).err == (
        "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided "
        "as well\n"
    )
    assert daemon.asked("POST") == []


def test_ca_rotate_to_given_certificate_and_key(
    run: Run, daemon: FakeDaemon, tmp_path: Path
) -> None:
    present = swarm(ForceRotate=4, SigningCACert="stale", NodeCertExpiry=9)
    daemon.on("GET", "/swarm", present).on("POST", "/swarm/update", Reply(None))
    file = tmp_path / "x.pem"
    file.write_text(PEM)
    ran = run("ca", "--rotate", "-d", "--ca-cert", str(file), "--ca-key", str(file))
    assert (ran.out, ran.err, ran.exit) == ("", "", 0)
    assert sent(daemon)["CAConfig"] == {
        "ForceRotate": 4,
        "NodeCertExpiry": 9,
        "SigningCACert": PEM,
        "SigningCAKey": PEM,
    }


def test_ca_key_file_must_be_pem(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.pem"
    file.write_text("hello")
    first = run("ca", "--rotate", "--ca-key", str(file)).err.splitlines()[0]
    text = "file contents must be in PEM format"
    assert first == f'invalid argument "{file}" for "--ca-key" flag: {text}'


def test_no_root_to_show(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/swarm", {"TLSInfo": {}})
    ran = run("ca")
    assert (ran.err, ran.exit) == ("No CA information available\n", 1)


def test_rotation_progress_away_from_a_terminal(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ca, "POLL_SECONDS", 0)
    old, new = {"TLSInfo": {"TrustRoot": "old"}}, {"TLSInfo": {"TrustRoot": "new\n"}}
    daemon.on("GET", "/swarm", swarm(), {**old, "RootRotationInProgress": True}, new)
    daemon.on("POST", "/swarm/update", Reply(None))
    daemon.on("GET", "/nodes", [{"Description": old}], [{"Description": new}])
    ran = run("ca", "--rotate")
    sha = {
        "old": "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4",
        "new": "7aa7a5359173d05b63cfd682e3c38487f3cb4f7f1d60659fe59fab1505977d4c",
    }
    assert ran.out == (
        "desired root digest: \n  rotated TLS certificates: \n  rotated CA certificates:  \n"
        f"desired root digest: sha256:{sha['old']}\ndesired root digest: sha256:{sha['new']}\n"
        "new\n"
    )


class Terminal(io.StringIO):
    """Somebody's screen."""

    def isatty(self) -> bool:
        return True


def test_rotation_progress_on_a_terminal() -> None:
    screen = Terminal()
    progress = ca.Progress(screen, columns=120)
    progress.line("one", "a")
    progress.line("two", "", 1, 2)
    progress.line("one", "b")
    box = "[" + "=" * 25 + ">" + " " * 25 + "] 1/2 nodes"
    up, down = "\x1b[{}A\x1b[2K\r", "\r\x1b[{}B"
    assert screen.getvalue() == (
        "\n"
        + up.format(1)
        + "one: a "
        + down.format(1)
        + "\n"
        + up.format(1)
        + f"two:  {box}"
        + down.format(1)
        + up.format(2)
        + "one: b "
        + down.format(2)
    )
    narrow = ca.Progress(Terminal(), columns=80)
    assert narrow._bar(3, 4) == "3/4 nodes" and narrow._bar(5, 4) == "5 nodes"


def test_a_watcher_may_go_away(run: Run, daemon: FakeDaemon, monkeypatch: Any) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ca.time, "sleep", interrupt)
    daemon.on("GET", "/swarm", swarm(), {"RootRotationInProgress": True})
    daemon.on("POST", "/swarm/update", Reply(None)).on("GET", "/nodes", [{"Description": {}}])
    ran = run("ca", "--rotate")
    assert ran.exit == 0
    assert ran.out.endswith(
        "Operation continuing in background.\nUse `swarmctl ca` to check progress.\n"
    )


# -- nodes -----------------------------------------------------------------------------


def test_labels_are_added_and_removed(run: Run, daemon: FakeDaemon) -> None:
    node = {"ID": "n1", "Version": {"Index": 3}, "Spec": {"Labels": {"old": "1"}, "Role": "worker"}}
    daemon.on("GET", "/nodes/w", node).on("POST", "/nodes/n1/update", Reply(None))
    ran = run("node", "update", "--label-add", "b=2", "--label-add", "a", "--label-rm", "old", "w")
    assert (ran.out, ran.exit) == ("w\n", 0)
    assert sent(daemon) == {"Labels": {"a": "", "b": "2"}, "Role": "worker"}
    ran = run("node", "update", "--label-rm", "none", "w")
    assert (ran.err, ran.exit) == ("key none doesn't exist in node's labels\n", 1)


def test_several_nodes_are_removed_and_all_troubles_named(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("DELETE", "/nodes/a", Reply(None)).on("DELETE", "/nodes/c", Reply(None))
    daemon.on("DELETE", "/nodes/b", Reply.error(404, "node b not found"))
    ran = run("node", "rm", "-f", "a", "b", "c", "b")
    line = "Error response from daemon: node b not found\n"
    assert (ran.out, ran.err, ran.exit) == ("a\nc\n", line * 2, 1)
    assert daemon.asked()[0] == "DELETE /v1.41/nodes/a?force=1"


def test_an_empty_reference_asks_for_nothing(run: Run, daemon: FakeDaemon) -> None:
    ran = run("node", "rm", " ")
    assert (ran.err, ran.exit) == ("invalid node name or ID: value is empty\n", 1)
    assert not daemon.requests


def test_references_are_escaped(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/nodes/a%20b%3Fc", {"ID": "x"})
    assert run("node", "inspect", "-f", "{{.ID}}", "a b?c").out == "x\n"


def test_self_outside_a_swarm_says_so(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/info", {"Swarm": {"NodeID": ""}})
    daemon.on("GET", "/nodes", Reply.error(503, "This node is not a swarm manager."))
    ran = run("node", "inspect", "self")
    assert ran.err == "Error response from daemon: This node is not a swarm manager.\n"


TASK: dict[str, Any] = {
    "ID": "taskid0123456789",
    "CreatedAt": "2026-01-01T00:00:00Z",
    "ServiceID": "svc",
    "Slot": 2,
    "NodeID": "n1",
    "Spec": {"ContainerSpec": {"Image": "docker.io/library/redis:7@sha256:" + "0" * 64}},
    "DesiredState": "running",
    "Status": {
        "State": "running",
        "Timestamp": "2026-01-01T00:00:00Z",
        "PortStatus": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]},
    },
}


def test_ps_names_and_options(run: Run, daemon: FakeDaemon) -> None:
    node = {"ID": "n1", "Spec": {}, "Description": {"Hostname": "h"}}
    daemon.on("GET", "/nodes/h", node).on("GET", "/nodes/n1", node).on("GET", "/tasks", [TASK])
    daemon.on("GET", "/services/svc", Reply.error(404, "gone"))
    form = "{{.ID}} {{.Name}} {{.Image}} {{.Node}} {{.Ports}}"
    ran = run("node", "ps", "--format", form, "h", "-f", "desired-state=running")
    assert ran.out == "taskid012345 svc.2 redis:7 h *:8080->80/tcp\n"
    filters = '{"desired-state":{"running":true},"node":{"n1":true}}'
    assert f"GET /v1.41/tasks?filters={filters}" in daemon.asked()
    ran = run("node", "ps", "--format", form, "--no-resolve", "--no-trunc", "h")
    image = TASK["Spec"]["ContainerSpec"]["Image"]
    assert ran.out == f"taskid0123456789 svc.2 {image} n1 *:8080->80/tcp\n"
    assert run("node", "ps", "-q", "h").out == "taskid012345\n"


def test_ps_shows_what_it_could_get(run: Run, daemon: FakeDaemon) -> None:
    node = {"ID": "n1", "Spec": {}, "Description": {"Hostname": "h"}}
    daemon.on("GET", "/nodes/h", node).on("GET", "/tasks", [TASK])
    daemon.on("GET", "/nodes/no", Reply.error(404, "node no not found"))
    ran = run("node", "ps", "-q", "no", "h")
    assert ran.out == "taskid012345\n" and ran.exit == 1
    assert ran.err == "Error response from daemon: node no not found\n"
    assert run("node", "ps", "no").out == ""


# -- networks --------------------------------------------------------------------------


def test_network_create_with_everything(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("POST", "/networks/create", Reply({"Id": "net"}, 201))
    ran = run(
        *("network", "create", "-d", "overlay", "--ipv6", "--internal", "-o", "encrypted="),
        *("--subnet", "10.1.0.0/16", "--subnet", "fd00::/64", "--ip-range", "10.1.2.0/24"),
        *("--gateway", "10.1.0.1", "--gateway", "fd00::1", "--aux-address", "a=10.1.0.9"),
        *("--ipam-opt", "x=y", "--label", "l", "--config-from", "c", "--scope", "swarm", "n"),
    )
    assert (ran.out, ran.exit) == ("net\n", 0)
    assert sent(daemon) == {
        "Driver": "overlay",
        "Scope": "swarm",
        "IPAM": {
            "Driver": "default",
            "Options": {"x": "y"},
            "Config": [
                {
                    "Subnet": "10.1.0.0/16",
                    "IPRange": "10.1.2.0/24",
                    "Gateway": "10.1.0.1",
                    "AuxiliaryAddresses": {"a": "10.1.0.9"},
                },
                {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
            ],
        },
        "Internal": True,
        "Attachable": False,
        "Ingress": False,
        "ConfigOnly": False,
        "ConfigFrom": {"Network": "c"},
        "Options": {"encrypted": ""},
        "Labels": {"l": ""},
        "Name": "n",
        "EnableIPv6": True,
        "CheckDuplicate": True,
    }


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--gateway", "1.1.1.1"], "every ip-range or gateway must have a corresponding subnet"),
        (
            ["--subnet", "10.0.0.0/8", "--subnet", "10.1.0.0/16"],
            "multiple overlapping subnet configuration is not supported",
        ),
        (
            ["--subnet", "10.0.0.0/8", "--ip-range", "11.0.0.0/16"],
            "no matching subnet for range 11.0.0.0/16",
        ),
        (["--subnet", "10.0.0.0/8", "--ip-range", "x"], "invalid CIDR address: x"),
        (
            [
                *("--subnet", "10.0.0.0/8", "--subnet", "11.0.0.0/8"),
                *("--gateway", "10.0.0.1", "--gateway", "10.0.0.2"),
            ],
            "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet "
            "(10.0.0.0/8)",
        ),
        (
            ["--subnet", "10.0.0.0/8", "--aux-address", "a=11.0.0.1"],
            "no matching subnet for aux-address 11.0.0.1",
        ),
        (["--subnet", "x", "--gateway", "1.1.1.1"], "invalid subnet: invalid CIDR address: x"),
    ],
)
def test_addresses_that_do_not_fit(
    run: Run, daemon: FakeDaemon, words: list[str], text: str
) -> None:
    ran = run("network", "create", *words, "n")
    assert (ran.err, ran.exit) == (text + "\n", 1)
    assert not daemon.requests


def test_network_rm(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/networks/a", {"Ingress": False}).on("DELETE", "/networks/a", Reply(None))
    daemon.on("DELETE", "/networks/b", Reply.error(404, "network b not found"))
    ran = run("network", "rm", "a", "b")
    assert (ran.out, ran.exit) == ("a\n", 1)
    assert ran.err == "Error response from daemon: network b not found\nexit status 1\n"
    ran = run("network", "rm", "-f", "b", "a")
    assert (ran.out, ran.err, ran.exit) == ("a\n", "", 0)


@pytest.mark.parametrize(
    ("answer", "removed"), [("y\n", True), ("Y\n", True), ("n\n", False), ("", False)]
)
def test_ingress_goes_only_after_a_yes(
    run: Run, daemon: FakeDaemon, answer: str, removed: bool
) -> None:
    daemon.on("GET", "/networks/i", {"Ingress": True}).on("DELETE", "/networks/i", Reply(None))
    ran = run("network", "rm", "i", stdin=answer)
    assert "Are you sure you want to continue? [y/N] " in ran.out
    assert bool(daemon.asked("DELETE")) is removed
    assert ran.out.endswith("i\n") is removed and ran.exit == 0


# -- info, version, events -------------------------------------------------------------


def test_info_templates(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/info", {"Swarm": {"NodeID": "n1", "LocalNodeState": "active"}, "NCPU": 2})
    assert run("info", "-f", "{{.Swarm.LocalNodeState}} {{.NCPU}}").out == "active 2\n"
    shown = json.loads(run("info", "--format", "json").out)
    assert shown["Swarm"]["NodeID"] == "n1" and shown["ClientInfo"]["Context"] == "default"
    ran = run("info", "-f", "{{.X")
    assert (ran.err, ran.exit) == ("template parsing error: template: :1: unclosed action\n", 64)


def test_info_template_without_a_daemon(run: Run) -> None:
    ran = run("-H", "unix:///nonexistent", "info", "-f", "{{.Swarm.LocalNodeState}}|")
    assert (ran.out, ran.exit) == ("|\n", 1)
    assert ran.err.startswith("Cannot connect to the daemon at unix:///nonexistent.")


def test_info_of_a_daemon_in_trouble(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/info", Reply.error(500, "broken"))
    ran = run("info")
    assert ran.out.endswith("\nServer:\n") and ran.exit == 1
    assert ran.err == "ERROR: Error response from daemon: broken\nerrors pretty printing info\n"


@pytest.mark.parametrize("state", ["locked", "join_pending", "quorum_lost"])
def test_info_of_other_states(run: Run, daemon: FakeDaemon, state: str) -> None:
    section = recorded("rest/info-swarm-section.json")[state]
    daemon.on("GET", "/info", {"Swarm": section})
    block = run("info").out.partition(" Swarm: ")[2].partition("\n CPUs")[0].splitlines()
    if state == "locked":
        assert block == ["locked"]
    else:
        assert block[0] in ("pending", "active")
        assert block[1].startswith("  NodeID: ")
        assert any(line.startswith("  Node Address: ") for line in block)
        assert not any("ClusterID" in line for line in block)
    assert any("Error:" in line for line in block) is (state == "quorum_lost")


SERVER = {
    "Platform": {"Name": "Engine - x"},
    "Version": "28.2.2",
    "ApiVersion": "1.50",
    "MinAPIVersion": "1.24",
    "GitCommit": "abc",
    "GoVersion": "go1.24",
    "Os": "linux",
    "Arch": "amd64",
    "BuildTime": "2026-01-02T03:04:05.000000000+00:00",
    "Components": [{"Name": "runc", "Version": "1.1", "Details": {"GitCommit": "", "A": "b"}}],
}


def test_version(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/version", SERVER)
    out = run("version").out
    assert out.startswith(
        "Client:\n Version:           0.1.0\n API version:       1.41 (downgraded from 1.50)\n"
    )
    assert out.endswith(
        "\n\nServer: Engine - x\n runc:\n  Version:          1.1\n  A:                b\n"
        "  GitCommit:        \n Engine:\n  Version:          28.2.2\n"
        "  API version:      1.50 (minimum version 1.24)\n  Go version:       go1.24\n"
        "  Git commit:       abc\n  Built:            Fri Jan  2 03:04:05 2026\n"
        "  OS/Arch:          linux/amd64\n  Experimental:     false\n"
    )
    assert run("version", "-f", "{{.Server.Version}} {{.Client.Version}}").out == "28.2.2 0.1.0\n"


def test_version_without_a_daemon_still_shows_the_client(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    ran = run("version")
    assert ran.out.startswith("Client:\n") and "Server" not in ran.out
    assert f" API version:       {DEFAULT_API_VERSION}\n" in ran.out
    text = "Cannot connect to the daemon at unix:///nonexistent.sock. Is the daemon running?\n"
    assert (ran.err, ran.exit) == (text, 1)


def test_events_as_lines_and_json(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "wall_seconds", lambda: 1000.0)
    happened = recorded("rest/events-swarm-scope.json")
    text = "\n".join(json.dumps(event) for event in happened)
    cut = [text[place : place + 37] for place in range(0, len(text), 37)]
    daemon.on("GET", "/events", Reply(chunks=cut))
    ran = run("events", "--since", "10m", "-f", "type=node")
    lines = ran.out.splitlines()
    assert len(lines) == len(happened) and ran.exit == 0
    first = happened[0]
    attributes = first["Actor"]["Attributes"]
    shown = ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes))
    assert lines[0].partition(" ")[2] == f"service update {first['Actor']['ID']} ({shown})"
    filters = '{"scope":{"swarm":true},"type":{"node":true}}'
    assert daemon.asked() == [f"GET /v1.41/events?filters={filters}&since=400"]
    ran = run("events", "--format", "json")
    assert [json.loads(line) for line in ran.out.splitlines()] == happened
    ran = run("events", "--format", "{{.Type}} {{.Actor.ID}} {{.Scope}}", "-f", "scope=local")
    assert ran.out.splitlines()[0] == f"service {first['Actor']['ID']} swarm"


def test_event_templates_are_tried_before_waiting(run: Run, daemon: FakeDaemon) -> None:
    ran = run("events", "--format", "{{.Nope}}")
    assert ran.exit == 64 and not daemon.requests
    assert ran.err.startswith("Error parsing format: template: :1:2: executing")


@pytest.mark.parametrize(
    ("text", "sent_as"),
    [
        ("90s", "910"),
        ("2026-01-02T03:04:05Z", "1767323045.000000000"),
        ("2026-01-02T03:04:05.5+01:00", "1767319445.500000000"),
        ("1767323045", "1767323045"),
        ("1767323045.25", "1767323045.25"),
        ("0", "0"),
    ],
)
def test_since(text: str, sent_as: str) -> None:
    assert events.timestamp(text, 1000.0) == sent_as


def test_since_nonsense(run: Run) -> None:
    ran = run("events", "--since", "yesterday")
    assert ran.err == 'failed to parse value as time or duration: "yesterday"\n'
