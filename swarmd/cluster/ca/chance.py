"""Where this room gets its random bytes: any source with a `token`."""

from __future__ import annotations

from typing import Protocol


class Chance(Protocol):
    """The part of `Entropy` needed here; a planner's `Moment` has it as well."""

    def token(self, size: int, /) -> bytes:
        """`size` unpredictable bytes."""
        ...
