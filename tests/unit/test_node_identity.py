"""Joining and renewing against the real services, the real planners and faked connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import (
    Aborted,
    DeadlineExceeded,
    InvalidArgument,
    SwarmError,
    Unavailable,
    Unimplemented,
)
from swarmd.cluster import ca
from swarmd.cluster.ca import chains, tokens
from swarmd.cluster.ca.errors import InvalidJoinToken, InvalidRoot, UnknownAuthority
from swarmd.cluster.ca.keyfile import KEK
from swarmd.cluster.housekeeping.signer import Signer
from swarmd.manager.caserver import CA, CAServer, NodeCA
from swarmd.manager.reconciler import Reconciler
from swarmd.node.identity import Granted, IdentityClient, Request, WrongRoot
from swarmd.node.remotes import Remote, Remotes
from swarmd.rpc.methods import python_name
from swarmd.rpc.peer import Caller, Peer
from swarmd.rpc.tls import Credentials
from tests.harness.ca_kit import CLUSTER_ID, NOW, State, World
from tests.harness.virtual import LoopClock, run_virtual

T = TypeVar("T")
ONE, TWO = Remote("m1", "10.0.0.1:2377"), Remote("m2", "10.0.0.2:2377")


class FakeCaller:
    """Calls the services of a manager as the peer that the credentials make."""

    def __init__(self, manager: Manager, peer: Peer) -> None:
        self.manager = manager
        self.peer = peer
        self.closed = 0

    async def unary(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        manager = self.manager
        manager.calls.append((method, request, self.peer))
        trouble = manager.trouble.get(method, [])
        if trouble:
            error = trouble.pop(0)
            if isinstance(error, SwarmError):
                raise error
            return error
        service, name = method.split("/")
        handler = getattr(manager.services[service], python_name(name))
        try:
            async with asyncio.timeout(timeout):
                return await handler(request, self.peer)
        except TimeoutError:
            raise DeadlineExceeded("context deadline exceeded") from None

    async def close(self) -> None:
        self.closed += 1


class Manager:
    """A manager that can be dialled; `trouble` holds errors or answers to give first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = CAServer(world.store, world.committer, world.entropy, CLUSTER_ID)
        self.services: dict[str, Any] = {"CA": CA(self.server), "NodeCA": NodeCA(self.server)}
        self.calls: list[tuple[str, Any, Peer]] = []
        self.trouble: dict[str, list[Any]] = {}
        self.dialled: list[tuple[str, Credentials, str]] = []
        self.down: set[str] = set()
        self.callers: list[FakeCaller] = []
        self.signing = True

    async def dial(
        self, addr: str, credentials: Credentials, *, server_name: str, timeout: float
    ) -> Any:
        self.dialled.append((addr, credentials, server_name))
        if addr in self.down:
            raise Unavailable("connection error")
        if credentials.roots_pem is not None and self.world.cluster.root_ca.ca_cert:
            chains.parse(credentials.roots_pem)
        caller = FakeCaller(self, self._peer(credentials))
        self.callers.append(caller)
        return caller

    def _peer(self, credentials: Credentials) -> Peer:
        if not credentials.cert_pem:
            return Peer(remote_addr="10.0.0.9:1")
        verified = ca.verify(credentials.cert_pem, self.world.cluster.root_ca.ca_cert, NOW)
        subject = chains.subject_of(verified.leaf)
        return Peer(subject.node_id, subject.organization, subject.roles, "10.0.0.9:1")

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.calls]


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[None]:
    world = manager.world
    runner = Reconciler([Signer()], world.store, world.committer, LoopClock(NOW), SeededEntropy(77))
    async with Tasks() as tasks:
        ready = asyncio.Event()
        tasks.spawn(manager.server.run(ready), "ca")
        if manager.signing:
            tasks.spawn(runner.run(asyncio.Event()), "runner")
        await ready.wait()
        yield


def client_of(
    manager: Manager,
    *remotes: Remote,
    local: Callable[[], Caller | None] = lambda: None,
) -> IdentityClient:
    return IdentityClient(
        manager.dial, Remotes(remotes or [ONE]), LoopClock(NOW), SeededEntropy(5), local
    )


def play(work: Callable[[Manager], Coroutine[Any, Any, T]], world: World | None = None) -> T:
    """Run a test in virtual time beside a running manager."""

    async def all_of_it() -> T:
        manager = Manager(world or World())
        async with running(manager):
            return await asyncio.wait_for(work(manager), 3600)

    return run_virtual(all_of_it())


def token_of(world: World, role: str = "worker") -> str:
    return str(getattr(world.cluster.root_ca.join_tokens, role))


