"""One manager: its store and Raft member, its services on port 2377, and the leader's parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import DeadlineExceeded, NotLeader, SwarmError, Unavailable
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
from swarmd.cluster.store import Event, Store
from swarmd.manager.caserver import CA, CAServer, NodeCA, StoreAuthorizer
from swarmd.manager.caserver.external import CfsslClient, ExternalSigner
from swarmd.manager.commit import Committer
from swarmd.manager.controlapi import Control, Needs, NoPlugins
from swarmd.manager.dispatcher import Dispatcher
from swarmd.manager.joining import ask_to_join, join_group
from swarmd.manager.leader import LeaderGroup
from swarmd.manager.leadership import RaftLeadership
from swarmd.manager.logbroker import Broker
from swarmd.manager.ownaddress import OwnAddress
from swarmd.manager.peers import Peers, check_health
from swarmd.manager.raftnode import Membership, NotMember, Place, RaftDisk, RaftNode
from swarmd.manager.raftservice import RaftMembershipService, RaftService
from swarmd.manager.reconciler import Reconciler
from swarmd.manager.removals import Removals
from swarmd.manager.roles import RoleEffects
from swarmd.manager.services.health import Health
from swarmd.manager.services.resource import ResourceAllocator
from swarmd.manager.services.watchapi import Watch
from swarmd.manager.watch import StoreWatch
from swarmd.rpc.client import MANAGER_NAME, dial_manager
from swarmd.rpc.inprocess import InProcess
from swarmd.rpc.peer import MANAGER_ROLE, Caller, Peer
from swarmd.rpc.server import Credentials, Server

log = logging.getLogger(__name__)

DIAL_SECONDS = 5.0
# A new member waits this long to hear from its leader before it is said to be ready.
FIRST_LEADER_SECONDS = 10.0
HAND_OVER_SECONDS = 3.0
CREDENTIALS_SECONDS = 5.0  # how late connections notice other certificates or roots


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """What one manager is started with.

    `listen`: "ip:port"s. `start`: a new cluster's first objects, None otherwise. `join_via`
    chooses the manager to ask when this one is no member yet; None for one that starts alone.
    `lost_member`: the raft id this node had until it lost its log, if it did. `wanted_addr`: the
    "host:port" a member has itself known by, wherever it was before; empty when the one in the
    member list will do.
    """

    place: Place
    organization: str
    listen: tuple[str, ...]
    start: ClusterStart | None = None
    tick_seconds: float = 1.0
    join_via: Callable[[], str] | None = None
    lost_member: int = 0
    wanted_addr: str = ""


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
        self._raft_open = asyncio.Event()
        self._peers = Peers(self._dial_manager, entropy, lambda: self.raft.report_removed())
        self.raft = RaftNode(
            config.place,
            self.store,
            clock,
            entropy,
            transport=self._peers,
            tick_seconds=config.tick_seconds,
            fast_failover=True,
        )
        self._membership = Membership(self.raft, entropy)
        self.committer = Committer(self.store, self.raft, clock)
        self.leadership = RaftLeadership(self.raft, self._dial_manager)
        self.leading = asyncio.Event()
        """Set while this manager leads and all the leader's parts serve. They end their own
        streams, each with a last message, when leadership is lost."""
        self.ready = asyncio.Event()
        """Set while this manager serves as a member."""
        self._health = Health("Raft")
        self._cas = CfsslClient(pair)
        self._ca = CAServer(self.store, self.committer, entropy, config.organization, roots_pem)
        self._dispatcher = Dispatcher(
            self.store, self.committer, self.raft, clock, entropy, config.place.node_id
        )
        self._broker = Broker(self.store, entropy)
        self._joining = RaftMembershipService(self.raft, self._membership, self._check_address)
        self._services = self._make_services()
        self.address = OwnAddress(self.raft, self, entropy, config.wanted_addr)
        """What this manager is known by, and the way to change that."""
        self._caller = self._own_caller("")
        self._watched: dict[int, StoreWatch] = {}
        self._caller_addr = ""
        self._server = Server(
            self._services,
            self.credentials,
            StoreAuthorizer(self.store, config.organization),
            self.leadership,
            clock=clock,
        )
        self._removals = Removals(self.store, self._server)

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
            RaftService(self.raft, self._peers, NotMember, self._raft_open),
            self._joining,
            self._health,
        ]

    @property
    def port(self) -> int:
        """The port really bound."""
        return self._server.port

    @property
    def caller(self) -> InProcess:
        """Calls of this node to its own manager, forwarded to the leader where needed."""
        # The address may be the leader's finding, and may change.
        if (addr := self.address.known) != self._caller_addr:
            self._caller, self._caller_addr = self._own_caller(addr), addr
        return self._caller

    @contextmanager
    def changes(self, wanted: Callable[[Event], bool]) -> Iterator[StoreWatch]:
        """What changes in this manager's copy of the store, while the block lasts.

        For this process only: the objects are the stored ones themselves. A reader gets
        `ChannelClosed` when it falls behind, and when this manager ends.
        """
        with StoreWatch(self.store, wanted) as changes:
            self._watched[id(changes)] = changes
            try:
                yield changes
            finally:
                del self._watched[id(changes)]

    def _own_caller(self, addr: str) -> InProcess:
        return InProcess(self._services, self._own_peer(addr), self.leadership)

    def _own_peer(self, addr: str) -> Peer:
        return Peer(
            node_id=self._config.place.node_id,
            organization=self._config.organization,
            roles=(MANAGER_ROLE,),
            remote_addr=addr or self._config.place.addr,
            local=True,
        )

    def credentials(self) -> Credentials:
        """What port 2377 shows and trusts now; both roots while a rotation runs."""
        pair = self._pair()
        cluster = self.store.view().cluster()
        roots = trust_bundle(cluster.root_ca) if cluster is not None else self._roots_pem()
        return Credentials(roots, pair.cert_pem, pair.key_pem)

    async def _dial_manager(self, addr: str, node_id: str = "") -> Caller:
        """Connect to the manager at `addr`; with a node id it must be that one."""
        return await dial_manager(
            addr,
            self.credentials(),
            server_name=node_id or MANAGER_NAME,
            timeout=DIAL_SECONDS,
            clock=self._clock,
            entropy=self._entropy,
        )

    async def _check_address(self, addr: str, seconds: float, node_id: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                caller = await self._dial_manager(addr, node_id)
                try:
                    await check_health(caller, seconds)
                finally:
                    await caller.close()
        except TimeoutError:
            raise DeadlineExceeded("context deadline exceeded") from None

    async def run(self, ready: asyncio.Event) -> None:
        """Serve until cancelled; `ready` once Raft's state is applied and the port is open.

        Raises `OSError` when the port cannot be opened, `CannotJoin`, `NotMember` once this
        manager is removed, and what the Raft member raises.
        """
        unfollow = self._removals.follow()
        try:
            async with Tasks() as tasks:
                peers_ready = asyncio.Event()
                tasks.spawn(self._peers.run(peers_ready, self.raft), "raft-peers")
                await peers_ready.wait()
                await self._start_raft(tasks)
                tasks.spawn(self.leadership.run(), "leader-connection")
                tasks.spawn(self._lead_when_elected(), "leadership")
                tasks.spawn(self._watch_credentials(), "manager-credentials")
                tasks.spawn(self.address.run(), "manager-address")
                tasks.spawn(self._dial_anew_when_moved(), "manager-moved")
                self.ready.set()
                ready.set()
                await asyncio.Event().wait()
        finally:
            self.ready.clear()
            unfollow()
            for changes in list(self._watched.values()):
                changes.close()
            await self.leadership.close()

    async def _start_raft(self, tasks: Tasks) -> None:
        """Have state on disk before the port opens; a new member must be seen to serve first."""
        via = self._config.join_via
        new = via is not None and not RaftDisk.exists(self._config.place.directory)
        if not new:
            await self._run_raft(tasks)
        open_for_calls = asyncio.Event()
        tasks.spawn(self._server.run(open_for_calls, list(self._config.listen)), "port-2377")
        await open_for_calls.wait()
        self._health.set("Raft", True)
        if via is None or self.raft.id in self.raft.membership:
            return
        addr, lost = self._config.place.addr, self._config.lost_member
        self.raft.joined(await join_group(self._dial_manager, via(), addr, lost))
        if new:
            await self._run_raft(tasks)
        await self._first_leader()

    async def _run_raft(self, tasks: Tasks) -> None:
        ready = asyncio.Event()
        tasks.spawn(self.raft.run(ready), "raft")
        await ready.wait()
        self._peers.follow()
        self._raft_open.set()

    async def _first_leader(self) -> None:
        """Wait for a word from the leader: until then no call can be handed on."""
        changed = asyncio.Event()
        unsubscribe = self.raft.subscribe(changed.set)
        try:
            async with asyncio.timeout(FIRST_LEADER_SECONDS):
                while self.raft.leader() is None:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            log.warning("no word from the leader yet")
        finally:
            unsubscribe()

    async def _watch_credentials(self) -> None:
        """Connections keep what they were dialled with; after a change they are dialled anew."""
        used = self.credentials()
        while True:
            await asyncio.sleep(CREDENTIALS_SECONDS)
            now = self.credentials()
            if now != used:
                used = now
                await self._peers.refresh()
                await self.leadership.refresh()

    async def hand_over(self) -> None:
        """Before an orderly end: give leadership away, so that nobody waits for an election.

        Best effort within a few seconds; stock managers take part.
        """
        others = [m for m in self.raft.members() if m.raft_id != self.raft.id and m.reachable]
        if not self.raft.is_leader() or not others:
            return
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS):
                successor = await self._membership.transfer()
        except (SwarmError, TimeoutError) as error:
            log.warning("leadership was not handed over: %r", error)
        else:
            log.info("handed leadership over to manager %s", successor.node_id)

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
        group, reconciler = self._leader_group()
        try:
            async with Tasks() as tasks:
                tasks.spawn(group.run(self.leading), "leader")
                while self.raft.is_leader():
                    # Roles follow Raft's members, and who of them can be reached.
                    reconciler.look_again(RoleManager.name)
                    changed.clear()
                    await changed.wait()
        except* NotLeader:
            log.info("leadership was lost while it began")
        finally:
            self.leading.clear()

    def _leader_group(self) -> tuple[LeaderGroup, Reconciler]:
        roles = RoleEffects(self.raft, self._membership)
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
        group = LeaderGroup(
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
        return group, reconciler

    # Being known by another address

    async def move(self, addr: str, listen: str, *, unchecked: bool = False) -> None:
        """Be known by `addr` and listen on `listen`, both "host:port".

        Ports that are open stay open until the end: others may come by the old way for a
        while. Raises `OSError` when `listen` cannot be opened, `SwarmError` when the address
        was not changed; nothing is left changed then. `unchecked` as in `OwnAddress.move`.
        """
        opened = await self._server.listen_also(listen)
        try:
            await self.address.move(addr, unchecked=unchecked)
        except BaseException:
            if opened:
                await self._server.stop_listening(listen)
            raise

    async def _dial_anew_when_moved(self) -> None:
        """Connections from an address that is gone would hang for a while."""
        changed = asyncio.Event()
        unsubscribe = self.raft.subscribe(changed.set)
        known = self.address.known
        try:
            while True:
                await changed.wait()
                changed.clear()
                if (now := self.address.known) != known:
                    known = now
                    await self._peers.refresh()
                    await self.leadership.refresh()
        finally:
            unsubscribe()

    async def ask(self, via: str, addr: str) -> None:
        """Have another manager hand our wish for an address on to the leader."""
        await ask_to_join(self._dial_manager, via, addr)

    async def ask_self(self, addr: str, *, unchecked: bool) -> None:
        """Change the own address as the leader."""
        if unchecked:
            await self._membership.add(self._config.place.node_id, addr)
        else:
            await self._joining.join(api.JoinRequest(addr=addr), self._own_peer(addr))

    async def let_another_lead(self) -> None:
        """Let another manager lead. Raises `SwarmError`; worth asking again."""
        try:
            # One that has not applied a change of members yet does not stand for election.
            async with asyncio.timeout(HAND_OVER_SECONDS):
                successor = await self._membership.transfer()
        except TimeoutError:
            raise Unavailable("no other manager has taken over leadership yet") from None
        log.info("handed leadership over to manager %s", successor.node_id)

    def members(self) -> Sequence[api.Peer]:
        """Every manager's id and address, as this one knows them."""
        return [api.Peer(node_id=m.node_id, addr=m.addr) for m in self.raft.members()]
