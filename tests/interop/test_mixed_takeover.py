"""swarmd managers take a living stock swarm over, object by object, and give it back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.quorum import (
    Node,
    change,
    containers,
    import_busybox,
    join,
    rest,
    wait_leader,
    wait_listed,
)
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

SLEEP = ("--no-resolve-image", "box:latest", "/bin/busybox", "sleep", "100000")
# What the running managers and workers go on writing, what is only local to one host, and what
# is newer than Debian's engine (EnableIPv4, Volumes).
MOVING = {
    "swarm": ("Version", "UpdatedAt"),
    "networks": ("Containers", "Peers", "EnableIPv4"),
    "tasks": ("Version", "UpdatedAt", "Status", "Volumes"),
}


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()
    with Lan() as made:
        yield made


def furnish(at: Engine) -> None:
    """A stock swarm with one of everything; `keep` and `web` run on w2."""
    at.docker("secret", "create", "--label", "kind=word", "word", "-", stdin="hush")
    at.docker("config", "create", "page", "-", stdin="<html>")
    at.docker("network", "create", "-d", "overlay", "--subnet", "10.77.0.0/24", "net")
    serve(at, "keep", "w2")
    serve(at, "web", "w2")
    at.docker(
        *("service", "create", "--detach", "--name", "nowhere", "--network", "net"),
        *(
            "--publish",
            "8080:80",
            "--constraint",
            "node.labels.none==x",
            "--secret",
            "word",
            *SLEEP,
        ),
    )


def serve(at: Node, name: str, host: str) -> None:
    """A service of one task on one host, with the secret and the config."""
    at.docker(
        *("service", "create", "--detach", "--name", name, "--network", "host"),
        *("--secret", "word", "--config", "source=page,target=/etc/page"),
        *("--constraint", f"node.hostname=={host}", *SLEEP),
    )


def objects(at: Node) -> dict[str, Any]:
    """Every object of the swarm as this manager shows it, by kind and id."""
    scope = quote(json.dumps({"scope": ["swarm"]}))
    kinds = {
        kind: rest(at, "GET", f"/{kind}" + (f"?filters={scope}" if kind == "networks" else ""))
        for kind in ("secrets", "configs", "networks", "services", "tasks")
    }
    kinds["swarm"] = [rest(at, "GET", "/swarm")]
    nodes = rest(at, "GET", "/nodes")
    return {
        "nodes": {node["Description"]["Hostname"]: node["ID"] for node in nodes},
        **{
            kind: {one.get("ID") or one["Id"]: kept(kind, one) for one in found}
            for kind, found in kinds.items()
        },
    }


def kept(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """An object without what moves."""
    return {key: value for key, value in found.items() if key not in MOVING.get(kind, ())}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two decoded answers are not the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        gone = object()
        pairs = [(key, one.get(key, gone), other.get(key, gone)) for key in keys]
        return [line for key, a, b in pairs for line in differences(a, b, f"{path}/{key}")]
    return [] if one == other else [f"{path}: {one!r} / {other!r}"]


def states(at: Node, service: str) -> list[str]:
    """What the tasks of a service do, by its manager's word."""
    named = quote(json.dumps({"service": [service]}))
    return sorted(task["Status"]["State"] for task in rest(at, "GET", f"/tasks?filters={named}"))


def container_of(engine: Engine, service: str) -> str:
    """The running container of a service's only task here, or ""."""
    labelled = f"label=com.docker.swarm.service.name={service}"
    return engine.docker("ps", "-q", "--no-trunc", "--filter", labelled).stdout.strip()


def reads(engine: Engine, container: str, path: str) -> str:
    """A file as the container sees it."""
    return engine.docker("exec", container, "/bin/busybox", "cat", path).stdout


def pid_of(engine: Engine, container: str) -> int:
    return int(engine.docker("inspect", "--format", "{{.State.Pid}}", container).stdout)


