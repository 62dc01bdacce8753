"""No needless elections, with real processes: load, and processes that are stopped for a while.

The rule itself is shown in virtual time (`tests/sim/test_pauses.py`); here are the kernel, gRPC
and real disks. On a machine that is busy with other things a process may stand still for longer
than the rule allows, and then an election is right: the longest stall seen is printed, and a
stall beyond the rule is no failure of ours.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import pytest

from bench import httpload
from tests.harness.engines import require_netns
from tests.harness.histories import group
from tests.harness.lan import Lan, wait_until
from tests.harness.nemesis import elections, ranked
from tests.harness.quorum import Node, rest

pytestmark = [pytest.mark.netns, pytest.mark.timeout(900)]
STALL_SECONDS_MAX = 0.3  # beside what a test does itself
WRITERS = 32
LOAD_SECONDS = 60.0
COLLECTION_SECONDS = 0.15
COLLECTED = re.compile(r"stood still for ([0-9.]+) s to collect garbage")

# The daemon with a heap that takes the collector long, and a collection every second. The heap
# grows after the daemon has set its own aside (gc.freeze), or the collector would not look at it.
COLLECTING = f"""
import gc, runpy, sys, threading, time

def collect():
    while not gc.get_freeze_count():
        time.sleep(0.05)
    heap, took = [], 0.0
    while True:
        if took < {COLLECTION_SECONDS} and len(heap) < 60:
            heap.append([[number] for number in range(100_000)])
        begun = time.monotonic()
        gc.collect()
        took = time.monotonic() - begun
        print(f"stood still for {{took:.3f}} s to collect garbage", file=sys.stderr, flush=True)
        time.sleep(0.05 if took < {COLLECTION_SECONDS} else 1)

threading.Thread(target=collect, daemon=True).start()
runpy.run_module("swarmd", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    require_netns()
    with Lan() as lan, group(lan, 3) as made:
        time.sleep(5)  # the group is fast once each has answered
        yield made


class Stalls(threading.Thread):
    """How late a sleeper of 10 ms is woken, at worst: what the machine does to everybody."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worst = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        """Sleep and look at the clock."""
        while not self.over.is_set():
            begun = time.monotonic()
            time.sleep(0.01)
            self.worst = max(self.worst, time.monotonic() - begun - 0.01)


def quiet(nodes: Sequence[Node], what: Callable[[], None], elections_wanted: int = 0) -> None:
    """Do `what`, and count elections until a while after it."""
    before, stalls = len(elections(nodes)), Stalls()
    stalls.start()
    what()
    time.sleep(3)
    stalls.over.set()
    stalls.join()
    found = len(elections(nodes)) - before
    print(f"{found} elections, worst stall of the machine {stalls.worst:.3f} s")
    if found != elections_wanted:
        assert stalls.worst > STALL_SECONDS_MAX, f"{found} elections"


def stop_for(node: Node, seconds: float) -> None:
    os.kill(node.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(node.pid, signal.SIGCONT)


def write(nodes: Sequence[Node]) -> None:
    """32 writers at once, through the leader and through a follower in turn."""
    leader, follower, _ = ranked(nodes)
    end, done = time.monotonic() + LOAD_SECONDS, 0
    while time.monotonic() < end:
        for at in (leader, follower):
            requests = [
                httpload.request(
                    "POST",
                    "/configs/create",
                    {"Name": f"{at.name}-{time.monotonic_ns()}-{n}", "Data": "eA=="},
                )
                for n in range(320)
            ]
            result = httpload.run([at.socket], requests, WRITERS)
            assert not result.refused, result.sample
            done += len(result.latencies)
    print(f"{done / LOAD_SECONDS:.0f} writes per second")


def test_load(nodes: Sequence[Node]) -> None:
    quiet(nodes, lambda: write(nodes))


def test_long_collections_under_load() -> None:
    """Three managers, each of which stands still every second to collect garbage."""
    require_netns()
    with Lan() as lan, group(lan, 3, program=("-c", COLLECTING)) as nodes:
        wait_until("heaps are big", lambda: all(map(long_pauses, nodes)), 60, pause=0.1)
        time.sleep(5)
        before = sum(len(long_pauses(node)) for node in nodes)
        quiet(nodes, lambda: write(nodes))
        found = sorted(pause for node in nodes for pause in long_pauses(node))
        print(
            f"{len(found)} long collections, median {median(found):.3f} s, most {found[-1]:.3f} s"
        )
        assert len(found) > before + LOAD_SECONDS, "they went on under load"


def long_pauses(node: Node) -> list[float]:
    """How long the collector held the process up, in seconds."""
    found = (float(seconds) for seconds in COLLECTED.findall(node.log))
    return [seconds for seconds in found if seconds >= COLLECTION_SECONDS]


@pytest.mark.parametrize("seconds", [0.3, 0.7])
def test_a_leader_that_stands_still_for_a_moment(nodes: Sequence[Node], seconds: float) -> None:
    leader = ranked(nodes)[0]

    def pauses() -> None:
        for _ in range(20):
            stop_for(leader, seconds)
            time.sleep(0.5)

    quiet(nodes, pauses)


def test_a_follower_that_stands_still_for_long(nodes: Sequence[Node]) -> None:
    follower = ranked(nodes)[1]

    def pauses() -> None:
        for seconds in (2, 5, 8):
            stop_for(follower, seconds)
            time.sleep(1)

    quiet(nodes, pauses)


def test_a_leader_that_stands_still_for_long_is_replaced_once(nodes: Sequence[Node]) -> None:
    leader, other, _ = ranked(nodes)
    made = rest(leader, "POST", "/configs/create", {"Name": "kept", "Data": "eA=="})["ID"]
    quiet(nodes, lambda: stop_for(leader, 4), elections_wanted=1)
    for node in (leader, other):
        assert rest(node, "GET", f"/configs/{made}")["Spec"]["Name"] == "kept"
