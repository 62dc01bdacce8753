"""What a caller is told of an error: each crosses this door once."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from swarmd.base.errors import Code, InvariantViolation, SwarmError

log = logging.getLogger(__name__)

# Trailers have to fit gRPC's default header limit of 8 KiB at other receivers.
TEXT_CHARACTERS_MAX = 4096


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


def _sendable(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= TEXT_CHARACTERS_MAX else clean[: TEXT_CHARACTERS_MAX - 1] + "…"
