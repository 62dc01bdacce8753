"""The house rules that no linter knows: sizes, rooms, generated code, words not to appear."""

from __future__ import annotations

import ast
import filecmp
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = [
    path
    for folder in ("swarmd", "swarmctl", "bench", "proto")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "/api/" not in str(path)
]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
ROOMS_WITHOUT_README = {"swarmd", "swarmd/api/pb", "swarmctl/commands"}


@pytest.mark.parametrize("path", OWN, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    assert len(lines) <= FILE_LINES_MAX, f"{path} has {len(lines)} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            assert size <= FUNCTION_LINES_MAX, f"{path}:{node.lineno} {node.name} has {size} lines"


@pytest.mark.parametrize("path", OWN, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name != "__init__.py" or tree.body:
        assert ast.get_docstring(tree), f"{path} has no module docstring"
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"


def test_every_room_has_a_page() -> None:
    rooms = {path.parent for path in OWN if str(path.relative_to(ROOT)).startswith("swarm")}
    missing = [
        str(room.relative_to(ROOT))
        for room in sorted(rooms)
        if str(room.relative_to(ROOT)) not in ROOMS_WITHOUT_README
        and not (room / "README.md").exists()
    ]
    assert not missing, f"rooms without a README.md: {missing}"


def test_generated_messages_are_fresh(tmp_path: Path) -> None:
    names = sorted(str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto").rglob("*.proto"))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-Iproto"),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"),
            *names,
        ],
        cwd=ROOT,
        check=True,
    )
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*_pb2.py*"))
    kept = sorted(p.relative_to(ROOT) for p in (ROOT / "swarmd/api/pb").glob("*_pb2.py*"))
    assert made == kept
    stale = [str(p) for p in made if not filecmp.cmp(tmp_path / p, ROOT / p, shallow=False)]
    assert not stale, f"run `make proto`: {stale}"


def test_exported_names_are_fresh() -> None:
    from swarmd import api

    exported = set(api.__all__)
    for path in (ROOT / "proto/swarmd/api/pb").glob("*.proto"):
        if path.stem in ("raftpb", "options"):
            continue
        for name in re.findall(r"^(?:message|enum) (\w+)", path.read_text(), re.M):
            assert name in exported, f"run `make proto`: {name} is missing"


def tracked() -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_unfinished_work_and_no_escape_hatches() -> None:
    words = "NotImplemented" + "Error|TO" + "DO|FIX" + "ME|XX" + "X|type: ig" + "nore|# no" + "qa"
    pattern = re.compile(rf"\b(?:{words})")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix == ".py" and "/pb/" not in str(path) and "wire/facts" not in str(path)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, found


def test_no_merge_is_left_half_done() -> None:
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix in (".py", ".md", ".toml", ".proto", "") and path.stat().st_size < 400_000
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if line.startswith(marks)
    ]
    assert not found, found


def test_no_large_files() -> None:
    large = [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 400_000]
    assert not large, large
