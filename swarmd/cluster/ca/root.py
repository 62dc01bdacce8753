"""The cluster's root of trust: made, loaded, checked and cross-signed (wire/PROTOCOL 1.3).

A `RootCA` is the bundle nodes trust, and, on managers that may sign, a signer. During a root
rotation the bundle is still the old root, the signer is the new key with the cross-signed
certificate as its face, and that certificate travels with every leaf as an intermediate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from swarmd import api
from swarmd.cluster.ca import certificates, chains, keys, pem, tokens
from swarmd.cluster.ca.chance import Chance
from swarmd.cluster.ca.errors import ChainError, InvalidPEM, InvalidRoot, NoSigner

ROOT_CN = "swarm-ca"
ROOT_LIFETIME = 630_720_000.0
ROOT_BACKDATE = 300.0
_ROOT_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that may sign, with the certificate that stands for it."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    certificate: x509.Certificate
    key: keys.PrivateKey


@dataclass(frozen=True, slots=True)
class RootCA:
    """The trusted bundle, its digest, and what is needed to sign where there is a key."""

    pem: bytes
    digest: str  # "sha256:" and 64 hexadecimal digits
    signer: Signer | None = None
    intermediates: bytes = b""

    def certificates(self) -> list[x509.Certificate]:
        """The trusted certificates."""
        return chains.parse(self.pem)


def digest(root_pem: bytes) -> str:
    """The digest of a bundle as the cluster object keeps it (`ca_cert_hash`)."""
    return "sha256:" + tokens.root_hash(root_pem)


def new_root(now: float, entropy: Chance, cn: str = ROOT_CN) -> RootCA:
    """Make a self-signed root with a fresh P-256 key, valid for 20 years."""
    key = keys.new_key()
    name = x509.Name([certificates.attribute(NameOID.COMMON_NAME, cn)])
    public = key.public_key()
    start = certificates.whole_minute(now) - ROOT_BACKDATE
    certificate = (
        x509.CertificateBuilder(name, name, public)
        .serial_number(certificates.new_serial(entropy))
        .not_valid_before(datetime.fromtimestamp(start, UTC))
        .not_valid_after(datetime.fromtimestamp(start + ROOT_LIFETIME, UTC))
        .add_extension(_ROOT_KEY_USAGE, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, keys.signature_hash(key))
    )
    text = chains.to_pem(certificate)
    return RootCA(text, digest(text), Signer(text, keys.to_sec1(key), certificate, key))


def load_root(
    root_pem: bytes,
    now: float,
    *,
    signing_cert: bytes = b"",
    signing_key: bytes = b"",
    intermediates: bytes = b"",
) -> RootCA:
    """Check a root bundle, and the signer that comes with it, by the stock rules.

    Raises `InvalidRoot`, `InvalidPEM` or `ChainError` with the texts stock shows.
    """
    roots = _roots(root_pem, now)
    middle = _intermediates(intermediates, root_pem, now)
    signer = None
    if signing_cert or signing_key:
        signer = _signer(signing_cert, signing_key, [*middle], roots, now)
        if middle and not _same_face(middle[0], signer.certificate):
            raise InvalidRoot(
                "invalid intermediate chain - the first intermediate must have the same subject "
                "and public key as the signing cert"
            )
    return RootCA(root_pem, digest(root_pem), signer, intermediates)


def _roots(root_pem: bytes, now: float) -> list[x509.Certificate]:
    try:
        roots = chains.parse(root_pem)
    except InvalidPEM as error:
        raise InvalidRoot(f"invalid root certificates: {error}") from None
    if not roots:
        raise InvalidRoot("no valid root CA certificates found")
    for root in roots:
        _check_algorithm(root)
        try:
            chains.find_path([root], [root], now)
        except ChainError as error:
            raise InvalidRoot(f"error while validating Root CA Certificate: {error}") from None
    return roots


def _intermediates(text: bytes, root_pem: bytes, now: float) -> tuple[x509.Certificate, ...]:
    if not text:
        return ()
    try:
        return chains.verify(text, root_pem, now).certificates
    except (ChainError, InvalidPEM) as error:
        raise InvalidRoot(f"invalid intermediate chain: {error}") from None


def _signer(
    cert: bytes,
    key: bytes,
    middle: list[x509.Certificate],
    roots: list[x509.Certificate],
    now: float,
) -> Signer:
    if not cert or not key:
        raise InvalidRoot("must provide both a signing key and a signing cert, or neither")
    try:
        parsed = chains.parse(cert)
    except InvalidPEM as error:
        raise InvalidRoot(f"invalid signing CA cert: {error}") from None
    if not parsed:
        raise InvalidRoot("no valid signing CA certificates found")
    _check_algorithm(parsed[0])
    try:
        chains.find_path([parsed[0], *middle], roots, now)
    except ChainError as error:
        raise InvalidRoot(
            "error while validating signing CA certificate against roots and intermediates: "
            f"{error}"
        ) from None
    try:
        private = keys.load(key)
    except InvalidPEM as error:
        raise InvalidRoot(f"malformed private key: {error}") from None
    keys.check_match(parsed[0], private)
    return Signer(cert, key, parsed[0], private)


def _check_algorithm(certificate: x509.Certificate) -> None:
    algorithm = certificate.signature_algorithm_oid
    if algorithm not in _ALGORITHMS:
        name = _REFUSED.get(algorithm, algorithm.dotted_string)
        raise InvalidRoot(f"unsupported signature algorithm: {name}")


_OID = x509.oid.SignatureAlgorithmOID
_ALGORITHMS = (
    _OID.RSA_WITH_SHA256,
    _OID.RSA_WITH_SHA384,
    _OID.RSA_WITH_SHA512,
    _OID.ECDSA_WITH_SHA256,
    _OID.ECDSA_WITH_SHA384,
    _OID.ECDSA_WITH_SHA512,
)
_REFUSED = {  # as Go names them
    _OID.ED25519: "Ed25519",
    _OID.RSA_WITH_SHA1: "SHA1-RSA",
    _OID.ECDSA_WITH_SHA1: "ECDSA-SHA1",
    _OID.RSA_WITH_MD5: "MD5-RSA",
    _OID.RSASSA_PSS: "SHA256-RSAPSS",
}


def _same_face(left: x509.Certificate, right: x509.Certificate) -> bool:
    return chains.issuer_of(left) == chains.issuer_of(right)


def cross_sign(root: RootCA, other_pem: bytes) -> bytes:
    """Sign another root with this one: same name, key, serial, validity and extensions.

    Unlike stock we add an authority key identifier. Go ignores it; OpenSSL needs it to see
    that the result is not self-signed (wire/PROTOCOL 0.2). Raises `NoSigner`, `InvalidRoot`.
    """
    if root.signer is None:
        raise NoSigner
    try:
        others = chains.parse(other_pem)
    except InvalidPEM:
        others = []
    if len(others) != 1:
        raise InvalidRoot("could not parse new CA certificate")
    other = others[0]
    if not chains.is_ca(other):
        raise InvalidRoot("certificate not a CA")
    signer = root.signer
    builder = (
        x509.CertificateBuilder(signer.certificate.subject, other.subject, other.public_key())
        .serial_number(other.serial_number)
        .not_valid_before(other.not_valid_before_utc)
        .not_valid_after(other.not_valid_after_utc)
    )
    for extension in other.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.add_extension(certificates.authority_key(signer.certificate), critical=False)
    return chains.to_pem(builder.sign(signer.key, keys.signature_hash(signer.key)))


def root_from_api(root: api.RootCA, now: float) -> RootCA:
    """The root a cluster object describes, signing with the rotation's key if one runs.

    Raises like `load_root`.
    """
    cert, key, middle = root.ca_cert, root.ca_key, b""
    if root.HasField("root_rotation"):
        cert = middle = root.root_rotation.cross_signed_ca_cert
        key = root.root_rotation.ca_key
    return load_root(
        root.ca_cert,
        now,
        signing_cert=cert if key else b"",
        signing_key=key,
        intermediates=middle,
    )


class RootCheck:
    """`root_from_api` as a mere check that remembers the last good answer.

    Every change of the cluster object asks for it, and reading keys and certificates costs
    more than the rest of such a change.
    """

    def __init__(self) -> None:
        self._parts: tuple[bytes, ...] = ()
        self._valid = (0.0, 0.0)

    def check(self, root: api.RootCA, now: float) -> None:
        """Raises like `load_root` when the root is not sound."""
        parts = (root.ca_cert, root.ca_key, root.root_rotation.SerializeToString())
        if parts == self._parts and self._valid[0] <= now <= self._valid[1]:
            return
        self._parts = ()
        loaded = root_from_api(root, now)
        certificates = loaded.certificates() + chains.parse(loaded.intermediates)
        if loaded.signer is not None:
            certificates.append(loaded.signer.certificate)
        starts, ends = zip(*map(chains.validity, certificates), strict=True)
        self._parts, self._valid = parts, (max(starts), min(ends))


def wanted_issuer(root: api.RootCA) -> chains.Issuer:
    """Whose signature every node should carry in the end. Raises `InvalidRoot`."""
    wanted = root.root_rotation.ca_cert if root.HasField("root_rotation") else root.ca_cert
    try:
        parsed = chains.parse(wanted)
    except InvalidPEM:
        parsed = []
    if not parsed:
        raise InvalidRoot("invalid certificate in cluster root CA object")
    return chains.issuer_of(parsed[0])


def trust_bundle(root: api.RootCA) -> bytes:
    """What a manager should trust now: the root, and the coming one while a rotation runs.

    OpenSSL needs the second to accept chains made during a rotation (wire/PROTOCOL 0.2).
    """
    if not root.HasField("root_rotation"):
        return root.ca_cert
    return pem.normalize(root.ca_cert) + pem.normalize(root.root_rotation.ca_cert)


def new_root_object(root: RootCA, entropy: Chance, fips: bool = False) -> api.RootCA:
    """The cluster object's view of a root, with two fresh join tokens."""
    return api.RootCA(
        ca_cert=root.pem,
        ca_key=root.signer.key_pem if root.signer else b"",
        ca_cert_hash=root.digest,
        join_tokens=api.JoinTokens(
            worker=tokens.join_token(root.pem, entropy, fips),
            manager=tokens.join_token(root.pem, entropy, fips),
        ),
    )
