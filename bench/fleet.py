"""A fleet of simulated workers in a process of its own, on a host of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.managers import PORT, Host, Manager, token_of, wait_until

ROOT = Path(__file__).resolve().parents[1]


class Fleet:
    """`count` simulated workers of one manager. Use as a context manager; ends with it."""

    def __init__(
        self, host: Host, manager: Manager, count: int, *, ramp: int = 16, seconds: float = 1200
    ) -> None:
        self._host, self._manager, self._count = host, manager, count
        self._options = ["--ramp", str(ramp), "--seconds", str(seconds)]
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[Any] | None = None
        self._last: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
            note = folder / "token"
            note.touch(0o600)
            note.write_text(token_of(self._manager))
            command = [sys.executable, "-m", "bench.simnodes", "-n", str(self._count)]
            command += ["--manager", f"{self._manager.ip}:{PORT}", "--token-file", str(note)]
            errors = stack.enter_context(open(folder / "errors", "w+b"))
            self._process = self._host.popen(
                command + self._options,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            )
            stack.callback(self._end)
            reader = threading.Thread(target=self._read, daemon=True)
            reader.start()
            stack.callback(reader.join, 10)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self._last = json.loads(line)

    def _end(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()  # the program ends with its standard input
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    @property
    def counts(self) -> dict[str, Any]:
        """The newest row of the fleet (fields of `simnodes.Counts`)."""
        return dict(self._last)

    def wait_live(self, timeout: float) -> dict[str, Any]:
        """Wait until every worker holds its session; the counts then."""
        assert self._process is not None

        def all_live() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the fleet ended: {self._last}")
            return bool(self._last.get("live") == self._count)

        try:
            wait_until("every simulated worker is live", all_live, timeout, pause=0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self._last}") from None
        return self.counts
