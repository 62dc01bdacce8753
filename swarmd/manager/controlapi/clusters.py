"""The cluster object: shown without its keys, updated with tokens, autolock and root CA."""

from __future__ import annotations

from swarmd import api
from swarmd.base.errors import Conflict, Internal, NotFound
from swarmd.base.timestamps import seconds
from swarmd.cluster.ca import MANAGER, RootCheck, join_token
from swarmd.cluster.ca.errors import CAError
from swarmd.cluster.ca.rotation_start import start_root_rotation
from swarmd.cluster.store import Transaction, edit
from swarmd.manager.controlapi import redact
from swarmd.manager.controlapi.filters import matches
from swarmd.manager.controlapi.seams import Calls, Needs, invalid_argument, not_found
from swarmd.manager.controlapi.validate_cluster import check_cluster_spec

UNLOCK_KEY_BYTES = 32
BLACKLIST_GRACE_SECONDS = 7 * 24 * 3600.0
# How often the cluster may change under an update that has to ask an external CA first.
attempts_max = 5


class _Moved(Exception):
    """The cluster changed between the look at its root CA and the transaction."""


def expire_blacklist(cluster: api.Cluster, now: float) -> None:
    """Drop entries whose certificate ran out more than a week ago; in place, on a copy."""
    blacklist = cluster.blacklisted_certificates
    for node_id in sorted(blacklist):
        entry = blacklist[node_id]
        if entry.HasField("expiry") and seconds(entry.expiry) < now - BLACKLIST_GRACE_SECONDS:
            del blacklist[node_id]


class ClusterCalls(Calls):
    """GetCluster, ListClusters, UpdateCluster."""

    def __init__(self, needs: Needs) -> None:
        super().__init__(needs)
        self._sound = RootCheck()

    async def get_cluster(
        self, request: api.GetClusterRequest, peer: object
    ) -> api.GetClusterResponse:
        """One cluster, redacted."""
        if not request.cluster_id:
            raise invalid_argument()
        cluster = self.needs.store.view().get(api.Cluster, request.cluster_id)
        if cluster is None:
            raise NotFound(not_found("cluster", request.cluster_id))
        return api.GetClusterResponse(cluster=redact.cluster(cluster))

    async def list_clusters(
        self, request: api.ListClustersRequest, peer: object
    ) -> api.ListClustersResponse:
        """All clusters that match, redacted; in practice the one named default."""
        found = [
            redact.cluster(cluster)
            for cluster in self.needs.store.view().all(api.Cluster)
            if matches(request.filters, cluster.id, cluster.spec.annotations)
        ]
        return api.ListClustersResponse(clusters=found)

    async def update_cluster(
        self, request: api.UpdateClusterRequest, peer: object
    ) -> api.UpdateClusterResponse:
        """Replace the spec; rotate tokens, unlock key and root CA as asked.

        The root CA is decided before the transaction, because external CAs may have to be
        asked; the transaction makes sure that the cluster is still the one looked at.
        """
        if not request.cluster_id or not request.HasField("cluster_version"):
            raise invalid_argument()
        if not request.HasField("spec"):
            raise invalid_argument()
        check_cluster_spec(request.spec)
        for _ in range(attempts_max):
            cluster = self.needs.store.view().get(api.Cluster, request.cluster_id)
            if cluster is None:
                raise NotFound(not_found("cluster", request.cluster_id))
            seen = cluster.meta.version.index
            root_ca = await self._root_ca(cluster, request.spec)

            def change(
                tx: Transaction, seen: int = seen, root_ca: api.RootCA = root_ca
            ) -> api.Cluster:
                return self._update(tx, request, seen, root_ca)

            try:
                updated = await self.needs.committer.update(change)
            except _Moved:
                continue
            return api.UpdateClusterResponse(cluster=redact.cluster(updated))
        raise Conflict

    async def _root_ca(self, cluster: api.Cluster, spec: api.ClusterSpec) -> api.RootCA:
        now = self.needs.clock.now()
        try:
            self._sound.check(cluster.root_ca, now)
        except CAError as error:
            raise Internal("error loading cluster rootCA for update") from error
        return await start_root_rotation(
            cluster, spec, now, self.needs.entropy, self.needs.external_cas
        )

    def _update(
        self,
        tx: Transaction,
        request: api.UpdateClusterRequest,
        seen: int,
        root_ca: api.RootCA,
    ) -> api.Cluster:
        stored = tx.get(api.Cluster, request.cluster_id)
        if stored is None:
            raise NotFound(not_found("cluster", request.cluster_id))
        if stored.meta.version.index != request.cluster_version.index:
            raise Conflict
        if stored.meta.version.index != seen:
            raise _Moved
        cluster = edit(stored)
        cluster.spec.CopyFrom(request.spec)
        cluster.root_ca.CopyFrom(root_ca)
        expire_blacklist(cluster, self.needs.clock.now())
        self._rotate_tokens(cluster, stored.root_ca.ca_cert, request.rotation)
        self._set_unlock_keys(cluster, request.rotation.manager_unlock_key)
        return tx.update(cluster)

    def _rotate_tokens(
        self, cluster: api.Cluster, root_pem: bytes, rotation: api.KeyRotation
    ) -> None:
        """New tokens carry the digest of the root that nodes trust now, also in a rotation."""
        tokens, entropy = cluster.root_ca.join_tokens, self.needs.entropy
        if rotation.worker_join_token:
            tokens.worker = join_token(root_pem, entropy, cluster.fips)
        if rotation.manager_join_token:
            tokens.manager = join_token(root_pem, entropy, cluster.fips)

    def _set_unlock_keys(self, cluster: api.Cluster, rotate: bool) -> None:
        """Autolock on: one key for managers, made if missing; off: none."""
        locked = cluster.spec.encryption_config.auto_lock_managers
        keys = [key for key in cluster.unlock_keys if locked or key.subsystem != MANAGER]
        own = next((key for key in keys if key.subsystem == MANAGER), None)
        if locked and own is None:
            keys.append(api.EncryptionKey(subsystem=MANAGER, key=self._unlock_key()))
        elif locked and rotate and own is not None:
            own.key = self._unlock_key()
        kept = [key.SerializeToString() for key in keys]
        del cluster.unlock_keys[:]
        cluster.unlock_keys.extend(api.EncryptionKey.FromString(key) for key in kept)

    def _unlock_key(self) -> bytes:
        return self.needs.entropy.token(UNLOCK_KEY_BYTES)
