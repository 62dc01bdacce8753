"""The service Dispatcher: what nodes and their leader say to each other.

Only the leader answers; elsewhere, and while taking over, every call is Aborted with
`dispatcher is stopped`. The state behind it is one `Tenure` per leadership.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from google.protobuf.duration_pb2 import Duration

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import Aborted, PermissionDenied
from swarmd.cluster.store import Store
from swarmd.manager.dispatcher.assignments import AssignmentSet
from swarmd.manager.dispatcher.hub import Listener
from swarmd.manager.dispatcher.needs import Committer, Members, Peer
from swarmd.manager.dispatcher.tenure import STOPPED, Tenure
from swarmd.manager.dispatcher.writes import check_description, is_published

log = logging.getLogger(__name__)

MUST_DISCONNECT = "node must disconnect"
FOREIGN_TASK = "cannot update a task not assigned this node"

manager_weight = 10
# Changes go out after this much quiet, or when this many have come together.
quiet_seconds = 0.1
modifications_max = 100


def ip_of(remote_addr: str) -> str:
    """The IP of `ip:port` or `[ip]:port`; empty when it is neither."""
    host, colon, port = remote_addr.rpartition(":")
    if not colon or not port.isdigit():
        return ""
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1]
    return "" if ":" in host else host


def duration(seconds: float) -> Duration:
    """`seconds` as a protobuf Duration."""
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


class Dispatcher:
    """Sessions, heartbeats, assignments and reports of all nodes of the cluster."""

    SERVICE = "docker.swarmkit.v1.Dispatcher"

    def __init__(
        self,
        store: Store,
        committer: Committer,
        members: Members,
        clock: Clock,
        entropy: Entropy,
        node_id: str,
    ) -> None:
        """`node_id` is this manager's own: it signs the task states it applies."""
        self._store = store
        self._committer = committer
        self._members = members
        self._clock = clock
        self._entropy = entropy
        self._node_id = node_id
        self._tenure: Tenure | None = None
        self._managers: list[tuple[str, str]] = []

    @property
    def tenure(self) -> Tenure | None:
        """The state of the leadership that runs now, if one does."""
        return self._tenure

    async def run(self, ready: asyncio.Event) -> None:
        """Serve during one leadership; cancel when it is lost."""
        tenure = Tenure(self._store, self._committer, self._clock, self._entropy, self._node_id)
        unsubscribe = [self._store.subscribe(tenure.hub.on_batch)]
        try:
            await tenure.take_over()
            self._managers = self._list_managers()
            unsubscribe.append(self._members.subscribe(self._on_members))
            self._tenure = tenure
            async with Tasks() as tasks:
                tasks.spawn(tenure.watch_timers(), "dispatcher-timers")
                tasks.spawn(tenure.watch_queues(), "dispatcher-queues")
                ready.set()
                await asyncio.Event().wait()
        finally:
            for stop in unsubscribe:
                stop()
            self._tenure = None
            tenure.close()

    def disconnect(self, node_id: str) -> bool:
        """Send a node away: one last message, then `node must disconnect`, and the node
        is DISCONNECTED until it finds a manager. False when it has no session here."""
        tenure = self._require()
        found = tenure.table.disconnect(node_id)
        tenure.hub.wake_node(node_id)
        return found

    # The service ------------------------------------------------------------------

    async def session(
        self, request: api.SessionRequest, peer: Peer
    ) -> AsyncIterator[api.SessionMessage]:
        """Register the node, then keep it up to date about itself and the managers."""
        tenure = self._require()
        node_id = peer.node_id
        session_id = await self._enter(tenure, request, peer)
        with tenure.hub.sessions.listen(node_id) as listener:
            yield self._message(node_id, session_id)
            while True:
                await listener.wait()
                leaving = tenure.closed
                if not leaving:
                    leaving = tenure.table.check(node_id, session_id).disconnect
                yield self._message(node_id, session_id)
                if leaving:
                    if not tenure.closed and tenure.table.is_current(node_id, session_id):
                        tenure.send_away(node_id)
                    raise Aborted(MUST_DISCONNECT)

    async def heartbeat(self, request: api.HeartbeatRequest, peer: Peer) -> api.HeartbeatResponse:
        """Note that the node lives; answers when to come again."""
        return self.heartbeat_at_once(request, peer)

    def heartbeat_at_once(self, request: api.HeartbeatRequest, peer: Peer) -> api.HeartbeatResponse:
        """The same, waiting for nothing: most calls of a swarm are heartbeats."""
        table = self._require().table
        period = table.heartbeat(peer.node_id, request.session_id, self._clock.monotonic())
        return api.HeartbeatResponse(period=duration(period))

    async def update_task_status(
        self, request: api.UpdateTaskStatusRequest, peer: Peer
    ) -> api.UpdateTaskStatusResponse:
        """Take a node's reports. Success is answered before they are written."""
        tenure = self._require()
        tenure.table.check(peer.node_id, request.session_id)
        view = self._store.view()
        reports: list[tuple[str, api.TaskStatus]] = []
        bare = 0
        for update in request.updates:
            if not update.HasField("status"):
                bare += 1
                continue
            task = view.get(api.Task, update.task_id)
            if task is None:
                continue  # deleted meanwhile
            if task.node_id != peer.node_id:
                raise PermissionDenied(FOREIGN_TASK)
            reports.append((update.task_id, update.status))
        if bare:
            log.warning("node %s reports %d tasks without status", peer.node_id, bare)
        tenure.queue_statuses(reports)
        return api.UpdateTaskStatusResponse()

    async def update_volume_status(
        self, request: api.UpdateVolumeStatusRequest, peer: Peer
    ) -> api.UpdateVolumeStatusResponse:
        """Take the news that the node let go of CSI volumes."""
        tenure = self._require()
        tenure.table.check(peer.node_id, request.session_id)
        view = self._store.view()
        gone = [
            update.id
            for update in request.updates
            # Only what a write can follow from: else a node could queue names without end.
            if update.unpublished and is_published(view, update.id, peer.node_id)
        ]
        tenure.queue_unpublished(peer.node_id, gone)
        return api.UpdateVolumeStatusResponse()

    async def assignments(
        self, request: api.AssignmentsRequest, peer: Peer
    ) -> AsyncIterator[api.AssignmentsMessage]:
        """What the node should have: everything once, then the changes."""
        tenure = self._require()
        node_id, session_id = peer.node_id, request.session_id
        tenure.table.check(node_id, session_id)
        told = AssignmentSet(node_id)
        with tenure.hub.assignments.listen(node_id) as listener:
            told.load(self._store.view())
            yield api.AssignmentsMessage(
                type=api.AssignmentsMessage.COMPLETE, results_in="1", changes=told.take()
            )
            sequence = 1
            while True:
                await self._gather(tenure, told, listener, session_id)
                yield api.AssignmentsMessage(
                    type=api.AssignmentsMessage.INCREMENTAL,
                    applies_to=str(sequence),
                    results_in=str(sequence + 1),
                    changes=told.take(),
                )
                sequence += 1

    async def tasks(self, request: api.TasksRequest, peer: Peer) -> AsyncIterator[api.TasksMessage]:
        """The deprecated way: all tasks of the node, again after each change."""
        tenure = self._require()
        node_id, session_id = peer.node_id, request.session_id
        tenure.table.check(node_id, session_id)
        told = AssignmentSet(node_id)
        with tenure.hub.assignments.listen(node_id) as listener:
            told.load(self._store.view())
            while True:
                told.take()
                yield api.TasksMessage(tasks=told.tasks())
                await self._gather(tenure, told, listener, session_id)

    # How --------------------------------------------------------------------------

    def _require(self) -> Tenure:
        if self._tenure is None:
            raise Aborted(STOPPED)
        return self._tenure

    async def _enter(self, tenure: Tenure, request: api.SessionRequest, peer: Peer) -> str:
        description = request.description if request.HasField("description") else None
        if description is not None:
            check_description(description)
        addr = ip_of(peer.remote_addr)
        if tenure.table.is_current(peer.node_id, request.session_id):
            await tenure.write_ready(peer.node_id, description, addr)
            tenure.table.check(peer.node_id, request.session_id)
            return str(request.session_id)
        return await tenure.register(peer.node_id, description, addr)

    def _message(self, node_id: str, session_id: str) -> api.SessionMessage:
        view = self._store.view()
        cluster = view.cluster()
        message = api.SessionMessage(session_id=session_id, node=view.get(api.Node, node_id))
        for manager_id, addr in self._managers:
            message.managers.add(
                peer=api.Peer(node_id=manager_id, addr=addr), weight=manager_weight
            )
        if cluster is not None:
            message.network_bootstrap_keys.extend(cluster.network_bootstrap_keys)
            message.RootCA = cluster.root_ca.ca_cert
        return message

    def _list_managers(self) -> list[tuple[str, str]]:
        # An agent forgets managers it is not told, and cannot use one without address.
        return [(m.node_id, m.addr) for m in self._members.members() if m.addr]

    def _on_members(self) -> None:
        managers = self._list_managers()
        if managers != self._managers and self._tenure is not None:
            self._managers = managers
            self._tenure.hub.sessions.wake_all()

    async def _gather(
        self, tenure: Tenure, told: AssignmentSet, listener: Listener, session_id: str
    ) -> None:
        """Wait until the node must hear of something and a burst is over.

        Raises Aborted, NotFound or InvalidArgument when the session is over.
        """
        loop = asyncio.get_running_loop()
        modified = 0
        quiet_at: float | None = None  # events that change nothing do not put it off
        while modified < modifications_max:
            if not await listener.wait(None if quiet_at is None else quiet_at - loop.time()):
                break
            tenure.require_open()
            tenure.table.check(told.node_id, session_id)
            view = self._store.view()
            tasks, listener.tasks = listener.tasks, {}
            volumes, listener.volumes = listener.volumes, {}
            fresh = sum(told.look_at_task(view, task_id) for task_id in tasks)
            fresh += sum(told.look_at_volume(view, volume_id) for volume_id in volumes)
            if fresh:
                modified += fresh
                quiet_at = loop.time() + quiet_seconds
