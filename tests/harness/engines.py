"""Stock Docker Engines for tests: each one a dockerd on a host of its own.

    with Lan() as lan, Engine("e1", lan=lan) as one, Engine("e2", lan=lan) as two:
        one.docker("swarm", "init", "--advertise-addr", one.ip)

Call `require_engine()` first (or use the marker `engine` with it): it skips with a reason
where there is no root or no dockerd, and fails instead when SWARMD_REQUIRE_ENGINE=1.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.harness.lan import Host, Lan, missing, wait_until

__all__ = ["Engine", "Host", "Lan", "require_engine", "require_netns", "wait_until"]


def _gate(reason: str | None) -> None:
    if reason is None:
        return
    if os.environ.get("SWARMD_REQUIRE_ENGINE") == "1":
        pytest.fail(f"SWARMD_REQUIRE_ENGINE=1 but {reason}")
    pytest.skip(reason)


def require_netns() -> None:
    """Skip (or fail, when required) the calling test unless namespaces can be made."""
    _gate(missing())


def require_engine() -> None:
    """Skip (or fail, when required) the calling test unless a stock engine can be run."""
    reason = missing()
    for tool in ("dockerd", "docker", "containerd"):
        if reason is None and shutil.which(tool) is None:
            reason = f"{tool} is not installed"
    _gate(reason)


class Engine:
    """One stock engine: own root directory, socket, containerd, host name and network."""

    def __init__(
        self,
        name: str,
        *,
        lan: Lan | None = None,
        host: Host | None = None,
        args: Sequence[str] = ("--bridge=none", "--iptables=false"),
        cli: str = "docker",
    ) -> None:
        """On `host`, or on the host `name` of `lan`, or alone with loopback only."""
        self.name = name
        self._given = host or (lan.host(name) if lan is not None else None)
        self.host = self._given or Host(name)
        self._args = tuple(args)
        self._cli = cli
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.root = Path()

    @property
    def ip(self) -> str:
        """The address of this engine on its LAN (127.0.0.1 when alone)."""
        return self.host.ip

    @property
    def socket(self) -> str:
        """Path of the API socket; reachable from every host, being a file."""
        return str(self.root / "docker.sock")

    @property
    def swarm_dir(self) -> Path:
        """The engine's swarm state directory."""
        return self.root / "data" / "swarm"

    @property
    def log(self) -> str:
        """What dockerd wrote so far."""
        path = self.root / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """Process id of dockerd itself; raises when it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Short path: unix socket names end at 107 bytes.
            self.root = Path(tempfile.mkdtemp(prefix=f"eng-{self.name}-"))
            stack.callback(shutil.rmtree, self.root, ignore_errors=True)
            if self._given is None:
                stack.enter_context(self.host)
            stack.callback(self._end)
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(self, timeout: float = 60) -> None:
        """Start dockerd and wait until its API answers."""
        root = self.root
        with open(root / "log", "ab") as log:
            self._process = self.host.popen(
                [
                    *("dockerd", "--data-root", f"{root}/data", "--exec-root", f"{root}/exec"),
                    *("-p", f"{root}/pid", "-H", f"unix://{self.socket}", *self._args),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
            )
        wait_until(f"{self.name} answers", self._answers, timeout)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"dockerd of {self.name} ended:\n{self.log[-4000:]}")
        if not os.path.exists(self.socket):
            return False
        try:
            return self.docker("version", check=False, timeout=5).returncode == 0
        except subprocess.TimeoutExpired:  # the socket exists before anybody answers on it
            return False

    def stop(self, timeout: float = 30) -> None:
        """Stop dockerd as an operator would (SIGTERM) and wait for its end."""
        self._signal(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End dockerd at once (SIGKILL); its containerd goes with it, state stays."""
        self._signal(signal.SIGKILL, 10)
        # Where nobody reaps orphans the dead containerd stays a zombie; the next dockerd would
        # take its pid file for a living one and wait for it.
        note = self.root / "exec" / "containerd" / "containerd.pid"
        if note.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(note.read_text()), signal.SIGKILL)
            note.unlink()

    def restart(self) -> None:
        """Stop and start again on the same state."""
        self.stop()
        self.start()

    def _signal(self, number: int, timeout: float) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            os.kill(self._process.pid, number)
        self._process.wait(timeout)
        self._process = None

    def _end(self) -> None:
        self.kill()  # a polite stop of a swarm node takes seconds, and its state is going anyway
        self.host.kill_all(str(self.root))
        # What dockerd mounted (namespaces, layers) lies in the host's mount namespace. On a
        # borrowed host it must go now, else the directory cannot be removed.
        if self._given is not None:
            self._unmount()

    def _unmount(self) -> None:
        mounts = self.host.run(["cat", "/proc/self/mounts"]).stdout.splitlines()
        ours = [line.split()[1] for line in mounts if line.split()[1].startswith(str(self.root))]
        for path in sorted(ours, reverse=True):
            self.host.run(["umount", "-l", path], check=False)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": str(self.root),
            "DOCKER_CONFIG": str(self.root / "cli"),
            "TMPDIR": str(self.root),  # for what containerd writes down when it is asked to hurry
        }

    def docker(
        self, *args: str, check: bool = True, timeout: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker CLI against this engine, on its host; raises with the output."""
        return self.host.run(
            [self._cli, "-H", f"unix://{self.socket}", *args],
            check=check,
            timeout=timeout,
            env=self._environment(),
            stdin=stdin,
        )

    def json(self, *args: str) -> Any:
        """Run a docker command and decode its output (e.g. `json("node", "inspect", "self")`)."""
        return json.loads(self.docker(*args).stdout)
