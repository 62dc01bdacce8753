"""Raft members in virtual time that can stand still, like a stopped process or a collection.

A paused member's clocks do not run, its network holds what is sent to it, its disk finishes
nothing. When it goes on, all that arrived meanwhile is there at once. Every disk is as slow as
the test says. Nothing here takes real time, and nothing depends on how busy the machine is.

    run_paused(monkeypatch, tmp_path, story)     # async def story(group: Paused) -> None
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.errors import NotLeader
from swarmd.cluster.store import Transaction
from swarmd.manager.raftnode import driver
from tests.harness.raftnodes import Group, Network, One, eventually
from tests.harness.virtual import run_virtual

T = TypeVar("T")
TICK_SECONDS = 1.0  # as in production: this is about real limits
LATENCY_SECONDS = 0.002

_real_sleep = asyncio.sleep
_member: ContextVar[str] = ContextVar("member", default="")


class Times:
    """Until when each member stands still, and how long its disk takes for each write."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self.disk_seconds: dict[str, float] = {}
        self.stuck: set[str] = set()
        """Members whose disks finish nothing."""

    def pause(self, name: str, seconds: float) -> None:
        """Stand still from now on."""
        self._until[name] = asyncio.get_running_loop().time() + seconds

    def left(self, name: str) -> float:
        """How many seconds it will still stand still; not above 0 when it runs."""
        return self._until.get(name, 0.0) - asyncio.get_running_loop().time()

    async def wait(self, name: str) -> None:
        """Until it goes on."""
        while (seconds := self.left(name)) > 0:
            await _real_sleep(seconds)

    async def disk(self, name: str) -> None:
        """For as long as one write takes."""
        await _real_sleep(self.disk_seconds.get(name, 0.001))
        while name in self.stuck:
            await _real_sleep(0.01)


class _Clocks:
    """asyncio for the driver of a member: sleeping takes longer while it stands still."""

    def __init__(self, times: Times) -> None:
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await _real_sleep(seconds)
        await self._times.wait(_member.get())


class _Disk:
    """Stands for `Lane`: the same work in the same order, but in virtual time."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._name = _member.get()
        self._one = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        async with self._one:
            await self._times.disk(self._name)
            await self._times.wait(self._name)
            return work()

    def close(self) -> None:
        """Nothing is left running."""


class _Held(Network):
    """Delivers after a moment; to who stands still, when that is over."""

    def __init__(self, times: Times, names: dict[int, str]) -> None:
        super().__init__()
        self._times = times
        self._names = names

    def deliver(self, sender: int, message: raftpb.Message) -> None:
        self._later(LATENCY_SECONDS, sender, message)

    def _later(self, seconds: float, sender: int, message: raftpb.Message) -> None:
        asyncio.get_running_loop().call_later(seconds, self._arrive, sender, message)

    def _arrive(self, sender: int, message: raftpb.Message) -> None:
        still = self._times.left(self._names.get(message.to, ""))
        if still > 0:
            self._later(still, sender, message)
        else:
            super().deliver(sender, message)


class Paused(Group):
    """Members that can be paused; three of them, the first leads, all of them fast."""

    def __init__(self, root: Path, tasks: Tasks) -> None:
        super().__init__(root, tasks)
        self.times = Times()
        self._names: dict[int, str] = {}
        self.network = _Held(self.times, self._names)
        self.all: list[One] = []
        self.acknowledged: list[str] = []

    async def start(self, one: One) -> One:
        """As `Group.start`, with clocks of the member's own."""
        mark = _member.set(one.name)
        try:
            started = await super().start(one)
        finally:
            _member.reset(mark)
        self._names[one.node.id] = one.name
        self.all.append(one)
        return started

    async def three(self, stock: str = "") -> list[One]:
        """The group, settled. Those named in `stock` understand no marks, so nobody hurries."""

        def how(name: str) -> dict[str, Any]:
            return {"tick_seconds": TICK_SECONDS, "fast_failover": name not in stock}

        first = await self.found("a", **how("a"))
        await eventually(first.node.is_leader, 30)
        made = [first, *[await self.join(first, name, **how(name)) for name in "bc"]]
        if stock:
            await eventually(lambda: all(one.node.applied_index() >= 4 for one in made), 30)
        else:
            await eventually(lambda: all(one.node.fast for one in made), 30)
        return made

    @property
    def leader(self) -> One | None:
        """Who leads and is not standing still."""
        found = [one for one in self.all if one.node.is_leader()]
        return max(found, key=lambda one: one.node.term, default=None)

    def terms(self) -> set[int]:
        """The terms the members are in."""
        return {one.node.term for one in self.all}

    async def write(self, seconds: float, pause: float = 0.2) -> None:
        """Keep writing through whoever leads, noting what was acknowledged."""
        loop = asyncio.get_running_loop()
        end, number = loop.time() + seconds, 0
        while loop.time() < end:
            number += 1
            await _real_sleep(pause)
            leader = self.leader
            if leader is None:
                continue
            name = f"{leader.name}-{number}"
            try:
                async with asyncio.timeout(30):
                    await leader.committer.update(partial(_note, name=name))
            except (NotLeader, TimeoutError):
                continue
            self.acknowledged.append(name)

    def lost(self) -> list[str]:
        """Acknowledged writes that a member lacks."""
        return [
            f"{name} at {one.name}"
            for name in self.acknowledged
            for one in self.all
            if one.config(name) is None
        ]


def _note(tx: Transaction, name: str) -> None:
    config = api.Config(id=name)
    config.spec.annotations.name = name
    tx.create(config)


def run_members(
    monkeypatch: pytest.MonkeyPatch, root: Path, story: Callable[[Paused], Awaitable[None]]
) -> Paused:
    """Let `story` make members and happen to them, in virtual time."""

    async def scene() -> Paused:
        async with Tasks() as tasks:
            group = Paused(root, tasks)
            monkeypatch.setattr(driver, "asyncio", _Clocks(group.times))
            monkeypatch.setattr(driver, "Lane", lambda name: _Disk(group.times))
            await story(group)
            for one in group.all:
                await group.stop(one)
            return group

    return run_virtual(scene())


def run_paused(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    story: Callable[[Paused], Awaitable[None]],
    stock: str = "",
) -> Paused:
    """Let `story` happen to three members, in virtual time; then see that nothing is lost."""

    async def told(group: Paused) -> None:
        await group.three(stock)
        await story(group)
        group.times.disk_seconds.clear()
        await eventually(lambda: not group.lost(), 60)

    return run_members(monkeypatch, root, told)
