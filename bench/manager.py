"""One manager against a stock engine: init, join, token rotation, writers, nodes, start-up.

    python -m bench.manager [--only a,d] [--quick] [--json FILE]

Needs root and a stock dockerd (each manager runs on a host, a network namespace, of its own).
swarmd and the engine take turns in the same run; a ratio is the median of the pairwise ratios.
Ends with 1 when a figure misses its target, except in a --quick run.
"""

from __future__ import annotations

import argparse
import compileall
import resource
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

from bench import figures
from bench.scenarios import QUICK, SCENARIOS, Sizes, run
from tests.harness.lan import missing

ROOT = Path(__file__).resolve().parents[1]
OPEN_FILES = 8192  # a TLS connection per simulated node, on both ends


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line; ends the program with a message when it makes no sense."""
    parser = argparse.ArgumentParser(prog="bench.manager", description=__doc__)
    parser.add_argument("--only", default=",".join(SCENARIOS), help="letters, e.g. a,d")
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--json", type=Path, help="file for every single value")
    given = parser.parse_args(arguments)
    given.only = [letter.strip() for letter in given.only.split(",")]
    unknown = [letter for letter in given.only if letter not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)} (there are {', '.join(SCENARIOS)})")
    return given


def unable() -> str | None:
    """Why nothing can be measured here, or None."""
    reason = missing()
    if reason is None and shutil.which("dockerd") is None:
        reason = "dockerd is not installed"
    return reason


def prepare() -> None:
    """Compile the byte code (start-up is measured) and allow enough open files.

    Ends the program when the tree does not compile.
    """
    for folder in ("swarmd", "bench", "tests/harness"):
        if not compileall.compile_dir(str(ROOT / folder), quiet=1):
            sys.exit(f"bench.manager: {folder} does not compile")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def terminated(number: int, frame: FrameType | None) -> None:
    """Signal handler: unwind, so that everything started is ended."""
    sys.exit(128 + number)


def main(arguments: list[str]) -> int:
    """Measure and print; the exit status."""
    given = options(arguments)
    reason = unable()
    if reason is not None:
        print(f"bench.manager: cannot measure here: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, terminated)
    prepare()
    print("\n".join(figures.machine()), flush=True)
    noted = figures.Figures()
    try:
        run(given.only, QUICK if given.quick else Sizes(), noted)
    finally:
        print(noted.table())
        if given.json is not None:
            given.json.write_text(noted.raw())
    return 1 if noted.missed() and not given.quick else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
