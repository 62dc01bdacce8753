"""Majority maths of the Raft core."""

import pytest

from swarmd.cluster.raft.quorum import (
    VoteResult,
    committed_index,
    is_quorum,
    majority,
    vote_result,
)


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_majority(count, needed):
    assert majority(count) == needed


@pytest.mark.parametrize(
    ("acked", "index"),
    [
        ({}, 0),
        ({1: 12}, 12),
        ({1: 12, 2: 5}, 5),
        ({1: 12, 2: 0}, 0),
        ({1: 100, 2: 101, 3: 99}, 100),
        ({1: 101, 2: 101, 3: 0}, 101),
        ({1: 5, 2: 0, 3: 0}, 0),
        ({1: 101, 2: 104, 3: 103, 4: 103}, 103),
        ({1: 101, 2: 104, 3: 102, 4: 103}, 102),
        ({1: 101, 2: 104, 3: 103, 4: 103, 5: 0}, 103),
        ({1: 9, 2: 9, 3: 1, 4: 1, 5: 1}, 1),
    ],
)
def test_committed_index_is_what_a_majority_holds(acked, index):
    assert committed_index(tuple(acked), lambda id: acked[id]) == index


@pytest.mark.parametrize(
    ("voters", "votes", "result"),
    [
        ((1,), {}, VoteResult.PENDING),
        ((1,), {1: True}, VoteResult.WON),
        ((1,), {1: False}, VoteResult.LOST),
        ((1, 2), {1: True}, VoteResult.PENDING),
        ((1, 2), {1: True, 2: False}, VoteResult.LOST),
        ((1, 2), {1: True, 2: True}, VoteResult.WON),
        ((1, 2, 3), {1: True, 2: False}, VoteResult.PENDING),
        ((1, 2, 3), {1: True, 3: True}, VoteResult.WON),
        ((1, 2, 3), {2: False, 3: False}, VoteResult.LOST),
        ((1, 2, 3, 4), {1: True, 2: True}, VoteResult.PENDING),
        ((1, 2, 3, 4), {1: True, 2: True, 3: False, 4: False}, VoteResult.LOST),
        ((1, 2, 3), {8: True, 9: True, 1: True}, VoteResult.PENDING),
        ((1, 2, 3), {8: False, 9: False, 1: True}, VoteResult.PENDING),
    ],
)
def test_vote_result(voters, votes, result):
    assert vote_result(voters, votes) is result


@pytest.mark.parametrize(
    ("voters", "active", "enough"),
    [
        ((1,), [1], True),
        ((1, 2), [1], False),
        ((1, 2, 3), [1, 3], True),
        ((1, 2, 3), [9, 8], False),
    ],
)
def test_is_quorum(voters, active, enough):
    assert is_quorum(voters, lambda id: id in active) is enough
