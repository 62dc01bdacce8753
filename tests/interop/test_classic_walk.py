"""Swarm v1 with stock engines over TCP with TLS: create, join, list, info, run, lose a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.classic import SLEEP, Walk, info, members, node_of, run, walking
from tests.harness.engines import wait_until

# The engines' start and end count: minutes where eight others keep the machine busy.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


def test_the_walk_of_the_second_document(tmp_path: Path) -> None:
    with walking(tmp_path) as walk:
        wanted = sorted(f"{engine.ip}:2376" for engine in walk.engines.values())
        wait_until("three are listed", lambda: members(walk) == wanted)
        wait_until("three are healthy", lambda: info(walk).count("Status: Healthy") == 3)
        shown = info(walk)
        assert "Nodes: 3" in shown
        assert "Strategy: spread" in shown
        for name, engine in walk.engines.items():
            assert f" {name}: {engine.ip}:2376" in shown
        everyday_commands(walk)
        placement(walk)
        streams(walk)
        a_node_is_lost(walk)
        assert walk.token not in walk.log("n1-join") + walk.log("master-manage")


def everyday_commands(walk: Walk) -> None:
    for number in range(3):
        run(walk, "--name", f"s{number}", *SLEEP)
    names = walk.lines("ps", "--format", "{{.Names}} {{.Status}}")
    assert sorted(name.split("/")[0] for name in names) == ["n1", "n2", "n3"]  # spread
    assert sorted(name.split()[0].split("/")[1] for name in names) == ["s0", "s1", "s2"]
    assert all(" Up " in name for name in names)
    place = walk.lines("inspect", "--format", "{{.Name}} {{json .HostConfig.NetworkMode}}", "s1")
    assert place == ['/s1 "none"']
    assert set(walk.lines("images", "--format", "{{.Repository}}:{{.Tag}}")) == {"box:latest"}
    walk.docker("exec", "s1", "/bin/busybox", "touch", "/tmp/here")
    assert walk.lines("exec", "s1", "/bin/busybox", "ls", "/tmp") == ["here"]
    taken = walk.docker("create", "--name", "s1", *SLEEP, check=False)
    assert "Conflict: The name s1 is already assigned" in taken.stderr
    walk.docker("rename", "s1", "renamed")
    walk.docker("stop", "-t", "0", "renamed")
    assert not any("renamed" in name for name in walk.lines("ps", "--format", "{{.Names}}"))
    assert any("/renamed" in name for name in walk.lines("ps", "-a", "--format", "{{.Names}}"))
    walk.docker("start", "renamed")
    walk.docker("restart", "-t", "0", "renamed")
    walk.docker("kill", "renamed")
    walk.docker("rm", "-f", "s0", "renamed", "s2")
    assert walk.lines("ps", "-aq") == []
    networks = walk.lines("network", "ls", "--format", "{{.Name}}")
    assert sorted(networks) == sorted(f"n{n}/{net}" for n in (1, 2, 3) for net in ("none", "host"))
    walk.docker("volume", "create", "n2/data")
    walk.docker("volume", "create", "all")
    volumes = walk.lines("volume", "ls", "--format", "{{.Name}}")
    assert sorted(volumes) == ["n1/all", "n2/all", "n2/data", "n3/all"]
    walk.docker("volume", "rm", "n2/data", "all")
    assert walk.lines("volume", "ls", "-q") == []
    assert "swarm/" in walk.docker("version").stdout


def placement(walk: Walk) -> None:
    run(walk, "--name", "fast", "-e", "constraint:storage==ssd", *SLEEP)
    assert node_of(walk, "fast") == "n1"
    run(walk, "--name", "near", "-e", "affinity:container==fast", *SLEEP)
    assert node_of(walk, "near") == "n1"
    run(walk, "--name", "apart", "-e", "constraint:node!=n1", "-e", "constraint:node!=n2", *SLEEP)
    assert node_of(walk, "apart") == "n3"
    run(walk, "--name", "with", "--volumes-from", "apart", *SLEEP)
    assert node_of(walk, "with") == "n3"
    nowhere = walk.docker("run", "-e", "constraint:storage==tape", *SLEEP, check=False)
    assert "Unable to find a node that satisfies the following conditions" in nowhere.stderr
    assert "[storage==tape]" in nowhere.stderr
    walk.docker("rm", "-f", "fast", "near", "apart", "with")
    # Only one engine has this image: the others cannot pull it.
    walk.engines["n2"].docker("tag", "box:latest", "rare:1")
    for number in range(2):
        run(walk, "--name", f"rare{number}", "rare:1", *SLEEP[1:])
        assert node_of(walk, f"rare{number}") == "n2"
    walk.docker("rm", "-f", "rare0", "rare1")


def streams(walk: Walk) -> None:
    ran = walk.docker("run", "--rm", "--net=none", "box", "/bin/busybox", "echo", "hello")
    assert ran.stdout == "hello\n"
    cat = ("--net=none", "box", "/bin/busybox", "sh", "-c", "busybox cat; busybox echo end")
    ran = walk.docker("run", "--rm", "-i", *cat, stdin="line\n" * 5000)
    assert ran.stdout == "line\n" * 5000 + "end\n"
    script = "busybox echo out; busybox echo err >&2; exit 3"
    ran = walk.docker(
        "run",
        "--name",
        "logged",
        "--net=none",
        "box",
        "/bin/busybox",
        "sh",
        "-c",
        script,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "out\n", "err\n")
    assert walk.docker("logs", "logged").stdout == "out\n"
    assert "Exited (3)" in walk.lines("ps", "-a", "--format", "{{.Status}}")[0]
    walk.docker("rm", "logged")


def a_node_is_lost(walk: Walk) -> None:
    kept = run(walk, "--name", "kept", "-e", "constraint:node==n1", *SLEEP)
    run(walk, "--name", "lost", "-e", "constraint:node==n3", *SLEEP)
    moved = ("--name", "moved", "-e", "constraint:node!=n1", "-e", "reschedule:on-node-failure")
    run(walk, *moved, "-e", "constraint:node==~n3", *SLEEP)
    assert node_of(walk, "moved") == "n3"
    walk.engines["n3"].kill()
    wait_until("n3 is unhealthy", lambda: "Status: Unhealthy" in info(walk))
    wait_until(
        "the container is made anew",
        lambda: "n2/moved" in walk.lines("ps", "--format", "{{.Names}}"),
    )
    assert [id[:12] for id in [kept]] == [
        line.split()[0]
        for line in walk.lines("ps", "--format", "{{.ID}} {{.Names}}")
        if line.endswith("/kept")
    ]
    statuses = walk.lines("ps", "-a", "--filter", "name=lost", "--format", "{{.Status}}")
    assert statuses == ["Host Down"]
    walk.joins["n3"].terminate()
    wait_until("n3 has left", lambda: "Nodes: 2" in info(walk))
    assert " n3: " not in info(walk)
    assert len(members(walk)) == 2
