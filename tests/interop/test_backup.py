"""Backups through the real programs: taken while running, put down elsewhere, refused if bad."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemons import ROOT, Daemon, Refused, daemon_place
from tests.harness.lan import wait_until

pytestmark = pytest.mark.timeout(300)
PHRASE = "correct horse battery staple"


@pytest.fixture
def place() -> Iterator[Path]:
    with daemon_place() as made:
        (made / "phrase").write_text(PHRASE + "\n")
        yield made


def ctl(daemon: Daemon | None, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run swarmctl; without a daemon it finds none."""
    socket = daemon.socket if daemon is not None else "/nonexistent/swarmd.sock"
    return subprocess.run(
        [sys.executable, "-m", "swarmctl", "-H", f"unix://{socket}", *map(str, words)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        input=stdin,
        timeout=60,
    )


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def restore(daemon: Daemon, file: Path, *words: object) -> subprocess.CompletedProcess[str]:
    here = ("--listen-addr", daemon.addr, "--advertise-addr", daemon.addr)
    return ctl(daemon, "backup", "restore", *here, *words, file)


def contents(daemon: Daemon) -> dict[str, Any]:
    """Everything a client can see that must come back."""
    swarm = daemon.get("/swarm")
    nodes = [
        {key: node[key] for key in ("ID", "CreatedAt", "Spec")} for node in daemon.get("/nodes")
    ]
    return {
        **daemon.shape(),
        "spec": swarm["Spec"],
        "created": swarm["CreatedAt"],
        "unlock": daemon.get("/swarm/unlockkey"),
        "labels": sorted(nodes, key=lambda node: node["ID"]),
        "networks": sorted(
            (net["Id"], net["Name"], json.dumps(net["IPAM"])) for net in daemon.get("/networks")
        ),
    }


def fill(daemon: Daemon) -> None:
    """Something to come back; the label is written last."""
    daemon.change_swarm(Dispatcher={"HeartbeatPeriod": 7_000_000_000})
    daemon.post("/networks/create", {"Name": "back", "Driver": "overlay"})
    # The allocator gives it a subnet a moment after it was created.
    wait_until("the network is allocated", lambda: subnets(daemon))
    daemon.label_self("site", "north")


def subnets(daemon: Daemon) -> list[str]:
    """Those of the network that `fill` makes."""
    (back,) = [net for net in daemon.get("/networks") if net["Name"] == "back"]
    return [config["Subnet"] for config in back["IPAM"]["Config"] or []]


def applied(daemon: Daemon, text: str) -> bool:
    """Whether it is in this manager's own copy; other questions are answered by the leader."""
    return text.encode() in daemon.call("POST", "/swarmd/backup")


def hidden(file: Path, *secrets: str) -> None:
    data = file.read_bytes()
    for text in secrets:
        assert text.encode() not in data
    assert b"PRIVATE KEY" not in data


def test_a_swarm_comes_back_on_another_machine(place: Path) -> None:
    file = place / "b"
    with Daemon(place / "m1") as m1:
        m1.init()
        m1.wait_ready("m1")
        fill(m1)
        before = contents(m1)
        out = done(ctl(m1, "backup", "create", "--passphrase-file", place / "phrase", file))
        assert out == (
            f"Backup of swarm {before['cluster']} written to {file}, "
            "encrypted with the passphrase.\n"
        )
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert sorted(path.name for path in place.iterdir()) == ["b", "m1", "phrase"]
        hidden(file, before["tokens"]["Worker"], before["cluster"], "north")
        assert PHRASE not in m1.log
    shown = done(ctl(None, "backup", "verify", "--passphrase-file", "-", file, stdin=PHRASE))
    assert f"ClusterID:   {before['cluster']}\n" in shown
    assert f"NodeID:      {before['self']} (m1)\n" in shown
    assert shown.endswith("The backup is whole.\n")
    with Daemon(place / "m2") as m2, Daemon(place / "w") as worker:
        out = done(restore(m2, file, "--passphrase-file", place / "phrase"))
        assert f"node {before['self']} is its only manager" in out
        assert contents(m2) == before
        m2.wait_ready("m2")  # the same node describes its new host
        (node,) = m2.get("/nodes")
        assert node["ManagerStatus"]["Addr"] == m2.addr
        m2.restart()
        m2.wait_ready("m2")
        assert contents(m2) == before
        worker.join(before["tokens"]["Worker"], m2)
        m2.wait_ready("w")
        again = refused(restore(m2, file, "--passphrase-file", place / "phrase"))
        assert "already part of a swarm" in again


def test_a_backup_under_load_is_one_moment(place: Path) -> None:
    """Two labels are always written in turn: a backup shows the second never ahead."""
    with Daemon(place / "m1") as m1, Daemon(place / "m2") as m2:
        m1.init()
        m1.wait_ready("m1")
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                for name in ("first", "second"):
                    m1.label_self(name, str(number))

        writer = threading.Thread(target=write)
        writer.start()
        files = [place / f"b{number}" for number in range(5)]
        try:
            wait_until("it is written", lambda: applied(m1, "second"))
            for file in files:
                done(ctl(m1, "backup", "create", "--no-encryption", file))
        finally:
            stop.set()
            writer.join()
        seen = []
        for file in files:
            done(restore(m2, file))
            (node,) = m2.get("/nodes")
            labels = node["Spec"]["Labels"]
            first, second = int(labels["first"]), int(labels.get("second", 0))
            assert second <= first <= second + 1
            seen.append(first)
            m2.post("/swarm/leave?force=1")
        assert seen == sorted(seen) and seen[-1] > seen[0], seen


def test_any_manager_gives_a_backup_of_the_whole(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "m2") as m2, Daemon(place / "m3") as m3:
        m1.init()
        m2.join(m1.token("Manager"), m1)
        m1.wait_ready("m1", "m2")
        fill(m1)
        before = contents(m1)
        wait_until("m2 has it all", lambda: applied(m2, "north"))
        done(ctl(m2, "backup", "create", "--no-encryption", place / "b"))
        m1.kill()
        # Without quorum too, and before anything is forced.
        done(ctl(m2, "backup", "create", "--no-encryption", place / "later"))
        m2.kill()
        for file in ("b", "later"):
            done(restore(m3, place / file))
            after = contents(m3)
            assert after["self"] != before["self"], "the manager that was asked goes on"
            assert {**after, "self": ""} == {**before, "self": ""}
            members = [node for node in m3.get("/nodes") if node.get("ManagerStatus")]
            assert [node["ManagerStatus"]["Addr"] for node in members] == [m3.addr]
            m3.post("/swarm/leave?force=1")


def test_an_autolocked_swarm_needs_no_other_passphrase(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "m2") as m2:
        addr = {"ListenAddr": m1.addr, "AdvertiseAddr": m1.addr, "AutoLockManagers": True}
        m1.post("/swarm/init", {**addr, "Spec": {"EncryptionConfig": {"AutoLockManagers": True}}})
        m1.wait_ready("m1")
        before = contents(m1)
        key = before["unlock"]["UnlockKey"]
        (place / "key").write_text(key)
        assert "the unlock key" in done(ctl(m1, "backup", "create", place / "b"))
        hidden(place / "b", before["tokens"]["Worker"])
        bare = refused(restore(m2, place / "b"))
        assert bare == "the backup is encrypted: give the unlock key by --unlock-key-file\n"
        done(restore(m2, place / "b", "--unlock-key-file", place / "key"))
        assert contents(m2) == before
        sealed = (m2.swarm_dir / "certificates" / "swarm-node.key").read_text()
        assert "ENCRYPTED PRIVATE KEY" in sealed
        m2.restart()
        assert m2.state() == "locked"
        m2.post("/swarm/unlock", {"UnlockKey": key})
        m2.wait_ready("m2")
        assert contents(m2) == before


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_bad_backups_are_refused_and_nothing_changes(place: Path) -> None:
    closed, clear, bad = place / "closed", place / "clear", place / "bad"
    wrong = place / "wrong"
    wrong.write_text("something else\n")
    with Daemon(place / "m1") as m1:
        m1.init()
        m1.wait_ready("m1")
        done(ctl(m1, "backup", "create", "--passphrase-file", place / "phrase", closed))
        warned = ctl(m1, "backup", "create", "--no-encryption", clear)
        assert "WARNING" in warned.stderr and warned.returncode == 0
        assert f"{clear} exists; use --force" in refused(
            ctl(m1, "backup", "create", "--no-encryption", clear)
        )
        assert "say how to protect the backup" in refused(ctl(m1, "backup", "create", bad))
        assert "exclude each other" in refused(
            ctl(m1, "backup", "create", "--no-encryption", "--passphrase-file", wrong, bad)
        )
        nowhere = ctl(m1, "backup", "create", "--no-encryption", place / "no" / "b")
        assert "cannot write" in refused(nowhere)
        assert not bad.exists()
    with tarfile.open(clear) as tar:  # in clear it is a plain tar
        assert tar.getnames()[0] == "manifest.json"
    data, plain = closed.read_bytes(), clear.read_bytes()
    with_phrase = ("--passphrase-file", str(place / "phrase"))
    cases: list[tuple[bytes, tuple[str, ...], str]] = [
        (data, (), "give its passphrase"),
        (data, ("--passphrase-file", str(wrong)), "the passphrase does not fit this backup"),
        (data, ("--passphrase-file", str(place / "none")), "cannot read"),
        (data[:-1], with_phrase, "the backup is damaged: it is cut off or was changed"),
        (flip(data, 40), with_phrase, "the backup is damaged: its head was changed"),
        (flip(data, len(data) // 2), with_phrase, "the backup is damaged: it is cut off"),
        (flip(plain, len(plain) // 2), (), "the backup is damaged"),
        (plain[: len(plain) // 2], (), "the backup is damaged"),
        (b"", (), "this is not a backup made by swarmctl"),
        (b"PK\x03\x04" * 100, (), "this is not a backup made by swarmctl"),
    ]
    with Daemon(place / "m2") as m2:
        for content, words, text in cases:
            bad.write_bytes(content)
            assert text in refused(ctl(None, "backup", "verify", *words, bad)), text
            assert text in refused(restore(m2, bad, *words)), text
            assert m2.state() == "inactive"
            assert not m2.swarm_dir.exists()
        # The daemon judges for itself what it is sent.
        for content in (flip(plain, 3000), plain[:5000], b"x"):
            with pytest.raises(Refused) as error:
                send(m2, content)
            assert error.value.status == 400
            assert m2.state() == "inactive" and not m2.swarm_dir.exists()
        done(restore(m2, clear))


def send(daemon: Daemon, data: bytes) -> None:
    """POST raw bytes to the restore endpoint."""
    import http.client
    import socket

    connection = http.client.HTTPConnection("swarmd", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.socket))
    target = f"/swarmd/backup/restore?listenAddr={daemon.addr}&advertiseAddr={daemon.addr}"
    connection.request("POST", target, data, {"Content-Type": "application/x-tar"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    if answer.status >= 400:
        raise Refused(answer.status, json.loads(text)["message"])


def test_who_has_no_manager_has_nothing_to_back_up(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "w1") as w1:
        text = refused(ctl(w1, "backup", "create", "--no-encryption", place / "b"))
        assert "This node is not a swarm manager" in text
        assert "not a swarm manager" in refused(ctl(w1, "recover", "--dry-run"))
        m1.init()
        w1.join(m1.token(), m1)
        text = refused(ctl(w1, "backup", "create", "--no-encryption", place / "b"))
        assert "Worker nodes can't be used" in text
        assert not (place / "b").exists()


def test_recover_says_what_force_does_and_does_nothing(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "m2") as m2, Daemon(place / "m3") as m3:
        m1.init()
        for other in (m2, m3):
            other.join(m1.token("Manager"), m1)
        m1.wait_ready("m1", "m2", "m3")
        healthy = done(ctl(m1, "recover", "--dry-run"))
        assert "Quorum: 3 of 3 reachable, 2 needed\n" in healthy
        assert "there is nothing to recover" in healthy
        assert "look first with --dry-run" in refused(ctl(m1, "recover"))
        before = m1.shape()
        m2.kill()
        m3.kill()

        def lost() -> bool:
            return "Quorum: 1 of 3 reachable" in done(ctl(m1, "recover", "--dry-run"))

        wait_until("the loss is seen", lost, 60, pause=0.3)
        files = {path: path.read_bytes() for path in m1.swarm_dir.rglob("*.crt")}
        out = done(ctl(m1, "recover", "--dry-run"))
        assert "2 needed: the quorum is lost" in out
        assert f"- remove m2 ({m2.addr}) from the managers for good" in out
        assert f"- remove m3 ({m3.addr}) from the managers for good" in out
        assert "remove m1" not in out
        assert out.endswith("Nothing was changed.\n")
        assert {path: path.read_bytes() for path in files} == files
        m2.start()
        m1.wait_ready("m1", "m2", timeout=60)
        assert m1.shape() == before
