"""What waits to be sent to one peer. Pure.

Each message costs a call, several times what its bytes cost. So what says the same as, or goes
straight on from, the message before it joins that one while both wait:

- appends: entries that follow each other, and a commit index with the entries after it;
- acknowledgements: the higher one says all that the lower one does.

A peer of any make sees messages its own library could have sent.
"""

from __future__ import annotations

from collections import deque

from swarmd.api import raftpb

append_bytes_max = 65535  # etcd's and stock's limit for the entries of one message, in bytes


class Outbox:
    """Messages in order, at most `capacity`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: deque[raftpb.Message] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, message: raftpb.Message) -> bool:
        """Queue a message, which is the outbox's from now on; False when there is no room."""
        if self._queue and (joined := _joined(self._queue[-1], message)) is not None:
            self._queue[-1] = joined
            return True
        if len(self._queue) >= self._capacity:
            return False
        self._queue.append(message)
        return True

    def take(self) -> raftpb.Message:
        """The oldest message."""
        return self._queue.popleft()

    @property
    def may_wait(self) -> bool:
        """True if nothing waits but a commit index, which the next entries can take along."""
        return len(self._queue) == 1 and _is_news(self._queue[0])


def _is_news(message: raftpb.Message) -> bool:
    return message.type == raftpb.MsgApp and not message.entries


def _joined(before: raftpb.Message, after: raftpb.Message) -> raftpb.Message | None:
    """One message that says what both say; None when there is none."""
    if before.type != after.type or before.term != after.term:
        return None
    if after.type == raftpb.MsgApp:
        return _joined_appends(before, after)
    if after.type == raftpb.MsgAppResp:
        refused = before.reject or after.reject
        return after if not refused and after.index >= before.index else None
    return None


def _joined_appends(before: raftpb.Message, after: raftpb.Message) -> raftpb.Message | None:
    if after.commit < before.commit:
        return None
    if not before.entries:
        same = (before.index, before.logTerm) == (after.index, after.logTerm)
        return after if same else None
    last = before.entries[-1]
    if (last.Index, last.Term) != (after.index, after.logTerm):
        return None
    if after.entries and before.ByteSize() + after.ByteSize() > append_bytes_max:
        return None
    before.entries.extend(after.entries)
    before.commit = after.commit
    return before
