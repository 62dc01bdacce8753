"""External CAs against a real small HTTPS signer that demands client certificates."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import certificates, chains, external, keys, root, rotation_start
from swarmd.cluster.ca.errors import CAError, ExternalCAUnavailable
from swarmd.cluster.ca.root import RootCA
from swarmd.cluster.housekeeping.signer import Signer, SignExternally
from swarmd.manager.caserver import CfsslClient, ExternalSigner
from swarmd.manager.reconciler import Reconciler
from tests.harness.ca_kit import CLUSTER_ID, State, World

KEY, CSR = ca.new_key_and_csr()
SUBJECT = ca.Subject("n1", CLUSTER_ID, (ca.WORKER,))


def real_now() -> float:
    """The machine's time: TLS libraries look at nothing else."""
    return datetime.now(UTC).timestamp()


def server_pair(authority: RootCA) -> ca.KeyPair:
    """A certificate for 127.0.0.1 under `authority`."""
    assert authority.signer is not None
    key = keys.new_key()
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "signer")])
    issuer = authority.signer.certificate
    builder = (
        x509.CertificateBuilder(issuer.subject, name, key.public_key())
        .serial_number(5)
        .not_valid_before(datetime.fromtimestamp(real_now() - 60, UTC))
        .not_valid_after(datetime.fromtimestamp(real_now() + 3600, UTC))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(certificates.authority_key(issuer), critical=False)
    )
    made = builder.sign(authority.signer.key, keys.signature_hash(authority.signer.key))
    return ca.KeyPair(chains.to_pem(made), keys.to_pkcs8(key))


class CfsslServer:
    """A signer with its own key; `reply` may be replaced to misbehave."""

    def __init__(self, authority: RootCA) -> None:
        self.authority = authority
        self.requests: list[dict[str, Any]] = []
        self.peers: list[Any] = []
        self.reply = self.sign
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(json.loads(await request.read()))
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peercert"))
        return await self.reply(self.requests[-1])

    async def sign(self, asked: dict[str, Any]) -> web.StreamResponse:
        csr = asked["certificate_request"].encode()
        if asked["profile"] == "CA":
            chain = self.cross_sign(csr)
        else:
            (name,) = asked["subject"]["names"]
            subject = ca.Subject(asked["subject"]["CN"], name["O"], (name["OU"],))
            chain = ca.sign(self.authority, csr, subject, now=real_now(), entropy=SeededEntropy(3))
        result = {"certificate": chain.decode()}
        return web.json_response({"success": True, "result": result, "errors": [], "messages": []})

    def cross_sign(self, csr: bytes) -> bytes:
        """A CA certificate for the name and key in the request."""
        assert self.authority.signer is not None
        request, signer = x509.load_pem_x509_csr(csr), self.authority.signer
        builder = (
            x509.CertificateBuilder(
                signer.certificate.subject, request.subject, request.public_key()
            )
            .serial_number(6)
            .not_valid_before(datetime.fromtimestamp(real_now() - 60, UTC))
            .not_valid_after(datetime.fromtimestamp(real_now() + 5 * 365 * 86_400, UTC))
        )
        for extension in request.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return chains.to_pem(builder.sign(signer.key, keys.signature_hash(signer.key)))


