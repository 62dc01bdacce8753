"""Swarmd and stock timing in virtual time; see `tests/harness/raft_pace.py`."""

from collections import Counter

import pytest

from swarmd.cluster.raft import Role
from swarmd.manager.raftnode import timers
from tests.harness import raft_member, raft_pace, raft_world
from tests.harness.raft_checks import Broken
from tests.harness.raft_coverage import missing

SEEDS = 40


def test_promises_of_the_timers_hold():
    outcomes = [raft_pace.run_seed(seed) for seed in range(SEEDS)]
    assert not missing(sum((outcome.tally for outcome in outcomes), Counter()), raft_pace.EPISODES)
    fast = sorted(took for outcome in outcomes for took in outcome.fast)
    stock = sorted(took for outcome in outcomes for took in outcome.stock)
    assert len(fast) > SEEDS / 4 and len(stock) > SEEDS / 4
    assert fast[len(fast) // 2] < 2 < 8 < stock[0]


def test_a_seed_is_a_run_of_the_timers():
    assert raft_pace.run_seed(3) == raft_pace.run_seed(3)
    assert raft_pace.run_seed(3) != raft_pace.run_seed(4)


def find_a_failure(seeds=40):
    for seed in range(seeds):
        try:
            raft_pace.run_seed(seed)
        except Broken as error:
            return str(error)
    return ""


def greedy(self, voters, own_id):
    """Count on the leader to replace itself."""
    self._known.intersection_update(voters)
    self.fast = self._role is Role.LEADER and 2 * len(self._known | {own_id}) > len(voters)


def hasty(self):
    """Do not care who leads."""
    if self._role is Role.LEADER:
        return timers.STOCK_ELECTION, timers.FAST_HEARTBEAT
    return timers.FAST_ELECTION, timers.FAST_HEARTBEAT


def quick_to_resign(self):
    """A leader that expects a quorum within a second."""
    election, heartbeat = now(self)
    return (timers.FAST_ELECTION if self.fast else election), heartbeat


now = timers.Timers.now


@pytest.mark.parametrize(
    ("place", "name", "fault", "symptom"),
    [
        (timers.Timers, "on_members", greedy, "fast should be False"),
        (timers.Timers, "now", hasty, "waits 10"),
        (timers.Timers, "now", quick_to_resign, "was disturbed"),
        (raft_member.Member, "pre_vote", False, "was disturbed"),
        (raft_world.World, "_beat", lambda self, member, node: None, "disk of a leader"),
        (raft_world, "SLOW_DISK_TICKS", 1 << 40, "no leader within"),
    ],
    ids=["greedy", "hasty", "quick to resign", "no pre-vote", "heartbeats wait", "never silent"],
)
def test_planted_faults_of_timing_are_found(monkeypatch, place, name, fault, symptom):
    monkeypatch.setattr(place, name, fault)
    report = find_a_failure()
    assert report.startswith("seed ")
    assert symptom in report.splitlines()[0]
    assert "episode" in report
