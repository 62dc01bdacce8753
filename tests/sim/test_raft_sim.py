"""Seeded bad worlds for the Raft core; see `tests/harness/raft_sim.py`; nightly runs have more."""

import re
from collections import Counter

import pytest

from swarmd.cluster.raft import leader, log, quorum
from tests.harness import raft_sim
from tests.harness.raft_checks import Broken
from tests.harness.raft_coverage import missing

SEEDS = 300
CHUNK = 30


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_promises_hold_in_bad_worlds(start):
    outcomes = [raft_sim.run_seed(seed) for seed in range(start, start + CHUNK)]
    assert sum(outcome.committed for outcome in outcomes) > 30 * CHUNK
    assert sum(outcome.terms for outcome in outcomes) > 2 * CHUNK
    assert sum(outcome.wedged for outcome in outcomes) <= 1


def test_every_kind_of_fault_happens_within_a_hundred_seeds():
    tally = Counter()
    for seed in range(SEEDS, SEEDS + 100):
        tally += raft_sim.run_seed(seed).tally
        if not missing(tally):
            break
    assert not missing(tally)


def test_a_seed_is_a_run():
    assert raft_sim.run_seed(3) == raft_sim.run_seed(3)
    assert raft_sim.run_seed(3) != raft_sim.run_seed(4)


def find_a_failure(seeds=120):
    for seed in range(seeds):
        try:
            raft_sim.run_seed(seed)
        except Broken as error:
            return str(error)
    return ""


def everyone_is_up_to_date(self, index, term):
    return True


def half_is_enough(count):
    return max(1, count // 2)


def heartbeat_with_every_commit(raft):
    for id in raft.progress:
        if id != raft.id:
            message = leader.new_message(leader.raftpb.MsgHeartbeat, id, commit=raft.log.committed)
            raft.send(message)


@pytest.mark.parametrize(
    ("place", "name", "fault", "symptom"),
    [
        (log.RaftLog, "is_up_to_date", everyone_is_up_to_date, "lacks committed entry"),
        (quorum, "majority", half_is_enough, ""),
        (leader, "broadcast_heartbeat", heartbeat_with_every_commit, ""),
        (leader, "report_snapshot", lambda raft, id, ok: None, "no progress"),
    ],
    ids=["old logs win", "half is a quorum", "blind commit", "stuck snapshot"],
)
def test_the_simulator_finds_planted_faults(monkeypatch, place, name, fault, symptom):
    """A failing run names its seed and shows the last events."""
    monkeypatch.setattr(place, name, fault)
    report = find_a_failure()
    assert report.startswith("seed ")
    assert symptom in report
    assert re.search(r"(recv|lost) \d->\d", report)  # the messages before it