# --- the root ------------------------------------------------------------------------------


def test_root_is_fetched_without_showing_anything() -> None:
    async def test(manager: Manager) -> None:
        root_pem = await client_of(manager).download_root(token_of(manager.world))
        assert root_pem == manager.world.root.pem
        assert manager.dialled == [(ONE.addr, Credentials(None), "swarm-manager")]
        assert manager.calls[0][1] == api.GetRootCACertificateRequest()

    play(test)


def test_another_root_than_the_token_says_ends_the_join() -> None:
    async def test(manager: Manager) -> None:
        other = tokens.join_token(b"another root", SeededEntropy(1))
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(WrongRoot) as caught:
            await client_of(manager).download_root(other)
        wanted = tokens.root_hash(b"another root")
        assert caught.value.message == (f"remote CA does not match fingerprint. Expected: {wanted}")
        assert loop.time() - start < 1
        assert manager.methods() == ["CA/GetRootCACertificate"]

    play(test)


def test_with_several_managers_others_are_asked_too() -> None:
    async def test(manager: Manager) -> None:
        evil = api.GetRootCACertificateResponse(certificate=b"evil")
        manager.trouble["CA/GetRootCACertificate"] = [evil, evil]
        root_pem = await client_of(manager, ONE, TWO).download_root(token_of(manager.world))
        assert root_pem == manager.world.root.pem
        assert asyncio.get_running_loop().time() == pytest.approx(4, abs=0.2)

    play(test)


@pytest.mark.parametrize("token", ["BAD", "SWMTKN-1-x-y"])
def test_a_malformed_token_dials_nobody(token: str) -> None:
    async def test(manager: Manager) -> None:
        with pytest.raises(InvalidJoinToken):
            await client_of(manager).download_root(token)
        assert manager.dialled == []

    play(test)


def test_a_root_that_breaks_the_rules_is_not_taken() -> None:
    async def test(manager: Manager) -> None:
        manager.world.change_cluster(lambda draft: setattr(draft.root_ca, "ca_cert", b"junk"))
        with pytest.raises(InvalidRoot):
            await client_of(manager).download_root(tokens.join_token(b"junk", SeededEntropy(1)))

    play(test)


def test_five_tries_two_seconds_apart() -> None:
    async def test(manager: Manager) -> None:
        manager.down.add(ONE.addr)
        client = client_of(manager)
        with pytest.raises(Unavailable):
            await client.download_root(token_of(manager.world))
        assert len(manager.dialled) == 5
        assert asyncio.get_running_loop().time() == pytest.approx(8, abs=0.1)
        assert client._remotes.weights()[ONE] < 0

    play(test)


# --- joining ---------------------------------------------------------------------------------


async def join(manager: Manager, role: str = "worker", **more: Any) -> Granted:
    client = client_of(manager)
    token = token_of(manager.world, role)
    root_pem = await client.download_root(token)
    return await client.obtain(root_pem, Request(token=token, **more))


def test_joining_as_worker() -> None:
    async def test(manager: Manager) -> None:
        availability = api.NodeSpec.Availability.DRAIN
        granted = await join(manager, availability=availability)
        identity = granted.identity
        assert (identity.role, identity.organization) == (ca.WORKER, CLUSTER_ID)
        assert granted.kek == KEK()
        assert granted.issuer == chains.issuer_of(manager.world.root.certificates()[0])
        info = granted.tls_info()
        assert info.trust_root == manager.world.root.pem
        assert info.cert_issuer_public_key == granted.issuer.public_key
        assert manager.world.node(identity.node_id).spec.availability == availability
        assert manager.methods() == [
            "CA/GetRootCACertificate",
            "NodeCA/IssueNodeCertificate",
            "NodeCA/NodeCertificateStatus",
        ]
        addr, credentials, name = manager.dialled[1]
        assert credentials == Credentials(manager.world.root.pem)
        assert (addr, name, len(manager.dialled)) == (ONE.addr, "swarm-ca", 2)
        assert [caller.closed for caller in manager.callers] == [1, 1]

    play(test)


def test_joining_as_manager_asks_for_the_unlock_key() -> None:
    world = World()

    def lock(draft: api.Cluster) -> None:
        draft.spec.encryption_config.auto_lock_managers = True
        draft.unlock_keys.add(subsystem="swarm-manager", key=b"k" * 32)

    world.change_cluster(lock)

    async def test(manager: Manager) -> None:
        granted = await join(manager, "manager")
        assert granted.identity.is_manager
        assert granted.kek == KEK(b"k" * 32, world.cluster.meta.version.index)
        _, credentials, name = manager.dialled[-1]
        assert name == "swarm-ca"
        assert credentials.cert_pem == granted.identity.pair.cert_pem
        assert manager.calls[-1][2].roles == (ca.MANAGER,)

    play(test, world)


