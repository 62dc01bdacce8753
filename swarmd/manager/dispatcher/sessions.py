"""Who is registered, with which session, until when. Pure: time and chance are arguments.

Mirrors the reference's node store (manager/dispatcher/nodes.go, period.go): heartbeat
periods with jitter, expiry after three periods (six while a node is unknown after a
leadership change), a rate limit on registrations, session ids that die with the leader,
and the 24 hours after which the tasks of a node that stays down are given up.
Nothing here is stored; a new leader starts from an empty table.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.base.entropy import Entropy, new_id
from swarmd.base.errors import InvalidArgument, NotFound, Unavailable
from swarmd.manager.dispatcher.timers import Timers

NODE_NOT_REGISTERED = "node not registered"
SESSION_INVALID = "session invalid"

heartbeat_seconds_default = 5.0
heartbeat_jitter_seconds = 0.5
grace_periods = 3
grace_periods_unknown = 6
rate_limit_seconds = 8.0
registrations_max = 3
orphan_seconds = 24 * 3600.0


@dataclass(slots=True)
class Record:
    """One registered node. `session_id` is empty while the node is unknown."""

    session_id: str
    registered: float  # monotonic seconds of the last admitted registration
    attempts: int = 0
    disconnect: bool = False  # somebody asked for this node to be sent away


class NodeTable:
    """The registered nodes of one leadership, and the nodes that are down."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._records: dict[str, Record] = {}
        self._expiry = Timers()
        self._down = Timers()
        self.period = heartbeat_seconds_default

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._records

    def choose_period(self) -> float:
        """The next heartbeat period to hand out, in seconds; never quite zero."""
        period = self.period
        jitter = min(heartbeat_jitter_seconds, period / 2)
        return period + self._entropy.uniform(-jitter, jitter)

    def add_unknown(self, node_id: str, now: float) -> None:
        """Give a node of the last leader twice the usual grace to register here."""
        self._records[node_id] = Record(session_id="", registered=float("-inf"))
        self._expiry.arm(node_id, now + self.choose_period() * grace_periods_unknown)

    def admit(self, node_id: str, now: float) -> None:
        """Count one registration attempt.

        Raises Unavailable when a node already in the table comes more than three times,
        each time within eight seconds of the last admitted attempt.
        """
        record = self._records.get(node_id)
        if record is None:
            return
        if now - record.registered > rate_limit_seconds:
            record.attempts = 0
        record.attempts += 1
        if record.attempts > registrations_max:
            raise Unavailable(f"node {node_id} exceeded rate limit count of registrations")
        record.registered = now

    def register(self, node_id: str, now: float) -> str:
        """Open a new session, ending an older one; returns its id."""
        old = self._records.get(node_id)
        record = Record(
            session_id=new_id(self._entropy),
            registered=old.registered if old is not None else now,
            attempts=old.attempts if old is not None else 0,
        )
        self._records[node_id] = record
        self._down.disarm(node_id)
        self._expiry.arm(node_id, now + self.choose_period() * grace_periods)
        return record.session_id

    def check(self, node_id: str, session_id: str) -> Record:
        """The node's record. Raises NotFound or InvalidArgument with the stock texts."""
        record = self._records.get(node_id)
        if record is None:
            raise NotFound(NODE_NOT_REGISTERED)
        if not session_id or record.session_id != session_id:
            raise InvalidArgument(SESSION_INVALID)
        return record

    def is_current(self, node_id: str, session_id: str) -> bool:
        """Whether `session_id` is the node's session; raises nothing."""
        record = self._records.get(node_id)
        return record is not None and bool(session_id) and record.session_id == session_id

    def heartbeat(self, node_id: str, session_id: str, now: float) -> float:
        """Move the expiry; returns the period the node should wait, in seconds."""
        record = self._records.get(node_id)
        if record is None or not session_id or record.session_id != session_id:
            self.check(node_id, session_id)
        period = self.choose_period()
        self._expiry.arm(node_id, now + period * grace_periods)
        return period

    def extend(self, node_id: str, now: float) -> None:
        """Give a node one more grace without a heartbeat (it is registering just now)."""
        if node_id in self._records:
            self._expiry.arm(node_id, now + self.choose_period() * grace_periods)

    def disconnect(self, node_id: str) -> bool:
        """Ask that the node be sent away; False when it is not registered."""
        record = self._records.get(node_id)
        if record is None or not record.session_id:
            return False
        record.disconnect = True
        return True

    def remove(self, node_id: str) -> Record | None:
        """End the node's session."""
        self._expiry.disarm(node_id)
        return self._records.pop(node_id, None)

    def expired(self, now: float) -> list[tuple[str, Record]]:
        """Nodes whose grace is over, earliest first. They stay in the table until removed
        or extended; each is named once."""
        return [(node_id, self._records[node_id]) for node_id in self._expiry.due(now)]

    def add_down(self, node_id: str, now: float) -> None:
        """Start the 24 hours after which the tasks of a down node are given up."""
        self._down.arm(node_id, now + orphan_seconds)

    def forget(self, node_id: str) -> Record | None:
        """The node is deleted: no session, no timers."""
        self._down.disarm(node_id)
        return self.remove(node_id)

    def orphaned(self, now: float) -> list[str]:
        """Take the nodes that have been down for 24 hours."""
        return self._down.due(now)

    def next_deadline(self) -> float | None:
        """Nothing here falls due before this moment (monotonic seconds)."""
        times = [t for t in (self._expiry.next(), self._down.next()) if t is not None]
        return min(times, default=None)
