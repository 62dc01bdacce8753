"""A whole root rotation in virtual time: real store, planners, services and joining side."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.cluster import ca
from swarmd.cluster.ca import chains, rotation_start, tokens
from swarmd.cluster.ca.errors import UnknownAuthority
from swarmd.cluster.housekeeping.rotation import Blacklist, RootRotation
from swarmd.cluster.housekeeping.signer import Signer
from swarmd.cluster.store import Batch, edit
from swarmd.manager.caserver import CA, CAServer, NodeCA
from swarmd.manager.reconciler import Reconciler
from swarmd.node.identity import Granted, IdentityClient, Request
from swarmd.node.remotes import Remote, Remotes
from swarmd.node.renewer import Renewed, Renewer
from swarmd.rpc.methods import python_name
from swarmd.rpc.peer import Peer
from swarmd.rpc.tls import Credentials
from tests.harness.ca_kit import CLUSTER_ID, NOW, State, World
from tests.harness.virtual import LoopClock, run_virtual

CLOCK = LoopClock(NOW)


class Cluster:
    """One manager's CA and the planners, and nodes that behave."""

    def __init__(self) -> None:
        self.world = World()
        server = CAServer(self.world.store, self.world.committer, self.world.entropy, CLUSTER_ID)
        self.server = server
        self.services: dict[str, Any] = {"CA": CA(server), "NodeCA": NodeCA(server)}
        self.nodes: list[SimNode] = []
        self.runner = Reconciler(
            [Signer(), RootRotation(), Blacklist()],
            self.world.store,
            self.world.committer,
            CLOCK,
            SeededEntropy(70),
        )

    async def dial(
        self, addr: str, credentials: Credentials, *, server_name: str, timeout: float
    ) -> Any:
        peer = Peer(remote_addr="10.0.0.9:1")
        if credentials.cert_pem:
            root_ca = self.world.cluster.root_ca
            verified = ca.verify(credentials.cert_pem, root_ca.ca_cert, CLOCK.now())
            subject = chains.subject_of(verified.leaf)
            peer = Peer(subject.node_id, subject.organization, subject.roles, "10.0.0.9:1")
        return Line(self.services, peer)

    async def start_rotation(self, force: int) -> None:
        cluster = self.world.cluster
        spec = edit(cluster).spec
        spec.ca_config.force_rotate = force
        root_ca = await rotation_start.start_root_rotation(
            cluster, spec, CLOCK.now(), SeededEntropy(force)
        )
        self.world.change_cluster(lambda draft: draft.root_ca.CopyFrom(root_ca))

    async def until(self, reached: Callable[[], bool], seconds: float) -> None:
        """Wait for a state of the store, at most `seconds` of virtual time."""
        changed = asyncio.Event()
        unsubscribe = self.world.store.subscribe(lambda _: changed.set())
        async with asyncio.timeout(seconds):
            while not reached():
                changed.clear()
                await changed.wait()
        unsubscribe()

    def rotating(self) -> bool:
        return self.world.cluster.root_ca.HasField("root_rotation")


