"""Managers that stand still for a moment: real processes under load keep their leader."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.harness.engines import Lan, require_engine, wait_until
from tests.harness.quorum import init, join, rest, wait_leader, wait_listed
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

# What decision 0007 allows a leader of a fast group, less what a busy machine adds.
LEADER_SECONDS = 0.3
FOLLOWER_SECONDS = 2.0
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
        if took < {LEADER_SECONDS / 2} and len(heap) < 60:
            heap.append([[number] for number in range(100_000)])
        begun = time.monotonic()
        gc.collect()
        took = time.monotonic() - begun
        print(f"stood still for {{took:.3f}} s to collect garbage", file=sys.stderr, flush=True)
        time.sleep(0.05 if took < {LEADER_SECONDS / 2} else 1)

threading.Thread(target=collect, daemon=True).start()
runpy.run_module("swarmd", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()  # for its command line
    with Lan() as made:
        yield made


class Writers:
    """Threads that create configs through every manager; a context manager."""

    def __init__(self, *managers: Swarmd) -> None:
        self._numbers = itertools.count()
        self._over = threading.Event()
        self.accepted = 0
        self._threads = [
            threading.Thread(target=self._write, args=(manager,))
            for manager in managers
            for _ in range(2)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, manager: Swarmd) -> None:
        while not self._over.is_set():
            spec = {"Name": f"c{next(self._numbers)}", "Labels": {}, "Data": "eA=="}
            with contextlib.suppress(OSError, RuntimeError):
                rest(manager, "POST", "/configs/create", spec)
                self.accepted += 1

    def go_on(self) -> None:
        """Wait until more writes are accepted, by whoever answers first."""
        before = self.accepted
        wait_until("writes are accepted", lambda: self.accepted > before + 6, 30, pause=0.02)


def stand_still(manager: Swarmd, seconds: float) -> None:
    """Stop the process and let it go on."""
    os.kill(manager.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(manager.pid, signal.SIGCONT)


def elections(*managers: Swarmd) -> int:
    """How often one of them became leader."""
    return sum(manager.log.count("leads at term") for manager in managers)


def pauses(manager: Swarmd) -> list[float]:
    """How long the collector held the process up each time, in seconds."""
    return [float(found) for found in COLLECTED.findall(manager.log)]


def long_pauses(manager: Swarmd) -> list[float]:
    return [one for one in pauses(manager) if one >= LEADER_SECONDS / 2]


def test_collections_and_stops_cost_no_leader(lan: Lan) -> None:
    with (
        Swarmd("m1", lan=lan, program=("-c", COLLECTING)) as m1,
        Swarmd("m2", lan=lan) as m2,
        Swarmd("m3", lan=lan) as m3,
    ):
        init(m1)
        join(m2, m1, "manager")
        join(m3, m1, "manager")
        wait_listed(m1, m1="Ready Leader", m2="Ready Reachable", m3="Ready Reachable")
        before = elections(m1, m2, m3)
        with Writers(m1, m2, m3) as writers:
            begun = len(long_pauses(m1))
            wait_until(
                "the collector ran long, five times",
                lambda: len(long_pauses(m1)) >= begun + 5,
                60,
                pause=0.1,
            )
            for follower in (m2, m3):
                stand_still(follower, FOLLOWER_SECONDS)
                writers.go_on()
            for _ in range(5):
                stand_still(m1, LEADER_SECONDS)
                writers.go_on()
            assert elections(m1, m2, m3) == before, pauses(m1)
            # The same signs where a leader does stand still too long: they can be seen at all.
            stand_still(m1, 6.0)
            assert wait_leader(m2, "m2", "m3") in ("m2", "m3")
            writers.go_on()
        assert elections(m1, m2, m3) > before