def shown(engine: Engine, container: str) -> str:
    """What `containers` says of one."""
    return next(row for row in containers(engine) if row.startswith(container))


def test_a_living_stock_swarm_is_taken_over_and_given_back(lan: Lan) -> None:
    with (
        Engine("e1", lan=lan) as e1,
        Engine("w2", lan=lan) as w2,
        Engine("w3", lan=lan) as w3,
        Swarmd("m1", lan=lan) as m1,
        Swarmd("m2", lan=lan) as m2,
    ):
        e1.docker(
            *("swarm", "init", "--advertise-addr", e1.ip, "--default-addr-pool", "10.20.0.0/16"),
            *("--default-addr-pool-mask-length", "26", "--cert-expiry", "1000h"),
            *("--dispatcher-heartbeat", "60s"),  # a worker that dies keeps its tasks for three
        )
        for worker in (w2, w3):
            import_busybox(worker)
            join(worker, e1, "worker")
        furnish(e1)
        before = wait_until("both run", lambda: len(found := containers(w2)) == 2 and found, 60)
        for name in ("keep", "web"):
            wait_until("and it is known", lambda n=name: states(e1, n) == ["running"], 60)
        join(m1, e1, "manager")
        join(m2, m1, "manager")
        wait_listed(e1, e1="Ready Leader", m1="Ready Reachable", m2="Ready Reachable")
        # Given to w3 while w3 is dead: ours is the leader that will hand it out.
        w3.kill()
        serve(e1, "late", "w3")
        wait_until("it is assigned", lambda: states(e1, "late") == ["assigned"], 60)
        wanted = objects(e1)
        for at in (m1, m2):
            assert differences(objects(at), wanted) == [], "through a follower"

        change(e1, "demote", "e1")
        wait_leader(m1, "m1", "m2")
        wait_listed(m1, e1="Ready", w2="Ready")
        for at in (m1, m2):
            assert differences(objects(at), wanted) == []
        assert containers(w2) == before, "a container was touched"
        w3.start()
        late = wait_until("it runs", lambda: container_of(w3, "late"), 120)
        assert reads(w3, late, "/run/secrets/word") == "hush"
        assert reads(w3, late, "/etc/page") == "<html>"
        late_before = shown(w3, late)
        for at in (m1, m2):
            wait_until("and is known to", lambda at=at: states(at, "late") == ["running"], 60)
        web, keep = container_of(w2, "web"), container_of(w2, "keep")
        keep_before = shown(w2, keep)
        os.kill(pid_of(w2, web), signal.SIGKILL)
        for at in (m1, m2):
            wait_until("its end is known", lambda at=at: "failed" in states(at, "web"), 60)
            assert states(at, "keep") == ["running"]
        assert "Failed" in m2.docker("service", "ps", "web").stdout

        first = wait_leader(m1, "m1", "m2")
        second = "m2" if first == "m1" else "m1"
        lead = {"m1": m1, "m2": m2}[first]
        change(lead, "promote", "e1")
        wait_listed(e1, **{first: "Ready Leader"}, e1="Ready Reachable")  # it serves, too
        for name in (second, first):
            change(e1, "demote", name)
            wait_listed(e1, **{name: "Ready"})
        wait_listed(e1, e1="Ready Leader", m1="Ready", m2="Ready", w2="Ready", w3="Ready")
        assert objects(e1)["swarm"] == wanted["swarm"]
        assert objects(e1)["nodes"] == wanted["nodes"]
        # Stock goes on with what it finds: the failed one is replaced, the others are left alone.
        again = wait_until("it is replaced", lambda: container_of(w2, "web"), 60)
        assert again != web
        e1.docker("service", "scale", "--detach", "keep=2")
        wait_until("there are two", lambda: states(e1, "keep").count("running") == 2, 60)
        assert keep_before in containers(w2)
        assert containers(w3) == [late_before]
        for node in (m1, m2):
            assert "Traceback" not in node.log
