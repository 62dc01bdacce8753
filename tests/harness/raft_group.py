"""A small Raft group under full control of a test: nothing moves unless the test says so.

Every member has the real core and a plain driver that persists at once. Messages wait in
per-receiver inboxes until delivered or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swarmd.api import raftpb
from swarmd.cluster.raft import (
    Config,
    MemoryStorage,
    RawNode,
    ReadState,
    Ready,
    Role,
    new_conf_state,
    new_snapshot,
)
from swarmd.cluster.raft.core import Raft
from swarmd.cluster.raft.messages import new_message, sender, set_sender

ROUNDS_MAX = 1000
START_INDEX = 1


class Peer:
    """One member with its storage and what it applied."""

    def __init__(self, config: Config, storage: MemoryStorage, trace: list[str]) -> None:
        self.config = config
        self.storage = storage
        self.node = RawNode(config, storage, trace.append)
        self.applied: list[raftpb.Entry] = []
        self.read_states: list[ReadState] = []
        self.restored: list[int] = []
        self.readies: list[Ready] = []

    @property
    def raft(self) -> Raft:
        """The machine behind the door."""
        return self.node._raft

    @property
    def data(self) -> list[bytes]:
        """Data of applied plain entries, without no-ops."""
        return [e.Data for e in self.applied if e.Type == raftpb.EntryNormal and e.Data]

    def process(self) -> list[raftpb.Message]:
        """Do the driver's duties for one `Ready`; returns its messages."""
        ready = self.node.ready()
        self.readies.append(ready)
        if ready.snapshot is not None:
            self.storage.apply_snapshot(ready.snapshot)
            self.restored.append(ready.snapshot.metadata.index)
        self.storage.append(ready.entries)
        if ready.hard_state is not None:
            self.storage.set_hard_state(ready.hard_state)
        for entry in ready.committed:
            self.applied.append(entry)
            if entry.Type == raftpb.EntryConfChange:
                self.node.apply_conf_change(raftpb.ConfChange.FromString(entry.Data))
        self.read_states.extend(ready.read_states)
        self.node.advance()
        return list(ready.messages)


class Group:
    """Members 1..n that start as voters with an empty snapshot at index 1, term 1."""

    def __init__(self, count: int = 3, **settings: Any) -> None:
        self.trace: list[str] = []
        self.peers: dict[int, Peer] = {}
        self.inbox: dict[int, list[raftpb.Message]] = {}
        self.cut: set[tuple[int, int]] = set()
        self.lost: list[raftpb.Message] = []
        ids = list(range(1, count + 1))
        for id in ids:
            self.add(id, voters=ids, **settings)

    def add(self, id: int, voters: Sequence[int] = (), **settings: Any) -> Peer:
        """Start a member; without `voters` it knows nothing, as a joiner."""
        storage = MemoryStorage()
        applied = 0
        if voters:
            state = new_conf_state(voters)
            storage.apply_snapshot(new_snapshot(START_INDEX, 1, state, b""))
            applied = START_INDEX
        config = Config(id=id, seed=id, applied=applied, **settings)
        self.peers[id] = Peer(config, storage, self.trace)
        self.inbox[id] = []
        return self.peers[id]

    def restart(self, id: int) -> Peer:
        """Restart a member from its storage."""
        old = self.peers[id]
        self.peers[id] = Peer(old.config, old.storage, self.trace)
        return self.peers[id]

    def __getitem__(self, id: int) -> Peer:
        return self.peers[id]

    # -- moving messages ---------------------------------------------------------------------

    def post(self, messages: Sequence[raftpb.Message]) -> None:
        """Put messages into inboxes, or lose them on cut links."""
        for message in messages:
            link = (sender(message), message.to)
            if link in self.cut or message.to not in self.inbox:
                self.lost.append(message)
            else:
                self.inbox[message.to].append(message)

    def process(self, *ids: int) -> list[raftpb.Message]:
        """Process every `Ready` of the members (default: all); returns what was sent."""
        sent: list[raftpb.Message] = []
        for id in ids or tuple(self.peers):
            peer = self.peers[id]
            while peer.node.has_ready():
                sent.extend(peer.process())
        self.post(sent)
        return sent

    def deliver(
        self, to: int, wanted: Callable[[raftpb.Message], bool] | None = None
    ) -> list[raftpb.Message]:
        """Step waiting messages of one member, or those `wanted`; returns them."""
        waiting, self.inbox[to] = self.inbox[to], []
        taken = []
        for message in waiting:
            if wanted is None or wanted(message):
                taken.append(message)
            else:
                self.inbox[to].append(message)
        for message in taken:
            self.peers[to].node.step(raftpb.Message.FromString(message.SerializeToString()))
        return taken

    def drop(self, to: int) -> list[raftpb.Message]:
        """Lose what waits for a member."""
        lost, self.inbox[to] = self.inbox[to], []
        return lost

    def stabilize(self, *ids: int) -> None:
        """Process and deliver among the members until nothing moves."""
        chosen = ids or tuple(self.peers)
        for _ in range(ROUNDS_MAX):
            moved = bool(self.process(*chosen))
            for id in chosen:
                moved |= bool(self.deliver(id))
            if not moved and not any(self.peers[id].node.has_ready() for id in chosen):
                return
        raise AssertionError("the group does not come to rest")

    # -- common scenes -----------------------------------------------------------------------

    def elect(self, id: int) -> Peer:
        """Make `id` the leader and settle."""
        self.peers[id].node.campaign()
        self.stabilize()
        assert self.peers[id].raft.role is Role.LEADER, self.trace
        return self.peers[id]

    def tick(self, id: int, count: int = 1) -> None:
        """Let ticks pass at one member."""
        for _ in range(count):
            self.peers[id].node.tick()

    def isolate(self, id: int) -> None:
        """Cut all links of a member."""
        for other in self.peers:
            if other != id:
                self.cut.update(((id, other), (other, id)))

    def mend(self) -> None:
        """Mend all links."""
        self.cut.clear()


def incoming(kind: raftpb.MessageType, origin: int, to: int, **fields: int) -> raftpb.Message:
    """A message as a peer would send it; `fields` are those of `new_message` and reject ones."""
    reject, hint = fields.pop("reject", 0), fields.pop("hint", 0)
    message = new_message(
        kind,
        to,
        term=fields.pop("term", 0),
        log_term=fields.pop("log_term", 0),
        index=fields.pop("index", 0),
        commit=fields.pop("commit", 0),
    )
    assert not fields, fields
    message.reject = bool(reject)
    message.rejectHint = hint
    set_sender(message, origin)
    return message
