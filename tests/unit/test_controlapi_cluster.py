"""Cluster: redaction, validation, tokens, autolock, root CA, blacklist (BEHAVIOUR 4.3)."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from swarmd import api
from swarmd.base.errors import Code, Conflict, SwarmError
from swarmd.base.timestamps import timestamp
from swarmd.cluster.ca import MANAGER, parse_token
from swarmd.cluster.ca.root import new_root
from tests.harness.controlroom import PEER, Room, a_cluster, told


def spec_of(room: Room) -> api.ClusterSpec:
    spec = api.ClusterSpec()
    spec.CopyFrom(room.there(api.Cluster, "cluster1").spec)
    return spec


def request(room: Room, spec: api.ClusterSpec | None = None) -> api.UpdateClusterRequest:
    stored = room.there(api.Cluster, "cluster1")
    return api.UpdateClusterRequest(
        cluster_id=stored.id, cluster_version=stored.meta.version, spec=spec or stored.spec
    )


async def update(room: Room, message: api.UpdateClusterRequest) -> api.Cluster:
    return (await room.control.update_cluster(message, PEER)).cluster


async def refused(room: Room, message: api.UpdateClusterRequest) -> tuple[str, str]:
    before = room.committer.index
    with pytest.raises(SwarmError) as caught:
        await room.control.update_cluster(message, PEER)
    assert room.committer.index == before
    return told(caught.value)


async def test_no_key_ever_leaves() -> None:
    room = Room()
    a_cluster(room, fips=True)
    spec = spec_of(room)
    spec.encryption_config.auto_lock_managers = True
    spec.ca_config.force_rotate = 1
    updated = await update(room, request(room, spec))
    stored = room.there(api.Cluster, "cluster1")
    keys = [stored.root_ca.ca_key, stored.root_ca.root_rotation.ca_key]
    keys += [key.key for key in (*stored.unlock_keys, *stored.network_bootstrap_keys)]
    assert len(keys) == 4 and all(keys)
    got = await room.control.get_cluster(api.GetClusterRequest(cluster_id="cluster1"), PEER)
    listed = await room.control.list_clusters(api.ListClustersRequest(), PEER)
    for shown in (updated, got.cluster, listed.clusters[0]):
        wire = shown.SerializeToString()
        assert not any(key in wire for key in keys)
        assert b"PRIVATE KEY" not in wire
        assert shown.root_ca.root_rotation.cross_signed_ca_cert
        assert not shown.fips and not shown.encryption_key_lamport_clock
        assert shown.root_ca.join_tokens == stored.root_ca.join_tokens


async def test_signing_certificate_and_key_are_cleared_from_the_shown_spec() -> None:
    room = Room()
    a_cluster(room)
    other = new_root(room.clock.now(), room.entropy)
    assert other.signer is not None
    spec = spec_of(room)
    spec.ca_config.signing_ca_cert = other.pem
    spec.ca_config.signing_ca_key = other.signer.key_pem
    shown = await update(room, request(room, spec))
    stored = room.there(api.Cluster, "cluster1")
    assert stored.spec.ca_config.signing_ca_key and stored.root_ca.root_rotation.ca_cert
    assert not shown.spec.ca_config.signing_ca_cert
    assert not shown.spec.ca_config.signing_ca_key


@pytest.mark.parametrize(
    ("pool", "size", "port", "shown"),
    [
        ([], 0, 0, (["10.0.0.0/8"], 24, 4789)),
        ([], 26, 4800, (["10.0.0.0/8"], 24, 4800)),
        (["10.20.0.0/16"], 26, 0, (["10.20.0.0/16"], 26, 4789)),
    ],
)
async def test_default_pool_is_shown_only_when_none_was_given(
    pool: list[str], size: int, port: int, shown: tuple[list[str], int, int]
) -> None:
    room = Room()
    a_cluster(room, defaultAddressPool=pool, subnetSize=size, VXLANUDPPort=port)
    reply = await room.control.get_cluster(api.GetClusterRequest(cluster_id="cluster1"), PEER)
    cluster = reply.cluster
    assert (list(cluster.defaultAddressPool), cluster.subnetSize, cluster.VXLANUDPPort) == shown
    assert list(room.there(api.Cluster, "cluster1").defaultAddressPool) == pool


async def test_get_cluster_refusals() -> None:
    room = Room()
    with pytest.raises(SwarmError) as caught:
        await room.control.get_cluster(api.GetClusterRequest(), PEER)
    assert told(caught.value) == ("INVALID_ARGUMENT", "invalid argument")
    with pytest.raises(SwarmError) as caught:
        await room.control.get_cluster(api.GetClusterRequest(cluster_id="x"), PEER)
    assert told(caught.value) == ("NOT_FOUND", "cluster x not found")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, True),
        ({"names": ["default"]}, True),
        ({"names": ["Default"]}, False),
        ({"name_prefixes": ["def"]}, True),
        ({"id_prefixes": ["cl", "x"]}, True),
        ({"id_prefixes": ["x"]}, False),
        ({"labels": {"a": ""}}, True),
        ({"labels": {"a": "1"}}, True),
        ({"labels": {"a": "2"}}, False),
        ({"labels": {"b": ""}}, False),
        ({"names": ["default"], "id_prefixes": ["x"]}, False),
    ],
)
async def test_list_filters(filters: dict[str, object], found: bool) -> None:
    room = Room()
    a_cluster(room)
    spec = spec_of(room)
    spec.annotations.labels["a"] = "1"
    await update(room, request(room, spec))
    message = api.ListClustersRequest()
    message.filters.CopyFrom(api.ListClustersRequest.Filters(**filters))
    reply = await room.control.list_clusters(message, PEER)
    assert bool(reply.clusters) is found


BAD_SPECS = [
    (
        {"ca_config": {"node_cert_expiry": Duration(seconds=3599)}},
        "minimum certificate expiry time is: 1h0m0s",
    ),
    ({"ca_config": {"node_cert_expiry": Duration(seconds=10**12)}}, "invalid argument"),
    (
        {"acceptance_policy": {"policies": [{"secret": {"alg": "md5"}}]}},
        "hashing algorithm is not supported: md5",
    ),
    (
        {"dispatcher": {"heartbeat_period": Duration(seconds=-1)}},
        "heartbeat time period cannot be a negative duration",
    ),
    ({"annotations": {"name": "other"}}, "modification of cluster name is not allowed"),
    (
        {"ca_config": {"signing_ca_key": b"k"}},
        "if a signing CA key is provided, the signing CA cert must also be provided",
    ),
]


@pytest.mark.parametrize(("fields", "text"), BAD_SPECS)
async def test_bad_specs(fields: dict[str, object], text: str) -> None:
    room = Room()
    a_cluster(room)
    spec = api.ClusterSpec(**{"annotations": {"name": "default"}, **fields})
    assert await refused(room, request(room, spec)) == ("INVALID_ARGUMENT", text)


async def test_bcrypt_policies_and_exactly_one_hour_pass() -> None:
    room = Room()
    a_cluster(room)
    spec = spec_of(room)
    spec.acceptance_policy.policies.add().secret.alg = "BCrypt"
    spec.ca_config.node_cert_expiry.seconds = 3600
    spec.dispatcher.heartbeat_period.seconds = 0
    await update(room, request(room, spec))
    assert room.there(api.Cluster, "cluster1").spec == spec


async def test_incomplete_requests() -> None:
    room = Room()
    a_cluster(room)
    for field in ("cluster_id", "cluster_version", "spec"):
        message = request(room)
        message.ClearField(field)
        assert await refused(room, message) == ("INVALID_ARGUMENT", "invalid argument")
    message = request(room)
    message.cluster_id = "other"
    assert await refused(room, message) == ("NOT_FOUND", "cluster other not found")


async def test_stale_version_is_refused_with_code_unknown() -> None:
    room = Room()
    a_cluster(room)
    message = request(room)
    message.cluster_version.index -= 1
    assert await refused(room, message) == ("UNKNOWN", "update out of sequence")


async def test_tokens_rotate_one_by_one_and_keep_the_digest() -> None:
    room = Room()
    a_cluster(room)
    before = room.there(api.Cluster, "cluster1").root_ca.join_tokens
    message = request(room)
    message.rotation.worker_join_token = True
    after = (await update(room, message)).root_ca.join_tokens
    assert after.worker != before.worker and after.manager == before.manager
    assert parse_token(after.worker).digest == parse_token(before.worker).digest
    message = request(room)
    message.rotation.manager_join_token = True
    last = (await update(room, message)).root_ca.join_tokens
    assert last.worker == after.worker and last.manager != after.manager
    assert not parse_token(last.manager).fips


async def test_tokens_of_a_fips_cluster_say_so() -> None:
    room = Room()
    a_cluster(room, fips=True)
    message = request(room)
    message.rotation.worker_join_token = True
    worker = (await update(room, message)).root_ca.join_tokens.worker
    assert worker.startswith("SWMTKN-2-1-") and parse_token(worker).fips


async def test_unlock_key_lives_and_dies_with_autolock() -> None:
    room = Room()
    a_cluster(room)

    async def step(locked: bool, rotate: bool = False) -> bytes:
        spec = spec_of(room)
        spec.encryption_config.auto_lock_managers = locked
        message = request(room, spec)
        message.rotation.manager_unlock_key = rotate
        await update(room, message)
        keys = room.there(api.Cluster, "cluster1").unlock_keys
        assert all(key.subsystem == MANAGER and len(key.key) == 32 for key in keys)
        assert len(keys) == int(locked)
        return keys[0].key if keys else b""

    assert await step(False, rotate=True) == b""
    first = await step(True)
    assert await step(True) == first
    second = await step(True, rotate=True)
    assert second != first
    assert await step(False) == b""
    assert await step(True) not in (first, second)


async def test_keys_of_other_subsystems_stay() -> None:
    room = Room()
    other = api.EncryptionKey(subsystem="other", key=b"o")
    a_cluster(room, unlock_keys=[other])
    spec = spec_of(room)
    spec.encryption_config.auto_lock_managers = True
    await update(room, request(room, spec))
    assert other in room.there(api.Cluster, "cluster1").unlock_keys
    spec.encryption_config.auto_lock_managers = False
    await update(room, request(room, spec))
    assert list(room.there(api.Cluster, "cluster1").unlock_keys) == [other]


async def test_forced_rotation_starts_once_per_number() -> None:
    room = Room()
    a_cluster(room)
    old = room.there(api.Cluster, "cluster1").root_ca
    spec = spec_of(room)
    spec.ca_config.force_rotate = 3
    first = await update(room, request(room, spec))
    assert first.root_ca.last_forced_rotation == 3
    assert first.root_ca.ca_cert == old.ca_cert
    assert first.root_ca.root_rotation.ca_cert not in (b"", old.ca_cert)
    assert first.root_ca.join_tokens == old.join_tokens
    again = await update(room, request(room, spec))
    assert again.root_ca.root_rotation == first.root_ca.root_rotation


async def test_the_present_root_aborts_a_rotation() -> None:
    room = Room()
    a_cluster(room)
    root = room.there(api.Cluster, "cluster1").root_ca
    cert, key = root.ca_cert, root.ca_key
    spec = spec_of(room)
    spec.ca_config.force_rotate = 1
    await update(room, request(room, spec))
    spec.ca_config.signing_ca_cert, spec.ca_config.signing_ca_key = cert, key
    shown = await update(room, request(room, spec))
    assert not shown.root_ca.HasField("root_rotation")
    assert room.there(api.Cluster, "cluster1").root_ca.ca_key == key


async def test_a_cluster_without_key_and_external_ca_cannot_be_updated() -> None:
    room = Room()
    a_cluster(room)
    cluster = api.Cluster()
    cluster.CopyFrom(room.there(api.Cluster, "cluster1"))
    cluster.root_ca.ca_key = b""
    room.committer.now(lambda tx: tx.update(cluster))
    assert await refused(room, request(room)) == (
        "INVALID_ARGUMENT",
        "there must be at least one valid, reachable external CA corresponding to the current "
        "CA certificate",
    )


async def test_an_unreadable_root_is_an_internal_error() -> None:
    room = Room()
    cluster = api.Cluster(
        id="cluster1", spec=api.ClusterSpec(annotations=api.Annotations(name="default"))
    )
    room.add(cluster)
    assert await refused(room, request(room)) == (
        "INTERNAL",
        "error loading cluster rootCA for update",
    )


async def test_cluster_that_moves_meanwhile_is_looked_at_again() -> None:
    """The caller's version is right at commit time though not at the first look."""
    room = Room()
    a_cluster(room)
    message = request(room)
    message.rotation.worker_join_token = True
    looks = 0

    def touch() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            cluster = api.Cluster()
            cluster.CopyFrom(room.there(api.Cluster, "cluster1"))
            cluster.encryption_key_lamport_clock += 1
            room.committer.now(lambda tx: tx.update(cluster))
            message.cluster_version.CopyFrom(room.version(cluster))

    room.committer.before = touch
    await room.control.update_cluster(message, PEER)
    assert looks == 2


