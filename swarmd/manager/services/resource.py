"""The service ResourceAllocator: containers attached by hand to a swarm network.

An attachment is a task without a service, on the caller's node; the allocator gives it an
address and the node gets it as an assignment (wire/PROTOCOL 7.2). Deleting the task
releases the address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from swarmd import api
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy, new_id
from swarmd.base.errors import InvalidArgument, NotFound, PermissionDenied
from swarmd.base.timestamps import timestamp
from swarmd.cluster.store import Store, Transaction, View

T = TypeVar("T")

INVALID_ARGUMENT = "invalid argument"


class Peer(Protocol):
    """Who calls: `swarmd.rpc.Peer` fits."""

    @property
    def node_id(self) -> str:
        """The caller's node id, from its certificate."""
        ...


class Committer(Protocol):
    """The only way to write: `swarmd.manager.commit.Committer` fits."""

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` on the newest state; return when its entry is applied here."""
        ...


def find_network(view: View, target: str) -> api.Network:
    """The attachable network with id, else name, `target`.

    Raises NotFound or PermissionDenied with the stock texts.
    """
    network = view.get(api.Network, target) or view.named(api.Network, target)
    if network is None:
        raise NotFound(f"network {target} not found")
    if not network.spec.attachable:
        raise PermissionDenied(f"network {target} not manually attachable")
    return network


def attachment_task(
    task_id: str, node_id: str, network_id: str, request: api.AttachNetworkRequest, now: float
) -> api.Task:
    """The task that stands for one attachment, as a stock manager makes it."""
    task = api.Task(id=task_id, node_id=node_id, desired_state=api.TaskState.RUNNING)
    task.spec.attachment.container_id = request.container_id
    task.spec.networks.add(target=network_id, addresses=request.config.addresses)
    task.status.state = api.TaskState.NEW
    task.status.timestamp.CopyFrom(timestamp(now))
    task.status.message = "created"
    return task


class ResourceAllocator:
    """Attach and detach, for the caller's own node."""

    SERVICE = "docker.swarmkit.v1.ResourceAllocator"

    def __init__(self, store: Store, committer: Committer, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._committer = committer
        self._clock = clock
        self._entropy = entropy

    async def attach_network(
        self, request: api.AttachNetworkRequest, peer: Peer
    ) -> api.AttachNetworkResponse:
        """Create the attachment task; its id is the attachment id."""
        if not request.HasField("config"):
            raise InvalidArgument(INVALID_ARGUMENT)  # a stock manager would crash here
        task_id = new_id(self._entropy)

        def change(tx: Transaction) -> None:
            network = find_network(tx, request.config.target)
            now = self._clock.now()
            tx.create(attachment_task(task_id, peer.node_id, network.id, request, now))

        find_network(self._store.view(), request.config.target)
        await self._committer.update(change)
        return api.AttachNetworkResponse(attachment_id=task_id)

    async def detach_network(
        self, request: api.DetachNetworkRequest, peer: Peer
    ) -> api.DetachNetworkResponse:
        """Delete an attachment task of the caller's own node."""
        attachment_id = request.attachment_id
        if not attachment_id:
            raise InvalidArgument(INVALID_ARGUMENT)

        def change(tx: Transaction) -> None:
            task = tx.get(api.Task, attachment_id)
            if task is None:
                raise NotFound(f"attachment {attachment_id} not found")
            if task.node_id != peer.node_id:
                raise PermissionDenied(f"attachment {attachment_id} doesn't belong to this node")
            tx.delete(api.Task, attachment_id)

        await self._committer.update(change)
        return api.DetachNetworkResponse()
