"""A store with a committer and no Raft: each write is applied at once, or when let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from swarmd.base.clock import Clock
from swarmd.base.errors import SwarmError
from swarmd.base.limits import entry_bytes_max
from swarmd.cluster.store import Store, Transaction
from swarmd.manager.raftnode import RequestTooLarge

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a service."""

    node_id: str
    remote_addr: str = "10.0.0.9:4711"


@dataclass(frozen=True, slots=True)
class Manager:
    """A raft member."""

    node_id: str
    addr: str


class LocalCommitter:
    """Writes to a store as a leader without followers would."""

    def __init__(self, store: Store, clock: Clock, index: int = 10) -> None:
        self.store = store
        self.clock = clock
        self.index = index
        self.commits = 0  # entries written
        self.objects: list[int] = []  # actions per entry
        self.failure: SwarmError | None = None  # what the next updates raise
        self.gate = asyncio.Event()  # closed: updates wait before they are made
        self.gate.set()

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` and apply what it wrote."""
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.write(change)

    def write(self, change: Callable[[Transaction], T]) -> T:
        """The same, now."""
        tx = self.store.begin(self.index, self.clock.now())
        result = change(tx)
        if sum(action.ByteSize() for action in tx.actions) > entry_bytes_max:
            raise RequestTooLarge
        if tx.actions:
            self.index += 1
            self.commits += 1
            self.objects.append(len(tx.actions))
            self.store.commit(tx, self.index)
        return result


class FixedMembers:
    """A member list that tests change by hand."""

    def __init__(self, *managers: Manager) -> None:
        self.list: list[Manager] = list(managers)
        self._callbacks: dict[int, Callable[[], None]] = {}

    def members(self) -> Sequence[Manager]:
        """All members."""
        return list(self.list)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when `changed` is."""
        self._callbacks[id(callback)] = callback
        return lambda: void(self._callbacks.pop(id(callback), None))

    def changed(self, *managers: Manager) -> None:
        """Have another list."""
        self.list = list(managers)
        for callback in list(self._callbacks.values()):
            callback()


def void(_: object) -> None:
    """Nothing, of anything."""
