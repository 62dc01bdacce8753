"""Reading certificates, forwarded identities and addresses."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from swarmd.base.errors import InvalidArgument, ResourceExhausted
from swarmd.rpc import address, identity
from swarmd.rpc.identity import Forwarded, Subject
from swarmd.rpc.leaderproxy import Origin, told
from swarmd.rpc.registry import Registry

END = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def certificate(*attributes: tuple[x509.ObjectIdentifier, str]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(END - datetime.timedelta(days=1))
        .not_valid_after(END)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


ORG, OU, CN = (
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.COMMON_NAME,
)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (((ORG, "c"), (OU, "swarm-worker"), (CN, "n")), ("n", "c", ("swarm-worker",))),
        (((ORG, "c"), (ORG, "d"), (OU, "a"), (OU, "b"), (CN, "n")), ("n", "c", ("a", "b"))),
        (((CN, "first"), (CN, "last")), ("last", "", ())),
        ((), ("", "", ())),
    ],
)
def test_subject(
    attributes: tuple[tuple[x509.ObjectIdentifier, str], ...],
    expected: tuple[str, str, tuple[str, ...]],
) -> None:
    assert identity.subject_of(certificate(*attributes)) == Subject(*expected, END.timestamp())


def test_garbage_is_no_certificate() -> None:
    with pytest.raises(ValueError, match="parsing"):
        identity.subject_of(b"\x30\x03\x02\x01\x01")


SUBJECTS = st.builds(
    Subject,
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
    st.lists(st.sampled_from(["swarm-worker", "swarm-manager"]), max_size=3).map(tuple),
    st.just(0.0),
)


@given(SUBJECTS)
def test_what_a_follower_sends_is_what_the_leader_reads(subject: Subject) -> None:
    origin = Origin((), subject, "192.0.2.1:7", lambda: None)
    sent = origin.onward()
    claims = identity.forwarded(sent)
    assert claims == Forwarded(subject.node_id, subject.organization, subject.roles, "192.0.2.1:7")
    assert claims.complete == bool(subject.node_id and subject.organization and subject.roles)
    with pytest.raises(ResourceExhausted):
        Origin(sent, subject, "192.0.2.2:8", lambda: None).onward()


def test_a_caller_cannot_smuggle_an_identity_past_a_follower() -> None:
    forged = [
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", "other"),
        ("forwarded_cert_org", "c"),
        ("forwarded_cert_ou", "swarm-manager"),
        ("remote_addr", "192.0.2.9:9"),
    ]
    claims = identity.forwarded(Origin(forged, None, "192.0.2.1:7", lambda: None).onward())
    assert claims == Forwarded("", "", (), "192.0.2.1:7")


def test_told_drops_what_grpc_added() -> None:
    metadata = [
        ("user-agent", "grpc-go/1.33"),
        ("grpc-timeout", "5S"),
        (":authority", "x"),
        ("x-bin", b"\x00"),
        ("redirect", "@"),
        ("redirect", ""),
    ]
    assert told(metadata) == [("redirect", "@"), ("redirect", "")]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10.0.0.1:2377", ("10.0.0.1", 2377)),
        ("[fe80::1]:2377", ("fe80::1", 2377)),
        (":2377", ("", 2377)),
        ("manager.example:0", ("manager.example", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_addresses_are_split(text: str, parts: tuple[str, int]) -> None:
    assert address.split(text) == parts


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1", "10.0.0.1:", "::1:2377", "a:65536", "a:-1", "a:²"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidArgument):
        address.split(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("10.0.0.1", 5), "10.0.0.1:5"),
        (("::1", 5, 0, 0), "[::1]:5"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1:5"),
        (("fe80::1%eth0", 5, 0, 2), "[fe80::1%eth0]:5"),
        ("", ""),
        (None, ""),
    ],
)
def test_socket_names_are_written_as_go_does(name: object, text: str) -> None:
    assert address.of_socket(name) == text


def test_registry_knows_who_is_connected() -> None:
    registry = Registry()
    subject = Subject("n", "c", (), 0.0)
    connection = registry.add(subject, "192.0.2.1:2")
    twin = registry.add(subject, "192.0.2.1:2")
    registry.add(None, "192.0.2.1:1")
    assert registry.addresses() == ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:2"]
    registry.drop(connection)
    registry.drop(connection)
    assert len(registry) == 2
    assert twin in registry and connection not in registry
