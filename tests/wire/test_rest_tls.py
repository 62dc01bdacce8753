"""The TCP listener: only with certificates on both sides."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.faces.engineapi import APIServer, EngineAPI, TcpListen
from tests.wire.rest_kit import HOST, FakeBackend


def self_signed(folder: Path, name: str) -> tuple[str, str]:
    """A certificate that is its own root; the files of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(cert_file), str(key_file)


async def ping(port: int, context: ssl.SSLContext | None) -> bytes:
    """The status line of GET /_ping; an error or nothing when refused."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None
        )
        try:
            writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            return await reader.readline()
        finally:
            writer.close()


async def refused(port: int, context: ssl.SSLContext | None) -> bool:
    """Whether such a client is sent away: it reaches the server, which ends the connection."""
    try:
        return await ping(port, context) == b""
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return True


async def test_tcp_needs_a_certificate_of_the_right_root(tmp_path: Path) -> None:
    server_cert, server_key = self_signed(tmp_path, "server")
    client_cert, client_key = self_signed(tmp_path, "client")
    other_cert, other_key = self_signed(tmp_path, "other")
    api = EngineAPI(FakeBackend(), HOST, ManualClock())
    listen = TcpListen("127.0.0.1", 0, client_cert, server_cert, server_key)
    server = APIServer(api, tcp=[listen])
    ready = asyncio.Event()

    def trusting(*pair: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=server_cert)
        if pair:
            context.load_cert_chain(*pair)
        return context

    async with Tasks() as tasks:
        tasks.spawn(server.run(ready), "server")
        async with asyncio.timeout(10):
            await ready.wait()
        (port,) = server.ports
        assert await ping(port, trusting(client_cert, client_key)) == b"HTTP/1.1 200 OK\r\n"
        for context in (trusting(), trusting(other_cert, other_key), None):
            assert await refused(port, context)
