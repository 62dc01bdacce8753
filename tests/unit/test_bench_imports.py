"""Every measurement can still be started: most of them run seldom, so nothing else would tell."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "bench").rglob("*.py"))
]


@pytest.mark.parametrize("name", MODULES)
def test_it_can_be_imported(name: str) -> None:
    importlib.import_module(name)


def test_the_programs_are_among_them() -> None:
    assert {"bench.manager", "bench.quorum", "bench.failover", "bench.raft"} <= set(MODULES)
