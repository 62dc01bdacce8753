"""kill -9 at random moments under concurrent writers: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.harness.crashwriter import WRITERS

KILLS = 220
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Life:
    """What one child said before it died."""

    found: dict[int, tuple[int, int]] = field(default_factory=dict)  # writer: last, version
    acked: dict[int, tuple[int, int]] = field(default_factory=dict)  # writer: number, version
    acks: int = 0
    ready: bool = False


class Server:
    """The fork server and its line protocol."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.crashwriter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        self._buffer = b""

    def lines(self, timeout: float) -> Iterator[list[str]]:
        """Lines that are there, or come within `timeout` seconds."""
        out = self._process.stdout
        assert out is not None
        end = time.monotonic() + timeout
        while True:
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                yield line.decode().split(" ", 4)
            left = end - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                return
            block = os.read(out.fileno(), 1 << 16)
            assert block, "the fork server died"
            self._buffer += block

    def one_life(self, directory: Path, seconds: float, *, writing: bool) -> Life:
        """Start a child, kill it after `seconds` (of `writing`), return all it said."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{directory}\n".encode())
        self._process.stdin.flush()
        life = Life()
        born = next(self.lines(60), None)
        assert born is not None, "no child"
        if writing:
            for line in self.lines(60):
                self._note(life, line)
                if life.ready:
                    break
        for line in self.lines(seconds):
            self._note(life, line)
        os.kill(int(born[1]), signal.SIGKILL)
        for line in self.lines(60):
            if line[0] == "gone":
                assert line[1] == "-9", "it was alive until it was killed"
                return life
            self._note(life, line)
        raise AssertionError("the child did not go")

    def _note(self, life: Life, line: list[str]) -> None:
        match line:
            case ["ack", writer, number, version]:
                life.acked[int(writer)] = (int(number), int(version))
                life.acks += 1
            case ["found", writer, _, last, version]:
                life.found[int(writer)] = (int(last), int(version))
            case ["ready"]:
                life.ready = True
            case _:
                raise AssertionError(" ".join(line))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_over_many_kills(
    server: Server, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    directory = tmp_path / "raft"
    acknowledged = dict.fromkeys(range(WRITERS), (0, 0))
    checked = acks = 0
    for _ in range(KILLS // 2):
        # One in three dies while opening, replaying or repairing; the others while writing.
        writing = rng.random() < 0.67
        life = server.one_life(directory, rng.random() * 0.04, writing=writing)
        if len(life.found) == WRITERS:
            checked += 1
            for writer, (number, version) in acknowledged.items():
                last, last_version = life.found[writer]
                assert last in (number, number + 1), f"{writer}: acknowledged {number}, has {last}"
                if last == number:
                    assert last_version == version
                acknowledged[writer] = (last, last_version)
        for writer, (number, version) in life.acked.items():
            assert number >= acknowledged[writer][0]
            acknowledged[writer] = (number, version)
        acks += life.acks
    life = server.one_life(directory, 0.2, writing=True)
    assert life.ready
    for writer, (number, _) in acknowledged.items():
        assert life.found[writer][0] in (number, number + 1)
    assert checked > KILLS // 4 and acks > 200, "the kills came too early to mean anything"
    assert list(directory.glob("snap-v3-encrypted/*.snap")), "snapshots were part of it"
