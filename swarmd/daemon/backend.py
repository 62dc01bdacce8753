"""The node behind the REST face: translates between the face's values and the node's."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from swarmd import api
from swarmd.base.aio import ChannelClosed
from swarmd.base.errors import SwarmError, Unavailable
from swarmd.cluster.ca import unlock
from swarmd.cluster.ca.errors import CAError
from swarmd.cluster.store import Event
from swarmd.faces.engineapi import texts
from swarmd.faces.engineapi.addresses import Resolved, Surroundings, resolve_update
from swarmd.faces.engineapi.backend import (
    Caller,
    Changes,
    InitRequest,
    JoinRequest,
    KnownManager,
    LocalState,
    MoveRequest,
    Outlook,
    Refusal,
    Remote,
    RestoreRequest,
)
from swarmd.faces.engineapi.interfaces import Interfaces
from swarmd.manager.manager import Manager
from swarmd.manager.services.watchapi import message
from swarmd.node.founding import Wishes
from swarmd.node.statedir import NodeSettings
from swarmd.node.swarm import JoinGoesOn, JoinWish, NotHere, Place, SwarmNode
from swarmd.rpc import address

log = logging.getLogger(__name__)

AVAILABILITIES = {
    "": api.NodeSpec.Availability.ACTIVE,
    "active": api.NodeSpec.Availability.ACTIVE,
    "pause": api.NodeSpec.Availability.PAUSE,
    "drain": api.NodeSpec.Availability.DRAIN,
}


class NodeBackend:
    """Implements `faces.engineapi.Backend` over a `SwarmNode`."""

    def __init__(self, node: SwarmNode) -> None:
        self._node = node

    async def init(self, request: InitRequest) -> str:
        """Start a new cluster, or go on alone with the one there is; the node's id."""
        wishes = Wishes(
            availability=_availability(request.availability),
            default_address_pool=request.default_addr_pool or (),
            subnet_size=request.subnet_size,
            data_path_port=request.data_path_port,
            autolock=request.autolock,
        )
        settings = NodeSettings(
            local_addr=request.local_addr,
            listen_addr=request.listen_addr,
            advertise_addr=request.advertise_addr,
            data_path_addr=request.data_path_addr,
            default_address_pool=request.default_addr_pool or (),
            subnet_size=request.subnet_size,
            data_path_port=request.data_path_port,
        )
        if request.force_new_cluster and self._node.place is not Place.INACTIVE:
            return await self._node.go_on_alone(settings)
        return await self._node.init(wishes, settings)

    async def join(self, request: JoinRequest) -> None:
        """Join; what the remote manager answered is raised as it came."""
        settings = NodeSettings(
            local_addr=local_address_towards(request.remote_addr),
            remote_addr=request.remote_addr,
            listen_addr=request.listen_addr,
            advertise_addr=request.advertise_addr,
            data_path_addr=request.data_path_addr,
        )
        wish = JoinWish(request.join_token, settings, _availability(request.availability))
        try:
            await self._node.join(wish)
        except JoinGoesOn:
            raise Refusal(503, texts.JOIN_TIMEOUT) from None
        except NotHere as error:
            raise Refusal(503, error.message) from error
        except CAError as error:  # found out by this node: token, digest, certificate
            raise Refusal(500, error.message) from error

    async def leave(self, force: bool) -> None:
        """Stop and forget; `force` was weighed by the face."""
        await self._node.leave()

    async def unlock(self, key: str) -> None:
        """Start a locked node with `key` (SWMKEY-1-...)."""
        await self._node.unlock(unlock.parse_unlock_key(key))

    async def backup(self) -> bytes:
        """The state of this node's manager."""
        return await self._node.backup()

    async def restore(self, request: RestoreRequest) -> str:
        """Go on alone from a backup; the node's id."""
        settings = NodeSettings(
            local_addr=request.local_addr,
            listen_addr=request.listen_addr,
            advertise_addr=request.advertise_addr,
            data_path_addr=request.data_path_addr,
        )
        return await self._node.restore(request.data, settings)

    def addresses(self) -> Resolved:
        """Where this node's manager listens, and what the others know it by."""
        membership, settings = self._node.membership, self._node.settings
        if membership is None or membership.manager is None:
            raise Unavailable(texts.MANAGER_PREPARING)
        known = membership.manager.address.known or settings.advertise_addr
        return Resolved(settings.listen_addr, known, settings.local_addr)

    async def move(self, request: MoveRequest) -> None:
        """Have this node's manager known by another address."""
        settings = readdressed(self._node.settings, request.addresses)
        await self._node.move(settings, force=request.force)

    def outlook(self) -> Outlook:
        """What going on alone would mean."""
        found = self._node.outlook()
        managers = tuple(
            KnownManager(one.node_id, one.hostname, one.addr, one.reachable, one.leader, one.own)
            for one in found.managers
        )
        return Outlook(
            cluster_id=found.cluster_id,
            node_id=found.node_id,
            managers=managers,
            quorum=found.quorum,
            reachable=found.reachable,
            nodes=found.nodes,
            term=found.term,
            commit=found.commit,
            last=found.last,
            dropped=found.uncommitted,
        )

    def local(self) -> LocalState:
        """The present state; cheap."""
        node = self._node
        if node.place is Place.INACTIVE:
            return LocalState()
        settings = node.settings
        addr = settings.advertise_addr or settings.local_addr
        error = texts.LOCKED if node.place is Place.LOCKED else node.error
        membership = node.membership
        if membership is None:
            remotes = (Remote("", settings.remote_addr),) if settings.remote_addr else ()
            return LocalState(
                node.place.value,
                node_addr=_host(addr),
                is_manager=node.place in (Place.PENDING, Place.ERROR) and node.is_manager,
                error=error,
                remotes=remotes,
            )
        manager = membership.manager
        if manager is not None and not error:
            error = manager.address.trouble
        # It was off for the whole life of its certificate: nobody will ever let it in.
        expired = membership.expired and node.place is Place.PENDING and manager is None
        return LocalState(
            state=Place.ERROR.value if expired else node.place.value,
            node_id=membership.identity.node_id,
            node_addr=_host(addr),
            # One that is about to begin, or to begin anew, counts: it is no worker meanwhile.
            is_manager=(
                manager is not None or (node.place is not Place.ACTIVE and node.is_manager)
            ),
            control_available=(
                manager is not None and manager.ready.is_set() and node.place is Place.ACTIVE
            ),
            error=texts.CERTIFICATES_EXPIRED if expired else error,
            certificates_expired=expired,
            remotes=tuple(Remote(r.node_id, r.addr) for r in membership.managers()),
        )

    def control(self) -> Caller:
        """Calls to this node's manager. Raises `Unavailable` when there is none."""
        return self._manager().caller

    def _manager(self) -> Manager:
        membership = self._node.membership
        if (
            membership is None
            or membership.manager is None
            or not membership.manager.ready.is_set()
            or self._node.place is not Place.ACTIVE
        ):
            raise Unavailable(texts.MANAGER_PREPARING)
        return membership.manager

    async def events(self) -> AsyncIterator[Changes]:
        """Changes that make events; ends when this manager does, or its reader fell behind."""
        with self._manager().changes(_makes_events) as changes:
            while True:
                try:
                    batch = await changes.next()
                except ChannelClosed:
                    return
                if batch.events:
                    made = partial(message, batch.events, batch.version, old=True)
                    yield Changes(len(batch.events), made)


