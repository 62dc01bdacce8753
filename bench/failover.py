"""How long nobody can write after the leader's death, and whether a write is lost or doubled.

    python -m bench.failover [--kills 50] [--stock-kills N] [--block 10] [--json FILE]

Three swarmd managers and three stock engines take turns in the same run, a block of kills each.
Writers at every manager go on all the time: the leader is killed (SIGKILL), the clock stops with
the first accepted write that began after its death, the killed one starts again, and once all are
reachable the next one dies. In the end every write is accounted for (`ledgers.py`), at every
manager. Ends with 1 when one is lost or doubled. Needs root and a stock dockerd.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench import program
from bench.figures import Figures, Target, load
from bench.ledgers import Journal, Ledger, Window, Writer, audit, open_ledger, read_ledger
from bench.managers import KINDS, PORT, Kind, Lan, Manager, init_body, running, wait_until
from bench.rest import Refused, Rest

MANAGERS = 3
PRIVATE_LEDGERS = (
    2  # a manager; besides, one writer of each manager shares one ledger with the rest
)
NEXT_WRITE_SECONDS_MAX = 120.0
ALL_BACK_SECONDS_MAX = 120.0
CALM_SECONDS = (0.5, 1.5)  # between "all reachable" and the next kill, so that no rhythm forms
# A group just made is slow until its leader knows what everybody is: two heartbeats of a second.
FOUNDED_SECONDS = 4.0
SEED = 20


@dataclass(frozen=True, slots=True)
class Outage:
    """One kill: seconds from the signal to the next accepted write, anywhere and everywhere."""

    first: float
    everywhere: float


class Group:
    """Three managers of one kind, their writers, and what these noted.

    `ledgers`: (manager, ledger), a writer for each. Who shares a ledger with the leader's own
    clients is often outrun by them; private ledgers show whether a manager can be written through.
    """

    def __init__(self, managers: list[Manager], ledgers: list[tuple[Manager, Ledger]]) -> None:
        self.managers = managers
        self.ledgers = {ledger for _, ledger in ledgers}
        self.journal = Journal()
        self.outages: list[Window] = []
        self._may_write = threading.Event()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(
                target=_writer(at, ledger).run,
                args=(self.journal, self._may_write, self._over),
            )
            for at, ledger in ledgers
        ]
        self._chance = random.Random(SEED)

    @contextlib.contextmanager
    def staffed(self) -> Iterator[None]:
        """Run the writers' threads; they write only inside `writing`."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.dismiss()

    def dismiss(self) -> None:
        """End the writers, and wait for their last writes to end."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Let the writers write, and wait until they do through every manager."""
        self._may_write.set()
        try:
            self._written_through(self.managers, time.perf_counter())
            yield
        finally:
            self._may_write.clear()

    def _written_through(self, managers: list[Manager], moment: float) -> list[float]:
        """When each of them first accepted a write that began after `moment`."""
        return [
            self.journal.accepted_after(moment, [one.name], NEXT_WRITE_SECONDS_MAX).ended
            for one in managers
        ]

    def kill_leader(self) -> Outage:
        """Kill it, time the outage, bring it back, wait until all are there again."""
        leader = self.leader()
        rest = [one for one in self.managers if one is not leader]
        names = [one.name for one in rest]
        begun = time.perf_counter()
        os.kill(leader.pid, signal.SIGKILL)
        leader.kill()  # waits for the end, and takes along what the daemon leaves behind
        dead = time.perf_counter()
        first = self.journal.accepted_after(dead, names, NEXT_WRITE_SECONDS_MAX)
        everywhere = max(self._written_through(rest, dead))
        self.outages.append((begun, everywhere))
        leader.start()
        self.wait_all_there(rest[0])
        self._written_through(self.managers, time.perf_counter())
        time.sleep(self._chance.uniform(*CALM_SECONDS))
        return Outage(first.ended - begun, everywhere - begun)

    def leader(self) -> Manager:
        """The manager that leads; waits until one does."""

        def found() -> Manager | None:
            for row in _nodes(self.managers[0]):
                if row.get("ManagerStatus", {}).get("Leader"):
                    name = row["Description"]["Hostname"]
                    return next(one for one in self.managers if one.name == name)
            return None

        leader: Manager = wait_until("there is a leader", found, ALL_BACK_SECONDS_MAX)
        return leader

    def wait_all_there(self, at: Manager) -> None:
        """Wait until one manager lists all of them as reachable and one as leader."""

        def there() -> bool:
            states = [row.get("ManagerStatus", {}) for row in _nodes(at)]
            return [one.get("Reachability") for one in states] == ["reachable"] * MANAGERS and any(
                one.get("Leader") for one in states
            )

        wait_until("all managers are reachable", there, ALL_BACK_SECONDS_MAX)

    def faults(self) -> list[str]:
        """Ends all writing; every lost or doubled write, and where the managers do not agree."""
        self.dismiss()
        ends: dict[str, dict[str, dict[str, str]]] = {}
        for manager in self.managers:
            with Rest(manager.socket) as rest:
                ends[manager.name] = {led.name: read_ledger(rest, led)[1] for led in self.ledgers}
        one = next(iter(ends.values()))
        split = [f"{name} shows other ledgers" for name, other in ends.items() if other != one]
        return split + audit(self.journal.all(), one, self.outages)


def _writer(at: Manager, ledger: Ledger) -> Writer:
    return Writer(f"{at.name}-{ledger.name}", at.name, lambda: at.socket, ledger)


def _nodes(at: Manager) -> list[dict[str, Any]]:
    """What a manager lists; nothing while it cannot."""
    try:
        with Rest(at.socket, 10) as rest:
            rows: list[dict[str, Any]] = rest.call("GET", "/nodes")
            return rows
    except (OSError, Refused):
        return []


@contextlib.contextmanager
def group(kind: Kind) -> Iterator[Group]:
    """Three managers of a kind in one swarm, all reachable, with empty ledgers."""
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan())
        managers = [
            stack.enter_context(running(kind, lan, f"{kind.label[0]}{number + 1}"))
            for number in range(MANAGERS)
        ]
        first, *others = managers
        with Rest(first.socket) as rest:
            rest.call("POST", "/swarm/init", init_body(first.ip))
            token = rest.call("GET", "/swarm")["JoinTokens"]["Manager"]
            for other in others:
                _join(other, first, token)
            shared = open_ledger(rest, "shared")
            ledgers = [(manager, shared) for manager in managers] + [
                (manager, open_ledger(rest, f"{manager.name}-{number}"))
                for manager in managers
                for number in range(PRIVATE_LEDGERS)
            ]
        made = Group(managers, ledgers)
        made.wait_all_there(first)
        time.sleep(FOUNDED_SECONDS)
        with made.staffed():
            yield made


def _join(manager: Manager, first: Manager, token: str) -> None:
    body = {
        "ListenAddr": f"0.0.0.0:{PORT}",
        "AdvertiseAddr": manager.ip,
        "RemoteAddrs": [f"{first.ip}:{PORT}"],
        "JoinToken": token,
        "Availability": "active",
    }
    with Rest(manager.socket) as rest:
        rest.call("POST", "/swarm/join", body)


def block(label: str, managers: Group, kills: int) -> list[Outage]:
    """Some kills of one group in a row; one line each."""
    outages = []
    with managers.writing():
        for number in range(kills):
            outage = managers.kill_leader()
            outages.append(outage)
            print(
                f"{label} {number + 1}/{kills}: next write after {outage.first:.2f} s, through "
                f"every survivor {outage.everywhere:.2f} s (load1 {load():.1f})",
                flush=True,
            )
    return outages


def share(total: int, size: int) -> list[int]:
    """Blocks of at most `size` that make `total`."""
    return [min(size, total - begun) for begun in range(0, total, size)]


def measure(kills: dict[str, int], size: int, figures: Figures) -> list[str]:
    """Run all blocks in turn and note the figures; the faults found in the end."""
    outages: dict[str, list[Outage]] = {label: [] for label in kills}
    faults: list[str] = []
    with contextlib.ExitStack() as stack:
        groups = {
            kind.label: stack.enter_context(group(kind)) for kind in KINDS if kills[kind.label]
        }
        todo = {label: share(kills[label], size) for label in groups}
        while any(todo.values()):
            for label, blocks in todo.items():
                if blocks:
                    figures.notes.append(f"{label}: load1 {load():.1f} before a block")
                    outages[label] += block(label, groups[label], blocks.pop(0))
        for label, managers in groups.items():
            managers.wait_all_there(managers.managers[0])
            found = managers.faults()
            faults += [f"{label}: {fault}" for fault in found]
            note(figures, label, outages[label], managers, found)
    return faults


def note(
    figures: Figures, label: str, outages: list[Outage], managers: Group, found: list[str]
) -> None:
    """The figures of one kind."""
    first = figures.of("kill to next accepted write", "s", Target("ratio", "<=", 1.0))
    everywhere = figures.of("kill to a write through every survivor", "s")
    for outage in outages:
        first.add(label, outage.first)
        everywhere.add(label, outage.everywhere)
    times = sorted(outage.first for outage in outages)
    attempts = managers.journal.all()
    ends = [attempt.outcome for attempt in attempts]
    for name, unit, value in (
        ("next write: median", "s", median(times)),
        ("next write: p90", "s", p90(times)),
        ("next write: worst", "s", times[-1]),
        ("writes accepted", "", ends.count("accepted")),
        ("writes refused (another was first)", "", ends.count("refused")),
        ("writes whose end is unknown", "", ends.count("unknown")),
        ("writes lost or doubled", "", len(found)),
    ):
        figures.of(name, unit).add(label, value)


def p90(values: list[float]) -> float:
    """The ninth decile; of a single value, that one."""
    return quantiles(values, n=10, method="inclusive")[8] if len(values) > 1 else values[0]


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line; ends the program with a message when it makes no sense."""
    parser = argparse.ArgumentParser(prog="bench.failover", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of swarmd leaders")
    parser.add_argument("--stock-kills", type=int, help="of stock leaders (as many, if not given)")
    parser.add_argument("--block", type=int, default=10, help="kills of one kind in a row")
    parser.add_argument("--json", type=Path, help="file for every single value")
    given = parser.parse_args(arguments)
    if given.stock_kills is None:
        given.stock_kills = given.kills
    if min(given.kills, given.stock_kills) < 0 or given.block < 1:
        parser.error("kills are not negative, a block is one kill or more")
    return given


def main(arguments: list[str]) -> int:
    """Measure and print; the exit status."""
    given = options(arguments)
    program.require_managers("bench.failover")
    noted = Figures()
    with program.reported(noted, given.json):
        kills = {"swarmd": given.kills, "engine": given.stock_kills}
        faults = measure(kills, given.block, noted)
    print("\n".join(f"FAULT {fault}" for fault in faults) or "every write is accounted for")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
