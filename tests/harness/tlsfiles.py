"""A small certificate authority for TCP listeners: files as docker's --tls options take them."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates valid for an hour; files below `root`."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self._root = root
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"CA {root.name}")
        self.ca = root / "ca.pem"
        made = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        cert = made.sign(self._key, hashes.SHA256())
        self.ca.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, ip: str = "127.0.0.1") -> Files:
        """A certificate for `name` at `ip`, for either side."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ip))])
        made = self._builder(_name(name), key.public_key()).add_extension(names, critical=False)
        cert = made.sign(self._key, hashes.SHA256())
        files = Files(self._root / f"{name}.pem", self._root / f"{name}-key.pem")
        files.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def client_context(self, files: Files | None) -> ssl.SSLContext:
        """A client that trusts this authority and shows `files`, or nothing."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if files is not None:
            context.load_cert_chain(str(files.cert), str(files.key))
        return context

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder(self._name, name, key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
