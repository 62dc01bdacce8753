"""Signs the certificates nodes ask for (wire/PROTOCOL 1.5).

A key is a node id. Nodes in RENEW, and accepted ones in PENDING, get a certificate: from an
external CA where one is configured for the wanted root, else from the local key. What can
be mended later (no key, no external CA answering) leaves the node as it is and is tried
again every 10 s; what cannot sets FAILED with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from swarmd import api
from swarmd.cluster.ca import certificates, chains, external, keys, pem, root
from swarmd.cluster.ca.errors import CAError, ExternalCAError, NoSigner
from swarmd.cluster.ca.root import RootCA
from swarmd.cluster.planning import Effect, Key, Moment, Plan, Planner, Update
from swarmd.cluster.store import Event, View, edit

RETRY_SECONDS = 10.0
_State = api.IssuanceStatus.State
# Looked up once: an enum by its name costs more than the rest of `needs_signing`.
_RENEW, _PENDING = _State.RENEW, _State.PENDING
_ACCEPTED = api.NodeSpec.Membership.ACCEPTED


@dataclass(frozen=True, slots=True)
class SignExternally(Effect):
    """Have an external CA sign this request, then write the answer with `issued` or `failed`.

    `trust_pem` are the roots its server must be under; `intermediates` follow the leaf.
    """

    node_id: str
    csr: bytes = field(repr=False)
    subject: chains.Subject
    urls: tuple[str, ...]
    trust_pem: bytes = field(repr=False)
    intermediates: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tried:
    """What was attempted for a node, so that retries keep their distance."""

    csr: bytes = field(repr=False)
    root: bytes = field(repr=False)
    urls: tuple[str, ...]
    at: float


def needs_signing(node: api.Node) -> bool:
    """True when this node waits for a certificate and may have one."""
    state = node.certificate.status.state
    if state == _RENEW:
        return True
    return bool(state == _PENDING and node.spec.membership == _ACCEPTED)


def is_final(status: api.IssuanceStatus) -> bool:
    """True when waiting for this certificate is over: ISSUED, FAILED or ROTATE."""
    return status.state in (_State.ISSUED, _State.FAILED, _State.ROTATE)


def issued(node: api.Node, certificate: bytes) -> api.Node:
    """A copy of the node with its certificate issued."""
    draft = edit(node)
    draft.certificate.certificate = certificate
    draft.certificate.status.CopyFrom(api.IssuanceStatus(state=_State.ISSUED))
    return draft


def failed(node: api.Node, reason: str) -> api.Node:
    """A copy of the node with its request refused for good."""
    draft = edit(node)
    draft.certificate.status.CopyFrom(api.IssuanceStatus(state=_State.FAILED, err=reason))
    return draft


def check_external(effect: SignExternally, chain_pem: bytes) -> bytes:
    """The chain to store for an external CA's answer: normalised, intermediates appended.

    Raises `ExternalCAError` for an answer that is no certificate for this request: storing
    it would leave the node asking for ever without anybody learning why.
    """
    try:
        answered = chains.parse(chain_pem)
        wanted = certificates.csr_public_key(effect.csr)
    except CAError as error:
        raise ExternalCAError(f"the external CA's answer cannot be used: {error}") from error
    if not answered:
        raise ExternalCAError("the external CA's answer holds no certificate")
    subject = chains.subject_of(answered[0])
    fits = (
        subject.node_id == effect.subject.node_id
        and subject.organization == effect.subject.organization
        and effect.subject.roles[0] in subject.roles
        and chains.spki(answered[0]) == keys.spki(wanted)
    )
    if not fits:
        raise ExternalCAError("the external CA's answer is a certificate for something else")
    return pem.normalize(chain_pem) + effect.intermediates


class Signer(Planner):
    """The planner of node certificates. Replies are waited for, so it never pauses."""

    name = "signer"
    quiet_seconds = 0.0

    def __init__(self) -> None:
        self._root: RootCA | None = None
        self._root_made_from = b""

    def all_keys(self, view: View) -> Iterable[Key]:
        """Every node that waits for a certificate."""
        return [node.id for node in view.all(api.Node) if needs_signing(node)]

    def keys_for(self, event: Event, view: View) -> Iterable[Key]:
        """The node of a node event; all waiting ones when the way of signing changed."""
        if isinstance(event.object, api.Node):
            return [event.object.id] if needs_signing(event.object) else []
        if isinstance(event.object, api.Cluster) and _signs_otherwise(event):
            return self.all_keys(view)
        return []

    def plan(self, view: View, key: Key, moment: Moment) -> Plan:
        """Sign for one node, or arrange for an external CA to do it."""
        node = view.get(api.Node, key)
        cluster = view.cluster()
        if node is None or cluster is None or not needs_signing(node):
            return Plan()
        urls = tuple(external.urls_of_cluster(cluster))
        try:
            role = certificates.role_name(node.certificate.role)
        except CAError as error:
            return Plan(changes=(Update(failed(node, error.message)),), reason=error.message)
        subject = chains.Subject(node.certificate.cn, cluster.id, (role,))
        if urls:
            return _ask_outside(node, cluster, subject, urls, moment)
        return self._sign_here(node, cluster, subject, moment)

    def _sign_here(
        self, node: api.Node, cluster: api.Cluster, subject: chains.Subject, moment: Moment
    ) -> Plan:
        try:
            signing = self._signing_root(cluster.root_ca, moment.now)
        except CAError as error:
            return _later(moment, f"invalid Root CA object in cluster: {error}")
        try:
            chain = certificates.sign(
                signing,
                node.certificate.csr,
                subject,
                now=moment.now,
                entropy=moment,
                expiry=certificates.expiry_seconds(cluster),
            )
        except NoSigner as error:
            return _later(moment, error.message)
        except CAError as error:
            return Plan(changes=(Update(failed(node, error.message)),), reason=error.message)
        return Plan(changes=(Update(issued(node, chain)),), reason="certificate issued")

    def _signing_root(self, wanted: api.RootCA, now: float) -> RootCA:
        # Checking a root costs more than signing with it, and a wave of renewals uses one.
        source = wanted.SerializeToString(deterministic=True)
        if self._root is None or source != self._root_made_from:
            self._root = root.root_from_api(wanted, now)
            self._root_made_from = source
        return self._root


def _ask_outside(
    node: api.Node,
    cluster: api.Cluster,
    subject: chains.Subject,
    urls: tuple[str, ...],
    moment: Moment,
) -> Plan:
    trust = root.trust_bundle(cluster.root_ca)
    tried = moment.memo
    if isinstance(tried, Tried) and (tried.csr, tried.root, tried.urls) == (
        node.certificate.csr,
        trust,
        urls,
    ):
        due = tried.at + RETRY_SECONDS
        # A clock that was set back must not make a node wait longer than one period.
        if tried.at <= moment.now < due:
            return Plan(wake_at=due, memo=tried)
    effect = SignExternally(
        node_id=node.id,
        csr=node.certificate.csr,
        subject=subject,
        urls=urls,
        trust_pem=trust,
        intermediates=cluster.root_ca.root_rotation.cross_signed_ca_cert,
    )
    return Plan(
        effects=(effect,),
        wake_at=moment.now + RETRY_SECONDS,
        memo=Tried(node.certificate.csr, trust, urls, moment.now),
        reason="asking the external CA",
    )


def _later(moment: Moment, reason: str) -> Plan:
    return Plan(wake_at=moment.now + RETRY_SECONDS, reason=reason)


def _signs_otherwise(event: Event) -> bool:
    new, old = event.object, event.old
    if not isinstance(new, api.Cluster) or not isinstance(old, api.Cluster):
        return True
    return bool(
        new.root_ca != old.root_ca
        or list(new.spec.ca_config.external_cas) != list(old.spec.ca_config.external_cas)
    )
