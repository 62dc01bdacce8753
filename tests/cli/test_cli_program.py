"""The program as a program: start-up, imports, completion, signals."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import swarmctl
from tests.harness.fakedaemon import FakeDaemon, serving

ROOT = Path(__file__).parent.parent.parent


def program(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarmctl", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", [["--version"], ["-v"], ["-D", "--version"]])
def test_version_flag(words: list[str]) -> None:
    ran = program(*words)
    assert (ran.stdout, ran.returncode) == (f"swarmctl version {swarmctl.__version__}\n", 0)


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert swarmctl.__version__ == project["version"]


def imported(code: str) -> set[str]:
    script = f"import sys; {code}; print(' '.join(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.splitlines()[-1].split())


def test_version_imports_next_to_nothing() -> None:
    modules = imported("from swarmctl.__main__ import main; main(['--version'])")
    assert not modules & {"click", "json", "http.client", "swarmctl.cli"}


def test_nothing_of_the_daemon_is_imported() -> None:
    every = "; ".join(
        f"import swarmctl.{path.relative_to(ROOT / 'swarmctl').with_suffix('')}".replace("/", ".")
        for path in sorted((ROOT / "swarmctl").rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    )
    modules = imported(every)
    assert "swarmctl.commands.network" in modules
    foreign = {name for name in modules if name.partition(".")[0] in ("swarmd", "grpc", "aiohttp")}
    # The template language is the one exception (docs/decisions/0006), and a leaf.
    packages = {"swarmd", "swarmd.base"}
    assert {name for name in foreign if not name.startswith("swarmd.base.gotemplate")} <= packages


def test_a_command_loads_only_its_own_module() -> None:
    modules = imported("from swarmctl.cli import run; run(['node', 'ls', '--help'])")
    commands = {name for name in modules if name.startswith("swarmctl.commands.")}
    assert "swarmctl.commands.node" in commands
    assert not commands & {"swarmctl.commands.network", "swarmctl.commands.ca"}
    assert "http.client" not in modules and "ssl" not in modules


# -- completion ------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    ran = program("completion", shell)
    assert ran.returncode == 0 and ran.stderr == ""
    assert "_SWARMCTL_COMPLETE" in ran.stdout and "swarmctl" in ran.stdout


def complete(line: str, **env: str) -> list[str]:
    words = line.split(" ")
    ran = program(
        _SWARMCTL_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), **env
    )
    assert ran.returncode == 0, ran.stderr
    return [entry.partition(",")[2] for entry in ran.stdout.split()]


@pytest.mark.parametrize(
    ("line", "some", "no"),
    [
        ("swarmctl ", ["init", "node", "network", "join-token"], ["list"]),
        ("swarmctl no", ["node"], ["network"]),
        ("swarmctl node ", ["ls", "ps", "promote"], ["list", "remove", "create"]),
        ("swarmctl swarm un", ["unlock", "unlock-key"], ["update"]),
        ("swarmctl node ls --f", ["--filter", "--format"], ["--quiet"]),
        ("swarmctl -H unix:///x node in", ["inspect"], ["ls"]),
        ("swarmctl join-token ", ["worker", "manager"], []),
        ("swarmctl node update --availability ", ["active", "pause", "drain"], []),
        ("swarmctl completion ", ["bash", "zsh", "fish"], []),
    ],
)
def test_completion(line: str, some: list[str], no: list[str]) -> None:
    found = complete(line, DOCKER_HOST="unix:///nonexistent")
    assert set(some) <= set(found)
    assert not set(no) & set(found)


def test_names_of_nodes_and_networks_complete(tmp_path: Path) -> None:
    daemon = FakeDaemon()
    daemon.on(
        "GET", "/nodes", [{"Description": {"Hostname": name}} for name in ("se2", "se1", "x")]
    )
    daemon.on("GET", "/networks", [{"Name": "net1"}])
    with serving(daemon, tmp_path / "d.sock") as url:
        assert complete("swarmctl node rm se", DOCKER_HOST=url) == ["se1", "se2", "self"]
        assert complete("swarmctl network rm ", DOCKER_HOST=url) == ["net1"]


def test_a_reader_that_goes_away_is_no_trace_back(tmp_path: Path) -> None:
    daemon = FakeDaemon()
    daemon.on("GET", "/networks", [{"Id": f"{n:020}", "Name": f"n{n}"} for n in range(20000)])
    with serving(daemon, tmp_path / "d.sock") as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "swarmctl", "-H", url, "network", "ls"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Unbuffered, Python forgets the rest of a partial write and sees no error.
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 141
    assert error == b""
