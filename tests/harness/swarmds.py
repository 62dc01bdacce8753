"""swarmd daemons for tests: the real program as a process, on a host of its own or alone.

with Lan() as lan, Swarmd("m1", lan=lan) as manager:
    manager.ctl("init", "--advertise-addr", manager.ip)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.daemons import answers
from tests.harness.lan import Host, Lan, wait_until

ROOT = Path(__file__).resolve().parents[2]


class Swarmd:
    """One swarmd process with its own state and socket. Use as a context manager."""

    def __init__(
        self,
        name: str,
        *,
        lan: Lan | None = None,
        args: Sequence[str] = ("--engine", "none"),
        stock_cli: str = "docker",
        program: Sequence[str] = ("-m", "swarmd"),
    ) -> None:
        """On the host `name` of `lan`, or in the present namespace on loopback.

        `program`: what Python is told to run.
        """
        self.name = name
        self.host: Host | None = lan.host(name) if lan is not None else None
        self.args = tuple(args)
        """Further options, from the next start on."""
        self._stock_cli = stock_cli
        self._program = tuple(program)
        self._process: subprocess.Popen[Any] | None = None
        self._stack = contextlib.ExitStack()
        self.root = Path()

    @property
    def ip(self) -> str:
        """The address of this daemon's host."""
        return self.host.ip if self.host is not None else "127.0.0.1"

    @property
    def socket(self) -> str:
        """Path of the REST API's socket."""
        return str(self.root / "run" / "swarmd.sock")

    @property
    def state_dir(self) -> Path:
        """The daemon's state directory."""
        return self.root / "state"

    @property
    def log(self) -> str:
        """What the daemon wrote so far."""
        path = self.root / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """Process id; raises when it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.root = Path(tempfile.mkdtemp(prefix=f"swd-{self.name}-"))
            stack.callback(shutil.rmtree, self.root, ignore_errors=True)
            stack.callback(self.kill)
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self.log:
            print(f"--- log of {self.name}\n{self.log[-6000:]}\n---")
        self._stack.close()

    def start(self, timeout: float = 60) -> None:
        """Start the daemon and wait until its API answers."""
        command = [sys.executable, *self._program, "--state-dir", str(self.state_dir)]
        command += ["--run-dir", str(self.root / "run"), "--hostname", self.name, *self.args]
        with open(self.root / "log", "ab") as log:
            options: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": subprocess.STDOUT,
                "cwd": ROOT,
                "env": self.environment(),
            }
            if self.host is not None:
                self._process = self.host.popen(command, **options)
            else:
                self._process = subprocess.Popen(command, **options)
        wait_until(f"{self.name} answers", self._answers, timeout, pause=0.02)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"swarmd {self.name} ended:\n{self.log[-4000:]}")
        return answers(self.socket)

    def stop(self, timeout: float = 30) -> int:
        """Stop as an operator would (SIGTERM); the exit status."""
        return self.signal(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End the daemon at once (SIGKILL); state stays."""
        self.signal(signal.SIGKILL, 30)

    def signal(self, number: int, timeout: float) -> int:
        """Send a signal and wait for the end; the exit status (0 when it was not running)."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            os.kill(self._process.pid, number)
        status = self._process.wait(timeout)
        self._process = None
        return status

    def restart(self) -> None:
        """Stop and start again on the same state."""
        self.stop()
        self.start()

    def environment(self) -> dict[str, str]:
        """What programs started by this harness see."""
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": str(self.root),
            "PYTHONPATH": str(ROOT),
            "DOCKER_CONFIG": str(self.root / "cli"),
        }

    def run(self, cmd: Sequence[str], check: bool, timeout: float, stdin: str = "") -> Any:
        """Run a program on this daemon's host."""
        env = self.environment()
        if self.host is not None:
            return self.host.run(cmd, check=check, timeout=timeout, env=env, stdin=stdin)
        done = subprocess.run(
            list(cmd), capture_output=True, text=True, timeout=timeout, env=env, input=stdin
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{cmd}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def ctl(
        self, *args: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run swarmctl against this daemon."""
        command = [sys.executable, "-m", "swarmctl", "-H", f"unix://{self.socket}", *args]
        done: subprocess.CompletedProcess[str] = self.run(command, check, timeout)
        return done

    def docker(
        self,
        *args: str,
        check: bool = True,
        timeout: float = 60,
        cli: str | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run the stock docker CLI against this daemon."""
        command = [cli or self._stock_cli, "-H", f"unix://{self.socket}", *args]
        done: subprocess.CompletedProcess[str] = self.run(command, check, timeout, stdin)
        return done

    def json(self, *args: str) -> Any:
        """Run a stock docker command and decode its output."""
        return json.loads(self.docker(*args).stdout)

    def token(self, role: str = "worker") -> str:
        """The present join token."""
        return str(self.ctl("join-token", "-q", role).stdout).strip()

    def node_states(self) -> dict[str, str]:
        """Host name -> state ("ready", "down", ...) of every node that has a description."""
        out = self.ctl("node", "ls", "--format", "{{.Hostname}}={{.Status}}").stdout
        return dict(line.split("=", 1) for line in out.split() if "=" in line)