class Line:
    """A connection to the manager."""

    def __init__(self, services: dict[str, Any], peer: Peer) -> None:
        self.services = services
        self.peer = peer

    async def unary(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        service, name = method.split("/")
        async with asyncio.timeout(timeout):
            return await getattr(self.services[service], python_name(name))(request, self.peer)

    async def close(self) -> None:
        """Nothing to do."""


class SimNode:
    """Joins, reports its issuer, and renews when told to by its node object."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        self.entropy = SeededEntropy(1000 + number)
        self.client = IdentityClient(
            cluster.dial, Remotes([Remote("m", "10.0.0.1:2377")]), CLOCK, self.entropy
        )
        self.granted: Granted | None = None
        self.online = True
        self.renewer = Renewer(
            lambda: self.granted.identity if self.granted else None,
            self.renew,
            self.reported,
            CLOCK,
            self.entropy,
        )
        self.errors: list[SwarmError] = []

    @property
    def id(self) -> str:
        assert self.granted is not None
        return self.granted.identity.node_id

    async def join(self, token: str) -> None:
        root_pem = await self.client.download_root(token)
        self.granted = await self.client.obtain(root_pem, Request(token=token))
        self.report()
        self.cluster.world.store.subscribe(self.see)

    async def renew(self) -> ca.Identity:
        assert self.granted is not None
        current = self.granted
        self.granted = await self.client.obtain(current.root_pem, Request(current=current.identity))
        self.report()
        return self.granted.identity

    def report(self) -> None:
        """The dispatcher's part: the node's TLS info reaches its object."""
        assert self.granted is not None
        info = self.granted.tls_info()
        self.cluster.world.change_node(
            self.id, lambda draft: draft.description.tls_info.CopyFrom(info)
        )

    def reported(self, renewed: Renewed) -> None:
        if renewed.error is not None:
            self.errors.append(renewed.error)

    def see(self, batch: Batch) -> None:
        """The session's part: ROTATE means renew."""
        for event in batch.events:
            node = event.object
            if isinstance(node, api.Node) and node.id == self.id:
                self.look(node)

    def look(self, node: api.Node) -> None:
        if self.online and node.certificate.status.state == State.ROTATE:
            self.renewer.renew_now()


async def build(cluster: Cluster, tasks: Tasks, count: int) -> None:
    ready = asyncio.Event()
    tasks.spawn(cluster.server.run(ready), "ca")
    tasks.spawn(cluster.runner.run(asyncio.Event()), "runner")
    await ready.wait()
    token = cluster.world.cluster.root_ca.join_tokens.worker
    cluster.nodes = [SimNode(cluster, number) for number in range(count)]
    await asyncio.gather(*(node.join(token) for node in cluster.nodes))
    for node in cluster.nodes:
        tasks.spawn(node.renewer.run(asyncio.Event()), "renewer")


def watch_rounds(cluster: Cluster) -> list[float]:
    """The times at which nodes were told to renew."""
    told: list[float] = []

    def look(batch: Batch) -> None:
        for event in batch.events:
            new, old = event.object, event.old
            if isinstance(new, api.Node) and isinstance(old, api.Node):
                states = (old.certificate.status.state, new.certificate.status.state)
                if states[1] == State.ROTATE != states[0]:
                    told.append(CLOCK.monotonic())

    cluster.world.store.subscribe(look)
    return told


def test_seventy_nodes_move_to_a_new_root() -> None:
    async def test() -> None:
        cluster = Cluster()
        async with Tasks() as tasks:
            await build(cluster, tasks, 70)
            before = cluster.world.cluster.root_ca
            told, start = watch_rounds(cluster), CLOCK.monotonic()
            await cluster.start_rotation(1)
            target = cluster.world.cluster.root_ca.root_rotation.ca_cert
            await cluster.until(lambda: not cluster.rotating(), 60)
            rounds = Counter(int((moment - start) // 3) for moment in told)
            assert sum(rounds.values()) == 70
            assert max(rounds.values()) == 30 and len(rounds) == 3
            after = cluster.world.cluster.root_ca
            assert after.ca_cert == target and after.last_forced_rotation == 1
            assert after.ca_key and after.ca_key != before.ca_key
            assert after.ca_cert_hash == "sha256:" + tokens.root_hash(target)
            assert not any(node.errors for node in cluster.nodes)
            await check_tokens(cluster, before.join_tokens.worker, after.join_tokens.worker)
            # certificates got during the rotation are good under the new root, and renewable
            for node in cluster.nodes[:3]:
                await node.renew()
                assert node.granted is not None
                assert ca.verify(node.granted.identity.pair.cert_pem, target, CLOCK.now())

    run_virtual(test())


async def check_tokens(cluster: Cluster, old: str, new: str) -> None:
    newcomer = SimNode(cluster, 5000)
    with pytest.raises(SwarmError, match="remote CA does not match fingerprint"):
        await newcomer.join(old)
    root_pem = await newcomer.client.download_root(new)
    with pytest.raises(InvalidArgument):
        await newcomer.client.obtain(root_pem, Request(token=old))
    await newcomer.join(new)


def test_a_node_that_is_down_holds_the_end_up() -> None:
    async def test() -> None:
        cluster = Cluster()
        async with Tasks() as tasks:
            await build(cluster, tasks, 4)
            asleep = cluster.nodes[2]
            asleep.online = False
            await cluster.start_rotation(1)
            await asyncio.sleep(24 * 3600)
            assert cluster.rotating()
            assert cluster.world.node(asleep.id).certificate.status.state == State.ROTATE
            asleep.online = True
            asleep.look(cluster.world.node(asleep.id))
            await cluster.until(lambda: not cluster.rotating(), 30)

    run_virtual(test())


def test_removing_the_node_that_is_down_ends_it() -> None:
    async def test() -> None:
        cluster = Cluster()
        async with Tasks() as tasks:
            await build(cluster, tasks, 3)
            asleep = cluster.nodes[0]
            asleep.online = False
            await cluster.start_rotation(1)
            await asyncio.sleep(600)
            assert cluster.rotating()
            cluster.world.committer.write(lambda tx: tx.delete(api.Node, asleep.id))
            await cluster.until(lambda: not cluster.rotating(), 30)
            # its certificate is from the old root: no manager takes it any more
            with pytest.raises(UnknownAuthority):
                await asleep.renew()

    run_virtual(test())


def test_a_second_rotation_replaces_the_first() -> None:
    async def test() -> None:
        cluster = Cluster()
        async with Tasks() as tasks:
            await build(cluster, tasks, 40)
            await cluster.start_rotation(1)
            first = cluster.world.cluster.root_ca.root_rotation.ca_cert
            await asyncio.sleep(1.5)
            assert cluster.rotating()
            await cluster.start_rotation(2)
            second = cluster.world.cluster.root_ca.root_rotation.ca_cert
            await cluster.until(lambda: not cluster.rotating(), 120)
            assert cluster.world.cluster.root_ca.ca_cert == second != first
            wanted = chains.issuer_of(chains.parse(second)[0])
            assert all(node.granted and node.granted.issuer == wanted for node in cluster.nodes)

    run_virtual(test())


def test_an_aborted_rotation_leaves_nodes_working() -> None:
    async def test() -> None:
        cluster = Cluster()
        async with Tasks() as tasks:
            await build(cluster, tasks, 40)
            original = edit(cluster.world.cluster)
            await cluster.start_rotation(1)
            await asyncio.sleep(1.5)
            spec = edit(cluster.world.cluster).spec
            spec.ca_config.signing_ca_cert = original.root_ca.ca_cert
            spec.ca_config.signing_ca_key = original.root_ca.ca_key
            root_ca = await rotation_start.start_root_rotation(
                cluster.world.cluster, spec, CLOCK.now(), SeededEntropy(1)
            )
            cluster.world.change_cluster(lambda draft: draft.root_ca.CopyFrom(root_ca))
            assert not cluster.rotating()
            await asyncio.sleep(60)
            for node in cluster.nodes:
                await node.renew()
                assert node.granted is not None
                assert ca.verify(
                    node.granted.identity.pair.cert_pem, original.root_ca.ca_cert, CLOCK.now()
                )

    run_virtual(test())
