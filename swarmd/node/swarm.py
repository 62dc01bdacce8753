"""The node and its place in a swarm: none, being looked for, held, or lost with a reason.

`init`, `join`, `leave` and `unlock` are commands of an operator; the face calls them. One
membership lives at a time, as a child of `run`.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from swarmd import api
from swarmd.base.aio import Lane, Tasks, cancel_and_wait, first_of
from swarmd.base.backoff import Backoff
from swarmd.base.errors import FailedPrecondition, SwarmError, Unauthenticated, Unavailable
from swarmd.cluster.ca.errors import InvalidKEK
from swarmd.cluster.model.defaults import ClusterStart
from swarmd.manager.manager import Manager
from swarmd.manager.raftnode import NodeStopped, RaftDisk
from swarmd.node.backup import Source, put_back, read, take_away
from swarmd.node.founding import Wishes, found
from swarmd.node.identity import IdentityClient, Request
from swarmd.node.membership import Membership, Outfit
from swarmd.node.moving import demand_found
from swarmd.node.recovery import Outlook, look_out
from swarmd.node.remotes import Remote, Remotes
from swarmd.node.statedir import KeyStore, NodeSettings, StateDir, StateError

log = logging.getLogger(__name__)

T = TypeVar("T")
Readdress = Callable[[NodeSettings], NodeSettings]

# `docker swarm init` and `join` answer within this time; a join then goes on by itself.
ready_seconds_max = 20.0
RETRY = Backoff(base_seconds=2.0, cap_seconds=30.0)


NO_MANAGER = "no manager runs on this node now; its state and reason are in info"
WRONG_KEY = "swarm could not be unlocked: invalid key provided"


class Place(enum.Enum):
    """Where the node stands; the words are those of /info."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


class NotHere(FailedPrecondition):
    """This node itself refuses a command in its present state."""


class JoinGoesOn(SwarmError):
    """The join took too long to wait for; it continues in the background."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a membership is begun with: how, and for a new cluster its first objects.

    `fresh`: an operator waits for it; a failure ends it instead of being tried again.
    `alone`: the other managers are given up, this one goes on without them.
    """

    settings: NodeSettings
    cluster: ClusterStart | None = None
    fresh: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class JoinWish:
    """A join as the operator asked for it; addresses are "host:port"."""

    token: str = field(repr=False)
    settings: NodeSettings
    availability: api.NodeSpec.Availability = api.NodeSpec.Availability.ACTIVE


