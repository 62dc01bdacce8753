"""The one retry helper: delays that grow, with jitter and a cap."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.base.entropy import Entropy


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay rule: attempt n waits a random time up to min(cap, base * factor**n + step * n)."""

    base_seconds: float = 0.1
    cap_seconds: float = 8.0
    factor: float = 2.0
    step_seconds: float = 0.0

    def limit(self, attempt: int) -> float:
        """Longest delay after `attempt` failures (0 = first), in seconds."""
        grown: float = self.base_seconds * self.factor ** min(attempt, 63)
        return min(self.cap_seconds, grown + self.step_seconds * attempt)

    def delay(self, attempt: int, entropy: Entropy) -> float:
        """Random delay after `attempt` failures, in seconds; never quite zero."""
        limit = self.limit(attempt)
        return entropy.uniform(limit / 20, limit)
