"""Nodes: shown with their place in the raft group, changed and removed under its quorum."""

from __future__ import annotations

from cryptography import x509

from swarmd import api
from swarmd.base.errors import FailedPrecondition, Internal, NotFound
from swarmd.base.timestamps import timestamp
from swarmd.cluster.store import Transaction, edit, number
from swarmd.manager.controlapi import quorum
from swarmd.manager.controlapi.clusters import expire_blacklist
from swarmd.manager.controlapi.filters import matches_node
from swarmd.manager.controlapi.seams import Calls, invalid_argument, not_found

_MANAGER, _WORKER = api.NodeRole.MANAGER, api.NodeRole.WORKER
ORPHANED_MESSAGE = "Task belonged to a node that has been deleted"


class NodeCalls(Calls):
    """GetNode, ListNodes, UpdateNode, RemoveNode."""

    async def get_node(self, request: api.GetNodeRequest, peer: object) -> api.GetNodeResponse:
        """One node; managers with their raft status as seen from here."""
        if not request.node_id:
            raise invalid_argument()
        node = self.needs.store.view().get(api.Node, request.node_id)
        if node is None:
            raise NotFound(not_found("node", request.node_id))
        response = api.GetNodeResponse(node=node)
        member = quorum.find(self.needs.membership.members(), node.id)
        if member is not None:
            response.node.manager_status.CopyFrom(quorum.manager_status(member))
        return response

    async def list_nodes(
        self, request: api.ListNodesRequest, peer: object
    ) -> api.ListNodesResponse:
        """All nodes that match; managers with their raft status as seen from here."""
        filters = request.filters
        found = [
            node for node in self.needs.store.view().all(api.Node) if matches_node(filters, node)
        ]
        response = api.ListNodesResponse(nodes=found)
        members = {member.node_id: member for member in self.needs.membership.members()}
        for node in response.nodes:
            if node.id in members:
                node.manager_status.CopyFrom(quorum.manager_status(members[node.id]))
        return response

    async def update_node(
        self, request: api.UpdateNodeRequest, peer: object
    ) -> api.UpdateNodeResponse:
        """Replace the spec. Demotion is refused where it would cost the quorum."""
        if not request.node_id or not request.HasField("node_version"):
            raise invalid_argument()
        if not request.HasField("spec"):
            raise invalid_argument()

        def change(tx: Transaction) -> api.Node:
            stored = tx.get(api.Node, request.node_id)
            if stored is None:
                raise NotFound(not_found("node", request.node_id))
            if (stored.spec.desired_role, request.spec.desired_role) == (_MANAGER, _WORKER):
                self._check_demotion(tx, stored)
            node = edit(stored)
            node.meta.version.CopyFrom(request.node_version)
            node.spec.CopyFrom(request.spec)
            return tx.update(node)

        node = await self.needs.committer.update(change)
        response = api.UpdateNodeResponse()
        response.node.CopyFrom(node)  # half of what the constructor takes for it
        return response

    def _check_demotion(self, tx: Transaction, node: api.Node) -> None:
        managers = tx.by(api.Node, "role", number(_MANAGER))
        if [manager.id for manager in managers] == [node.id]:
            raise FailedPrecondition("attempting to demote the last manager of the swarm")
        members = self.needs.membership.members()
        member = quorum.find(members, node.id)
        if member is None:
            raise NotFound("can't find manager in raft memberlist")
        if not quorum.can_remove(members, self.needs.membership.id, member.raft_id):
            raise FailedPrecondition(
                "can't remove member from the raft: this would result in a loss of quorum"
            )

    async def remove_node(
        self, request: api.RemoveNodeRequest, peer: object
    ) -> api.RemoveNodeResponse:
        """Delete a node, blacklist its certificate and orphan its tasks, all or nothing."""
        if not request.node_id:
            raise invalid_argument()

        def change(tx: Transaction) -> None:
            node = tx.get(api.Node, request.node_id)
            if node is None:
                raise NotFound(not_found("node", request.node_id))
            self._check_removal(node, request.force)
            self._blacklist(tx, node)
            self._orphan_tasks(tx, node.id)
            tx.delete(api.Node, node.id)

        await self.needs.committer.update(change)
        return api.RemoveNodeResponse()

    def _check_removal(self, node: api.Node, force: bool) -> None:
        members = self.needs.membership.members()
        if node.spec.desired_role == _MANAGER and quorum.find(members, node.id) is not None:
            raise FailedPrecondition(
                f"node {node.id} is a cluster manager and is a member of the raft cluster. "
                "It must be demoted to worker before removal"
            )
        if not force and node.status.state == api.NodeStatus.State.READY:
            raise FailedPrecondition(f"node {node.id} is not down and can't be removed")

    def _blacklist(self, tx: Transaction, node: api.Node) -> None:
        stored = tx.cluster()
        if stored is None:
            raise Internal("could not fetch cluster object")
        cluster = edit(stored)
        entry = api.BlacklistedCertificate()
        expiry = certificate_expiry(node.certificate.certificate)
        if expiry is not None:
            entry.expiry.CopyFrom(timestamp(expiry))
        cluster.blacklisted_certificates[node.id].CopyFrom(entry)
        expire_blacklist(cluster, self.needs.clock.now())
        tx.update(cluster)

    def _orphan_tasks(self, tx: Transaction, node_id: str) -> None:
        """Nobody will report on these tasks any more; finished ones stay as they are."""
        now = timestamp(self.needs.clock.now())
        for stored in tx.by(api.Task, "node", node_id):
            if stored.status.state >= api.TaskState.COMPLETE:
                continue
            task = edit(stored)
            task.status.CopyFrom(
                api.TaskStatus(
                    timestamp=now, state=api.TaskState.ORPHANED, message=ORPHANED_MESSAGE
                )
            )
            tx.update(task)


def certificate_expiry(pem: bytes) -> float | None:
    """End of validity of the first certificate, wall seconds; None when unreadable."""
    if not pem:
        return None
    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except ValueError:
        return None
