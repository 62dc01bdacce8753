"""Linearizable reads without log entries (thesis 6.4): who waits for which confirmation.

A heartbeat round carries the position of the newest waiting read. A voter's answer to it
confirms every read up to that position, so reads of different members may use equal contexts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from swarmd.cluster.raft.quorum import committed_index

_POSITION_BYTES = 8


@dataclass(frozen=True, slots=True)
class PendingRead:
    """A read asked for by member `origin` when the leader's commit index was `index`."""

    origin: int
    context: bytes
    index: int


class ReadOnly:
    """Reads of one leadership; a new one starts empty, as stale answers carry an old term."""

    __slots__ = ("_acked", "_confirmed", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[PendingRead] = deque()
        self._confirmed = 0
        self._acked: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, read: PendingRead) -> None:
        """Queue a read behind the others."""
        self._waiting.append(read)

    def heartbeat_context(self) -> bytes:
        """What the next heartbeats must carry; empty if nothing waits."""
        if not self._waiting:
            return b""
        return (self._confirmed + len(self._waiting)).to_bytes(_POSITION_BYTES, "little")

    def acknowledge(self, id: int, context: bytes) -> None:
        """Note that `id` answered a heartbeat with `context`."""
        if len(context) == _POSITION_BYTES:
            position = int.from_bytes(context, "little")
            self._acked[id] = max(self._acked.get(id, 0), position)

    def confirmed(self, voters: Sequence[int]) -> list[PendingRead]:
        """Take the reads, in order, that a majority of `voters` has confirmed by now."""
        position = committed_index(voters, lambda id: self._acked.get(id, 0))
        reads = []
        while self._confirmed < position and self._waiting:
            reads.append(self._waiting.popleft())
            self._confirmed += 1
        return reads
