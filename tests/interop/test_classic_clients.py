"""What stock docker clients do with a classic cluster of three stock engines."""

from __future__ import annotations

import json
import select
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.classic import (
    MANAGER_PORT,
    SLEEP,
    Walk,
    info,
    node_of,
    run,
    stock_clis,
    tls_flags,
    walking,
)
from tests.harness.engines import wait_until
from tests.harness.tlsfiles import Files

# The engines' start and end count: minutes where eight others keep the machine busy.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with walking(tmp_path_factory.mktemp("classic")) as made:
        wait_until("three are healthy", lambda: info(made).count("Status: Healthy") == 3)
        yield made


def certificates(walk: Walk) -> dict[str, str]:
    """The variables of the guide: where the manager is, and a directory with the client's files."""
    place = walk.root / "docker"
    place.mkdir(exist_ok=True)
    for theirs, ours in (("ca", "ca"), ("cert", "client"), ("key", "client-key")):
        shutil.copy(walk.root / f"ca/{ours}.pem", place / f"{theirs}.pem")
    host = f"tcp://{walk.master.ip}:{walk.port}"
    return {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(place)}


@pytest.mark.parametrize("cli", stock_clis())
def test_events_say_their_node(walk: Walk, cli: str) -> None:
    watcher = walk.popen("events", "--filter", "type=container", "--format", "{{json .}}", cli=cli)
    assert watcher.stdout is not None

    def told(name: str) -> dict[str, dict[str, Any]]:
        """Action -> event, until the container's death."""
        found: dict[str, dict[str, Any]] = {}
        while "die" not in found:
            event = json.loads(watcher.stdout.readline() if watcher.stdout else "")
            if event["Actor"]["Attributes"].get("name") == name:
                found[event["Action"]] = event
        return found

    try:
        # Events begin with now, so there is nothing to wait for but the watcher itself.
        for number in range(100):
            name = f"told{number}"
            args = ("--name", name, "-e", "constraint:node==n2", "box", "/bin/busybox", "true")
            walk.docker("run", "--net=none", *args)
            walk.docker("rm", name)
            if select.select([watcher.stdout], [], [], 0.2)[0]:
                break
        line = json.loads(watcher.stdout.readline())
        name = f"told{number + 1}"
        args = ("--name", name, "-e", "constraint:node==n2", "box", "/bin/busybox", "sh", "-c")
        ran = walk.docker("run", "--net=none", *args, "exit 9", check=False)
        assert ran.returncode == 9
        found = told(name)
    finally:
        watcher.kill()
    address = f"{walk.engines['n2'].ip}:2376"
    assert next(iter(found)) == "create"
    assert {"create", "start", "die"} <= set(found)
    for event in [line, *found.values()]:
        attributes = event["Actor"]["Attributes"]
        assert event["from"] == "box node:n2"
        assert attributes["node.name"] == "n2"
        assert attributes["node.addr"] == address
        assert attributes["node.ip"] == walk.engines["n2"].ip
        assert attributes["node.id"].endswith(f"|{address}")
        assert attributes["image"] == "box"
    assert found["die"]["Actor"]["Attributes"]["exitCode"] == "9"
    walk.docker("rm", name)


ECHO = "while read x; do busybox echo got $x; [ $x = end ] && exit 7; done"


@pytest.mark.parametrize("cli", stock_clis())
def test_attach_and_what_is_left(walk: Walk, cli: str) -> None:
    shell = ("box", "/bin/busybox", "sh", "-c")
    where = ("-l", "color=red", "-e", "constraint:node==n3")
    walk.docker("run", "-di", "--net=none", "--name", "talker", *where, *shell, ECHO, cli=cli)
    attached = walk.popen("attach", "talker", cli=cli)
    assert attached.stdin is not None
    assert attached.stdout is not None
    # An engine drops what is not yet printed when the input of an attach ends: so it stays open.
    said = ""
    for word in ("one", "end"):
        attached.stdin.write(f"{word}\n")
        attached.stdin.flush()
        said += attached.stdout.readline()
    said += attached.stdout.read()
    assert (said, attached.wait(60)) == ("got one\ngot end\n", 7)
    assert walk.docker("logs", "talker", cli=cli).stdout == said
    assert walk.docker("wait", "talker", cli=cli).stdout == "7\n"
    again = walk.docker("attach", "talker", check=False, cli=cli)
    assert (again.returncode, "stopped container" in again.stderr) == (1, True)
    slow = "for i in 1 2 3; do busybox echo $i; busybox sleep 0.2; done; exit 5"
    run(walk, "--name", "slow", *where, *shell, slow)
    assert walk.docker("logs", "-f", "slow", cli=cli).stdout == "1\n2\n3\n"
    walk.docker("rm", "slow")
    filters_of_ps(walk, cli)


