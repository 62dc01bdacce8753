"""The scenarios of `bench.manager`: each measures both managers in turn and notes figures.

A scenario is written once and run on either manager. Within one, swarmd and the engine take
turns (ABAB...), so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import httpload
from bench.figures import Figures, Target, load
from bench.fleet import Fleet
from bench.managers import (
    KINDS,
    PORT,
    Kind,
    Lan,
    Manager,
    StockManager,
    cpu_seconds,
    cpu_share,
    init_body,
    initialised,
    rss_bytes,
    running,
    token_of,
    wait_until,
)
from bench.rest import Rest

NO_MORE = Target("ratio", "<=", 1.0)
THREE_TIMES = Target("ratio", ">=", 3.0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; `quick` is a smoke run whose figures mean nothing."""

    inits: int = 12
    joins: int = 12
    rotations: int = 100
    writer_nodes: int = 320
    writer_rounds: int = 10
    writer_passes: int = 12
    writers: int = 32
    fleet: int = 500
    fleet_rounds: int = 10
    idle_seconds: float = 5.0
    settle_seconds: float = 10.0
    steady_seconds: float = 20.0
    starts: int = 12


QUICK = Sizes(
    inits=2,
    joins=2,
    rotations=3,
    writer_nodes=40,
    writer_rounds=2,
    writer_passes=1,
    fleet=20,
    fleet_rounds=1,
    idle_seconds=1,
    settle_seconds=1,
    steady_seconds=3,
    starts=2,
)


def init(lan: Lan, sizes: Sizes, figures: Figures) -> None:
    """(a) POST /swarm/init on a daemon that is up, then leave by force."""
    figure = figures.of("a init", "ms", NO_MORE)
    with contextlib.ExitStack() as stack:
        managers = [stack.enter_context(running(kind, lan, f"a-{kind.label}")) for kind in KINDS]
        for number in range(sizes.inits + 1):
            for manager in managers:
                with Rest(manager.socket) as rest:
                    seconds, _ = rest.timed("POST", "/swarm/init", init_body(manager.ip))
                    if number:  # the first one warms up
                        figure.add(manager.label, seconds * 1000)
                    _leave(rest)


def join(lan: Lan, sizes: Sizes, figures: Figures) -> None:
    """(b) POST /swarm/join on a stock engine as a worker of either manager, then leave."""
    figure = figures.of("b join of a stock worker", "ms", NO_MORE)
    with contextlib.ExitStack() as stack:
        managers = [
            stack.enter_context(initialised(kind, lan, f"b-{kind.label}")) for kind in KINDS
        ]
        worker = stack.enter_context(StockManager("b-worker", lan=lan))
        for number in range(sizes.joins + 1):
            for manager in managers:
                seconds = _join_once(manager, worker)
                if number:
                    figure.add(manager.label, seconds * 1000)


def _join_once(manager: Manager, worker: StockManager) -> float:
    body = {
        "ListenAddr": f"0.0.0.0:{PORT}",
        "AdvertiseAddr": worker.ip,
        "RemoteAddrs": [f"{manager.ip}:{PORT}"],
        "JoinToken": token_of(manager),
        "Availability": "active",
    }
    with Rest(worker.socket) as at_worker, Rest(manager.socket) as at_manager:
        seconds, _ = at_worker.timed("POST", "/swarm/join", body)
        node = at_worker.call("GET", "/info")["Swarm"]["NodeID"]
        wait_until("the worker is ready", lambda: _state(at_manager, node) == "ready", 30)
        _leave(at_worker)
        at_manager.call("DELETE", f"/nodes/{node}?force=true")
    return seconds


def _state(rest: Rest, node: str) -> str:
    return str(rest.call("GET", f"/nodes/{node}")["Status"]["State"])


def _leave(rest: Rest) -> None:
    rest.call("POST", "/swarm/leave?force=true")
    wait_until(
        "the node left",
        lambda: rest.call("GET", "/info")["Swarm"]["LocalNodeState"] == "inactive",
        30,
    )


