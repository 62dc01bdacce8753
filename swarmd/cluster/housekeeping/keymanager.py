"""Makes and rotates the keys with which nodes encrypt gossip and overlay traffic.

Mirrors the reference's key manager (PROTOCOL 6): three keys for each of two subsystems, made
when the cluster has none; every 12 hours of one leader's tenure the oldest of each subsystem
gives way to a new one. Nodes tell new keys from old by their lamport time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarmd import api
from swarmd.cluster.planning import Key, Moment, Plan, Planner, Update
from swarmd.cluster.store import Event, View, edit

GOSSIP = "networking:gossip"
IPSEC = "networking:ipsec"
SUBSYSTEMS = (GOSSIP, IPSEC)
KEYS_PER_SUBSYSTEM = 3
KEY_BYTES = 16
ROTATION_SECONDS = 12 * 3600.0


class KeyManager(Planner):
    """Owns `Cluster.network_bootstrap_keys` and its lamport clock.

    The one key is the default cluster's id. The memo is the wall time of the last rotation
    under this leadership, or of its start: a new leader starts a new interval.
    """

    name = "keymanager"
    quiet_seconds = 0.0

    def __init__(self, rotation_seconds: float = ROTATION_SECONDS) -> None:
        self._rotation_seconds = rotation_seconds

    def all_keys(self, view: View) -> Iterable[Key]:
        """The default cluster, once it exists."""
        cluster = view.cluster()
        return [] if cluster is None else [cluster.id]

    def keys_for(self, event: Event, view: View) -> Iterable[Key]:
        """The default cluster, when its keys are gone or it is new."""
        if isinstance(event.object, api.Cluster) and not event.object.network_bootstrap_keys:
            return self.all_keys(view)
        return []

    def plan(self, view: View, key: Key, moment: Moment) -> Plan:
        """Make the first keys, or rotate when the interval is over."""
        cluster = view.cluster()
        if cluster is None or cluster.id != key:
            return Plan()
        if not cluster.network_bootstrap_keys:
            return self._write(first_keys(cluster, moment), moment, "no network keys yet")
        began = moment.memo if isinstance(moment.memo, float) else moment.now
        if moment.now >= began + self._rotation_seconds:
            return self._write(rotated(cluster, moment), moment, "network keys are due")
        return Plan(wake_at=began + self._rotation_seconds, memo=began)

    def _write(self, cluster: api.Cluster, moment: Moment, reason: str) -> Plan:
        return Plan(
            changes=(Update(cluster),),
            wake_at=moment.now + self._rotation_seconds,
            memo=moment.now,
            reason=reason,
        )


def first_keys(cluster: api.Cluster, moment: Moment) -> api.Cluster:
    """The cluster with a full set of keys, gossip first, on a clock that starts anywhere.

    The random start (0 to 65535) keeps a re-created cluster's keys from looking older than
    those its nodes still hold.
    """
    draft = edit(cluster)
    draft.encryption_key_lamport_clock = int.from_bytes(moment.token(2), "big")
    for subsystem in SUBSYSTEMS:
        for _ in range(KEYS_PER_SUBSYSTEM):
            _add_key(draft, subsystem, moment)
    return draft


def rotated(cluster: api.Cluster, moment: Moment) -> api.Cluster:
    """The cluster with one new key per subsystem, in place of the oldest of a full set."""
    draft = edit(cluster)
    held = list(cluster.network_bootstrap_keys)
    known = list(dict.fromkeys(key.subsystem for key in held))
    del draft.network_bootstrap_keys[:]
    for subsystem in known:
        keys = [key for key in held if key.subsystem == subsystem]
        draft.network_bootstrap_keys.extend(_without_oldest(keys))
        _add_key(draft, subsystem, moment)
    return draft


def _without_oldest(keys: Sequence[api.EncryptionKey]) -> list[api.EncryptionKey]:
    """The newest keys, in their order, with room for one more."""
    surplus = len(keys) - (KEYS_PER_SUBSYSTEM - 1)
    by_age = sorted(range(len(keys)), key=lambda index: keys[index].lamport_time)
    dropped = set(by_age[: max(surplus, 0)])
    return [key for index, key in enumerate(keys) if index not in dropped]


def _add_key(cluster: api.Cluster, subsystem: str, moment: Moment) -> None:
    cluster.encryption_key_lamport_clock += 1
    cluster.network_bootstrap_keys.add(
        subsystem=subsystem,
        algorithm=api.EncryptionKey.Algorithm.AES_128_GCM,
        key=moment.token(KEY_BYTES),
        lamport_time=cluster.encryption_key_lamport_clock,
    )
