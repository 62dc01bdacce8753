"""One peer: its queue, its connection, and the task that moves messages from one to the other.

Messages go out one after the other, each as a call of its own, as stock managers do; those that
wait join each other (`outbox`). Only snapshots travel beside the others: heartbeats behind a big
one would come too late, and Raft does not care about their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from swarmd import api
from swarmd.api import raftpb
from swarmd.base import metrics
from swarmd.base.aio import Tasks, until
from swarmd.base.backoff import Backoff
from swarmd.base.entropy import Entropy
from swarmd.base.errors import DeadlineExceeded, NotFound, SwarmError, Unimplemented
from swarmd.manager.peers.chunks import requests_for
from swarmd.manager.peers.health import check_health
from swarmd.manager.peers.outbox import Outbox
from swarmd.rpc.peer import Caller, Disconnected

log = logging.getLogger(__name__)

# Who is told this, with code NotFound, is no member any more (PROTOCOL 3.3).
REMOVED = "raft: member was removed from the cluster"

queue_messages_max = 4096
SEND_SECONDS = 2.0  # without progress: per piece of a snapshot, and for the answer
# A leader under load proposes again at once: those entries take the commit index along, which
# halves the calls. A follower of an idle leader learns of a commit so much later.
NEWS_SECONDS = 0.05
IDLE_SECONDS = 5.0  # an unreachable peer nobody writes to is looked for this often
REDIAL = Backoff(base_seconds=0.1, cap_seconds=1.0)

Dial = Callable[[str], Awaitable[Caller]]

_sent = metrics.counter("raft_messages_sent", "Raft messages handed to other managers")
_lost = metrics.counter("raft_messages_lost", "Raft messages that reached nobody")


@dataclass(frozen=True, slots=True)
class Reports:
    """Whom a link tells what became of its messages; all by raft id."""

    unreachable: Callable[[int], None]
    snapshot: Callable[[int, bool], None]
    removed: Callable[[], None]
    """This very member was told that it is no member any more."""


class Link:
    """The way to one peer. `run` until cancelled, or until `retire` and the queue is empty."""

    def __init__(
        self, raft_id: int, addr: str, dial: Dial, reports: Reports, entropy: Entropy
    ) -> None:
        self.raft_id = raft_id
        self.addr = addr
        self.active = False
        """True if the last exchange worked."""
        self._dial = dial
        self._reports = reports
        self._entropy = entropy
        self._queue = Outbox(queue_messages_max)
        self._wake = asyncio.Event()
        self._retired = False
        self._caller: Caller | None = None
        self._unary_only = False
        self._failures = 0
        # Held over one dial, which the holder bounds; nobody waits for more inside.
        self._dialling = asyncio.Lock()

    def put(self, message: raftpb.Message) -> bool:
        """Queue a message; False when the queue is full."""
        if self._retired or not self._queue.put(message):
            return False
        self._wake.set()
        return True

    def retire(self) -> None:
        """Send what is queued, then end: the last message may tell a member of its removal."""
        self._retired = True
        self._wake.set()

    async def refresh(self) -> None:
        """Dial anew before the next message: credentials changed."""
        await self._drop()

    async def check(self) -> None:
        """See whether the peer serves, now. Raises `SwarmError`."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await check_health(await self._connection(), SEND_SECONDS)
        except TimeoutError:
            raise DeadlineExceeded(f"{self.addr} did not answer in time") from None

    async def run(self) -> None:
        """Move messages. Failures are reported, never raised."""
        try:
            async with Tasks() as tasks:
                await self._look()
                while await self._something():
                    message = self._queue.take()
                    if message.type == raftpb.MsgSnap:
                        tasks.spawn(self._deliver(message), f"raft-snapshot-{self.raft_id:x}")
                    elif not await self._deliver(message):
                        if self._retired:
                            return
                        await self._recover()
        finally:
            self.active = False
            self._lose_all()
            await self._drop()

    async def _something(self) -> bool:
        """Wait for a message; False at the end."""
        while not self._queue:
            if self._retired:
                return False
            self._wake.clear()
            if self.active:
                await self._wake.wait()
            elif not await until(self._wake, IDLE_SECONDS):
                await self._look()
        if self._queue.may_wait and not self._retired:
            self._wake.clear()
            await until(self._wake, NEWS_SECONDS)
        return True

    async def _look(self) -> None:
        try:
            await self.check()
        except SwarmError as error:
            log.debug("raft peer %x at %s: %s", self.raft_id, self.addr, error)
            await self._drop()
        else:
            self._worked()

    async def _recover(self) -> None:
        """After a failure: what waits is as old as what failed; then pause before dialling."""
        self._lose_all()
        if self._failures:
            await asyncio.sleep(REDIAL.delay(self._failures - 1, self._entropy))

    # One message

    async def _deliver(self, message: raftpb.Message) -> bool:
        snapshot = message.type == raftpb.MsgSnap
        try:
            await self._send(message)
        except (SwarmError, TimeoutError) as error:
            await self._failed(message, error)
            return False
        self._worked()
        _sent.inc()
        if snapshot:
            self._reports.snapshot(self.raft_id, True)
        return True

    async def _send(self, message: raftpb.Message) -> None:
        snapshot = message.type == raftpb.MsgSnap
        if self._caller is not None and not snapshot:
            # The usual way, with no timer but the call's own.
            await _process(self._caller, message, SEND_SECONDS)
            return
        async with asyncio.timeout(SEND_SECONDS) as limit:
            caller = await self._connection()
            # Every manager knows the call for a whole message, and it costs half of a stream.
            if snapshot and not self._unary_only:
                try:
                    pieces = _timed(requests_for(message), limit)
                    await caller.client_stream("Raft/StreamRaftMessage", pieces)
                    return
                except Unimplemented:
                    self._unary_only = True
            await _process(caller, message, None)

    async def _failed(self, message: raftpb.Message, error: SwarmError | TimeoutError) -> None:
        log.debug("raft message to %x at %s is lost: %r", self.raft_id, self.addr, error)
        if isinstance(error, NotFound) and error.message == REMOVED:
            self._reports.removed()
        if isinstance(error, Disconnected) or message.type != raftpb.MsgSnap:
            # A slow snapshot alone says nothing against the connection others use.
            self._failures += 1
            await self._drop()
        self.active = False
        self._lose(message)

    def _worked(self) -> None:
        if not self.active:
            log.info("raft peer %x at %s is reachable", self.raft_id, self.addr)
        self.active = True
        self._failures = 0

    def _lose(self, message: raftpb.Message) -> None:
        _lost.inc()
        self._reports.unreachable(self.raft_id)
        if message.type == raftpb.MsgSnap:
            self._reports.snapshot(self.raft_id, False)

    def _lose_all(self) -> None:
        while self._queue:
            self._lose(self._queue.take())

    # The connection

    async def _connection(self) -> Caller:
        async with self._dialling:
            if self._caller is None:
                self._unary_only = False
                self._caller = await self._dial(self.addr)
            return self._caller

    async def _drop(self) -> None:
        caller, self._caller = self._caller, None
        if caller is not None:
            await caller.close()


async def _process(caller: Caller, message: raftpb.Message, timeout: float | None) -> None:
    """Send a whole message. (The request holds a copy of it, which costs a few microseconds.)"""
    request = api.ProcessRaftMessageRequest(message=message)
    await caller.unary("Raft/ProcessRaftMessage", request, timeout=timeout)


async def _timed(
    requests: Iterator[api.StreamRaftMessageRequest], limit: asyncio.Timeout
) -> AsyncIterator[api.StreamRaftMessageRequest]:
    """Push the deadline back whenever another piece got through."""
    loop = asyncio.get_running_loop()
    for request in requests:
        yield request
        limit.reschedule(loop.time() + SEND_SECONDS)
