"""Elastic tab stops: cells ending in a tab are as wide as the widest of their column.

A column is a block of consecutive lines that have a cell there, as in Go's tabwriter, so
lines without tabs between two tables separate them.
"""

from __future__ import annotations

from swarmctl.human import width


def align(text: str, *, cell_min: int = 10, padding: int = 3) -> str:
    """Lay out `text`; the last cell of a line is never padded."""
    lines = [line.split("\t") for line in text.split("\n")]
    padded = [list(line) for line in lines]
    _block(lines, padded, 0, len(lines), 0, (cell_min, padding))
    return "\n".join("".join(line) for line in padded)


def _block(
    lines: list[list[str]],
    padded: list[list[str]],
    start: int,
    end: int,
    column: int,
    rule: tuple[int, int],
) -> None:
    place = start
    while place < end:
        if column >= len(lines[place]) - 1:
            place += 1
            continue
        last = place
        while last < end and column < len(lines[last]) - 1:
            last += 1
        cells = range(place, last)
        wide = max(rule[0], *(width(lines[n][column]) + rule[1] for n in cells))
        for number in cells:
            cell = lines[number][column]
            padded[number][column] = cell + " " * (wide - width(cell))
        _block(lines, padded, place, last, column + 1, rule)
        place = last
