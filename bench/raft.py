"""Replicated writes per second: our core on its disk beside etcd, PySyncObj and pyraft.

    python -m venv /tmp/raft && /tmp/raft/bin/pip install pyraft pysyncobj
    python -m bench.raft --python /tmp/raft/bin/python [--rounds 5] [--json FILE] [--quick]

One and three members (processes on loopback), 1 and 32 closed-loop clients over TCP at the
leader, values of 256 and 1024 bytes, all systems turn by turn. What each has on disk when it
acknowledges is said beside it, and the calls that put it there are counted by strace in a turn
of their own. A system that is not installed, or does not work, is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench import program
from bench.figures import load, spread
from bench.rafts import load as clients
from bench.rafts.processes import run
from bench.rafts.systems import SYSTEMS, Etcd, Own, Running

MEMBERS, CLIENTS, SIZES = (1, 3), (1, 32), (256, 1024)
COUNTED_WRITES = 100
Key = tuple[int, int, int, str]  # members, clients, bytes, system


def usable(python: str) -> list[type[Running]]:
    """The systems that are installed here."""
    found = []
    for system in SYSTEMS:
        if system is Own:
            there = True
        elif system is Etcd:
            there = shutil.which("etcd") is not None
        else:
            there = run([python, "-c", f"import {system.name}"], 60)[0] == 0
        if there:
            found.append(system)
        else:
            print(f"{system.name} is not installed: left out", flush=True)
    return found


def syncs_per_write(group: Running) -> str:
    """Calls that wait for a disk, all members together, per write of a single client."""
    if shutil.which("strace") is None:
        return "no strace"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="syncs-")))
        tracers = []
        for number, member in enumerate(group.members):
            command = ["strace", "-f", "-q", "-e", "trace=fsync,fdatasync,msync,sync_file_range"]
            command += ["-o", str(folder / str(number)), "-p", str(member.pid)]
            tracers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        try:
            time.sleep(1)  # strace says nothing when it is attached
            clients.run(group.target, 1, 256, 60, COUNTED_WRITES)
        finally:
            for tracer in tracers:
                tracer.terminate()
                tracer.wait(10)
        calls = sum((folder / str(n)).read_text().count("sync") for n in range(len(tracers)))
    return f"{calls / COUNTED_WRITES:.2f}"


class Results:
    """Everything measured, and the table of it."""

    def __init__(self) -> None:
        self.outcomes: dict[Key, list[dict[str, float]]] = {}
        self.syncs: dict[tuple[int, str], str] = {}
        self.notes: list[str] = []

    def add(self, key: Key, outcome: clients.Outcome) -> None:
        """Note one turn."""
        row = {"per_second": outcome.per_second, "p50": outcome.quantile(0.5)}
        self.outcomes.setdefault(key, []).append(row | {"p99": outcome.quantile(0.99)})

    def table(self) -> str:
        """One row per case and system."""
        durable = {system.name: system.durable for system in SYSTEMS}
        head = ["members", "clients", "bytes", "system", "writes/s", "p50 ms", "p99 ms", "n"]
        rows = [[*head, "syncs/write", "durable when acknowledged"]]
        for key, turns in sorted(self.outcomes.items(), key=lambda item: item[0][:3]):
            values = [
                spread([turn[part] for turn in turns]) for part in ("per_second", "p50", "p99")
            ]
            syncs = self.syncs.get((key[0], key[3]), "")
            first = [str(part) for part in key]
            rows.append([*first, *values, str(len(turns)), syncs, durable[key[3]]])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        rows.insert(1, ["-" * width for width in widths])
        lines = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
            for row in rows
        ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def raw(self) -> str:
        """Every turn, as JSON."""
        cases = [
            {"members": k[0], "clients": k[1], "bytes": k[2], "system": k[3], "turns": turns}
            for k, turns in self.outcomes.items()
        ]
        return json.dumps({"cases": cases, "notes": self.notes}, indent=1)


def measure(given: argparse.Namespace, results: Results) -> None:
    """All cases, all systems alternately within each."""
    systems = usable(given.python)
    results.notes.append(f"load1 {load():.1f} at the start")
    with tempfile.TemporaryDirectory(prefix="rafts-") as folder:
        for members in MEMBERS:
            with contextlib.ExitStack() as stack:
                groups = []
                for system in systems:
                    root = Path(folder) / f"{system.name.replace(' ', '-')}-{members}"
                    try:
                        group = stack.enter_context(system(given.python, root, members))
                        clients.run(group.target, 1, 256, given.seconds)
                    except (RuntimeError, TimeoutError, OSError) as error:
                        results.notes.append(f"{system.name}, members {members}: {error}")
                        continue
                    groups.append(group)
                print(f"{members} members: {', '.join(g.name for g in groups)}", flush=True)
                for group in groups:
                    results.syncs[members, group.name] = syncs_per_write(group)
                _turns(groups, members, given, results)
    results.notes.append(f"load1 {load():.1f} at the end")


def _turns(
    groups: list[Running], members: int, given: argparse.Namespace, results: Results
) -> None:
    for count, size in itertools.product(CLIENTS, SIZES):
        for _ in range(given.rounds):
            for group in list(groups):
                try:
                    outcome = clients.run(group.target, count, size, given.seconds)
                except (RuntimeError, OSError) as error:
                    what = f"{group.name}, members {members}, clients {count}: {error}"
                    results.notes.append(what)
                    groups.remove(group)
                    continue
                results.add((members, count, size, group.name), outcome)


def ratios(results: Results) -> list[str]:
    """Ours against etcd, the one that promises the same, case by case."""
    lines = []
    for key, ours in results.outcomes.items():
        theirs = results.outcomes.get((*key[:3], Etcd.name))
        if key[3] != Own.name or not theirs:
            continue
        pairs = zip(ours, theirs, strict=False)
        ratio = median(a["per_second"] / b["per_second"] for a, b in pairs)
        lines.append(f"{key[0]} members, {key[1]} clients, {key[2]} B: ours / etcd {ratio:.2f}")
    return lines


def main(arguments: list[str]) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(prog="bench.raft", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter with the libraries")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn")
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--json", type=Path, help="file for every single value")
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.seconds = 1, 0.3
    results = Results()
    with program.reported(results, given.json):
        measure(given, results)
        results.notes += ratios(results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
