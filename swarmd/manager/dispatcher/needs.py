"""What the dispatcher needs from other rooms, as small protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from swarmd.cluster.store import Transaction

T = TypeVar("T")


class Peer(Protocol):
    """Who calls: `swarmd.rpc.Peer` fits."""

    @property
    def node_id(self) -> str:
        """The caller's node id, from its certificate."""
        ...

    @property
    def remote_addr(self) -> str:
        """The caller's `ip:port`; anything else means its address is not known."""
        ...


class Member(Protocol):
    """One manager in the raft member list."""

    @property
    def node_id(self) -> str:
        """Its node id."""
        ...

    @property
    def addr(self) -> str:
        """Its `host:port` for other nodes."""
        ...


class Members(Protocol):
    """The raft member list."""

    def members(self) -> Sequence[Member]:
        """All members, reachable or not."""
        ...

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the list may have changed; returns the way to stop that."""
        ...


class Committer(Protocol):
    """The only way to write: `swarmd.manager.commit.Committer` fits."""

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` on the newest state; return when its entry is applied here."""
        ...
