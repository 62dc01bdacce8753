"""The services CA and NodeCA of a manager (wire/PROTOCOL 1.5).

Handlers only judge who asks and write the request down; signing is the planner's work
(`cluster.housekeeping.signer`). Only the leader runs it, so the leader proxy brings these
calls there; `CAServer.run` is part of the leader's task group.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from swarmd import api
from swarmd.base.entropy import Entropy, new_id
from swarmd.base.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from swarmd.cluster.ca import MANAGER, WORKER, tokens
from swarmd.cluster.ca.certificates import csr_bytes_max
from swarmd.cluster.housekeeping.signer import is_final
from swarmd.cluster.store import Batch, Store, Transaction, edit
from swarmd.rpc.peer import Peer

log = logging.getLogger(__name__)

T = TypeVar("T")

ids_tried_max = 4
_State = api.IssuanceStatus.State


class Committer(Protocol):
    """The only way to write."""

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` in a transaction; returns once it is applied here."""
        ...


class CAServer:
    """What both services share: the store, and whether signing goes on here."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        entropy: Entropy,
        organization: str,
        root_pem: Callable[[], bytes] = lambda: b"",
    ) -> None:
        """`root_pem` answers for the root while the store holds no cluster yet."""
        self.store = store
        self.committer = committer
        self.entropy = entropy
        self.organization = organization
        self._root_pem = root_pem
        self._running = False
        self._waiting: dict[str, dict[int, asyncio.Event]] = {}
        self._waiters = 0

    async def run(self, ready: asyncio.Event) -> None:
        """Let certificates be asked for until cancelled; then end all waiting calls."""
        unsubscribe = self.store.subscribe(self._wake)
        self._running = True
        try:
            await self._cluster_known()
            ready.set()
            await asyncio.Event().wait()
        finally:
            self._running = False
            unsubscribe()
            for waiting in self._waiting.values():
                for moved in waiting.values():
                    moved.set()

    def _wake(self, batch: Batch) -> None:
        for event in batch.events:
            if isinstance(event.object, api.Node):
                for moved in self._waiting.get(event.object.id, {}).values():
                    moved.set()

    @contextlib.contextmanager
    def watching(self, node_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when this node changes, or when signing ends here."""
        self._waiters += 1
        number, moved = self._waiters, asyncio.Event()
        self._waiting.setdefault(node_id, {})[number] = moved
        try:
            yield moved
        finally:
            del self._waiting[node_id][number]
            if not self._waiting[node_id]:
                del self._waiting[node_id]

    async def _cluster_known(self) -> None:
        known = asyncio.Event()
        unsubscribe = self.store.subscribe(lambda _: known.set())
        try:
            while self.store.view().cluster() is None:
                known.clear()
                await known.wait()
        finally:
            unsubscribe()

    def demand_running(self) -> None:
        """Raise `Aborted` when signing is not going on here."""
        if not self._running:
            raise Aborted("CA signer is stopped")

    def cluster(self) -> api.Cluster:
        """The cluster object. Raises `Aborted` while there is none."""
        self.demand_running()
        cluster = self.store.view().cluster()
        if cluster is None:
            raise Aborted("CA signer is still starting")
        return cluster

    def root_pem(self) -> bytes:
        """The root bundle that joining nodes are to trust."""
        cluster = self.store.view().cluster()
        return cluster.root_ca.ca_cert if cluster is not None else self._root_pem()


class CA:
    """`docker.swarmkit.v1.CA`: the root for everybody, the unlock key for managers."""

    SERVICE = "docker.swarmkit.v1.CA"

    def __init__(self, server: CAServer) -> None:
        self._server = server

    async def get_root_ca_certificate(
        self, request: api.GetRootCACertificateRequest, peer: Peer
    ) -> api.GetRootCACertificateResponse:
        """The root bundle; callers check it against the digest in their token."""
        return api.GetRootCACertificateResponse(certificate=self._server.root_pem())

    async def get_unlock_key(
        self, request: api.GetUnlockKeyRequest, peer: Peer
    ) -> api.GetUnlockKeyResponse:
        """The key that locks managers' key files, empty when autolock is off.

        The version is the cluster object's: a key file notes with which one it was locked.
        """
        cluster = self._server.store.view().cluster()
        if cluster is None:
            raise Aborted("CA signer is still starting")
        response = api.GetUnlockKeyResponse()
        response.version.CopyFrom(cluster.meta.version)
        if cluster.spec.encryption_config.auto_lock_managers:
            for entry in cluster.unlock_keys:
                if entry.subsystem == MANAGER:
                    response.unlock_key = entry.key
                    break
        return response


