"""The error tree. One class per decision a caller can take.

    SwarmError                 code UNKNOWN: anything without a better class
    ├── InvalidArgument        the request can never work as it stands
    ├── NotFound               the named thing does not exist
    ├── AlreadyExists          the name or id is taken
    ├── FailedPrecondition     the state forbids it now
    ├── PermissionDenied       the caller may not
    ├── Unauthenticated        the caller is nobody we know
    ├── ResourceExhausted      a limit is reached
    ├── Aborted                the component is stopped or was interrupted
    ├── Unimplemented          the peer or this release does not offer it
    ├── Unavailable            try again, perhaps elsewhere
    ├── DeadlineExceeded       the time given is over
    ├── OutOfRange             past the end of what is kept
    ├── Conflict               stale object version (code UNKNOWN, as stock managers answer)
    └── NotLeader              leadership is missing or was lost (code UNKNOWN, as stock)
    InvariantViolation         a bug; ends the process, never translated

Errors cross a door once: `swarmd.rpc` translates to gRPC status, `swarmd.faces.engineapi`
to HTTP status. Numbers are gRPC's.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Code(enum.IntEnum):
    """gRPC status codes, by number."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class SwarmError(Exception):
    """Expected trouble, with the code and text a caller sees."""

    code: Code = Code.UNKNOWN

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(SwarmError):
    """The request can never work as it stands."""

    code = Code.INVALID_ARGUMENT


class NotFound(SwarmError):
    """The named thing does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(SwarmError):
    """The name or id is taken."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(SwarmError):
    """The state of the cluster forbids it now."""

    code = Code.FAILED_PRECONDITION


class PermissionDenied(SwarmError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class Unauthenticated(SwarmError):
    """The caller could not be identified."""

    code = Code.UNAUTHENTICATED


class ResourceExhausted(SwarmError):
    """A limit is reached."""

    code = Code.RESOURCE_EXHAUSTED


class Aborted(SwarmError):
    """The component is stopped, or the call was interrupted."""

    code = Code.ABORTED


class Unimplemented(SwarmError):
    """The peer, or this release, does not offer the call."""

    code = Code.UNIMPLEMENTED


class Unavailable(SwarmError):
    """Try again, perhaps on another manager."""

    code = Code.UNAVAILABLE


class DeadlineExceeded(SwarmError):
    """The time given is over."""

    code = Code.DEADLINE_EXCEEDED


class OutOfRange(SwarmError):
    """Asked for something before or past what is kept."""

    code = Code.OUT_OF_RANGE


class Internal(SwarmError):
    """The peer reports a fault of its own."""

    code = Code.INTERNAL


class Conflict(SwarmError):
    """The object changed since the version the caller saw."""

    def __init__(self, message: str = "update out of sequence") -> None:
        super().__init__(message)


NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)
LOST_LEADERSHIP = "raft: failed to process the request: node lost leader status"


class NotLeader(SwarmError):
    """The request needs the leader and this member is not it (any more)."""

    def __init__(self, message: str = LOST_LEADERSHIP) -> None:
        super().__init__(message)


class InvariantViolation(Exception):
    """A bug in swarmd. Caught by nobody but the top, which ends the process."""


def invariant(condition: bool, message: str) -> None:
    """Raise `InvariantViolation` unless `condition`; stays on under `python -O`."""
    if not condition:
        raise InvariantViolation(message)


class _Codes:
    by_code: ClassVar[dict[Code, type[SwarmError]]] = {
        cls.code: cls
        for cls in (
            InvalidArgument,
            NotFound,
            AlreadyExists,
            FailedPrecondition,
            PermissionDenied,
            Unauthenticated,
            ResourceExhausted,
            Aborted,
            Unimplemented,
            Unavailable,
            DeadlineExceeded,
            OutOfRange,
            Internal,
        )
    }


def error_for(code: int, message: str) -> SwarmError:
    """Make the error a peer meant by its gRPC status `code` and text."""
    known = Code(code) if code in Code._value2member_map_ else Code.UNKNOWN
    cls = _Codes.by_code.get(known)
    if cls is not None:
        return cls(message)
    error = SwarmError(message)
    error.code = known
    return error
