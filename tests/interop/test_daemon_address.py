"""Changing the address of managers: daemons on loopback, by command and at a start."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.faces.engineapi import addresses, texts
from tests.harness.daemons import ROOT, Daemon, Refused, daemon_place, free_port, own_loopback_ip
from tests.harness.lan import wait_until

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the daemons of a test live."""
    with daemon_place() as made:
        yield made


def ctl(daemon: Daemon, *args: str) -> subprocess.CompletedProcess[str]:
    """Run swarmctl against a daemon."""
    command = [sys.executable, "-m", "swarmctl", "-H", f"unix://{daemon.socket}", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)


def known_as(at: Daemon, name: str) -> str:
    """The address a manager is listed with, or ""; also when there is no leader to ask."""
    try:
        nodes = at.get("/nodes")
    except Refused:
        return ""
    for node in nodes:
        if node["Description"].get("Hostname") == name:
            return str((node.get("ManagerStatus") or {}).get("Addr", ""))
    return ""


def remotes(daemon: Daemon) -> set[str]:
    """The addresses of managers a node would try; its session tells them."""
    return {manager["Addr"] for manager in daemon.swarm()["RemoteManagers"]}


def settings(daemon: Daemon) -> dict[str, Any]:
    """What the daemon would start with."""
    found: dict[str, Any] = json.loads((daemon.swarm_dir / "docker-state.json").read_text())
    return found


def refusal(daemon: Daemon, addr: str, **more: Any) -> tuple[int, str]:
    """Status and text of a change that is refused; the settings must stay as they are."""
    before = settings(daemon)
    with pytest.raises(Refused) as caught:
        daemon.post("/swarmd/address", {"AdvertiseAddr": addr, **more})
    assert settings(daemon) == before
    return caught.value.status, caught.value.message


def elsewhere(daemon: Daemon) -> str:
    """Another address of this machine, on the daemon's port."""
    return f"{own_loopback_ip()}:{daemon.port}"


def test_a_sole_manager_moves_and_tells_who_is_connected(place: Path) -> None:
    with Daemon(place / "m") as m, Daemon(place / "w") as w:
        m.init(Dispatcher={"HeartbeatPeriod": 1_000_000_000})  # who dies is soon missed
        w.join(m.token(), m)
        m.wait_ready("m", "w")
        first, second = m.addr, elsewhere(m)
        ran = ctl(m, "update-address", second.partition(":")[0])
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout == (
            f"Manager address updated: {second}, it was {first}.\nListening on {second}.\n"
        )
        assert ran.stderr == ""
        assert known_as(m, "m") == second
        assert m.get("/swarmd/address") == {"AdvertiseAddr": second, "ListenAddr": second}
        assert settings(m)["AdvertiseAddr"] == settings(m)["ListenAddr"] == second
        host = second.partition(":")[0]
        assert m.swarm()["NodeAddr"] == host
        wait_until(
            "its node shows it too",
            lambda: host in [node["Status"].get("Addr") for node in m.get("/nodes")],
        )
        listed = [{"NodeID": m.swarm()["NodeID"], "Addr": second}]
        wait_until("the worker knows", lambda: w.swarm()["RemoteManagers"] == listed)
        m.restart()  # the old port is closed now
        m.wait_ready("m", "w")
        assert known_as(m, "m") == second

        w.kill()
        wait_until("the worker is missed", lambda: m.nodes()["w"] == "down")
        third = elsewhere(m)
        ran = ctl(m, "update-address", third)
        assert ran.returncode == 1
        assert "This is the only manager, and 1 node(s)" in ran.stderr
        assert f"alone: w. They will not find it at {third}" in ran.stderr
        assert known_as(m, "m") == second
        ran = ctl(m, "update-address", "--force", third)
        assert ran.returncode == 0, ran.stderr
        assert known_as(m, "m") == third
        # Until it is started again the manager answers at the old address too.
        w.start()
        m.wait_ready("w")


def test_a_sole_manager_moves_at_a_start(place: Path) -> None:
    manager = Daemon(place / "m")
    with manager as m:
        m.init()
        m.wait_ready("m")
        before = m.shape()
        m.kill()
        second = elsewhere(m)
        m.args = ["--advertise-addr", second.partition(":")[0]]
        m.start()
        wait_until("it is known so", lambda: known_as(m, "m") == second)
        wait_until("it is written down", lambda: settings(m)["AdvertiseAddr"] == second)
        assert settings(m)["ListenAddr"] == second, "it was the same as the address before"
        m.wait_ready("m")
        assert m.shape() == before
        m.kill()
        m.args = []
        m.start()
        m.wait_ready("m")
        assert known_as(m, "m") == second, "the option is not needed any more"
        m.kill()
        m.args = ["--advertise-addr", "nosuch0"]
        m.start()
        m.wait_ready("m")
        assert known_as(m, "m") == second
        assert "--advertise-addr nosuch0 cannot be used" in m.log
        third = elsewhere(m)
        m.args = ["--advertise-addr", second.partition(":")[0]]
        m.restart()
        m.wait_ready("m")
        ran = ctl(m, "update-address", third)
        assert ran.returncode == 0, ran.stderr
        assert "WARNING: This daemon is started with --advertise-addr" in ran.stderr


