"""Private keys: made, read and matched with certificates."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from swarmd.cluster.ca import pem
from swarmd.cluster.ca.errors import InvalidPEM, InvalidRoot

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
rsa_bits_min = 2048


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key, from the library's own random source."""
    return ec.generate_private_key(ec.SECP256R1())


def to_pkcs8(key: PrivateKey) -> bytes:
    """Plain PKCS#8 PEM without headers, the form of node keys."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def to_sec1(key: PrivateKey) -> bytes:
    """`EC PRIVATE KEY` PEM, the form in which stock keeps the key of a root."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def load(text: bytes) -> PrivateKey:
    """Read an unencrypted EC or RSA key, PKCS#8 or traditional. Raises `InvalidPEM`."""
    blocks, _ = pem.decode(text)
    # openssl writes the curve parameters as a block of their own in front of the key
    block = next((block for block in blocks if block.label != "EC PARAMETERS"), None)
    if block is None:
        raise InvalidPEM('{"code":2002,"message":"Failed to decode private key"}')
    if "ENCRYPTED" in block.label or "ENCRYPTED" in block.headers.get("Proc-Type", ""):
        raise InvalidPEM('{"code":2100,"message":"Private key is encrypted."}')
    return load_der(block.der)


def load_der(der: bytes) -> PrivateKey:
    """Read an unencrypted EC or RSA key from DER. Raises `InvalidPEM`."""
    try:
        key = load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidPEM('{"code":2003,"message":"Failed to parse private key"}') from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidPEM('{"code":2200,"message":"Private key algorithm is not RSA or ECC"}')
    return key


def check_match(certificate: x509.Certificate, key: PrivateKey) -> None:
    """Demand that `key` belongs to `certificate` and is strong. Raises `InvalidRoot`."""
    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < rsa_bits_min or public.public_numbers().e == 1:
            raise InvalidRoot("unsupported RSA key parameters")
    elif isinstance(public, ec.EllipticCurvePublicKey):
        if not isinstance(public.curve, CURVES):
            raise InvalidRoot("unsupported ECDSA key parameters")
    else:
        raise InvalidRoot("unknown or unsupported certificate public key algorithm")
    if not matches(certificate, key):
        raise InvalidRoot("certificate key mismatch")


def matches(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """True when `key` is the private half of the certificate's key."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)


def spki(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo of a public key, DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """The hash that goes with a signing key: 256 bits up, larger for larger keys (as cfssl)."""
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size >= 4096:
            return hashes.SHA512()
        return hashes.SHA384() if key.key_size >= 3072 else hashes.SHA256()
    if isinstance(key.curve, ec.SECP521R1):
        return hashes.SHA512()
    return hashes.SHA384() if isinstance(key.curve, ec.SECP384R1) else hashes.SHA256()
