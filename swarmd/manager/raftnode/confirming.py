"""Is this member still the leader? Asked of a quorum, for reads that must not be stale.

A leader that is cut off learns of its successor late, so what it answers alone may be old. The
core confirms leadership by a round of heartbeats (read index, thesis 6.4). One round is under
way at a time; whoever asks meanwhile shares the next one, however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarmd.base.errors import NO_LEADER, NotLeader
from swarmd.cluster.raft import RawNode, ReadState
from swarmd.manager.raftnode.timers import PARTS

# A round that takes longer (the core's ticks) tells who waits, and who asks from now on, that
# there is no leader. As long as a call waits for one elsewhere (PROTOCOL 0.3).
ROUND_TICKS_MAX = 10 * PARTS


@dataclass(slots=True)
class Confirmation:
    """Who is to be told, exactly once, whether this member still led when it was asked."""

    on_confirm: Callable[[], None]
    on_fail: Callable[[Exception], None]


class Confirming:
    """Those who wait; touched by the event loop only, as the core is."""

    def __init__(self) -> None:
        self._number = 0
        self._asked: list[Confirmation] = []  # in the round under way
        self._waiting: list[Confirmation] = []  # in the next one
        self._ticks: int | None = None  # age of the round under way

    def ask(self, raw: RawNode, who: Confirmation) -> None:
        """Tell `who` once a quorum has answered a question asked from now on.

        Raises `NotLeader` at once if the core does not lead any more, or has had no answer to
        the last question for too long. Heartbeats may be due afterwards.
        """
        if not raw.leading:
            raise NotLeader
        if self._stuck:
            raise NotLeader(NO_LEADER)
        self._waiting.append(who)
        if self._ticks is None:
            self._begin(raw)

    def hear(self, raw: RawNode, found: Sequence[ReadState] = ()) -> bool:
        """Look for answers, besides those `found`; True if a new round has begun."""
        for state in (*found, *raw.take_read_states()):
            if self._ticks is None or state.context != self._context():
                continue  # of a leadership that is over
            done, self._asked, self._ticks = self._asked, [], None
            for who in done:
                who.on_confirm()
        if self._ticks is None and self._waiting:
            self._begin(raw)
            return True
        return False

    def tick(self) -> None:
        """One tick of the core passed."""
        if self._ticks is not None:
            self._ticks += 1
            if self._stuck:
                self._fail(lambda: NotLeader(NO_LEADER))

    def end(self, error: Callable[[], Exception]) -> None:
        """Leadership is over: nobody can be told anything else."""
        self._ticks = None
        self._fail(error)

    @property
    def _stuck(self) -> bool:
        return self._ticks is not None and self._ticks >= ROUND_TICKS_MAX

    def _context(self) -> bytes:
        return self._number.to_bytes(8, "big")

    def _begin(self, raw: RawNode) -> None:
        self._number += 1
        self._asked, self._waiting, self._ticks = self._waiting, [], 0
        raw.read_index(self._context())
        self.hear(raw)  # a member that is alone has its answer already

    def _fail(self, error: Callable[[], Exception]) -> None:
        """The round itself stays: its answer may come yet, and then the next one begins."""
        failed = self._asked + self._waiting
        self._asked, self._waiting = [], []
        for who in failed:
            who.on_fail(error())
