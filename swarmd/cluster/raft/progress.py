"""What the leader knows about each member's log, and how fast it may send there."""

from __future__ import annotations

import enum
from collections import deque

from swarmd.base.errors import InvariantViolation


class Inflights:
    """Window of messages sent but not acknowledged, by the last index each one carries."""

    __slots__ = ("_indexes", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._indexes: deque[int] = deque()

    def add(self, index: int) -> None:
        """Note a message whose last entry is `index`; indexes never go down."""
        if self.is_full():
            raise InvariantViolation(f"raft: more than {self.capacity} messages in flight")
        self._indexes.append(index)

    def free_to(self, index: int) -> None:
        """Forget messages that an acknowledgement of `index` covers."""
        indexes = self._indexes
        while indexes and indexes[0] <= index:
            indexes.popleft()

    def is_full(self) -> bool:
        """Whether no further message may be sent."""
        return len(self._indexes) >= self.capacity

    def clear(self) -> None:
        """Forget everything."""
        self._indexes.clear()

    def __len__(self) -> int:
        return len(self._indexes)


class ProgressState(enum.Enum):
    """How entries are sent to a member."""

    PROBE = "probe"
    """One append per heartbeat round, to find where the logs meet."""
    REPLICATE = "replicate"
    """Pipelined: `next` runs ahead of acknowledgements."""
    SNAPSHOT = "snapshot"
    """A snapshot is on its way; no entries."""


class Progress:
    """One member in the leader's eyes. match < next, always."""

    __slots__ = (
        "flow_paused",
        "inflights",
        "is_learner",
        "match",
        "next",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, next_index: int, capacity: int, *, is_learner: bool = False) -> None:
        self.match = 0
        self.next = next_index
        self.state = ProgressState.PROBE
        self.pending_snapshot = 0
        # Heard from within the current check-quorum period.
        self.recent_active = False
        # Set after a probe or a full window, cleared by the next heartbeat answer.
        self.flow_paused = False
        # Highest commit index told to the member; saves empty appends that tell nothing new.
        self.sent_commit = 0
        self.inflights = Inflights(capacity)
        self.is_learner = is_learner

    def _enter(self, state: ProgressState) -> None:
        self.flow_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.clear()

    def become_probe(self) -> None:
        """Find anew where the logs meet; after a snapshot that is right behind it."""
        pending = self.pending_snapshot if self.state is ProgressState.SNAPSHOT else 0
        self._enter(ProgressState.PROBE)
        self.next = max(self.match, pending) + 1
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """Send freely from the first entry the member is not known to have."""
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """Wait for a snapshot at `index` to arrive."""
        self._enter(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def is_paused(self) -> bool:
        """Whether no append may be sent now."""
        return self.flow_paused or self.state is ProgressState.SNAPSHOT

    def sent_entries(self, count: int) -> None:
        """Note that an append with `count` entries from `next` on was sent."""
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1)
            # A full window pauses the flow; a heartbeat answer then lets one empty append out,
            # so that losing the whole window cannot stall the member for good.
            self.flow_paused = self.inflights.is_full()
        elif self.state is ProgressState.PROBE:
            if count:
                self.flow_paused = True
        else:
            raise InvariantViolation("raft: append sent while a snapshot is pending")

    def can_bump_commit(self, index: int) -> bool:
        """Whether telling commit `index` may move the member's commit index."""
        return self.sent_commit < index and self.sent_commit < self.next - 1

    def maybe_update(self, index: int) -> bool:
        """Take an acknowledgement of `index`; False if it is old news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.flow_paused = False
        return True

    def maybe_decrease(self, rejected: int, hint: int) -> bool:
        """Take the rejection of an append at `rejected`; False if it is stale.

        `hint` is where the logs may meet. Rejections come late and twice, so they count only if
        they fit what was sent last.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
            self.sent_commit = min(self.sent_commit, self.next - 1)
            return True
        if self.next - 1 != rejected:
            return False
        self.next = max(min(rejected, hint + 1), self.match + 1)
        self.sent_commit = min(self.sent_commit, self.next - 1)
        self.flow_paused = False
        return True
