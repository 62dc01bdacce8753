"""A disk that takes nothing does not end a node that needs nothing from it just now."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.base.aio import Lane, cancel_and_wait
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca.keyfile import KEK
from swarmd.node import membership as module
from swarmd.node import statedir
from swarmd.node.identity import Granted
from swarmd.node.membership import Membership, Outfit
from swarmd.node.remotes import Remote
from swarmd.node.statedir import KeyStore, NodeSettings, StateDir, StateError
from tests.harness.ca_kit import CLUSTER_ID, NOW, World
from tests.harness.raftnodes import eventually


class Node:
    """A worker whose disk can be filled."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.state = StateDir(path)
        self.keys = KeyStore(self.state, SeededEntropy(1))
        self.state.save_root(self.world.root.pem)
        self.identity = self.keys.write(self.world.pair("n1", ca.WORKER))
        self.lane = Lane("node-state")
        outfit = Outfit(SystemClock(), SeededEntropy(4), self.dial, "host")
        self.membership = Membership(self.state, self.keys, NodeSettings(), outfit, self.lane)
        self._patch = patch

    async def dial(self, *_: object, **__: object) -> Any:
        raise AssertionError("nobody is asked")

    def fill_disk(self) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self._patch.setattr("swarmd.node.statedir.write_atomically", full)

    def free_disk(self) -> None:
        self._patch.undo()


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    made = Node(tmp_path / "swarm", monkeypatch)
    yield made
    made.lane.close()


async def test_managers_that_cannot_be_written_down_are_known_all_the_same(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    task = asyncio.get_running_loop().create_task(node.membership._save_remotes())
    node.fill_disk()
    node.membership.remotes.observe(Remote("m1", "10.0.0.1:2377"), 10)
    await eventually(lambda: "managers was not written down: [Errno 28]" in caplog.text)
    node.free_disk()
    node.membership.remotes.observe(Remote("m2", "10.0.0.2:2377"), 10)
    await eventually(lambda: len(node.state.remotes()) == 2)
    assert not task.done()
    await cancel_and_wait(task)


async def test_a_raft_id_that_cannot_be_written_down_does_no_harm(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.fill_disk()
    await node.membership._note_member(0xAB)
    assert "raft id of this manager was not written down: [Errno 28]" in caplog.text
    node.free_disk()
    await node.membership._note_member(0xAB)
    assert node.state.raft_member() == 0xAB


async def test_a_certificate_that_cannot_be_written_down_is_asked_for_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewer goes on after a `SwarmError`; anything else ends the node."""
    pair = node.world.pair("n1", ca.WORKER)
    issuer = ca.verify(pair.cert_pem, node.world.root.pem, NOW).issuer

    async def obtain(*_: object) -> Granted:
        return Granted(ca.identity(pair), issuer, KEK(), node.world.root.pem)

    node.fill_disk()
    monkeypatch.setattr(node.membership._client, "obtain", obtain)
    with pytest.raises(StateError, match="was not written down"):
        await node.membership._renew()
    assert node.membership.identity == node.identity
    assert KeyStore(node.state, SeededEntropy(2)).open() == node.identity


async def test_a_root_that_cannot_be_written_down_is_trusted_all_the_same(
    node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.ca, "verify", lambda *_: None)
    node.fill_disk()
    node.membership.on_root_ca(b"another root")
    assert "new root was not written down: [Errno 28]" in caplog.text
    assert node.membership.credentials().roots_pem == b"another root"


class Killed(BaseException):
    """The process ends here."""


async def test_killed_at_any_step_of_a_renewal_root_and_certificate_fit_each_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that missed the end of a root rotation gets a new root with its certificate."""
    old, new = node.world.root, ca.new_root(NOW, node.world.entropy)
    assert new.signer is not None
    cross = ca.cross_sign(old, new.pem)
    during = ca.load_root(
        old.pem, NOW, signing_cert=cross, signing_key=new.signer.key_pem, intermediates=cross
    )
    node.keys.write(pair_of(during, node.world))
    renewed = pair_of(new, node.world)
    issuer = ca.verify(renewed.cert_pem, new.pem, NOW).issuer
    granted = Granted(ca.identity(renewed), issuer, KEK(), new.pem)
    steps = 0
    for step in range(20):
        left = step

        def killed(*args: Any, real: Any = statedir.write_atomically) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            real(*args)

        with monkeypatch.context() as patch:
            patch.setattr("swarmd.node.statedir.write_atomically", killed)
            try:
                node.membership._write(granted)
            except Killed:
                steps += 1
            else:
                break
        found = KeyStore(node.state, SeededEntropy(2)).open()
        assert ca.verify(found.pair.cert_pem, node.state.trusted_roots(), NOW)
    assert steps == 3


def pair_of(root: ca.RootCA, world: World) -> ca.KeyPair:
    key, csr = ca.new_key_and_csr()
    subject = ca.Subject("n1", CLUSTER_ID, (ca.WORKER,))
    return ca.KeyPair(ca.sign(root, csr, subject, now=NOW, entropy=world.entropy), key)
