"""Raft's promises (paper, figure 3), checked over all members after every event."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from swarmd.api import raftpb
from swarmd.cluster.raft import RawNode, ReadState, Role
from swarmd.cluster.raft.core import Raft
from swarmd.cluster.raft.messages import sender


class Broken(AssertionError):
    """A promise was broken."""


def core_of(node: RawNode) -> Raft:
    """The machine behind the door; tests may look."""
    return node._raft


def chain(before: int, entry: raftpb.Entry) -> int:
    """Digest of a state after applying `entry` to one with digest `before`."""
    head = f"{entry.Index}.{entry.Term}.{entry.Type}.".encode()
    return zlib.crc32(entry.Data, zlib.crc32(head, before))


@dataclass(slots=True)
class Committed:
    """An entry known to be committed, in which term, and the state digest after it."""

    term: int
    data: bytes
    in_term: int
    digest: int


class Seen:
    """What was already checked of one incarnation of a member."""

    __slots__ = ("commit", "tail", "term")

    def __init__(self) -> None:
        self.commit = 0
        self.term = 0
        self.tail: tuple[int, int, int] = (0, 0, 0)


class Checker:
    """Global knowledge no member has: all leaders, all entries, everything committed."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.entries: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.committed: list[Committed] = []
        self.votes: dict[tuple[int, int], int] = {}
        self.reads: dict[bytes, int] = {}

    def look(self, node: RawNode, seen: Seen) -> None:
        """Check a member after an event touched it."""
        raft = core_of(node)
        self._check_tail(raft, seen)
        self._check_commit(raft, seen)
        if raft.term < seen.term:
            raise Broken(f"term of {raft.id} went back from {seen.term} to {raft.term}")
        seen.term = raft.term
        if raft.role is Role.LEADER:
            self._check_leader(raft)

    def _check_leader(self, raft: Raft) -> None:
        """Election safety and leader completeness."""
        known = self.leaders.get(raft.term)
        if known == raft.id:
            return
        if known is not None:
            raise Broken(f"two leaders in term {raft.term}: {known} and {raft.id}")
        self.leaders[raft.term] = raft.id
        first = raft.log.first_index()
        for position, entry in enumerate(self.committed):
            index = position + 1
            if entry.in_term < raft.term and index >= first:
                own = raft.log.term(index)
                if own != entry.term:
                    raise Broken(
                        f"leader {raft.id} of term {raft.term} lacks committed entry {index} "
                        f"of term {entry.term}, has {own}"
                    )

    def _check_tail(self, raft: Raft, seen: Seen) -> None:
        """Log matching, by induction over (index, term) -> (term before, data)."""
        unstable = raft.log.unstable
        if not unstable.entries:
            return
        tail = (unstable.offset, len(unstable.entries), unstable.entries[-1].Term)
        if tail == seen.tail:
            return
        seen.tail = tail
        before = raft.log.term(unstable.offset - 1)
        for position, entry in enumerate(unstable.entries):
            index = unstable.offset + position
            if entry.Index != index:
                raise Broken(f"{raft.id} holds entry {entry.Index} at position {index}")
            if before is not None:
                if before > entry.Term:
                    raise Broken(f"terms go down in the log of {raft.id} at {index}")
                value = (before, entry.Data)
                if self.entries.setdefault((index, entry.Term), value) != value:
                    raise Broken(f"logs differ at index {index}, term {entry.Term}")
            before = entry.Term

    def _check_commit(self, raft: Raft, seen: Seen) -> None:
        """State machine safety; what is committed once stays so."""
        commit = raft.log.committed
        if commit < seen.commit:
            raise Broken(f"commit index of {raft.id} went back to {commit}")
        if commit == seen.commit:
            return
        start = max(seen.commit + 1, raft.log.first_index())
        for entry in raft.log.slice(start, commit + 1, None) or []:
            self._commit(raft, entry)
        if commit > len(self.committed):
            raise Broken(f"{raft.id} commits {commit} unseen")
        seen.commit = commit

    def _commit(self, raft: Raft, entry: raftpb.Entry) -> None:
        index = entry.Index
        if index <= len(self.committed):
            known = self.committed[index - 1]
            if (known.term, known.data) != (entry.Term, entry.Data):
                raise Broken(
                    f"{raft.id} commits term {entry.Term} at {index}, where term {known.term} "
                    "was committed"
                )
            return
        if index != len(self.committed) + 1:
            raise Broken(f"{raft.id} commits {index} with a gap")
        before = self.committed[-1].digest if self.committed else 0
        self.committed.append(Committed(entry.Term, entry.Data, raft.term, chain(before, entry)))

    def sent(self, message: raftpb.Message) -> None:
        """Check that nobody votes for two in one term, whatever it forgot in a crash."""
        if message.type == raftpb.MsgVoteResp and not message.reject:
            key = (sender(message), message.term)
            if self.votes.setdefault(key, message.to) != message.to:
                raise Broken(f"{key[0]} votes twice in term {key[1]}")

    def applied(self, id: int, index: int, digest: int) -> None:
        """Check the state a member reached at `index`."""
        if digest != self.committed[index - 1].digest:
            raise Broken(f"state of {id} differs at {index}")

    def ask(self, context: bytes) -> None:
        """Note what a read asked for now must see."""
        self.reads[context] = len(self.committed)

    def answered(self, state: ReadState) -> None:
        """Check that a confirmed read is not stale."""
        if state.index < self.reads[state.context]:
            raise Broken(
                f"read {state.context!r} confirmed at {state.index}, "
                f"{self.reads[state.context]} was committed before it was asked"
            )
