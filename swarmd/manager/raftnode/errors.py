"""What can go wrong between the log and the disk.

SwarmError
├── DiskFailed      a write or fsync failed; the log is shut until the process starts again
├── DiskDamaged     what is on disk is not what was written; names file and offset
├── LogBehind       the log is an older one than this member had before
├── NotMember       this raft id was removed from the cluster
├── RequestTooLarge one proposal over the entry limit
├── AddressTaken    a member cannot move to the address of another one
└── NodeStopped     the raft node is not running
"""

from __future__ import annotations

from swarmd.base.errors import AlreadyExists, Code, FailedPrecondition, SwarmError


class DiskFailed(SwarmError):
    """The log could not be made durable. Never retried: lost pages cannot be written again.

    After a failed fsync the kernel may have dropped the dirty pages and marked them clean, so
    a second fsync that succeeds proves nothing. Only reading the files again does.
    """

    code = Code.DATA_LOSS

    def __init__(self, action: str, path: str, cause: OSError) -> None:
        super().__init__(
            f"raft log: {action} {path}: {cause.strerror or cause}; "
            "nothing more is acknowledged until the daemon is started again"
        )
        self.path = path
        self.errno = cause.errno


class DiskDamaged(SwarmError):
    """A file of the log or a snapshot does not hold what was written to it."""

    code = Code.DATA_LOSS

    def __init__(self, path: str, offset: int | None, what: str) -> None:
        where = path if offset is None else f"{path} at offset {offset}"
        super().__init__(f"raft state is damaged: {where}: {what}")
        self.path = path
        self.offset = offset
        self.what = what


class LogBehind(SwarmError):
    """The leader knows of entries this member acknowledged, which its log does not have.

    So the disk is a copy from an earlier time. What it promised since then is forgotten: a vote
    of this member could bring up a leader without those entries.
    """

    code = Code.DATA_LOSS

    def __init__(self, last: int, acknowledged: int) -> None:
        super().__init__(
            f"raft: this manager's log ends at entry {last}, but it acknowledged entry "
            f"{acknowledged}: its state is a copy from before that. Demote this manager on "
            "another one; then it may be promoted again"
        )


class NotMember(SwarmError):
    """This member was removed; stock peers stop on exactly this code and text (PROTOCOL 3.3)."""

    code = Code.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("raft: member was removed from the cluster")


class RequestTooLarge(SwarmError):
    """A marshalled request over 1.5 MiB; stock text, code Unknown (PROTOCOL 3.2)."""

    def __init__(self) -> None:
        super().__init__("raft: raft message is too large and can't be sent")


class NodeStopped(SwarmError):
    """The raft node is stopped, or stopping; the outcome of a waiting proposal is unknown."""

    def __init__(self, reason: str = "") -> None:
        text = "raft: failed to process the request: node is stopped"
        super().__init__(f"{text}: {reason}" if reason else text)
        self.reason = reason


class ChangeRefused(SwarmError):
    """A configuration change was committed but made no sense; the stock text says why."""


class AddressTaken(AlreadyExists):
    """A member wants an address that another one is known by.

    Ours, not stock's: messages for both would reach one of them, and be lost on it.
    """

    def __init__(self, addr: str, node_id: str) -> None:
        super().__init__(
            f"raft: address {addr} belongs to another manager, node {node_id}; "
            "if that one is gone for good, demote it first"
        )


class QuorumAtRisk(FailedPrecondition):
    """Removing the member could leave fewer reachable members than a quorum (PROTOCOL 2.5)."""

    def __init__(self) -> None:
        super().__init__(
            "raft: member cannot be removed, because removing it may result in loss of quorum"
        )