class NodeCA:
    """`docker.swarmkit.v1.NodeCA`: certificates for new and known nodes."""

    SERVICE = "docker.swarmkit.v1.NodeCA"

    def __init__(self, server: CAServer) -> None:
        self._server = server

    async def issue_node_certificate(
        self, request: api.IssueNodeCertificateRequest, peer: Peer
    ) -> api.IssueNodeCertificateResponse:
        """Note down a request: a renewal for who shows a certificate, else a new node.

        The role asked for is ignored: renewals get the node's role, new nodes the token's.
        """
        if not request.csr or len(request.csr) > csr_bytes_max:
            raise InvalidArgument("InvalidArgument")
        cluster = self._server.cluster()
        if peer.local and peer.node_id:
            return await self._renew(peer.node_id, request.csr)
        if self._is_member(peer, cluster):
            return await self._renew(peer.node_id, request.csr)
        role = role_of_token(cluster, request.token)
        if role is None:
            raise InvalidArgument("A valid join token is necessary to join this cluster")
        return await self._admit(request, role)

    def _is_member(self, peer: Peer, cluster: api.Cluster) -> bool:
        # A removed node is treated like one without a certificate: it needs a token.
        return bool(
            peer.node_id
            and peer.organization == self._server.organization
            and (WORKER in peer.roles or MANAGER in peer.roles)
            and peer.node_id not in cluster.blacklisted_certificates
        )

    async def _renew(self, node_id: str, csr: bytes) -> api.IssueNodeCertificateResponse:
        def change(tx: Transaction) -> api.Node:
            node = tx.get(api.Node, node_id)
            if node is None:
                raise NotFound(f"node {node_id} not found when attempting to renew certificate")
            draft = edit(node)
            draft.certificate.CopyFrom(
                api.Certificate(
                    csr=csr,
                    cn=node_id,
                    role=node.role,
                    status=api.IssuanceStatus(state=_State.RENEW),
                )
            )
            return tx.update(draft)

        node = await self._server.committer.update(change)
        log.info("node %s asks for a new certificate", node_id)
        return api.IssueNodeCertificateResponse(
            node_id=node_id, node_membership=node.spec.membership
        )

    async def _admit(
        self, request: api.IssueNodeCertificateRequest, role: api.NodeRole
    ) -> api.IssueNodeCertificateResponse:
        def change(tx: Transaction) -> api.Node:
            cluster = tx.cluster()
            # Tokens may have been rotated since they were looked at.
            if cluster is None or role_of_token(cluster, request.token) != role:
                raise InvalidArgument("A valid join token is necessary to join this cluster")
            return tx.create(self._new_node(tx, request, role, cluster.VXLANUDPPort))

        node = await self._server.committer.update(change)
        log.info("node %s joins", node.id)
        return api.IssueNodeCertificateResponse(
            node_id=node.id, node_membership=api.NodeSpec.Membership.ACCEPTED
        )

    def _new_node(
        self,
        tx: Transaction,
        request: api.IssueNodeCertificateRequest,
        role: api.NodeRole,
        vxlan_udp_port: int,
    ) -> api.Node:
        node_id = self._free_id(tx)
        node = api.Node(id=node_id, role=role, VXLANUDPPort=vxlan_udp_port)
        node.spec.annotations.SetInParent()
        node.spec.desired_role = role
        node.spec.membership = api.NodeSpec.Membership.ACCEPTED
        node.spec.availability = request.availability
        node.status.SetInParent()
        node.certificate.csr = request.csr
        node.certificate.cn = node_id
        node.certificate.role = role
        node.certificate.status.state = _State.PENDING
        return node

    def _free_id(self, tx: Transaction) -> str:
        for _ in range(ids_tried_max):
            node_id = new_id(self._server.entropy)
            if tx.get(api.Node, node_id) is None:
                return node_id
        raise AlreadyExists("object already exists")

    async def node_certificate_status(
        self, request: api.NodeCertificateStatusRequest, peer: Peer
    ) -> api.NodeCertificateStatusResponse:
        """The state of a node's certificate, once it is final (ISSUED, FAILED, ROTATE).

        Waits without limit; the caller's deadline ends the call. Open to anybody: the
        certificate in the answer is no secret.
        """
        if not request.node_id:
            raise InvalidArgument("InvalidArgument")
        self._server.demand_running()
        with self._server.watching(request.node_id) as moved:
            while True:
                node = self._server.store.view().get(api.Node, request.node_id)
                if node is None:
                    raise NotFound("NotFound")
                if is_final(node.certificate.status):
                    return _status(node)
                await moved.wait()
                moved.clear()
                self._server.demand_running()


def role_of_token(cluster: api.Cluster, token: str) -> api.NodeRole | None:
    """The role a join token grants, compared in constant time; None for a wrong one."""
    known = cluster.root_ca.join_tokens
    if tokens.same(known.manager, token):
        return api.NodeRole.MANAGER
    if tokens.same(known.worker, token):
        return api.NodeRole.WORKER
    return None


def _status(node: api.Node) -> api.NodeCertificateStatusResponse:
    return api.NodeCertificateStatusResponse(
        status=node.certificate.status, certificate=node.certificate
    )
