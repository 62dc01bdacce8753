"""Whom both sides trust: live change of certificates and roots, root rotation, names, ALPN."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from swarmd.base.clock import ManualClock
from swarmd.base.errors import PermissionDenied, SwarmError, Unavailable
from swarmd.rpc.client import dial
from swarmd.rpc.server import Server
from swarmd.rpc.tls import Credentials, promoted
from tests.wire.rpc_kit import (
    HEARTBEAT,
    Cluster,
    Root,
    Seen,
    both,
    call,
    dialled,
    dummy_services,
    serving,
    tls_door,
)
from tests.wire.test_front_goodbye import Backend


async def beat(caller: Any) -> None:
    await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)


def trusting(credentials: Credentials, *roots: Root) -> Credentials:
    pem = b"".join(root.pem for root in roots)
    return Credentials(pem, credentials.cert_pem, credentials.key_pem)


def serial_of(der: bytes | None) -> int:
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def served_serial(server: Server) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    serial = serial_of(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.close()
    return serial


async def test_new_certificate_and_roots_are_used_at_once_and_old_connections_live() -> None:
    old, new = Root(), Root()
    first, second = old.issue("m1", "swarm-manager"), new.issue("m1", "swarm-manager")
    current = [first]
    async with serving(dummy_services([]), lambda: current[0]) as server:
        kept = await dial(f"127.0.0.1:{server.port}", old.issue("w1"))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(kept.close)
            await beat(kept)
            assert await served_serial(server) == serial_of_pem(first)
            current[0] = trusting(first, old, new)
            async with dialled(server, trusting(new.issue("w2"), old)) as early:
                await beat(early)
            current[0] = second
            assert await served_serial(server) == serial_of_pem(second)
            async with dialled(server, new.issue("w3")) as late:
                await beat(late)
            await beat(kept)
            with pytest.raises(Unavailable):
                async with dialled(server, trusting(old.issue("w4"), new)) as too_late:
                    await beat(too_late)


def serial_of_pem(credentials: Credentials) -> int:
    return x509.load_pem_x509_certificates(credentials.cert_pem)[0].serial_number


async def test_unusable_new_credentials_keep_the_old(caplog: pytest.LogCaptureFixture) -> None:
    root = Root()
    good = root.issue("m1", "swarm-manager")
    current = [good]
    async with serving(dummy_services([]), lambda: current[0]) as server:
        other = root.issue("m1", "swarm-manager")
        current[0] = Credentials(root.pem, good.cert_pem, other.key_pem)
        caplog.set_level(logging.ERROR)
        for _ in range(3):
            async with dialled(server, root.issue("w1")) as caller:
                await beat(caller)
    assert len([line for line in caplog.records if "cannot be used" in line.message]) == 1
    assert "PRIVATE" not in caplog.text


@both
async def test_client_follows_a_rotation_it_has_not_heard_of(by: Any) -> None:
    """The manager shows [leaf by the new root, new root signed by the old]; we trust the old."""
    old, new = Root(), Root()
    manager = new.issue("m1", "swarm-manager", chain=old.cross(new), roots=old.pem + new.pem)
    seen: list[Seen] = []
    async with (
        serving(dummy_services(seen), manager) as server,
        dialled(server, old.issue("w1"), by) as caller,
    ):
        await beat(caller)
    assert seen[0].peer.node_id == "w1"


async def test_openssl_alone_would_refuse_that_chain() -> None:
    """The reason for `promoted`; should this start to pass, it can go."""
    old, new = Root(), Root()
    manager = new.issue("m1", "swarm-manager", chain=old.cross(new), roots=old.pem + new.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=old.pem.decode())
    async with serving(dummy_services([]), manager) as server:
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=context, server_hostname="swarm-manager"
            )
    assert refused.value.verify_code == 19


async def test_server_accepts_renewed_clients_during_a_rotation() -> None:
    """A manager that got its certificate in the rotation but knows only the old root yet."""
    old, new = Root(), Root()
    cross = old.cross(new)
    manager = new.issue("m1", "swarm-manager", chain=cross, roots=old.pem)
    renewed = new.issue("m2", "swarm-manager", chain=cross, roots=old.pem)
    seen: list[Seen] = []
    async with serving(dummy_services(seen), manager) as server:
        async with dialled(server, renewed) as caller:
            await call(caller, "Health/Check", timeout=5)
        async with dialled(server, old.issue("w1")) as caller:
            await beat(caller)
    assert [item.peer.node_id for item in seen] == ["m2", "w1"]


def _not_a_ca(old: Root, new: Root) -> bytes:
    return old.cross(new, ca=False)


def _without_key_usage(old: Root, new: Root) -> bytes:
    return old.cross(new, usage=False)


def _expired(old: Root, new: Root) -> bytes:
    return old.cross(new, days=-1)


def _by_a_stranger(old: Root, new: Root) -> bytes:
    return Root().cross(new)


def _self_signed(old: Root, new: Root) -> bytes:
    return new.pem


def _limited(old: Root, new: Root) -> bytes:
    only = x509.NameConstraints([x509.DNSName("example.org")], None)
    return old.cross(new, extra=only)


def _signed_in_an_unknown_way(old: Root, new: Root) -> bytes:
    der = ssl.PEM_cert_to_DER_cert(new.pem.decode())
    known, unknown = (bytes.fromhex(f"06082a8648ce3d0403{last}") for last in ("02", "7f"))
    assert der.count(known) == 2
    return new.pem + ssl.DER_cert_to_PEM_cert(der.replace(known, unknown)).encode()


@pytest.mark.parametrize(
    "forge",
    [
        _not_a_ca,
        _without_key_usage,
        _expired,
        _by_a_stranger,
        _self_signed,
        _limited,
    ],
    ids=lambda forge: forge.__name__,
)
@both
async def test_intermediates_no_root_vouches_for_are_refused_before_a_byte_is_said(
    forge: Callable[[Root, Root], bytes], by: Any
) -> None:
    old, new = Root(), Root()
    manager = new.issue("m1", "swarm-manager", chain=forge(old, new), roots=old.pem + new.pem)
    seen: list[Seen] = []
    refused = r"(?i)authentication handshake failed: .*certificate[ _]verify"
    async with serving(dummy_services(seen), manager) as server:
        with pytest.raises(Unavailable, match=refused):
            async with dialled(server, old.issue("w1"), by) as caller:
                await beat(caller)
        for _ in range(100):
            if not len(server.registry):
                break
            await asyncio.sleep(0.01)
        assert not len(server.registry)
    assert not seen


@both
async def test_a_stranger_with_certificates_nobody_can_read_is_refused_as_any_other(
    by: Any,
) -> None:
    """What the library raised for them was no refusal: it ended whoever had dialled."""
    old, new = Root(), Root()
    shown = new.issue("m1", "swarm-manager", chain=_signed_in_an_unknown_way(old, new))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    fd = os.memfd_create("pair")
    os.write(fd, shown.key_pem + shown.cert_pem)
    context.load_cert_chain(f"/proc/self/fd/{fd}")
    os.close(fd)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await by(f"127.0.0.1:{port}", old.issue("w1"))


async def test_a_good_intermediate_does_not_help_a_bad_leaf() -> None:
    old, new, stranger = Root(), Root(), Root()
    manager = stranger.issue("m1", "swarm-manager", chain=old.cross(new), roots=old.pem)
    async with serving(dummy_services([]), manager) as server:
        with pytest.raises(Unavailable):
            await dial(f"127.0.0.1:{server.port}", old.issue("w1"))


async def test_rotation_still_checks_the_name() -> None:
    old, new = Root(), Root()
    worker = new.issue("w9", "swarm-worker", chain=old.cross(new), roots=old.pem + new.pem)
    async with serving(dummy_services([]), worker) as server:
        with pytest.raises(Unavailable, match=r"(?i)hostname mismatch"):
            await dial(f"127.0.0.1:{server.port}", old.issue("w1"))


def test_promotion_refuses_roots_that_may_not_delegate_and_weak_signatures() -> None:
    old, new = Root(), Root()
    now = datetime.datetime.now(datetime.UTC).timestamp()
    good = old.sign_root(new)
    assert promoted([good], old.pem, now)
    assert not promoted([good], old.pem, now + 400 * 86400)
    assert not promoted([old.sign_root(new, digest=hashes.SHA224())], old.pem, now)
    assert not promoted([good], new.pem, now)
    bounded = Root(path_length=0)
    assert not promoted([bounded.sign_root(new)], bounded.pem, now)


@pytest.mark.parametrize(
    ("role", "name", "fine"),
    [
        ("swarm-manager", "swarm-manager", True),
        ("swarm-manager", "swarm-ca", True),
        ("swarm-manager", "m1", True),
        ("swarm-manager", "m2", False),
        ("swarm-manager", "swarm-worker", False),
        ("swarm-worker", "swarm-manager", False),
        ("swarm-worker", "swarm-ca", False),
    ],
)
@both
async def test_server_name_is_checked(role: str, name: str, fine: bool, by: Any) -> None:
    root = Root()
    async with serving(dummy_services([]), root.issue("m1", role)) as server:
        if fine:
            async with dialled(server, root.issue("w1"), by, server_name=name) as caller:
                await beat(caller)
        else:
            with pytest.raises(Unavailable, match=r"(?i)hostname mismatch"):
                await by(f"127.0.0.1:{server.port}", root.issue("w1"), server_name=name)


async def test_common_name_is_no_server_name() -> None:
    root = Root()
    fake = root.issue("swarm-manager", "swarm-worker", names=("swarm-worker",))
    async with serving(dummy_services([]), fake) as server:
        with pytest.raises(Unavailable):
            await dial(f"127.0.0.1:{server.port}", root.issue("w1"))


@both
async def test_foreign_and_expired_servers_are_refused(by: Any) -> None:
    root, foreign = Root(), Root()
    late = root.issue("m1", "swarm-manager", ends=datetime.timedelta(hours=-1))
    for manager in (foreign.issue("m1", "swarm-manager"), late):
        async with serving(dummy_services([]), manager) as server:
            with pytest.raises(Unavailable):
                await by(f"127.0.0.1:{server.port}", root.issue("w1"))


async def test_certificate_that_expires_on_an_open_connection_is_worth_nothing() -> None:
    root = Root()
    clock = ManualClock(datetime.datetime.now(datetime.UTC).timestamp())
    seen: list[Seen] = []
    credentials = root.issue("m1", "swarm-manager")
    server = Server(dummy_services(seen), lambda: credentials, Cluster(), None, clock=clock)
    async with running(server), dialled(server, root.issue("w1")) as caller:
        await beat(caller)
        clock.advance(100 * 86400)
        with pytest.raises(PermissionDenied, match="no verified chains for remote certificate"):
            await beat(caller)
        await call(caller, "NodeCA/IssueNodeCertificate", timeout=5)
    assert [item.peer.node_id for item in seen] == ["w1", ""]


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(server.run(ready, ["127.0.0.1:0"]))
    await ready.wait()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@both
async def test_client_copes_with_managers_that_select_no_alpn(by: Any) -> None:
    """Managers of 20.10 to 27.x after a renewal."""
    root = Root()
    backend = Backend()
    await backend.server.start()
    manager = root.issue("m1", "swarm-manager")
    async with tls_door(manager, [backend.port], alpn=False) as port:
        for credentials in (root.issue("w1"), Credentials(root.pem), Credentials(None)):
            caller = await by(f"127.0.0.1:{port}", credentials)
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
            await caller.close()
    await backend.server.stop(0)
    assert backend.beats == 3


@pytest.mark.parametrize("addr", ["127.0.0.1", "127.0.0.1:x", "::1:2377", "127.0.0.1:70000", ""])
@both
async def test_addresses_that_are_none(addr: str, by: Any) -> None:
    with pytest.raises(SwarmError):
        await by(addr, Credentials(None))
