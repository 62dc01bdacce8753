"""Messages that wait for one peer: which of them join, and that nothing is said less for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmd.api import raftpb
from swarmd.manager.peers.outbox import Outbox, append_bytes_max


def append(previous: int, *indexes: int, commit: int = 0, size: int = 0) -> raftpb.Message:
    made = raftpb.Message(type=raftpb.MsgApp, to=2, term=3, index=previous, logTerm=3)
    made.commit = commit
    for index in indexes:
        made.entries.add(Type=raftpb.EntryNormal, Term=3, Index=index, Data=b"d" * size)
    return made


def acknowledgement(index: int, *, reject: bool = False, term: int = 3) -> raftpb.Message:
    return raftpb.Message(type=raftpb.MsgAppResp, to=1, term=term, index=index, reject=reject)


def other(kind: raftpb.MessageType) -> raftpb.Message:
    return raftpb.Message(type=kind, to=2, term=3)


def filled(*messages: raftpb.Message, capacity: int = 99) -> Outbox:
    outbox = Outbox(capacity)
    for message in messages:
        copy = raftpb.Message()
        copy.CopyFrom(message)
        assert outbox.put(copy)
    return outbox


def drained(outbox: Outbox) -> list[raftpb.Message]:
    return [outbox.take() for _ in range(len(outbox))]


def test_entries_that_follow_each_other_go_together() -> None:
    outbox = filled(append(4, 5, 6, commit=4), append(6, 7, commit=5), append(7, commit=7))
    assert drained(outbox) == [append(4, 5, 6, 7, commit=7)]


def test_a_commit_index_goes_with_the_entries_after_it() -> None:
    outbox = filled(append(6, commit=5), append(6, commit=6))
    assert outbox.may_wait
    outbox.put(append(6, 7, commit=6))
    assert not outbox.may_wait
    assert drained(outbox) == [append(6, 7, commit=6)]


def test_acknowledgements_end_in_the_highest() -> None:
    outbox = filled(acknowledgement(5), acknowledgement(7), acknowledgement(7))
    assert drained(outbox) == [acknowledgement(7)]


def test_what_says_something_else_stays_by_itself() -> None:
    half = append_bytes_max // 2
    resent = append(4, 5, 6)  # after a report of loss the leader begins anew
    older = append(4, 5)
    older.entries[0].Term = 2
    rows = [
        [append(4, 5), append(6, 7)],
        [resent, append(4, 5, 6)],
        [older, append(5, 6)],
        [append(4, commit=5), append(6, commit=6)],
        [append(4, 5, commit=5), append(5, commit=4)],
        [append(4, 5, size=half), append(5, 6, size=half)],
        [acknowledgement(7), acknowledgement(5)],
        [acknowledgement(5), acknowledgement(7, reject=True)],
        [acknowledgement(5, reject=True), acknowledgement(7)],
        [acknowledgement(5, term=2), acknowledgement(7)],
        [append(4, 5), other(raftpb.MsgHeartbeat), append(5, 6)],
        [other(raftpb.MsgHeartbeat), other(raftpb.MsgHeartbeat)],
        [other(raftpb.MsgSnap), other(raftpb.MsgSnap)],
    ]
    for row in rows:
        assert drained(filled(*row)) == row


def test_a_full_outbox_takes_only_what_joins() -> None:
    outbox = filled(other(raftpb.MsgHeartbeat), append(4, 5), capacity=2)
    assert outbox.put(append(5, 6))
    assert not outbox.put(other(raftpb.MsgHeartbeat))
    assert len(outbox) == 2 and not outbox.may_wait


class Follower:
    """Takes appends as Raft does, by position only."""

    def __init__(self, last: int) -> None:
        self.log = list(range(last + 1))
        self.commit = 0

    def take(self, message: raftpb.Message) -> None:
        if message.index >= len(self.log):
            return
        for entry in message.entries:
            del self.log[entry.Index :]
            self.log.append(entry.Index)
        last = message.index + len(message.entries)
        self.commit = max(self.commit, min(message.commit, last))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20))
def test_a_follower_ends_where_it_would_have(steps: list[tuple[int, bool]]) -> None:
    """A leader appends, commits and is heard in batches; joined or not, the end is the same."""
    sent, last, commit = [], 3, 0
    for count, commits in steps:
        commit = last if commits else commit
        sent.append(append(last, *range(last + 1, last + 1 + count), commit=commit))
        last += count
    plain, joined = Follower(3), Follower(3)
    for message in sent:
        plain.take(message)
    for message in drained(filled(*sent)):
        joined.take(message)
    assert (joined.log, joined.commit) == (plain.log, plain.commit)