class SwarmNode:
    """This machine as a node. `run` first; commands may come at any time after `ready`."""

    def __init__(
        self, state: StateDir, outfit: Outfit, readdress: Readdress = lambda settings: settings
    ) -> None:
        """`readdress` says what the daemon's options make of settings found on disk."""
        self._state = state
        self._outfit = outfit
        self._readdress = readdress
        self._lane = Lane("node-state")
        self._tasks: Tasks | None = None
        self._life: asyncio.Task[Any] | None = None
        # One command at a time. Each bounds its own time, so waiting for it ends.
        self._command = asyncio.Lock()
        self.place = Place.INACTIVE
        self.error = ""
        self.membership: Membership | None = None
        self.settings = NodeSettings()
        self._keys: KeyStore | None = None  # open while a life goes on

    async def run(self, ready: asyncio.Event) -> None:
        """Go on where the state on disk left off; then serve commands until cancelled.

        `ready` does not wait for the swarm: the REST face must answer while a node looks for
        its managers. A state that cannot be read is shown as state "error" and left alone.
        """
        try:
            async with Tasks() as self._tasks:
                await self._resume()
                ready.set()
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            self._lane.close()

    async def _resume(self) -> None:
        try:
            await self._take_up()
        except SwarmError as error:
            # The operator can still look, and leave: the REST face must come up.
            self.place, self.error = Place.ERROR, str(error)
            log.error("the state of this node cannot be used: %s", error)

    async def _take_up(self) -> None:
        settings = await self._blocking(self._state.settings)
        if settings is None:
            if self._state.has_identity():
                raise StateError(f"{self._state.settings_path} is missing")
            return
        self.settings = self._readdress(settings)
        if self.settings != settings and not RaftDisk.exists(self._state.raft):
            # A manager writes it down once the others know it so.
            await self._blocking(partial(self._state.save_settings, self.settings))
        if await self._blocking(self._state.is_locked):
            self.place = Place.LOCKED
        else:
            keys = await self._open_keys(b"")
            self._begin(keys, Start(self.settings))

    @property
    def is_manager(self) -> bool:
        """A manager by its certificate, or by the log it keeps when it cannot run."""
        if self.membership is not None:
            return self.membership.identity.is_manager
        return RaftDisk.exists(self._state.raft)

    # Commands

    async def init(self, wishes: Wishes, settings: NodeSettings) -> str:
        """Begin a cluster; returns the node's id once it is ready. Undone if it cannot be."""
        async with self._command:
            self._demand(Place.INACTIVE)
            self.settings, self.place = settings, Place.PENDING
            try:
                return await self._found(wishes)
            except BaseException as error:
                await self._undo(error)
                raise

    async def _found(self, wishes: Wishes) -> str:
        keys = KeyStore(self._state, self._outfit.entropy)
        await self._blocking(self._state.prepare)
        start = await self._blocking(
            partial(found, self._state, keys, wishes, self._outfit.clock, self._outfit.entropy)
        )
        await self._blocking(partial(self._state.save_settings, self.settings))
        await self._settled(self._begin(keys, Start(self.settings, start, fresh=True)))
        await self._registered()
        return start.node_id

    async def _registered(self) -> None:
        membership = self.membership
        if self.place is Place.ACTIVE and membership is not None:
            async with asyncio.timeout(ready_seconds_max):
                await membership.registered.wait()

    async def go_on_alone(self, settings: NodeSettings) -> str:
        """Make this manager the only one of its cluster (PROTOCOL 3.8); returns the node's id.

        The others are removed for good; nodes, certificates and all other objects stay. When
        it cannot be done the node goes on as it was.
        """
        async with self._command:
            if not self.is_manager or self.place is Place.LOCKED:
                raise NotHere("this node is not a manager")
            keys = self._keys or await self._open_keys(b"")
            before, remotes = self.settings, await self._blocking(self._state.remotes)
            try:
                await self._begin_again(keys, Start(settings, alone=True), ())
            except SwarmError:
                await self._begin_again(keys, Start(before), remotes, wait=False)
                raise
            await self._registered()
            return keys.identity().node_id

    async def _begin_again(
        self, keys: KeyStore, start: Start, remotes: Sequence[Remote], *, wait: bool = True
    ) -> None:
        await self._end_life()
        self.settings = start.settings
        await self._blocking(partial(self._state.save_settings, start.settings))
        await self._blocking(partial(self._state.save_remotes, remotes))
        settled = self._begin(keys, start)
        if wait:
            await self._settled(settled)

    async def backup(self) -> bytes:
        """This manager's state as applied now. Raises `Unavailable` when none runs here."""
        manager, keys = self._own_manager()
        source = Source(self._state, keys, self.settings, self._outfit.hostname)
        try:
            taken = manager.raft.checkpoint()
        except NodeStopped as error:
            raise Unavailable(NO_MANAGER) from error
        clock, entropy = self._outfit.clock, self._outfit.entropy
        return await self._blocking(partial(take_away, source, taken, clock, entropy))

    async def restore(self, data: bytes, settings: NodeSettings) -> str:
        """Go on as the only manager of the cluster in a backup; returns the node's id.

        Raises `InvalidArgument` for a backup that is not whole; then nothing was changed.
        """
        async with self._command:
            self._demand(Place.INACTIVE)
            found = await self._blocking(partial(read, data, self._outfit.clock))
            self.settings, self.place = settings, Place.PENDING
            try:
                work = partial(put_back, self._state, found, settings, self._outfit.entropy)
                keys, self.settings = await self._blocking(work)
                start = Start(self.settings, fresh=True, alone=True)
                await self._settled(self._begin(keys, start))
                await self._registered()
            except BaseException as error:
                await self._undo(error)
                raise
            return found.node_id

    async def move(self, settings: NodeSettings, *, force: bool = False) -> str:
        """Have this manager known by the address in `settings`; returns the one before.

        Raises what stands against it; nothing is changed then. `force`: nodes that cannot be
        told are left behind, and a sole manager need not be able to dial the address.
        """
        async with self._command:
            manager, keys = self._own_manager()
            if not force:
                demand_found(manager, keys.identity().node_id, settings.advertise_addr)
            before, previous = self.settings, manager.address.known
            # On disk first: after a crash in between the next start goes on with it.
            await self._change_settings(settings)
            try:
                await manager.move(settings.advertise_addr, settings.listen_addr, unchecked=force)
            except BaseException as error:
                await self._change_settings(before)
                if isinstance(error, OSError):
                    text = describe_failure(error, settings.listen_addr)
                    raise FailedPrecondition(text.removeprefix("manager stopped: ")) from error
                raise
            return previous

    async def _change_settings(self, settings: NodeSettings) -> None:
        self.settings = settings
        if self.membership is not None:
            self.membership.change_settings(settings)
        await self._blocking(partial(self._state.save_settings, settings))

    def outlook(self) -> Outlook:
        """What going on alone would mean. Raises `Unavailable` when no manager runs here."""
        manager, keys = self._own_manager()
        try:
            return look_out(manager, keys.identity().node_id)
        except NodeStopped as error:
            raise Unavailable(NO_MANAGER) from error

    def _own_manager(self) -> tuple[Manager, KeyStore]:
        membership = self.membership
        if membership is None or membership.manager is None or self._keys is None:
            raise Unavailable(NO_MANAGER)
        return membership.manager, self._keys

    async def join(self, wish: JoinWish) -> None:
        """Join a cluster; returns when registered. Raises `JoinGoesOn` after 20 seconds."""
        async with self._command:
            self._demand(Place.INACTIVE)
            self.settings, self.place = wish.settings, Place.PENDING
            task = self._spawn(self._join(wish), "node-join")
            self._life = task
        done, _ = await asyncio.wait({task}, timeout=ready_seconds_max)
        if not done:
            raise JoinGoesOn
        if task.cancelled():
            raise NotHere("the join was given up")
        error = task.result()
        if error is not None:
            raise error

    async def _join(self, wish: JoinWish) -> SwarmError | None:
        """The whole of a join; what went wrong is returned, and nothing is left of it then."""
        try:
            keys = await self._certify(wish)
            await self._settled(self._begin(keys, Start(wish.settings, fresh=True)))
        except SwarmError as error:
            self._life = None  # that is this task
            await self._undo(error)
            return error
        return None

    async def _certify(self, wish: JoinWish) -> KeyStore:
        remotes = Remotes([Remote("", wish.settings.remote_addr)])
        outfit = self._outfit
        client = IdentityClient(outfit.dial, remotes, outfit.clock, outfit.entropy)
        root_pem = await client.download_root(wish.token)
        granted = await client.obtain(root_pem, Request(wish.token, wish.availability))
        keys = KeyStore(self._state, outfit.entropy)
        await self._blocking(partial(self._state.save_root, granted.root_pem))
        await self._blocking(partial(keys.write, granted.identity.pair, granted.kek))
        await self._blocking(partial(self._state.save_remotes, remotes.all()))
        await self._blocking(partial(self._state.save_settings, wish.settings))
        return keys

    async def leave(self) -> None:
        """Stop whatever runs and forget the swarm. The quorum question was asked before."""
        async with self._command:
            await self.hand_over()
            await self._end()

    async def hand_over(self) -> None:
        """Before an orderly end: let another manager lead, if this one does. Takes seconds."""
        manager = self.membership.manager if self.membership is not None else None
        if manager is not None:
            await manager.hand_over()

    async def unlock(self, key: bytes) -> None:
        """Start a locked node. Raises `Unauthenticated` for a wrong key."""
        async with self._command:
            self._demand(Place.LOCKED)
            try:
                keys = await self._open_keys(key)
            except InvalidKEK as error:
                raise Unauthenticated(WRONG_KEY) from error
            await self._settled(self._begin(keys, Start(self.settings)))

    # One life

    def _demand(self, place: Place) -> None:
        if self.place is not place:
            raise NotHere(f"this node is {self.place.value}, not {place.value}")

    def _spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        if self._tasks is None:
            work.close()
            raise NotHere("the node is not running")
        return self._tasks.spawn(work, name)

    async def _blocking(self, work: Callable[[], T]) -> T:
        try:
            return await self._lane.run(work)
        except OSError as error:
            raise StateError(f"the swarm's state on disk cannot be used: {error}") from error

    async def _open_keys(self, kek: bytes) -> KeyStore:
        keys = KeyStore(self._state, self._outfit.entropy)
        await self._blocking(partial(keys.open, kek))
        return keys

    def _begin(self, keys: KeyStore, start: Start) -> asyncio.Event:
        """Start a life; the event tells that it is ready, or over."""
        self.place, self._keys = Place.PENDING, keys
        settled = asyncio.Event()
        self._life = self._spawn(self._live(keys, start, settled), "node-life")
        return settled

    async def _settled(self, settled: asyncio.Event) -> None:
        """Wait until a life is ready; raises what it ended of."""
        await settled.wait()
        if self.place is Place.ERROR:
            raise SwarmError(self.error)

    async def _live(self, keys: KeyStore, start: Start, settled: asyncio.Event) -> None:
        """Be a member until cancelled. What fails is shown as state "error" and tried again."""
        attempt = 0
        while True:
            try:
                await self._once(keys, start, settled)
            except* (SwarmError, OSError) as group:
                self.error = describe_failure(first_of(group), self.settings.listen_addr)
                log.error("this node's part in the swarm ended: %s", self.error)
            if self.place is Place.ACTIVE:  # it had gone well for a while: begin anew
                attempt = 0
            self.place = Place.ERROR
            if start.fresh and not settled.is_set():
                settled.set()
                return
            settled.set()
            start = replace(start, settings=self.settings, cluster=None, fresh=False, alone=False)
            await asyncio.sleep(RETRY.delay(attempt, self._outfit.entropy))
            attempt += 1

    async def _once(self, keys: KeyStore, start: Start, settled: asyncio.Event) -> None:
        membership = Membership(
            self._state,
            keys,
            start.settings,
            self._outfit,
            self._lane,
            start.cluster,
            alone=start.alone,
        )
        self.membership = membership
        ready = asyncio.Event()
        try:
            async with Tasks() as tasks:
                tasks.spawn(membership.run(ready), "membership")
                await ready.wait()
                self.place, self.error = Place.ACTIVE, ""
                settled.set()
                await asyncio.Event().wait()
        finally:
            self.membership = None

    async def _undo(self, error: BaseException) -> None:
        """Forget a cluster that could not begin; a disk that fails twice hides no reason."""
        try:
            await self._end()
        except StateError as second:
            log.error("%s, and its remains stay: %s", error, second)
            self._reset()

    async def _end(self) -> None:
        await self._end_life()
        await self._blocking(self._state.forget)
        self._reset()

    async def _end_life(self) -> None:
        life, self._life = self._life, None
        if life is not None and not life.done():
            await cancel_and_wait(life)

    def _reset(self) -> None:
        self.place, self.error, self.settings = Place.INACTIVE, "", NodeSettings()
        self._keys = None


def describe_failure(error: BaseException, listen_addr: str) -> str:
    """What /info and the operator are told; a port that cannot be had in the stock words."""
    reasons = {
        errno.EADDRINUSE: "address already in use",
        errno.EADDRNOTAVAIL: "cannot assign requested address",
    }
    if isinstance(error, OSError) and error.errno in reasons:
        return (
            "manager stopped: failed to listen on remote API address: "
            f"listen tcp {listen_addr}: bind: {reasons[error.errno]}"
        )
    return str(error)
