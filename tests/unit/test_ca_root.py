"""Operator-given roots: the rules and texts of a stock engine (measured on 20.10.24)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import chains, keys, pem, root
from swarmd.cluster.ca.errors import CAError, InvalidRoot, NoSigner
from tests.harness.ca_kit import NOW

DAY = 86_400.0
AnyKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
P256, OTHER = keys.new_key(), keys.new_key()


def self_signed(
    key: AnyKey = P256,
    *,
    start: float = NOW - DAY,
    days: float = 4000,
    is_ca: bool = True,
    algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = hashes.SHA256(),
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mine")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.fromtimestamp(start, UTC))
        .not_valid_after(datetime.fromtimestamp(start + days * DAY, UTC))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    return chains.to_pem(builder.sign(key, algorithm))


def text_of(key: AnyKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


GOOD = self_signed()


def load(cert: bytes, key: bytes = b"") -> root.RootCA:
    return ca.load_root(cert, NOW, signing_cert=cert if key else b"", signing_key=key)


RSA_1024 = rsa.generate_private_key(65537, 1024)
P224 = ec.generate_private_key(ec.SECP224R1())
ED = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            text_of(P256),
            'invalid root certificates: {"code":1003,"message":"Failed to parse certificate"}',
        ),
        (
            b"junk",
            b"",
            'invalid root certificates: {"code":1002,"message":"Failed to decode certificate"}',
        ),
        (b"", b"", "no valid root CA certificates found"),
        (GOOD, text_of(OTHER), "certificate key mismatch"),
        (
            self_signed(start=NOW - 300 * DAY, days=299),
            text_of(P256),
            "error while validating Root CA Certificate: x509: certificate has expired or is not "
            "yet valid: current time 2026-10-21T16:36:18Z is after 2026-10-20T16:36:18Z",
        ),
        (
            self_signed(start=NOW + 30 * DAY),
            text_of(P256),
            "error while validating Root CA Certificate: x509: certificate has expired or is not "
            "yet valid: current time 2026-10-21T16:36:18Z is before 2026-11-20T16:36:18Z",
        ),
        (self_signed(RSA_1024), text_of(RSA_1024), "unsupported RSA key parameters"),
        (self_signed(P224), text_of(P224), "unsupported ECDSA key parameters"),
        (
            self_signed(ED, algorithm=None),
            text_of(ED),
            "unsupported signature algorithm: Ed25519",
        ),
        (
            GOOD,
            b"junk",
            'malformed private key: {"code":2002,"message":"Failed to decode private key"}',
        ),
        (
            GOOD,
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            'malformed private key: {"code":2003,"message":"Failed to parse private key"}',
        ),
        (
            GOOD,
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            'malformed private key: {"code":2100,"message":"Private key is encrypted."}',
        ),
    ],
)
def test_refusals(cert: bytes, key: bytes, message: str) -> None:
    with pytest.raises(InvalidRoot) as caught:
        load(cert, key)
    assert str(caught.value) == message


def test_signing_certificate_and_key_come_together() -> None:
    with pytest.raises(InvalidRoot, match="must provide both a signing key and a signing cert"):
        ca.load_root(GOOD, NOW, signing_key=text_of(P256))
    stranger = self_signed(OTHER)
    with pytest.raises(InvalidRoot, match="error while validating signing CA certificate against"):
        ca.load_root(GOOD, NOW, signing_cert=stranger, signing_key=text_of(OTHER))
    with pytest.raises(InvalidRoot, match="invalid signing CA cert"):
        ca.load_root(GOOD, NOW, signing_cert=b"junk", signing_key=text_of(P256))


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
    ],
)
def test_strong_roots_sign(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    made = load(self_signed(key, algorithm=keys.signature_hash(key)), text_of(key))
    _, csr = ca.new_key_and_csr()
    chain = ca.sign(
        made, csr, ca.Subject("n", "c", (ca.WORKER,)), now=NOW, entropy=SeededEntropy(1)
    )
    assert ca.verify(chain, made.pem, NOW).issuer == chains.issuer_of(made.certificates()[0])
    assert chains.parse(chain)[0].signature_hash_algorithm == keys.signature_hash(key)


def test_several_roots_are_trusted_and_the_first_signs() -> None:
    bundle = GOOD + self_signed(OTHER)
    made = load(bundle, text_of(P256))
    assert len(made.certificates()) == 2
    assert made.digest == root.digest(bundle)
    with pytest.raises(InvalidRoot, match="certificate key mismatch"):
        load(bundle, text_of(OTHER))


def test_openssl_key_with_its_parameters_block() -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    made = load(GOOD, parameters + keys.to_sec1(P256))
    assert made.signer is not None and keys.matches(made.certificates()[0], made.signer.key)


def test_cross_signing_keeps_everything_but_the_issuer() -> None:
    old, new = ca.new_root(NOW, SeededEntropy(1)), ca.new_root(NOW, SeededEntropy(2), cn="other")
    crossed = chains.parse(ca.cross_sign(old, new.pem))[0]
    template, signer = new.certificates()[0], old.certificates()[0]
    assert crossed.subject == template.subject
    assert crossed.issuer == signer.subject
    assert crossed.serial_number == template.serial_number
    assert chains.validity(crossed) == chains.validity(template)
    assert chains.spki(crossed) == chains.spki(template)
    kept = [extension for extension in crossed.extensions if extension in list(template.extensions)]
    assert len(kept) == len(list(template.extensions)) == len(list(crossed.extensions)) - 1
    assert chains.is_signed_by(crossed, signer)


def test_what_cannot_be_cross_signed() -> None:
    old = ca.new_root(NOW, SeededEntropy(1))
    with pytest.raises(InvalidRoot, match="certificate not a CA"):
        ca.cross_sign(old, self_signed(is_ca=False))
    for junk in (b"", b"junk", GOOD + GOOD):
        with pytest.raises(InvalidRoot, match="could not parse new CA certificate"):
            ca.cross_sign(old, junk)
    with pytest.raises(NoSigner, match="no valid signer found"):
        ca.cross_sign(ca.load_root(old.pem, NOW), GOOD)


def rotating() -> tuple[root.RootCA, root.RootCA, api.RootCA]:
    old, new = ca.new_root(NOW, SeededEntropy(1)), ca.new_root(NOW, SeededEntropy(2))
    assert new.signer is not None
    made = root.new_root_object(old, SeededEntropy(3))
    made.root_rotation.ca_cert = new.pem
    made.root_rotation.ca_key = new.signer.key_pem
    made.root_rotation.cross_signed_ca_cert = ca.cross_sign(old, new.pem)
    return old, new, made


def test_root_of_a_cluster_during_rotation() -> None:
    old, new, made = rotating()
    during = ca.root_from_api(made, NOW)
    assert during.pem == old.pem and during.signer is not None and new.signer is not None
    assert during.signer.key_pem == new.signer.key_pem
    assert during.signer.cert_pem == during.intermediates == made.root_rotation.cross_signed_ca_cert
    assert root.wanted_issuer(made) == chains.issuer_of(new.certificates()[0])
    assert root.trust_bundle(made) == old.pem + new.pem
    made.root_rotation.ca_key = b""
    assert ca.root_from_api(made, NOW).signer is None


def test_root_of_a_cluster_at_rest() -> None:
    old, _, made = rotating()
    made.ClearField("root_rotation")
    at_rest = ca.root_from_api(made, NOW)
    assert (at_rest.pem, at_rest.intermediates) == (old.pem, b"")
    assert at_rest.digest == made.ca_cert_hash
    assert root.trust_bundle(made) == old.pem
    assert root.wanted_issuer(made) == chains.issuer_of(old.certificates()[0])


def test_broken_cluster_objects_are_told() -> None:
    _, new, made = rotating()
    with pytest.raises(InvalidRoot, match="invalid certificate in cluster root CA object"):
        root.wanted_issuer(api.RootCA(ca_cert=b"junk"))
    made.root_rotation.cross_signed_ca_cert = new.pem
    with pytest.raises(InvalidRoot, match="invalid intermediate chain"):
        ca.root_from_api(made, NOW)
    strange = ca.new_root(NOW, SeededEntropy(9), cn="else")
    old = ca.new_root(NOW, SeededEntropy(8))
    assert old.signer is not None
    with pytest.raises(InvalidRoot, match="the first intermediate must have the same subject"):
        ca.load_root(
            old.pem,
            NOW,
            signing_cert=old.pem,
            signing_key=old.signer.key_pem,
            intermediates=ca.cross_sign(old, strange.pem),
        )


CSR_KEY, CSR = ca.new_key_and_csr()
DER = pem.first(CSR).der


@pytest.mark.parametrize(
    ("csr", "code"),
    [
        (b"", 9002),
        (b"junk", 9002),
        (CSR_KEY, 9300),
        (pem.encode(pem.Block("CERTIFICATE REQUEST", b"\0" * 9)), 9003),
        (pem.encode(pem.Block("CERTIFICATE REQUEST", DER[:-9])), 9003),
        (pem.encode(pem.Block("CERTIFICATE REQUEST", DER[:-1] + bytes([DER[-1] ^ 1]))), 9300),
        (pem.encode(pem.Block("CERTIFICATE REQUEST", DER.replace(b"\2\1\0", b"\2\1\1", 1))), 9003),
        (CSR + b"x" * 70_000, 9300),
    ],
)
def test_malformed_requests_are_refused_for_good(csr: bytes, code: int) -> None:
    made = ca.new_root(NOW, SeededEntropy(1))
    with pytest.raises(CAError) as caught:
        ca.sign(made, csr, ca.Subject("n", "c", (ca.WORKER,)), now=NOW, entropy=SeededEntropy(1))
    assert str(caught.value).startswith(
        f'failed to sign node certificate: {{"code":{code},"message":"'
    )


def test_requests_with_weak_keys_are_refused() -> None:
    made = ca.new_root(NOW, SeededEntropy(1))
    for key in (RSA_1024, P224):
        csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
        with pytest.raises(CAError, match="unsupported public key"):
            ca.sign(
                made,
                csr.public_bytes(Encoding.PEM),
                ca.Subject("n", "c", (ca.WORKER,)),
                now=NOW,
                entropy=SeededEntropy(1),
            )


def test_names_in_the_request_are_ignored() -> None:
    made = ca.new_root(NOW, SeededEntropy(1))
    wish = x509.CertificateSigningRequestBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-manager")])
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    csr = wish.sign(P256, hashes.SHA256()).public_bytes(Encoding.PEM)
    chain = ca.sign(
        made, csr, ca.Subject("n", "c", (ca.WORKER,)), now=NOW, entropy=SeededEntropy(1)
    )
    leaf = chains.parse(chain)[0]
    assert chains.subject_of(leaf) == ca.Subject("n", "c", (ca.WORKER,))
    assert not chains.is_ca(leaf)


def test_a_pair_must_fit() -> None:
    made = ca.new_root(NOW, SeededEntropy(1))
    _, csr = ca.new_key_and_csr()
    chain = ca.sign(
        made, csr, ca.Subject("n", "c", (ca.WORKER,)), now=NOW, entropy=SeededEntropy(1)
    )
    with pytest.raises(CAError, match="private key does not match"):
        ca.identity(ca.KeyPair(chain, CSR_KEY))
    with pytest.raises(CAError):
        ca.identity(ca.KeyPair(b"", CSR_KEY))


def test_keys_do_not_show_in_representations() -> None:
    made = ca.new_root(NOW, SeededEntropy(1))
    assert made.signer is not None
    shown = repr(made) + repr(ca.KeyPair(b"c", CSR_KEY))
    for secret in (made.signer.key_pem, CSR_KEY):
        assert secret.decode().splitlines()[1] not in shown


def test_a_check_remembers_only_what_was_sound() -> None:
    made = root.new_root(NOW, SeededEntropy(4))
    assert made.signer is not None
    described = api.RootCA(ca_cert=made.pem, ca_key=made.signer.key_pem)
    check = ca.RootCheck()
    check.check(described, NOW)
    check.check(described, NOW + 1)
    with pytest.raises(InvalidRoot):  # the same bytes, but the certificate ran out
        check.check(described, NOW + root.ROOT_LIFETIME)
    with pytest.raises(InvalidRoot):  # not yet valid
        check.check(described, NOW - DAY)
    check.check(described, NOW)
    described.ca_key = text_of(OTHER)
    with pytest.raises(CAError):
        check.check(described, NOW)
    with pytest.raises(CAError):  # a failure is not remembered as a success
        check.check(described, NOW)
    described.ca_key = made.signer.key_pem
    described.root_rotation.ca_cert = GOOD
    described.root_rotation.ca_key = text_of(P256)
    described.root_rotation.cross_signed_ca_cert = b"junk"
    with pytest.raises(CAError):
        check.check(described, NOW)
