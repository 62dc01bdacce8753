"""Child processes and ports of the trials."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
WRITES = 200
MEMBER = Path(__file__).with_name("member.py")


def free_ports(count: int, width: int = 1) -> list[int]:
    """`count` ports, each with the `width - 1` ports above it free as well, just now."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            with contextlib.suppress(OSError):
                base = _reserve(stack, 0)
                for offset in range(1, width):
                    _reserve(stack, base + offset)
                found.append(base)
            if len(found) == count:
                return found
    raise RuntimeError(f"no {count} free ports")


def _reserve(stack: contextlib.ExitStack, port: int) -> int:
    held = stack.enter_context(socket.socket())
    held.bind(("127.0.0.1", port))
    return int(held.getsockname()[1])


class Child:
    """A process that answers one line for one line, or just runs. Use as a context manager."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command, self._folder = list(command), folder
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "errors", "ab") as errors:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        if self._process is None:
            raise RuntimeError("it does not run")
        return self._process.pid

    @property
    def errors(self) -> str:
        """What the process wrote to its standard error."""
        return (self._folder / "errors").read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def ask(self, line: str = "") -> str:
        """Send a line (nothing when empty) and return the answer; raises when it ended."""
        assert self._process is not None
        assert self._process.stdin is not None and self._process.stdout is not None
        if line:
            self._process.stdin.write(line + "\n")
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._command[1:4]} ended:\n{self.errors[-2000:]}")
        return answer.strip()

    def kill(self) -> None:
        """SIGKILL and collect."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process = None


def wait_for(what: str, check: Callable[[], T | None], seconds: float) -> T:
    """Ask `check` until it gives something else than None; return that."""
    end = time.monotonic() + seconds
    while True:
        answer = check()
        if answer is not None:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def run(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Exit status and combined output of a command."""
    done = subprocess.run(
        list(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout
