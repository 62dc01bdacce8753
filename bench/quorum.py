"""Writes to three managers: three of swarmd against three stock engines, turn by turn.

    python -m bench.quorum [--rounds 10] [--json FILE] [--quick]

Each manager runs on a host (a network namespace) of its own; 32 closed-loop clients update the
labels of nodes over the REST sockets: all at the leader, all at one follower, and spread over
all three. The nodes joined once and are away: held open on the managers' own cores, their
connections would be most of the load (`bench.manager` measures writes to connected ones).
Needs root and a stock dockerd. Ends with 1 when a figure misses its target, except in a
--quick run.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import httpload, program
from bench.figures import Figures, Target, load
from bench.fleet import Fleet
from bench.managers import (
    KINDS,
    PORT,
    Kind,
    Lan,
    Manager,
    cpu_seconds,
    initialised,
    running,
    wait_until,
)
from bench.rest import Rest
from bench.scenarios import NO_MORE, label_updates

MANAGERS = 3
EIGHT_TIMES = Target("ratio", ">=", 8.0)
CATCH_UP_SECONDS = 60.0
AWAY_SECONDS = 90.0  # three heartbeats of 5 s, and the slowness of a busy machine


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. `passes`: how often a round updates each node."""

    rounds: int = 10
    nodes: int = 320
    passes: int = 6
    writers: int = 32
    settle_seconds: float = 10.0


class Group:
    """Three managers of one kind in one swarm, and the nodes that are written to."""

    def __init__(self, managers: list[Manager]) -> None:
        self.label = managers[0].label
        self._managers = managers

    def order(self) -> list[Manager]:
        """The managers now, the leader first. Raises `TimeoutError` when nobody leads."""
        leading: list[str] = []

        def found() -> bool:
            leading[:] = _leading(self._managers[0])
            return bool(leading)

        wait_until(f"{self.label}: somebody leads", found, CATCH_UP_SECONDS, pause=0.2)
        return sorted(self._managers, key=lambda manager: manager.ip not in leading)

    def alone(self) -> bool:
        """Whether the leader has given all workers up."""
        with Rest(self.order()[0].socket) as rest:
            nodes = rest.call("GET", "/nodes")
        return {n["Status"]["State"] for n in nodes if n["Spec"]["Role"] == "worker"} == {"down"}

    def sockets(self, way: str) -> list[str]:
        """Where the clients connect for one of `WAYS`."""
        first, second, third = self.order()
        through = {"leader": [first], "follower": [second], "all": [first, second, third]}
        return [manager.socket for manager in through[way]]


WAYS = ("leader", "follower", "all")


def _leading(manager: Manager) -> list[str]:
    """Address of the leader, if this manager knows one and all three are reachable."""
    with Rest(manager.socket) as rest:
        nodes = rest.call("GET", "/nodes")
    found = [node["ManagerStatus"] for node in nodes if node.get("ManagerStatus")]
    if [one["Reachability"] for one in found] != ["reachable"] * MANAGERS:
        return []
    return [one["Addr"].rpartition(":")[0] for one in found if one.get("Leader")]


