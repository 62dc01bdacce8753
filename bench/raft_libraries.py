"""Which Raft for Python? What the candidates keep after a crash, and whom they trust.

    python -m venv /tmp/raft && /tmp/raft/bin/pip install pyraft pysyncobj rraft-py
    python -m bench.raft_libraries --python /tmp/raft/bin/python

The libraries live in an environment of their own (pyraft wants a setuptools of 2019). One that
is not installed there is named and left out. Everything runs on loopback, in a temporary
folder; the only thing a stranger's text is asked to do is to make an empty file in there. It
takes about two minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.rafts import own_trial, pyraft_trial, pysyncobj_trial
from bench.rafts.findings import Finding, table
from bench.rafts.processes import run

LIBRARIES = ("pyraft", "pysyncobj", "rraft-py", "raftify", own_trial.NAME)
_MODULES = {"rraft-py": "rraft"}
_TRIALS: dict[str, Callable[[str, Path], list[Finding]]] = {
    pyraft_trial.NAME: pyraft_trial.trial,
    pysyncobj_trial.NAME: pysyncobj_trial.trial,
}

# From the projects' own sources and package pages: no program can find these out.
_RAFTPB = "speaks raftpb (read)"
_PARTS = "log, storage, ticks and transport are the caller's (read)"
_RELEASE = "last release (read)"
READ = (
    Finding("pyraft", _RAFTPB, "no, text commands of its own"),
    Finding("pyraft", _PARTS, "none of them"),
    Finding("pyraft", _RELEASE, "1.0.0, November 2022"),
    Finding("pysyncobj", _RAFTPB, "no, pickles of its own"),
    Finding("pysyncobj", _PARTS, "ticks and transport, not the log"),
    Finding("pysyncobj", _RELEASE, "0.3.17, August 2026"),
    Finding("rraft-py", _RAFTPB, "nearly: raft-rs's dialect of it"),
    Finding("rraft-py", _PARTS, "all of them"),
    Finding("rraft-py", _RELEASE, "0.2.27, November 2023; on a fork of raft-rs"),
    Finding("raftify", _RAFTPB, "raft-rs's dialect, in a service of its own"),
    Finding("raftify", _PARTS, "none of them: LMDB, its own timer and gRPC service"),
    Finding("raftify", _RELEASE, "0.1.67, August 2024; 'very experimental'"),
    Finding(own_trial.NAME, _RAFTPB, "yes, byte for byte"),
    Finding(own_trial.NAME, "state file run as Python", "no, sealed protobuf (read)"),
    Finding(own_trial.NAME, _PARTS, "all of them"),
    Finding(own_trial.NAME, _RELEASE, "this tree"),
)


def version_of(python: str, library: str) -> str | None:
    """The version of a library under `python`, or None when it cannot be imported."""
    module = _MODULES.get(library, library)
    code = (
        f"import importlib.metadata as m; import {module}; print('version', m.version('{library}'))"
    )
    status, out = run([python, "-c", code], 60)
    return out.split("version ", 1)[1].strip() if status == 0 else None


def source_of(python: str, library: str, folder: Path) -> Finding:
    """Whether the package index has something ready for this interpreter, or only source."""
    pip = [python, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    status, out = run([*pip, "--only-binary", ":all:", library], 180)
    if status == 0:
        answer = "a wheel"
    elif "No matching distribution" in out:
        answer = "source only"
    else:
        answer = "not found out (no package index)"
    return Finding(library, "installs here from", answer)


def libraries(python: str, root: Path) -> list[Finding]:
    """Everything about the libraries; what is missing or fails is said and left out."""
    findings: list[Finding] = []
    for library in LIBRARIES[:-1]:
        findings.append(source_of(python, library, root / "packages"))
        version = version_of(python, library)
        if version is None:
            print(f"{library} is not installed for {python}: left out", flush=True)
            findings.append(Finding(library, "version tried", "none: not installed"))
            continue
        findings.append(Finding(library, "version tried", version))
        if library in _TRIALS:
            print(f"{library} {version} ...", flush=True)
            findings += _TRIALS[library](python, root / library)
        else:
            print(f"{library} {version}: a core without disk or network, nothing to try")
    return findings


def main(arguments: list[str]) -> int:
    """Run all trials and print the table; the exit status."""
    parser = argparse.ArgumentParser(prog="bench.raft_libraries", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter with the libraries")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rafts-") as folder:
        findings = libraries(given.python, Path(folder))
        print("our own core ...", flush=True)
        findings.append(Finding(own_trial.NAME, "version tried", "this tree"))
        findings += own_trial.trial(Path(folder) / "own")
    print(table([*findings, *READ], LIBRARIES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
