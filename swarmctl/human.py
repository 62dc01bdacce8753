"""Numbers and words for people: sizes, ages, order of names, short forms."""

from __future__ import annotations

import re
import unicodedata
from typing import TypeAlias

ID_SHOWN = 12
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_Key: TypeAlias = list[tuple[int, int, int]]


def natural_key(text: str) -> _Key:
    """Sort key in which `node2` comes before `node10`."""
    key: _Key = []
    for chunk in re.findall(rb"\d+|\D", text.encode(), re.DOTALL):
        if chunk.isdigit():
            key.append((0x30, int(chunk), len(chunk)))
        else:
            key.append((chunk[0], 0, 0))
    return key


def short_id(id: str) -> str:
    """The first twelve characters, without a digest's algorithm."""
    head, colon, rest = id.partition(":")
    return (rest if colon else head)[:ID_SHOWN]


def duration(nanos: int) -> str:
    """About how long: `5 seconds`, `About a minute`, `3 months`."""
    seconds = nanos / 1e9
    minutes, hours = int(seconds / 60), int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    steps = ((24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (24 * 730, 24 * 30, "months"))
    for limit, unit, name in steps:
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600) // 24 // 365} years"


def size(count: float) -> str:
    """Bytes in binary units with four significant digits."""
    step = 0
    while count >= 1024 and step < len(_SIZES) - 1:
        count /= 1024
        step += 1
    return f"{count:.4g}{_SIZES[step]}"


def capitalised(text: str) -> str:
    """First letter up, the rest down; a single letter goes down, as the reference does."""
    if len(text.encode()) <= 1:
        return text.lower()
    return text[0].upper() + text[1:].lower()


def width(text: str) -> int:
    """Columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    marks = sum(unicodedata.combining(char) != 0 for char in text)
    return len(text) + wide - marks


def ellipsis(text: str, columns: int) -> str:
    """Cut to `columns`, the last of them an ellipsis, if it is longer."""
    if width(text) <= columns:
        return text
    kept, used = "", 0
    for char in text:
        used += width(char)
        if used > columns - 1:
            break
        kept += char
    return kept + "…"
