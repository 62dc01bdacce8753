"""Three swarmd managers under cuts, kills and pauses: what clients saw is linearizable.

A few histories here; `make nightly` runs a hundred (`tests/harness/histories.py`). For more of
them: SWARMD_HISTORIES=20, from another seed: SWARMD_HISTORY_SEED=7.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.harness.engines import require_netns, wait_until
from tests.harness.histories import group, run_seed
from tests.harness.lan import Lan
from tests.harness.nemesis import elections, host_of, ranked
from tests.harness.quorum import Node, rest

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600)]

NO_LEADER = "The swarm does not have a leader."
SEEDS = range(int(os.environ.get("SWARMD_HISTORY_SEED", "1")), 10**9)
RUNS = int(os.environ.get("SWARMD_HISTORIES", "2"))


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    require_netns()
    with Lan() as lan, group(lan, 3) as made:
        yield made


def test_histories_are_linearizable(nodes: Sequence[Node]) -> None:
    for seed in SEEDS[:RUNS]:
        outcome = run_seed(nodes, seed, seconds=5.0)
        print(outcome)
        assert not outcome.violation, outcome.violation
        assert outcome.counts["reads"] >= 9, "the last look at each key by each manager"


class Asking(threading.Thread):
    """Asks one manager for one config, again and again, until told to stop."""

    def __init__(self, node: Node, path: str) -> None:
        super().__init__()
        self._node, self._path = node, path
        self.seen: list[str] = []
        self.errors: list[str] = []
        self.over = threading.Event()

    def end(self) -> None:
        """Ask no more."""
        self.over.set()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """Note values and refusals."""
        while not self.over.is_set():
            try:
                self.seen.append(rest(self._node, "GET", self._path)["Spec"]["Labels"]["v"])
            except (RuntimeError, OSError) as error:
                self.errors.append(str(error))
            time.sleep(0.05)


def relabel(at: Node, path: str, value: str) -> None:
    """One update of the newest version."""
    found = rest(at, "GET", path)
    spec = {**found["Spec"], "Labels": {"v": value}}
    rest(at, "POST", f"{path}/update?version={found['Version']['Index']}", spec)


def test_a_leader_that_is_cut_off_neither_writes_nor_shows_what_is_old(
    nodes: Sequence[Node],
) -> None:
    old, one, two = ranked(nodes)
    spec = {"Name": "cut", "Labels": {"v": "old"}, "Data": "eA=="}
    path = f"/configs/{rest(old, 'POST', '/configs/create', spec)['ID']}"
    wait_until("it can be read", lambda: rest(old, "GET", path)["Spec"]["Labels"]["v"] == "old")
    version = rest(old, "GET", path)["Version"]["Index"]
    before = max(elections(nodes))
    host_of(old).unplug()
    asking = Asking(old, path)
    try:
        wait_until("the others elect", lambda: max(elections([one, two]), default=0) > before, 60)
        relabel(one, path, "new")
        assert rest(two, "GET", path)["Spec"]["Labels"]["v"] == "new"
        asking.start()
        wait_until("the minority says so", lambda: NO_LEADER in "".join(asking.errors), 60)
        assert asking.seen == [], "an old value was shown for new"
        with pytest.raises(RuntimeError, match=r"does not have a leader|lost leader status"):
            of_minority = {**spec, "Labels": {"v": "of the minority"}}
            rest(old, "POST", f"{path}/update?version={version}", of_minority)
        host_of(old).plug()
        wait_until("it heals by itself", lambda: asking.seen, 60)
    finally:
        host_of(old).plug()
        asking.end()
    assert set(asking.seen) == {"new"}
    relabel(old, path, "healed")
    assert {rest(at, "GET", path)["Spec"]["Labels"]["v"] for at in nodes} == {"healed"}
    assert all(len(ids) == 1 for ids in elections(nodes).values()), "two leaders in one term"
