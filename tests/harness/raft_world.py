"""Members, disks, clocks and links of a simulated Raft group; all chance from one seed."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial

from swarmd.api import raftpb
from swarmd.base.errors import InvalidArgument
from swarmd.cluster.raft import (
    ConfChangeInFlight,
    Config,
    MemoryStorage,
    ProposalDropped,
    RawNode,
    Ready,
    Role,
)
from swarmd.cluster.raft.messages import sender
from swarmd.manager.raftnode.driver import SLOW_DISK_TICKS
from swarmd.manager.raftnode.timers import FAST, STOCK_ELECTION, Timers
from tests.harness.raft_checks import Broken, Checker, Seen, chain, core_of
from tests.harness.raft_coverage import PHRASES
from tests.harness.raft_disk import Compaction, Disk, Write, replay
from tests.harness.raft_member import Kind, Member, Weather

EVENTS_KEPT = 80
# How long a leader goes on after it applied its own removal.
LINGER = 10.0


class World:
    """The event loop, a heap of (time, number, action), and the drivers of all members."""

    def __init__(self, seed: int, draw: Callable[[random.Random], Weather] = Weather.draw) -> None:
        """`draw` makes the weather from the seed's chance."""
        self.chance = random.Random(seed)
        self.weather = draw(self.chance)
        self.checker = Checker()
        self.tally: Counter[str] = Counter()
        self.leader_log: list[tuple[float, int]] = []
        """When a member became leader, and which; in the order of time."""
        self.now = 0.0
        self.count = 0
        self.healed = False
        self.members: dict[int, Member] = {}
        self.cut: set[tuple[int, int]] = set()
        self._sent = 0
        self._newest: dict[tuple[int, int], int] = {}
        self.events: deque[tuple[object, ...]] = deque(maxlen=EVENTS_KEPT)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._value = 0

    # -- time --------------------------------------------------------------------------------

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Run `action` later."""
        self._number += 1
        heapq.heappush(self._heap, (self.now + delay, self._number, action))

    def run_until(
        self, end: float, done: Callable[[], bool] | None = None, *, every: int = 8
    ) -> bool:
        """Run events up to `end`, or until `done`, which is asked after `every` so many events
        and at the end; returns whether it is so.
        """
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            self.count += 1
            action()
            if done is not None and self.count % every == 0 and done():
                return True
        self.now = end
        return done is not None and done()

    def note(self, *what: object) -> None:
        """Remember an event for the report of a failure."""
        self.events.append((round(self.now, 3), *what))

    def _trace(self, text: str) -> None:
        self.note("says", text)
        for phrase, kind in PHRASES.items():
            if phrase in text:
                self.tally[kind] += 1
        if "ignores a vote request" in text:
            self.tally["vote refused in a lease"] += 1

    # -- members -----------------------------------------------------------------------------

    def found(self) -> None:
        """Start the first members as one group."""
        ids = list(range(1, self.weather.members + 1))
        for id in ids:
            self.members[id] = Member(id, self.chance, self.weather)
            self.members[id].founders = ids
            self.start(self.members[id])

    def newcomer(self) -> Member:
        """One more member with nothing on its disk, in no configuration yet, not started."""
        member = Member(len(self.members) + 1, self.chance, self.weather)
        self.members[member.id] = member
        return member

    def join(self) -> Member:
        """Start a newcomer."""
        member = self.newcomer()
        self.start(member)
        return member

    def start(self, member: Member) -> None:
        """Start or restart a member from its disk."""
        storage = member.disk.load()
        found = bool(member.founders) and storage.hard_state.term == 0
        if found:
            # The founding write did not get through; nothing of it left this member.
            member.disk, storage = Disk(), MemoryStorage()
        member.storage = storage
        snapshot = storage.snapshot()
        member.decode(snapshot.data)
        member.snapshot_index = snapshot.metadata.index
        election_ticks, heartbeat_ticks = member.first_timers
        config = Config(
            id=member.id,
            election_ticks=election_ticks,
            heartbeat_ticks=heartbeat_ticks,
            check_quorum=self.weather.check_quorum,
            pre_vote=member.pre_vote,
            size_per_message_max=self.weather.size_per_message,
            inflight_messages_max=self.weather.inflight,
            applied=snapshot.metadata.index,
            committed_size_max=self.chance.choice((1, 200, 1 << 20)),
            seed=self.chance.getrandbits(32),
        )
        member.node = RawNode(config, storage, self._trace)
        member.timers = Timers(True) if member.kind is Kind.SWARMD else None
        member.pending = None
        member.stuck_ticks = 0
        self.tally["restart"] += member.life > 0
        self.tally["clock skewed"] += abs(member.skew - 1) > 0.01
        member.seen = Seen()
        member.life += 1
        self.note("start", member.kind.value, member.id, "commit", storage.hard_state.commit)
        if found:
            member.node.bootstrap([(id, b"") for id in member.founders])
        first = self.chance.uniform(0, member.tick_seconds)
        self.after(first, partial(self._tick, member, member.life))
        self.touched(member)

    def crash(self, member: Member) -> None:
        """Stop a member at once; its disk loses a tail of what was not synced."""
        self.note("crash", member.id)
        member.node = None
        member.pending = None
        self.tally["crash"] += 1
        self.tally["unsynced writes lost"] += member.disk.crash(self.chance) > 0

    def stop(self, member: Member) -> None:
        """Stop a member in good order, as a removed one does."""
        self.note("stop", member.id)
        member.node = None
        member.pending = None
        member.disk.sync()

    def _tick(self, member: Member, life: int) -> None:
        if member.node is None or member.life != life:
            return
        if member.frozen_until > self.now:
            self.after(member.frozen_until - self.now, partial(self._tick, member, life))
            return
        if member.timers is not None:
            member.timers.tick()
            self.tune(member)
        member.node.tick()
        self._beat(member, member.node)
        self.after(member.tick_seconds, partial(self._tick, member, life))
        self.touched(member)

    def _beat(self, member: Member, node: RawNode) -> None:
        """Send heartbeats past a slow disk, as our driver does and stock does not."""
        if member.kind is not Kind.SWARMD:
            return
        member.stuck_ticks = member.stuck_ticks + 1 if member.pending is not None else 0
        if member.stuck_ticks < SLOW_DISK_TICKS:
            for message in node.take_heartbeats():
                self._send(member, message)

    def touched(self, member: Member) -> None:
        """Check a member after an event, and work on its `Ready` values while disks are fast."""
        while member.node is not None:
            self.checker.look(member.node, member.seen)
            if len(self.leader_log) < len(self.checker.leaders):
                self.leader_log.append((self.now, member.id))
            if member.pending is not None:
                return
            if not member.node.has_ready():
                self._check_patience(member, member.node)
                return
            member.pending = ready = member.node.ready()
            writes = member.disk.start(ready)
            self._post(member, ready.messages[: ready.early])
            delay = self._disk_delay(member, ready)
            if delay > 0.0:
                self.after(delay, partial(self._written, member, ready, writes))
                return
            self._finish(member, ready, writes)

    def _check_patience(self, member: Member, node: RawNode) -> None:
        """Under a stock leader everybody waits as stock does."""
        core = core_of(node)
        leader = self.members.get(core.leader)
        if member.kind is not Kind.SWARMD or leader is None or leader.kind is not Kind.STOCK:
            return
        if (
            leader.leads()
            and leader.seen.term == core.term
            and core.timing.election_ticks != STOCK_ELECTION
        ):
            raise Broken(f"{member.id} waits {core.timing.election_ticks} parts for a stock leader")

    def _disk_delay(self, member: Member, ready: Ready) -> float:
        """How long the writes of a `Ready` take; our driver waits for a needed sync only."""
        if self.healed or (member.kind is Kind.SWARMD and not ready.must_sync):
            return 0.0
        delay = self.chance.uniform(0, self.weather.disk_delay)
        self.tally["disk slow"] += delay > 0.0
        return max(delay, member.stuck_until - self.now)

    def _written(self, member: Member, ready: Ready, writes: list[Write]) -> None:
        if member.frozen_until > self.now and member.pending is ready:
            wait = member.frozen_until - self.now
            self.after(wait, partial(self._written, member, ready, writes))
            return
        self._finish(member, ready, writes)
        self.touched(member)

    def _post(self, member: Member, messages: Sequence[raftpb.Message]) -> None:
        for message in messages:
            self.checker.sent(message)
            self._send(member, message)

    def _finish(self, member: Member, ready: Ready, writes: list[Write]) -> None:
        """Do the rest of the driver's duties for a `Ready`."""
        node = member.node
        if node is None or member.pending is not ready:
            return
        for write in writes:
            replay(write, member.storage)
        if ready.must_sync:
            member.disk.sync()
        self._post(member, ready.messages[ready.early :])
        self._note_state(member, ready)
        if ready.snapshot is not None:
            member.decode(ready.snapshot.data)
            member.snapshot_index = ready.snapshot.metadata.index
            self.checker.applied(member.id, member.applied, member.digest)
        removed = False
        for entry in ready.committed:
            removed |= self._apply(member, node, entry)
        for state in ready.read_states:
            self.checker.answered(state)
            self.tally["read confirmed"] += 1
            self.tally["read confirmed for a follower"] += not member.leads()
        member.pending = None
        node.advance()
        self.maybe_snapshot(member)
        if removed and member.leads():
            # The others must learn of it: without its vote they could wait for it forever.
            self.after(LINGER, partial(self._leave, member, member.life))
        elif removed:
            self.stop(member)

    def _note_state(self, member: Member, ready: Ready) -> None:
        soft = ready.soft_state
        if soft is None or member.node is None:
            return
        if soft.role is Role.LEADER:
            over = member.asked_over and core_of(member.node).term == member.asked_over + 1
            self.tally["leadership handed over"] += bool(over)
        if member.timers is not None:
            member.timers.on_state(soft.role, soft.leader, member.id)
            self.tune(member)

    def tune(self, member: Member) -> None:
        """Follow the marks, and count when a leader's mode changes."""
        if member.timers is not None:
            before = member.timers.fast
            member.tune()
            if member.timers.fast != before:
                self.tally["fast mode entered" if member.timers.fast else "fast mode left"] += 1
                self.note("fast" if member.timers.fast else "not fast", member.id)

    def _leave(self, member: Member, life: int) -> None:
        if member.life == life and member.node is not None:
            self.stop(member)

    def _apply(self, member: Member, node: RawNode, entry: raftpb.Entry) -> bool:
        """Apply one entry; whether it removed the member itself."""
        if entry.Index != member.applied + 1:
            raise Broken(f"{member.id} applies {entry.Index} after {member.applied}")
        member.applied = entry.Index
        member.digest = chain(member.digest, entry)
        self.checker.applied(member.id, entry.Index, member.digest)
        if entry.Type != raftpb.EntryConfChange:
            return False
        change = raftpb.ConfChange.FromString(entry.Data)
        led = core_of(node).leader
        self._tally_change(node, change)
        node.apply_conf_change(change)
        if change.type != raftpb.ConfChangeRemoveNode:
            return False
        member.removed.append(change.node_id)
        if member.kind is Kind.SWARMD and change.node_id == led != member.id:
            node.campaign()  # as our driver does: nobody else will
        return change.node_id == member.id

    def _tally_change(self, node: RawNode, change: raftpb.ConfChange) -> None:
        """Count a change where its leader applies it."""
        core = core_of(node)
        if core.role is not Role.LEADER:
            return
        if change.type == raftpb.ConfChangeAddNode:
            promoted = change.node_id in core.membership.learners
            self.tally["learner promoted"] += promoted
            new = not promoted and change.node_id not in core.membership
            self.tally["member added"] += new
        elif change.type == raftpb.ConfChangeAddLearnerNode:
            self.tally["learner added"] += 1
        elif change.type == raftpb.ConfChangeUpdateNode:
            self.tally["member updated"] += 1
        else:
            self.tally["member removed"] += change.node_id in core.membership

    def maybe_snapshot(self, member: Member, *, force: bool = False) -> None:
        """Take a snapshot and drop the log before it, now and then."""
        fresh = member.applied - member.snapshot_index
        if member.node is None or fresh == 0:
            return
        if fresh >= self.weather.snapshot_every or force:
            keep = self.chance.choice((0, 0, 3, 10))
            conf_state = member.node.conf_state()
            drop_to = member.applied - keep
            write = Compaction(member.applied, conf_state, member.encode(), drop_to)
            member.disk.compact(member.storage, write)
            member.snapshot_index = member.applied

    # -- network -----------------------------------------------------------------------------

    def _send(self, member: Member, message: raftpb.Message) -> None:
        if message.type == raftpb.MsgSnap:
            message = self._freshen(member, message)
        if member.timers is not None:
            member.timers.mark(message)
        if self.chance.random() < 0.1:
            message = raftpb.Message.FromString(message.SerializeToString())
        copies = 1
        if not self.healed:
            if (member.id, message.to) in self.cut or self.chance.random() < self.weather.loss:
                self.note("lost", line(message))
                self.tally["message lost"] += 1
                self.tally["snapshot lost"] += message.type == raftpb.MsgSnap
                self.after(0.0, partial(self._report, member, message, ok=False))
                return
            copies += self.chance.random() < self.weather.double
        self.tally["message doubled"] += copies > 1
        self._sent += 1
        for _ in range(copies):
            delay = self.chance.uniform(0.001, 0.1 if self.healed else self.weather.delay)
            self.after(delay, partial(self._deliver, member, message, self._sent))

    def _freshen(self, member: Member, message: raftpb.Message) -> raftpb.Message:
        """Replace a snapshot from before the receiver was a member, which it would ignore."""
        conf_state = message.snapshot.metadata.conf_state
        if message.to in conf_state.voters or message.to in conf_state.learners:
            return message
        self.maybe_snapshot(member, force=True)
        fresh = raftpb.Message()
        fresh.CopyFrom(message)
        fresh.snapshot.CopyFrom(member.storage.snapshot())
        return fresh

    def _report(self, member: Member, message: raftpb.Message, *, ok: bool) -> None:
        """Tell the sender's core how sending went, as a transport would."""
        if member.node is None:
            return
        if member.frozen_until > self.now:
            wait = member.frozen_until - self.now
            self.after(wait, partial(self._report, member, message, ok=ok))
            return
        if message.type == raftpb.MsgSnap:
            member.node.report_snapshot(message.to, ok)
        if not ok and self.chance.random() < 0.5:
            member.node.report_unreachable(message.to)
        self.touched(member)

    def _deliver(self, origin: Member, message: raftpb.Message, number: int) -> None:
        target = self.members[message.to]
        node = target.node
        if node is None:
            self._report(origin, message, ok=False)
        elif target.frozen_until > self.now:
            wait = target.frozen_until - self.now
            self.after(wait, partial(self._deliver, origin, message, number))
        elif origin.id in target.removed:
            # Stock managers answer so, and the sender shuts down on it.
            if (target.id, origin.id) not in self.cut and origin.node is not None:
                self.stop(origin)
        else:
            self.note("recv", line(message))
            self._tally_message(origin, target, message, number)
            if target.timers is not None:
                target.timers.hear(message, target.seen.term)
            node.step(message)
            self.tune(target)
            self.touched(target)
            if message.type == raftpb.MsgSnap:
                self._report(origin, message, ok=True)

    def _tally_message(
        self, origin: Member, target: Member, message: raftpb.Message, number: int
    ) -> None:
        """Count what is special about a message that arrives."""
        link = (origin.id, target.id)
        if number < self._newest.get(link, 0):
            self.tally["message late by overtaking"] += 1
        self._newest[link] = max(number, self._newest.get(link, 0))
        if message.type == raftpb.MsgTimeoutNow:
            target.asked_over = message.term
        elif message.type == raftpb.MsgPreVoteResp and not message.reject and not origin.pre_vote:
            self.tally["pre-vote granted by a member without"] += 1

    # -- clients -----------------------------------------------------------------------------

    def leaders(self) -> list[Member]:
        """Members that believe to lead, newest term last."""
        found = [m for m in self.members.values() if m.leads()]
        return sorted(found, key=lambda m: m.seen.term)

    def propose(self) -> None:
        """Propose at everyone who believes to lead; now and then several at once."""
        for member in self.leaders():
            if member.frozen_until > self.now:
                continue
            for _ in range(self.chance.choice((1, 1, 1, 5))):
                self._value += 1
                data = f"v{self._value}".encode() + b"." * self.chance.choice((0, 0, 50))
                try:
                    if member.node is not None:
                        member.node.propose(data)
                except ProposalDropped:
                    break
            self.touched(member)

    def read(self, member: Member) -> None:
        """Ask for a read index."""
        if member.node is not None and member.frozen_until <= self.now:
            self._value += 1
            context = f"r{self._value}".encode()
            self.checker.ask(context)
            member.node.read_index(context)
            self.touched(member)

    def change(self, kind: raftpb.ConfChangeType, id: int) -> bool:
        """Propose a configuration change at the newest leader; whether it was taken."""
        leaders = self.leaders()
        if not leaders:
            return False
        member = leaders[-1]
        node = member.node
        if node is None or member.frozen_until > self.now:
            return False
        if id == member.id and kind == raftpb.ConfChangeRemoveNode:
            # Drivers hand over before a leader is removed; the next leader removes it.
            node.transfer_leadership(self.chance.choice(list(self.members)))
            self.touched(member)
            return False
        try:
            node.propose_conf_change(raftpb.ConfChange(id=1, type=kind, node_id=id))
        except ConfChangeInFlight:
            self.tally["second change refused"] += 1
            return False
        except (ProposalDropped, InvalidArgument):
            return False
        self.note("change", kind, id, "at", member.id)
        self.touched(member)
        return True


def line(message: raftpb.Message) -> str:
    """One message in one line."""
    kind = raftpb.MessageType.Name(message.type).removeprefix("Msg")
    text = f"{sender(message)}->{message.to} {kind} t{message.term}"
    text += f" {message.logTerm}/{message.index} c{message.commit}"
    if message.entries:
        text += f" +{len(message.entries)}"
    if message.reject:
        text += f" reject {message.rejectHint}"
    elif message.rejectHint:
        text += " fast" if message.rejectHint == FAST else " hello"
    return text