def filters_of_ps(walk: Walk, cli: str) -> None:
    """On the container that was attached to: n3/talker, red, exited with 7."""
    for filters, shown in (
        (["exited=7", "label=color=red", "node=n3", "name=talker", "status=exited"], True),
        (["label=color"], True),
        (["status=running"], False),
        (["exited=8"], False),
        (["label=color=blue"], False),
        (["node=n1"], False),
        (["name=nobody"], False),
    ):
        flags = [flag for text in filters for flag in ("--filter", text)]
        listed = walk.docker("ps", "-a", *flags, "--format", "{{.Names}}", cli=cli).stdout
        assert (listed == "n3/talker\n") is shown, (filters, listed)
    assert walk.docker("ps", "-q", "--filter", "label=color", cli=cli).stdout == ""
    node = walk.docker("inspect", "--format", "{{json .Node}}", "talker", cli=cli).stdout
    seen = json.loads(node)
    assert (seen["Name"], seen["IP"]) == ("n3", walk.engines["n3"].ip)
    assert seen["Addr"] == f"{seen['IP']}:2376"
    assert seen["Labels"]["zone"] == "far"
    assert seen["Cpus"] > 0 and seen["Memory"] > 0
    walk.docker("rm", "talker", cli=cli)


@pytest.mark.parametrize("cli", stock_clis()[:1])
def test_images_are_made_and_moved(walk: Walk, cli: str) -> None:
    """What makes images, and what all nodes get."""

    def ask(*args: str) -> str:
        return walk.docker(*args, cli=cli).stdout

    def nodes_with(name: str) -> list[str]:
        return [n for n in ("n1", "n2", "n3") if ask("images", "-q", "-f", f"node={n}", name)]

    run(walk, "--name", "maker", "-e", "constraint:node==n2", *SLEEP)
    (walk.root / "hi").write_text("hi\n")
    ask("cp", str(walk.root / "hi"), "maker:/tmp/hi")
    assert ask("exec", "maker", "/bin/busybox", "cat", "/tmp/hi") == "hi\n"
    assert "A /tmp/hi" in ask("diff", "maker").splitlines()
    ask("commit", "maker", "made:1")
    assert nodes_with("made:1") == ["n2"]
    assert ask("history", "-q", "made:1").split()
    ask("tag", "made:1", "made:2")
    ask("save", "-o", str(walk.root / "made.tar"), "made:1", "made:2")
    ask("rmi", "made:1", "made:2")
    assert nodes_with("made") == []
    loaded = ask("load", "-i", str(walk.root / "made.tar"))
    assert all(f"{node}: Loading Image... : done" in loaded for node in ("n1", "n2", "n3"))
    assert nodes_with("made:2") == ["n1", "n2", "n3"]
    # There is no registry: what matters is that an engine was found and answered.
    pushed = walk.docker("push", "made:1", check=False, cli=cli)
    assert pushed.returncode == 1
    assert "No such image" not in pushed.stderr
    ask("export", "-o", str(walk.root / "flat.tar"), "maker")
    ask("import", str(walk.root / "flat.tar"), "flat:1")
    assert nodes_with("flat:1") == ["n1", "n2", "n3"]
    (walk.root / "built").mkdir(exist_ok=True)
    (walk.root / "built/Dockerfile").write_text("FROM box\nLABEL a=b\n")
    where = ("--build-arg", "constraint:node==n3")
    ask("build", "-q", "-t", "built:1", *where, str(walk.root / "built"))
    assert nodes_with("built:1") == ["n3"]
    ask("rmi", "made:1", "made:2", "flat:1", "built:1")
    assert set(ask("images", "--format", "{{.Repository}}").split()) == {"box"}
    ask("rm", "-f", "maker")


