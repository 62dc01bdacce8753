"""The checker of histories: known bad ones are rejected, good ones accepted, small ones proved."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import linearizable
from tests.harness.linearizable import (
    Action,
    NotLinearizable,
    Op,
    Read,
    Swap,
    TooHard,
    check,
    check_keys,
    check_register,
)

START = Read("a", 1)


def ok(action: Action, begun: float, ended: float, client: str = "c1") -> Op[Action]:
    return Op(action, begun, ended, client)


def lost(action: Action, begun: float) -> Op[Action]:
    return Op(action, begun)


def holds(*history: Op[Action]) -> bool:
    try:
        check_register(history, START)
    except NotLinearizable:
        return False
    return True


GOOD = {
    "nothing happened": [],
    "one after the other": [
        ok(Read("a", 1), 0, 1),
        ok(Swap(1, "b"), 2, 3),
        ok(Read("b", 5), 4, 5),
        ok(Swap(1, "c", refused=True), 6, 7),
        ok(Swap(5, "d"), 8, 9),
        ok(Read("d", 6), 10, 11),
    ],
    "a read beside a write sees either": [
        ok(Swap(1, "b"), 0, 10),
        ok(Read("a", 1), 1, 2),
        ok(Read("b", 3), 3, 4),
        ok(Read("b", 3), 5, 20),
    ],
    "two swaps at once, one is refused": [
        ok(Swap(1, "b"), 0, 10),
        ok(Swap(1, "c", refused=True), 0, 10),
        ok(Read("b", 2), 11, 12),
    ],
    "a write nobody heard of again": [lost(Swap(1, "b"), 0), ok(Read("a", 1), 1, 2)],
    "a write that took effect late": [
        lost(Swap(1, "b"), 0),
        ok(Read("a", 1), 1, 2),
        ok(Read("b", 9), 3, 4),
    ],
    "a lost write is what refuses another": [
        lost(Swap(1, "b"), 0),
        ok(Swap(1, "c", refused=True), 1, 2),
    ],
    "lost writes build on each other": [
        ok(Swap(1, "b"), 0, 1),
        ok(Read("b", 2), 2, 3),
        lost(Swap(2, "c"), 4),
        ok(Read("c", 3), 5, 6),
        lost(Swap(3, "d"), 7),
        ok(Swap(3, "e", refused=True), 8, 9),
    ],
}

BAD = {
    "stale read": [
        ok(Swap(1, "b"), 0, 1),
        ok(Read("a", 1), 2, 3),
    ],
    "stale read after a read by somebody else": [
        ok(Swap(1, "b"), 0, 10),
        ok(Read("b", 2), 1, 2),
        ok(Read("a", 1), 3, 4),
    ],
    "stale refusal": [
        ok(Swap(1, "b"), 0, 1),
        ok(Read("b", 2), 2, 3),
        ok(Swap(2, "c", refused=True), 4, 5),
        ok(Read("b", 2), 6, 7),
    ],
    "lost update": [
        ok(Swap(1, "b"), 0, 1),
        ok(Swap(1, "c"), 2, 3),
    ],
    "two winners at once": [
        ok(Swap(1, "b"), 0, 10),
        ok(Swap(1, "c"), 0, 10),
    ],
    "an acknowledged write is gone": [
        ok(Swap(1, "b"), 0, 1),
        ok(Read("b", 2), 2, 3),
        ok(Read("a", 1), 4, 5),
    ],
    "applied twice": [
        ok(Swap(1, "b"), 0, 1),
        ok(Read("b", 2), 2, 3),
        ok(Read("b", 3), 4, 5),
    ],
    "split brain": [
        ok(Swap(1, "b"), 0, 1, "left"),
        ok(Read("b", 2), 2, 3, "left"),
        ok(Swap(1, "c"), 0, 1, "right"),
        ok(Read("c", 2), 2, 3, "right"),
    ],
    "split brain, versions apart": [
        ok(Swap(1, "b"), 0, 1, "left"),
        ok(Read("b", 2), 2, 3, "left"),
        ok(Swap(1, "c"), 0, 1, "right"),
        ok(Read("c", 3), 2, 3, "right"),
    ],
    "a value nobody wrote": [ok(Read("z", 4), 0, 1)],
    "a write read before it was asked for": [
        ok(Read("b", 2), 0, 1),
        ok(Swap(1, "b"), 2, 3),
    ],
    "a refused write took effect": [
        ok(Swap(1, "b", refused=True), 0, 1),
        ok(Read("b", 2), 2, 3),
    ],
    "versions that shrink": [
        ok(Swap(1, "b"), 0, 1),
        ok(Read("b", 0), 2, 3),
    ],
    "a lost write seen and gone again": [
        lost(Swap(1, "b"), 0),
        ok(Read("b", 2), 1, 2),
        ok(Read("a", 1), 3, 4),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_pass(name: str) -> None:
    order = check_register(GOOD[name], START)
    needed = [op for op in GOOD[name] if op.known]
    assert all(op in order for op in needed)


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_are_rejected(name: str) -> None:
    with pytest.raises(NotLinearizable):
        check_register(BAD[name], START)


def test_the_order_found_respects_time_and_model() -> None:
    order = check_register(GOOD["lost writes build on each other"], START)
    assert [str(op.action) for op in order[:4]] == [
        str(Swap(1, "b")),
        str(Read("b", 2)),
        str(Swap(2, "c")),
        str(Read("c", 3)),
    ]


def test_the_report_shows_where_it_got_stuck() -> None:
    with pytest.raises(NotLinearizable) as caught:
        check_keys({"x": [], "y": BAD["stale read"]}, {"x": START, "y": START})
    text = str(caught.value)
    assert text.startswith("key y: no order explains these 2 operations")
    assert "2.0000 .. 3.0000 c1: Read(value='a', version=1)" in text
    assert "in state Held(value='b'" in text


def test_a_search_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizable, "positions_max", 3)

    def counts(state: int, action: int) -> int | None:
        return state + action if state < 100 else None

    with pytest.raises(TooHard):
        check([Op(1 << i, 0, 10) for i in range(12)], 0, counts)


# Against brute force, on everything small


def by_hand(history: list[Op[Action]]) -> bool:
    """Every subset of the lost operations in every order."""
    versions = {START.value: START.version}
    for op in history:
        if (
            isinstance(op.action, Read)
            and versions.setdefault(op.action.value, op.action.version) != op.action.version
        ):
            return False
    if len(set(versions.values())) < len(versions):
        return False
    sure = [op for op in history if op.known]
    unsure = [op for op in history if not op.known]
    for mask in range(1 << len(unsure)):
        chosen = sure + [op for i, op in enumerate(unsure) if mask >> i & 1]
        if any(_explains(order, versions) for order in permutations(chosen)):
            return True
    return False


def _explains(order: tuple[Op[Action], ...], versions: dict[str, int]) -> bool:
    for i, later in enumerate(order):
        if any(later.ended < earlier.begun for earlier in order[:i]):
            return False
    value, version = START.value, START.version
    for op in order:
        action = op.action
        if isinstance(action, Read):
            if action.value != value:
                return False
            continue
        if action.refused == (versions.get(value) == action.expected):
            return False
        if not action.refused:
            value = action.value
            if versions.get(value, version + 1) <= version:
                return False
            version = versions.get(value, version)
    return True


VALUES = "abcd"


@st.composite
def anything(draw: st.DrawFn) -> list[Op[Action]]:
    """Up to five operations, good or bad; each value is written once at most."""
    history: list[Op[Action]] = []
    free = list("bcd")
    for _ in range(draw(st.integers(1, 5))):
        begun = draw(st.integers(0, 6))
        ended: float = begun + draw(st.integers(0, 4))
        if draw(st.booleans()) and free:
            refused = draw(st.integers(0, 3)) == 0
            action: Action = Swap(draw(st.integers(1, 4)), free.pop(0), refused)
            if not refused and draw(st.integers(0, 2)) == 0:
                ended = inf
        else:
            value = draw(st.sampled_from(VALUES))
            action = Read(value, 1 + VALUES.index(value))
        history.append(Op(action, begun, ended))
    return history


@settings(max_examples=200)
@given(anything())
def test_small_histories_are_judged_as_by_brute_force(history: list[Op[Action]]) -> None:
    assert holds(*history) == by_hand(history)


# Longer ones, made by a real register


@st.composite
def executions(draw: st.DrawFn) -> list[Op[Action]]:
    """What clients of a real register see, some of them without an answer."""
    history: list[Op[Action]] = []
    value, version = START.value, START.version
    known = dict.fromkeys(("c1", "c2", "c3", "c4"), START.version)
    free_at = dict.fromkeys(known, 0.0)
    now = 0.0
    for number in range(draw(st.integers(1, 20))):
        client = draw(st.sampled_from(sorted(known)))
        now += draw(st.integers(1, 3))
        begun = max(free_at[client], now - draw(st.integers(0, 6)))
        now = max(now, begun + 0.25)  # the moment it takes effect
        ended: float = now + draw(st.integers(0, 6))
        free_at[client] = ended + 0.25
        action: Action
        if draw(st.booleans()):
            known[client] = version
            action = Read(value, version)
        else:
            right = known[client] == version
            dropped = draw(st.integers(0, 9))
            action = Swap(known[client], f"v{number}", refused=not right)
            if dropped < 2:  # 0: it never arrived, 1: its answer was lost
                ended, action = inf, replace(action, refused=False)
            if right and dropped != 0:
                value, version = f"v{number}", version + draw(st.integers(1, 3))
        history.append(Op(action, begun, ended, client))
    return history


@settings(max_examples=60)
@given(executions())
def test_what_a_real_register_does_passes(history: list[Op[Action]]) -> None:
    check_register(history, START)


@settings(max_examples=60)
@given(executions(), st.data())
def test_a_read_of_what_was_replaced_long_ago_is_rejected(
    history: list[Op[Action]], data: st.DataObject
) -> None:
    order = check_register(history, START)
    swaps = [op for op in order if isinstance(op.action, Swap) and not op.action.refused]
    if not swaps:
        return
    after = (
        max(op.ended for op in history if op.known) + 1 if any(op.known for op in history) else 0.0
    )
    # The last value that was read is the newest anybody can prove; anything before it is stale.
    seen = [op.action for op in order if isinstance(op.action, Read)]
    if not seen or seen[-1].value == START.value:
        return
    stale = data.draw(st.sampled_from([START, *(read for read in seen if read != seen[-1])]))
    assert not holds(*history, ok(stale, after, after + 1))
