"""Brings every node under the coming root, then makes it the root; and prunes the blacklist.

`RootRotation` (wire/PROTOCOL 1.8): while a rotation runs, nodes that report another issuer
than the coming root are told to renew (state ROTATE), 30 of them every 3 s; when none is
left, one update of the cluster makes the new root the root, with new join tokens. A node
that is down holds the rotation up until it returns or is removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarmd import api
from swarmd.base.timestamps import seconds
from swarmd.cluster.ca import chains, root
from swarmd.cluster.ca.errors import CAError
from swarmd.cluster.planning import Key, Moment, Plan, Planner, Update
from swarmd.cluster.store import Action, Event, View, edit

nodes_per_round_max = 30
ROUND_SECONDS = 3.0
BLACKLIST_GRACE_SECONDS = 7 * 24 * 3600.0
_KEY = "root"
_BLACKLIST_KEY = "blacklist"
_State = api.IssuanceStatus.State
_ON_THEIR_WAY = (_State.RENEW, _State.PENDING, _State.ROTATE)


@dataclass(frozen=True, slots=True)
class Round:
    """When nodes were last told to renew."""

    at: float


def has_issuer(node: api.Node, wanted: chains.Issuer) -> bool:
    """True when the node reports a certificate signed by `wanted`."""
    info = node.description.tls_info
    return (info.cert_issuer_subject, info.cert_issuer_public_key) == (
        wanted.subject,
        wanted.public_key,
    )


class RootRotation(Planner):
    """The planner of a running root rotation."""

    name = "root-rotation"

    def all_keys(self, view: View) -> Iterable[Key]:
        """The one key there is."""
        return [_KEY]

    def keys_for(self, event: Event, view: View) -> Iterable[Key]:
        """Look again on any change of nodes or the cluster while a rotation runs."""
        if not isinstance(event.object, (api.Node, api.Cluster)):
            return []
        cluster = view.cluster()
        if cluster is None or not cluster.root_ca.HasField("root_rotation"):
            return []
        return [_KEY]

    def plan(self, view: View, key: Key, moment: Moment) -> Plan:
        """Tell the next nodes to renew, or finish."""
        cluster = view.cluster()
        if cluster is None or not cluster.root_ca.HasField("root_rotation"):
            return Plan()
        try:
            wanted = root.wanted_issuer(cluster.root_ca)
            outside = [node for node in view.all(api.Node) if not has_issuer(node, wanted)]
            if not outside:
                return Plan(
                    changes=(Update(finished(cluster, moment)),), reason="completed root rotation"
                )
        except CAError as error:
            return Plan(reason=f"invalid cluster root rotation object: {error}")
        return _next_round(outside, moment)


def _next_round(outside: list[api.Node], moment: Moment) -> Plan:
    waiting = [node for node in outside if node.certificate.status.state not in _ON_THEIR_WAY]
    last = moment.memo
    if not waiting:
        return Plan(memo=last)
    if isinstance(last, Round) and last.at <= moment.now < last.at + ROUND_SECONDS:
        return Plan(wake_at=last.at + ROUND_SECONDS, memo=last)
    chosen = waiting[:nodes_per_round_max]
    return Plan(
        changes=tuple(Update(_told(node)) for node in chosen),
        wake_at=moment.now + ROUND_SECONDS if len(waiting) > len(chosen) else None,
        memo=Round(moment.now),
        reason=f"{len(chosen)} of {len(outside)} nodes told to renew",
    )


def _told(node: api.Node) -> api.Node:
    draft = edit(node)
    draft.certificate.status.state = _State.ROTATE
    return draft


def finished(cluster: api.Cluster, moment: Moment) -> api.Cluster:
    """A copy of the cluster whose rotation is over: the new root, new digest, new tokens.

    Raises `CAError` when the new root cannot be used.
    """
    rotation = cluster.root_ca.root_rotation
    new = root.load_root(
        rotation.ca_cert,
        moment.now,
        signing_cert=rotation.ca_cert if rotation.ca_key else b"",
        signing_key=rotation.ca_key,
    )
    draft = edit(cluster)
    draft.root_ca.CopyFrom(root.new_root_object(new, moment, cluster.fips))
    draft.root_ca.last_forced_rotation = cluster.root_ca.last_forced_rotation
    return draft


def expired_entries(cluster: api.Cluster, now: float) -> list[str]:
    """Removed nodes whose certificates ended more than 7 days ago, sorted; no harm in them.

    Entries without an end stay.
    """
    return sorted(
        node_id
        for node_id, entry in cluster.blacklisted_certificates.items()
        if entry.HasField("expiry") and seconds(entry.expiry) < now - BLACKLIST_GRACE_SECONDS
    )


def prune_blacklist(draft: api.Cluster, now: float) -> bool:
    """Drop those entries from a copy of the cluster; True when there were any."""
    gone = expired_entries(draft, now)
    for node_id in gone:
        del draft.blacklisted_certificates[node_id]
    return bool(gone)


class Blacklist(Planner):
    """Drops blacklist entries in time, so that the cluster object does not grow for ever.

    Stock does it only on the next cluster update or node removal; the result is the same.
    """

    name = "blacklist"

    def all_keys(self, view: View) -> Iterable[Key]:
        """The one key there is."""
        return [_BLACKLIST_KEY]

    def keys_for(self, event: Event, view: View) -> Iterable[Key]:
        """Look again when the list changed."""
        if not isinstance(event.object, api.Cluster):
            return []
        old = event.old
        if event.action is Action.UPDATE and isinstance(old, api.Cluster):
            same = old.blacklisted_certificates == event.object.blacklisted_certificates
            return [] if same else [_BLACKLIST_KEY]
        return [_BLACKLIST_KEY]

    def plan(self, view: View, key: Key, moment: Moment) -> Plan:
        """Drop what is over, wake for what comes next."""
        cluster = view.cluster()
        if cluster is None:
            return Plan()
        draft = edit(cluster)
        changed = prune_blacklist(draft, moment.now)
        ends = [
            seconds(entry.expiry)
            for entry in draft.blacklisted_certificates.values()
            if entry.HasField("expiry")
        ]
        return Plan(
            changes=(Update(draft),) if changed else (),
            wake_at=min(ends) + BLACKLIST_GRACE_SECONDS + 1 if ends else None,
            reason="dropped removed nodes whose certificates are over" if changed else "",
        )
