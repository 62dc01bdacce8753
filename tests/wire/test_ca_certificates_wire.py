"""Roots, tokens and node certificates against recordings of a stock engine, and OpenSSL."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import certificates, chains, keys, tokens
from swarmd.cluster.ca.root import RootCA

REST = Path(__file__).parents[1] / "fixtures" / "rest"
NOW = 1_792_600_578.5  # not on a minute, second half
CLUSTER = "a2pc2g8p3j3x8g0yroy64h08o"
NODE = "38rnxpdn7t5jvo8jts0moqqes"


def recorded() -> list[dict[str, Any]]:
    """Every recorded cluster body with its TLS info and join tokens."""
    found: list[dict[str, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "JoinTokens" in value and "TLSInfo" in value:
                found.append(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(json.loads((REST / "swarm.json").read_text()))
    return found


CLUSTERS = recorded()


def shape(certificate: x509.Certificate) -> dict[str, Any]:
    """What must be equal between a stock root and ours: all but key, serial, time, signature."""
    start, end = chains.validity(certificate)
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return {
        "version": certificate.version,
        "subject": certificate.subject.public_bytes(),
        "issuer": certificate.issuer.public_bytes(),
        "signature": certificate.signature_algorithm_oid,
        "lifetime": end - start,
        "beyond the minute": start % 60,
        "curve": public.curve.name,
        "order": [(extension.oid, extension.critical) for extension in certificate.extensions],
        "values": [
            extension.value.public_bytes()
            for extension in certificate.extensions
            if not isinstance(extension.value, x509.SubjectKeyIdentifier)
        ],
    }


def test_there_are_recordings() -> None:
    assert len(CLUSTERS) >= 5


@pytest.mark.parametrize("body", CLUSTERS)
def test_recorded_tokens_carry_the_digest_of_the_recorded_root(body: dict[str, Any]) -> None:
    root_pem = body["TLSInfo"]["TrustRoot"].encode()
    for text in body["JoinTokens"].values():
        token = tokens.parse_token(text)
        assert token.digest == tokens.root_hash(root_pem)
        assert not token.fips
        again = tokens.join_token(root_pem, SeededEntropy(1))
        assert again.rsplit("-", 1)[0] == text.rsplit("-", 1)[0]
        assert len(again) == len(text)


@pytest.mark.parametrize("body", CLUSTERS)
def test_root_has_the_shape_of_a_recorded_one(body: dict[str, Any]) -> None:
    theirs = chains.parse(body["TLSInfo"]["TrustRoot"].encode())
    ours = ca.new_root(NOW, SeededEntropy(2)).certificates()
    assert len(theirs) == len(ours) == 1
    assert shape(ours[0]) == shape(theirs[0])
    identifier = theirs[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == x509.SubjectKeyIdentifier.from_public_key(theirs[0].public_key())


@pytest.mark.parametrize("body", CLUSTERS)
def test_recorded_root_loads_and_names_its_issuer_like_the_engine(body: dict[str, Any]) -> None:
    info = body["TLSInfo"]
    root_pem = info["TrustRoot"].encode()
    created = chains.validity(chains.parse(root_pem)[0])[0]
    root = ca.load_root(root_pem, created + 600)
    issuer = chains.issuer_of(root.certificates()[0])
    assert root.signer is None
    assert issuer.subject == base64.b64decode(info["CertIssuerSubject"])
    # While a root rotates, the wanted issuer is the coming root and the trust is still the old.
    same = issuer.public_key == base64.b64decode(info["CertIssuerPublicKey"])
    assert same is not body["RootRotationInProgress"]
    assert chains.to_pem(root.certificates()[0]) == root_pem


def signed(role: str, expiry: float = 7_776_000.0) -> tuple[RootCA, bytes, bytes]:
    root = ca.new_root(NOW, SeededEntropy(3))
    key, csr = ca.new_key_and_csr()
    chain = ca.sign(
        root,
        csr,
        ca.Subject(NODE, CLUSTER, (role,)),
        now=NOW,
        entropy=SeededEntropy(4),
        expiry=expiry,
    )
    return root, key, chain


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (ca.MANAGER, ["swarm-manager", NODE, "swarm-ca"]),
        (ca.WORKER, ["swarm-worker", NODE]),
    ],
)
def test_node_certificate_fields(role: str, names: list[str]) -> None:
    root, _, chain = signed(role)
    leaf = chains.parse(chain)[0]
    issuer = root.certificates()[0]
    assert [(part.oid, part.value) for part in leaf.subject] == [
        (NameOID.ORGANIZATION_NAME, CLUSTER),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        (NameOID.COMMON_NAME, NODE),
    ]
    assert b"\x13" + bytes([len(NODE)]) + NODE.encode() in leaf.subject.public_bytes()
    values = {extension.oid: extension.value for extension in leaf.extensions}
    assert [(one.oid.dotted_string, one.critical) for one in leaf.extensions] == [
        ("2.5.29.15", True),
        ("2.5.29.37", False),
        ("2.5.29.19", True),
        ("2.5.29.14", False),
        ("2.5.29.35", False),
        ("2.5.29.17", False),
    ]
    alternative = values[x509.SubjectAlternativeName.oid]
    assert isinstance(alternative, x509.SubjectAlternativeName)
    assert alternative.get_values_for_type(x509.DNSName) == names
    assert values[x509.ExtendedKeyUsage.oid] == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    usage = values[x509.KeyUsage.oid]
    assert isinstance(usage, x509.KeyUsage)
    assert usage.digital_signature and usage.key_encipherment
    assert not (usage.key_cert_sign or usage.crl_sign or usage.data_encipherment)
    authority = values[x509.AuthorityKeyIdentifier.oid]
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert isinstance(authority, x509.AuthorityKeyIdentifier)
    assert authority.key_identifier == identifier.digest
    assert leaf.serial_number.bit_length() <= 159


@pytest.mark.parametrize(
    ("expiry", "lifetime"),
    [(7_776_000.0, 7_776_000), (3600.0, 3600), (3599.0, 7_776_000), (0.0, 7_776_000)],
)
def test_node_certificate_times(expiry: float, lifetime: int) -> None:
    _, _, chain = signed(ca.WORKER, expiry)
    start, end = chains.validity(chains.parse(chain)[0])
    rounded = (NOW + 30) // 60 * 60
    assert start == rounded - 3600
    assert end == rounded + lifetime


def test_csr_has_an_empty_subject() -> None:
    _, csr = ca.new_key_and_csr()
    request = x509.load_pem_x509_csr(csr)
    assert list(request.subject) == []
    assert request.is_signature_valid
    assert abs(len(csr) - 326) < 20


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("role", [ca.MANAGER, ca.WORKER])
def test_openssl_accepts_our_certificates_strictly(role: str, tmp_path: Path) -> None:
    root, _, chain = signed(role)
    (tmp_path / "root").write_bytes(root.pem)
    (tmp_path / "leaf").write_bytes(chain)
    for purpose in ("sslserver", "sslclient"):
        done = openssl(
            "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(NOW)),
            "-CAfile", str(tmp_path / "root"), str(tmp_path / "leaf"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_openssl_accepts_our_cross_signed_chain_with_only_the_old_root(tmp_path: Path) -> None:
    old = ca.new_root(NOW, SeededEntropy(5))
    new = ca.new_root(NOW, SeededEntropy(6))
    cross = ca.cross_sign(old, new.pem)
    during = ca.load_root(
        old.pem,
        NOW,
        signing_cert=cross,
        signing_key=new.signer.key_pem if new.signer else b"",
        intermediates=cross,
    )
    key, csr = ca.new_key_and_csr()
    chain = ca.sign(
        during, csr, ca.Subject(NODE, CLUSTER, (ca.WORKER,)), now=NOW, entropy=SeededEntropy(7)
    )
    assert chain.endswith(cross) and chain.count(b"BEGIN CERTIFICATE") == 2
    (tmp_path / "cross").write_bytes(cross)
    (tmp_path / "leaf").write_bytes(chain[: -len(cross)])
    for number, root in enumerate((old, new)):
        (tmp_path / "root").write_bytes(root.pem)
        done = openssl(
            "verify", "-x509_strict", "-attime", str(int(NOW)), "-CAfile", str(tmp_path / "root"),
            "-untrusted", str(tmp_path / "cross"), str(tmp_path / "leaf"),
        )  # fmt: skip
        assert done.returncode == 0, (number, done.stderr)
    verified = ca.verify(chain, old.pem, NOW)
    assert verified.issuer == chains.issuer_of(new.certificates()[0])
    assert verified.trust_pem == cross
    assert ca.identity(ca.KeyPair(chain, key)).node_id == NODE


def test_openssl_reads_the_key_and_the_root_key(tmp_path: Path) -> None:
    root, key, _ = signed(ca.WORKER)
    assert root.signer is not None
    assert root.signer.key_pem.startswith(b"-----BEGIN EC PRIVATE KEY-----\n")
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    for number, text in enumerate((key, root.signer.key_pem)):
        (tmp_path / f"key{number}").write_bytes(text)
        done = openssl("pkey", "-in", str(tmp_path / f"key{number}"), "-noout", "-check")
        assert done.returncode == 0, done.stderr
    assert keys.matches(root.certificates()[0], keys.load(root.signer.key_pem))


def test_expiry_comes_from_the_cluster() -> None:
    cluster = api.Cluster()
    assert certificates.expiry_seconds(cluster) == 7_776_000
    cluster.spec.ca_config.node_cert_expiry.seconds = 7200
    assert certificates.expiry_seconds(cluster) == 7200
    cluster.spec.ca_config.node_cert_expiry.seconds = 60
    assert certificates.expiry_seconds(cluster) == 7_776_000
