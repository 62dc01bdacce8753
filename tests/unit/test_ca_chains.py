"""Chains: what Go accepts is accepted, what it refuses is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import chains, keys, pem
from swarmd.cluster.ca.errors import CertificateExpired, ChainError, InvalidPEM, UnknownAuthority
from swarmd.cluster.ca.root import RootCA
from tests.harness.ca_kit import NOW

DAY = 86_400.0
CA_CONSTRAINTS = x509.BasicConstraints(ca=True, path_length=None)
_serials = iter(range(1, 10_000))


class Made:
    """A certificate with its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def pem(self) -> bytes:
        return chains.to_pem(self.certificate)


def make(
    name: str,
    by: Made | None = None,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    start: float = NOW - DAY,
    end: float = NOW + DAY,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ((CA_CONSTRAINTS, True),),
    algorithm: type[hashes.SHA256] | type[hashes.SHA512] = hashes.SHA256,
) -> Made:
    own = key or keys.new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        by.certificate.subject if by else subject, subject, own.public_key()
    )
    builder = (
        builder.serial_number(next(_serials))
        .not_valid_before(datetime.fromtimestamp(start, UTC))
        .not_valid_after(datetime.fromtimestamp(end, UTC))
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return Made(builder.sign(by.key if by else own, algorithm()), own)


ROOT = make("root")
LEAF_EXTENSIONS = ((x509.BasicConstraints(ca=False, path_length=None), True),)


def leaf(by: Made, **more: float) -> Made:
    return make("leaf", by, extensions=LEAF_EXTENSIONS, **more)


def test_leaf_under_root() -> None:
    node = leaf(ROOT)
    verified = chains.verify(node.pem, ROOT.pem, NOW)
    assert verified.path == (node.certificate, ROOT.certificate)
    assert verified.issuer == chains.issuer_of(ROOT.certificate)
    assert verified.trust_pem == b""


def test_intermediates_in_order_and_unneeded_ones() -> None:
    middle = make("middle", ROOT)
    lower = make("lower", middle)
    node = leaf(lower)
    chain = node.pem + lower.pem + middle.pem
    assert len(chains.verify(chain, ROOT.pem, NOW).path) == 4
    assert len(chains.verify(chain, ROOT.pem + lower.pem, NOW).path) == 2
    assert len(chains.verify(chain + ROOT.pem, ROOT.pem, NOW).path) == 4
    with pytest.raises(ChainError, match=r"do not form a chain: \(1 - leaf\) is not signed by"):
        chains.verify(node.pem + middle.pem + lower.pem, ROOT.pem, NOW)


def test_unknown_authority() -> None:
    with pytest.raises(UnknownAuthority, match="certificate signed by unknown authority"):
        chains.verify(leaf(make("root")).pem, ROOT.pem, NOW)


def test_same_name_other_key_is_not_the_root() -> None:
    impostor = make("root")
    node = leaf(impostor)
    with pytest.raises(UnknownAuthority):
        chains.verify(node.pem + impostor.pem, ROOT.pem, NOW)


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [(NOW - 9, NOW - 5, "not valid after"), (NOW + 5, NOW + 9, "not valid before")],
)
def test_times_of_the_chain(start: float, end: float, text: str) -> None:
    node = leaf(ROOT, start=start, end=end)
    with pytest.raises(CertificateExpired, match=rf"certificate \(1 - leaf\) {text}"):
        chains.verify(node.pem, ROOT.pem, NOW)


def test_expired_root() -> None:
    old = make("root", end=NOW - 5)
    with pytest.raises(CertificateExpired, match=r"current time .* is after"):
        chains.verify(leaf(old).pem, old.pem, NOW)


def test_expired_may_be_allowed_if_all_were_valid_once() -> None:
    node = leaf(ROOT, end=NOW - 5)
    assert chains.verify(node.pem, ROOT.pem, NOW, allow_expired=True).leaf == node.certificate
    dead = make("root", end=NOW - DAY / 2)
    late = leaf(dead, start=NOW - 100, end=NOW - 5)
    with pytest.raises(CertificateExpired, match="no time span"):
        chains.verify(late.pem, dead.pem, NOW, allow_expired=True)
    with pytest.raises(UnknownAuthority):
        chains.verify(leaf(make("x")).pem, ROOT.pem, NOW, allow_expired=True)


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        LEAF_EXTENSIONS,
        (
            (CA_CONSTRAINTS, True),
            (
                x509.KeyUsage(True, False, False, False, False, False, False, False, False),
                True,
            ),
        ),
        (
            (CA_CONSTRAINTS, True),
            (
                x509.NameConstraints(
                    permitted_subtrees=[x509.DNSName("a")], excluded_subtrees=None
                ),
                True,
            ),
        ),
    ],
)
def test_who_may_not_sign(extensions: Sequence[tuple[x509.ExtensionType, bool]]) -> None:
    middle = make("middle", ROOT, extensions=extensions)
    with pytest.raises(ChainError):
        chains.verify(leaf(middle).pem + middle.pem, ROOT.pem, NOW)


