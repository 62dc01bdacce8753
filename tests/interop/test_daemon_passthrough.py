"""Containers of a stock engine through swarmd's socket, and the swarm from swarmd itself."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

BUSYBOX = "/bin/busybox"
# Enough to be put to a network of its own: no bridge, no address pools.
RUN = ("run", "--rm", "--network", "none")


def root_file_system() -> bytes:
    """A tar with a static busybox and what it is called by."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            made = tarfile.TarInfo(name)
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(made)
        tar.add(BUSYBOX, "bin/busybox")
        for tool in ("sh", "echo", "cat", "sleep", "stty", "true", "false", "head", "wc", "tty"):
            link = tarfile.TarInfo(f"bin/{tool}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()


@dataclass
class Through:
    """A swarmd in front of an engine; commands go to swarmd."""

    engine: Engine
    ours: Swarmd
    cli: str = "docker"

    def command(self, *args: str) -> list[str]:
        """A docker command against swarmd, on its host."""
        assert self.ours.host is not None
        return [*self.ours.host.enter(), self.cli, "-H", f"unix://{self.ours.socket}", *args]

    def run(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*args),
            input=stdin,
            capture_output=True,
            timeout=60,
            env=self.ours.environment(),
        )

    def out(self, *args: str, stdin: bytes = b"") -> str:
        """Its standard output; fails unless the command succeeds."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @contextlib.contextmanager
    def started(self, *args: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A command that goes on."""
        pipe = subprocess.PIPE
        options = {"stdin": pipe, "stdout": pipe, "stderr": pipe} | options
        process = subprocess.Popen(self.command(*args), env=self.ours.environment(), **options)
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[Through]:
    require_engine()
    with (
        Lan() as lan,
        Engine("a", lan=lan) as engine,
        Swarmd("a", lan=lan, args=("--engine", f"unix://{engine.socket}")) as ours,
    ):
        through = Through(engine, ours)
        through.out("import", "-", "busybox", stdin=root_file_system())
        ours.docker("swarm", "init", "--advertise-addr", ours.ip)
        yield through


@pytest.fixture(params=["docker", "/usr/bin/docker"])
def through(pair: Through, request: pytest.FixtureRequest) -> Through:
    """With every stock CLI there is."""
    found = shutil.which(request.param) or shutil.which("docker")
    assert found is not None
    return Through(pair.engine, pair.ours, found)


def test_the_uploaded_image_is_the_engines(through: Through) -> None:
    assert "busybox" in through.out("images", "--format", "{{.Repository}}").split()
    assert "busybox" in through.engine.docker("images", "--format", "{{.Repository}}").stdout


