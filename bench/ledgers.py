"""Writers whose every write can be accounted for afterwards: lost, doubled, or there once.

A ledger is a config whose labels count its writes. Several writers may share it, each through a
manager of its own: one reads the ledger, adds one to the count, notes its own number, and asks to
store that over the version it read. The store must refuse whoever comes second. So every count
belongs to exactly one accepted write: a write that was lost shows as a count given out twice or
beyond the end, one that was applied without being accepted as a count nobody can account for.
"""

from __future__ import annotations

import base64
import http.client
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.rest import Refused, Rest

Outcome = Literal["accepted", "refused", "unknown"]

REQUEST_SECONDS = 5.0  # then the end is unknown, and the writer goes on over a new connection
PAUSE_SECONDS = 0.05  # between two writes of one writer: the managers share two cores with us
AFTER_TROUBLE_SECONDS = 0.05
OUTRUN = "update out of sequence"  # the one refusal that says: not applied (but see `audit`)
TROUBLE = (OSError, http.client.HTTPException, Refused)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One write: what it wanted to store, through whom, when (monotonic seconds), and its end."""

    ledger: str
    count: int
    writer: str
    number: int
    via: str
    begun: float
    ended: float
    outcome: Outcome
    text: str = ""


class Journal:
    """All attempts of all writers, in the order they ended."""

    def __init__(self) -> None:
        self._attempts: list[Attempt] = []
        self._changed = threading.Condition()

    def note(self, attempt: Attempt) -> None:
        """Add one; any thread."""
        with self._changed:
            self._attempts.append(attempt)
            if attempt.outcome == "accepted":
                self._changed.notify_all()

    def all(self) -> list[Attempt]:
        """What was noted so far."""
        with self._changed:
            return list(self._attempts)

    def accepted_after(self, moment: float, via: Iterable[str], timeout: float) -> Attempt:
        """Wait for the first accepted write that began after `moment` through one of `via`.

        Raises TimeoutError.
        """
        wanted, seen = set(via), self._length_at(moment)
        end = time.perf_counter() + timeout
        with self._changed:
            while True:
                for attempt in self._attempts[seen:]:
                    fits = attempt.outcome == "accepted" and attempt.begun >= moment
                    if fits and attempt.via in wanted:
                        return attempt
                seen = len(self._attempts)
                if not self._changed.wait(end - time.perf_counter()):
                    raise TimeoutError(f"no write through {sorted(wanted)} within {timeout} s")

    def _length_at(self, moment: float) -> int:
        """How many attempts had ended at `moment`."""
        with self._changed:
            count = len(self._attempts)
            while count and self._attempts[count - 1].ended >= moment:
                count -= 1
            return count


@dataclass(frozen=True, slots=True)
class Ledger:
    """A config by name and id."""

    name: str
    id: str


def open_ledger(rest: Rest, name: str) -> Ledger:
    """Create a ledger with nothing in it."""
    made = rest.call("POST", "/configs/create", _spec(name, {"count": "0"}))
    return Ledger(name, made["ID"])


def read_ledger(rest: Rest, ledger: Ledger) -> tuple[int, dict[str, str]]:
    """Its version and labels."""
    found = rest.call("GET", f"/configs/{ledger.id}")
    return int(found["Version"]["Index"]), dict(found["Spec"]["Labels"])


def _spec(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    data = base64.b64encode(name.encode()).decode()
    return {"Name": name, "Labels": dict(labels), "Data": data}


class Writer:
    """One client of one manager that writes into one ledger while it may."""

    def __init__(self, name: str, via: str, socket: Callable[[], str], ledger: Ledger) -> None:
        self.name = name
        self._via = via
        self._socket = socket
        self._ledger = ledger
        self._number = 0

    def run(self, journal: Journal, may_write: threading.Event, over: threading.Event) -> None:
        """Write whenever `may_write` is set, until `over` is; body of a thread."""
        while not over.is_set():
            if not may_write.wait(0.1):
                continue
            try:
                with Rest(self._socket(), REQUEST_SECONDS) as rest:
                    while may_write.is_set() and not over.is_set():
                        self._write(rest, journal)
                        time.sleep(PAUSE_SECONDS)
            except TROUBLE:
                time.sleep(AFTER_TROUBLE_SECONDS)

    def _write(self, rest: Rest, journal: Journal) -> None:
        """One write. What cannot be known is noted as such, and the trouble is raised."""
        begun = time.perf_counter()
        version, labels = read_ledger(rest, self._ledger)
        count = int(labels["count"]) + 1
        self._number += 1
        labels |= {"count": str(count), self.name: str(self._number)}
        path = f"/configs/{self._ledger.id}/update?version={version}"
        trouble: Exception | None = None
        outcome: Outcome = "accepted"
        try:
            rest.call("POST", path, _spec(self._ledger.name, labels))
        except TROUBLE as error:
            outcome = "refused" if OUTRUN in str(error) else "unknown"
            trouble = error
        journal.note(
            Attempt(
                self._ledger.name,
                count,
                self.name,
                self._number,
                self._via,
                begun,
                time.perf_counter(),
                outcome,
                str(trouble or ""),
            )
        )
        if outcome == "unknown" and trouble is not None:
            raise trouble


Window = tuple[float, float]


def audit(
    attempts: Iterable[Attempt],
    ends: Mapping[str, Mapping[str, str]],
    outages: Iterable[Window] = (),
) -> list[str]:
    """What is wrong, one line each: `ends` is ledger -> its labels when all writing is over.

    `outages`: from a leader's death to the first write under the next one. A write that was under
    way then may be refused though it was applied: a manager that lost its leader asks the next one
    again (as a stock follower does), and that finds the write there already.
    """
    windows = list(outages)
    by_ledger: dict[str, list[Attempt]] = {name: [] for name in ends}
    for attempt in attempts:
        by_ledger[attempt.ledger].append(attempt)
    return [
        fault
        for name in ends
        for fault in _audit_one(name, by_ledger[name], dict(ends[name]), windows)
    ]


def asked_twice(attempt: Attempt, outages: Iterable[Window]) -> bool:
    """Whether a refused write may have been applied before, in one of the outages."""
    return attempt.outcome == "refused" and any(
        attempt.begun <= end and attempt.ended >= begin for begin, end in outages
    )


def _audit_one(
    name: str, attempts: list[Attempt], end: dict[str, str], outages: list[Window]
) -> list[str]:
    last = int(end.pop("count"))
    accepted: dict[int, Attempt] = {}
    maybe: list[Attempt] = []
    faults = []
    for attempt in attempts:
        who = f"{name}: write {attempt.number} of {attempt.writer} (count {attempt.count})"
        if attempt.outcome == "unknown" or asked_twice(attempt, outages):
            maybe.append(attempt)
        elif attempt.outcome == "accepted":
            if attempt.count in accepted:
                twin = accepted[attempt.count].writer
                faults.append(f"{who} was accepted like one of {twin}: one of the two is lost")
            if attempt.count > last:
                faults.append(f"{who} was accepted and is lost: the ledger ends at {last}")
            accepted[attempt.count] = attempt
    possible = {attempt.count for attempt in maybe}
    faults += [
        f"{name}: count {count} is nobody's: a write was applied twice, or though it was refused"
        for count in range(1, last + 1)
        if count not in accepted and count not in possible
    ]
    return faults + _audit_writers(name, accepted, maybe, end)


def _audit_writers(
    name: str, accepted: Mapping[int, Attempt], maybe: list[Attempt], end: Mapping[str, str]
) -> list[str]:
    """A writer's number in the ledger is that of its last accepted write, or of a maybe after."""
    last: dict[str, int] = {}
    for attempt in accepted.values():
        last[attempt.writer] = max(last.get(attempt.writer, 0), attempt.number)
    possible = {(attempt.writer, attempt.number) for attempt in maybe}
    faults = []
    for writer in sorted({*last, *end}):
        there, due = int(end.get(writer, 0)), last.get(writer, 0)
        if there != due and (there < due or (writer, there) not in possible):
            faults.append(f"{name}: last write of {writer} is {due}, but {there} is there")
    return faults
