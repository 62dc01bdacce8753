"""Certificates read, and chains checked the way Go's verifier does.

OpenSSL cannot check stock chains during a root rotation: the cross-signed root has subject
equal to issuer and no authority key id, so OpenSSL takes it for a self-signed stranger
(wire/PROTOCOL 0.2). This check has no such blind spot; callers verify here first and then
hand `Verified.trust_pem` to TLS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmd import api
from swarmd.cluster.ca import pem
from swarmd.cluster.ca.errors import CertificateExpired, ChainError, InvalidPEM, UnknownAuthority

E = TypeVar("E", bound=x509.ExtensionType)

certificates_per_chain_max = 16
MANAGER = "swarm-manager"
WORKER = "swarm-worker"
CA_ROLE = "swarm-ca"
_KNOWN_CRITICAL = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
)
# What the library raises for damaged input; its own exceptions share no base.
PARSE_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate speaks for: CN, first O and all OUs (wire/PROTOCOL 0.3)."""

    node_id: str
    organization: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signed a certificate, as nodes report it: name and public key, both DER."""

    subject: bytes
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain that leads to a trusted root."""

    certificates: tuple[x509.Certificate, ...]  # as presented, leaf first
    path: tuple[x509.Certificate, ...]  # leaf .. trusted root

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate of the node itself."""
        return self.certificates[0]

    @property
    def issuer(self) -> Issuer:
        """Who signed the leaf; a root that was given alone is its own issuer."""
        return issuer_of(self.path[min(1, len(self.path) - 1)])

    @property
    def trust_pem(self) -> bytes:
        """What to trust besides the roots so that OpenSSL accepts this chain too."""
        return b"".join(to_pem(certificate) for certificate in self.certificates[1:])


def to_pem(certificate: x509.Certificate) -> bytes:
    """One certificate as PEM."""
    return pem.encode(pem.Block(pem.CERTIFICATE, certificate.public_bytes(Encoding.DER)))


def parse(text: bytes) -> list[x509.Certificate]:
    """All certificates of a PEM bundle. Raises `InvalidPEM` with the stock texts.

    Anything after the last block, and any block that is not a certificate, is refused.
    """
    blocks, rest = pem.decode(text)
    if rest:
        raise InvalidPEM('{"code":1002,"message":"Failed to decode certificate"}')
    if len(blocks) > certificates_per_chain_max:
        raise InvalidPEM(f"more than {certificates_per_chain_max} certificates")
    return [_load(block) for block in blocks]


def _load(block: pem.Block) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(block.der)
        # Parsing is lazy in the library; what is read later is forced here.
        _ = certificate.extensions, certificate.subject, certificate.issuer
        certificate.public_key()
    except PARSE_ERRORS:
        raise InvalidPEM('{"code":1003,"message":"Failed to parse certificate"}') from None
    return certificate


def subject_of(certificate: x509.Certificate) -> Subject:
    """The identity a node certificate carries; absent parts are empty."""
    name = certificate.subject
    organizations = _values(name, NameOID.ORGANIZATION_NAME)
    return Subject(
        node_id=next(iter(_values(name, NameOID.COMMON_NAME)), ""),
        organization=next(iter(organizations), ""),
        roles=tuple(_values(name, NameOID.ORGANIZATIONAL_UNIT_NAME)),
    )


def _values(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]


def issuer_of(signer: x509.Certificate) -> Issuer:
    """`signer` as the issuer that nodes report in their TLS info."""
    return Issuer(signer.subject.public_bytes(), spki(signer))


def spki(certificate: x509.Certificate) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def tls_info(roots_pem: bytes, issuer: Issuer) -> api.NodeTLSInfo:
    """What a node reports about its trust; root rotation waits for it (wire/PROTOCOL 1.6)."""
    return api.NodeTLSInfo(
        trust_root=roots_pem,
        cert_issuer_subject=issuer.subject,
        cert_issuer_public_key=issuer.public_key,
    )


def validity(certificate: x509.Certificate) -> tuple[float, float]:
    """First and last moment of validity, seconds since the epoch."""
    return (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def verify(
    chain_pem: bytes, roots_pem: bytes, now: float, *, allow_expired: bool = False
) -> Verified:
    """Check a leaf with its intermediates against a root bundle at time `now`.

    Every certificate must be signed by the next one and be valid now. With `allow_expired`
    there must be one moment at which all of them, root included, were valid.
    Raises `ChainError` (`UnknownAuthority`, `CertificateExpired`) or `InvalidPEM`.
    """
    chain = parse(chain_pem)
    if not chain:
        raise InvalidPEM("no certificates to validate")
    roots = parse(roots_pem)
    for number, certificate in enumerate(chain, start=1):
        _check_time(certificate, number, now, allow_expired)
        if number > 1:
            _check_link(chain[number - 2], certificate, number)
    if allow_expired:
        path = _path_at_some_time(chain, roots)
    else:
        path = find_path(chain, roots, now)
    return Verified(tuple(chain), tuple(path))


def _path_at_some_time(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    moment = validity(chain[0])[1] + _HOUR
    trouble: ChainError | None = None
    for certificate in chain:
        until = validity(certificate)[1]
        if until >= moment:
            continue
        moment = until
        try:
            return find_path(chain, roots, moment)
        except ChainError as error:
            trouble = error
    if isinstance(trouble, CertificateExpired) or trouble is None:
        raise CertificateExpired(
            "there is no time span for which all of the certificates, including a root, are valid"
        )
    raise trouble


def find_path(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: float
) -> list[x509.Certificate]:
    """The shortest way from the first of `chain` to one of `roots`, over the others of `chain`.

    Raises `UnknownAuthority`, or `CertificateExpired` when only time stands in the way.
    """
    leaf = chain[0]
    _check_usage(leaf)
    if not _valid_at(leaf, now):
        _raise_expired(leaf, now)
    if leaf in roots:
        return [leaf]
    late: list[x509.Certificate] = []
    queue = [[leaf]]
    for path in queue:  # grows while it is read: breadth first, roots before intermediates
        for parent in _parents(path, roots, now, late):
            return [*path, parent]
        for parent in _parents(path, chain[1:], now, late):
            if parent not in path and len(path) < certificates_per_chain_max:
                queue.append([*path, parent])
    if late:
        _raise_expired(late[0], now)
    raise UnknownAuthority


def _parents(
    path: Sequence[x509.Certificate],
    candidates: Sequence[x509.Certificate],
    now: float,
    late: list[x509.Certificate],
) -> list[x509.Certificate]:
    found = []
    for candidate in candidates:
        if not is_signed_by(path[-1], candidate) or not _allows_depth(candidate, len(path) - 1):
            continue
        if _valid_at(candidate, now):
            found.append(candidate)
        else:
            late.append(candidate)
    return found


def is_signed_by(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    """True when `signer` is a CA certificate whose key signed `certificate`."""
    if not is_ca(signer) or not has_strong_signature(certificate):
        return False
    try:
        certificate.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def is_ca(certificate: x509.Certificate) -> bool:
    """True when the certificate may sign others: basic constraints and key usage allow it."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca or _has_unknown_limits(certificate):
        return False
    usage = _extension(certificate, x509.KeyUsage)
    return usage is None or usage.key_cert_sign


