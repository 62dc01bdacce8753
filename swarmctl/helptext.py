"""Help as docker prints it: usage line, description, aliases, options, commands."""

from __future__ import annotations

import os
from collections.abc import Sequence

from swarmctl.flags import Flag
from swarmctl.gotext import quote

DEFAULT_WIDTH = 80
_WRAP_MIN = 24
_SLOP = 5  # how far a line may go over, so that no short word is left alone on the next


def terminal_width() -> int:
    """Columns of the terminal on standard input, else 80."""
    try:
        return os.get_terminal_size(0).columns or DEFAULT_WIDTH
    except OSError:
        return DEFAULT_WIDTH


def options(flags: Sequence[Flag], width: int | None = None) -> str:
    """The option lines, sorted by name, wrapped to the terminal."""
    columns = (terminal_width() if width is None else width) - 1
    rows = [(_head(flag), _tail(flag)) for flag in sorted(flags, key=lambda flag: flag.flag)]
    left = max(len(head) for head, _ in rows)
    lines = [f"{head.ljust(left)}   {_wrap(left + 3, columns, tail)}" for head, tail in rows]
    return "\n".join(lines)


def _head(flag: Flag) -> str:
    names = f"  -{flag.short}, --{flag.flag}" if flag.short else f"      --{flag.flag}"
    word = _unquoted(flag)[0]
    return f"{names} {word}" if word else names


def _unquoted(flag: Flag) -> tuple[str, str]:
    """(name of the value, help text): a word in backquotes names it, else the type does."""
    text = flag.help or ""
    before, mark, after = text.partition("`")
    word, closing, rest = after.partition("`")
    if mark and closing:
        return word, before + word + rest
    return flag.kind.shown, text


def _tail(flag: Flag) -> str:
    text = _unquoted(flag)[1]
    default = flag.shown_default
    if not default:
        return text
    return f"{text} (default {quote(default) if flag.kind.name == 'string' else default})"


def _wrap(indent: int, columns: int, text: str) -> str:
    room, prefix = columns - indent, ""
    if room < _WRAP_MIN:
        indent, room = 16, columns - 16
        prefix = "\n" + " " * indent
    if room < _WRAP_MIN:
        return text
    lines = []
    while text:
        line, text = _cut(room - _SLOP, text)
        lines.append(line)
    margin = "\n" + " " * indent
    return prefix + margin.join(line.replace("\n", margin) for line in lines)


def _cut(room: int, text: str) -> tuple[str, str]:
    if room + _SLOP > len(text):
        return text, ""
    place = max(text.rfind(mark, 0, room) for mark in " \t\n")
    if place <= 0:
        return text, ""
    line_break = text.rfind("\n", 0, room)
    if 0 < line_break < place:
        place = line_break
    return text[:place], text[place + 1 :]


def command(usage: str, summary: str, aliases: str, flags: Sequence[Flag]) -> str:
    """Help of a command that does something."""
    parts = [f"Usage:  {usage}", summary]
    if aliases:
        parts.append(f"Aliases:\n  {aliases}")
    if flags:
        parts.append(f"Options:\n{options(flags)}")
    return "\n\n".join(parts) + "\n"


def group(
    path: str,
    summary: str,
    sections: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    flags: Sequence[Flag] = (),
) -> str:
    """Help of a group: its commands under headings. `flags` are the global ones, at the root."""
    brackets = " [OPTIONS]" if flags else ""
    parts = [f"Usage:  {path}{brackets} COMMAND", summary]
    for title, entries in sections:
        pad = max(11, *(len(name) for name, _ in entries))
        lines = [f"  {name.ljust(pad)} {text}" for name, text in entries]
        parts.append(f"{title}:\n" + "\n".join(lines))
    if flags:
        parts.append(f"Global Options:\n{options(flags)}")
    parts.append(f"Run '{path} COMMAND --help' for more information on a command.")
    return "\n\n".join(parts) + "\n"