def rotate(lan: Lan, sizes: Sizes, figures: Figures) -> None:
    """(c) POST /swarm/update?rotateWorkerToken=true."""
    figure = figures.of("c rotate the worker token", "ms", NO_MORE)
    with contextlib.ExitStack() as stack:
        managers = [
            stack.enter_context(initialised(kind, lan, f"c-{kind.label}")) for kind in KINDS
        ]
        rests = [(m, stack.enter_context(Rest(m.socket))) for m in managers]
        for number in range(sizes.rotations + 1):
            for manager, rest in rests:
                swarm = rest.call("GET", "/swarm")
                version = swarm["Version"]["Index"]
                path = f"/swarm/update?version={version}&rotateWorkerToken=true"
                seconds, _ = rest.timed("POST", path, swarm["Spec"])
                after = rest.call("GET", "/swarm")["JoinTokens"]["Worker"]
                if after == swarm["JoinTokens"]["Worker"]:
                    raise RuntimeError(f"{manager.label} did not rotate the token")
                if number:
                    figure.add(manager.label, seconds * 1000)


def writers(lan: Lan, sizes: Sizes, figures: Figures) -> None:
    """(d) Concurrent keep-alive writers; each request updates the labels of a node of its own.

    Both fleets of simulated nodes stay connected throughout, so no version changes meanwhile
    and both managers carry the same background work.
    """
    with contextlib.ExitStack() as stack:
        managers = [
            stack.enter_context(initialised(kind, lan, f"d-{kind.label}")) for kind in KINDS
        ]
        fleets = []
        for manager in managers:
            host = lan.host(f"d-fleet-{manager.label}")
            fleet = stack.enter_context(Fleet(host, manager, sizes.writer_nodes))
            fleet.wait_live(120)
            fleets.append(fleet)
        time.sleep(sizes.settle_seconds)
        for number in range(sizes.writer_rounds + 1):
            for manager in managers:
                _write_round(manager, sizes, figures, number)
        for manager, fleet in zip(managers, fleets, strict=True):
            _note_fleet(figures, f"d {manager.label}", fleet.counts)


def _write_round(manager: Manager, sizes: Sizes, figures: Figures, number: int) -> None:
    """One turn of one manager: every node updated `writer_passes` times; round 0 warms up."""
    before, generator = cpu_seconds(manager.pid), time.process_time()
    wall, latencies, reading = 0.0, [], 0.0
    for turn in range(sizes.writer_passes):
        mark, cpu = time.process_time(), cpu_seconds(manager.pid)
        requests = label_updates(manager, f"{number}-{turn}")
        reading += cpu_seconds(manager.pid) - cpu
        generator += time.process_time() - mark
        result = httpload.run([manager.socket], requests, sizes.writers)
        if result.refused or len(result.latencies) != len(requests):
            raise RuntimeError(
                f"{manager.label}: {len(result.latencies)} of {len(requests)} answered, "
                f"{result.refused} refused: {result.sample}"
            )
        wall += result.wall
        latencies += result.latencies
    writing = cpu_seconds(manager.pid) - before - reading
    loaded = time.process_time() - generator
    if not number:
        return
    whole = httpload.Result(wall, latencies, 0, "")
    rows = [
        (f"d writes, {sizes.writers} writers", "1/s", THREE_TIMES, whole.per_second),
        ("d write latency, median", "ms", None, whole.quantile(0.5)),
        ("d write latency, p99", "ms", None, whole.quantile(0.99)),
        ("d manager CPU per write", "ms", None, writing / len(latencies) * 1000),
        ("d load generator CPU", "% of a core", None, loaded / wall * 100),
    ]
    for name, unit, target, value in rows:
        figures.of(name, unit, target).add(manager.label, value)


def label_updates(manager: Manager, mark: str) -> list[bytes]:
    """One request per simulated node, with the version it has now."""
    with Rest(manager.socket) as rest:
        nodes: list[dict[str, Any]] = rest.call("GET", "/nodes")
    return [
        httpload.request(
            "POST",
            f"/nodes/{node['ID']}/update?version={node['Version']['Index']}",
            {**node["Spec"], "Labels": {"bench": mark}},
        )
        for node in nodes
        if node["Spec"]["Role"] == "worker"
    ]


def fleet(lan: Lan, sizes: Sizes, figures: Figures) -> None:
    """(e) Simulated nodes on a fresh manager process: time to Ready, then what they cost."""
    for number in range(sizes.fleet_rounds):
        for kind in KINDS:
            _fleet_round(lan, kind, sizes, figures, number)


