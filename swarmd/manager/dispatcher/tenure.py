"""The dispatcher's state during one leadership, and the writes that follow from it.

Everything a node may ask lives here while this manager leads; it ends with the leadership.
Registrations are written at once (the committer merges simultaneous ones into one entry);
reports of tasks and volumes, and nodes that fell silent, are gathered for at most 100 ms.
Heartbeats are never written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from swarmd import api
from swarmd.base import metrics
from swarmd.base.aio import until
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import Aborted, SwarmError
from swarmd.cluster.store import Store, Transaction
from swarmd.manager.dispatcher import writes
from swarmd.manager.dispatcher.hub import Hub
from swarmd.manager.dispatcher.needs import Committer
from swarmd.manager.dispatcher.sessions import NodeTable, heartbeat_seconds_default

log = logging.getLogger(__name__)

STOPPED = "dispatcher is stopped"

# Reports wait this long at most, or until this many are queued (the reference's numbers).
flush_seconds_max = 0.1
reports_max = 10_000
retry_seconds = 1.0
tick_seconds_max = 1.0
tick_seconds_min = 0.02

REGISTERED = metrics.gauge("dispatcher_nodes", "Nodes registered with this manager")


class Tenure:
    """Sessions, queues and timers of one leadership."""

    def __init__(
        self, store: Store, committer: Committer, clock: Clock, entropy: Entropy, leader_id: str
    ) -> None:
        self._store = store
        self._committer = committer
        self._clock = clock
        self._leader_id = leader_id
        self.table = NodeTable(entropy)
        self.hub = Hub(on_cluster=self._read_period, on_node_deleted=self._forget)
        self.closed = False
        self._registering: dict[str, int] = {}  # registrations being written, per node
        self._statuses: dict[str, api.TaskStatus] = {}
        self._unpublished: dict[tuple[str, str], None] = {}  # (volume id, node id)
        self._marks: dict[str, tuple[api.NodeStatus.State, str]] = {}
        self._orphans: dict[str, None] = {}  # node ids
        self._pending = asyncio.Event()
        self._full = asyncio.Event()

    def close(self) -> None:
        """The leadership is over: every stream says goodbye."""
        self.closed = True
        self.hub.wake_all()

    def require_open(self) -> None:
        """Raise Aborted when the leadership ended meanwhile."""
        if self.closed:
            raise Aborted(STOPPED)

    # Taking over ------------------------------------------------------------------

    async def take_over(self) -> None:
        """Call all nodes that were not down unknown; give them time to register here."""
        self._read_period()
        view = self._store.view()
        now = self._clock.monotonic()
        others: list[str] = []
        for node in view.all(api.Node):
            if node.status.state == writes.DOWN:
                self.table.add_down(node.id, now)
            else:
                others.append(node.id)
        for portion in list(writes.node_portions(view, others)):
            await self._committer.update(self._unknown(portion))
        now = self._clock.monotonic()
        for node_id in others:
            self.table.add_unknown(node_id, now)

    def _unknown(self, node_ids: list[str]) -> Callable[[Transaction], None]:
        def change(tx: Transaction) -> None:
            writes.mark_nodes(tx, node_ids, writes.UNKNOWN, writes.MOVED_TO_UNKNOWN)

        return change

    def _read_period(self) -> None:
        cluster = self._store.view().cluster()
        period = 0.0
        if cluster is not None:
            stored = cluster.spec.dispatcher.heartbeat_period
            period = stored.seconds + stored.nanos / 1e9
        self.table.period = period if period > 0 else heartbeat_seconds_default

    def _forget(self, node_id: str) -> None:
        """The node object is gone: its streams end, its timers too."""
        self.table.forget(node_id)
        self._marks.pop(node_id, None)
        self.hub.assignments.wake(node_id)

    # Registration -------------------------------------------------------------------

    async def register(
        self, node_id: str, description: api.NodeDescription | None, addr: str
    ) -> str:
        """Open a session; returns its id once the node is READY in the store.

        Raises Unavailable (rate limit), SwarmError `node not found`, Aborted, NotLeader.
        """
        self.table.admit(node_id, self._clock.monotonic())
        if self._store.view().get(api.Node, node_id) is None:
            raise SwarmError(writes.NODE_NOT_FOUND)
        self._registering[node_id] = self._registering.get(node_id, 0) + 1
        try:
            await self.write_ready(node_id, description, addr)
        finally:
            self._registering[node_id] -= 1
            if not self._registering[node_id]:
                del self._registering[node_id]
        session_id = self.table.register(node_id, self._clock.monotonic())
        self.hub.wake_node(node_id)  # streams of an older session end
        log.info("node %s registered from %s", node_id, addr or "an unknown address")
        return session_id

    async def write_ready(
        self, node_id: str, description: api.NodeDescription | None, addr: str
    ) -> None:
        """Write READY, description and address; returns when they are committed."""
        self._marks.pop(node_id, None)
        await self._committer.update(lambda tx: writes.mark_ready(tx, node_id, description, addr))
        self.require_open()

    def send_away(self, node_id: str) -> None:
        """End the session of a node that was asked to disconnect."""
        self._lose(node_id, writes.DISCONNECTED, writes.FINDING_MANAGER)

    # Timers ------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Act on what fell due by `now` (monotonic seconds). Writes follow in `flush`."""
        for node_id, record in self.table.expired(now):
            if node_id in self._registering:
                self.table.extend(node_id, now)
                continue
            text = writes.HEARTBEAT_FAILURE
            if not record.session_id:
                text = writes.UNKNOWN_HEARTBEAT_FAILURE
            log.info("node %s: %s", node_id, text)
            self._lose(node_id, writes.DOWN, text)
        for node_id in self.table.orphaned(now):
            log.info("node %s has been down for a day, giving up its tasks", node_id)
            self._orphans[node_id] = None
            self._pending.set()
        REGISTERED.set(len(self.table))

    def _lose(self, node_id: str, state: api.NodeStatus.State, text: str) -> None:
        self.table.remove(node_id)
        if self._store.view().get(api.Node, node_id) is not None:
            self.table.add_down(node_id, self._clock.monotonic())
            self._marks[node_id] = (state, text)
            self._pending.set()
        self.hub.wake_node(node_id)

    async def watch_timers(self) -> None:
        """Tick for ever, as often as deadlines ask for."""
        while True:
            now = self._clock.monotonic()
            self.tick(now)
            deadline = self.table.next_deadline()
            wait = tick_seconds_max if deadline is None else deadline - now
            await asyncio.sleep(min(tick_seconds_max, max(tick_seconds_min, wait)))

    # Queues ------------------------------------------------------------------------

    def queue_statuses(self, reports: Iterable[tuple[str, api.TaskStatus]]) -> None:
        """Take task reports; the last one of a task wins."""
        self._statuses.update(reports)
        if self._statuses:
            self._pending.set()
        if len(self._statuses) >= reports_max:
            self._full.set()

    def queue_unpublished(self, node_id: str, volume_ids: Iterable[str]) -> None:
        """Take the news that a node let go of volumes."""
        for volume_id in volume_ids:
            self._unpublished[volume_id, node_id] = None
        if self._unpublished:
            self._pending.set()

    async def watch_queues(self) -> None:
        """Write what is queued, for ever: at once after a pause, else every 100 ms."""
        loop = asyncio.get_running_loop()
        last = loop.time() - flush_seconds_max
        while True:
            await self._pending.wait()
            wait = last + flush_seconds_max - loop.time()
            if wait > 0:
                await until(self._full, wait)
            try:
                await self.flush()
            except SwarmError as error:
                # What was not written is queued again. After lost leadership this
                # loop is cancelled before it comes to a second try.
                log.warning("could not write node and task reports: %s", error)
                await asyncio.sleep(retry_seconds)
            last = loop.time()

    async def flush(self) -> None:
        """Write everything queued now. What could not be written stays queued."""
        self._pending.clear()
        self._full.clear()
        try:
            await self._flush_marks()
            await self._flush_statuses()
            await self._flush_unpublished()
            await self._flush_orphans()
        except SwarmError:
            self._pending.set()
            raise

    async def _flush_marks(self) -> None:
        portions = list(writes.node_portions(self._store.view(), list(self._marks)))
        written = {node_id for portion in portions for node_id in portion}
        self._marks = {id: mark for id, mark in self._marks.items() if id in written}
        for portion in portions:
            marks = {id: self._marks[id] for id in portion if id in self._marks}
            await self._committer.update(self._mark(marks))
            for node_id, mark in marks.items():
                if self._marks.get(node_id) == mark:
                    del self._marks[node_id]

    def _mark(
        self, marks: dict[str, tuple[api.NodeStatus.State, str]]
    ) -> Callable[[Transaction], None]:
        def change(tx: Transaction) -> None:
            for node_id, (state, text) in marks.items():
                # It may have come back since; then READY is written or on its way.
                if node_id not in self.table and node_id not in self._registering:
                    writes.mark_nodes(tx, (node_id,), state, text)

        return change

    async def _flush_statuses(self) -> None:
        statuses, self._statuses = self._statuses, {}
        view = self._store.view()
        fresh = [id for id, status in statuses.items() if self._is_news(id, status)]
        portions = list(writes.task_portions(view, fresh, lambda id: statuses[id].ByteSize()))
        try:
            while portions:
                reports = [(id, statuses[id]) for id in portions[0]]
                await self._committer.update(self._report(reports))
                portions.pop(0)
        except BaseException:
            left = {id: statuses[id] for portion in portions for id in portion}
            self._statuses = {**left, **self._statuses}
            raise

    def _is_news(self, task_id: str, status: api.TaskStatus) -> bool:
        task = self._store.view().get(api.Task, task_id)
        return task is not None and writes.says_more(task, status)

    def _report(self, reports: list[tuple[str, api.TaskStatus]]) -> Callable[[Transaction], None]:
        return lambda tx: writes.set_statuses(tx, reports, self._leader_id, self._clock.now())

    async def _flush_unpublished(self) -> None:
        sized = [(pair, 0) for pair in self._unpublished]
        for pairs in list(writes.portions(sized)):
            await self._committer.update(self._unpublish(pairs))
            for pair in pairs:
                self._unpublished.pop(pair, None)

    def _unpublish(self, pairs: list[tuple[str, str]]) -> Callable[[Transaction], None]:
        return lambda tx: writes.mark_unpublished(tx, pairs)

    async def _flush_orphans(self) -> None:
        for node_id in list(self._orphans):
            if node_id not in self.table:
                view = self._store.view()
                tasks = [t.id for t in view.by(api.Task, "node", node_id) if writes.may_progress(t)]
                for portion in list(writes.task_portions(view, tasks, lambda _: 0)):
                    await self._committer.update(self._orphan(portion))
            self._orphans.pop(node_id, None)

    def _orphan(self, task_ids: list[str]) -> Callable[[Transaction], None]:
        return lambda tx: writes.orphan_tasks(tx, task_ids)
