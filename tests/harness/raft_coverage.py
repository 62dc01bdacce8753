"""What happened in simulated runs, so that a fault that never strikes is noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

# Everything bad worlds must hold. A kind that did not happen in many seeds is a broken simulator.
KINDS = (
    "message lost",
    "message late by overtaking",
    "message doubled",
    "cut both ways",
    "cut one way",
    "mended",
    "crash",
    "unsynced writes lost",
    "restart",
    "pause",
    "disk slow",
    "disk hung",
    "clock skewed",
    "member added",
    "learner added",
    "learner promoted",
    "member removed",
    "member updated",
    "second change refused",
    "leadership handed over",
    "read confirmed",
    "read confirmed for a follower",
    "snapshot sent",
    "snapshot lost",
    "snapshot installed",
    "pre-vote granted by a member without",
    "vote refused in a lease",
    "quorum lost",
    "false alarm",
    "timers changed",
    "fast mode entered",
    "fast mode left",
    "came back as the other kind",
)
# What the core says about itself, and what it means here.
PHRASES = {
    "lost its quorum": "quorum lost",
    "restores snapshot": "snapshot installed",
    "sends snapshot": "snapshot sent",
}


def missing(tally: Counter[str], kinds: Iterable[str] = KINDS) -> list[str]:
    """The kinds that never happened."""
    return [kind for kind in kinds if not tally[kind]]


def table(tally: Counter[str], kinds: Iterable[str] = KINDS) -> str:
    """How often each kind happened, one a line."""
    return "\n".join(f"  {tally[kind]:>9}  {kind}" for kind in kinds)
