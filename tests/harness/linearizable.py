"""Is a history of concurrent operations linearizable? Wing and Gong's search, as Lowe improved it.

An operation takes effect at one moment between its call and its answer. The checker looks for
an order of such moments under which a sequential model gives every answer that was seen. An
operation whose outcome nobody knows may take effect at any time after its call, or never.

The search goes depth first over "which operations have happened" and remembers every pair of
that and the model's state it has been at. An operation that is allowed now and changes nothing
is taken at once: whatever order works with it later works with it now. Keys do not interact
(linearizability is local), so each has a search of its own: `check_keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeAlias, TypeVar

S = TypeVar("S", bound=Hashable)
A = TypeVar("A")

# Give up, loudly, rather than run for hours: a history this hard says the test is badly made.
positions_max = 2_000_000


@dataclass(frozen=True, slots=True)
class Op(Generic[A]):
    """One operation: what was asked and answered, and when. Times are of one clock."""

    action: A
    begun: float
    ended: float = inf  # inf: its outcome is not known
    client: str = ""

    @property
    def known(self) -> bool:
        """True when there was an answer that says what happened."""
        return self.ended < inf


class NotLinearizable(AssertionError):
    """No order explains the answers; the text shows where the best attempt got stuck."""


class TooHard(RuntimeError):
    """The search was given up; nothing is proved either way."""


# The model: the state after an action, or None where the action's answer is impossible.
Step: TypeAlias = Callable[[S, A], S | None]


def check(history: Iterable[Op[A]], initial: S, step: Step[S, A]) -> list[Op[A]]:
    """An order of effects that explains `history`; operations of unknown outcome may be absent.

    Raises `NotLinearizable`, or `TooHard` after `positions_max` positions.
    """
    ops = sorted(history, key=lambda op: (op.begun, op.ended))
    return _Search(ops, step).run(initial)


@dataclass(slots=True)
class _Position(Generic[S]):
    """A point of the search: the state, what has happened, and what may be tried next."""

    state: S
    done: int  # one bit per operation
    low: int  # every operation before this one has happened
    choices: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)  # taken on the way into this position


class _Search(Generic[S, A]):
    def __init__(self, ops: Sequence[Op[A]], step: Step[S, A]) -> None:
        self._ops = ops
        self._step = step
        self._needed = sum(1 << i for i, op in enumerate(ops) if op.known)
        self._seen: set[tuple[int, S]] = set()
        self._best: tuple[int, S, list[int]] | None = None

    def run(self, initial: S) -> list[Op[A]]:
        path = [self._settle(_Position(initial, 0, 0))]
        while path:
            here = path[-1]
            if here.done & self._needed == self._needed:
                return [self._ops[i] for position in path for i in position.order]
            self._remember(path)
            if not here.choices:
                path.pop()
                continue
            taken = here.choices.pop()
            state = self._step(here.state, self._ops[taken].action)
            assert state is not None
            moved = _Position(state, here.done | 1 << taken, here.low, order=[taken])
            moved = self._settle(moved)
            if (moved.done, moved.state) not in self._seen:
                self._seen.add((moved.done, moved.state))
                if len(self._seen) > positions_max:
                    raise TooHard(f"{positions_max} positions of {len(self._ops)} operations")
                path.append(moved)
        raise NotLinearizable(self._report())

    def _settle(self, here: _Position[S]) -> _Position[S]:
        """Take all that is allowed and changes nothing; then list what changes something."""
        while True:
            here.choices.clear()
            found = False
            for i in self._candidates(here):
                state = self._step(here.state, self._ops[i].action)
                if state is None:
                    continue
                if state == here.state:
                    here.done |= 1 << i
                    here.order.append(i)
                    found = True
                    break  # it may have been the one that held others back
                here.choices.append(i)
            if not found:
                # Taken from the end: the earliest first, and the known before the unknown.
                here.choices.sort(key=lambda i: (self._ops[i].ended, i), reverse=True)
                return here

    def _candidates(self, here: _Position[S]) -> Iterable[int]:
        """Operations that may come next: begun before any that has not happened has ended."""
        ops, done = self._ops, here.done
        while here.low < len(ops) and done >> here.low & 1:
            here.low += 1
        first_end = inf
        found = []
        for i in range(here.low, len(ops)):
            if ops[i].begun > first_end:
                break
            if not done >> i & 1:
                found.append(i)
                first_end = min(first_end, ops[i].ended)
        return found

    def _remember(self, path: Sequence[_Position[S]]) -> None:
        here = path[-1]
        if self._best is None or here.done.bit_count() > self._best[0].bit_count():
            order = [i for position in path for i in position.order]
            self._best = (here.done, here.state, order)

    def _report(self) -> str:
        assert self._best is not None
        done, state, order = self._best
        stuck = self._candidates(_Position(state, done, 0))
        lines = [f"no order explains these {len(self._ops)} operations; the best one reaches"]
        lines += [f"  {line(self._ops[i])}" for i in order[-12:]]
        lines.append(f"and then, in state {state!r}, none of these can come next:")
        lines += [f"  {line(self._ops[i])}" for i in stuck]
        return "\n".join(lines)


def line(op: Op[Any]) -> str:
    """One operation as a line of text."""
    ended = f"{op.ended:.4f}" if op.known else "?"
    return f"{op.begun:.4f} .. {ended} {op.client}: {op.action}"


# A register with compare-and-set by version, as `?version=` of the REST API is


@dataclass(frozen=True, slots=True)
class Read:
    """The register was read: its value and the version that value has."""

    value: str
    version: int


@dataclass(frozen=True, slots=True)
class Swap:
    """Replace what has version `expected` by `value`, a value that is written only once.

    `refused`: the answer was that the version is another one by now.
    """

    expected: int
    value: str
    refused: bool = False


Action: TypeAlias = Read | Swap


@dataclass(frozen=True, slots=True)
class Held:
    """The state: the value, and the newest version known to be behind it."""

    value: str
    version: int


def check_register(
    history: Sequence[Op[Action]], initial: Read, *, stale_answers: bool = False
) -> list[Op[Action]]:
    """`check` for one register that holds `initial` before the history begins.

    Values are unique, so each has one version, which the reads tell; a swap by version is thus
    a swap by value. A write that took effect twice shows as one value with two versions.
    `stale_answers`: reads and refusals may speak of the past; writes are judged as always.
    """
    versions = {initial.value: initial.version}
    for op in history:
        if isinstance(op.action, Read):
            known = versions.setdefault(op.action.value, op.action.version)
            if known != op.action.version:
                raise NotLinearizable(
                    f"{op.action.value!r} was read with versions {known} and {op.action.version}: "
                    "it was written twice"
                )
    if len(set(versions.values())) < len(versions):
        raise NotLinearizable(f"two values have the same version: {versions}")

    def step(state: Held, action: Action) -> Held | None:
        if isinstance(action, Read):
            return state if action.value == state.value else None
        matches = versions.get(state.value) == action.expected
        if action.refused:
            return None if matches else state
        if not matches:
            return None
        version = versions.get(action.value, state.version)
        if action.value in versions and version <= state.version:
            return None  # versions only grow
        return Held(action.value, version)

    judged = list(history)
    if stale_answers:
        judged = [op for op in history if isinstance(op.action, Swap) and not op.action.refused]
    return check(judged, Held(initial.value, initial.version), step)


def check_keys(
    histories: dict[str, list[Op[Action]]],
    initial: dict[str, Read],
    *,
    stale_answers: bool = False,
) -> dict[str, list[Op[Action]]]:
    """`check_register` for every key; the error names the key."""
    orders = {}
    for key, history in sorted(histories.items()):
        try:
            orders[key] = check_register(history, initial[key], stale_answers=stale_answers)
        except NotLinearizable as error:
            raise NotLinearizable(f"key {key}: {error}") from None
    return orders
