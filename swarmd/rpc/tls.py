"""TLS settings of both directions, made from certificates in memory (wire/PROTOCOL 0.2).

Verification is always OpenSSL's. The one thing added is `promoted`: during a root
rotation OpenSSL mistakes the cross-signed intermediate for a self-signed stranger
(subject equals issuer, no key identifier of the issuer), so such an intermediate is
checked here against the trusted roots and then named to OpenSSL as an anchor of its own.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

# The suites stock nodes offer and accept below TLS 1.3; those of 1.3 are OpenSSL's.
_SUITES = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# What reading a certificate raises whose parts the library does not know; they share no base.
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one side of a connection shows and whom it trusts; all PEM, keys unencrypted."""

    roots_pem: bytes | None
    """Trusted roots (during a rotation both). None: a client that does not verify."""
    cert_pem: bytes = b""
    """Own certificate, leaf first; empty for nodes that have none yet."""
    key_pem: bytes = field(default=b"", repr=False)


def server_context(credentials: Credentials, now: float) -> ssl.SSLContext:
    """Settings of port 2377: certificate asked for but not required, ALPN h2, no tickets.

    Raises `ValueError` or `ssl.SSLError` for certificates or keys that cannot be used.
    """
    if not credentials.roots_pem or not credentials.cert_pem:
        raise ValueError("a server needs roots and a certificate")
    context = _context(ssl.PROTOCOL_TLS_SERVER, credentials)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    # A manager that got its own certificate during a rotation may not know the new root yet,
    # but it carries the proof that the old one vouches for it.
    own = x509.load_pem_x509_certificates(credentials.cert_pem)[1:]
    _trust(context, credentials.roots_pem, promoted(own, credentials.roots_pem, now))
    return context


def client_context(credentials: Credentials, anchors: Iterable[bytes] = ()) -> ssl.SSLContext:
    """Settings of a connection to a manager; `anchors` are PEM from `promoted`.

    Offers ALPN h2 but does not insist: managers before 28.0 stop selecting it.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, credentials)
    if credentials.roots_pem is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.hostname_checks_common_name = False
        _trust(context, credentials.roots_pem, anchors)
    return context


def probing_context() -> ssl.SSLContext:
    """Settings for looking at a server's chain only: verifies nothing, shows nothing."""
    return client_context(Credentials(roots_pem=None))


def promoted(
    intermediates: Iterable[x509.Certificate], roots_pem: bytes, now: float
) -> list[bytes]:
    """PEM of those `intermediates` that one of the roots signed directly and that may sign."""
    roots = [root for root in x509.load_pem_x509_certificates(roots_pem) if _may_sign(root, now)]
    return [
        candidate.public_bytes(Encoding.PEM)
        for candidate in intermediates
        if _is_vouched(candidate, roots, now)
    ]


def _is_vouched(candidate: x509.Certificate, roots: list[x509.Certificate], now: float) -> bool:
    """Whether one of `roots` stands behind a certificate, which may be anything a stranger sent."""
    try:
        return _may_sign(candidate, now) and any(_vouches(root, candidate) for root in roots)
    except _UNREADABLE:
        return False


def peer_chain(tls: ssl.SSLObject) -> list[x509.Certificate]:
    """The chain as the peer sent it, leaf first, verified or not."""
    # Public from Python 3.13 on; before that the same call sits one object deeper.
    holder: Any = tls if hasattr(tls, "get_unverified_chain") else getattr(tls, "_sslobj", None)
    chain = []
    for item in holder.get_unverified_chain() or ():
        der = item if isinstance(item, bytes) else ssl.PEM_cert_to_DER_cert(item.public_bytes())
        with suppress(x509.InvalidVersion):
            chain.append(x509.load_der_x509_certificate(der))
    return chain


def _context(protocol: int, credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.set_alpn_protocols(["h2"])
    # What is named as a root is one, self-signed or not: engines accept such a root (measured).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if credentials.cert_pem:
        _load_pair(context, credentials)
    return context


def _load_pair(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Hand the key to OpenSSL through memory only; it takes nothing but file names."""
    fd = os.memfd_create("swarmd-pair", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(credentials.key_pem.rstrip() + b"\n" + credentials.cert_pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _trust(context: ssl.SSLContext, roots_pem: bytes, anchors: Iterable[bytes]) -> None:
    extra = list(anchors)
    context.load_verify_locations(cadata=b"\n".join([roots_pem, *extra]).decode("ascii"))
    if extra:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


def _may_sign(certificate: x509.Certificate, now: float) -> bool:
    """True for a CA within its life whose power is not limited in ways not checked here."""
    begins = certificate.not_valid_before_utc.timestamp()
    if not begins <= now <= certificate.not_valid_after_utc.timestamp():
        return False
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    known = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)
    odd = any(item.critical and not isinstance(item.value, known) for item in extensions)
    return constraints.ca and usage.key_cert_sign and not odd


def _vouches(root: x509.Certificate, candidate: x509.Certificate) -> bool:
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
    if constraints.path_length == 0:
        return False
    if not isinstance(candidate.signature_hash_algorithm, _STRONG):
        return False
    try:
        candidate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
