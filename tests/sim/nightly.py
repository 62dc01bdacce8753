"""Many seeds of everything that is drawn from seeds, on all processors: `make nightly`.

    python -m tests.sim.nightly                          all suites
    python -m tests.sim.nightly --start 50000            other seeds than last night
    python -m tests.sim.nightly --only raft --seed 17    one seed, with its last events

A failing seed is printed with the line that repeats it. To add a suite, give it a function
from a seed to a `Report`, which raises `AssertionError` with a full text, and put it into `SUITES`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing import Pool

from tests.harness import raft_pace, raft_sim
from tests.harness.raft_coverage import KINDS, missing, table

PROGRESS_SECONDS = 30.0
# With so many seeds every kind must have happened.
COVERING_SEEDS = 200


@dataclass(frozen=True)
class Report:
    """What a seed that holds its promises tells: what happened how often, and figures."""

    tally: Counter[str]
    figures: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """One kind of run. `kinds` must each happen in many seeds, else the run fails."""

    name: str
    what: str
    seeds: int
    run: Callable[[int], Report]
    kinds: tuple[str, ...] = ()


def bad_world(seed: int) -> Report:
    """One seed of `raft_sim`."""
    outcome = raft_sim.run_seed(seed)
    figures = {"way back to work, election timeouts": (outcome.healed_timeouts,)}
    tally = Counter(outcome.tally)
    tally.update(events=outcome.events, committed=outcome.committed, wedged=outcome.wedged)
    return Report(tally, figures)


def good_network(seed: int) -> Report:
    """One seed of `raft_pace`."""
    outcome = raft_pace.run_seed(seed)
    figures = {
        "next leader of a fast group, s": outcome.fast,
        "next leader where stock votes are needed, s": outcome.stock,
    }
    tally = Counter(outcome.tally)
    tally.update(events=outcome.events, committed=outcome.committed)
    return Report(tally, figures)


SUITES = (
    Suite("raft", "Raft members in bad worlds", 10_000, bad_world, KINDS),
    Suite("pace", "swarmd and stock timing", 2_000, good_network, raft_pace.EPISODES),
)


def attempt(job: tuple[str, int]) -> tuple[str, int, Report | str]:
    """Run one seed of a suite; a failure comes back as its text."""
    name, seed = job
    suite = next(suite for suite in SUITES if suite.name == name)
    try:
        return name, seed, suite.run(seed)
    except AssertionError as error:
        return name, seed, str(error) or repr(error)


class Totals:
    """What all seeds of one suite told."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.seeds = 0
        self.failed: list[int] = []
        self._tally: Counter[str] = Counter()
        self._figures: dict[str, list[float]] = defaultdict(list)

    def add(self, seed: int, result: Report | str) -> None:
        """Count one seed, and show at once that it failed."""
        self.seeds += 1
        if isinstance(result, str):
            self.failed.append(seed)
            print(f"FAILED {result.splitlines()[0]}")
            print(
                f"  python -m tests.sim.nightly --only {self.suite.name} --seed {seed}", flush=True
            )
            return
        self._tally.update(result.tally)
        for name, values in result.figures.items():
            self._figures[name].extend(values)

    def lacking(self) -> list[str]:
        """The kinds that never happened, if there were enough seeds to tell."""
        enough = self.seeds >= COVERING_SEEDS
        return missing(self._tally, self.suite.kinds) if enough else []

    def show(self) -> None:
        """Print the summary."""
        print(f"\n{self.suite.name}: {self.suite.what}, {self.seeds} seeds")
        others = sorted(set(self._tally) - set(self.suite.kinds))
        print(table(self._tally, (*self.suite.kinds, *others)))
        for name, values in sorted(self._figures.items()):
            print(f"  {name}: {spread(values)}")
        for kind in self.lacking():
            print(f"  NEVER HAPPENED: {kind}")
        print(f"  failed: {sorted(self.failed) or 'none'}")


def spread(values: Iterable[float]) -> str:
    """Number, median, tail and maximum of some figures."""
    row = sorted(values)
    if not row:
        return "none"
    marks = (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99), ("most", 1.0))
    found = (f"{name} {row[int(share * (len(row) - 1))]:.2f}" for name, share in marks)
    return f"n {len(row)}, " + ", ".join(found)


def run(suites: Iterable[Suite], start: int, seeds: int | None, jobs: int) -> int:
    """Run all suites; 1 if a seed failed or a kind never happened, else 0."""
    bad = False
    with Pool(jobs, maxtasksperchild=100) as pool:
        for suite in suites:
            count = suite.seeds if seeds is None else seeds
            totals = Totals(suite)
            work = ((suite.name, seed) for seed in range(start, start + count))
            begun = said = time.monotonic()
            for _, seed, result in pool.imap_unordered(attempt, work, chunksize=4):
                totals.add(seed, result)
                now = time.monotonic()
                if now - said > PROGRESS_SECONDS:
                    said = now
                    left = (now - begun) / totals.seeds * (count - totals.seeds) / 60
                    text = f"{totals.seeds} of {count}, {len(totals.failed)} failed"
                    print(f"{suite.name}: {text}, {left:.0f} min left", flush=True)
            totals.show()
            print(f"  took {(time.monotonic() - begun) / 60:.1f} min with {jobs} jobs", flush=True)
            bad |= bool(totals.failed or totals.lacking())
    return int(bad)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    names = [suite.name for suite in SUITES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=names, help="one suite instead of all")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many, instead of each suite's number")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--seed", type=int, help="run this one, with all it has to say")
    options = parser.parse_args(arguments)
    suites = [suite for suite in SUITES if options.only in (None, suite.name)]
    if options.seed is None:
        return run(suites, options.start, options.seeds, options.jobs)
    failed = False
    for suite in suites:
        _, seed, result = attempt((suite.name, options.seed))
        failed |= isinstance(result, str)
        print(result if isinstance(result, str) else f"{suite.name} {seed}: holds")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