@pytest.mark.parametrize("cli", stock_clis()[-1:])
def test_all_that_is_done_to_a_container(walk: Walk, cli: str) -> None:
    """The rest of what is done to one container; and ports, which two may not share."""

    def ask(*args: str) -> str:
        return walk.docker(*args, cli=cli).stdout

    def status(name: str) -> str:
        return ask("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}")

    run(walk, "--name", "busy", *SLEEP)
    assert "busybox sleep 100000" in ask("top", "busy")
    by_variables = walk.master.run(
        [cli, "exec", f"{node_of(walk, 'busy')}/busy", "/bin/busybox", "echo", "here"],
        env={**walk.environment(), **certificates(walk)},
    )
    assert by_variables.stdout == "here\n"
    assert "busy" in ask("stats", "--no-stream", "busy")
    ask("pause", "busy")
    assert "(Paused)" in status("busy")
    ask("unpause", "busy")
    ask("update", "--restart", "on-failure:3", "busy")
    policy = "{{.HostConfig.RestartPolicy.MaximumRetryCount}}"
    assert ask("inspect", "--format", policy, "busy") == "3\n"
    failed = walk.docker("exec", "busy", "/bin/busybox", "sh", "-c", "exit 4", cli=cli, check=False)
    assert failed.returncode == 4
    ask("stop", "-t", "0", "busy")
    assert "Exited" in status("busy")
    ask("rm", "busy")
    for name in ("web0", "web1", "web2"):
        ask("create", "--name", name, "-p", "8080:80", *SLEEP)
    assert sorted(node_of(walk, f"web{n}") for n in range(3)) == ["n1", "n2", "n3"]
    full = walk.docker("create", "-p", "8080:80", *SLEEP, check=False, cli=cli)
    assert "[port 8080 (Bridge mode)]" in full.stderr
    for number, need in enumerate((["--net", "container:web1"], ["--link", "web2:w"])):
        ask("create", "--name", f"with{number}", *need, *SLEEP)
        assert node_of(walk, f"with{number}") == node_of(walk, f"web{number + 1}")
    apart = ("--volumes-from", "web0", "--volumes-from", "web1")
    torn = walk.docker("create", *apart, *SLEEP, check=False, cli=cli)
    assert "[--volumes-from=web0 --volumes-from=web1]" in torn.stderr
    labelled = 'com.docker.swarm.constraints=["node==n2"]'
    ask("create", "--name", "labelled", "-l", labelled, *SLEEP)
    assert node_of(walk, "labelled") == "n2"
    ask("rm", "web0", "web1", "web2", "with0", "with1", "labelled")
    # What it never had it does not pretend to have.
    for absent in (("service", "ls"), ("container", "prune", "-f")):
        refused = walk.docker(*absent, check=False, cli=cli)
        assert "404 page not found" in refused.stderr


def test_strategies(walk: Walk) -> None:
    """Two more managers of the same nodes: nothing is stored, so they agree."""
    served = Files(walk.root / "ca/master.pem", walk.root / "ca/master-key.pem")
    tls = ["--tls", *tls_flags(walk.authority.ca, served)]
    for number, strategy in enumerate(("binpack", "random")):
        walk.port = MANAGER_PORT + 1 + number
        # The first address of two, as the variable takes them.
        hosts = f"tcp://{walk.master.ip}:{walk.port}, unix://{walk.root}/{strategy}.sock"
        args = ["manage", f"-strategy={strategy}", "--heartbeat=1s", *tls]
        variables = {"SWARM_HOST": hosts, "SWARM_DISCOVERY": walk.url}
        manager = walk.start(walk.master, *args, **variables)
        wait_until(f"{strategy} sees three", lambda: info(walk).count("Status: Healthy") == 3)
        assert f"Strategy: {strategy}" in info(walk)
        assert (walk.root / f"{strategy}.sock").is_socket()
        names = [f"{strategy}{n}" for n in range(3)]
        for name in names:
            walk.docker("create", "--name", name, "-m", "64m", *SLEEP)
        nodes = {node_of(walk, name) for name in names}
        assert len(nodes) == 1 or strategy == "random"
        walk.docker("rm", *names)
        manager.terminate()
        assert manager.wait(20) == 0
    walk.port = MANAGER_PORT
