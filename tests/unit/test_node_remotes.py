"""Choosing a manager: weights, exclusion, lists from managers."""

from __future__ import annotations

from collections import Counter

import pytest

from swarmd.base.entropy import SeededEntropy
from swarmd.node.remotes import NoRemotes, Remote, Remotes

A, B, C = Remote("a", "10.0.0.1:2377"), Remote("b", "10.0.0.2:2377"), Remote("c", "10.0.0.3:2377")


@pytest.mark.parametrize(
    ("observations", "weight"),
    [
        ([], 5),
        ([10], 8),
        ([10, 10], 9),
        ([10] * 20, 10),
        ([-10], -2),
        ([-10] * 20, -9),
        ([10_000] * 20, 256),
        ([-10_000] * 20, -255),
        ([0] * 20, 1),
    ],
)
def test_weights_move_half_way_rounded_up(observations: list[int], weight: int) -> None:
    remotes = Remotes([A])
    for observation in observations:
        remotes.observe(A, observation)
    assert remotes.weights() == {A: weight}


def test_choice_follows_the_weights() -> None:
    remotes, chance = Remotes([A, B, C]), SeededEntropy(1)
    for _ in range(10):
        remotes.observe(A, 30)
        remotes.observe(B, 10)
        remotes.observe(C, -10)
    counts = Counter(remotes.select(chance) for _ in range(4000))
    assert 2700 < counts[A] < 3300 and 800 < counts[B] < 1300
    assert counts[C] < 10


def test_without_weight_all_are_equal() -> None:
    remotes, chance = Remotes([A, B]), SeededEntropy(1)
    for _ in range(20):
        remotes.observe(A, -10)
        remotes.observe(B, -100)
    counts = Counter(remotes.select(chance) for _ in range(1000))
    assert 400 < counts[A] < 600


def test_exclusion_by_id_and_address() -> None:
    remotes, chance = Remotes([A, B, C]), SeededEntropy(1)
    assert {remotes.select(chance, ["a", B.addr]) for _ in range(50)} == {C}
    with pytest.raises(NoRemotes, match="no remote hosts provided"):
        remotes.select(chance, ["a", "b", "c"])
    with pytest.raises(NoRemotes):
        Remotes().select(chance)


def test_the_edge_of_chance_is_safe() -> None:
    class Edge:
        def __init__(self, high: bool) -> None:
            self.high = high

        def uniform(self, low: float, high: float) -> float:
            return high if self.high else low

    remotes = Remotes([A, B])
    assert remotes.select(Edge(False)) == A
    assert remotes.select(Edge(True)) == B


def test_a_list_replaces_what_was_known() -> None:
    told: list[list[Remote]] = []
    remotes = Remotes([A], told.append)
    remotes.replace([(B, 10), (C, 10), (Remote("d", ""), 10)])
    assert remotes.weights() == {B: 5, C: 5}
    remotes.replace([(B, 10), (C, 10)])
    remotes.replace([])
    remotes.replace([(Remote("x", ""), 10)])
    assert remotes.all() == [B, C]
    assert told == [[B, C]]


def test_changes_are_told_once() -> None:
    told: list[list[Remote]] = []
    remotes = Remotes([], told.append)
    remotes.observe(A, 10)
    remotes.observe(A, 10)
    remotes.observe_if_known(B, 10)
    remotes.remove(B)
    remotes.observe(B, 10)
    remotes.remove(A)
    assert told == [[A], [A, B], [B]]
    assert len(remotes) == 1