def test_a_manager_that_knows_no_autolock() -> None:
    async def test(manager: Manager) -> None:
        manager.trouble["CA/GetUnlockKey"] = [Unavailable("x"), Unimplemented("unknown method")]
        assert (await join(manager, "manager")).kek == KEK()

    play(test)


def test_a_wrong_secret_is_told_at_once() -> None:
    async def test(manager: Manager) -> None:
        token = token_of(manager.world)[:-3] + "zzz"
        client = client_of(manager)
        root_pem = await client.download_root(token)
        with pytest.raises(InvalidArgument, match="A valid join token is necessary"):
            await client.obtain(root_pem, Request(token=token))
        assert asyncio.get_running_loop().time() < 1

    play(test)


def test_asking_is_repeated() -> None:
    async def test(manager: Manager) -> None:
        manager.trouble["NodeCA/IssueNodeCertificate"] = [Aborted("CA signer is stopped")] * 4
        await join(manager)
        assert asyncio.get_running_loop().time() == pytest.approx(8, abs=0.2)
        manager.trouble["NodeCA/IssueNodeCertificate"] = [Aborted("CA signer is stopped")] * 5
        with pytest.raises(Aborted):
            await join(manager)

    play(test)


def status(state: api.IssuanceStatus.State, csr: bytes = b"") -> Message:
    return api.NodeCertificateStatusResponse(
        status=api.IssuanceStatus(state=state, err="why"),
        certificate=api.Certificate(csr=csr, certificate=b"no"),
    )


def test_answers_that_do_not_count_are_polled_past() -> None:
    async def test(manager: Manager) -> None:
        manager.trouble["NodeCA/NodeCertificateStatus"] = [
            status(State.ISSUED, b"an earlier request"),
            status(State.ROTATE),
            status(State.FAILED),
            status(State.PENDING),
        ]
        await join(manager)
        assert manager.methods().count("NodeCA/NodeCertificateStatus") == 5
        assert manager.methods().count("NodeCA/IssueNodeCertificate") == 1
        assert len(manager.dialled) == 2

    play(test)


def test_a_lost_connection_while_waiting_does_not_lose_the_request() -> None:
    async def test(manager: Manager) -> None:
        manager.trouble["NodeCA/NodeCertificateStatus"] = [Unavailable("gone")] * 2
        await join(manager)
        assert manager.methods().count("NodeCA/IssueNodeCertificate") == 1
        assert len(manager.dialled) == 4
        assert all(caller.closed == 1 for caller in manager.callers)

    play(test)


def test_a_slow_signer_is_waited_for_without_limit() -> None:
    async def test() -> None:
        manager = Manager(World())
        manager.signing = False
        async with running(manager), Tasks() as tasks:
            joining = tasks.spawn(join(manager), "join")
            await asyncio.sleep(600)
            assert not joining.done()
            runner = Reconciler(
                [Signer()],
                manager.world.store,
                manager.world.committer,
                LoopClock(NOW),
                SeededEntropy(7),
            )
            tasks.spawn(runner.run(asyncio.Event()), "runner")
            granted = await asyncio.wait_for(joining, 60)
        assert granted.identity.node_id
        assert manager.methods().count("NodeCA/IssueNodeCertificate") == 1
        assert manager.methods().count("NodeCA/NodeCertificateStatus") < 60

    run_virtual(test())


def test_a_cancelled_join_closes_its_connection() -> None:
    async def test() -> None:
        manager = Manager(World())
        manager.signing = False
        async with running(manager):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(join(manager), 20)
        assert [caller.closed for caller in manager.callers] == [1, 1]

    run_virtual(test())


# --- renewing ----------------------------------------------------------------------------------


def test_renewal_shows_the_certificate_and_no_token() -> None:
    async def test(manager: Manager) -> None:
        first = await join(manager)
        client = client_of(manager)
        manager.calls.clear()
        second = await client.obtain(first.root_pem, Request(current=first.identity))
        assert second.identity.node_id == first.identity.node_id
        assert second.identity.pair.key_pem != first.identity.pair.key_pem
        question, peer = manager.calls[0][1:]
        assert (question.token, peer.node_id) == ("", first.identity.node_id)
        assert manager.dialled[-1][2] == "swarm-manager"

    play(test)


