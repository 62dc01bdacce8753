"""A state directory moves from a stock engine to swarmd and back; its workers follow."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

Node = Engine | Swarmd


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()
    with Lan() as made:
        yield made


def move(source: Path, target: Path) -> None:
    """Copy a swarm directory as an operator would, replacing what is there."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target)


def objects(node: Node) -> dict[str, Any]:
    """What must come along: who is who, tokens, certificate authority, the operator's objects."""
    swarm = json.loads(node.docker("info", "--format", "{{json .Swarm}}").stdout)
    inspected = {
        f"{kind} {name}": slim(node.json(kind, "inspect", name)[0])
        for kind, name in (
            ("node", "self"),
            ("network", "blue"),
            ("network", "ingress"),
            ("secret", "word"),
            ("config", "page"),
            ("service", "web"),
        )
    }
    return {
        "node": swarm["NodeID"],
        "cluster": swarm["Cluster"]["ID"],
        "root": swarm["Cluster"]["TLSInfo"],
        "spec": swarm["Cluster"]["Spec"],
        "tokens": [
            node.docker("swarm", "join-token", "-q", role).stdout for role in ("worker", "manager")
        ],
        "nodes": sorted(node.docker("node", "ls", "-q").stdout.split()),
        **inspected,
    }


def slim(found: dict[str, Any]) -> dict[str, Any]:
    """Without what the running node itself keeps up to date, and what is only local."""
    moving = ("Version", "UpdatedAt", "Description", "Status", "ManagerStatus")
    local = ("Containers", "Peers", "Created", "EnableIPv4")  # the last is newer than Debian's
    kept = {key: value for key, value in found.items() if key not in (*moving, *local)}
    if "Labels" in kept:
        kept["Labels"] = kept["Labels"] or {}  # null, once the network is in use on this host
    return kept


def states(node: Node) -> dict[str, str]:
    out = node.docker("node", "ls", "--format", "{{.ID}} {{.Status}}", check=False).stdout
    return dict(line.split(" ", 1) for line in out.splitlines())


def wait_ready(node: Node, count: int) -> None:
    def ready() -> bool:
        found = states(node)
        return len(found) == count and set(found.values()) == {"Ready"}

    wait_until(f"{count} nodes are ready", ready, 60, pause=0.2)


def own_id(node: Node) -> str:
    """The id of the node itself."""
    return node.docker("info", "--format", "{{.Swarm.NodeID}}").stdout.strip()


def furnish(engine: Engine) -> None:
    """Give a stock swarm something worth keeping."""
    engine.docker("swarm", "init", "--advertise-addr", engine.ip, "--cert-expiry", "1000h")
    engine.docker("swarm", "update", "--task-history-limit", "7")
    engine.docker("node", "update", "--label-add", "rack=r1", own_id(engine))
    engine.docker(
        *("network", "create", "--driver", "overlay", "--subnet", "10.77.0.0/24"),
        *("--attachable", "--label", "team=a", "blue"),
    )
    engine.docker("secret", "create", "--label", "kind=word", "word", "-", stdin="hush")
    engine.docker("config", "create", "page", "-", stdin="<html>")
    engine.docker(
        *("service", "create", "--detach", "--name", "web", "--no-resolve-image"),
        *("--network", "blue", "--constraint", "node.labels.none==x", "--secret", "word"),
        *("--publish", "8080:80", "busybox", "true"),
    )


def move_over(old: Engine, new: Swarmd) -> None:
    """Stop the stock engine, and go on with swarmd on the same host."""
    old.stop()
    new.stop()
    move(old.swarm_dir, new.state_dir / "swarm")
    new.start()


def move_back(old: Swarmd, new: Engine) -> None:
    """Stop swarmd, and go on with the stock engine."""
    assert old.stop() == 0
    move(old.state_dir / "swarm", new.swarm_dir)
    new.start()


def same(node: Node, before: dict[str, Any]) -> Callable[[], bool]:
    def check() -> bool:
        return objects(node) == before

    return check


