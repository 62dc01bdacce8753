"""Transcripts: a text of commands and what they print, run against a `Group`.

A block is one command line, a line of four dashes and the expected output; blocks are parted by
an empty line, lines from `#` on are comments. Members are numbers:

    members 3 pre-vote=off        three voters with an empty snapshot at 1/1
    join 4 | restart 2            a member that knows nobody; one from its disk
    tick 1 10 | campaign 1        let ticks pass; stand for election
    lead 1                        elect a member silently
    propose 1 x y                 entries, one each
    change 1 add 4                propose add, remove, learner or update
    read 1 ctx | transfer 1 2     ask for a read index; hand leadership over
    cut 1 2 | isolate 3 | mend    lose messages on links
    process 1 | deliver 2 | drop 2 | stabilize [1 2]
    snapshot 1 [keep]             take a snapshot at the applied index, keep some entries
    sent-snapshot 1 3 ok|failed | unreachable 1 3
    timers 1 3 1 | status | log 2 | progress 1
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from swarmd.api import raftpb
from swarmd.base.errors import SwarmError
from swarmd.cluster.raft import Role, Timing
from swarmd.cluster.raft.messages import sender
from tests.harness.raft_group import Group

RULE = "----"
KINDS = {
    "add": raftpb.ConfChangeAddNode,
    "remove": raftpb.ConfChangeRemoveNode,
    "update": raftpb.ConfChangeUpdateNode,
    "learner": raftpb.ConfChangeAddLearnerNode,
}


class Script:
    """Runs commands and collects what happens as lines."""

    def __init__(self) -> None:
        self.group = Group(0)
        self.lines: list[str] = []
        self._traced = 0
        self._commands: dict[str, Callable[[list[str]], None]] = {
            "members": self._members,
            "join": lambda a: self._add(int(a[0])),
            "restart": lambda a: self._restart(int(a[0])),
            "tick": lambda a: self.group.tick(int(a[0]), int(a[1]) if len(a) > 1 else 1),
            "campaign": lambda a: self.group[int(a[0])].node.campaign(),
            "lead": self._lead,
            "propose": self._propose,
            "change": self._change,
            "read": lambda a: self.group[int(a[0])].node.read_index(a[1].encode()),
            "transfer": lambda a: self.group[int(a[0])].node.transfer_leadership(int(a[1])),
            "cut": lambda a: self.group.cut.update(
                ((int(a[0]), int(a[1])), (int(a[1]), int(a[0])))
            ),
            "isolate": lambda a: self.group.isolate(int(a[0])),
            "mend": lambda _: self.group.mend(),
            "process": lambda a: self._each(a, self._process),
            "deliver": lambda a: self._each(a, self._deliver),
            "drop": lambda a: self._each(a, self._drop),
            "stabilize": self._stabilize,
            "snapshot": self._snapshot,
            "sent-snapshot": lambda a: self.group[int(a[0])].node.report_snapshot(
                int(a[1]), a[2] == "ok"
            ),
            "unreachable": lambda a: self.group[int(a[0])].node.report_unreachable(int(a[1])),
            "timers": lambda a: self.group[int(a[0])].node.set_timers(Timing(int(a[1]), int(a[2]))),
            "status": lambda _: self._status(),
            "log": lambda a: self._log(int(a[0])),
            "progress": lambda a: self._progress(int(a[0])),
        }

    def run(self, command: str) -> str:
        """Run one command line; returns what it prints, `ok` if nothing."""
        name, *arguments = command.split()
        self.lines = []
        try:
            self._commands[name](arguments)
        except SwarmError as error:
            self.lines.append(f"{type(error).__name__}: {error.message}")
        self._tell_trace()
        return "\n".join(self.lines) or "ok"

    def _tell_trace(self) -> None:
        """Print what the cores said since the last time."""
        self.lines.extend(f"  {text}" for text in self.group.trace[self._traced :])
        self._traced = len(self.group.trace)

    # -- commands ----------------------------------------------------------------------------

    def _members(self, arguments: list[str]) -> None:
        settings: dict[str, int | bool] = {}
        for setting in arguments[1:]:
            name, _, value = setting.partition("=")
            switch = {"on": True, "off": False}.get(value)
            settings[name.replace("-", "_")] = int(value) if switch is None else switch
        self.group = Group(int(arguments[0]), **settings)
        self._traced = 0

    def _lead(self, arguments: list[str]) -> None:
        """Elect a member without a word; for transcripts about what comes after."""
        self.group.elect(int(arguments[0]))
        self._traced = len(self.group.trace)

    def _add(self, id: int) -> None:
        self.group.add(id)

    def _restart(self, id: int) -> None:
        self.group.restart(id)

    def _propose(self, arguments: list[str]) -> None:
        for data in arguments[1:]:
            self.group[int(arguments[0])].node.propose(data.encode())

    def _change(self, arguments: list[str]) -> None:
        change = raftpb.ConfChange(type=KINDS[arguments[1]], node_id=int(arguments[2]))
        self.group[int(arguments[0])].node.propose_conf_change(change)

    def _each(self, arguments: list[str], act: Callable[[int], bool]) -> None:
        for id in [int(a) for a in arguments] or list(self.group.peers):
            act(id)

    def _process(self, id: int) -> bool:
        peer = self.group[id]
        seen = len(peer.readies)
        sent = self.group.process(id)
        for ready in peer.readies[seen:]:
            self._tell_trace()
            if ready.soft_state is not None:
                role = ready.soft_state.role.name.lower()
                self.lines.append(f"{id} is {role}, leader {ready.soft_state.leader}")
            if ready.snapshot is not None:
                metadata = ready.snapshot.metadata
                self.lines.append(f"{id} restores {metadata.term}/{metadata.index}")
            if ready.entries or ready.hard_state is not None:
                self.lines.append(f"{id} writes {_writes(ready.hard_state, ready.entries)}")
            if ready.committed:
                self.lines.append(f"{id} applies {_entries(ready.committed)}")
            for state in ready.read_states:
                self.lines.append(f"{id} may read {state.context.decode()} at {state.index}")
        for message in sent:
            lost = " (lost)" if message in self.group.lost else ""
            self.lines.append(_line(message) + lost)
        self.group.lost.clear()
        return len(peer.readies) > seen

    def _deliver(self, id: int) -> bool:
        taken = self.group.deliver(id)
        if taken:
            self.lines.append(f"{id} receives {len(taken)}")
        self._tell_trace()
        return bool(taken)

    def _drop(self, id: int) -> bool:
        self.lines.extend(f"dropped: {_line(message)}" for message in self.group.drop(id))
        return True

    def _stabilize(self, arguments: list[str]) -> None:
        ids = [int(a) for a in arguments] or list(self.group.peers)
        moved = True
        while moved:
            moved = False
            for id in ids:
                moved |= self._process(id)
            for id in ids:
                moved |= self._deliver(id)

    def _snapshot(self, arguments: list[str]) -> None:
        peer = self.group[int(arguments[0])]
        keep = int(arguments[1]) if len(arguments) > 1 else 0
        applied = peer.raft.log.applied
        peer.storage.create_snapshot(applied, peer.node.conf_state(), b"state")
        peer.storage.compact(applied - keep)

    def _status(self) -> None:
        for id, peer in self.group.peers.items():
            status = peer.node.status()
            self.lines.append(
                f"{id} {status.role.name.lower()} term={status.term} leader={status.leader} "
                f"commit={status.commit} last={status.last_index} voters={list(status.voters)}"
                + (f" learners={list(status.learners)}" if status.learners else "")
            )

    def _log(self, id: int) -> None:
        log = self.group[id].raft.log
        entries = log.slice(log.first_index(), log.last_index() + 1, None) or []
        before = f"{log.term(log.first_index() - 1)}/{log.first_index() - 1}"
        self.lines.append(f"after {before}: {_entries(entries)}")

    def _progress(self, id: int) -> None:
        status = self.group[id].node.status()
        if status.role is not Role.LEADER:
            self.lines.append("not the leader")
        for peer, progress in status.progress.items():
            flags = [
                name
                for name, on in (
                    ("paused", progress.paused),
                    ("inactive", not progress.recent_active),
                    ("learner", progress.learner),
                    (f"pending={progress.pending_snapshot}", progress.pending_snapshot),
                    (f"inflight={progress.inflight}", progress.inflight),
                )
                if on
            ]
            text = f"{peer} {progress.state} match={progress.match} next={progress.next}"
            self.lines.append(" ".join((text, *flags)))


def _writes(hard: raftpb.HardState | None, entries: tuple[raftpb.Entry, ...]) -> str:
    parts = [_entries(entries)] if entries else []
    if hard is not None:
        parts.append(f"term={hard.term} vote={hard.vote} commit={hard.commit}")
    return " ".join(parts)


def _entries(entries: list[raftpb.Entry] | tuple[raftpb.Entry, ...]) -> str:
    return "[" + " ".join(_entry(entry) for entry in entries) + "]"


def _entry(entry: raftpb.Entry) -> str:
    text = f"{entry.Term}/{entry.Index}"
    if entry.Type == raftpb.EntryConfChange:
        change = raftpb.ConfChange.FromString(entry.Data)
        kind = next(name for name, value in KINDS.items() if value == change.type)
        return f"{text}:{kind}({change.node_id})"
    return f"{text}:{entry.Data.decode()}" if entry.Data else text


def _line(message: raftpb.Message) -> str:
    """One message; entries and log positions are term/index."""
    kind = raftpb.MessageType.Name(message.type).removeprefix("Msg")
    text = f"{sender(message)} -> {message.to} {kind} term={message.term}"
    if message.type in (raftpb.MsgApp, raftpb.MsgVote, raftpb.MsgPreVote):
        text += f" log={message.logTerm}/{message.index}"
    elif message.type in (raftpb.MsgAppResp, raftpb.MsgReadIndexResp):
        text += f" index={message.index}"
    if message.type in (raftpb.MsgApp, raftpb.MsgHeartbeat):
        text += f" commit={message.commit}"
    if message.HasField("snapshot"):
        metadata = message.snapshot.metadata
        text += (
            f" snapshot={metadata.term}/{metadata.index} voters={list(metadata.conf_state.voters)}"
        )
    if message.entries:
        text += f" entries={_entries(list(message.entries))}"
    if message.reject:
        text += f" reject hint={message.logTerm}/{message.rejectHint}"
    if message.context:
        plain = message.type in (raftpb.MsgVote, raftpb.MsgPreVote)
        text += f" context={message.context.decode() if plain else message.context.hex()}"
    return text


def rewritten(path: Path) -> str:
    """The transcript at `path` with the output as it is now."""
    script = Script()
    blocks = []
    for block in path.read_text().strip().split("\n\n"):
        lines = block.splitlines()
        head = [line for line in lines[: lines.index(RULE)] if line] if RULE in lines else lines
        commands = [line for line in head if not line.startswith("#")]
        if not commands:
            blocks.append("\n".join(head))
            continue
        output = [script.run(command) for command in commands]
        shown = [text for text in output if text != "ok"] or ["ok"]
        blocks.append("\n".join((*head, RULE, *shown)))
    return "\n\n".join(blocks) + "\n"
