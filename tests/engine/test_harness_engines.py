"""The engine harness itself: a stock swarm of two, a kill, a pulled cable, and nothing left."""

from __future__ import annotations

import os

import pytest

from tests.harness.engines import Engine, Lan, require_engine, require_netns, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_hosts_reach_each_other_until_unplugged() -> None:
    require_netns()
    with Lan() as lan:
        one, two = lan.host("one"), lan.host("two")
        assert one.run(["hostname"]).stdout == "one\n"
        with one.inside():
            import socket

            server = socket.create_server((one.ip, 0))
        with server, two.inside():
            with socket.create_connection(server.getsockname()[:2], timeout=5):
                pass
            two.unplug()
            with pytest.raises(OSError), socket.create_connection(server.getsockname()[:2], 0.2):
                pass
            two.plug()
        sleeper = one.popen(["sleep", "600"])
    assert sleeper.returncode == -9


def test_stock_swarm_of_two_survives_kill() -> None:
    require_engine()
    with Lan() as lan, Engine("e1", lan=lan) as one, Engine("e2", lan=lan) as two:
        one.docker("swarm", "init", "--advertise-addr", one.ip)
        token = one.docker("swarm", "join-token", "-q", "worker").stdout.strip()
        two.docker("swarm", "join", "--token", token, f"{one.ip}:2377")
        rows = ("node", "ls", "--format", "{{.Hostname}} {{.Status}}")
        wait_until(
            "both are ready",
            lambda: sorted(one.docker(*rows).stdout.splitlines()) == ["e1 Ready", "e2 Ready"],
        )
        one.kill()
        one.start()
        wait_until(
            "both ready again",
            lambda: (
                one.docker("node", "ls", "--format", "{{.Status}}", check=False).stdout.split()
                == ["Ready", "Ready"]
            ),
        )
        roots, pids = (one.root, two.root), (one.pid, two.pid)
    for root, pid in zip(roots, pids, strict=True):
        assert not root.exists()
        assert not os.path.exists(f"/proc/{pid}")
