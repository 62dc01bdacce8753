"""One manager against a stock engine: init, join, token rotation, writers, nodes, start-up.

    python -m bench.manager [--only a,d] [--quick] [--json FILE]

Needs root and a stock dockerd (each manager runs on a host, a network namespace, of its own).
swarmd and the engine take turns in the same run; a ratio is the median of the pairwise ratios.
Ends with 1 when a figure misses its target, except in a --quick run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import program
from bench.figures import Figures
from bench.scenarios import QUICK, SCENARIOS, Sizes, run


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


def main(arguments: list[str]) -> int:
    """Measure and print; the exit status."""
    given = options(arguments)
    program.require_managers("bench.manager")
    noted = Figures()
    with program.reported(noted, given.json):
        run(given.only, QUICK if given.quick else Sizes(), noted)
    return program.status(noted, given.quick)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
