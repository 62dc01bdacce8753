"""Stock engines and swarmd workers on hosts of their own, as nodes of a swarmd manager."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

OLD_CLI = "/usr/bin/docker"


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()
    with Lan() as made:
        yield made


def state_of(manager: Swarmd, hostname: str) -> str:
    """State of a node by host name: "ready", "down", ... or "" when it is not listed."""
    out = manager.docker(
        "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ID}}", check=False
    ).stdout
    rows = [line.split() for line in out.splitlines()]
    return next((row[1].lower() for row in rows if row and row[0] == hostname), "")


def wait_state(manager: Swarmd, hostname: str, state: str, timeout: float = 40) -> None:
    wait_until(
        f"{hostname} is {state}", lambda: state_of(manager, hostname) == state, timeout, pause=0.2
    )


def stock_clis() -> list[str]:
    """Every stock CLI on this machine: the newest one and Debian's."""
    return sorted(
        {path for path in (shutil.which("docker"), OLD_CLI) if path and Path(path).exists()}
    )


def test_both_kinds_join_leave_and_are_removed(lan: Lan) -> None:
    with (
        Swarmd("m1", lan=lan) as manager,
        Engine("e1", lan=lan) as engine,
        Swarmd("w1", lan=lan) as worker,
    ):
        printed = manager.ctl("init", "--advertise-addr", manager.ip).stdout
        command = next(line.split() for line in printed.splitlines() if "--token" in line)
        assert command[:2] == ["swarmctl", "join"]
        joined = engine.docker("swarm", *command[1:])
        assert joined.stdout == "This node joined a swarm as a worker.\n"
        assert worker.ctl(*command[1:]).stdout == "This node joined a swarm as a worker.\n"
        for name in ("m1", "e1", "w1"):
            wait_state(manager, name, "ready")
        for cli in stock_clis():
            listed = manager.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}", cli=cli)
            assert sorted(listed.stdout.splitlines()) == ["e1 Ready", "m1 Ready", "w1 Ready"]
            assert "Swarm: active" in manager.docker("info", cli=cli).stdout
        shown = manager.ctl("node", "ls").stdout
        assert all(name in shown for name in ("e1", "m1", "w1"))
        networks = manager.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}")
        assert "ingress overlay swarm" in networks.stdout
        # The engine sets the ingress network up from the attachment we gave its node.
        wait_until(
            "the engine has the ingress network",
            lambda: "ingress" in engine.docker("network", "ls").stdout,
        )
        assert engine.docker("swarm", "leave").stdout == "Node left the swarm.\n"
        assert worker.ctl("leave").stdout == "Node left the swarm.\n"
        for name in ("e1", "w1"):
            wait_state(manager, name, "down")
        assert manager.docker("node", "rm", "e1").stdout == "e1\n"
        assert manager.ctl("node", "rm", "w1").stdout == "w1\n"
        assert set(manager.node_states()) == {"m1"}


def test_rotated_token_is_refused_and_nodes_stay(lan: Lan) -> None:
    with Swarmd("m1", lan=lan) as manager, Engine("e1", lan=lan) as engine:
        manager.ctl("init", "--advertise-addr", manager.ip)
        old = manager.token()
        engine.docker("swarm", "join", "--token", old, f"{manager.ip}:2377")
        manager.ctl("join-token", "--rotate", "-q", "worker")
        assert manager.token() != old
        with Engine("e2", lan=lan) as second, Swarmd("w1", lan=lan) as worker:
            for refused in (
                second.docker("swarm", "join", "--token", old, f"{manager.ip}:2377", check=False),
                worker.ctl("join", "--token", old, f"{manager.ip}:2377", check=False),
            ):
                assert refused.returncode == 1
                assert refused.stderr.strip() == (
                    "Error response from daemon: rpc error: code = InvalidArgument desc = "
                    "A valid join token is necessary to join this cluster"
                )
            assert (
                json.loads(worker.docker("info", "--format", "{{json .Swarm}}").stdout)[
                    "LocalNodeState"
                ]
                == "inactive"
            )
        assert state_of(manager, "e1") == "ready"


def test_wrong_digest_is_refused_before_anything_is_sent(lan: Lan) -> None:
    with Swarmd("m1", lan=lan) as manager, Swarmd("w1", lan=lan) as worker:
        manager.ctl("init", "--advertise-addr", manager.ip)
        version, digest_mark, digest, secret = manager.token().split("-")
        other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
        wrong = "-".join([version, digest_mark, other, secret])
        refused = worker.ctl("join", "--token", wrong, f"{manager.ip}:2377", check=False)
        assert refused.returncode == 1
        assert re.fullmatch(
            "Error response from daemon: remote CA does not match fingerprint. "
            "Expected: [0-9a-f]{64}\\n",
            refused.stderr,
        )
        assert "joins" not in manager.log


def test_killed_worker_goes_down_and_comes_back(lan: Lan) -> None:
    with (
        Swarmd("m1", lan=lan) as manager,
        Engine("e1", lan=lan) as engine,
        Swarmd("w1", lan=lan) as worker,
    ):
        manager.ctl("init", "--advertise-addr", manager.ip)
        token = manager.token()
        engine.docker("swarm", "join", "--token", token, f"{manager.ip}:2377")
        worker.ctl("join", "--token", token, f"{manager.ip}:2377")
        for node, name in ((engine, "e1"), (worker, "w1")):
            wait_state(manager, name, "ready")
            node.kill()
        for name in ("e1", "w1"):
            wait_state(manager, name, "down", 25)  # three heartbeat periods of 5 s
        engine.start()
        worker.start()
        for name in ("e1", "w1"):
            wait_state(manager, name, "ready", 30)


def shape(manager: Swarmd) -> dict[str, Any]:
    """What must survive a crash: ids, tokens, certificate authority."""
    swarm = json.loads(manager.docker("info", "--format", "{{json .Swarm}}").stdout)
    nodes = manager.docker("node", "ls", "--format", "{{.ID}} {{.Hostname}}").stdout
    return {
        "cluster": swarm["Cluster"]["ID"],
        "root": swarm["Cluster"]["TLSInfo"]["TrustRoot"],
        "worker": manager.token("worker"),
        "manager": manager.token("manager"),
        "nodes": sorted(nodes.splitlines()),
    }


def test_killed_manager_comes_back_as_it_was(lan: Lan) -> None:
    with (
        Swarmd("m1", lan=lan) as manager,
        Engine("e1", lan=lan) as engine,
        Swarmd("w1", lan=lan) as worker,
    ):
        manager.ctl("init", "--advertise-addr", manager.ip)
        token = manager.token()
        engine.docker("swarm", "join", "--token", token, f"{manager.ip}:2377")
        worker.ctl("join", "--token", token, f"{manager.ip}:2377")
        for name in ("m1", "e1", "w1"):
            wait_state(manager, name, "ready")
        before = shape(manager)
        manager.kill()
        manager.start()
        wait_until("the manager leads", lambda: state_of(manager, "m1") == "ready", 20)
        assert shape(manager) == before
        for name in ("e1", "w1"):
            wait_state(manager, name, "ready", 30)
        assert manager.stop() == 0
        manager.start()
        wait_until("the manager leads", lambda: state_of(manager, "m1") == "ready", 20)
        assert shape(manager) == before