_EVENTFUL = (api.Node, api.Service, api.Network, api.Secret, api.Config)


def _makes_events(event: Event) -> bool:
    return isinstance(event.object, _EVENTFUL)


def readdressed(settings: NodeSettings, now: Resolved) -> NodeSettings:
    """Settings with other addresses in them."""
    return replace(
        settings, listen_addr=now.listen, advertise_addr=now.advertise, local_addr=now.local
    )


def at_start(option: str, interfaces: Interfaces, settings: NodeSettings) -> NodeSettings:
    """What the daemon's --advertise-addr makes of the settings a node was started with before.

    An option that means nothing now (the interface has no address yet) changes nothing.
    """
    if not option:
        return settings
    known = Resolved(settings.listen_addr, settings.advertise_addr, settings.local_addr)
    try:
        wanted = resolve_update(option, "", known, Surroundings(interfaces()))
    except (Refusal, OSError) as error:
        log.error("--advertise-addr %s cannot be used: %s", option, error)
        return settings
    if wanted.advertise == settings.advertise_addr:
        return settings
    log.info(
        "--advertise-addr: known as %s from now on, not as %s",
        wanted.advertise,
        settings.advertise_addr or "found out at the join",
    )
    return readdressed(settings, wanted)


def _availability(text: str) -> api.NodeSpec.Availability:
    if text not in AVAILABILITIES:
        raise Refusal(400, f'invalid Availability: "{text}"')
    return AVAILABILITIES[text]


def _host(addr: str) -> str:
    """The host of "host:port", or `addr` itself when it has no port."""
    try:
        return address.split(addr)[0]
    except SwarmError:
        return addr


def local_address_towards(remote_addr: str) -> str:
    """The own address that packets to `remote_addr` leave from; "" when there is no way."""
    try:
        host, port = address.split(remote_addr)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((host, port or 9))  # a datagram socket sends nothing by connecting
            return str(sock.getsockname()[0])
    except (OSError, SwarmError):
        return ""
