"""A join that is refused leaves the node as it was, also on a disk that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import InvalidArgument
from swarmd.node.membership import Outfit
from swarmd.node.statedir import NodeSettings, StateDir
from swarmd.node.swarm import JoinWish, Place, SwarmNode
from tests.harness.ca_kit import World


async def refuse(*_: object, **__: object) -> Any:
    raise InvalidArgument("A valid join token is necessary to join this cluster")


@pytest.mark.parametrize("broken", [False, True])
async def test_a_refused_join_ends_nothing_but_itself(
    tmp_path: Path, broken: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateDir(tmp_path / "swarm")

    def failing() -> None:
        raise OSError(30, "Read-only file system")

    if broken:
        monkeypatch.setattr(state, "forget", failing)
    node = SwarmNode(state, Outfit(SystemClock(), SeededEntropy(1), refuse, "host"))
    token = World().cluster.root_ca.join_tokens.worker
    wish = JoinWish(token, NodeSettings(remote_addr="10.0.0.1:2377"))
    async with Tasks() as tasks:
        ready = asyncio.Event()
        running = tasks.spawn(node.run(ready), "node")
        await ready.wait()
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="A valid join token"):
                await asyncio.wait_for(node.join(wish), 10)
            assert node.place is Place.INACTIVE and not running.done()
    assert ("its remains stay" in caplog.text) == broken
