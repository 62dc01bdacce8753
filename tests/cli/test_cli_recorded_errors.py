"""Every recorded refusal of swarm, node and network commands: same text, same exit code."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.conftest import Run, ours, recorded
from tests.harness.fakedaemon import FakeDaemon, Reply, sort_query

ROWS = {
    row["name"]: row
    for row in recorded("cli/errors.json")
    if row["args"][1] in ("swarm", "node", "network")
}
STATES = {
    "unlock-nosw": "inactive",
    "unlock-notlocked": "active",
    "unlock-worker": "active",
    "locked-unlock-bad": "locked",
    "locked-unlock-malformed": "locked",
}


def friendly(daemon: FakeDaemon, row: dict[str, Any]) -> None:
    """Answers for the calls that worked before the one that was refused."""
    words = row["args"]
    failing = (row.get("http") or [["", "", 0, ""]])[0][1]
    parts = urlsplit(failing)
    index = int(parse_qs(parts.query).get("version", ["1"])[0])
    role = "manager" if "demote" in words else "worker"
    node = {
        "ID": parts.path.split("/")[3] if "/nodes/" in parts.path else "n",
        "Version": {"Index": index},
        "Spec": {"Labels": {}, "Role": role, "Availability": "active"},
    }
    daemon.on("GET", f"/nodes/{words[-1]}", node)
    daemon.on("GET", f"/networks/{words[-1]}", {"Name": words[-1], "Ingress": False})
    state = STATES.get(row["name"], "active")
    daemon.on("GET", "/info", {"Swarm": {"LocalNodeState": state, "NodeID": "n"}})
    spec = {"EncryptionConfig": {"AutoLockManagers": False}}
    daemon.on("GET", "/swarm", {"Version": {"Index": 1}, "Spec": spec})
    daemon.on("GET", "/swarm/unlockkey", {"UnlockKey": ""})


@pytest.mark.parametrize("name", sorted(ROWS))
def test_recorded_refusal(run: Run, daemon: FakeDaemon, name: str) -> None:
    row = ROWS[name]
    calls = row.get("http") or []
    for method, path, status, message in calls:
        daemon.on(method, path.removeprefix("/v1.41"), Reply.error(status, message))
    friendly(daemon, row)
    ran = run(*row["args"][1:], stdin="SWMKEY-1-wrong\n")
    assert ran.err == ours(row["stderr"])
    assert ran.exit == row["exit"]
    assert ran.out == row.get("stdout", "")
    asked = daemon.asked()
    for method, path, _, _ in calls:
        assert f"{method} {sort_query(path)}" in asked
    if not calls and not name.startswith(("unlock",)):
        assert not asked


def test_all_rows_are_there() -> None:
    assert len(ROWS) > 60
