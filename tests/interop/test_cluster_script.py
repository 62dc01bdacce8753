"""`make cluster`: five daemons with one command, as an ordinary user, and their end."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemons import NOBODY, ROOT, as_ordinary_user, daemon_place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def five_free_ports() -> int:
    """The first of five neighbouring ports nobody listens on."""
    for _ in range(100):
        first = random.randint(20_000, 30_000)
        try:
            with contextlib.ExitStack() as stack:
                for port in range(first, first + 5):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no five free ports")


class Script:
    """.make/cluster.sh with programs and state of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = str(five_free_ports())
        for program in ("swarmd", "swarmctl"):
            path = place / program
            path.write_text(
                f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {program} "$@"\n'
            )
            path.chmod(0o755)
        (place / "run").mkdir()
        self.user = self._ordinary_user()
        if self.user:
            os.chown(place / "run", NOBODY, NOBODY)

    def _ordinary_user(self) -> list[str]:
        """As the harness, but for an interpreter that a shell is to start."""
        user = as_ordinary_user()
        probe = subprocess.run([*user, self.place / "swarmctl", "--version"], capture_output=True)
        if user and probe.returncode != 0:
            user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        return user

    def run(self, *command: str, clean: str = "") -> str:
        done = self.call(*command, clean=clean)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, *command: str, clean: str = "") -> subprocess.CompletedProcess[str]:
        """How a command ended."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.place), "CLEAN": clean}
        env |= {"RUN": str(self.place / "run" / "c"), "PORT": self.port}
        return subprocess.run(
            [*self.user, *command],
            cwd=self.place,
            env=env,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def up(self) -> str:
        return self.run(str(ROOT / ".make/cluster.sh"), str(self.place), "up")

    def down(self, clean: str = "") -> str:
        return self.run(str(ROOT / ".make/cluster.sh"), str(self.place), "down", clean=clean)

    def pids(self) -> dict[str, str]:
        """Node -> process id of its daemon."""
        files = (self.place / "run" / "c").glob("*/pid")
        return {file.parent.name: file.read_text() for file in files}

    def ctl(self, node: str, *words: str) -> str:
        socket_path = self.place / "run" / "c" / node / "swarmd.sock"
        return self.run(str(self.place / "swarmctl"), "-H", f"unix://{socket_path}", *words)


@pytest.fixture
def script() -> Iterator[Script]:
    with daemon_place() as place:
        made = Script(place)
        try:
            yield made
        finally:
            made.down(clean="1")


def test_three_managers_and_two_workers(script: Script) -> None:
    out = script.up()
    pids = script.pids()
    assert len(pids) == 5
    rows = out.split("\n\n")[0].splitlines()[1:]
    assert sum("Ready" in row for row in rows) == 5
    assert sum("Leader" in row for row in rows) == 1
    assert sum("Reachable" in row for row in rows) == 2
    assert out.count("swarmctl join --token SWMTKN-1-") == 2
    assert "  Quorum: 2 of 3 managers, 1 can be lost\n" in script.ctl("m2", "info")
    ids = sorted(row.split()[0] for row in rows)
    again = script.up().split("\n\n")[0].splitlines()[1:]
    assert sorted(row.split()[0] for row in again) == ids
    assert script.pids() == pids, "what runs already is left alone"
    assert script.down() == "ended: w1 w2 m1 m2 m3\n"
    assert script.down() == "no cluster runs\n"
    rows = script.up().split("\n\n")[0].splitlines()[1:]
    assert sorted(row.split()[0] for row in rows) == ids, "the same cluster, from its state"
    script.down(clean="1")
    assert not (script.place / "run" / "c").exists()


@contextlib.contextmanager
def stranger(script: Script, pidfile: Path) -> Iterator[None]:
    """A process of the same user with the number of a daemon that was killed; it must live on."""
    other = subprocess.Popen([*script.user, "sleep", "60"])
    try:
        script.run("mkdir", "-p", str(pidfile.parent))
        script.run("sh", "-c", f"echo {other.pid} > {pidfile}")
        yield
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_pid_file_left_behind_ends_nobody_else(script: Script) -> None:
    with stranger(script, script.place / "run" / "c" / "m2" / "pid"):
        assert script.down() == "no cluster runs\n"
    run = script.place / "run" / "one"
    with stranger(script, run / "swarmd.pid"):
        assert script.run("make", "-s", "-f", str(ROOT / "Makefile"), "down", f"RUN={run}") == (
            "swarmd does not run\n"
        )


def test_locked_managers_are_named_at_once(script: Script) -> None:
    """They wait for their key, so the script would wait for them in vain."""
    stand_in = script.place / "swarmctl"
    stand_in.write_text("#!/bin/sh\ncase $2 in */m3/*) echo active ;; *) echo locked ;; esac\n")
    refused = script.call(str(ROOT / ".make/cluster.sh"), str(script.place), "up")
    assert refused.returncode == 1
    assert refused.stderr.startswith("locked: m1 m2\nUnlock each, then again: ")
