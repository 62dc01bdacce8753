"""A small seeded generator for election timeouts (SplitMix64, public domain, S. Vigna)."""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


class Jitter:
    """Numbers for one member; equal seeds give different rows for different members."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, id: int) -> None:
        self._state = (seed * 0xD1342543DE82EF95 + id * _GAMMA) & _MASK

    def below(self, bound: int) -> int:
        """A number in [0, bound)."""
        self._state = (self._state + _GAMMA) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return (mixed ^ (mixed >> 31)) % bound
