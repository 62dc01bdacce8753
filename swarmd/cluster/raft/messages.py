"""Make `raftpb` values as stock managers write them: every proto2 scalar explicit, even zero.

Fields without that note (`entries`, `data`, `context`, `snapshot`) are left out when empty.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmd.api import raftpb

# `from` is a Python keyword, so the field is reached by name.
_FROM = "from"

NORMAL = raftpb.EntryNormal
CONF_CHANGE = raftpb.EntryConfChange

# A vote asked for with this context ignores the leader's lease (leadership transfer).
CAMPAIGN_TRANSFER = b"CampaignTransfer"


def new_message(
    kind: raftpb.MessageType,
    to: int,
    *,
    term: int = 0,
    log_term: int = 0,
    index: int = 0,
    commit: int = 0,
    context: bytes = b"",
) -> raftpb.Message:
    """Make a message without sender; `Raft.send` fills in sender and term."""
    message = raftpb.Message(
        type=kind,
        to=to,
        term=term,
        logTerm=log_term,
        index=index,
        commit=commit,
        reject=False,
        rejectHint=0,
        vote=0,
    )
    if context:
        message.context = context
    return message


def sender(message: raftpb.Message) -> int:
    """The member a message comes from."""
    value: int = getattr(message, _FROM)
    return value


def set_sender(message: raftpb.Message, id: int) -> None:
    """Say which member the message comes from."""
    setattr(message, _FROM, id)


def new_entry(kind: raftpb.EntryType, term: int, index: int, data: bytes) -> raftpb.Entry:
    """Make a log entry; empty data is left out, as in a leader's no-op."""
    entry = raftpb.Entry(Type=kind, Term=term, Index=index)
    if data:
        entry.Data = data
    return entry


def encode_conf_change(change: raftpb.ConfChange) -> bytes:
    """Marshal a change as entry data, its scalars explicit."""
    full = raftpb.ConfChange(id=change.id, type=change.type, node_id=change.node_id)
    if change.context:
        full.context = change.context
    return full.SerializeToString(deterministic=True)


def new_hard_state(term: int, vote: int, commit: int) -> raftpb.HardState:
    """Make a hard state."""
    return raftpb.HardState(term=term, vote=vote, commit=commit)


def new_conf_state(voters: Sequence[int], learners: Sequence[int] = ()) -> raftpb.ConfState:
    """Make a single (never joint) configuration."""
    return raftpb.ConfState(voters=voters, learners=learners, auto_leave=False)


def new_snapshot(
    index: int, term: int, conf_state: raftpb.ConfState, data: bytes
) -> raftpb.Snapshot:
    """Make a snapshot of the state after applying `index`; copies `conf_state`."""
    snapshot = raftpb.Snapshot()
    if data:
        snapshot.data = data
    metadata = snapshot.metadata
    metadata.index = index
    metadata.term = term
    metadata.conf_state.CopyFrom(conf_state)
    metadata.conf_state.auto_leave = conf_state.auto_leave
    return snapshot


def take(
    entries: Sequence[raftpb.Entry], start: int, stop: int, bytes_max: int | None
) -> list[raftpb.Entry]:
    """Copy positions [start, stop), cut where marshalled sizes exceed `bytes_max`.

    At least one entry is taken, so that an entry above the limit still travels.
    """
    if bytes_max is None or stop - start <= 1:
        return list(entries[start:stop])
    size = 0
    for position in range(start, stop):
        size += entries[position].ByteSize()
        if size > bytes_max and position > start:
            return list(entries[start:position])
    return list(entries[start:stop])


def size_of(entries: Sequence[raftpb.Entry]) -> int:
    """Marshalled size in bytes of all `entries` together."""
    return sum([entry.ByteSize() for entry in entries])