@contextlib.contextmanager
def grouped(kind: Kind, lan: Lan) -> Iterator[Group]:
    """Three fresh managers in one swarm."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(initialised(kind, lan, f"{kind.label}-1"))
        managers = [first]
        for number in range(2, MANAGERS + 1):
            other = stack.enter_context(running(kind, lan, f"{kind.label}-{number}"))
            _join(first, other)
            managers.append(other)
        group = Group(managers)
        group.order()
        yield group


def _join(first: Manager, other: Manager) -> None:
    with Rest(first.socket) as rest:
        token = rest.call("GET", "/swarm")["JoinTokens"]["Manager"]
    body = {
        "ListenAddr": f"0.0.0.0:{PORT}",
        "AdvertiseAddr": other.ip,
        "RemoteAddrs": [f"{first.ip}:{PORT}"],
        "JoinToken": token,
        "Availability": "active",
    }
    with Rest(other.socket) as rest:
        rest.call("POST", "/swarm/join", body)
        wait_until(
            f"{other.name} is a manager",
            lambda: rest.call("GET", "/info")["Swarm"]["ControlAvailable"],
            CATCH_UP_SECONDS,
        )


def write_round(group: Group, way: str, mark: str, sizes: Sizes) -> dict[str, tuple[str, float]]:
    """Update every node `passes` times; figures of this turn by name: (unit, value)."""
    order, sockets = group.order(), group.sockets(way)
    used, entries = [0.0] * MANAGERS, 0
    wall, latencies, generator = 0.0, [], 0.0
    for turn in range(sizes.passes):
        requests = label_updates(order[0], f"{mark}-{turn}")
        newest = _newest(order[0])
        before = [cpu_seconds(manager.pid) for manager in order]
        own = time.process_time()
        result = httpload.run(sockets, requests, sizes.writers)
        generator += time.process_time() - own
        if result.refused or len(result.latencies) != len(requests):
            raise RuntimeError(
                f"{group.label}: {len(result.latencies)} of {len(requests)} answered, "
                f"{result.refused} refused: {result.sample}"
            )
        entries += _newest(order[0]) - newest
        for number, manager in enumerate(order):
            used[number] += cpu_seconds(manager.pid) - before[number]
        wall += result.wall
        latencies += result.latencies
    whole = httpload.Result(wall, latencies, 0, "")
    each = 1000 / len(latencies)
    return {
        "writes": ("1/s", whole.per_second),
        "latency, median": ("ms", whole.quantile(0.5)),
        "latency, p99": ("ms", whole.quantile(0.99)),
        "latency, worst": ("ms", whole.quantile(1.0)),
        "writes per log entry": ("", len(latencies) / max(1, entries)),
        "leader CPU per write": ("ms", used[0] * each),
        "follower CPU per write": ("ms", sum(used[1:]) / (MANAGERS - 1) * each),
        "load generator CPU": ("% of a core", generator / wall * 100),
    }


def _newest(manager: Manager) -> int:
    """The newest version of any node: the index of the log entry before its last change."""
    with Rest(manager.socket) as rest:
        return max(int(node["Version"]["Index"]) for node in rest.call("GET", "/nodes"))


_TARGETS = {"writes": EIGHT_TIMES, "latency, p99": NO_MORE}


def run(sizes: Sizes, ways: list[str], noted: Figures) -> None:
    """Measure; round 0 of every way warms up."""
    noted.notes.append(f"load1 {load():.1f} at the start")
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan())
        groups = [stack.enter_context(grouped(kind, lan)) for kind in KINDS]
        for group in groups:
            host = lan.host(f"fleet-{group.label}")
            with Fleet(host, group.order()[0], sizes.nodes) as fleet:
                fleet.wait_live(180)
        for group in groups:
            wait_until(f"{group.label}: the nodes are away", group.alone, AWAY_SECONDS, pause=1)
        time.sleep(sizes.settle_seconds)
        for number in range(sizes.rounds + 1):
            for way in ways:
                for group in groups:
                    found = write_round(group, way, f"{way}-{number}", sizes)
                    for name, (unit, value) in found.items() if number else ():
                        target = _TARGETS.get(name)
                        noted.of(f"{way}: {name}", unit, target).add(group.label, value)
    noted.notes.append(f"load1 {load():.1f} at the end")


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line; ends the program with a message when it makes no sense."""
    parser = argparse.ArgumentParser(prog="bench.quorum", description=__doc__)
    parser.add_argument("--rounds", type=int, default=Sizes().rounds, help="turns of each kind")
    parser.add_argument("--ways", default=",".join(WAYS), help="where clients connect")
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--json", type=Path, help="file for every single value")
    given = parser.parse_args(arguments)
    given.ways = [way.strip() for way in given.ways.split(",")]
    unknown = [way for way in given.ways if way not in WAYS]
    if unknown or given.rounds < 1:
        parser.error(f"no such way: {', '.join(unknown)}" if unknown else "no rounds, no figures")
    return given


def main(arguments: list[str]) -> int:
    """Measure and print; the exit status."""
    given = options(arguments)
    program.require_managers("bench.quorum")
    noted = Figures()
    quick = Sizes(rounds=1, nodes=40, passes=1, settle_seconds=1)
    with program.reported(noted, given.json):
        run(quick if given.quick else Sizes(rounds=given.rounds), given.ways, noted)
    return program.status(noted, given.quick)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
