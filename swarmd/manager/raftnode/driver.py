"""`RaftNode`: drives the pure core. Persists, sends, applies, and answers proposers.

One task owns the loop; the core is only touched from the event loop's thread, the log on disk
only from one lane. Per `Ready`: persist (fsync) -> send -> apply -> `advance`, so nothing is
acknowledged before it is durable. Only a leader's entries leave while it writes them itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from google.protobuf.message import DecodeError

from swarmd import api
from swarmd.api import raftpb
from swarmd.base import metrics
from swarmd.base.aio import Lane, Tasks, first_of
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import NotLeader
from swarmd.base.listeners import Listeners
from swarmd.base.parsing import parse
from swarmd.cluster.raft import NONE, Config, ProposalDropped, RawNode, Ready, Role
from swarmd.cluster.store import Store, StoreError
from swarmd.manager.raftnode.checkpoint import Checkpoint
from swarmd.manager.raftnode.confirming import Confirmation, Confirming
from swarmd.manager.raftnode.disk import Encryptor
from swarmd.manager.raftnode.errors import ChangeRefused, LogBehind, NodeStopped, NotMember
from swarmd.manager.raftnode.members import Member, Members
from swarmd.manager.raftnode.opening import Opened, Place, decode_snapshot, open_place
from swarmd.manager.raftnode.proposals import (
    Proposal,
    RequestIds,
    Waiting,
    encode_request,
    request_number,
)
from swarmd.manager.raftnode.segments import Damage
from swarmd.manager.raftnode.snapshotting import Moment, Snapshotter, current_config
from swarmd.manager.raftnode.timers import PARTS, STOCK_ELECTION, STOCK_HEARTBEAT, Timers
from swarmd.manager.raftnode.transport import Alone, Transport

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# A leader whose disk takes longer (the core's ticks) falls silent, and another one is elected.
SLOW_DISK_TICKS = 5 * PARTS
# Entries applied without giving other tasks of the loop a turn.
apply_run_max = 500
# Turns of the loop in which what was just sent gets written: a link wakes, calls, writes.
SENDING_TURNS = 3

_applied_entries = metrics.counter("raft_entries_applied", "Entries applied to the store")
_dropped_entries = metrics.counter("raft_entries_dropped", "Entries the store refused whole")
_sync_seconds = metrics.histogram("raft_sync_seconds", "Time until an append was durable")


class RaftNode:
    """One member: the replicated log, and the store kept in step with it."""

    def __init__(
        self,
        place: Place,
        store: Store,
        clock: Clock,
        entropy: Entropy,
        *,
        transport: Transport | None = None,
        tick_seconds: float = TICK_SECONDS,
        fast_failover: bool = False,
    ) -> None:
        """`transport` None: a member that is alone. One tick is `tick_seconds` long.

        `fast_failover`: wait less for a leader where all who matter agree, see `timers`.
        """
        self._place = place
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._transport = transport or Alone()
        self._tick_seconds = tick_seconds
        self._ids = RequestIds(clock)
        self._waiting = Waiting()
        self._confirming = Confirming()
        self._wake = asyncio.Event()
        self._members = Members()
        self._listeners = Listeners[[]]()
        self._raw: RawNode | None = None
        self._term = 0
        self._commit = 0
        self._applied = 0
        self._lead = NONE
        self._role = Role.FOLLOWER
        self._signalled = False
        self._removed = False
        self._behind: LogBehind | None = None
        self._may_campaign = False
        self._leaderless_ticks = 0
        self._timers = Timers(fast_failover)
        self._persisting = False
        self._persisting_ticks = 0
        self._noting = False
        self._unsaved: raftpb.HardState | None = None
        self._stopped: str | None = "not started"  # why nothing can be asked of the core

    # What others ask

    @property
    def id(self) -> int:
        """The own raft id; 0 before the state is open."""
        return self._raw.id if self._raw is not None else NONE

    def commit_index(self) -> int:
        """Index of the last entry known to be committed."""
        return self._commit

    def applied_index(self) -> int:
        """Index of the last entry applied to the store."""
        return self._applied

    def is_leader(self) -> bool:
        """True if this member leads and has applied an entry of its own term."""
        return self._signalled

    @property
    def alone(self) -> bool:
        """True if this member leads and is the only one: nobody else ever could."""
        return self._signalled and len(self._members) == 1

    @property
    def term(self) -> int:
        """The election this member last took part in."""
        return self._term

    @property
    def fast(self) -> bool:
        """True while leaders are replaced faster than stock does: see `timers`."""
        return self._timers.fast or self._timers.told

    def leaderless_ticks(self) -> int:
        """Ticks since a leader was last known; callers stop waiting after 10 (PROTOCOL 3.5)."""
        return self._leaderless_ticks

    def leader(self) -> Member | None:
        """The leader, if one is known."""
        member = self._members.get(self._lead)
        return None if member is None else self._seen(member)

    def members(self) -> list[Member]:
        """All members by raft id, as this manager sees them."""
        return [self._seen(member) for member in self._members.all()]

    def _seen(self, member: api.RaftMember) -> Member:
        return Member(
            member.raft_id,
            member.node_id,
            member.addr,
            leader=member.raft_id == self._lead,
            reachable=member.raft_id == self.id or self._transport.active(member.raft_id),
        )

    def log_end(self) -> int:
        """Index of the last entry in the log, committed or not. Raises `NodeStopped`."""
        self._core()
        return self._opened.storage.last_index()

    def checkpoint(self) -> Checkpoint:
        """The state as applied now, for a backup. Raises `NodeStopped`."""
        raw = self._core()
        term = self._opened.storage.term(self._applied) or self._term
        members, store = self._members.save(), self._store.save()
        return Checkpoint(raw.id, term, self._applied, raw.conf_state(), members, store)

    @property
    def membership(self) -> Members:
        """The member list itself; to be read only."""
        return self._members

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after leadership or members changed; returns the way to stop that."""
        return self._listeners.add(callback)

    # Proposals

    async def propose(
        self, actions: Sequence[api.StoreAction], on_commit: Callable[[int], None]
    ) -> None:
        """Replicate `actions`; return once they are committed and `on_commit` has run.

        `on_commit` gets the entry's index and must make the change real in the store; it runs
        in the entry's turn, even if the caller is cancelled meanwhile. Raises `NotLeader`
        (also when leadership is lost on the way: the entry may still be committed, and is
        then applied as on any follower), `RequestTooLarge`, `NodeStopped`.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submit(actions, Proposal.awaited(on_commit, done))
        await done

    def submit(self, actions: Sequence[api.StoreAction], proposal: Proposal) -> None:
        """`propose` without waiting: exactly one of the proposal's callbacks is called later."""
        raw = self._leading()
        number = self._ids.next()
        data = encode_request(number, actions)
        self._append(partial(raw.propose, data))
        self._waiting.add(number, proposal)

    def submit_change(self, change: raftpb.ConfChange, proposal: Proposal) -> None:
        """Propose a configuration change; it gets its number here. See `Membership`."""
        raw = self._leading()
        change.id = self._ids.next()
        self._append(partial(raw.propose_conf_change, change))
        self._waiting.add(change.id, proposal)

    def confirm(self, who: Confirmation) -> None:
        """Find out whether this member still leads; raises `NotLeader`, `NodeStopped`."""
        raw = self._leading()
        self._confirming.ask(raw, who)
        self._send_heartbeats(raw)

    def _leading(self) -> RawNode:
        if self._stopped is not None:
            raise NodeStopped(self._stopped)
        if not self._signalled or self._raw is None:
            raise NotLeader
        return self._raw

    def _append(self, propose: Callable[[], None]) -> None:
        try:
            propose()
        except ProposalDropped as error:
            raise NotLeader from error
        self._wake.set()

    # What the transport delivers

    def step(self, message: raftpb.Message) -> None:
        """Take a message from a peer. Raises `NotMember` for a removed sender, `NodeStopped`."""
        if self._members.is_removed(getattr(message, "from")):
            raise NotMember
        if message.to != self.id:
            return  # meant for an earlier holder of our address
        raw = self._core()
        if message.type == raftpb.MsgHeartbeat and message.commit > (end := self.log_end()):
            # A leader tells no more than it was told to be on our disk.
            self._behind = LogBehind(end, message.commit)
            self._wake.set()
            return
        self._timers.hear(message, self._term)
        raw.step(message)
        if self._confirming.hear(raw):
            self._send_heartbeats(raw)
        self._tune(raw)
        self._wake.set()

    def report_unreachable(self, raft_id: int) -> None:
        """A message to this member was lost."""
        self._core().report_unreachable(raft_id)
        self._wake.set()

    def report_snapshot(self, raft_id: int, ok: bool) -> None:
        """A snapshot sent to this member arrived, or not."""
        self._core().report_snapshot(raft_id, ok)
        self._wake.set()

    def report_removed(self) -> None:
        """A peer answered that this member was removed: `run` ends with `NotMember`.

        It may never see the entry that removed it: the leader stops sending to it there.
        """
        self._removed = True
        self._wake.set()

    def transfer_leadership(self, raft_id: int) -> None:
        """Ask the core to hand leadership to a member; watch `leader()` for the outcome."""
        self._core().transfer_leadership(raft_id)
        self._wake.set()

    def _core(self) -> RawNode:
        if self._stopped is not None or self._raw is None:
            raise NodeStopped(self._stopped or "")
        return self._raw

    # The life of the node

    def joined(self, answer: api.JoinResponse) -> None:
        """Be the member a leader's answer to Join names: call it before `run`, or after it on a
        member that was stopped before it learned of any other.
        """
        own = next((m.addr for m in answer.members if m.raft_id == answer.raft_id), "")
        self._place = replace(self._place, joined=answer, addr=own or self._place.addr)
        if self._raw is not None:
            for member in answer.members:
                self._members.add(member)
            self._listeners.call()

    async def run(self, ready: asyncio.Event) -> None:
        """Open the state and keep the log until cancelled. `ready`: what was on disk is applied.

        Raises `DiskFailed` when the log cannot be made durable, `DiskDamaged` and
        `FailedPrecondition` when it cannot be opened, `LogBehind` when it turns out to be an
        older one, `NotMember` once this member is removed.
        """
        lane = Lane("raft-log")
        held: list[Opened] = []
        try:
            damage = await lane.run(partial(self._open, held))
            for item in damage:
                log.warning("raft state repaired: %s", item)
            try:
                await self._run_on(held[0], lane, ready)
            finally:
                await lane.run(partial(self._close, held[0]))
        finally:
            lane.close()
            for opened in held:  # cancelled meanwhile: the next one to open it needs the lock
                opened.disk.close()

    def _open(self, held: list[Opened]) -> Sequence[Damage]:
        opened, damage = open_place(self._place, self._entropy)
        held.append(opened)
        return damage

    async def _run_on(self, opened: Opened, lane: Lane, ready: asyncio.Event) -> None:
        self._start(opened)
        self._opened, self._lane = opened, lane
        self._snapshotter = Snapshotter(opened.disk, opened.storage, lane, opened.log_bytes)
        reason = ""
        try:
            async with Tasks() as self._tasks:
                self._tasks.spawn(self._ticks(), "raft-ticks")
                await self._loop(ready)
        except BaseExceptionGroup as group:
            error = first_of(group)
            reason = str(error)
            raise error from None
        finally:
            self._stop(reason)
            self._snapshotter.close()

    def _start(self, opened: Opened) -> None:
        storage = opened.storage
        index = storage.snapshot().metadata.index
        if opened.snapshot is not None:
            self._store.restore(opened.snapshot.store)
        self._members = opened.members
        self._may_campaign = opened.may_campaign
        self._term = storage.hard_state.term
        self._commit = max(storage.hard_state.commit, index)
        self._applied = index
        seed = int.from_bytes(self._entropy.token(8), "big")
        config = Config(
            id=opened.raft_id,
            election_ticks=STOCK_ELECTION,
            heartbeat_ticks=STOCK_HEARTBEAT,
            applied=index,
            seed=seed,
        )
        self._raw = RawNode(config, storage)
        self._stopped = None

    async def _ticks(self) -> None:
        parts = 0
        while True:
            await asyncio.sleep(self._tick_seconds / PARTS)
            parts += 1
            if parts % PARTS == 0 and self._lead == NONE:
                self._leaderless_ticks += 1
            raw = self._core()
            self._timers.tick()
            self._tune(raw)
            raw.tick()
            self._confirming.tick()
            self._persisting_ticks += 1 if self._persisting else 0
            self._send_heartbeats(raw)
            self._wake.set()
            if parts % PARTS == 0 and self._unsaved is not None and not self._noting:
                # Not here: heartbeats would have to wait for the disk.
                self._tasks.spawn(self._note_commit(self._unsaved), "raft-commit-index")

    def _send_heartbeats(self, raw: RawNode) -> None:
        """They need nothing on disk: a slow disk is no reason to be taken for dead."""
        if self._persisting_ticks < SLOW_DISK_TICKS:
            self._send(raw.take_heartbeats())

    async def _note_commit(self, state: raftpb.HardState) -> None:
        """Write a commit index that no entries took along.

        A member forced to be alone drops what lies above it: that must not be much.
        """
        self._noting = True
        await self._lane.run(partial(self._opened.disk.save, state, (), sync=False))
        self._noting = False
        if self._unsaved is state:  # a stop in between leaves it to be written at the end
            self._unsaved = None

    def _tune(self, raw: RawNode) -> None:
        """Have the core wait as long as the marks of others say."""
        if self._role is Role.LEADER:
            self._timers.on_members(raw.conf_state().voters, self.id)
        raw.set_timers(self._timers.now())

    async def _loop(self, ready: asyncio.Event) -> None:
        raw = self._core()
        while True:
            if self._removed:
                raise NotMember
            if self._behind is not None:
                raise self._behind
            if raw.has_ready():
                await self._process(raw, raw.ready())
                continue
            if self._campaign_when_alone(raw):
                continue
            ready.set()
            self._wake.clear()
            await self._wake.wait()

    async def _process(self, raw: RawNode, ready: Ready) -> None:
        self._persisting = True
        self._send(ready.messages[: ready.early])
        await self._persist(ready)
        self._persisting, self._persisting_ticks = False, 0
        self._send(ready.messages[ready.early :])
        self._note_state(ready)
        if ready.snapshot is not None:
            self._restore(ready.snapshot)
        if ready.committed and len(ready.messages) > ready.early:
            # The leader waits for the acknowledgement of new entries, nobody for the old ones
            # to be applied here.
            for _ in range(SENDING_TURNS):
                await asyncio.sleep(0)
        for count, entry in enumerate(ready.committed):
            if count % apply_run_max == apply_run_max - 1:
                await asyncio.sleep(0)
            self._apply(raw, entry)
        raw.advance()
        self._confirming.hear(raw, ready.read_states)
        self._snapshot_when_due(raw)

    async def _persist(self, ready: Ready) -> None:
        """Make entries and hard state durable; a commit index alone may wait for the next sync.

        Losing it costs nothing: a restarted member learns it anew from its leader, or commits
        again as a sole voter.
        """
        disk, storage = self._opened.disk, self._opened.storage
        if ready.hard_state is not None:
            self._unsaved = ready.hard_state
        if ready.snapshot is not None:
            await self._lane.run(partial(disk.adopt_snapshot, ready.snapshot))
            storage.apply_snapshot(ready.snapshot)
            self._snapshotter.adopted(ready.snapshot)
        if ready.must_sync:
            state, self._unsaved = self._unsaved, None
            begun = self._clock.monotonic()
            await self._lane.run(partial(disk.save, state, ready.entries))
            _sync_seconds.observe(self._clock.monotonic() - begun)
        storage.append(ready.entries)
        self._snapshotter.note_appended(ready.entries)
        if ready.hard_state is not None:
            storage.set_hard_state(ready.hard_state)
            self._term = ready.hard_state.term
            self._commit = ready.hard_state.commit

    def _send(self, messages: Sequence[raftpb.Message]) -> None:
        if not messages:
            return
        for message in messages:
            if message.type == raftpb.MsgSnap:
                # The receiver needs the configuration as it is now (PROTOCOL 3.4).
                conf_state = self._core().conf_state()
                message.snapshot.metadata.conf_state.CopyFrom(conf_state)
            self._timers.mark(message)
        self._transport.send(messages)

    def _note_state(self, ready: Ready) -> None:
        """Follow changes of leader and role; waiting proposals do not outlive leadership."""
        soft = ready.soft_state
        if soft is None:
            return
        self._lead = soft.leader
        if soft.leader != NONE:
            self._leaderless_ticks = 0
        lost = self._role is Role.LEADER and soft.role is not Role.LEADER
        self._role = soft.role
        self._timers.on_state(soft.role, soft.leader, self.id)
        self._tune(self._core())
        if lost:
            log.warning("raft: %x lost leadership at term %d", self.id, self._term)
            self._signalled = False
            self._waiting.fail_all(NotLeader)
            self._confirming.end(NotLeader)
        self._listeners.call()

    def _apply(self, raw: RawNode, entry: raftpb.Entry) -> None:
        if entry.Type == raftpb.EntryConfChange:
            self._apply_change(raw, entry)
        elif entry.Type == raftpb.EntryNormal and entry.Data:
            self._apply_request(entry)
        self._applied = entry.Index
        if self._role is Role.LEADER and not self._signalled and entry.Term == self._term:
            log.info("raft: %x leads at term %d", self.id, self._term)
            self._signalled = True
            self._listeners.call()

    def _apply_request(self, entry: raftpb.Entry) -> None:
        _applied_entries.inc()
        proposal = self._waiting.take(request_number(entry.Data))
        if proposal is not None:
            proposal.on_commit(entry.Index)
            return
        try:
            self._store.apply(parse(api.InternalRaftRequest, entry.Data).action)
        except (StoreError, DecodeError) as error:
            # Every member drops it alike, so going on keeps the stores equal (PROTOCOL 4.1).
            _dropped_entries.inc()
            log.error("raft: entry %d was not applied: %s", entry.Index, error)

    def _apply_change(self, raw: RawNode, entry: raftpb.Entry) -> None:
        change = raftpb.ConfChange.FromString(entry.Data)
        trouble = self._members.apply(change)
        raw.apply_conf_change(change)
        if change.type == raftpb.ConfChangeRemoveNode:
            self._removed |= change.node_id == self.id
            if change.node_id == self._lead and not self._removed:
                raw.campaign()  # nobody else will: its leader is gone for good (PROTOCOL 3.5)
        proposal = self._waiting.take(change.id) if change.id else None
        if proposal is not None and trouble is None:
            proposal.on_commit(entry.Index)
        elif proposal is not None:
            proposal.on_fail(ChangeRefused(trouble or ""))
        self._listeners.call()

    def _restore(self, snapshot: raftpb.Snapshot) -> None:
        state = decode_snapshot(snapshot.data, "snapshot from the leader")
        self._store.restore(state.store)
        self._members.restore(state.membership)
        self._removed |= self._members.is_removed(self.id)
        self._applied = snapshot.metadata.index
        self._listeners.call()

    def _campaign_when_alone(self, raw: RawNode) -> bool:
        """The only member need not wait for an election timeout after its start."""
        if not self._may_campaign or not len(self._members):
            return False
        self._may_campaign = False
        if len(self._members) > 1 or self.id not in self._members:
            return False
        raw.campaign()
        return True

    def _snapshot_when_due(self, raw: RawNode) -> None:
        config = current_config(self._store)
        if not self._snapshotter.due(self._applied, config):
            return
        moment = Moment(
            self._applied,
            raw.conf_state(),
            self._members.save(),
            self._store.save(),
            config,
            self._snapshotter.log_bytes,
        )
        self._tasks.spawn(self._snapshotter.take(moment), "raft-snapshot")

    async def rotate(self, encryptor: Encryptor, done: Callable[[], None]) -> None:
        """Seal the log with a new key from now on; `done` is called (on the loop) when no file
        under the old key is left. Until then the key file must name both keys.
        """
        loop = asyncio.get_running_loop()
        self._core()

        def finished() -> None:  # called in the lane
            loop.call_soon_threadsafe(done)

        async with self._snapshotter.busy:
            rotate = partial(self._opened.disk.rotate, encryptor, finished)
            index = await self._lane.run(rotate)
            self._snapshotter.rotation_begun(index)
        self._snapshot_when_due(self._core())

    def _stop(self, reason: str) -> None:
        self._stopped = reason
        self._signalled = False
        self._lead, self._role = NONE, Role.FOLLOWER
        self._waiting.fail_all(lambda: NodeStopped(reason))
        self._confirming.end(lambda: NodeStopped(reason))
        self._listeners.call()

    def _close(self, opened: Opened) -> None:
        """In the lane: leave a commit index behind that needs no replay, if that is possible."""
        if self._unsaved is not None and opened.disk.failure is None:
            opened.disk.save(self._unsaved, ())
        opened.disk.close()