def test_a_stock_swarm_moves_to_swarmd_and_back(lan: Lan) -> None:
    with (
        Engine("a", lan=lan) as engine,
        Engine("b", lan=lan) as worker,
        Swarmd("a", lan=lan) as manager,
    ):
        furnish(engine)
        token = engine.docker("swarm", "join-token", "-q", "worker").stdout.strip()
        worker.docker("swarm", "join", "--token", token, f"{engine.ip}:2377")
        wait_ready(engine, 2)
        before = objects(engine)

        move_over(engine, manager)
        wait_ready(manager, 2)
        assert objects(manager) == before
        assert "Traceback" not in manager.log
        # It is a cluster of ours now: it can be changed, joined and left.
        manager.docker("node", "update", "--label-add", "under=swarmd", own_id(manager))
        with Swarmd("c", lan=lan) as joining:
            joining.docker("swarm", "join", "--token", token, f"{manager.ip}:2377")
            wait_ready(manager, 3)
            joining.docker("swarm", "leave")
        manager.docker("node", "rm", "--force", joined_id(manager, before["nodes"]))
        manager.docker("config", "create", "more", __file__)
        before = objects(manager)
        configs = manager.docker("config", "ls", "--format", "{{.ID}} {{.Name}}").stdout

        move_back(manager, engine)
        wait_ready(engine, 2)
        assert objects(engine) == before
        assert engine.docker("config", "ls", "--format", "{{.ID}} {{.Name}}").stdout == configs
        labels = engine.json("node", "inspect", "self")[0]["Spec"]["Labels"]
        assert labels == {"rack": "r1", "under": "swarmd"}


def joined_id(manager: Swarmd, known: list[str]) -> str:
    """The node that was not there before."""
    (new,) = set(manager.docker("node", "ls", "-q").stdout.split()) - set(known)
    return new


def test_a_locked_stock_swarm_moves_to_swarmd_and_back(lan: Lan) -> None:
    with Engine("a", lan=lan) as engine, Swarmd("a", lan=lan) as manager:
        furnish(engine)
        engine.docker("swarm", "update", "--autolock")
        key = engine.docker("swarm", "unlock-key", "-q").stdout.strip()
        file = engine.swarm_dir / "certificates" / "swarm-node.key"
        wait_until("the key file is sealed", lambda: "ENCRYPTED" in file.read_text())
        before = objects(engine)

        move_over(engine, manager)
        assert manager.json("info", "--format", "{{json .Swarm}}")["LocalNodeState"] == "locked"
        unlock(manager, key)
        wait_ready(manager, 1)
        assert objects(manager) == before
        assert manager.docker("swarm", "unlock-key", "-q").stdout.strip() == key

        move_back(manager, engine)
        assert engine.json("info", "--format", "{{json .Swarm}}")["LocalNodeState"] == "locked"
        unlock(engine, key)
        wait_ready(engine, 1)
        assert objects(engine) == before


def unlock(node: Node, key: str) -> None:
    """POST /swarm/unlock; the command itself wants a terminal."""
    body = json.dumps({"UnlockKey": key})
    request = ["curl", "-sf", "--unix-socket", node.socket, "-H", "Content-Type: application/json"]
    done = subprocess.run([*request, "-d", body, "http://docker/swarm/unlock"], timeout=60)
    assert done.returncode == 0


def test_a_stock_worker_becomes_a_swarmd_worker(lan: Lan) -> None:
    with (
        Swarmd("m", lan=lan) as manager,
        Engine("w", lan=lan) as engine,
        Swarmd("w", lan=lan) as worker,
    ):
        manager.docker("swarm", "init", "--advertise-addr", manager.ip)
        token = manager.docker("swarm", "join-token", "-q", "worker").stdout.strip()
        engine.docker("swarm", "join", "--token", token, f"{manager.ip}:2377")
        wait_ready(manager, 2)
        before = states(manager)
        (stock,) = versions(manager)
        move_over(engine, worker)
        wait_until(
            "it says it is active",
            lambda: (
                worker.json("info", "--format", "{{json .Swarm}}")["LocalNodeState"] == "active"
            ),
        )
        # The manager would list it as ready for a while after it was gone.
        wait_until("it describes itself", lambda: stock not in versions(manager))
        wait_ready(manager, 2)
        assert states(manager) == before
        move_back(worker, engine)
        wait_until("stock describes itself", lambda: stock in versions(manager), 60)
        wait_ready(manager, 2)
        assert states(manager) == before


def versions(manager: Swarmd) -> set[str]:
    """The engines' versions by the nodes' own word, the manager's own left out."""
    shown = "{{.Hostname}} {{.EngineVersion}}"
    rows = manager.docker("node", "ls", "--format", shown).stdout.splitlines()
    return {row.partition(" ")[2] for row in rows if row.split()[0] != manager.name}
