"""One manager: its store and Raft member, its services on port 2377, and the leader's parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import NotLeader
from swarmd.cluster.allocator import Allocator
from swarmd.cluster.ca import KeyPair
from swarmd.cluster.ca.root import trust_bundle
from swarmd.cluster.housekeeping.keymanager import KeyManager
from swarmd.cluster.housekeeping.rolemanager import (
    RemoveRaftMember,
    RoleManager,
    TransferLeadership,
)
from swarmd.cluster.housekeeping.rotation import Blacklist, RootRotation
from swarmd.cluster.housekeeping.signer import Signer, SignExternally
from swarmd.cluster.model.defaults import ClusterStart
from swarmd.cluster.store import Store
from swarmd.manager.caserver import CA, CAServer, NodeCA, StoreAuthorizer
from swarmd.manager.caserver.external import CfsslClient, ExternalSigner
from swarmd.manager.commit import Committer
from swarmd.manager.controlapi import Control, Needs, NoPlugins
from swarmd.manager.dispatcher import Dispatcher
from swarmd.manager.leader import LeaderGroup
from swarmd.manager.leadership import RaftLeadership
from swarmd.manager.logbroker import Broker
from swarmd.manager.raftnode import Membership, Place, RaftNode
from swarmd.manager.reconciler import Reconciler
from swarmd.manager.roles import RoleEffects
from swarmd.manager.services.health import Health
from swarmd.manager.services.resource import ResourceAllocator
from swarmd.manager.services.watchapi import Watch
from swarmd.rpc.client import dial
from swarmd.rpc.inprocess import InProcess
from swarmd.rpc.peer import MANAGER_ROLE, Caller, Peer
from swarmd.rpc.server import Credentials, Server

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """What one manager is started with.

    `listen`: "ip:port"s. `start`: a new cluster's first objects, None otherwise.
    """

    place: Place
    organization: str
    listen: tuple[str, ...]
    start: ClusterStart | None = None
    tick_seconds: float = 1.0


class Manager:
    """Built once per life as a manager; `run` until cancelled."""

    def __init__(
        self,
        config: ManagerConfig,
        pair: Callable[[], KeyPair],
        roots_pem: Callable[[], bytes],
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """`pair` and `roots_pem` are asked each time: certificates are renewed."""
        self._config = config
        self._pair = pair
        self._roots_pem = roots_pem
        self._clock = clock
        self._entropy = entropy
        self.store = Store()
        self.raft = RaftNode(
            config.place, self.store, clock, entropy, tick_seconds=config.tick_seconds
        )
        self.committer = Committer(self.store, self.raft, clock)
        self.leadership = RaftLeadership(self.raft, self._dial_leader)
        self.leading = asyncio.Event()
        """Set while this manager leads and all the leader's parts serve. They end their own
        streams, each with a last message, when leadership is lost."""
        self._health = Health("Raft")
        self._cas = CfsslClient(pair)
        self._ca = CAServer(self.store, self.committer, entropy, config.organization, roots_pem)
        self._dispatcher = Dispatcher(
            self.store, self.committer, self.raft, clock, entropy, config.place.node_id
        )
        self._broker = Broker(self.store, entropy)
        self._services = self._make_services()
        self._caller = self._own_caller()
        self._server = Server(
            self._services,
            self.credentials,
            StoreAuthorizer(self.store, config.organization),
            self.leadership,
            clock=clock,
            entropy=entropy,
        )

    def _make_services(self) -> list[object]:
        needs = Needs(
            store=self.store,
            committer=self.committer,
            membership=self.raft,
            clock=self._clock,
            entropy=self._entropy,
            plugins=NoPlugins(),
            external_cas=self._cas,
        )
        return [
            CA(self._ca),
            NodeCA(self._ca),
            self._dispatcher,
            self._broker.log_broker,
            self._broker.logs,
            Control(needs),
            ResourceAllocator(self.store, self.committer, self._clock, self._entropy),
            Watch(self.store),
            self._health,
        ]

    @property
    def port(self) -> int:
        """The port really bound."""
        return self._server.port

    @property
    def caller(self) -> InProcess:
        """Calls of this node to its own manager, forwarded to the leader where needed."""
        return self._caller

    def _own_caller(self) -> InProcess:
        peer = Peer(
            node_id=self._config.place.node_id,
            organization=self._config.organization,
            roles=(MANAGER_ROLE,),
            remote_addr=self._config.place.addr,
            local=True,
        )
        return InProcess(self._services, peer, self.leadership)

    def credentials(self) -> Credentials:
        """What port 2377 shows and trusts now; both roots while a rotation runs."""
        pair = self._pair()
        cluster = self.store.view().cluster()
        roots = trust_bundle(cluster.root_ca) if cluster is not None else self._roots_pem()
        return Credentials(roots, pair.cert_pem, pair.key_pem)

    async def _dial_leader(self, addr: str) -> Caller:
        return await dial(addr, self.credentials(), clock=self._clock, entropy=self._entropy)

    async def run(self, ready: asyncio.Event) -> None:
        """Serve until cancelled; `ready` once Raft's state is applied and the port is open.

        Raises `OSError` when the port cannot be opened, and what the Raft member raises.
        """
        try:
            async with Tasks() as tasks:
                raft_ready, open_for_calls = asyncio.Event(), asyncio.Event()
                tasks.spawn(self.raft.run(raft_ready), "raft")
                await raft_ready.wait()
                serving = self._server.run(open_for_calls, list(self._config.listen))
                tasks.spawn(serving, "port-2377")
                await open_for_calls.wait()
                self._health.set("Raft", True)
                tasks.spawn(self._lead_when_elected(), "leadership")
                ready.set()
                await asyncio.Event().wait()
        finally:
            await self.leadership.close()

    async def _lead_when_elected(self) -> None:
        changed = asyncio.Event()
        unsubscribe = self.raft.subscribe(changed.set)
        try:
            while True:
                changed.clear()
                if self.raft.is_leader():
                    await self._lead(changed)
                else:
                    await changed.wait()
        finally:
            unsubscribe()

    async def _lead(self, changed: asyncio.Event) -> None:
        log.info("this manager leads")
        try:
            async with Tasks() as tasks:
                tasks.spawn(self._leader_group().run(self.leading), "leader")
                while self.raft.is_leader():
                    changed.clear()
                    await changed.wait()
        except* NotLeader:
            log.info("leadership was lost while it began")
        finally:
            self.leading.clear()

    def _leader_group(self) -> LeaderGroup:
        roles = RoleEffects(self.raft, Membership(self.raft, self._entropy))
        reconciler = Reconciler(
            [
                KeyManager(),
                Signer(),
                Allocator(),
                RoleManager(self.raft.members),
                RootRotation(),
                Blacklist(),
            ],
            self.store,
            self.committer,
            self._clock,
            self._entropy,
            {
                SignExternally: ExternalSigner(self._cas, self.committer),
                RemoveRaftMember: roles.remove,
                TransferLeadership: roles.transfer,
            },
        )
        return LeaderGroup(
            self.committer,
            self._entropy,
            self._config.start,
            [
                ("dispatcher", self._dispatcher),
                ("logbroker", self._broker),
                ("ca", self._ca),
                ("control-loops", reconciler),
            ],
        )

    def members(self) -> Sequence[api.Peer]:
        """Every manager's id and address, as this one knows them."""
        return [api.Peer(node_id=m.node_id, addr=m.addr) for m in self.raft.members()]
