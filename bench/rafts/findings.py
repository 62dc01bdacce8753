"""What a trial reports, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

QUESTIONS = (
    "version tried",
    "installs here from",
    "sync calls for 200 acknowledged writes",
    "left of 200 after kill -9 of all and restart",
    "stranger on the peer port",
    "text of a stranger run as Python",
    "second vote in one term",
    "second vote in one term after kill -9",
    "state file run as Python",
    "speaks raftpb (read)",
    "log, storage, ticks and transport are the caller's (read)",
    "last release (read)",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer about one implementation."""

    library: str
    question: str
    answer: str

    def __post_init__(self) -> None:
        if self.question not in QUESTIONS:
            raise ValueError(f"no such question: {self.question}")


def table(findings: Iterable[Finding], libraries: Iterable[str]) -> str:
    """Questions down, implementations across; "-" where nothing was found out."""
    answers = {(one.library, one.question): one.answer for one in findings}
    names = list(libraries)
    rows = [["question", *names], ["---"] * (len(names) + 1)]
    for question in QUESTIONS:
        rows.append([question, *(answers.get((name, question), "-") for name in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
