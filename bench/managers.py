"""The two managers under measurement, started alike: each on a host of its own, as a process.

Both sides answer to the same few names, so a scenario is written once and run on either.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.rest import Rest, answers
from tests.harness.engines import Engine
from tests.harness.lan import Host, Lan, wait_until
from tests.harness.swarmds import Swarmd

PORT = 2377
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class _Polled:
    """Readiness seen through the socket instead of through a client program.

    `start_seconds`: how long the last start took, from forking to the first answer.
    """

    name: str
    socket: str
    log: str
    start_seconds = 0.0
    _process: Any

    def start(self, timeout: float = 60) -> None:
        """Start the daemon and wait until its API answers."""
        begun = time.perf_counter()
        parent: Any = super()
        parent.start(timeout)
        self.start_seconds = time.perf_counter() - begun

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended:\n{self.log[-4000:]}")
        return answers(self.socket, 0.5)


class OurManager(_Polled, Swarmd):
    """swarmd without a local engine."""

    label = "swarmd"


class StockManager(_Polled, Engine):
    """A stock dockerd."""

    label = "engine"


Manager = OurManager | StockManager
Kind = type[OurManager] | type[StockManager]
KINDS: tuple[Kind, ...] = (OurManager, StockManager)


def init_body(ip: str) -> dict[str, Any]:
    """Body of POST /swarm/init as the docker CLI sends it."""
    return {"ListenAddr": f"0.0.0.0:{PORT}", "AdvertiseAddr": ip, "ForceNewCluster": False}


@contextmanager
def running(kind: Kind, lan: Lan, name: str) -> Iterator[Manager]:
    """A fresh daemon in no swarm."""
    with kind(name, lan=lan) as manager:
        yield manager


@contextmanager
def initialised(kind: Kind, lan: Lan, name: str) -> Iterator[Manager]:
    """A fresh manager process that leads a swarm of one."""
    with running(kind, lan, name) as manager:
        with Rest(manager.socket) as rest:
            rest.call("POST", "/swarm/init", init_body(manager.ip))
        yield manager


def token_of(manager: Manager) -> str:
    """The present worker token."""
    with Rest(manager.socket) as rest:
        return str(rest.call("GET", "/swarm")["JoinTokens"]["Worker"])


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far; 10 ms steps."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def cpu_share(pid: int, seconds: float) -> float:
    """CPU seconds per second over the next `seconds`."""
    before, begun = cpu_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.perf_counter() - begun)


__all__ = [
    "KINDS",
    "PORT",
    "Engine",
    "Host",
    "Kind",
    "Lan",
    "Manager",
    "OurManager",
    "StockManager",
    "Swarmd",
    "cpu_seconds",
    "cpu_share",
    "init_body",
    "initialised",
    "rss_bytes",
    "running",
    "token_of",
    "wait_until",
]
