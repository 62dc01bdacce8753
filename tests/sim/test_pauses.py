"""No needless elections: pauses of event loops, slow disks and load, in virtual time.

The limits are those of docs/decisions/0007: a leader may stand still for a little less than a
second, a follower for as long as it likes. Longer pauses of a leader cost exactly one election,
and nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.harness.pauses import Paused, run_paused
from tests.harness.raftnodes import eventually


def undisturbed(monkeypatch: pytest.MonkeyPatch, root: Path, pauses, seconds: float) -> None:
    """Write for `seconds` while `pauses(group)` runs: the first leader leads on in its term."""

    async def story(group: Paused) -> None:
        leader = group.leader
        assert leader is not None
        term = leader.node.term
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(group.write(seconds))
            tasks.create_task(pauses(group, asyncio.get_running_loop().time() + seconds))
        await asyncio.sleep(3)
        assert group.terms() == {term} and leader.node.is_leader()
        assert len(group.acknowledged) > seconds / 2

    run_paused(monkeypatch, root, story)


@pytest.mark.parametrize("seconds", [0.3, 0.7])
def test_short_pauses_of_the_leader(monkeypatch, tmp_path, seconds) -> None:
    async def pauses(group: Paused, end: float) -> None:
        chance = random.Random(seconds)
        while asyncio.get_running_loop().time() < end:
            group.times.pause("a", seconds)
            await asyncio.sleep(seconds + chance.uniform(0.2, 1.0))

    undisturbed(monkeypatch, tmp_path, pauses, 40)


def test_long_pauses_of_a_follower(monkeypatch, tmp_path) -> None:
    async def pauses(group: Paused, end: float) -> None:
        chance = random.Random(1)
        while asyncio.get_running_loop().time() < end:
            group.times.pause("b", chance.uniform(2, 8))
            await asyncio.sleep(9)

    undisturbed(monkeypatch, tmp_path, pauses, 60)


def test_collections_everywhere(monkeypatch, tmp_path) -> None:
    """All three stand still now and then, also at the same time."""

    async def pauses(group: Paused, end: float) -> None:
        chance = random.Random(2)
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            for name in chance.sample("abc", chance.randint(1, 3)):
                if group.times.left(name) < -0.3:
                    group.times.pause(name, chance.uniform(0.1, 0.6))

    undisturbed(monkeypatch, tmp_path, pauses, 60)


@pytest.mark.parametrize("names", ["a", "bc", "abc"])
def test_slow_disks(monkeypatch, tmp_path, names) -> None:
    """Two seconds for each write, with and without fsync: heartbeats wait for none of them."""

    async def slow(group: Paused) -> None:
        leader = group.leader
        assert leader is not None
        term = leader.node.term
        for name in names:
            group.times.disk_seconds[name] = 2.0
        await group.write(60)
        assert group.terms() == {term} and leader.node.is_leader()
        assert len(group.acknowledged) > 5

    run_paused(monkeypatch, tmp_path, slow)


@pytest.mark.parametrize("seconds", [2.5, 6.0, 25.0])
def test_a_long_pause_of_the_leader_costs_one_election(monkeypatch, tmp_path, seconds) -> None:
    async def story(group: Paused) -> None:
        first = group.leader
        assert first is not None
        term = first.node.term
        writing = asyncio.get_running_loop().create_task(group.write(seconds + 20))
        await asyncio.sleep(5)
        before = len(group.acknowledged)
        group.times.pause("a", seconds)
        rest = [one for one in group.all if one is not first]
        await eventually(lambda: any(one.node.is_leader() for one in rest), 2.5)
        await writing
        assert group.terms() == {term + 1}, "one election, and none when it came back"
        assert not first.node.is_leader()
        assert len(group.acknowledged) > before > 10

    run_paused(monkeypatch, tmp_path, story)
