"""What the door of port 2377 must know of the cluster, read from the store at every call."""

from __future__ import annotations

from swarmd.cluster.store import Store


class StoreAuthorizer:
    """Implements `rpc.Authorizer`: our organization, and who was removed."""

    def __init__(self, store: Store, organization: str) -> None:
        self._store = store
        self._organization = organization

    @property
    def organization(self) -> str:
        """The cluster id that every certificate must carry."""
        return self._organization

    def is_blacklisted(self, node_id: str) -> bool:
        """True for removed nodes; False while the store holds no cluster yet, as in stock."""
        cluster = self._store.view().cluster()
        return cluster is not None and node_id in cluster.blacklisted_certificates
