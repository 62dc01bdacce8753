"""The agent: keeps this node registered with some manager, and answers what it is assigned.

Opens one session after another; which manager to talk to is the node's choice (`connect`).
What managers say about the node is handed to the `Host`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from swarmd import api
from swarmd.base.aio import Tasks, first_of
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import SwarmError
from swarmd.worker.agent.session import Caller, Session, call_seconds
from swarmd.worker.agent.tasks import TaskBook

log = logging.getLogger(__name__)

backoff_seconds_first = 0.1
backoff_seconds_max = 8.0
describe_seconds = 20.0

Connect = Callable[[], Awaitable[Caller]]
Describe = Callable[[], Awaitable[api.NodeDescription]]


class Host(Protocol):
    """The node this agent works for; calls must return soon and not raise."""

    def on_managers(self, managers: Sequence[api.WeightedPeer]) -> None:
        """All managers of the cluster; others are to be forgotten."""
        ...

    def on_node(self, node: api.Node) -> None:
        """This node as managers see it, when it changed: role, certificate status, spec."""
        ...

    def on_network_keys(self, keys: Sequence[api.EncryptionKey]) -> None:
        """The gossip and ipsec keys, when there is a new one."""
        ...

    def on_root_ca(self, pem: bytes) -> None:
        """The cluster's root certificates, when they are not those trusted so far."""
        ...

    def on_session(self, error: SwarmError | None) -> None:
        """A session was opened (None), or one failed: weigh the manager connected last."""
        ...


def next_backoff(seconds: float) -> float:
    """The longest pause after one more failure: 0.1 s, then doubled plus 0.1 s, at most 8 s."""
    return min(backoff_seconds_first + 2 * seconds, backoff_seconds_max)


class Agent:
    """One worker's side of the cluster. `run` once; `node_id` comes from its certificate."""

    def __init__(
        self,
        connect: Connect,
        describe: Describe,
        host: Host,
        clock: Clock,
        entropy: Entropy,
        trusted_root: bytes = b"",
    ) -> None:
        """`connect` dials some manager afresh each time; the agent closes what it gets.

        `trusted_root` is the root PEM the node trusts now.
        """
        self._connect = connect
        self._describe = describe
        self._host = host
        self._clock = clock
        self._entropy = entropy
        self._root = trusted_root
        self._node: api.Node | None = None
        self._keys: list[api.EncryptionKey] = []
        self._book = TaskBook()
        self._reported: dict[str, api.TaskStatus] = {}  # in this session
        self._report_due = asyncio.Event()
        self._recheck = asyncio.Event()
        self._reopen = False
        self._session_id = ""
        self._backoff = 0.0

    @property
    def book(self) -> TaskBook:
        """What this node is assigned."""
        return self._book

    def tls_changed(self, trusted_root: bytes) -> None:
        """The node's certificate or roots changed: describe anew, and reconnect if it shows."""
        self._root = trusted_root
        self._recheck.set()

    def reopen(self) -> None:
        """Open a new session: managers take this node's address from where it calls."""
        self._reopen = True
        self._recheck.set()

    async def run(self, ready: asyncio.Event) -> None:
        """Stay registered until cancelled. `ready` is set by the first session."""
        while True:
            try:
                await self._one_session(ready)
            except (SwarmError, OSError) as error:
                trouble = error if isinstance(error, SwarmError) else SwarmError(str(error))
                self._backoff = next_backoff(self._backoff)
                log.warning("agent: session failed: %s", trouble)
                self._host.on_session(trouble)
                await asyncio.sleep(self._entropy.uniform(0, self._backoff))

    async def _one_session(self, ready: asyncio.Event) -> None:
        """Open a session and serve it; returns when a new one is due."""
        self._recheck.clear()
        self._reopen = False
        description = await self._describe()
        caller = await self._connect()
        try:
            session = Session(caller, self, self._session_id)
            await self._serve(session, description, ready)
        finally:
            try:
                async with asyncio.timeout(call_seconds):
                    await caller.close()
            except (SwarmError, OSError, TimeoutError) as error:
                log.debug("closing the connection: %s", error)

    async def _serve(
        self, session: Session, description: api.NodeDescription, ready: asyncio.Event
    ) -> None:
        self._reported = {}

        def registered() -> None:
            self._session_id = session.id
            self._backoff = 0.0
            self._report_due.set()  # a new leader knows nothing of what we said
            self._host.on_session(None)
            ready.set()
            opened.set()

        opened = asyncio.Event()
        try:
            async with Tasks() as tasks:
                tasks.spawn(session.run(description, registered), "agent-run")
                await opened.wait()
                tasks.spawn(self._report(session), "agent-reports")
                await self._until_described_anew(description)
        except BaseExceptionGroup as group:
            _, others = group.split(SwarmError)
            if others is not None:
                raise
            raise first_of(group) from None

    async def _until_described_anew(self, description: api.NodeDescription) -> None:
        while True:
            try:
                async with asyncio.timeout(describe_seconds):
                    await self._recheck.wait()
            except TimeoutError:
                pass
            self._recheck.clear()
            if self._reopen:
                log.info("agent: this node's address changed, opening a new session")
                return
            if await self._describe() != description:
                log.info("agent: this node's description changed, opening a new session")
                return

    async def _report(self, session: Session) -> None:
        """Say what has not been said in this session, each time there is something."""
        while True:
            await self._report_due.wait()
            self._report_due.clear()
            fresh = [
                (task_id, status)
                for task_id, status in self._book.statuses().items()
                if task_id not in self._reported
            ]
            await session.report(fresh)
            self._reported.update(fresh)
            unpublished = self._book.take_unpublished()
            if unpublished:
                await session.report_unpublished(unpublished)

    # What the session brings ----------------------------------------------------------

    async def on_message(self, message: api.SessionMessage) -> None:
        """News about this node and its managers: hand on what changed."""
        managers = [m for m in message.managers if m.peer.addr]
        if managers:
            self._host.on_managers(managers)
        if message.HasField("node") and message.node != self._node:
            self._node = message.node
            self._host.on_node(message.node)
        if message.RootCA and message.RootCA != self._root:
            self._host.on_root_ca(message.RootCA)
        known = {key.lamport_time for key in self._keys}
        if any(key.lamport_time not in known for key in message.network_bootstrap_keys):
            self._keys = list(message.network_bootstrap_keys)
            self._host.on_network_keys(self._keys)

    async def on_assignments(self, message: api.AssignmentsMessage) -> None:
        """What to run: answer it."""
        if message.type == api.AssignmentsMessage.COMPLETE:
            self._book.assign(message.changes, self._clock.now())
        else:
            self._book.update(message.changes, self._clock.now())
        self._report_due.set()
