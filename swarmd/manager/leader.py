"""What only the leader runs: one task group per leadership (house plan, section 6).

Losing leadership cancels the group and nothing else. A part that fails ends the group, and
with it the manager: nothing dies in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.entropy import Entropy, new_id
from swarmd.cluster.model.defaults import ClusterStart, ensure_predefined, ensure_started
from swarmd.cluster.store import Transaction
from swarmd.manager.commit import Committer

Part: TypeAlias = Callable[[asyncio.Event], Awaitable[None]]


class Runner(Protocol):
    """A leader-only part: `run(ready)` until cancelled."""

    async def run(self, ready: asyncio.Event) -> None:
        """Serve during one leadership."""
        ...


class LeaderGroup:
    """Starts the leader's parts in order, each after the one before is ready."""

    def __init__(
        self,
        committer: Committer,
        entropy: Entropy,
        start: ClusterStart | None,
        parts: Sequence[tuple[str, Runner]],
    ) -> None:
        """`start`: what a new cluster begins with; None when this manager joined or restarted."""
        self._committer = committer
        self._entropy = entropy
        self._start = start
        self._parts = list(parts)

    async def run(self, ready: asyncio.Event) -> None:
        """Lead until cancelled. Raises `NotLeader` when leadership was lost on the way."""
        await self._committer.update(self._make_sure_of_objects)
        async with Tasks() as tasks:
            for name, part in self._parts:
                part_ready = asyncio.Event()
                tasks.spawn(part.run(part_ready), f"leader-{name}")
                await part_ready.wait()
            ready.set()
            await asyncio.Event().wait()

    def _make_sure_of_objects(self, tx: Transaction) -> None:
        """The stock default objects; those that exist are left alone (PROTOCOL 4.3)."""
        make_id = partial(new_id, self._entropy)
        if self._start is not None:
            ensure_started(tx, self._start, make_id)
        elif tx.all(api.Cluster):
            ensure_predefined(tx, make_id)