def has_strong_signature(certificate: x509.Certificate) -> bool:
    """True for SHA-256, 384, 512 (or a scheme that has no separate hash, such as Ed25519)."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return False
    return algorithm is None or isinstance(algorithm, _STRONG)


def _allows_depth(signer: x509.Certificate, intermediates: int) -> bool:
    constraints = _extension(signer, x509.BasicConstraints)
    limit = None if constraints is None else constraints.path_length
    return limit is None or intermediates <= limit


def _check_usage(leaf: x509.Certificate) -> None:
    if _has_unknown_limits(leaf):
        raise ChainError("x509: unhandled critical extension")
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is None:
        return
    allowed = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if not any(oid in allowed for oid in usage):
        raise ChainError("x509: certificate specifies an incompatible key usage")


def _has_unknown_limits(certificate: x509.Certificate) -> bool:
    return any(
        extension.critical and not isinstance(extension.value, _KNOWN_CRITICAL)
        for extension in certificate.extensions
    )


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _valid_at(certificate: x509.Certificate, now: float) -> bool:
    start, end = validity(certificate)
    return start <= now <= end


def _check_time(
    certificate: x509.Certificate, number: int, now: float, allow_expired: bool
) -> None:
    start, end = validity(certificate)
    where = f"certificate ({number} - {subject_of(certificate).node_id})"
    if now < start:
        raise CertificateExpired(f"{where} not valid before {_date(start)}")
    if now > end and not allow_expired:
        raise CertificateExpired(f"{where} not valid after {_date(end)}")


def _check_link(child: x509.Certificate, parent: x509.Certificate, number: int) -> None:
    if not is_signed_by(child, parent):
        names = [subject_of(one).node_id for one in (child, parent)]
        raise ChainError(
            f"certificates do not form a chain: ({number - 1} - {names[0]}) "
            f"is not signed by ({number} - {names[1]})"
        )


def _raise_expired(certificate: x509.Certificate, now: float) -> NoReturn:
    start, end = validity(certificate)
    relation = f"before {_stamp(start)}" if now < start else f"after {_stamp(end)}"
    raise CertificateExpired(
        "x509: certificate has expired or is not yet valid: "
        f"current time {_stamp(now)} is {relation}"
    )


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