def test_path_length() -> None:
    short = make("root", extensions=((x509.BasicConstraints(ca=True, path_length=0), True),))
    assert chains.verify(leaf(short).pem, short.pem, NOW)
    middle = make("middle", short)
    with pytest.raises(UnknownAuthority):
        chains.verify(leaf(middle).pem + middle.pem, short.pem, NOW)


def test_key_usage_and_unknown_critical_extensions_of_the_leaf() -> None:
    client = make(
        "leaf",
        ROOT,
        extensions=((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),),
    )
    with pytest.raises(ChainError, match="incompatible key usage"):
        chains.verify(client.pem, ROOT.pem, NOW)
    odd = make(
        "leaf",
        ROOT,
        extensions=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"), True),),
    )
    with pytest.raises(ChainError, match="unhandled critical extension"):
        chains.verify(odd.pem, ROOT.pem, NOW)


def test_an_intermediate_may_be_the_trusted_root() -> None:
    """Stock takes any certificate an operator names, self-signed or not."""
    middle = make("middle", ROOT)
    assert chains.verify(leaf(middle).pem, middle.pem, NOW).path[-1] == middle.certificate


def test_rotation_chain_as_stock_makes_it() -> None:
    """Subject equal to issuer and no authority key id: OpenSSL refuses this one."""
    old = ca.new_root(NOW, SeededEntropy(1))
    new = ca.new_root(NOW, SeededEntropy(2))
    crossed = _crossed_like_stock(old, new)
    assert new.signer is not None
    during = ca.load_root(
        old.pem,
        NOW,
        signing_cert=crossed,
        signing_key=new.signer.key_pem,
        intermediates=crossed,
    )
    _, csr = ca.new_key_and_csr()
    chain = ca.sign(
        during, csr, ca.Subject("n", "c", (ca.WORKER,)), now=NOW, entropy=SeededEntropy(3)
    )
    for trusted in (old.pem, new.pem, old.pem + new.pem):
        verified = ca.verify(chain, trusted, NOW)
        assert verified.issuer == chains.issuer_of(new.certificates()[0])
    with pytest.raises(UnknownAuthority):
        ca.verify(chain, ca.new_root(NOW, SeededEntropy(4)).pem, NOW)


def _crossed_like_stock(old: RootCA, new: RootCA) -> bytes:
    assert old.signer is not None
    template = new.certificates()[0]
    builder = (
        x509.CertificateBuilder(
            old.signer.certificate.subject, template.subject, template.public_key()
        )
        .serial_number(template.serial_number)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
    )
    for extension in template.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return chains.to_pem(builder.sign(old.signer.key, hashes.SHA256()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"garbage", "1002"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "1003"),
        (ROOT.pem + b"tail", "1002"),
        (keys.to_pkcs8(ROOT.key), "1003"),
        (
            pem.encode(
                pem.Block(
                    "CERTIFICATE",
                    pem.first(ROOT.pem).der.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\7", 1),
                )
            ),
            "1003",
        ),
        (ROOT.pem * 17, "more than 16"),
    ],
)
def test_junk_is_told(text: bytes, message: str) -> None:
    with pytest.raises(InvalidPEM, match=message):
        chains.parse(text)


def test_nothing_to_verify() -> None:
    with pytest.raises(InvalidPEM, match="no certificates to validate"):
        chains.verify(b"", ROOT.pem, NOW)
    with pytest.raises(UnknownAuthority):
        chains.verify(leaf(ROOT).pem, b"", NOW)


def test_a_cycle_of_signers_ends() -> None:
    first, second = make("a"), make("b")
    back = make("a", second, key=first.key)
    forth = make("b", first, key=second.key)
    with pytest.raises(UnknownAuthority):
        chains.verify(leaf(first).pem + back.pem + forth.pem, ROOT.pem, NOW)


def test_subject_of_an_odd_certificate_is_empty() -> None:
    nobody = x509.CertificateBuilder(
        ROOT.certificate.subject, x509.Name([]), keys.new_key().public_key()
    )
    made = (
        nobody.serial_number(1)
        .not_valid_before(datetime.fromtimestamp(NOW, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + 1, UTC))
        .sign(ROOT.key, hashes.SHA256())
    )
    assert chains.subject_of(made) == ca.Subject("", "", ())
