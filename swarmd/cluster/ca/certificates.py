"""Node certificates: requested, signed and read (wire/PROTOCOL 1.4).

From a signing request only the public key is taken; every name in the result comes from the
manager's own records. `now` is in seconds since the epoch, serial numbers come from `entropy`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmd import api
from swarmd.cluster.ca import chains, keys, pem
from swarmd.cluster.ca.chains import CA_ROLE, MANAGER, WORKER
from swarmd.cluster.ca.chance import Chance
from swarmd.cluster.ca.errors import CAError, InvalidCSR, NoSigner

if TYPE_CHECKING:
    from swarmd.cluster.ca.root import RootCA

DEFAULT_EXPIRY = 2160 * 3600.0
EXPIRY_MIN = 3600.0
BACKDATE = 3600.0
csr_bytes_max = 64 * 1024
_SERIAL_BYTES = 20
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*\Z")
_CSR_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
_NODE_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its key, ready for TLS: plain PEM without headers."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node is, according to its own certificate. Times in seconds since the epoch."""

    node_id: str
    organization: str
    role: str
    pair: KeyPair
    not_before: float
    not_after: float

    @property
    def is_manager(self) -> bool:
        """True for a certificate with the manager role."""
        return self.role == MANAGER


def new_csr(key: keys.PrivateKey) -> bytes:
    """A signing request with an empty subject, as engines send it."""
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
    return builder.sign(key, keys.signature_hash(key)).public_bytes(Encoding.PEM)


def new_key_and_csr() -> tuple[bytes, bytes]:
    """A fresh node key (PKCS#8 PEM) and the request for it."""
    key = keys.new_key()
    return keys.to_pkcs8(key), new_csr(key)


def identity(pair: KeyPair) -> Identity:
    """Read who a key pair speaks for. Raises `InvalidPEM`, or `CAError` when key and
    certificate do not belong together."""
    certificates = chains.parse(pair.cert_pem)
    if not certificates:
        raise CAError("no certificates to validate")
    leaf = certificates[0]
    if not keys.matches(leaf, keys.load(pair.key_pem)):
        raise CAError("tls: private key does not match public key")
    subject = chains.subject_of(leaf)
    start, end = chains.validity(leaf)
    role = MANAGER if MANAGER in subject.roles else next(iter(subject.roles), "")
    return Identity(subject.node_id, subject.organization, role, pair, start, end)


def role_name(role: api.NodeRole) -> str:
    """The OU of a role. Raises `CAError` for a number that is none."""
    if role == api.NodeRole.MANAGER:
        return MANAGER
    if role == api.NodeRole.WORKER:
        return WORKER
    raise CAError(f"failed to parse api role: {role}")


def role_number(name: str) -> api.NodeRole:
    """The role of an OU. Raises `CAError` for an unknown one."""
    if name.lower() == MANAGER:
        return api.NodeRole.MANAGER
    if name.lower() == WORKER:
        return api.NodeRole.WORKER
    raise CAError(f"failed to parse role: {name}")


def hosts(node_id: str, role: str) -> list[str]:
    """DNS names of a node certificate, in the stock order."""
    return [role, node_id, CA_ROLE] if role == MANAGER else [role, node_id]


def expiry_seconds(cluster: api.Cluster) -> float:
    """Lifetime of new node certificates: the cluster's setting, or 90 days below one hour."""
    duration = cluster.spec.ca_config.node_cert_expiry
    seconds = duration.seconds + duration.nanos / 1e9
    return seconds if seconds >= EXPIRY_MIN else DEFAULT_EXPIRY


def sign(
    root: RootCA,
    csr_pem: bytes,
    subject: chains.Subject,
    *,
    now: float,
    entropy: Chance,
    expiry: float = DEFAULT_EXPIRY,
) -> bytes:
    """Sign a node certificate: the leaf, followed by the root's intermediates.

    `expiry` in seconds; below one hour the default is taken. Raises `NoSigner` when `root`
    has no key, `InvalidCSR` for a request that can never be signed.
    """
    if root.signer is None:
        raise NoSigner
    public_key = csr_public_key(csr_pem)
    role = subject.roles[0]
    issuer = root.signer.certificate
    start = whole_minute(now) - BACKDATE
    end = start + BACKDATE + (expiry if expiry >= EXPIRY_MIN else DEFAULT_EXPIRY)
    builder = (
        x509.CertificateBuilder(issuer.subject, node_name(subject), public_key)
        .serial_number(new_serial(entropy))
        .not_valid_before(datetime.fromtimestamp(start, UTC))
        .not_valid_after(datetime.fromtimestamp(end, UTC))
        .add_extension(_NODE_KEY_USAGE, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key(issuer), critical=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name) for name in hosts(subject.node_id, role)]
            ),
            critical=False,
        )
    )
    leaf = builder.sign(root.signer.key, keys.signature_hash(root.signer.key))
    return chains.to_pem(leaf) + root.intermediates


def csr_public_key(csr_pem: bytes) -> keys.PublicKey:
    """The public key of a request whose own signature is right. Raises `InvalidCSR`."""
    if len(csr_pem) > csr_bytes_max:
        raise InvalidCSR(_csr_error(9300, f"request is larger than {csr_bytes_max} bytes"))
    blocks, _ = pem.decode(csr_pem)
    if not blocks:
        raise InvalidCSR(_csr_error(9002, "CSR Decode failed"))
    if blocks[0].label not in _CSR_LABELS:
        raise InvalidCSR(_csr_error(9300, "not a csr"))
    try:
        request = x509.load_der_x509_csr(blocks[0].der)
        key = request.public_key()
        valid = request.is_signature_valid
    except chains.PARSE_ERRORS:
        raise InvalidCSR(_csr_error(9003, "CSR Parsing failed")) from None
    if not valid:
        raise InvalidCSR(_csr_error(9300, "signature does not match"))
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= keys.rsa_bits_min:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, keys.CURVES):
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise InvalidCSR(_csr_error(9300, "unsupported public key"))


def _csr_error(code: int, text: str) -> str:
    return f'failed to sign node certificate: {{"code":{code},"message":"{text}"}}'


def node_name(subject: chains.Subject) -> x509.Name:
    """The subject of a node certificate, in the stock order: O, OU, CN."""
    return x509.Name(
        [
            attribute(NameOID.ORGANIZATION_NAME, subject.organization),
            attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, subject.roles[0]),
            attribute(NameOID.COMMON_NAME, subject.node_id),
        ]
    )


def attribute(oid: x509.ObjectIdentifier, value: str) -> x509.NameAttribute[str]:
    """One name part, as PrintableString where it fits: Go does so, and nodes compare bytes."""
    kind = _ASN1Type.PrintableString if _PRINTABLE.match(value) else _ASN1Type.UTF8String
    return x509.NameAttribute(oid, value, _type=kind)


def authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's key identifier: its own extension, or computed when it has none."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        digest = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest
        return x509.AuthorityKeyIdentifier(digest, None, None)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def new_serial(entropy: Chance) -> int:
    """A positive random serial number of at most 159 bits (20 bytes in DER)."""
    raw = bytearray(entropy.token(_SERIAL_BYTES))
    raw[0] &= 0x7F
    return int.from_bytes(raw, "big") or 1


def whole_minute(now: float) -> float:
    """`now` rounded to the nearest minute, as the stock signer does before backdating."""
    return float((now + 30) // 60 * 60)
