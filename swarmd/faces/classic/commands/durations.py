"""Durations as Go reads and writes them. Pure."""

from __future__ import annotations

import re

from swarmd.base.errors import InvalidArgument

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """ "1m30s" as 90.0. Raises `InvalidArgument` in Go's words."""
    sign, body = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if body == "0":
        return 0.0
    seconds, position = 0.0, 0
    while found := _PART.match(body, position):
        seconds += float(found[1]) * _UNITS[found[2]]
        position = found.end()
    if not body or position != len(body):
        kind = "missing unit in duration" if re.fullmatch(r"[0-9.]+", body) else "invalid duration"
        raise InvalidArgument(f'time: {kind} "{text}"')
    return sign * seconds


def format_duration(seconds: float) -> str:
    """90.0 as "1m30s"."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    text = f"{left:g}s"
    if hours:
        return f"{hours:.0f}h{minutes:.0f}m{text}"
    return f"{minutes:.0f}m{text}" if minutes else text
