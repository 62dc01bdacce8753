"""Ends the streams of nodes that are removed: the door asks who calls only when a call begins.

A stream of Watch tells every change of the store, secrets included, and lasts as long as its
connection. Any manager may have one open for a node that another one removes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from swarmd import api
from swarmd.base.errors import PermissionDenied, SwarmError
from swarmd.cluster.store import Batch, Store
from swarmd.rpc.methods import Method
from swarmd.rpc.peer import Peer


class Door(Protocol):
    """The port's streams; `rpc.server.Server`."""

    def end_streams(
        self, wanted: Callable[[Method, Peer], bool], error: SwarmError | None = None
    ) -> int:
        """End the streams `wanted` names; their callers see `error`."""
        ...


class Removals:
    """Follows the list of removed nodes from `follow` on."""

    def __init__(self, store: Store, door: Door) -> None:
        self._store = store
        self._door = door
        self._known: frozenset[str] = frozenset()

    def follow(self) -> Callable[[], None]:
        """Begin; returns the way to stop."""
        self._known = self._listed()
        return self._store.subscribe(self._hear)

    def _listed(self) -> frozenset[str]:
        cluster = self._store.view().cluster()
        return frozenset(cluster.blacklisted_certificates) if cluster is not None else frozenset()

    def _hear(self, batch: Batch) -> None:
        if not batch.restored and not any(isinstance(e.object, api.Cluster) for e in batch.events):
            return
        before, self._known = self._known, self._listed()
        for node_id in sorted(self._known - before):
            self._end(node_id)

    def _end(self, node_id: str) -> None:
        def is_its(method: Method, peer: Peer) -> bool:
            return peer.node_id == node_id

        text = f"Permission denied: node {node_id} was removed from swarm"
        self._door.end_streams(is_its, PermissionDenied(text))
