"""The commands docker does not have: quorum in `info`, backup, recover, update-address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swarmctl.commands.info import quorum_margin
from swarmd.base import archive
from tests.cli.conftest import Run, recorded
from tests.harness.fakedaemon import FakeDaemon, Reply

OURS = {"Components": [{"Name": "Engine"}, {"Name": "swarmd", "Version": "1"}]}
STOCK = {"Components": [{"Name": "Engine"}, {"Name": "containerd"}]}


@pytest.mark.parametrize(
    ("managers", "text"),
    [
        (1, "1 of 1 managers, none can be lost (three can lose one)"),
        (2, "2 of 2 managers, none can be lost (an even number is no safer than 1: "),
        (3, "2 of 3 managers, 1 can be lost"),
        (4, "3 of 4 managers, 1 can be lost (an even number is no safer than 3: "),
        (5, "3 of 5 managers, 2 can be lost"),
        (7, "4 of 7 managers, 3 can be lost"),
    ],
)
def test_the_quorum_margin(managers: int, text: str) -> None:
    shown = quorum_margin(managers)
    assert shown == text or (text.endswith(": ") and shown.startswith(text))


@pytest.mark.parametrize(
    ("managers", "unreachable", "text"),
    [
        (3, 1, "2 of 3 managers, 1 unreachable: none of the others can be lost"),
        (3, 2, "2 of 3 managers, 2 unreachable: none of the others can be lost"),
        (5, 1, "3 of 5 managers, 1 unreachable: 1 of the others can be lost"),
        (5, 2, "3 of 5 managers, 2 unreachable: none of the others can be lost"),
        (
            4,
            1,
            "3 of 4 managers, 1 unreachable: none of the others can be lost "
            "(an even number is no safer than 3: add one, or demote one)",
        ),
    ],
)
def test_who_is_lost_already_cannot_be_lost_again(
    managers: int, unreachable: int, text: str
) -> None:
    assert quorum_margin(managers, unreachable) == text


def manager(reachability: str) -> dict[str, Any]:
    return {"ManagerStatus": {"Reachability": reachability, "Addr": "10.0.0.1:2377"}}


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([manager("reachable"), manager("unreachable"), {}], "2 of 2 managers, 1 unreachable: "),
        ([manager("reachable"), manager("unknown")], "2 of 2 managers, 1 unreachable: "),
        ([manager("reachable")] * 2, "2 of 2 managers, none can be lost"),
        (Reply.error(500, "no leader"), "2 of 2 managers, none can be lost"),
    ],
)
def test_info_asks_who_can_be_reached(run: Run, daemon: FakeDaemon, nodes: Any, words: str) -> None:
    section = recorded("rest/info-swarm-section.json")["two_managers"]
    daemon.on("GET", "/info", {"Swarm": section}).on("GET", "/version", OURS)
    daemon.on("GET", "/nodes", nodes)
    ran = run("info")
    assert ran.exit == 0 and f"  Quorum: {words}" in ran.out
    (asked,) = [target for target in daemon.asked("GET") if "/nodes" in target]
    assert "manager" in asked, "workers are not asked for"


@pytest.mark.parametrize("version", [OURS, STOCK, {"Components": None}, Reply.error(500, "broken")])
def test_info_tells_the_margin_of_our_daemon_only(
    run: Run, daemon: FakeDaemon, version: Any
) -> None:
    section = recorded("rest/info-swarm-section.json")["two_managers"]
    daemon.on("GET", "/info", {"Swarm": section}).on("GET", "/version", version)
    lines = run("info").out.splitlines()
    after = lines[lines.index("  Managers: 2") + 1]
    assert after.startswith("  Quorum: 2 of 2 managers") is (version is OURS)
    assert sum("Quorum" in line for line in lines) == int(version is OURS)


def test_info_of_a_worker_asks_no_more(run: Run, daemon: FakeDaemon) -> None:
    section = recorded("rest/info-swarm-section.json")["worker"]
    daemon.on("GET", "/info", {"Swarm": section})
    assert run("info").exit == 0
    assert not any("/version" in target for target in daemon.asked("GET"))


FOUND = {
    "ClusterID": "c1",
    "NodeID": "n1",
    "Managers": [
        {
            "NodeID": "n1",
            "Hostname": "m1",
            "Addr": "10.0.0.1:2377",
            "Reachable": True,
            "Leader": False,
            "Self": True,
        },
        {
            "NodeID": "n2",
            "Hostname": "",
            "Addr": "10.0.0.2:2377",
            "Reachable": False,
            "Leader": False,
            "Self": False,
        },
    ],
    "Quorum": 2,
    "Reachable": 1,
    "Nodes": 2,
    "RaftTerm": 3,
    "CommitIndex": 40,
    "LastIndex": 42,
    "Dropped": 2,
}


def test_recover_lists_what_force_would_do(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/swarmd/backup/recovery", FOUND)
    ran = run("recover", "--dry-run")
    assert (ran.err, ran.exit) == ("", 0)
    for line in (
        "Quorum: 1 of 2 reachable, 2 needed: the quorum is lost",
        "Log:    term 3, committed up to entry 40, last entry 42",
        "- drop 2 entries after it that were not committed",
        "- remove n2 (10.0.0.2:2377) from the managers for good",
    ):
        assert line in ran.out.splitlines()
    assert [method for method, _ in map(str.split, daemon.asked()) if method != "HEAD"] == ["GET"]


def test_recover_with_a_quorum_has_nothing_to_do(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/swarmd/backup/recovery", {**FOUND, "Reachable": 2})
    assert "there is nothing to recover" in run("recover", "--dry-run").out


def test_recover_on_a_stock_engine_says_that_it_cannot(run: Run) -> None:
    assert run("recover", "--dry-run").exit == 1
    assert "look first with --dry-run" in run("recover").err


MOVED = {
    "AdvertiseAddr": "10.0.0.9:2377",
    "ListenAddr": "0.0.0.0:2377",
    "PreviousAddr": "10.0.0.1:2377",
}


def test_an_address_is_updated(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("POST", "/swarmd/address", MOVED, {**MOVED, "Warnings": ["Think of x."]})
    ran = run("update-address", "10.0.0.9")
    assert (ran.exit, ran.err) == (0, "")
    assert ran.out == (
        "Manager address updated: 10.0.0.9:2377, it was 10.0.0.1:2377.\n"
        "Listening on 0.0.0.0:2377.\n"
    )
    ran = run("update-address", "--force", "--listen-addr", "eth1:9", "eth0")
    assert (ran.exit, ran.err) == (0, "WARNING: Think of x.\n")
    assert daemon.bodies() == [
        {"AdvertiseAddr": "10.0.0.9", "ListenAddr": "", "Force": False},
        {"AdvertiseAddr": "eth0", "ListenAddr": "eth1:9", "Force": True},
    ]


def test_an_address_that_is_refused(run: Run, daemon: FakeDaemon) -> None:
    stock, refused = Reply.error(404, "page not found"), Reply.error(409, "it is taken")
    daemon.on("POST", "/swarmd/address", stock, refused)
    ran = run("update-address", "eth0")
    assert (ran.exit, ran.out) == (1, "")
    assert ran.err == "this daemon cannot change the address of a manager: only swarmd can\n"
    ran = run("update-address", "eth0")
    assert (ran.exit, ran.err) == (1, "Error response from daemon: it is taken\n")
    assert "requires 1 argument" in run("update-address").err


def test_a_stock_daemon_does_none_of_this(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    stock = Reply.error(404, "page not found")
    daemon.on("POST", "/swarmd/backup", stock).on("GET", "/swarmd/backup/recovery", stock)
    new = tmp_path / "new"
    for words, what in (
        (("backup", "create", "--no-encryption", str(new)), "make backups"),
        (("recover", "--dry-run"), "tell what a recovery would do"),
    ):
        ran = run(*words)
        assert (ran.exit, ran.out) == (1, "")
        assert ran.err == f"this daemon cannot {what}: only swarmd can\n"
    assert not new.exists()


def bundle() -> bytes:
    return archive.pack({"ClusterID": "c1", "Objects": {"nodes": 1}}, {"raft/snapshot": b"x"})


def test_verify_needs_no_daemon(run: Run, tmp_path: Path) -> None:
    path, secret = tmp_path / "b", tmp_path / "secret"
    secret.write_text("open sesame\nsecond line\n")
    sealed = archive.seal(bundle(), archive.from_passphrase("open sesame", n=2))
    path.write_bytes(b"".join(sealed))
    nowhere = ("-H", "unix:///nonexistent", "backup", "verify")
    ran = run(*nowhere, "--passphrase-file", str(secret), str(path))
    assert ran.exit == 0 and ran.out.endswith("The backup is whole.\n")
    assert "Encryption:  passphrase\n" in ran.out and "Objects:     1 nodes\n" in ran.out
    ran = run(*nowhere, str(path))
    assert (ran.out, ran.exit) == ("", 1)
    ran = run(*nowhere, str(tmp_path / "none"))
    assert ran.err == f"cannot read {tmp_path / 'none'}: No such file or directory\n"


def test_a_backup_that_came_damaged_is_not_written(
    run: Run, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.on("POST", "/swarmd/backup", Reply({"message": "not a tar"}))
    ran = run("backup", "create", "--no-encryption", str(tmp_path / "b"))
    assert (ran.err, ran.exit) == ("this is not a backup made by swarmctl\n", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["d.sock"]


def test_the_unlock_key_is_used_without_being_asked_for(
    run: Run, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.on("GET", "/swarm/unlockkey", {"UnlockKey": ""})
    ran = run("backup", "create", str(tmp_path / "b"))
    assert ran.err.startswith("say how to protect the backup: --passphrase-file FILE")
    assert "POST" not in json.dumps(daemon.asked())
    empty = tmp_path / "empty"
    empty.write_text("\n")
    ran = run("backup", "create", "--passphrase-file", str(empty), str(tmp_path / "b"))
    assert (ran.err, ran.exit) == ("the passphrase is empty\n", 1)
