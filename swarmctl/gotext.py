"""Texts as Go writes and reads them: durations, times, JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

NANOSECOND = 1
SECOND = 10**9
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6}
_UNITS |= {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
_DURATION_MAX = 2**63 - 1
_STAMP = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", re.ASCII
)


def parse_duration(text: str) -> int:
    """Nanoseconds of `1h30m`, `1.5s`, ... Raises ValueError with Go's text."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    if not body:
        raise ValueError(f"time: invalid duration {quote(text)}")
    total, place = 0, 0
    while place < len(body):
        number = re.compile(r"\d*(?:\.\d*)?", re.ASCII).match(body, place)
        digits = number.group() if number else ""
        if digits in ("", "."):
            raise ValueError(f"time: invalid duration {quote(text)}")
        place += len(digits)
        unit = re.compile(r"[^\d.]*").match(body, place)
        name = unit.group() if unit else ""
        if not name:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if name not in _UNITS:
            raise ValueError(f"time: unknown unit {quote(name)} in duration {quote(text)}")
        place += len(name)
        whole, _, fraction = digits.partition(".")
        total += int(whole or "0") * _UNITS[name]
        if fraction:
            total += int(fraction) * _UNITS[name] // 10 ** len(fraction)
    if total > _DURATION_MAX:
        raise ValueError(f"time: invalid duration {quote(text)}")
    return -total if text.startswith("-") else total


def quote(text: str) -> str:
    """Go's %q for the plain texts found in error messages."""
    return json.dumps(text, ensure_ascii=False)


def parse_stamp(text: str) -> tuple[float, int] | None:
    """(seconds since the epoch, nanoseconds within) of an RFC 3339 time; None if it is none."""
    found = _STAMP.fullmatch(text)
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
        return moment.timestamp(), int((found[2] or "").ljust(9, "0"))
    except (ValueError, OverflowError):
        return None


class Stamp(str):
    """A time of the API. Shows as Go's time.String does; `raw` is how it was sent."""

    raw: str

    def __new__(cls, raw: str) -> Stamp:
        """Make one of an RFC 3339 text; anything else is shown as it is."""
        found = _STAMP.fullmatch(raw)
        shown = raw
        if found is not None:
            date, _, clock = found[1].partition("T")
            fraction = (found[2] or "").rstrip("0")
            zone = found[3]
            shown = f"{date} {clock}" + (f".{fraction}" if fraction else "")
            if zone == "Z":
                shown += " +0000 UTC"
            else:
                offset = zone.replace(":", "")
                shown += f" {offset} {offset}"
        stamp = super().__new__(cls, shown)
        stamp.raw = raw
        return stamp


class Span(str):
    """A duration of the API in nanoseconds (`raw`). Shows as Go's Duration.String does."""

    raw: int

    def __new__(cls, raw: int) -> Span:
        """Make one of a number of nanoseconds."""
        span = super().__new__(cls, show_duration(raw))
        span.raw = raw
        return span


def show_duration(nanos: int) -> str:
    """`2160h0m0s`, `1m5s`, `1.5s`, `20ms`, `0s`."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    if nanos == 0:
        return "0s"
    for unit, name in ((1, "ns"), (1_000, "µs"), (1_000_000, "ms")):
        if nanos < min(unit * 1000, SECOND):
            return f"{sign}{_decimal(nanos, unit)}{name}"
    minutes, rest = divmod(nanos, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    begin = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{begin}{_decimal(rest, SECOND)}s"


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = str(unit + rest)[1:].rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def local_stamp(nanos: int) -> str:
    """Nanoseconds since the epoch in the local zone, nine digits, as event lines show it."""
    seconds, rest = divmod(nanos, SECOND)
    moment = datetime.fromtimestamp(seconds, UTC).astimezone()
    zone = moment.strftime("%z")
    shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}{shown}"


def _plain(value: Any) -> Any:
    if isinstance(value, Stamp | Span):
        return value.raw
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def encode(value: Any, *, escape_html: bool = False) -> str:
    """Compact JSON as Go's encoder writes it."""
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    if escape_html:
        for char in "<>&":
            text = text.replace(char, f"\\u{ord(char):04x}")
    return text


_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+')


def compact(raw: str) -> str:
    """JSON text without white space, otherwise untouched."""
    return "".join(_PIECES.findall(raw))


def indent(raw: str, step: str = "    ") -> str:
    """JSON text spread over lines, scalars and key order untouched."""
    out: list[str] = []
    depth = 0
    pieces = _PIECES.findall(raw)
    for number, piece in enumerate(pieces):
        after = pieces[number + 1] if number + 1 < len(pieces) else ""
        before = pieces[number - 1] if number else ""
        if piece in "{[" and after not in ("}", "]"):
            depth += 1
            out.append(piece + "\n" + step * depth)
        elif piece in "}]" and before not in ("{", "["):
            depth -= 1
            out.append("\n" + step * depth + piece)
        elif piece == ",":
            out.append(",\n" + step * depth)
        elif piece == ":":
            out.append(": ")
        else:
            out.append(piece)
    return "".join(out)
