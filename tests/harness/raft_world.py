"""Members, disks, clocks and links of a simulated Raft group; all chance from one seed."""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from swarmd.api import raftpb
from swarmd.base.errors import InvalidArgument
from swarmd.cluster.raft import Config, MemoryStorage, ProposalDropped, RawNode, Ready, Role
from swarmd.cluster.raft.messages import sender
from tests.harness.raft_checks import Broken, Checker, Seen, chain, core_of
from tests.harness.raft_disk import Compaction, Disk, Write, replay

EVENTS_KEPT = 80
# How long a leader goes on after it applied its own removal.
LINGER = 10.0


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the world is; drawn once per seed. Times are in units of about one tick."""

    duration: float
    members: int
    check_quorum: bool
    election_ticks: int
    loss: float
    double: float
    delay: float
    disk_delay: float
    fault_every: float
    propose_every: float
    read_every: float
    snapshot_every: int
    size_per_message: int
    inflight: int

    @staticmethod
    def draw(chance: random.Random) -> Weather:
        """One of many worlds, from calm to awful."""
        election_ticks = chance.choice((3, 4, 6, 10))
        size, window = chance.choice(((1, 1), (1, 16), (60, 4), (60, 256), (65535, 256)))
        return Weather(
            duration=election_ticks * chance.uniform(12, 26),
            members=chance.choice((1, 2, 3, 3, 3, 4, 5, 5)),
            check_quorum=chance.random() < 0.8,
            election_ticks=election_ticks,
            loss=chance.choice((0.0, 0.01, 0.05, 0.2)),
            double=chance.choice((0.0, 0.02, 0.15)),
            delay=election_ticks * chance.choice((0.01, 0.05, 0.2, 0.6)),
            disk_delay=election_ticks * chance.choice((0.0, 0.0, 0.03, 0.2, 0.6)),
            fault_every=election_ticks * chance.choice((0.2, 0.4, 0.8)),
            propose_every=chance.choice((0.5, 2.0, 6.0)),
            read_every=chance.choice((0.7, 5.0)),
            snapshot_every=chance.choice((5, 20, 1000)),
            size_per_message=size,
            inflight=window,
        )


class Member:
    """One manager: a disk that outlives crashes, and what runs on it."""

    def __init__(self, id: int, chance: random.Random, election_ticks: int) -> None:
        self.id = id
        self.disk = Disk()
        self.storage = MemoryStorage()
        self.node: RawNode | None = None
        self.seen = Seen()
        self.life = 0
        self.founders: list[int] = []
        self.frozen_until = 0.0
        self.tick_seconds = chance.uniform(0.75, 1.35)
        self.election_ticks = election_ticks + chance.choice((0, 0, 0, 2))
        # Stock managers run without pre-vote, ours with it.
        self.pre_vote = chance.random() < 0.6
        self.pending: Ready | None = None
        self.applied = 0
        self.digest = 0
        self.removed: list[int] = []
        self.snapshot_index = 0

    def leads(self) -> bool:
        """Whether it is up and believes to lead."""
        return self.node is not None and core_of(self.node).role is Role.LEADER

    def encode(self) -> bytes:
        """The state machine as snapshot data."""
        return json.dumps([self.applied, self.digest, self.removed]).encode()

    def decode(self, data: bytes) -> None:
        """Replace the state machine."""
        self.applied, self.digest, self.removed = json.loads(data) if data else (0, 0, [])


class World:
    """The event loop, a heap of (time, number, action), and the drivers of all members."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.weather = Weather.draw(self.chance)
        self.checker = Checker()
        self.now = 0.0
        self.count = 0
        self.healed = False
        self.members: dict[int, Member] = {}
        self.cut: set[tuple[int, int]] = set()
        self.events: deque[tuple[object, ...]] = deque(maxlen=EVENTS_KEPT)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._value = 0

    # -- time --------------------------------------------------------------------------------

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Run `action` later."""
        self._number += 1
        heapq.heappush(self._heap, (self.now + delay, self._number, action))

    def run_until(self, end: float, done: Callable[[], bool] | None = None) -> bool:
        """Run events up to `end`, or until `done`; returns whether it stopped early."""
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            self.count += 1
            action()
            if done is not None and self.count % 8 == 0 and done():
                return True
        self.now = end
        return False

    def note(self, *what: object) -> None:
        """Remember an event for the report of a failure."""
        self.events.append((round(self.now, 2), *what))

    # -- members -----------------------------------------------------------------------------

    def found(self) -> None:
        """Start the first members as one group."""
        ids = list(range(1, self.weather.members + 1))
        for id in ids:
            self.members[id] = Member(id, self.chance, self.weather.election_ticks)
            self.members[id].founders = ids
            self.start(self.members[id])

    def join(self) -> Member:
        """Start one more member with nothing on its disk, in no configuration yet."""
        member = Member(len(self.members) + 1, self.chance, self.weather.election_ticks)
        self.members[member.id] = member
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
        config = Config(
            id=member.id,
            election_ticks=member.election_ticks,
            check_quorum=self.weather.check_quorum,
            pre_vote=member.pre_vote,
            size_per_message_max=self.weather.size_per_message,
            inflight_messages_max=self.weather.inflight,
            applied=snapshot.metadata.index,
            committed_size_max=self.chance.choice((1, 200, 1 << 20)),
            seed=self.chance.getrandbits(32),
        )
        member.node = RawNode(config, storage, partial(self.note, "says"))
        member.pending = None
        member.seen = Seen()
        member.life += 1
        self.note("start", member.id, "commit", storage.hard_state.commit)
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
        member.disk.crash(self.chance)

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
        member.node.tick()
        self.after(member.tick_seconds, partial(self._tick, member, life))
        self.touched(member)

    def touched(self, member: Member) -> None:
        """Check a member after an event, and work on its `Ready` values while disks are fast."""
        while member.node is not None:
            self.checker.look(member.node, member.seen)
            if member.pending is not None or not member.node.has_ready():
                return
            member.pending = ready = member.node.ready()
            writes = member.disk.start(ready)
            self._post(member, ready.messages[: ready.early])
            delay = self.chance.uniform(0, self.weather.disk_delay)
            if delay > 0.0 and not self.healed:
                self.after(delay, partial(self._written, member, ready, writes))
                return
            self._finish(member, ready, writes)

    def _written(self, member: Member, ready: Ready, writes: list[Write]) -> None:
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
        if ready.snapshot is not None:
            member.decode(ready.snapshot.data)
            member.snapshot_index = ready.snapshot.metadata.index
            self.checker.applied(member.id, member.applied, member.digest)
        removed = False
        for entry in ready.committed:
            removed |= self._apply(member, node, entry)
        for state in ready.read_states:
            self.checker.answered(state)
        member.pending = None
        node.advance()
        self.maybe_snapshot(member)
        if removed and member.leads():
            # The others must learn of it: without its vote they could wait for it forever.
            self.after(LINGER, partial(self._leave, member, member.life))
        elif removed:
            self.stop(member)

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
        node.apply_conf_change(change)
        if change.type != raftpb.ConfChangeRemoveNode:
            return False
        member.removed.append(change.node_id)
        return change.node_id == member.id

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
        if self.chance.random() < 0.1:
            message = raftpb.Message.FromString(message.SerializeToString())
        copies = 1
        if not self.healed:
            if (member.id, message.to) in self.cut or self.chance.random() < self.weather.loss:
                self.note("lost", line(message))
                self.after(0.0, partial(self._report, member, message, ok=False))
                return
            copies += self.chance.random() < self.weather.double
        for _ in range(copies):
            delay = self.chance.uniform(0.001, 0.1 if self.healed else self.weather.delay)
            self.after(delay, partial(self._deliver, member, message))

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
        if message.type == raftpb.MsgSnap:
            member.node.report_snapshot(message.to, ok)
        if not ok and self.chance.random() < 0.5:
            member.node.report_unreachable(message.to)
        self.touched(member)

    def _deliver(self, origin: Member, message: raftpb.Message) -> None:
        target = self.members[message.to]
        if target.node is None:
            self._report(origin, message, ok=False)
        elif target.frozen_until > self.now:
            wait = target.frozen_until - self.now
            self.after(wait, partial(self._deliver, origin, message))
        elif origin.id in target.removed:
            # Stock managers answer so, and the sender shuts down on it.
            if (target.id, origin.id) not in self.cut and origin.node is not None:
                self.stop(origin)
        else:
            self.note("recv", line(message))
            target.node.step(message)
            self.touched(target)
            if message.type == raftpb.MsgSnap:
                self._report(origin, message, ok=True)

    # -- clients -----------------------------------------------------------------------------

    def leaders(self) -> list[Member]:
        """Members that believe to lead, newest term last."""
        found = [m for m in self.members.values() if m.leads()]
        return sorted(found, key=lambda m: m.seen.term)

    def propose(self) -> None:
        """Propose at everyone who believes to lead; now and then several at once."""
        for member in self.leaders():
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
        if member.node is not None:
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
        if node is None:
            return False
        if id == member.id and kind == raftpb.ConfChangeRemoveNode:
            # Drivers hand over before a leader is removed; the next leader removes it.
            node.transfer_leadership(self.chance.choice(list(self.members)))
            self.touched(member)
            return False
        try:
            node.propose_conf_change(raftpb.ConfChange(id=1, type=kind, node_id=id))
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
    return text
