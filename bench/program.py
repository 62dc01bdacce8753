"""What the programs that measure share: how each begins, what it leaves behind, how it ends."""

from __future__ import annotations

import compileall
import contextlib
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

from bench.figures import ROOT, Figures, machine
from tests.harness.lan import missing

OPEN_FILES = 8192  # a TLS connection per simulated node, on both ends
CANNOT_MEASURE = 2  # the exit status; argparse's as well, for a command line without sense


class Results(Protocol):
    """What a program found."""

    def table(self) -> str:
        """All of it, to read."""
        ...

    def raw(self) -> str:
        """Every single value, as JSON."""
        ...


def require_managers(program: str) -> None:
    """Make ready to start managers of both kinds: byte code (start-up is measured), open files.

    Ends the program, and says why, where that cannot be: no root, no stock engine, and so on.
    """
    reason = missing()
    if reason is None and shutil.which("dockerd") is None:
        reason = "dockerd is not installed"
    if reason is not None:
        print(f"{program}: cannot measure here: {reason}", file=sys.stderr)
        sys.exit(CANNOT_MEASURE)
    for folder in ("swarmd", "bench", "tests/harness"):
        if not compileall.compile_dir(str(ROOT / folder), quiet=1):
            sys.exit(f"bench: {folder} does not compile")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@contextlib.contextmanager
def reported(results: Results, json: Path | None) -> Iterator[None]:
    """Measure inside: the machine is printed before, the table after, whatever happens between.

    SIGTERM unwinds the program from here on, so that everything started is ended. Every single
    value goes to the file `json`, if there is one.
    """
    signal.signal(signal.SIGTERM, _terminated)
    print("\n".join(machine()), flush=True)
    try:
        yield
    finally:
        print(results.table())
        if json is not None:
            json.write_text(results.raw())


def status(found: Figures, quick: bool) -> int:
    """The exit status: 1 when a figure misses its target, except in a run that means nothing."""
    return 1 if found.missed() and not quick else 0


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
