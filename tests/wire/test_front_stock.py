"""Our client against a real stock manager: join by hand, live, and through a root rotation."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.engines import Engine, Lan, require_engine, wait_until

pytestmark = pytest.mark.engine


def tell(worker: subprocess.Popen[Any], line: str) -> list[str]:
    """Give the worker one order and read its one line of answer."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline().split()
    assert answer[:1] == ["ok"], answer
    return answer[1:]


def test_a_worker_by_our_client_on_a_stock_manager_through_a_root_rotation() -> None:
    require_engine()
    with Lan() as lan, Engine("e1", lan=lan) as engine:
        host = lan.host("ours")
        engine.docker("swarm", "init", "--advertise-addr", engine.ip)
        token = engine.docker("swarm", "join-token", "-q", "worker").stdout.strip()
        root = engine.docker("swarm", "ca").stdout.encode()
        worker = host.popen(
            [sys.executable, "-m", "tests.wire.stock_worker", f"{engine.ip}:2377", token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            (digest,) = tell(worker, "root")
            assert digest == hashlib.sha256(root.rstrip() + b"\n").hexdigest()
            (node_id,) = tell(worker, "join")
            assert tell(worker, "session") == [node_id]
            states = engine.docker("node", "ls", "--format", "{{.ID}} {{.Status}}").stdout
            assert f"{node_id} Ready" in states.splitlines()
            assert tell(worker, "look") == ["h2", "1"]
            # Our worker does not renew, so the rotation stays half done: the manager shows
            # [leaf by the new root, new root signed by the old one], and no ALPN any more.
            engine.docker("swarm", "ca", "--rotate", "--detach")
            wait_until("the manager renewed", lambda: tell(worker, "look") == ["None", "2"])
            assert tell(worker, "session") == [node_id]
            tell(worker, "refused")
        finally:
            worker.kill()
            worker.wait()
