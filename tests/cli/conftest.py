"""Run command lines in this process against a fake daemon, as docker's would be run."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swarmctl import helptext
from swarmctl.__main__ import main
from tests.harness.fakedaemon import FakeDaemon, serving

FIXTURES = Path(__file__).parent.parent / "fixtures"


@dataclass(frozen=True)
class Ran:
    """How a command line ended."""

    exit: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def daemon() -> FakeDaemon:
    """A daemon without a script yet."""
    return FakeDaemon()


@pytest.fixture
def run(
    daemon: FakeDaemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """Runs words after `swarmctl`, its daemon being the fake one."""
    monkeypatch.setattr(helptext, "terminal_width", lambda: 80)
    for name in ("SWARMD_HOST", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DOCKER_API_VERSION", raising=False)

    def call(*words: str, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capfd.readouterr()
        status = main(list(words))
        out, err = capfd.readouterr()
        return Ran(status, out, err)

    with serving(daemon, tmp_path / "d.sock") as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        yield call


def recorded(name: str) -> Any:
    """A recording, by path below the fixtures."""
    return json.loads((FIXTURES / name).read_text())


_OURS = (
    (r"docker: '?docker", lambda found: found.group().replace("docker", "swarmctl")),
    (r"(Usage:  |Run ')docker ", lambda found: found.group().replace("docker", "swarmctl")),
    (r"docker swarm (join|join-token|unlock)\b", lambda found: f"swarmctl {found[1]}"),
)


def ours(text: str) -> str:
    """Docker's words with our program name. What the daemon said stays."""
    lines = []
    for line in text.splitlines(keepends=True):
        if "Error response from daemon" not in line:
            for pattern, change in _OURS:
                line = re.sub(pattern, change, line)
        lines.append(line)
    return "".join(lines)
