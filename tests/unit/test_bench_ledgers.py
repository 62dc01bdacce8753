"""The audit of the failover measurement: what it must find, and what it must let pass."""

from __future__ import annotations

import threading
import time

import pytest

from bench.failover import p90, share
from bench.ledgers import Attempt, Journal, Outcome, audit


def write(
    count: int, writer: str, number: int, outcome: Outcome = "accepted", at: float = 0.0
) -> Attempt:
    return Attempt("book", count, writer, number, f"of-{writer}", at, at + 0.1, outcome)


def ends(count: int, **numbers: int) -> dict[str, dict[str, str]]:
    labels = {"count": count, **numbers}
    return {"book": {name: str(value) for name, value in labels.items()}}


FAIR = [write(1, "a", 1), write(2, "b", 1), write(2, "a", 2, "refused"), write(3, "a", 3)]


@pytest.mark.parametrize(
    ("attempts", "end"),
    [
        ([], ends(0)),
        (FAIR, ends(3, a=3, b=1)),
        ([*FAIR, write(4, "b", 2, "unknown")], ends(3, a=3, b=1)),
        ([*FAIR, write(4, "b", 2, "unknown")], ends(4, a=3, b=2)),
        # Asked again while the leader was dead, and found to be there already.
        ([*FAIR, write(4, "b", 2, "refused", at=10.05)], ends(4, a=3, b=2)),
    ],
)
def test_every_write_is_accounted_for(attempts: list[Attempt], end: dict[str, dict[str, str]]):
    assert audit(attempts, end, [(10.0, 11.0)]) == []


@pytest.mark.parametrize(
    ("attempts", "end", "fault"),
    [
        (FAIR, ends(2, a=1, b=1), "accepted and is lost: the ledger ends at 2"),
        (FAIR, ends(3, a=1, b=1), "last write of a is 3, but 1 is there"),
        ([*FAIR, write(3, "b", 2)], ends(3, a=3, b=1), "one of the two is lost"),
        (FAIR, ends(4, a=3, b=1), "count 4 is nobody's"),
        (FAIR, ends(3, a=4, b=1), "last write of a is 3, but 4 is there"),
        ([*FAIR, write(4, "b", 2, "refused", at=9.0)], ends(4, a=3, b=2), "count 4 is nobody's"),
        ([write(1, "a", 1, "unknown")], ends(2, a=1), "count 2 is nobody's"),
    ],
)
def test_a_lost_or_doubled_write_is_found(
    attempts: list[Attempt], end: dict[str, dict[str, str]], fault: str
):
    found = audit(attempts, end, [(10.0, 11.0)])
    assert any(fault in line for line in found), found


def test_the_journal_waits_for_a_write_that_began_after_the_moment() -> None:
    journal, now = Journal(), time.perf_counter()
    for attempt in (
        write(1, "a", 1, at=now - 0.05),  # ended after the moment, but began before it
        write(2, "a", 2, "unknown", at=now + 1),
        write(3, "b", 1, at=now + 2),  # through another manager
    ):
        journal.note(attempt)
    with pytest.raises(TimeoutError):
        journal.accepted_after(now, ["of-a"], 0.05)
    due = write(4, "a", 3, at=now + 3)
    later = threading.Timer(0.05, journal.note, [due])
    later.start()
    try:
        assert journal.accepted_after(now, ["of-a"], 30) == due
        assert journal.accepted_after(now, ["of-a", "of-b"], 30).writer == "b"
    finally:
        later.join()


def test_blocks_and_deciles() -> None:
    assert share(25, 10) == [10, 10, 5]
    assert share(0, 10) == []
    assert p90([float(value) for value in range(101)]) == 90.0
    assert p90([1.5]) == 1.5
