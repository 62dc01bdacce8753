"""The consensus core: pure, deterministic, with the semantics and messages of etcd's Raft.

Start at `node.RawNode` for the driver's duties, at `step` for how messages are handled.
"""

from swarmd.cluster.raft.messages import new_conf_state, new_entry, new_hard_state, new_snapshot
from swarmd.cluster.raft.node import RawNode
from swarmd.cluster.raft.storage import MemoryStorage
from swarmd.cluster.raft.types import (
    NONE,
    ConfChangeInFlight,
    Config,
    PeerStatus,
    ProposalDropped,
    ReadState,
    Ready,
    Role,
    SoftState,
    Status,
    Timing,
)

__all__ = [
    "NONE",
    "ConfChangeInFlight",
    "Config",
    "MemoryStorage",
    "PeerStatus",
    "ProposalDropped",
    "RawNode",
    "ReadState",
    "Ready",
    "Role",
    "SoftState",
    "Status",
    "Timing",
    "new_conf_state",
    "new_entry",
    "new_hard_state",
    "new_snapshot",
]
