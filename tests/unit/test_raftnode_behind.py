"""A member on a copy of its disk from an earlier time: it says so, and does not take part."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.cluster.store import Transaction
from swarmd.manager.raftnode.errors import LogBehind
from tests.harness.raftnodes import Group, One, eventually


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with Tasks() as tasks:
        yield Group(tmp_path, tasks)


async def write(one: One, id: str) -> None:
    def change(tx: Transaction) -> None:
        config = api.Config(id=id)
        config.spec.annotations.name = id
        tx.create(config)

    await one.committer.update(change)


async def test_an_older_disk_is_an_error_with_a_way_out(group: Group, tmp_path: Path) -> None:
    a = await group.found("a")
    b, c = await group.join(a, "b"), await group.join(a, "c")
    await write(a, "x")
    await eventually(lambda: b.config("x") and c.config("x"))
    await group.stop(b)
    shutil.copytree(tmp_path / "b", tmp_path / "older")
    b = await group.start(group.make("b"))
    await write(a, "y")
    await eventually(lambda: b.config("y"))
    await group.stop(b)
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "older").rename(tmp_path / "b")
    b = await group.start(group.make("b"))
    assert b.task is not None
    await asyncio.wait({b.task}, timeout=10)
    with pytest.raises(LogBehind, match="Demote this manager on another one") as caught:
        await b.task
    assert "acknowledged entry" in caught.value.message
    await write(a, "z")
    await eventually(lambda: c.config("z"))


async def test_a_restart_on_the_own_disk_is_none(group: Group) -> None:
    a = await group.found("a")
    b, c = await group.join(a, "b"), await group.join(a, "c")
    for number in range(5):
        await write(a, f"x{number}")
        await eventually(lambda one=b, n=number: one.config(f"x{n}"))
        await group.stop(b)
        b = await group.start(group.make("b"))
    await write(a, "y")
    await eventually(lambda: b.config("y") and c.config("y"))
