"""Protobuf durations as nanoseconds, refused where the reference cannot read them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from swarmd.base.errors import SwarmError

NANOSECOND = 1
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
HOUR = 3600 * SECOND
_SECONDS_MAX = 315_576_000_000  # ten thousand years, the type's own limit
_NANOS_MAX = 2**63 - 1


def nanoseconds(value: Duration) -> int:
    """The duration in nanoseconds. Raises SwarmError when it is malformed or too long."""
    seconds, nanos = value.seconds, value.nanos
    if abs(seconds) > _SECONDS_MAX:
        raise SwarmError(f"duration: seconds:{seconds} : seconds out of range")
    if abs(nanos) >= SECOND:
        raise SwarmError(f"duration: nanos:{nanos} : nanos out of range")
    if (seconds < 0 < nanos) or (nanos < 0 < seconds):
        raise SwarmError("duration: seconds and nanos have different signs")
    total = seconds * SECOND + nanos
    if abs(total) > _NANOS_MAX:
        raise SwarmError(f"duration: seconds:{seconds} is out of range for time.Duration")
    return total
