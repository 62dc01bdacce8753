"""Majority maths over a configuration; no state, no messages."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence


class VoteResult(enum.Enum):
    """How an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(count: int) -> int:
    """How many of `count` voters make a quorum."""
    return count // 2 + 1


def committed_index(voters: Sequence[int], acked: Callable[[int], int]) -> int:
    """The largest index that a majority of `voters` has acknowledged; 0 without voters.

    `acked(id)` is the index a voter acknowledged, 0 if none.
    """
    count = len(voters)
    if count == 1:
        return acked(voters[0])
    if count == 0:
        return 0
    indexes = sorted([acked(id) for id in voters])
    return indexes[count - majority(count)]


def vote_result(voters: Sequence[int], votes: Mapping[int, bool]) -> VoteResult:
    """Tally `votes` (id -> granted) of `voters`; votes of others do not count."""
    granted = sum(1 for id in voters if votes.get(id) is True)
    refused = sum(1 for id in voters if votes.get(id) is False)
    needed = majority(len(voters))
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def is_quorum(voters: Sequence[int], active: Callable[[int], bool]) -> bool:
    """Whether a majority of `voters` is active."""
    return sum(1 for id in voters if active(id)) >= majority(len(voters))
