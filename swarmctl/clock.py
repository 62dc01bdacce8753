"""The one place that reads the time, for ages in lists and relative `--since`."""

from __future__ import annotations

import time


def wall_seconds() -> float:
    """Seconds since the epoch."""
    return time.clock_gettime(time.CLOCK_REALTIME)