@asynccontextmanager
async def serving(
    signer: CfsslServer, clients: bytes, tmp_path: Path, authority: RootCA | None = None
) -> AsyncIterator[CfsslServer]:
    pair = server_pair(authority or signer.authority)
    files = tmp_path / "cert", tmp_path / "key"
    for file, text in zip(files, (pair.cert_pem, pair.key_pem), strict=True):
        file.write_bytes(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.load_verify_locations(cadata=clients.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_post("/api/v1/cfssl/authsign", signer.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        signer.url = f"https://127.0.0.1:{port}/api/v1/cfssl/authsign"
        yield signer
    finally:
        await runner.cleanup()


class Place:
    """A cluster whose root key is with an external CA only, and a manager's client."""

    def __init__(self) -> None:
        self.world = World()
        self.now = real_now()
        # everything under real time, since OpenSSL judges the certificates
        self.root = ca.new_root(self.now, SeededEntropy(21))
        self.world.change_cluster(self._outsource)
        key, csr = ca.new_key_and_csr()
        chain = ca.sign(
            self.root,
            csr,
            ca.Subject("me", CLUSTER_ID, (ca.MANAGER,)),
            now=self.now,
            entropy=SeededEntropy(22),
        )
        self.pair = ca.KeyPair(chain, key)
        self.client = CfsslClient(lambda: self.pair)
        self.doer = ExternalSigner(self.client, self.world.committer)

    def _outsource(self, draft: api.Cluster) -> None:
        draft.root_ca.CopyFrom(root.new_root_object(self.root, SeededEntropy(23)))
        draft.root_ca.ca_key = b""

    def effect(self, *urls: str) -> SignExternally:
        return SignExternally("n1", CSR, SUBJECT, urls, self.root.pem, b"")

    def certificate(self) -> api.Certificate:
        return self.world.node("n1").certificate


@pytest.fixture
def place() -> Place:
    made = Place()
    made.world.add_node("n1", state=State.PENDING, csr=CSR)
    return made


async def test_a_node_certificate_comes_from_the_external_ca(place: Place, tmp_path: Path) -> None:
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        await place.doer(place.effect(signer.url))
    assert place.certificate().status == api.IssuanceStatus(state=State.ISSUED)
    verified = ca.verify(place.certificate().certificate, place.root.pem, real_now())
    assert chains.subject_of(verified.leaf) == SUBJECT
    assert signer.requests[0]["hosts"] == [ca.WORKER, "n1"]
    assert signer.peers[0]["subject"][-1] == (("commonName", "me"),)


async def test_the_whole_way_with_the_planner(place: Place, tmp_path: Path) -> None:
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        place.world.change_cluster(
            lambda draft: draft.spec.ca_config.external_cas.append(api.ExternalCA(url=signer.url))
        )
        runner = Reconciler(
            [Signer()],
            place.world.store,
            place.world.committer,
            ManualClock(place.now),
            SeededEntropy(1),
            {SignExternally: place.doer},
        )
        issued = asyncio.Event()

        def look(_: object) -> None:
            if place.certificate().status.state == State.ISSUED:
                issued.set()

        place.world.store.subscribe(look)
        async with Tasks() as tasks:
            tasks.spawn(runner.run(asyncio.Event()), "runner")
            await asyncio.wait_for(issued.wait(), 10)
    assert len(signer.requests) == 1


async def test_urls_are_tried_in_order(place: Place, tmp_path: Path) -> None:
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        refusing = "https://127.0.0.1:1/x"
        await place.doer(place.effect(refusing, "http://127.0.0.1/plain", signer.url, refusing))
    assert place.certificate().status.state == State.ISSUED
    assert len(signer.requests) == 1


async def refuse(_: dict[str, Any]) -> web.StreamResponse:
    body = {"success": False, "result": None, "errors": [{"code": 5200, "message": "policy"}]}
    return web.json_response(body)


async def test_a_refusal_is_final(place: Place, tmp_path: Path) -> None:
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        signer.reply = refuse
        await place.doer(place.effect(signer.url))
    assert place.certificate().status == api.IssuanceStatus(
        state=State.FAILED, err="response errors: [{5200 policy}]"
    )


async def test_a_certificate_for_somebody_else_is_refused(place: Place, tmp_path: Path) -> None:
    async def other(_: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(
            {"success": True, "result": {"certificate": place.pair.cert_pem.decode()}}
        )

    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        signer.reply = other
        await place.doer(place.effect(signer.url))
    assert place.certificate().status.state == State.FAILED
    assert "a certificate for something else" in place.certificate().status.err


async def broken(_: dict[str, Any]) -> web.StreamResponse:
    return web.Response(status=500, text="database down")


async def garbled(_: dict[str, Any]) -> web.StreamResponse:
    return web.Response(text="{")


async def endless(_: dict[str, Any]) -> web.StreamResponse:
    return web.Response(body=b'"' + b"x" * (external.answer_bytes_max + 10))


async def elsewhere(_: dict[str, Any]) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})


@pytest.mark.parametrize("reply", [broken, garbled, endless, elsewhere])
async def test_trouble_leaves_the_request_waiting(reply: Any, place: Place, tmp_path: Path) -> None:
    before = place.world.node("n1")
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        signer.reply = reply
        await place.doer(place.effect(signer.url))
        with pytest.raises(ExternalCAUnavailable):
            await place.client.sign([signer.url], b"{}", place.root.pem)
    assert place.world.node("n1") == before


async def test_a_silent_signer_costs_the_time_limit_only(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "timeout_seconds", 0.3)
    hung = asyncio.Event()

    async def hang(_: dict[str, Any]) -> web.StreamResponse:
        await hung.wait()
        return web.Response()

    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        signer.reply = hang
        async with asyncio.timeout(5):
            with pytest.raises(ExternalCAUnavailable, match="unable to perform"):
                await place.client.sign([signer.url], b"{}", place.root.pem)
        hung.set()


async def test_tls_is_checked_both_ways(place: Place, tmp_path: Path) -> None:
    stranger = ca.new_root(place.now, SeededEntropy(31))
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path, stranger) as signer:
        assert not await place.client.is_reachable(signer.url, place.root.pem)
        with pytest.raises(ExternalCAUnavailable):
            await place.client.sign([signer.url], b"{}", place.root.pem)
        assert await place.client.is_reachable(signer.url, stranger.pem)
    async with serving(CfsslServer(place.root), stranger.pem, tmp_path) as signer:
        with pytest.raises(ExternalCAUnavailable):
            await place.client.sign([signer.url], b"{}", place.root.pem)
        assert signer.requests == []


@pytest.mark.parametrize(
    "url",
    ["", "http://127.0.0.1:80/", "https://", "https://[::1", "https://127.0.0.1:1/", "nonsense",
     "https://127.0.0.1:99999/"],
)  # fmt: skip
async def test_bad_urls_are_not_reachable(url: str, place: Place) -> None:
    assert not await place.client.is_reachable(url, place.root.pem)
    with pytest.raises(CAError):
        await place.client.sign([url], b"{}", place.root.pem)


async def test_an_answer_to_an_old_request_is_dropped(place: Place, tmp_path: Path) -> None:
    newer = ca.new_key_and_csr()[1]

    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:

        async def late(asked: dict[str, Any]) -> web.StreamResponse:
            place.world.change_node("n1", lambda draft: setattr(draft.certificate, "csr", newer))
            return await signer.sign(asked)

        signer.reply = late
        await place.doer(place.effect(signer.url))
    assert place.certificate().status.state == State.PENDING
    assert place.certificate().csr == newer
    place.world.committer.write(lambda tx: tx.delete(api.Node, "n1"))
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        await place.doer(place.effect(signer.url))
    assert place.world.store.view().all(api.Node) == []


async def test_no_url_at_all(place: Place) -> None:
    with pytest.raises(ExternalCAUnavailable, match="no external CA URLs"):
        await place.client.sign([], b"{}", place.root.pem)


async def test_rotation_away_from_the_external_ca(place: Place, tmp_path: Path) -> None:
    new = ca.new_root(place.now, SeededEntropy(41))
    assert new.signer is not None
    spec = api.ClusterSpec()
    spec.CopyFrom(place.world.cluster.spec)
    spec.ca_config.signing_ca_cert = new.pem
    spec.ca_config.signing_ca_key = new.signer.key_pem
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        spec.ca_config.external_cas.add(url=signer.url)
        result = await rotation_start.start_root_rotation(
            place.world.cluster, spec, real_now(), SeededEntropy(1), place.client
        )
    crossed = result.root_rotation.cross_signed_ca_cert
    assert ca.verify(crossed, place.root.pem, real_now()).leaf == chains.parse(crossed)[0]
    during = ca.root_from_api(result, real_now())
    chain = ca.sign(during, CSR, SUBJECT, now=real_now(), entropy=SeededEntropy(1))
    assert ca.verify(chain, place.root.pem, real_now())


async def test_two_answers_at_once_do_not_pile_up(place: Place, tmp_path: Path) -> None:
    async with serving(CfsslServer(place.root), place.root.pem, tmp_path) as signer:
        await asyncio.gather(*(place.doer(place.effect(signer.url)) for _ in range(3)))
    assert place.certificate().status.state == State.ISSUED
    assert len(signer.requests) == 3
