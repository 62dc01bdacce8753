"""The role check of port 2377: who may call what, with the stock order and texts.

Order for a direct call: role, then blacklist, then organisation (wire/PROTOCOL 0.3); the
texts are what operators of stock clusters know and search for (7.6).
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmd.base.errors import PermissionDenied
from swarmd.rpc.identity import Forwarded, Subject
from swarmd.rpc.methods import Method
from swarmd.rpc.peer import MANAGER_ROLE, NODE_ROLES, Authorizer, Peer

_DENIED = "Permission denied: "


def authorize(
    method: Method,
    subject: Subject | None,
    claims: Forwarded | None,
    remote_addr: str,
    authorizer: Authorizer,
    now: float,
) -> Peer:
    """The caller of one call, proven. Raises `PermissionDenied`.

    `subject` is the TLS peer's certificate, `claims` what a forwarded call says of its
    original caller. Methods open to anybody never refuse: an unproven caller is a `Peer`
    without id and roles (a removed node may come back with a token, seen on stock managers).
    """
    gate = _Gate(authorizer, now)
    if not method.insecure:
        return gate.admit(subject, claims, remote_addr, method.roles)
    try:
        return gate.admit(subject, claims, remote_addr, NODE_ROLES)
    except PermissionDenied:
        return gate.anonymous(subject, claims, remote_addr)


class _Gate:
    """The checks of one call."""

    def __init__(self, authorizer: Authorizer, now: float) -> None:
        self._authorizer = authorizer
        self._now = now

    def admit(
        self,
        subject: Subject | None,
        claims: Forwarded | None,
        remote_addr: str,
        roles: Sequence[str],
    ) -> Peer:
        """Check a call that needs one of `roles`."""
        if claims is not None:
            return self._admit_forwarded(subject, claims, roles)
        try:
            proven = self._certificate(subject, roles)
        except PermissionDenied as inner:
            raise _wrapped("unauthorized peer role", inner) from inner
        return Peer(proven.node_id, proven.organization, proven.roles, remote_addr)

    def anonymous(
        self, subject: Subject | None, claims: Forwarded | None, remote_addr: str
    ) -> Peer:
        """A caller that proved nothing; a manager's word about its address is believed."""
        if claims is not None:
            try:
                forwarder = self._certificate(subject, (MANAGER_ROLE,))
            except PermissionDenied:
                return Peer(remote_addr=remote_addr)
            return Peer(remote_addr=claims.remote_addr, forwarded_by=forwarder.node_id)
        return Peer(remote_addr=remote_addr)

    def _admit_forwarded(
        self, subject: Subject | None, claims: Forwarded, roles: Sequence[str]
    ) -> Peer:
        try:
            forwarder = self._certificate(subject, (MANAGER_ROLE,))
        except PermissionDenied as inner:
            raise _wrapped("unauthorized forwarder role", inner) from inner
        if not claims.complete:
            raise PermissionDenied(_DENIED + "missing information in forwarded request")
        if not set(claims.roles) & set(roles):
            raise PermissionDenied(
                f"{_DENIED}unauthorized forwarded role, expecting: {_go_list(roles)}"
            )
        organization = self._authorizer.organization
        if claims.organization != organization:
            raise PermissionDenied(f"{_DENIED}organization mismatch, expecting: {organization}")
        return Peer(
            claims.node_id,
            claims.organization,
            claims.roles,
            claims.remote_addr,
            forwarder.node_id,
        )

    def _certificate(self, subject: Subject | None, roles: Sequence[str]) -> Subject:
        """Check the TLS peer itself."""
        if subject is None:
            raise PermissionDenied("no client certificates in request")
        if subject.not_after < self._now:
            # It was valid at the handshake; what stock says of an unverified chain fits.
            raise PermissionDenied("no verified chains for remote certificate")
        if not set(subject.roles) & set(roles):
            raise PermissionDenied(
                f"{_DENIED}remote certificate not part of OUs: {_go_list(roles)}"
            )
        if self._authorizer.is_blacklisted(subject.node_id):
            raise PermissionDenied(f"{_DENIED}node {subject.node_id} was removed from swarm")
        organization = self._authorizer.organization
        if not subject.organization or subject.organization != organization:
            raise PermissionDenied(
                f"{_DENIED}remote certificate not part of organization: {organization}"
            )
        return subject


def _wrapped(what: str, inner: PermissionDenied) -> PermissionDenied:
    """Nest one refusal in another, written as stock managers write a nested status."""
    return PermissionDenied(
        f"{_DENIED}{what}: rpc error: code = PermissionDenied desc = {inner.message}"
    )


def _go_list(items: Sequence[str]) -> str:
    return "[" + " ".join(items) + "]"
