"""The replicated log of one manager: driver, disk formats and membership.

Start at `driver.RaftNode`; `disk.RaftDisk` is what it keeps. Does not know what an entry means
beyond "a list of store actions".
"""

from swarmd.manager.raftnode.confirming import Confirmation
from swarmd.manager.raftnode.disk import Decryptor, Encryptor, Loaded, RaftDisk
from swarmd.manager.raftnode.driver import TICK_SECONDS, RaftNode
from swarmd.manager.raftnode.errors import (
    AddressTaken,
    ChangeRefused,
    DiskDamaged,
    DiskFailed,
    NodeStopped,
    NotMember,
    QuorumAtRisk,
    RequestTooLarge,
)
from swarmd.manager.raftnode.members import Member, Members
from swarmd.manager.raftnode.membership import Membership
from swarmd.manager.raftnode.opening import Place
from swarmd.manager.raftnode.proposals import Proposal
from swarmd.manager.raftnode.segments import Damage
from swarmd.manager.raftnode.transport import Alone, Transport

__all__ = [
    "AddressTaken",
    "Alone",
    "ChangeRefused",
    "Confirmation",
    "Damage",
    "Decryptor",
    "DiskDamaged",
    "DiskFailed",
    "Encryptor",
    "Loaded",
    "Member",
    "Members",
    "Membership",
    "NodeStopped",
    "NotMember",
    "Place",
    "Proposal",
    "QuorumAtRisk",
    "RaftDisk",
    "RaftNode",
    "RequestTooLarge",
    "TICK_SECONDS",
    "Transport",
]
