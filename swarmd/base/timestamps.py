"""Wall seconds to protobuf Timestamp and back."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(now: float) -> Timestamp:
    """`now` (seconds since the epoch) as a Timestamp, to the microsecond."""
    micros = round(now * 1_000_000)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def seconds(stamp: Timestamp) -> float:
    """A Timestamp as seconds since the epoch."""
    return float(stamp.seconds) + stamp.nanos / 1e9
