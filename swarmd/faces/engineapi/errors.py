"""The door: every error that reaches a REST client is made into a status and a text here.

Two kinds exist. A `Refusal` is this node's own answer; its text is shown as it is. Any other
`SwarmError` came from a manager call; stock engines show those with the gRPC prefix, and tools
match on it, so the prefix is rebuilt here.
"""

from __future__ import annotations

from swarmd.base.errors import Code, SwarmError
from swarmd.faces.http.refusal import Refusal, bad_request, not_found, unavailable

__all__ = [
    "Refusal",
    "answer",
    "bad_request",
    "not_found",
    "plain",
    "rpc_text",
    "status_of",
    "unavailable",
]

# gRPC code -> HTTP status (moby httpstatus); everything absent is 500.
_STATUS: dict[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.UNAUTHENTICATED: 401,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
}

# Names as grpc-go prints them; note the single "l" in Canceled.
_NAMES: dict[Code, str] = {
    Code.OK: "OK",
    Code.CANCELLED: "Canceled",
    Code.UNKNOWN: "Unknown",
    Code.INVALID_ARGUMENT: "InvalidArgument",
    Code.DEADLINE_EXCEEDED: "DeadlineExceeded",
    Code.NOT_FOUND: "NotFound",
    Code.ALREADY_EXISTS: "AlreadyExists",
    Code.PERMISSION_DENIED: "PermissionDenied",
    Code.RESOURCE_EXHAUSTED: "ResourceExhausted",
    Code.FAILED_PRECONDITION: "FailedPrecondition",
    Code.ABORTED: "Aborted",
    Code.OUT_OF_RANGE: "OutOfRange",
    Code.UNIMPLEMENTED: "Unimplemented",
    Code.INTERNAL: "Internal",
    Code.UNAVAILABLE: "Unavailable",
    Code.DATA_LOSS: "DataLoss",
    Code.UNAUTHENTICATED: "Unauthenticated",
}


def status_of(code: Code) -> int:
    """HTTP status for a gRPC code."""
    return _STATUS.get(code, 500)


def rpc_text(error: SwarmError) -> str:
    """The text grpc-go clients print for `error`: ``rpc error: code = X desc = ...``."""
    return f"rpc error: code = {_NAMES[error.code]} desc = {error.message}"


def plain(error: SwarmError) -> Refusal:
    """An error of this node itself, for which no RPC was made: same status, no prefix."""
    return Refusal(status_of(error.code), error.message)


def answer(error: Refusal | SwarmError) -> tuple[int, str]:
    """Status and message a REST client gets for `error`."""
    if isinstance(error, Refusal):
        return error.status, error.message
    return status_of(error.code), rpc_text(error)
