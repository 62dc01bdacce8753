"""Times in query values: Unix seconds, and what `until` filters allow beside them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNIX = re.compile(r"(-?[0-9]+)(?:\.([0-9]{0,20}))?")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def unix_nanos(text: str) -> int:
    """``seconds[.fraction]`` in nanoseconds; the fraction is cut at nine digits. ValueError."""
    found = _UNIX.fullmatch(text)
    if found is None:
        raise ValueError(f'invalid timestamp "{text}"')
    fraction = ((found[2] or "") + "000000000")[:9]
    return int(found[1]) * 1_000_000_000 + int(fraction)


def moment_nanos(text: str, now: float) -> int:
    """A duration before `now`, an RFC 3339 time, or Unix seconds, in nanoseconds. ValueError."""
    if text != "0" and _DURATION.fullmatch(text):
        past = sum(round(float(amount) * _UNITS[unit]) for amount, unit in _PART.findall(text))
        return int(now * 1e9) - past
    if "-" in text:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1e9)
    return unix_nanos(text)
