"""What `--force-new-cluster` would do here, for an operator who wants to know before."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd import api
from swarmd.manager.manager import Manager


@dataclass(frozen=True, slots=True)
class KnownManager:
    """One manager as this one sees it."""

    node_id: str
    hostname: str
    addr: str
    reachable: bool
    leader: bool
    own: bool


@dataclass(frozen=True, slots=True)
class Outlook:
    """This manager's view of its quorum and log; indexes are Raft's."""

    cluster_id: str
    node_id: str
    managers: tuple[KnownManager, ...]
    nodes: int
    term: int
    commit: int
    last: int

    @property
    def quorum(self) -> int:
        """Managers needed to write."""
        return len(self.managers) // 2 + 1

    @property
    def reachable(self) -> int:
        """Managers that can be reached, this one among them."""
        return sum(manager.reachable for manager in self.managers)

    @property
    def uncommitted(self) -> int:
        """Entries that would be dropped; a sole manager has committed all it wrote."""
        return self.last - self.commit if len(self.managers) > 1 else 0


def look_out(manager: Manager, node_id: str) -> Outlook:
    """Collect it from a running manager. Raises `NodeStopped`. Changes nothing."""
    view, raft = manager.store.view(), manager.raft
    last = raft.log_end()
    cluster = view.cluster()
    known = []
    for member in raft.members():
        node = view.get(api.Node, member.node_id)
        hostname = node.description.hostname if node is not None else ""
        known.append(
            KnownManager(
                member.node_id,
                hostname,
                member.addr,
                member.reachable,
                member.leader,
                member.node_id == node_id,
            )
        )
    return Outlook(
        cluster.id if cluster is not None else "",
        node_id,
        tuple(known),
        len(view.all(api.Node)),
        raft.term,
        raft.commit_index(),
        last,
    )
