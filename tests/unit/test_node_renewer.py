"""Renewal in virtual time: when, how often, and what is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest

from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import SwarmError, Unavailable
from swarmd.cluster import ca
from swarmd.node.renewer import Renewed, Renewer, renewal_time
from tests.harness.virtual import LoopClock, run_virtual

T = TypeVar("T")
DAY = 86_400.0
START = 1_700_000_000.0


@pytest.mark.parametrize("life", [90 * DAY, 3600.0 * 2, 600.0, 120.0, 60.0, 0.0])
def test_renewal_time_is_between_half_and_four_fifths(life: float) -> None:
    entropy = SeededEntropy(3)
    found = [renewal_time(START, START + life, entropy) - START for _ in range(500)]
    first, last = int(life / 60 * 0.5) * 60, int(life / 60 * 0.8) * 60
    assert all(first <= value <= max(first, last - 60) for value in found)
    assert all(value % 60 == 0 for value in found)
    if life >= 3600:
        assert max(found) - min(found) > (last - first) * 0.8


def test_the_edge_of_chance_stays_inside() -> None:
    class Edge:
        def token(self, size: int) -> bytes:
            return bytes(size)

        def uniform(self, low: float, high: float) -> float:
            return high

    assert renewal_time(0, 6000, Edge()) == 79 * 60


@dataclass
class Node:
    """A node whose CA can be told what to do next."""

    identity: ca.Identity | None
    answers: list[ca.Identity | SwarmError]
    times: list[float]
    reports: list[Renewed]

    async def renew(self) -> ca.Identity:
        loop = asyncio.get_running_loop()
        self.times.append(loop.time())
        answer = self.answers.pop(0) if self.answers else fresh(loop.time())
        if isinstance(answer, SwarmError):
            raise answer
        self.identity = answer
        return answer


def fresh(since: float, role: str = ca.WORKER, life: float = 90 * DAY) -> ca.Identity:
    begins = START + since - 3600
    return ca.Identity("n", "c", role, ca.KeyPair(b"", b""), begins, begins + life + 3600)


def play(
    work: Callable[[Renewer, Node], Coroutine[Any, Any, T]],
    identity: ca.Identity | None,
    *answers: ca.Identity | SwarmError,
) -> Node:
    node = Node(identity, list(answers), [], [])

    async def all_of_it() -> None:
        renewer = Renewer(
            lambda: node.identity,
            node.renew,
            node.reports.append,
            LoopClock(START),
            SeededEntropy(11),
        )
        async with Tasks() as tasks:
            ready = asyncio.Event()
            tasks.spawn(renewer.run(ready), "renewer")
            await ready.wait()
            await work(renewer, node)

    run_virtual(all_of_it())
    return node


async def a_year(_: Renewer, __: Node) -> None:
    await asyncio.sleep(365 * DAY)


def test_a_certificate_is_renewed_in_time_again_and_again() -> None:
    node = play(a_year, fresh(0))
    gaps = [later - earlier for earlier, later in zip([0.0, *node.times], node.times, strict=False)]
    assert 4 <= len(gaps) <= 8
    assert all(45 * DAY - 3600 <= gap <= 72 * DAY for gap in gaps)
    assert all(report.identity is not None for report in node.reports)


def test_a_failing_ca_is_asked_again_with_growing_pauses() -> None:
    down = [Unavailable("down") for _ in range(8)]
    node = play(a_year, fresh(0), *down)
    gaps = [b - a for a, b in zip(node.times[:9], node.times[1:9], strict=False)]
    assert all(0 < gap <= 5 * 2**number + 5 * number for number, gap in enumerate(gaps))
    assert [report.error for report in node.reports[:8]] == down
    assert node.reports[8].identity is not None


def test_pauses_never_exceed_an_hour_nor_the_end_of_the_certificate() -> None:
    down = [Unavailable("down") for _ in range(400)]
    node = play(a_year, fresh(0), *down)
    gaps = [b - a for a, b in zip(node.times[:400], node.times[1:400], strict=False)]
    assert max(gaps) <= 3600
    assert len(node.times) > 400  # it went on after that


def test_an_expired_certificate_is_tried_at_once() -> None:
    async def a_while(_: Renewer, __: Node) -> None:
        await asyncio.sleep(60)

    expired = replace(fresh(0), not_after=START - 1)
    node = play(a_while, expired, Unavailable("down"))
    assert node.times[0] == 0
    assert 0 < node.times[1] <= 5
    assert node.reports[-1].identity is not None


def test_an_unreadable_certificate_is_looked_at_every_five_minutes() -> None:
    async def a_while(_: Renewer, node: Node) -> None:
        await asyncio.sleep(301)
        assert [round(time) for time in node.times] == [300]

    node = play(a_while, None, Unavailable("no"))
    assert str(node.reports[0].error) == "failed to read certificate expiration"


def test_a_demanded_renewal_comes_half_a_second_later() -> None:
    async def demand(renewer: Renewer, node: Node) -> None:
        await asyncio.sleep(100)
        renewer.renew_now()
        renewer.renew_now()
        await asyncio.sleep(50)

    node = play(demand, fresh(0))
    assert node.times == [pytest.approx(100.5)]


def test_it_is_repeated_until_the_role_is_the_expected_one() -> None:
    async def promote(renewer: Renewer, node: Node) -> None:
        renewer.expect(ca.MANAGER)
        renewer.renew_now()
        await asyncio.sleep(600)

    worker, manager = fresh(0), fresh(0, ca.MANAGER)
    node = play(promote, fresh(0), worker, Unavailable("busy"), worker, manager)
    assert node.times[0] == pytest.approx(0.5)
    gaps = [b - a for a, b in zip(node.times, node.times[1:], strict=False)]
    assert len(node.times) == 4
    assert all(0 < gap <= 5 * 2**number + 5 * number for number, gap in enumerate(gaps))
    kinds = [
        report.identity.role if report.identity else str(report.error) for report in node.reports
    ]
    assert kinds == ["busy", ca.MANAGER]
    assert node.answers == []


def test_after_the_role_is_right_pauses_start_anew() -> None:
    async def twice(renewer: Renewer, node: Node) -> None:
        renewer.expect(ca.MANAGER)
        renewer.renew_now()
        await asyncio.sleep(600)
        node.answers.append(Unavailable("busy"))
        renewer.renew_now()
        await asyncio.sleep(600)

    worker, manager = fresh(0), fresh(0, ca.MANAGER)
    node = play(twice, fresh(0), worker, worker, manager)
    assert node.times[3] == pytest.approx(600.5)
    assert 0 < node.times[4] - node.times[3] <= 5


def test_a_jump_of_the_wall_clock_is_noticed() -> None:
    class Jumping(LoopClock):
        ahead = 0.0

        def now(self) -> float:
            return super().now() + self.ahead

    clock = Jumping(START)
    node = Node(fresh(0), [], [], [])

    async def test() -> None:
        renewer = Renewer(
            lambda: node.identity, node.renew, node.reports.append, clock, SeededEntropy(1)
        )
        async with Tasks() as tasks:
            tasks.spawn(renewer.run(asyncio.Event()), "renewer")
            await asyncio.sleep(60)
            clock.ahead = 80 * DAY
            await asyncio.sleep(3700)

    run_virtual(test())
    assert node.times[0] <= 3600
    # the CA's clock did not jump: its certificates look old, and are not asked for all the time
    gaps = [b - a for a, b in zip(node.times, node.times[1:], strict=False)]
    assert gaps and all(gap >= 60 for gap in gaps)