def _fleet_round(lan: Lan, kind: Kind, sizes: Sizes, figures: Figures, number: int) -> None:
    count = sizes.fleet
    with initialised(kind, lan, f"e-{kind.label}-{number}") as manager:
        time.sleep(2)
        idle = cpu_share(manager.pid, sizes.idle_seconds)
        rss, cpu = rss_bytes(manager.pid), cpu_seconds(manager.pid)
        with Fleet(lan.host("e-fleet"), manager, count) as nodes:
            joined = nodes.wait_live(180)
            spent = cpu_seconds(manager.pid) - cpu
            _all_ready(manager, count)
            time.sleep(sizes.settle_seconds)
            steady = cpu_share(manager.pid, sizes.steady_seconds)
            after = rss_bytes(manager.pid)
            _all_ready(manager, count)
            _note_fleet(figures, f"e {kind.label} round {number + 1}", nodes.counts)
    rows = [
        (f"e {count} nodes Ready after", "s", None, joined["last_session"] - joined["begun"]),
        ("e manager CPU per join", "ms", None, spent / count * 1000),
        ("e fleet's own CPU per join", "ms", None, joined["cpu"] / count * 1000),
        ("e manager CPU per node, steady", "us/s", NO_MORE, steady / count * 1e6),
        ("e same, without the idle share", "us/s", None, (steady - idle) / count * 1e6),
        ("e manager RSS per node", "kB", NO_MORE, (after - rss) / count / 1000),
        (f"e manager RSS with {count} nodes", "MB", None, after / 1e6),
    ]
    for name, unit, target, value in rows:
        figures.of(name, unit, target).add(kind.label, value)


def _all_ready(manager: Manager, count: int) -> None:
    """Wait until the manager itself calls `count` workers ready."""

    def ready() -> bool:
        with Rest(manager.socket) as rest:
            nodes = rest.call("GET", "/nodes")
        states = [n["Status"]["State"] for n in nodes if n["Spec"]["Role"] == "worker"]
        return states == ["ready"] * count

    wait_until(f"{manager.label} has {count} ready workers", ready, 30, pause=0.5)


def _note_fleet(figures: Figures, who: str, counts: dict[str, Any]) -> None:
    if counts["errors"] or counts["losses"]:
        figures.notes.append(
            f"{who}: {counts['errors']} errors, {counts['losses']} lost sessions of simulated "
            f"nodes; last: {counts['last_error']}"
        )


def start(lan: Lan, sizes: Sizes, figures: Figures) -> None:
    """(f) From the start of the process to the first answer; then again as a manager."""
    for _ in range(sizes.starts):
        for kind in KINDS:
            with kind(f"f-{kind.label}", lan=lan) as manager:
                first = manager.start_seconds
                rss = rss_bytes(manager.pid)
                with Rest(manager.socket) as rest:
                    rest.call("POST", "/swarm/init", init_body(manager.ip))
                leading = rss_bytes(manager.pid)
                manager.stop()
                begun = time.perf_counter()
                manager.start()
                wait_until("it leads", lambda m=manager: _leads(m), 30, pause=0.002)
                again = time.perf_counter() - begun
            rows = [
                ("f start to first answer", "s", Target("ours", "<=", 1.0), first),
                ("f RSS when ready", "MB", Target("ours", "<=", 80.0), rss / 1e6),
                ("f RSS after init", "MB", None, leading / 1e6),
                ("f restart of a manager to serving", "s", None, again),
            ]
            for name, unit, target, value in rows:
                figures.of(name, unit, target).add(kind.label, value)


def _leads(manager: Manager) -> bool:
    with Rest(manager.socket) as rest:
        return bool(rest.call("GET", "/info")["Swarm"]["ControlAvailable"])


SCENARIOS: dict[str, Callable[[Lan, Sizes, Figures], None]] = {
    "a": init,
    "b": join,
    "c": rotate,
    "d": writers,
    "e": fleet,
    "f": start,
}


def run(wanted: list[str], sizes: Sizes, figures: Figures) -> None:
    """Run the wanted scenarios, each on a LAN of its own; load1 before each becomes a note."""
    for letter in wanted:
        figures.notes.append(f"{letter}: load1 {load():.1f} at the start")
        with Lan() as lan:
            SCENARIOS[letter](lan, sizes, figures)
