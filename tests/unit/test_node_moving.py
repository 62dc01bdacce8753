"""A node whose manager gets another address: options at a start, nodes left behind, news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.errors import FailedPrecondition
from swarmd.cluster.store import Store
from swarmd.daemon.backend import at_start
from swarmd.faces.engineapi.interfaces import Interface
from swarmd.node.moving import demand_found, follow_address, left_behind
from swarmd.node.statedir import NodeSettings, StateError
from tests.harness.localstore import LocalCommitter
from tests.wire.rest_kit import an_interface

BEFORE = NodeSettings(
    local_addr="10.0.0.1",
    remote_addr="10.0.0.2:2377",
    listen_addr="0.0.0.0:2377",
    advertise_addr="10.0.0.1:2377",
    data_path_port=4789,
)
ETH0 = [an_interface("eth0", "10.77.30.2")]


def interfaces() -> list[Interface]:
    return ETH0


@pytest.mark.parametrize(
    ("option", "advertise"),
    [
        ("", "10.0.0.1:2377"),
        ("10.0.0.1", "10.0.0.1:2377"),
        ("eth0", "10.77.30.2:2377"),
        ("eth0:4000", "10.77.30.2:4000"),
        ("gone0", "10.0.0.1:2377"),
        ("0.0.0.0", "10.0.0.1:2377"),
    ],
)
def test_the_option_at_a_start(option: str, advertise: str) -> None:
    found = at_start(option, interfaces, BEFORE)
    assert found.advertise_addr == advertise
    assert (found.remote_addr, found.data_path_port) == ("10.0.0.2:2377", 4789)
    if advertise == BEFORE.advertise_addr:
        assert found == BEFORE


def test_interfaces_that_cannot_be_read_change_nothing() -> None:
    def broken() -> list[Interface]:
        raise OSError("no netlink")

    assert at_start("eth0", broken, BEFORE) == BEFORE


def manager(members: int, **states: str) -> Any:
    """A manager with nodes in these states; the first is its own."""
    store = Store()
    committer = LocalCommitter(store, ManualClock())
    for name, state in states.items():
        node = api.Node(id=f"id-{name}")
        node.description.hostname = name
        node.status.state = api.NodeStatus.State.Value(state)
        committer.write(lambda tx, node=node: tx.create(node))
    raft = SimpleNamespace(members=lambda: [None] * members)
    return SimpleNamespace(store=store, raft=raft)


def test_a_sole_manager_does_not_leave_nodes_behind_unasked() -> None:
    known = manager(1, m="UNKNOWN", w1="READY", w2="DOWN", w3="DISCONNECTED", w4="UNKNOWN")
    assert left_behind(known, "id-m") == ["w2", "w3", "w4"]
    with pytest.raises(
        FailedPrecondition, match=r"3 node\(s\).*alone: w2, w3, w4\. They.*at new:1"
    ):
        demand_found(known, "id-m", "new:1")
    demand_found(manager(3, m="READY", w1="DOWN"), "id-m", "new:1")
    demand_found(manager(1, m="DOWN", w1="READY"), "id-m", "new:1")


def test_long_lists_of_nodes_are_cut() -> None:
    known = manager(1, m="READY", **{f"w{n}": "DOWN" for n in range(9)})
    with pytest.raises(FailedPrecondition, match=r"9 node\(s\).*w4, \.\.\.\. They"):
        demand_found(known, "id-m", "new:1")


class News:
    """A manager's address, with a list of who wants to hear of it."""

    def __init__(self) -> None:
        self.raft = self
        self.address = SimpleNamespace(known="a:1", settled=True)
        self.callbacks: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    async def tell(self, known: str, settled: bool) -> None:
        self.address.known, self.address.settled = known, settled
        for callback in self.callbacks:
            callback()
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_move_is_followed_and_written_down_once_it_holds() -> None:
    news: Any = News()
    done: list[str] = []

    async def settled() -> None:
        done.append("settled")
        if len(done) > 5:
            raise StateError("disk full")  # told, and no reason to stop managing

    async with Tasks() as tasks:
        tasks.spawn(follow_address(news, lambda: done.append("moved"), settled), "follow")
        await news.tell("a:1", settled=True)
        assert done == ["settled"] * len(done)
        done.clear()
        await news.tell("a:1", settled=False)
        assert done == []
        await news.tell("b:1", settled=True)
        assert done == ["moved", "settled"]
        await news.tell("", settled=True)  # no member for a moment, say
        done += ["full"] * 5
        await news.tell("c:1", settled=True)
        await news.tell("d:1", settled=True)
        assert done.count("moved") == 3
    assert news.callbacks == []
