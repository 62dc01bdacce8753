"""What the driver needs of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from swarmd.api import raftpb


class Transport(Protocol):
    """Carries messages to peers; told apart by raft id."""

    def send(self, messages: Sequence[raftpb.Message]) -> None:
        """Queue messages; returns at once. Losses are reported to the node, never raised."""
        ...

    def active(self, raft_id: int) -> bool:
        """True if the last exchange with this member worked."""
        ...


class Alone:
    """The transport of a member without peers: there is nobody to reach."""

    def send(self, messages: Sequence[raftpb.Message]) -> None:
        """Drop what is addressed to nobody."""

    def active(self, raft_id: int) -> bool:
        """Nobody is."""
        return False
