"""The door between our error tree and gRPC status: each error crosses it once."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import grpc

from swarmd.base.errors import Code, InvariantViolation, SwarmError, error_for

log = logging.getLogger(__name__)

# Trailers have to fit gRPC's default header limit of 8 KiB at other receivers.
TEXT_CHARACTERS_MAX = 4096
STATUS = {status.value[0]: status for status in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call ends badly, as its caller sees it."""

    code: Code
    text: str


def refusal_of(method: str, error: Exception) -> Refusal:
    """What the caller of `method` is told; what was not expected is logged, once, here."""
    if isinstance(error, SwarmError):
        return Refusal(error.code, _sendable(error.message))
    if isinstance(error, TimeoutError):
        return Refusal(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
    if not isinstance(error, InvariantViolation):
        log.error("%s failed", method, exc_info=error)
    return Refusal(Code.INTERNAL, f"internal error in {method}")


def error_of(failure: grpc.aio.AioRpcError) -> SwarmError:
    """The error the other side meant."""
    return error_for(failure.code().value[0], failure.details() or "")


def _sendable(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= TEXT_CHARACTERS_MAX else clean[: TEXT_CHARACTERS_MAX - 1] + "…"