def test_a_manager_asks_itself_first_then_others() -> None:
    async def test(manager: Manager) -> None:
        first = await join(manager, "manager")
        own = FakeCaller(manager, Peer(node_id=first.identity.node_id, local=True))
        before = len(manager.dialled)
        again = Request(current=first.identity)
        await client_of(manager, local=lambda: own).obtain(first.root_pem, again)
        assert (len(manager.dialled), own.closed) == (before, 0)
        manager.trouble["NodeCA/IssueNodeCertificate"] = [Unavailable("being demoted")]
        await client_of(manager, local=lambda: own).obtain(first.root_pem, again)
        assert len(manager.dialled) == before + 1
        assert own.closed == 0

    play(test)


def begin_rotation(world: World) -> bytes:
    new = ca.new_root(NOW, SeededEntropy(60))
    assert new.signer is not None
    key = new.signer.key_pem

    def change(draft: api.Cluster) -> None:
        rotation = draft.root_ca.root_rotation
        rotation.ca_cert, rotation.ca_key = new.pem, key
        rotation.cross_signed_ca_cert = ca.cross_sign(world.root, new.pem)

    world.change_cluster(change)
    return new.pem


def end_rotation(world: World) -> None:
    def change(draft: api.Cluster) -> None:
        rotation = draft.root_ca.root_rotation
        draft.root_ca.ca_cert, draft.root_ca.ca_key = rotation.ca_cert, rotation.ca_key
        draft.root_ca.ClearField("root_rotation")

    world.change_cluster(change)


def test_renewal_during_a_rotation_is_under_the_old_root_with_the_new_issuer() -> None:
    async def test(manager: Manager) -> None:
        first = await join(manager)
        new_pem = begin_rotation(manager.world)
        second = await client_of(manager).obtain(first.root_pem, Request(current=first.identity))
        assert second.root_pem == manager.world.root.pem
        assert second.issuer == chains.issuer_of(chains.parse(new_pem)[0])
        # and when the rotation is over, the same chain is good under the new root
        assert ca.verify(second.identity.pair.cert_pem, new_pem, NOW)

    play(test)


def test_a_worker_that_missed_the_end_of_a_rotation_finds_the_new_root() -> None:
    async def test(manager: Manager) -> None:
        first = await join(manager)
        new_pem = begin_rotation(manager.world)
        second = await client_of(manager).obtain(first.root_pem, Request(current=first.identity))
        end_rotation(manager.world)
        third = await client_of(manager).obtain(second.root_pem, Request(current=second.identity))
        assert third.root_pem == new_pem

    play(test)


def test_a_new_root_is_not_believed_unless_it_vouches_for_the_old_certificate() -> None:
    async def test(manager: Manager) -> None:
        first = await join(manager)
        client = client_of(manager)
        # an impostor issues under a root of its own and offers that root for download
        evil = World(seed=9)
        evil.add_node(first.identity.node_id)
        manager.services["NodeCA"] = Impostor(evil)
        manager.trouble["CA/GetRootCACertificate"] = [
            api.GetRootCACertificateResponse(certificate=evil.root.pem)
        ]
        with pytest.raises(UnknownAuthority):
            await client.obtain(first.root_pem, Request(current=first.identity))

    play(test)


def test_a_manager_never_looks_for_a_new_root() -> None:
    async def test(manager: Manager) -> None:
        first = await join(manager, "manager")
        evil = World(seed=9)
        manager.services["NodeCA"] = Impostor(evil, ca.MANAGER)
        manager.calls.clear()
        with pytest.raises(UnknownAuthority):
            await client_of(manager).obtain(first.root_pem, Request(current=first.identity))
        assert "CA/GetRootCACertificate" not in manager.methods()
        assert "CA/GetUnlockKey" not in manager.methods()

    play(test)


class Impostor:
    """A NodeCA that signs at once with somebody else's root."""

    def __init__(self, world: World, role: str = ca.WORKER) -> None:
        self.world = world
        self.role = role
        self.csr = b""

    async def issue_node_certificate(
        self, request: api.IssueNodeCertificateRequest, peer: Peer
    ) -> Message:
        self.csr = request.csr
        return api.IssueNodeCertificateResponse(node_id="n")

    async def node_certificate_status(self, request: object, peer: Peer) -> Message:
        chain = ca.sign(
            self.world.root,
            self.csr,
            ca.Subject("n", CLUSTER_ID, (self.role,)),
            now=NOW,
            entropy=SeededEntropy(1),
        )
        return api.NodeCertificateStatusResponse(
            status=api.IssuanceStatus(state=State.ISSUED),
            certificate=api.Certificate(csr=self.csr, certificate=chain),
        )
