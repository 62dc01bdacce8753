"""How long members wait for each other: as stock does, or shorter where that is safe. Pure.

A tick of the settings (1 s) is ten of the core's. Stock timing is a heartbeat per tick and an
election after ten. The leader alone decides on more: it marks its heartbeats "fast" while the
members that answer with our mark would still be a majority without it; a follower waits less
only as long as its leader's heartbeats are marked so. Nobody marks anything towards a stock
leader, and a stock leader marks nothing, so under one all timing is stock.

The marks travel in `rejectHint` of MsgHeartbeat and MsgHeartbeatResp, which nobody else reads
there. See docs/decisions/0007-fast-failover.md for why this disturbs no healthy leader.
"""

from __future__ import annotations

from collections.abc import Collection

from swarmd.api import raftpb
from swarmd.cluster.raft import NONE, Role, Timing

PARTS = 10  # the core's ticks per tick of the settings
STOCK_ELECTION, STOCK_HEARTBEAT = 10 * PARTS, PARTS
FAST_ELECTION, FAST_HEARTBEAT = PARTS, PARTS // 5
STOCK = Timing(STOCK_ELECTION, STOCK_HEARTBEAT)
# A leader checks its quorum as slowly as stock does: a pause is no reason to resign.
QUICK_LEADER = Timing(STOCK_ELECTION, FAST_HEARTBEAT)
# Nobody stands within a tick of the others' patience, who would not hear of it yet. Two that
# stand at once are no misfortune: the pre-vote tells them apart, and if it does not, they ask
# again soon.
FAST_FOLLOWER = Timing(FAST_ELECTION, FAST_HEARTBEAT, (PARTS + 1, PARTS + 4), (3, 6))
# A new leader of a fast group, and one whose group grew, finds out quickly who is there: this
# long, in the core's ticks. More heartbeats than stock sends do a stock follower no harm.
EAGER_TICKS = 3 * PARTS
# Without any leader for so long (core's ticks) the group may have changed: be as stock again.
LEADERLESS_TICKS_MAX = 60 * PARTS

# Any other value, such as the 0 of stock, says nothing.
HELLO = 0x73776D31  # "I know these marks"
FAST = 0x73776D32  # leader to follower: "wait less for me"


class Timers:
    """What one member knows of the marks of others, and the timers that follow from it."""

    def __init__(self, allowed: bool) -> None:
        """`allowed`: False for stock timing whatever others say; nothing is marked then."""
        self._allowed = allowed
        self._known: set[int] = set()  # members whose last answer to us as leader had the mark
        self._voters: frozenset[int] | None = None  # as leader, once they were looked at
        self.told = False
        """As follower: the last leader's last heartbeat was marked fast."""
        self._greeted = False  # it had a mark of ours at all
        self._eager = 0
        self._leaderless = 0
        self._leader = NONE
        self._role = Role.FOLLOWER
        self.fast = False
        """As leader: heartbeats are marked fast now."""

    def now(self) -> Timing:
        """The core's timing for the present role."""
        if self._role is Role.LEADER:
            return QUICK_LEADER if self.fast or self._eager > 0 else STOCK
        return FAST_FOLLOWER if self.told else STOCK

    def tick(self) -> None:
        """One tick of the core passed."""
        self._eager = max(0, self._eager - 1)
        self._leaderless = self._leaderless + 1 if self._leader == NONE else 0
        if self._leaderless > LEADERLESS_TICKS_MAX:
            self.told = False

    def on_state(self, role: Role, leader: int, own_id: int) -> None:
        """Role or leader changed."""
        if role is Role.LEADER and self._role is not Role.LEADER:
            self._known.clear()
            self._voters = None
            self._eager = EAGER_TICKS if self.told else 0
            self.told = False
        if role is not Role.LEADER:
            self.fast = False
            if leader not in (NONE, self._leader, own_id):
                self.told = False  # until this one says so, too
        self._role, self._leader = role, leader

    def on_members(self, voters: Collection[int], own_id: int) -> None:
        """As leader: decide whether the group is fast, by who is a voter and who answered."""
        grown = self._voters is not None and not self._voters.issuperset(voters)
        if grown and self._allowed and self._role is Role.LEADER:
            self._eager = EAGER_TICKS
        self._voters = frozenset(voters)
        self._known.intersection_update(voters)
        answering = len(self._known - {own_id})
        self.fast = self._role is Role.LEADER and answering >= len(voters) // 2 + 1

    def hear(self, message: raftpb.Message, term: int) -> None:
        """Read the mark of an incoming message; `term` is our own."""
        if not self._allowed:
            return
        if message.type == raftpb.MsgHeartbeat and message.term >= term:
            self.told = message.rejectHint == FAST
            self._greeted = message.rejectHint in (FAST, HELLO)
        elif message.type == raftpb.MsgHeartbeatResp and message.term == term:
            sender: int = getattr(message, "from")
            if message.rejectHint == HELLO:
                self._known.add(sender)
            else:
                self._known.discard(sender)

    def mark(self, message: raftpb.Message) -> None:
        """Put our mark on an outgoing message."""
        if not self._allowed:
            return
        if message.type == raftpb.MsgHeartbeat:
            message.rejectHint = FAST if self.fast else HELLO
        elif message.type == raftpb.MsgHeartbeatResp and self._greeted:
            message.rejectHint = HELLO
