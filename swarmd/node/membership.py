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
from swarmd.base.backoff import Backoff
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import SwarmError
from swarmd.cluster import ca
from swarmd.cluster.ca import Identity, KeyPair, envelope
from swarmd.cluster.model.defaults import ClusterStart
from swarmd.manager.joining import CannotJoin
from swarmd.manager.manager import Manager, ManagerConfig
from swarmd.manager.raftnode import NotMember, Place, RaftDisk
from swarmd.node.founding import ensure_log_key
from swarmd.node.identity import Dial, Granted, IdentityClient, Request
from swarmd.node.locker import Locker
from swarmd.node.moving import follow_address
from swarmd.node.remotes import OBSERVATION, NoRemotes, Remote, Remotes
from swarmd.node.renewer import Renewed, Renewer
from swarmd.node.statedir import KeyStore, NodeSettings, StateDir, StateError
from swarmd.rpc.peer import Caller
from swarmd.rpc.tls import Credentials
from swarmd.worker.agent import Agent
from swarmd.worker.agent.describe import LocalEngine, describe

log = logging.getLogger(__name__)

DIAL_SECONDS = 5.0
LEADING_SECONDS = 2.0
# A removed manager waits this long to be made a worker, twice (PROTOCOL 2.5).
ROLE_SECONDS = 16.0
REJOIN = Backoff(base_seconds=2.0, cap_seconds=30.0)


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
        *,
        alone: bool = False,
    ) -> None:
        """`keys` is open. `start`: this node begins a new cluster. `alone`: it gives up all
        other managers of its cluster. Raises `StateError`."""
        self._state = state
        self._keys = keys
        self._settings = settings
        self._outfit = outfit
        self._lane = lane
        self._start = start
        self._alone = alone
        self._root_pem = state.trusted_roots()
        self._identity = keys.identity()
        self._chosen: Remote | None = None
        self._role_changed = asyncio.Event()
        self._promoted = asyncio.Event()  # the last word of a manager: be one
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

    @property
    def expired(self) -> bool:
        """True when the certificate is too old to show: others refuse it, renewals too."""
        return self._identity.not_after <= self._outfit.clock.now()

    def managers(self) -> list[Remote]:
        """The managers this node knows; a manager knows them from its member list."""
        if self.manager is not None and (members := self.manager.members()):
            return sorted(Remote(peer.node_id, peer.addr) for peer in members)
        return self.remotes.all()

    def change_settings(self, settings: NodeSettings) -> None:
        """Go by other addresses from now on; a manager that runs is told by who calls this."""
        self._settings = settings

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
        """Run a manager whenever the certificate says so, for as long as it does.

        A node that works already outlives a manager that cannot be started; one that is just
        coming up does not.
        """
        attempt = 0
        await self._clear_up()
        while True:
            await self._until_role(is_manager=True)
            try:
                await self._manage_once(ready)
                attempt = 0
            except* NotMember:
                log.warning("this manager was removed from the cluster")
                ready.set()  # the node goes on without it
                await self._forget_log()
                await self._after_removal()
                attempt = 0
            except* CannotJoin as group:
                if not self.registered.is_set():
                    raise
                log.warning("this node could not join the managers: %s", group.exceptions)
                await asyncio.sleep(REJOIN.delay(attempt, self._outfit.entropy))
                attempt += 1
            if not self._identity.is_manager:
                await self._forget_log()

    async def _manage_once(self, ready: asyncio.Event) -> None:
        async with Tasks() as tasks:
            tasks.spawn(self._run_manager(ready), "manager")
            await self._until_role(is_manager=False)
            log.info("this node is a worker now")

    async def _until_role(self, *, is_manager: bool) -> None:
        while self._identity.is_manager != is_manager:
            self._role_changed.clear()
            await self._role_changed.wait()

    async def _after_removal(self) -> None:
        """Wait for the worker's certificate that goes with a removal; else ask for one.

        Who then still has a manager's certificate was promoted again, and joins anew: at once
        when a manager says so, else after the stock time.
        """
        self._promoted.clear()
        async with Tasks() as tasks:
            demoted = tasks.spawn(self._until_role(is_manager=False), "node-demotion")
            promoted = tasks.spawn(self._promoted.wait(), "node-promotion")
            for renew in (False, True):
                if renew:
                    log.warning("no worker certificate yet after the removal: renewing")
                    self._renewer.renew_now()
                done, _ = await asyncio.wait(
                    {demoted, promoted},
                    timeout=ROLE_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if done:
                    return

    async def _clear_up(self) -> None:
        """Finish what a crash interrupted: the log goes where its manager is none any more."""
        if self._identity.is_manager:
            await self._lane.run(self._state.remove_leftovers)
        else:
            await self._forget_log()

    async def _forget_log(self) -> None:
        """What a manager leaves behind goes with it: the log, and the keys to read it."""
        await self._lane.run(self._erase_log)

    def _erase_log(self) -> None:
        self._state.forget_log()
        self._keys.update(lambda file: file.without_deks())

    async def _run_manager(self, ready: asyncio.Event) -> None:
        await self._lane.run(partial(ensure_log_key, self._keys, self._outfit.entropy))
        lost = await self._lane.run(self._lost_member)
        manager = Manager(
            self._manager_config(self._state.raft, lost),
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
                await self._note_member(manager.raft.id)
                tasks.spawn(locker.run(), "locker")
                following = follow_address(manager, self._agent.reopen, self._keep_settings)
                tasks.spawn(following, "manager-address")
                ready.set()
                await asyncio.Event().wait()
        finally:
            self.manager = None
            self._start, self._alone = None, False

    async def _note_member(self, raft_id: int) -> None:
        """Write down whose log this is. Only the loss of the log asks for it again."""
        try:
            await self._lane.run(partial(self._state.save_raft_member, raft_id))
        except OSError as error:
            log.error("the raft id of this manager was not written down: %s", error)

    async def _keep_settings(self) -> None:
        """Write down settings that came from the daemon's options, now that they hold."""
        settings = self._settings

        def keep() -> None:
            if self._state.settings() != settings:
                self._state.save_settings(settings)

        await self._lane.run(keep)

    def _other_manager(self) -> str:
        """The address of some other manager. Raises `NoRemotes`."""
        own = (self._identity.node_id, self._settings.advertise_addr)
        exclude = [name for name in own if name]
        try:
            return self.remotes.select(self._outfit.entropy, exclude=exclude).addr
        except NoRemotes:
            text = f"{self._state.raft} holds no log, and no other manager is known to get it from"
            raise NoRemotes(text) from None

    def _lost_member(self) -> int:
        """In the lane: the raft member this node was whose log is gone; 0 as a rule."""
        return 0 if RaftDisk.exists(self._state.raft) else self._state.raft_member()

    def _manager_config(self, directory: Path, lost_member: int) -> ManagerConfig:
        file = self._keys.file()
        keys = [key for key in (file.pending_dek, file.dek) if key]
        place = Place(
            directory=directory,
            node_id=self._identity.node_id,
            addr=self._settings.advertise_addr or self._settings.listen_addr,
            encryptor=envelope.secretbox(keys[0], self._outfit.entropy),
            decryptor=envelope.decryptor(*keys),
            alone=self._alone,
        )
        return ManagerConfig(
            place=place,
            organization=self._identity.organization,
            listen=(self._settings.listen_addr,),
            start=self._start,
            tick_seconds=self._outfit.tick_seconds,
            join_via=self._other_manager if self._start is None else None,
            lost_member=lost_member,
            wanted_addr=self._settings.advertise_addr,
        )

    def _pair(self) -> KeyPair:
        return self._identity.pair

    def _own_manager(self) -> Caller | None:
        manager = self.manager
        return manager.caller if manager is not None and manager.ready.is_set() else None

    # What the agent needs

    async def _connect(self) -> Caller:
        own = self._own_manager()
        if own is not None:
            self._chosen = None
            return own
        mine = (self._identity.node_id,)
        self._chosen = self.remotes.select(self._outfit.entropy, exclude=mine)
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
        if node.role == node.spec.desired_role == api.NodeRole.MANAGER:
            self._promoted.set()
        else:
            self._promoted.clear()
        wanted = ca.MANAGER if node.spec.desired_role == api.NodeRole.MANAGER else ca.WORKER
        if before is None:
            moved = wanted != self._identity.role
        else:
            moved = before.spec.desired_role != node.spec.desired_role
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
        try:
            self._state.save_root(pem)
        except OSError as error:  # the next start is told of it again
            log.error("the cluster's new root was not written down: %s", error)
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
            try:
                await self._lane.run(partial(self._state.save_remotes, self.remotes.all()))
            except OSError as error:  # the node lives on what it knows; the next change tries again
                log.error("the list of managers was not written down: %s", error)

    # Certificates

    async def _renew(self) -> Identity:
        """Get a new certificate and put it on disk."""
        granted = await self._client.obtain(self._root_pem, Request(current=self._identity))
        try:
            await self._lane.run(partial(self._write, granted))
        except OSError as error:  # the old one is good for a while, maybe the disk is again
            raise StateError(f"the new certificate was not written down: {error}") from error
        self._granted = granted
        return granted.identity

    def _write(self, granted: Granted) -> None:
        # The root first: a newer one was believed because the present certificate is good under
        # it. The new certificate is not under the old root, and a node that starts so is lost.
        if granted.root_pem != self._root_pem:
            self._state.save_root(granted.root_pem)
        # A worker's key is empty: a manager that was demoted opens its key file with it.
        self._keys.write(granted.identity.pair, granted.kek)

    def _on_renewed(self, outcome: Renewed) -> None:
        """Put a new certificate to use: towards managers, and as a role."""
        if outcome.identity is None or self._granted is None:
            return
        self._root_pem = self._granted.root_pem
        self._identity = outcome.identity
        self._role_changed.set()
        self._agent.tls_changed(self._root_pem)