def test_what_is_refused(place: Path) -> None:
    with Daemon(place / "m") as m, Daemon(place / "w") as w, Daemon(place / "none") as none:
        with pytest.raises(Refused) as caught:
            none.post("/swarmd/address", {"AdvertiseAddr": "127.0.0.1"})
        assert (caught.value.status, caught.value.message) == (
            503,
            texts.NOT_IN_SWARM_MANAGER_CALL,
        )
        m.init()
        w.join(m.token(), m)
        m.wait_ready("m", "w")
        assert refusal(w, "127.0.0.1") == (503, texts.WORKER_MANAGER_CALL)
        for text in (
            "0.0.0.0",
            "::",
            "nonsense",
            "127.0.0.1:port",
            "127.0.0.1:0",
            "[::1",
            "x:70000",
        ):
            assert refusal(m, text) == (400, addresses.BAD_ADVERTISE), text
        assert refusal(m, "")[1] == 'invalid AdvertiseAddr "": invalid empty address'
        assert refusal(m, m.ip, ListenAddr="nonsense") == (400, addresses.BAD_LISTEN)
        status, text = refusal(m, "192.0.2.1")  # nobody's, and to be listened on
        assert status == 400
        assert text == (
            f"failed to listen on remote API address: listen tcp 192.0.2.1:{m.port}: "
            "bind: cannot assign requested address"
        )
        nobody = f"{own_loopback_ip()}:{free_port('127.0.0.1')}"
        status, text = refusal(m, nobody, ListenAddr=m.addr)
        assert status == 500
        assert text.startswith(
            "could not connect to prospective new cluster member using its advertised address"
        )
        assert known_as(m, "m") == m.addr
        # Who must not be asked can be told: the only manager need not reach itself.
        m.post("/swarmd/address", {"AdvertiseAddr": nobody, "ListenAddr": m.addr, "Force": True})
        assert known_as(m, "m") == nobody
        m.post("/swarmd/address", {"AdvertiseAddr": m.addr, "ListenAddr": m.addr})
        m.wait_ready("m", "w")


def test_one_address_then_all_of_the_host_and_back(place: Path) -> None:
    with Daemon(place / "m") as m, Daemon(place / "w") as w:
        m.init()
        w.join(m.token(), m)
        m.wait_ready("m", "w")
        everywhere, second = f"0.0.0.0:{m.port}", elsewhere(m)

        with socket.create_server((second.partition(":")[0], m.port)):
            assert refusal(m, m.addr, ListenAddr=everywhere) == (
                400,
                f"failed to listen on remote API address: listen tcp {everywhere}: "
                "bind: address already in use",
            )
            socket.create_connection((m.ip, m.port), timeout=10).close()

        # Refused only after the port was opened: it is closed again.
        refused = refusal(m, f"{m.ip}:{free_port(m.ip)}", ListenAddr=everywhere)
        assert refused[0] == 500, refused
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((second.partition(":")[0], m.port), timeout=10)

        ran = ctl(m, "update-address", "--listen-addr", everywhere, second)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.endswith(f"Listening on {everywhere}.\n")
        assert known_as(m, "m") == second
        wait_until("the worker knows", lambda: w.swarm()["RemoteManagers"][0]["Addr"] == second)
        m.post("/swarmd/address", {"AdvertiseAddr": m.addr, "ListenAddr": m.addr})
        assert settings(m)["ListenAddr"] == m.addr
        m.wait_ready("m", "w")
        m.restart()
        m.wait_ready("m", "w")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((second.partition(":")[0], m.port), timeout=10)


def test_a_manager_that_starts_says_so(place: Path) -> None:
    with Daemon(place / "m") as m:
        m.init()
        m.wait_ready("m")
        for _ in range(3):
            m.kill()
            m.launch()
            told: set[tuple[int, str]] = set()

            def moved(told: set[tuple[int, str]] = told) -> bool:
                try:
                    m.post("/swarmd/address", {"AdvertiseAddr": m.addr})
                except Refused as refused:
                    told.add((refused.status, refused.message))
                    return False
                except OSError:  # it does not answer at all yet
                    return False
                return True

            wait_until("it can be asked", moved, 30, pause=0.002)
            assert told <= {(503, texts.MANAGER_PREPARING)}


def labelled(daemon: Daemon) -> bool:
    """Write a label; False when the node was written in between."""
    try:
        daemon.label_self("moved", "yes")
    except Refused as refused:
        if "update out of sequence" not in refused.message:
            raise
        return False
    return True


def test_members_move_and_are_refused_what_belongs_to_others(place: Path) -> None:
    with Daemon(place / "a") as a, Daemon(place / "b") as b, Daemon(place / "c") as c:
        a.init()
        b.join(a.token("Manager"), a)
        c.join(a.token("Manager"), a)
        a.wait_ready("a", "b", "c")
        for one in (a, b):  # the leader, and a follower
            status, text = refusal(one, c.addr, ListenAddr=one.addr)
            assert status == 409
            assert text.startswith(f"raft: address {c.addr} belongs to another manager, node ")
            # Somebody answers there, but who wants the address does not.
            other = f"{c.ip}:{free_port(c.ip)}"
            c.post("/swarmd/address", {"AdvertiseAddr": c.addr, "ListenAddr": c.addr})
            status, text = refusal(one, other, ListenAddr=one.addr)
            assert (status, text.partition(":")[0]) == (
                500,
                "could not connect to prospective new cluster member using its advertised address",
            )
        for one, name in ((a, "a"), (b, "b"), (c, "c")):
            to = elsewhere(one)
            one.post("/swarmd/address", {"AdvertiseAddr": to})
            for at in (a, b, c):
                wait_until(f"{name} is known so", lambda at=at, n=name, t=to: known_as(at, n) == t)
        for one in (c, a, b):  # without the old ports
            one.restart()
            one.wait_ready("a", "b", "c")
        wait_until("writes go on", lambda: labelled(b))
        wanted = {settings(one)["AdvertiseAddr"] for one in (a, b, c)}
        wait_until("it is told to nodes", lambda: remotes(a) == wanted)
