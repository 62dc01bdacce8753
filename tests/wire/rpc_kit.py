"""What the tests of the manager port share: certificates, dummy services, a running server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmd import api
from swarmd.rpc import methods
from swarmd.rpc.client import dial, dial_manager
from swarmd.rpc.front import Limits
from swarmd.rpc.peer import Caller, Leadership, Peer
from swarmd.rpc.server import Server
from swarmd.rpc.streams import as_generator
from swarmd.rpc.tls import Credentials

ORGANIZATION = "clusterid0000000000000000"
PEM = serialization.Encoding.PEM
_DAY = datetime.timedelta(days=1)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=not sign,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


async def until(check: Callable[[], object]) -> None:
    """Wait until `check()` is true."""
    async with asyncio.timeout(20):
        for pause in itertools.repeat(0.01):
            if check():
                return
            await asyncio.sleep(pause)


class Root:
    """A swarm root as stock managers make it: CN=swarm-ca, self-signed, no AKI."""

    def __init__(self, path_length: int | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.sign_root(self, path_length=path_length)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    def sign_root(
        self,
        other: Root,
        *,
        days: int = 365,
        ca: bool = True,
        path_length: int | None = None,
        usage: bool = True,
        extra: x509.ExtensionType | None = None,
        digest: hashes.SHA224 | hashes.SHA256 | None = None,
    ) -> x509.Certificate:
        """A certificate for `other`'s key by ours: the cross-signed one of a rotation."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
        public = other.key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - 30 * _DAY)
            .not_valid_after(_now() + days * _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if usage:
            builder = builder.add_extension(_usage(sign=True), critical=True)
        if extra is not None:
            builder = builder.add_extension(extra, critical=True)
        return builder.sign(self.key, digest or hashes.SHA256())

    def cross(self, other: Root, **how: Any) -> bytes:
        """PEM of `sign_root`."""
        return self.sign_root(other, **how).public_bytes(PEM)

    def issue(
        self,
        node_id: str = "node00000000000000000000a",
        role: str = "swarm-worker",
        *,
        organization: str | None = ORGANIZATION,
        names: tuple[str, ...] | None = None,
        ends: datetime.timedelta = 90 * _DAY,
        chain: bytes = b"",
        roots: bytes | None = None,
    ) -> Credentials:
        """A node certificate in the stock shape, with its key and whom it trusts."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
        ]
        if organization is not None:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        if names is None:
            names = (role, node_id, *(("swarm-ca",) if role == "swarm-manager" else ()))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - 2 * _DAY)
            .not_valid_after(_now() + ends)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        pem = key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        own = certificate.public_bytes(PEM) + chain
        return Credentials(self.pem if roots is None else roots, own, pem)


@dataclass
class Cluster:
    """The authoriser of a test cluster."""

    organization: str = ORGANIZATION
    removed: set[str] = field(default_factory=set)

    def is_blacklisted(self, node_id: str) -> bool:
        return node_id in self.removed


@dataclass
class Seen:
    """One call that reached a handler."""

    method: str
    peer: Peer
    request: Any


def dummy_services(
    seen: list[Seen], overrides: dict[str, Callable[..., Any]] | None = None
) -> list[object]:
    """An object per service of the wire that answers every method and records the call.

    `overrides` maps "Service/Method" to another handler.
    """
    made = []
    for service in sorted(methods.services()):
        body: dict[str, Any] = {"SERVICE": service}
        for method in methods.table().values():
            if method.service == service:
                body[methods.python_name(method.name)] = staticmethod(
                    (overrides or {}).get(method.short) or _handler(method, seen)
                )
        made.append(type(service.rpartition(".")[2], (), body)())
    return made


def _handler(method: methods.Method, seen: list[Seen]) -> Callable[..., Any]:
    async def unary(request: Any, peer: Peer) -> Any:
        seen.append(Seen(method.short, peer, request))
        return method.response()

    async def stream(request: Any, peer: Peer) -> AsyncIterator[Any]:
        seen.append(Seen(method.short, peer, request))
        yield method.response()

    async def collect(requests: AsyncIterator[Any], peer: Peer) -> Any:
        seen.append(Seen(method.short, peer, [item async for item in requests]))
        return method.response()

    if method.client_streaming:
        return collect
    return stream if method.server_streaming else unary


async def call(caller: Caller, short: str, request: Any = None, **options: Any) -> Any:
    """Call any method with an empty (or the given) request; the first answer of a stream."""
    method = methods.find(short)
    request = method.request() if request is None else request
    if method.client_streaming:

        async def one() -> AsyncIterator[Any]:
            yield request

        return await caller.client_stream(short, one(), **options)
    if not method.server_streaming:
        return await caller.unary(short, request, **options)
    async with aclosing(as_generator(caller.server_stream(short, request, **options))) as answers:
        return await anext(answers)


@contextlib.asynccontextmanager
async def serving(
    services: list[object],
    credentials: Credentials | Callable[[], Credentials],
    *,
    cluster: Cluster | None = None,
    leadership: Leadership | None = None,
    limits: Limits | None = None,
    listen: str = "127.0.0.1:0",
) -> AsyncIterator[Server]:
    """A server on a free port of the loopback, up for the length of the block."""
    source = credentials if callable(credentials) else lambda: credentials
    server = Server(services, source, cluster or Cluster(), leadership, front_limits=limits)
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ready, [listen]))
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield server
    finally:
        waiting.cancel()
        running.cancel()
        await asyncio.wait({running, waiting})


@contextlib.asynccontextmanager
async def dialled(
    server: Server, credentials: Credentials, by: Any = dial, **how: Any
) -> AsyncIterator[Any]:
    """A caller to `server` for the length of the block."""
    caller = await by(f"127.0.0.1:{server.port}", credentials, **how)
    try:
        yield caller
    finally:
        await caller.close()


both = pytest.mark.parametrize("by", [dial, dial_manager], ids=["grpc", "own"])
"""For tests of what holds for either caller."""


def link_of(caller: Any) -> Any:
    """The TLS connection below a caller."""
    return getattr(caller._line, "link", None) or caller._line.tunnel._link


HEARTBEAT = api.HeartbeatRequest(session_id="s")


@contextlib.asynccontextmanager
async def tls_door(credentials: Credentials, inner: list[int], *, alpn: bool) -> AsyncIterator[int]:
    """A small TLS server, not ours, before whichever loopback port is `inner[0]` just then."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if alpn:
        context.set_alpn_protocols(["h2"])
    fd = os.memfd_create("pair")
    os.write(fd, credentials.key_pem + credentials.cert_pem)
    context.load_cert_chain(f"/proc/self/fd/{fd}")
    os.close(fd)
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        selected = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        assert selected == ("h2" if alpn else None)
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", inner[0])
        writers.extend((writer, back_writer))
        await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