async def test_cluster_that_never_rests_ends_in_a_conflict() -> None:
    room = Room()
    a_cluster(room)
    message = request(room)

    def touch() -> None:
        cluster = api.Cluster()
        cluster.CopyFrom(room.there(api.Cluster, "cluster1"))
        cluster.encryption_key_lamport_clock += 1
        room.committer.now(lambda tx: tx.update(cluster))
        message.cluster_version.CopyFrom(room.version(cluster))

    room.committer.before = touch
    with pytest.raises(Conflict) as caught:
        await room.control.update_cluster(message, PEER)
    assert caught.value.code is Code.UNKNOWN


async def test_update_drops_blacklist_entries_a_week_after_expiry() -> None:
    room = Room()
    now, day = room.clock.now(), 86400.0
    listed = {
        "fresh": timestamp(now + day),
        "recent": timestamp(now - 6.9 * day),
        "old": timestamp(now - 7.1 * day),
    }
    entries = {id: api.BlacklistedCertificate(expiry=when) for id, when in listed.items()}
    entries["unknown"] = api.BlacklistedCertificate()
    a_cluster(room, blacklisted_certificates=entries)
    await update(room, request(room))
    left = room.there(api.Cluster, "cluster1").blacklisted_certificates
    assert sorted(left) == ["fresh", "recent", "unknown"]