def test_run_gives_output_errors_and_exit_status(through: Through) -> None:
    done = through.run(*RUN, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_standard_input_reaches_the_container_and_ends(through: Through) -> None:
    data = os.urandom(1 << 20)
    done = through.run(*RUN, "-i", "busybox", "cat", stdin=data)
    assert (done.returncode, done.stdout == data) == (0, True)
    # Output that comes after the end of input must still arrive.
    counted = through.run(*RUN, "-i", "busybox", "wc", "-c", stdin=data)
    assert int(counted.stdout) == len(data)


class Terminal:
    """Our end of a terminal in which a command runs."""

    def __init__(self) -> None:
        self.own, self.command = pty.openpty()
        self.seen = b""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.own, text.encode())

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Read until `text` was shown."""
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            left = end - time.monotonic()
            ready, _, _ = select.select([self.own], [], [], max(left, 0))
            assert ready, f"{text!r} is not in {self.seen!r}"
            try:
                self.seen += os.read(self.own, 65536)
            except OSError:  # the other end is closed
                raise AssertionError(f"{text!r} is not in {self.seen!r}") from None

    def close(self) -> None:
        """Hang up."""
        for fd in (self.own, self.command):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def test_an_interactive_terminal(through: Through, terminal: Terminal) -> None:
    end = terminal.command
    options = {"stdin": end, "stdout": end, "stderr": end, "start_new_session": True}
    with through.started(*RUN, "-it", "busybox", "sh", **options) as process:
        terminal.wait_for("# ")
        terminal.type("echo $((40 + 2)) on a $(test -t 0 && echo terminal)\r")
        terminal.wait_for("42 on a terminal")
        terminal.type("stty size; exit 3\r")
        assert process.wait(30) == 3


def test_exec_and_its_exit_status(through: Through) -> None:
    with container(through, "sleep", "600") as name:
        assert through.out("exec", name, "echo", "inside") == "inside\n"
        assert through.run("exec", name, "sh", "-c", "exit 9").returncode == 9
        assert through.out("exec", "-i", name, "cat", stdin=b"typed") == "typed"


def test_exec_on_a_terminal(through: Through, terminal: Terminal) -> None:
    end = terminal.command
    options = {"stdin": end, "stdout": end, "stderr": end, "start_new_session": True}
    with (
        container(through, "sleep", "600") as name,
        through.started("exec", "-it", name, "sh", **options) as process,
    ):
        terminal.wait_for("# ")
        terminal.type("tty; exit 4\r")
        terminal.wait_for("/dev/pts/")
        assert process.wait(30) == 4


@contextlib.contextmanager
def container(through: Through, *command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """A container in the background."""
    name = through.out("run", "-d", "--network", "none", *options, "busybox", *command).strip()
    try:
        yield name
    finally:
        through.out("rm", "-f", name)


def test_attach_follows_what_is_typed(through: Through) -> None:
    with (
        container(through, "sh", "-c", "head -n 1; exit 5", options=("-i",)) as name,
        through.started("attach", name) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hello\n"
        assert process.wait(30) == 5


def test_logs_are_followed(through: Through) -> None:
    script = "echo one; head -n 1; echo three"
    with (
        container(through, "sh", "-c", script, options=("-i",)) as name,
        through.started("logs", "-f", name) as follower,
    ):
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"one\n"
        with through.started("attach", name) as process:
            assert process.stdin is not None
            process.stdin.write(b"two\n")
            process.stdin.flush()
            assert follower.stdout.readline() == b"two\n"
            assert follower.stdout.readline() == b"three\n"
        assert follower.wait(30) == 0


def test_events_of_both_sides_come_in_one_stream(through: Through) -> None:
    with through.started("events", "--format", "{{json .}}") as process:
        assert process.stdout is not None
        seen: list[tuple[str, str]] = []

        def next_event() -> tuple[str, str]:
            assert process.stdout is not None
            event = json.loads(process.stdout.readline())
            seen.append((event["Type"], event["Action"]))
            return seen[-1]

        # The stream is open once the first event is in it.
        node = through.ours.docker("node", "ls", "-q").stdout.strip()
        numbers = iter(range(1000))

        def provoke() -> bool:
            label = f"stream=n{next(numbers)}"
            through.ours.docker("node", "update", "--label-add", label, node)
            return bool(select.select([process.stdout], [], [], 0.3)[0])

        wait_until("an event comes", provoke, 30)
        assert next_event() == ("node", "update")
        through.out(*RUN, "busybox", "true")
        while ("container", "destroy") not in seen:
            next_event()
        assert ("container", "start") in seen


def test_the_swarm_is_ours_and_the_rest_is_the_engines(through: Through) -> None:
    info = json.loads(through.out("info", "--format", "{{json .}}"))
    assert info["Swarm"]["LocalNodeState"] == "active"
    assert info["Images"] == 1
    assert info["Driver"] == through.engine.json("info", "--format", "{{json .}}")["Driver"]
    assert through.engine.json("info", "--format", "{{json .Swarm}}")["LocalNodeState"] == (
        "inactive"
    )
    assert info["Swarm"]["NodeID"] == through.out("node", "ls", "-q").strip()
    engine = through.engine.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
    shown = through.out("node", "ls", "--format", "{{.Hostname}} {{.EngineVersion}}")
    assert shown == f"a {engine}\n"
    networks = through.out("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}")
    assert {"host host local", "none null local", "ingress overlay swarm"} <= set(
        networks.splitlines()
    )


def test_copying_files_both_ways(through: Through, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(os.urandom(300_000))
    with container(through, "sleep", "600") as name:
        through.out("cp", str(there), f"{name}:/tmp/file")
        through.out("cp", f"{name}:/tmp/file", str(back))
    assert back.read_bytes() == there.read_bytes()


def test_errors_of_the_engine_come_through(through: Through) -> None:
    done = through.run("inspect", "nosuch")
    assert done.returncode == 1
    assert "nosuch" in done.stderr.decode().lower()
    done = through.run(*RUN, "busybox", "/nonexistent")
    assert done.returncode == 127


def test_a_stop_cuts_followed_streams_and_stays_quick(pair: Through) -> None:
    with (
        container(pair, "sleep", "600") as name,
        pair.started("logs", "-f", name) as follower,
        pair.started("attach", name) as attached,
        pair.started("events") as events,
    ):
        wait_until("the engine serves all three", lambda: connections(pair) >= 3)
        began = time.monotonic()
        assert pair.ours.stop() == 0
        assert time.monotonic() - began < 3
        for process in (follower, attached, events):
            process.wait(10)
        assert "Traceback" not in pair.ours.log
        pair.ours.start()
    wait_until("it leads again", lambda: pair.run("node", "ls").returncode == 0)


def connections(pair: Through) -> int:
    """How many connections the engine's socket has."""
    assert pair.ours.host is not None
    table = pair.ours.host.run(["cat", "/proc/net/unix"]).stdout
    # State 03 is connected; the listening entry has 01.
    return sum(
        1
        for line in table.splitlines()
        if line.endswith(pair.engine.socket) and line.split()[5] == "03"
    )


def test_an_engine_that_is_gone_is_told_and_the_swarm_goes_on(pair: Through) -> None:
    pair.engine.stop()
    done = pair.run("ps")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr.decode()
    assert pair.run("node", "ls").returncode == 0
    pair.engine.start()
    assert "busybox" in pair.out("images", "--format", "{{.Repository}}")
