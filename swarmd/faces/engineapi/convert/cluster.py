"""The swarm itself: GET /swarm, the Cluster of /info, and its spec in both directions."""

from __future__ import annotations

import base64

from swarmd import api
from swarmd.faces.engineapi.convert.common import (
    ZERO_TIME,
    Json,
    annotations_json,
    duration,
    nanoseconds,
    numbers,
    put,
    put_map,
    quoted,
    start,
    words,
)
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.issuer import issuer
from swarmd.faces.engineapi.errors import bad_request

_protocol_word = words(api.ExternalCA.CAProtocol)
_PROTOCOLS = numbers(api.ExternalCA.CAProtocol)


def cluster_json(cluster: api.Cluster) -> Json:
    """A cluster without its join tokens."""
    out = start(cluster)
    out["Spec"] = _spec(cluster.spec)
    root = cluster.root_ca
    out["TLSInfo"] = _tls_info(root)
    out["RootRotationInProgress"] = root.HasField("root_rotation")
    out["DefaultAddrPool"] = list(cluster.defaultAddressPool) or None
    out["SubnetSize"] = cluster.subnetSize
    out["DataPathPort"] = cluster.VXLANUDPPort
    return out


def swarm_json(cluster: api.Cluster) -> Json:
    """A cluster with its join tokens, as GET /swarm shows it."""
    out = cluster_json(cluster)
    tokens = cluster.root_ca.join_tokens
    out["JoinTokens"] = {"Worker": tokens.worker, "Manager": tokens.manager}
    return out


