"""Which manager to talk to: a weighted choice that learns from experience (PROTOCOL 2.7).

A good experience adds to a manager's weight, a bad one takes away; each counts as much as
all before it together. A manager with no weight left can still be chosen, rarely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from swarmd.base.errors import SwarmError

OBSERVATION = 10
weight_max = 256
_BIAS = 0.001  # keeps managers without weight equally likely among themselves


class Chance(Protocol):
    """The part of `Entropy` needed here."""

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        ...


class NoRemotes(SwarmError):
    """No manager is known."""

    def __init__(self, text: str = "no remote hosts provided") -> None:
        super().__init__(text)


@dataclass(frozen=True, slots=True, order=True)
class Remote:
    """A manager: its node id (empty when only the address is known) and "host:port"."""

    node_id: str
    addr: str


class Remotes:
    """Known managers and their weights. Not a coroutine in sight; owned by one task."""

    def __init__(
        self, known: Iterable[Remote] = (), changed: Callable[[list[Remote]], None] | None = None
    ) -> None:
        """`changed` is called with the sorted list whenever managers come or go."""
        self._weights: dict[Remote, int] = {}
        for remote in known:
            self._observe(remote, OBSERVATION)
        self._changed = changed

    def __len__(self) -> int:
        return len(self._weights)

    def all(self) -> list[Remote]:
        """All managers, sorted."""
        return sorted(self._weights)

    def weights(self) -> dict[Remote, int]:
        """A copy of the weights, sorted by manager."""
        return {remote: self._weights[remote] for remote in self.all()}

    def select(self, chance: Chance, exclude: Collection[str] = ()) -> Remote:
        """Choose a manager at random by weight, leaving out these ids and addresses.

        Raises `NoRemotes`.
        """
        eligible = [
            remote
            for remote in self.all()
            if remote.node_id not in exclude and remote.addr not in exclude
        ]
        if not eligible:
            raise NoRemotes
        shares = [max(self._weights[remote], 0) + _BIAS for remote in eligible]
        point = chance.uniform(0, math.fsum(shares))
        for remote, share in zip(eligible, shares, strict=True):
            point -= share
            if point < 0:
                return remote
        return eligible[-1]

    def observe(self, remote: Remote, weight: int) -> None:
        """Note an experience; an unknown manager becomes known."""
        fresh = remote not in self._weights
        self._observe(remote, weight)
        if fresh:
            self._tell()

    def observe_if_known(self, remote: Remote, weight: int) -> None:
        """Note an experience with a manager, unless it was dropped meanwhile."""
        if remote in self._weights:
            self._observe(remote, weight)

    def remove(self, remote: Remote) -> None:
        """Drop a manager."""
        if self._weights.pop(remote, None) is not None:
            self._tell()

    def replace(self, managers: Iterable[tuple[Remote, int]]) -> None:
        """Take over the list a manager sent, with its weights; others are dropped.

        Entries without an address are skipped. A list without any is ignored: it would
        leave nobody to go back to.
        """
        wanted = {remote: weight for remote, weight in managers if remote.addr}
        if not wanted:
            return
        before = self.all()
        for remote, weight in wanted.items():
            self._observe(remote, weight)
        for remote in before:
            if remote not in wanted:
                del self._weights[remote]
        if self.all() != before:
            self._tell()

    def _observe(self, remote: Remote, weight: int) -> None:
        old = self._weights.get(remote, 0)
        self._weights[remote] = _clip(math.ceil((_clip(weight) + old) / 2))

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(self.all())


def _clip(weight: int) -> int:
    return max(-weight_max, min(weight_max, weight))
