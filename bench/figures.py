"""Figures, their statistics, and the one table a measurement ends with."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must reach: a bound on the ratio ours/theirs, or on our own median."""

    kind: str  # "ratio" or "ours"
    sign: str  # "<=" or ">="
    bound: float

    def __str__(self) -> str:
        subject = "ratio" if self.kind == "ratio" else "ours"
        return f"{subject} {self.sign} {self.bound:g}"

    def met(self, value: float) -> bool:
        """Whether `value` keeps to the bound."""
        return value <= self.bound if self.sign == "<=" else value >= self.bound


@dataclass(slots=True)
class Figure:
    """One quantity on both sides; the i-th values were measured one right after the other."""

    name: str
    unit: str
    target: Target | None = None
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def add(self, label: str, value: float) -> None:
        """Note one value of "swarmd" or "engine"."""
        (self.ours if label == "swarmd" else self.theirs).append(value)

    def ratios(self) -> list[float]:
        """Ours / theirs, pair by pair."""
        pairs = zip(self.ours, self.theirs, strict=False)
        return [one / other for one, other in pairs if other]

    def verdict(self) -> str:
        """The target and whether it is met; empty without a target."""
        if self.target is None:
            return ""
        values = self.ratios() if self.target.kind == "ratio" else self.ours
        if not values:
            return f"{self.target}: not measured"
        return f"{self.target}: {'met' if self.target.met(median(values)) else 'MISSED'}"


class Figures:
    """The figures of one run, in the order they were first named."""

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}
        self.notes: list[str] = []

    def of(self, name: str, unit: str, target: Target | None = None) -> Figure:
        """The figure called `name`, made on first use."""
        return self._figures.setdefault(name, Figure(name, unit, target))

    def table(self) -> str:
        """All figures as one plain-text table."""
        head = ["figure", "unit", "swarmd", "engine", "n", "ratio (pairwise)", "target"]
        rows = [head] + [_row(figure) for figure in self._figures.values()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        rows.insert(1, ["-" * width for width in widths])
        lines = [
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
            for row in rows
        ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def raw(self) -> str:
        """Every single value, as JSON."""
        values = {name: asdict(figure) for name, figure in self._figures.items()}
        return json.dumps({"figures": values, "notes": self.notes}, indent=1)

    def missed(self) -> list[str]:
        """Names of the figures that miss their target."""
        return [f.name for f in self._figures.values() if f.verdict().endswith("MISSED")]


def _row(figure: Figure) -> list[str]:
    count = f"{len(figure.ours)}" if figure.ours else f"{len(figure.theirs)}"
    if figure.theirs and len(figure.theirs) != len(figure.ours):
        count = f"{len(figure.ours)}/{len(figure.theirs)}"
    return [
        figure.name,
        figure.unit,
        spread(figure.ours),
        spread(figure.theirs),
        count,
        spread(figure.ratios()),
        figure.verdict(),
    ]


def spread(values: list[float]) -> str:
    """Median (minimum-maximum), three figures each."""
    if not values:
        return "-"
    return f"{number(median(values))} ({number(min(values))}-{number(max(values))})"


def number(value: float) -> str:
    """Three significant figures without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 3 - len(f"{abs(value):.0f}")) if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def machine() -> list[str]:
    """Facts about the machine and the tree, one a line."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    return [
        f"machine: {os.cpu_count()} x {cpu}, {memory} GiB, Linux {platform.release()}",
        f"Python {platform.python_version()}; {_first_line(['dockerd', '--version'])}",
        f"commit {_first_line(['git', '-C', str(ROOT), 'describe', '--always', '--dirty'])}",
    ]


def load() -> float:
    """load1 now."""
    return os.getloadavg()[0]


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed"
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (done.stdout.strip().splitlines() or ["unknown"])[0]