def empty_cluster_json() -> Json:
    """What stock /info shows when the cluster could not be read: a struct of zero values."""
    return {
        "ID": "",
        "Version": {},
        "CreatedAt": ZERO_TIME,
        "UpdatedAt": ZERO_TIME,
        "Spec": {
            "Labels": None,
            "Orchestration": {},
            "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": {},
            "CAConfig": {},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "TLSInfo": {},
        "RootRotationInProgress": False,
        "DefaultAddrPool": None,
        "SubnetSize": 0,
        "DataPathPort": 0,
    }


def _tls_info(root: api.RootCA) -> Json:
    out: Json = {}
    put(out, "TrustRoot", root.ca_cert.decode("utf-8", "replace"))
    wanted = root.root_rotation.ca_cert if root.HasField("root_rotation") else root.ca_cert
    found = issuer(wanted)
    if found is not None:
        out["CertIssuerSubject"] = base64.b64encode(found[0]).decode()
        out["CertIssuerPublicKey"] = base64.b64encode(found[1]).decode()
    return out


def _spec(spec: api.ClusterSpec) -> Json:
    out = annotations_json(spec.annotations)
    out["Orchestration"] = {
        "TaskHistoryRetentionLimit": spec.orchestration.task_history_retention_limit
    }
    raft: Json = {}
    put(raft, "SnapshotInterval", spec.raft.snapshot_interval)
    raft["KeepOldSnapshots"] = spec.raft.keep_old_snapshots
    put(raft, "LogEntriesForSlowFollowers", spec.raft.log_entries_for_slow_followers)
    raft["ElectionTick"] = spec.raft.election_tick
    raft["HeartbeatTick"] = spec.raft.heartbeat_tick
    out["Raft"] = raft
    dispatcher: Json = {}
    put(dispatcher, "HeartbeatPeriod", nanoseconds(spec.dispatcher.heartbeat_period))
    out["Dispatcher"] = dispatcher
    out["CAConfig"] = _ca_config(spec.ca_config)
    # Never filled in, not even when set (BEHAVIOUR 5.3).
    out["TaskDefaults"] = {}
    out["EncryptionConfig"] = {"AutoLockManagers": spec.encryption_config.auto_lock_managers}
    return out


def _ca_config(config: api.CAConfig) -> Json:
    # The signing certificate is left out too: sent back without its key it would break updates.
    out: Json = {}
    put(out, "NodeCertExpiry", nanoseconds(config.node_cert_expiry))
    if config.external_cas:
        out["ExternalCAs"] = [_external_ca(ca) for ca in config.external_cas]
    put(out, "ForceRotate", config.force_rotate)
    return out


def _external_ca(ca: api.ExternalCA) -> Json:
    out: Json = {"Protocol": _protocol_word(ca.protocol), "URL": ca.url}
    put_map(out, "Options", ca.options)
    out["CACert"] = ca.ca_cert.decode("utf-8", "replace")
    return out


def merge_forced(fields: Fields, base: api.ClusterSpec) -> api.ClusterSpec:
    """`merge_spec` for a cluster that goes on with one manager: nothing is changed by silence.

    The docker CLI names neither root nor lock then. Stock engines take another number for a
    wish to rotate the root, which waits for the managers that are gone, and open the lock.
    """
    spec = merge_spec(fields, base)
    spec.ca_config.force_rotate = spec.ca_config.force_rotate or base.ca_config.force_rotate
    spec.encryption_config.auto_lock_managers |= base.encryption_config.auto_lock_managers
    return spec


def merge_spec(fields: Fields, base: api.ClusterSpec) -> api.ClusterSpec:
    """`base` with everything that `fields` says; zero and absent keep what `base` has.

    ForceRotate and AutoLockManagers are always taken (BEHAVIOUR 5.4).
    """
    spec = api.ClusterSpec()
    spec.CopyFrom(base)
    name = fields.text("Name")
    if name:
        spec.annotations.name = name
    labels = fields.mapping("Labels")
    if labels:
        spec.annotations.labels.clear()
        spec.annotations.labels.update(labels)
    limit = fields.child("Orchestration").maybe_number("TaskHistoryRetentionLimit")
    if limit is not None:
        spec.orchestration.task_history_retention_limit = limit
    _merge_raft(fields.child("Raft"), spec.raft)
    period = fields.child("Dispatcher").number("HeartbeatPeriod")
    if period:
        spec.dispatcher.heartbeat_period.CopyFrom(duration(period))
    _merge_ca(fields.child("CAConfig"), spec.ca_config)
    encryption = fields.child("EncryptionConfig")
    spec.encryption_config.auto_lock_managers = encryption.flag("AutoLockManagers")
    return spec


def cluster_spec(fields: Fields) -> api.ClusterSpec:
    """A whole spec, from zero: absent members become zero, not defaults (BEHAVIOUR 5.4)."""
    return merge_spec(fields, api.ClusterSpec())


def _merge_raft(fields: Fields, raft: api.RaftConfig) -> None:
    interval = fields.number("SnapshotInterval", "uint64")
    if interval:
        raft.snapshot_interval = interval
    kept = fields.maybe_number("KeepOldSnapshots", "uint64")
    if kept is not None:
        raft.keep_old_snapshots = kept
    entries = fields.number("LogEntriesForSlowFollowers", "uint64")
    if entries:
        raft.log_entries_for_slow_followers = entries
    # The wire holds 32 bits; Go cuts a larger int silently.
    heartbeat = fields.number("HeartbeatTick", "int")
    if heartbeat:
        raft.heartbeat_tick = heartbeat & 0xFFFFFFFF
    election = fields.number("ElectionTick", "int")
    if election:
        raft.election_tick = election & 0xFFFFFFFF


def _merge_ca(fields: Fields, config: api.CAConfig) -> None:
    expiry = fields.number("NodeCertExpiry")
    if expiry:
        config.node_cert_expiry.CopyFrom(duration(expiry))
    certificate = fields.text("SigningCACert")
    if certificate:
        config.signing_ca_cert = certificate.encode()
    key = fields.text("SigningCAKey")
    if key:
        config.signing_ca_key = key.encode()
    config.force_rotate = fields.number("ForceRotate", "uint64")
    for item in fields.children("ExternalCAs"):
        protocol = item.text("Protocol")
        number = _PROTOCOLS.get(protocol.lower())
        if number is None:
            raise bad_request(f"invalid protocol: {quoted(protocol)}")
        ca = config.external_cas.add()
        ca.protocol = number
        ca.url = item.text("URL")
        ca.options.update(item.mapping("Options"))
        ca.ca_cert = item.text("CACert").encode()
