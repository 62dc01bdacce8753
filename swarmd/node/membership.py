"""This node's life in one cluster: agent and renewals always, a manager while it is one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from swarmd import api
from swarmd.base.aio import Lane, Tasks, until
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import FailedPrecondition, SwarmError
from swarmd.cluster import ca
from swarmd.cluster.ca import Identity, KeyPair, envelope
from swarmd.cluster.model.defaults import ClusterStart
from swarmd.manager.manager import Manager, ManagerConfig
from swarmd.manager.raftnode import Place, RaftDisk
from swarmd.node.founding import ensure_log_key
from swarmd.node.identity import Dial, Granted, IdentityClient, Request
from swarmd.node.locker import Locker
from swarmd.node.remotes import OBSERVATION, Remote, Remotes
from swarmd.node.renewer import Renewed, Renewer
from swarmd.node.statedir import KeyStore, NodeSettings, StateDir
from swarmd.rpc.peer import Caller
from swarmd.rpc.tls import Credentials
from swarmd.worker.agent import Agent
from swarmd.worker.agent.describe import LocalEngine, describe

log = logging.getLogger(__name__)

DIAL_SECONDS = 5.0
LEADING_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Outfit:
    """What every membership of this machine is equipped with."""

    clock: Clock
    entropy: Entropy
    dial: Dial
    hostname: str
    engine: LocalEngine | None = None
    tick_seconds: float = 1.0


class Membership:
    """One node in one cluster. `run` once, until cancelled; what it learns goes to disk."""

    def __init__(
        self,
        state: StateDir,
        keys: KeyStore,
        settings: NodeSettings,
        outfit: Outfit,
        lane: Lane,
        start: ClusterStart | None = None,
    ) -> None:
        """`keys` is open. `start`: this node begins a new cluster."""
        self._state = state
        self._keys = keys
        self._settings = settings
        self._outfit = outfit
        self._lane = lane
        self._start = start
        self._root_pem = state.root_pem() or b""
        self._identity = keys.identity()
        self._chosen: Remote | None = None
        self._role_changed = asyncio.Event()
        self._remotes_changed = asyncio.Event()
        self._node: api.Node | None = None
        self.registered = asyncio.Event()
        """Set by the first session with a manager."""
        self.manager: Manager | None = None
        self.remotes = Remotes(state.remotes(), lambda _: self._remotes_changed.set())
        self._client = IdentityClient(
            outfit.dial, self.remotes, outfit.clock, outfit.entropy, self._own_manager
        )
        self._agent = Agent(
            self._connect, self._describe, self, outfit.clock, outfit.entropy, self._root_pem
        )
        self._granted: Granted | None = None
        self._renewer = Renewer(
            lambda: self._identity, self._renew, self._on_renewed, outfit.clock, outfit.entropy
        )

    @property
    def identity(self) -> Identity:
        """Who this node is, by its present certificate."""
        return self._identity

    def managers(self) -> list[Remote]:
        """The managers this node knows; a manager knows them from its member list."""
        if self.manager is not None and (members := self.manager.members()):
            return sorted(Remote(peer.node_id, peer.addr) for peer in members)
        return self.remotes.all()

    def credentials(self) -> Credentials:
        """What this node shows when it dials, and whom it trusts."""
        pair = self._identity.pair
        return Credentials(self._root_pem, pair.cert_pem, pair.key_pem)

    async def run(self, ready: asyncio.Event) -> None:
        """Live in the cluster. `ready`: a worker is registered, a manager serves.

        Raises what ends a manager: a port or a log that cannot be had.
        """
        async with Tasks() as tasks:
            tasks.spawn(self._save_remotes(), "node-remotes")
            manager_ready = asyncio.Event()
            if self._identity.is_manager:
                tasks.spawn(self._manage(manager_ready), "node-manager")
                await manager_ready.wait()
                await self._first_leadership()
                ready.set()
            else:
                tasks.spawn(self._manage(manager_ready), "node-manager")
            tasks.spawn(self._agent.run(self.registered), "node-agent")
            tasks.spawn(self._renewer.run(asyncio.Event()), "node-renewer")
            await self.registered.wait()
            ready.set()
            await asyncio.Event().wait()

    async def _first_leadership(self) -> None:
        """Give a sole manager the moment it needs to lead, so that its agent finds a leader."""
        if self.manager is not None and len(self.manager.members()) < 2:
            await until(self.manager.leading, LEADING_SECONDS)

    # Being a manager

    async def _manage(self, ready: asyncio.Event) -> None:
        """Run a manager whenever the certificate says so, for as long as it does."""
        while True:
            self._role_changed.clear()
            if not self._identity.is_manager:
                await self._role_changed.wait()
                continue
            async with Tasks() as tasks:
                tasks.spawn(self._run_manager(ready), "manager")
                while self._identity.is_manager:
                    self._role_changed.clear()
                    await self._role_changed.wait()

    async def _run_manager(self, ready: asyncio.Event) -> None:
        directory = self._state.raft
        if self._start is None and not RaftDisk.exists(directory):
            raise FailedPrecondition(
                "this node was made a manager, but joining a quorum of managers is not offered yet"
            )
        await self._lane.run(partial(ensure_log_key, self._keys, self._outfit.entropy))
        manager = Manager(
            self._manager_config(directory),
            self._pair,
            lambda: self._root_pem,
            self._outfit.clock,
            self._outfit.entropy,
        )
        locker = Locker(
            self._keys,
            manager.store,
            manager.raft,
            self._lane,
            self._outfit.entropy,
            self._renewer.renew_now,
        )
        serving = asyncio.Event()
        self.manager = manager
        try:
            async with Tasks() as tasks:
                tasks.spawn(manager.run(serving), "manager")
                await serving.wait()
                tasks.spawn(locker.run(), "locker")
                ready.set()
                await asyncio.Event().wait()
        finally:
            self.manager = None

    def _manager_config(self, directory: Path) -> ManagerConfig:
        file = self._keys.file()
        keys = [key for key in (file.pending_dek, file.dek) if key]
        place = Place(
            directory=directory,
            node_id=self._identity.node_id,
            addr=self._settings.advertise_addr,
            encryptor=envelope.secretbox(keys[0], self._outfit.entropy),
            decryptor=envelope.decryptor(*keys),
        )
        return ManagerConfig(
            place=place,
            organization=self._identity.organization,
            listen=(self._settings.listen_addr,),
            start=self._start,
            tick_seconds=self._outfit.tick_seconds,
        )

    def _pair(self) -> KeyPair:
        return self._identity.pair

    def _own_manager(self) -> Caller | None:
        return self.manager.caller if self.manager is not None else None

    # What the agent needs

    async def _connect(self) -> Caller:
        own = self._own_manager()
        if own is not None:
            self._chosen = None
            return own
        self._chosen = self.remotes.select(self._outfit.entropy)
        return await self._outfit.dial(
            self._chosen.addr,
            self.credentials(),
            server_name="swarm-manager",
            timeout=DIAL_SECONDS,
        )

    async def _describe(self) -> api.NodeDescription:
        verified = ca.verify(
            self._identity.pair.cert_pem,
            self._root_pem,
            self._outfit.clock.now(),
            allow_expired=True,
        )
        info = ca.tls_info(self._root_pem, verified.issuer)
        return await describe(info, self._outfit.engine, self._outfit.hostname)

    def on_managers(self, managers: Sequence[api.WeightedPeer]) -> None:
        """Take over the list of managers a session brought."""
        self.remotes.replace((Remote(m.peer.node_id, m.peer.addr), m.weight) for m in managers)

    def on_node(self, node: api.Node) -> None:
        """React to what managers want of this node: another role, or a new certificate."""
        before, self._node = self._node, node
        wanted = ca.MANAGER if node.spec.desired_role == api.NodeRole.MANAGER else ca.WORKER
        moved = before is not None and before.spec.desired_role != node.spec.desired_role
        rotate = node.certificate.status.state == api.IssuanceStatus.State.ROTATE
        if moved or rotate:
            self._renewer.expect(wanted)
            self._renewer.renew_now()

    def on_network_keys(self, keys: Sequence[api.EncryptionKey]) -> None:
        """Gossip keys are for a network driver on this host; none runs inside swarmd."""

    def on_root_ca(self, pem: bytes) -> None:
        """Trust the cluster's new root once our own certificate is good under it."""
        try:
            ca.verify(self._identity.pair.cert_pem, pem, self._outfit.clock.now())
        except SwarmError as error:
            log.warning("the cluster's new root does not fit our certificate: %s", error)
            return
        self._root_pem = pem
        self._state.save_root(pem)
        self._agent.tls_changed(pem)

    def on_session(self, error: SwarmError | None) -> None:
        """Rate the manager connected last."""
        if self._chosen is not None:
            weight = OBSERVATION if error is None else -OBSERVATION
            self.remotes.observe_if_known(self._chosen, weight)

    async def _save_remotes(self) -> None:
        while True:
            await self._remotes_changed.wait()
            self._remotes_changed.clear()
            await self._lane.run(partial(self._state.save_remotes, self.remotes.all()))

    # Certificates

    async def _renew(self) -> Identity:
        """Get a new certificate and put it on disk."""
        granted = await self._client.obtain(self._root_pem, Request(current=self._identity))
        kek = granted.kek if granted.identity.is_manager else None
        await self._lane.run(partial(self._keys.write, granted.identity.pair, kek))
        if granted.root_pem != self._root_pem:
            await self._lane.run(partial(self._state.save_root, granted.root_pem))
        self._granted = granted
        return granted.identity

    def _on_renewed(self, outcome: Renewed) -> None:
        """Put a new certificate to use: towards managers, and as a role."""
        if outcome.identity is None or self._granted is None:
            return
        self._root_pem = self._granted.root_pem
        self._identity = outcome.identity
        self._role_changed.set()
        self._agent.tls_changed(self._root_pem)
