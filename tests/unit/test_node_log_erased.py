"""A manager that is none any more leaves no log behind, whatever interrupts it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from swarmd.base.aio import Lane, cancel_and_wait
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import envelope
from swarmd.manager.raftnode import RaftDisk
from swarmd.manager.raftnode.members import raft_member
from swarmd.node.founding import ensure_log_key
from swarmd.node.membership import Membership, Outfit
from swarmd.node.statedir import KeyStore, NodeSettings, StateDir
from tests.harness.ca_kit import World
from tests.harness.raftnodes import eventually


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "swarm")


def a_node(state: StateDir, role: str) -> KeyStore:
    """One that was a manager: there is a log, and a key for it."""
    world = World()
    keys = KeyStore(state, SeededEntropy(1))
    state.save_root(world.root.pem)
    keys.write(world.pair("n1", role))
    ensure_log_key(keys, SeededEntropy(2))
    sealer = envelope.secretbox(keys.file().dek, SeededEntropy(3))
    member = raft_member(7, "n1", "10.0.0.1:2377")
    RaftDisk.create(state.raft, member, sealer, segment_bytes=65_536).close()
    (state.raft / "snap-v3-encrypted" / f"{1:016x}-{9:016x}.snap").write_bytes(b"x")
    return keys


def killed_at_the_first_file(path: Path, **_: object) -> None:
    if not path.exists():
        return
    next(entry for entry in sorted(path.rglob("*")) if entry.is_file()).unlink()
    raise Killed


def test_a_log_is_gone_at_once_or_not_at_all(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_node(state, ca.MANAGER)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed_at_the_first_file)
        with pytest.raises(Killed):
            state.forget_log()
    assert not RaftDisk.exists(state.raft)
    assert state.raft_gone_path.exists()
    state.remove_leftovers()
    assert not state.raft_gone_path.exists()
    state.forget_log()  # nothing there


def test_a_log_that_cannot_be_moved_is_removed(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_node(state, ca.MANAGER)

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("swarmd.node.statedir.os.rename", busy)
    state.forget_log()
    assert not RaftDisk.exists(state.raft)


async def test_a_worker_that_starts_erases_the_log_it_still_has(state: StateDir) -> None:
    keys = a_node(state, ca.WORKER)
    assert RaftDisk.exists(state.raft) and keys.file().dek

    async def dial(*_: object, **__: object) -> Any:
        raise AssertionError("nobody is asked")

    outfit = Outfit(SystemClock(), SeededEntropy(4), dial, "host")
    lane = Lane("node-state")
    membership = Membership(state, keys, NodeSettings(), outfit, lane)
    task = asyncio.get_running_loop().create_task(membership._manage(asyncio.Event()))
    await eventually(lambda: not RaftDisk.exists(state.raft) and not keys.file().dek)
    await cancel_and_wait(task)
    lane.close()
