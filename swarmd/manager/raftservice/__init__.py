"""The services Raft and RaftMembership: what other managers send us."""

from swarmd.manager.raftservice.membership import RaftMembershipService
from swarmd.manager.raftservice.raft import RaftService

__all__ = ["RaftMembershipService", "RaftService"]
