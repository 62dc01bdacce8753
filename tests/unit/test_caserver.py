"""CA and NodeCA: the order of decisions, the texts, and waiting for a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from swarmd import api
from swarmd.base.aio import Tasks, cancel_and_wait
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, SwarmError
from swarmd.base.timestamps import timestamp
from swarmd.cluster import ca
from swarmd.cluster.store import Store
from swarmd.manager.caserver import CA, CAServer, NodeCA, StoreAuthorizer
from swarmd.rpc.peer import Peer
from tests.harness.ca_kit import CLUSTER_ID, LocalCommitter, State, World

ANYBODY = Peer(remote_addr="10.0.0.9:5")
CSR = ca.new_key_and_csr()[1]
BAD_TOKEN = "A valid join token is necessary to join this cluster"


def member(node_id: str, *roles: str, organization: str = CLUSTER_ID) -> Peer:
    return Peer(node_id=node_id, organization=organization, roles=roles or (ca.WORKER,))


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[NodeCA]:
    server = CAServer(world.store, world.committer, world.entropy, CLUSTER_ID)
    async with Tasks() as tasks:
        ready = asyncio.Event()
        tasks.spawn(server.run(ready), "ca")
        await asyncio.wait_for(ready.wait(), 5)
        yield NodeCA(server)


def ask(token: str = "", csr: bytes = CSR, **more: int) -> api.IssueNodeCertificateRequest:
    return api.IssueNodeCertificateRequest(csr=csr, token=token, **more)


# --- CA -----------------------------------------------------------------------------------


async def test_root_certificate_is_for_everybody() -> None:
    world = World()
    service = CA(CAServer(world.store, world.committer, world.entropy, CLUSTER_ID))
    answer = await service.get_root_ca_certificate(api.GetRootCACertificateRequest(), ANYBODY)
    assert answer.certificate == world.root.pem


async def test_root_certificate_before_there_is_a_cluster_object() -> None:
    store = Store()
    server = CAServer(store, LocalCommitter(store), SeededEntropy(1), "c", lambda: b"own root")
    answer = await CA(server).get_root_ca_certificate(api.GetRootCACertificateRequest(), ANYBODY)
    assert answer.certificate == b"own root"
    with pytest.raises(Aborted, match="CA signer is still starting"):
        await CA(server).get_unlock_key(api.GetUnlockKeyRequest(), ANYBODY)


async def test_unlock_key_only_with_autolock() -> None:
    world = World()

    def keys(draft: api.Cluster) -> None:
        draft.unlock_keys.add(subsystem="other", key=b"no")
        draft.unlock_keys.add(subsystem="swarm-manager", key=b"yes")

    world.change_cluster(keys)
    service = CA(CAServer(world.store, world.committer, world.entropy, CLUSTER_ID))
    answer = await service.get_unlock_key(api.GetUnlockKeyRequest(), member("m", ca.MANAGER))
    assert (answer.unlock_key, answer.version) == (b"", world.cluster.meta.version)
    world.change_cluster(
        lambda draft: setattr(draft.spec.encryption_config, "auto_lock_managers", True)
    )
    answer = await service.get_unlock_key(api.GetUnlockKeyRequest(), member("m", ca.MANAGER))
    assert (answer.unlock_key, answer.version) == (b"yes", world.cluster.meta.version)


# --- IssueNodeCertificate ------------------------------------------------------------------


async def test_empty_request_is_refused_before_anything_else() -> None:
    world = World()
    stopped = NodeCA(CAServer(world.store, world.committer, world.entropy, CLUSTER_ID))
    with pytest.raises(InvalidArgument, match=r"^InvalidArgument$"):
        await stopped.issue_node_certificate(ask(csr=b""), ANYBODY)
    with pytest.raises(InvalidArgument):
        await stopped.issue_node_certificate(ask(csr=b"x" * 70_000), ANYBODY)
    with pytest.raises(Aborted, match=r"^CA signer is stopped$"):
        await stopped.issue_node_certificate(ask(), ANYBODY)


async def test_before_the_cluster_object_the_signer_is_starting() -> None:
    store = Store()
    server = CAServer(store, LocalCommitter(store), SeededEntropy(1), "c")
    async with Tasks() as tasks:
        ready = asyncio.Event()
        tasks.spawn(server.run(ready), "ca")
        await asyncio.sleep(0)
        with pytest.raises(Aborted, match=r"^CA signer is still starting$"):
            await NodeCA(server).issue_node_certificate(ask(), ANYBODY)
        assert not ready.is_set()


@pytest.mark.parametrize("role", [api.NodeRole.WORKER, api.NodeRole.MANAGER])
@pytest.mark.parametrize("availability", [0, 1, 2])
async def test_a_token_admits_a_new_node(role: api.NodeRole, availability: int) -> None:
    world = World()
    tokens = world.cluster.root_ca.join_tokens
    token = tokens.manager if role == api.NodeRole.MANAGER else tokens.worker
    async with serving(world) as service:
        # the deprecated role field says the opposite and does not count
        answer = await service.issue_node_certificate(
            ask(token, availability=availability, role=1 - role), ANYBODY
        )
    assert answer.node_membership == api.NodeSpec.Membership.ACCEPTED
    node = world.node(answer.node_id)
    expected = api.Node(id=answer.node_id, role=role, VXLANUDPPort=4789)
    expected.spec.annotations.SetInParent()
    expected.spec.desired_role = role
    expected.spec.membership = api.NodeSpec.Membership.ACCEPTED
    expected.spec.availability = availability
    expected.status.SetInParent()
    expected.certificate.CopyFrom(
        api.Certificate(
            role=role,
            csr=CSR,
            cn=node.id,
            status=api.IssuanceStatus(state=State.PENDING),
        )
    )
    expected.meta.CopyFrom(node.meta)
    assert node == expected
    assert len(node.id) == 25


@pytest.mark.parametrize("change", ["", "x", None])
async def test_wrong_tokens(change: str | None) -> None:
    world = World()
    good = world.cluster.root_ca.join_tokens.worker
    token = change if change is not None else good[:-1] + ("a" if good[-1] != "a" else "b")
    async with serving(world) as service:
        with pytest.raises(InvalidArgument) as caught:
            await service.issue_node_certificate(ask(token), ANYBODY)
    assert caught.value.message == BAD_TOKEN
    assert world.store.view().all(api.Node) == []


async def test_empty_tokens_in_the_cluster_admit_nobody() -> None:
    world = World()
    world.change_cluster(lambda draft: draft.root_ca.ClearField("join_tokens"))
    async with serving(world) as service:
        with pytest.raises(InvalidArgument, match=BAD_TOKEN):
            await service.issue_node_certificate(ask(""), ANYBODY)


async def test_a_rotated_token_is_refused_at_once() -> None:
    world = World()
    old = world.cluster.root_ca.join_tokens.worker
    async with serving(world) as service:
        await service.issue_node_certificate(ask(old), ANYBODY)
        fresh = ca.join_token(world.root.pem, SeededEntropy(8))
        world.change_cluster(lambda draft: setattr(draft.root_ca.join_tokens, "worker", fresh))
        with pytest.raises(InvalidArgument, match=BAD_TOKEN):
            await service.issue_node_certificate(ask(old), ANYBODY)
        await service.issue_node_certificate(ask(fresh), ANYBODY)


@pytest.mark.parametrize("roles", [(ca.WORKER,), (ca.MANAGER,), ("x", ca.WORKER)])
async def test_a_certificate_renews_with_the_role_of_the_node(roles: tuple[str, ...]) -> None:
    world = World()
    world.add_node("n1", role=api.NodeRole.MANAGER, csr=b"old")
    world.change_node("n1", lambda draft: setattr(draft.certificate, "certificate", b"old"))
    world.change_node("n1", lambda draft: setattr(draft.spec, "desired_role", 0))
    manager_token = world.cluster.root_ca.join_tokens.manager
    async with serving(world) as service:
        # a token beside a certificate does not count
        answer = await service.issue_node_certificate(ask(manager_token), member("n1", *roles))
    assert answer.node_id == "n1"
    assert answer.node_membership == api.NodeSpec.Membership.ACCEPTED
    assert world.node("n1").certificate == api.Certificate(
        role=api.NodeRole.MANAGER,
        csr=CSR,
        cn="n1",
        status=api.IssuanceStatus(state=State.RENEW),
    )
    assert len(world.store.view().all(api.Node)) == 1


async def test_local_calls_renew_the_local_node() -> None:
    world = World()
    world.add_node("me")
    async with serving(world) as service:
        answer = await service.issue_node_certificate(ask(), Peer(node_id="me", local=True))
    assert answer.node_id == "me"
    assert world.node("me").certificate.status.state == State.RENEW


async def test_renewal_of_an_unknown_node() -> None:
    world = World()
    async with serving(world) as service:
        with pytest.raises(NotFound, match="node gone not found when attempting to renew"):
            await service.issue_node_certificate(ask(), member("gone"))


@pytest.mark.parametrize(
    "peer",
    [
        member("n1", organization="another"),
        member("n1", "swarm-guest"),
        member("removed"),
        Peer(node_id="", organization=CLUSTER_ID, roles=(ca.WORKER,)),
    ],
)
async def test_certificates_that_do_not_count_need_a_token(peer: Peer) -> None:
    world = World()
    world.add_node("n1")
    world.change_cluster(
        lambda draft: draft.blacklisted_certificates["removed"].expiry.CopyFrom(timestamp(9e9))
    )
    async with serving(world) as service:
        with pytest.raises(InvalidArgument, match=BAD_TOKEN):
            await service.issue_node_certificate(ask(), peer)
        answer = await service.issue_node_certificate(
            ask(world.cluster.root_ca.join_tokens.worker), peer
        )
    assert answer.node_id not in ("n1", "removed")
    assert world.node("n1").certificate.status.state == State.ISSUED


class Stuck:
    """Chance that says the same thing a few times before it moves on."""

    def __init__(self, times: int) -> None:
        self.left = times

    def token(self, size: int) -> bytes:
        self.left -= 1
        return (b"\1" if self.left >= 0 else b"\2") * size

    def uniform(self, low: float, high: float) -> float:
        return low


@pytest.mark.parametrize(("times", "works"), [(4, True), (5, False)])
async def test_id_collisions(times: int, works: bool) -> None:
    world = World()
    token = world.cluster.root_ca.join_tokens.worker
    entropy: Any = Stuck(times)
    world.entropy = entropy
    async with serving(world) as service:
        first = await service.issue_node_certificate(ask(token), ANYBODY)
        if not works:
            with pytest.raises(AlreadyExists):
                await service.issue_node_certificate(ask(token), ANYBODY)
            return
        second = await service.issue_node_certificate(ask(token), ANYBODY)
    assert first.node_id != second.node_id


# --- NodeCertificateStatus -----------------------------------------------------------------


def about(node_id: str) -> api.NodeCertificateStatusRequest:
    return api.NodeCertificateStatusRequest(node_id=node_id)


async def test_status_refusals() -> None:
    world = World()
    async with serving(world) as service:
        with pytest.raises(InvalidArgument, match=r"^InvalidArgument$"):
            await service.node_certificate_status(about(""), ANYBODY)
        with pytest.raises(NotFound, match=r"^NotFound$"):
            await service.node_certificate_status(about("nobody"), ANYBODY)
    with pytest.raises(Aborted, match="CA signer is stopped"):
        await service.node_certificate_status(about("nobody"), ANYBODY)


@pytest.mark.parametrize("state", [State.ISSUED, State.FAILED, State.ROTATE])
async def test_final_states_are_told_at_once(state: api.IssuanceStatus.State) -> None:
    world = World()
    world.add_node("n1", state=state, csr=CSR)
    async with serving(world) as service:
        answer = await service.node_certificate_status(about("n1"), ANYBODY)
    assert answer.status.state == state
    assert answer.certificate == world.node("n1").certificate


@pytest.mark.parametrize("state", [State.PENDING, State.RENEW, State.UNKNOWN])
async def test_others_are_waited_for(state: api.IssuanceStatus.State) -> None:
    world = World()
    world.add_node("n1", state=state, csr=CSR)
    world.add_node("n2")
    async with serving(world) as service, Tasks() as tasks:
        waiting = tasks.spawn(service.node_certificate_status(about("n1"), ANYBODY), "status")
        await asyncio.sleep(0)
        world.change_node("n2", lambda draft: setattr(draft.spec, "availability", 2))
        world.change_node("n1", lambda draft: setattr(draft.spec, "availability", 2))
        await asyncio.sleep(0)
        assert not waiting.done()
        world.change_node(
            "n1", lambda draft: setattr(draft.certificate.status, "state", State.ISSUED)
        )
        answer = await asyncio.wait_for(waiting, 5)
    assert answer.status.state == State.ISSUED


async def outcome(service: NodeCA, node_id: str) -> Any:
    """The answer, or the error instead of raising it."""
    try:
        return await service.node_certificate_status(about(node_id), ANYBODY)
    except SwarmError as error:
        return error


async def test_removal_ends_the_wait() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING)
    async with serving(world) as service, Tasks() as tasks:
        waiting = tasks.spawn(outcome(service, "n1"), "status")
        await asyncio.sleep(0)
        world.committer.write(lambda tx: tx.delete(api.Node, "n1"))
        assert isinstance(await asyncio.wait_for(waiting, 5), NotFound)


async def test_the_end_of_leadership_ends_the_wait() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING)
    server = CAServer(world.store, world.committer, world.entropy, CLUSTER_ID)
    ready = asyncio.Event()
    async with Tasks() as tasks:
        running = tasks.spawn(server.run(ready), "ca")
        await asyncio.wait_for(ready.wait(), 5)
        waiting = [tasks.spawn(outcome(NodeCA(server), "n1"), "status") for _ in range(3)]
        await asyncio.sleep(0)
        await cancel_and_wait(running)
        for one in waiting:
            error = await asyncio.wait_for(one, 5)
            assert isinstance(error, Aborted) and error.message == "CA signer is stopped"


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING)
    async with serving(world) as service, Tasks() as tasks:
        waiting = tasks.spawn(service.node_certificate_status(about("n1"), ANYBODY), "status")
        await asyncio.sleep(0)
        assert "n1" in service._server._waiting
        await cancel_and_wait(waiting)
        assert service._server._waiting == {}


# --- the door ------------------------------------------------------------------------------


def test_authorizer_reads_the_store() -> None:
    world = World()
    door = StoreAuthorizer(world.store, CLUSTER_ID)
    assert door.organization == CLUSTER_ID
    assert not door.is_blacklisted("n1")
    world.change_cluster(lambda draft: draft.blacklisted_certificates["n1"].SetInParent())
    assert door.is_blacklisted("n1")
    assert not door.is_blacklisted("n2")
    assert not StoreAuthorizer(Store(), "c").is_blacklisted("n1")
