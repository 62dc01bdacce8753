"""What a caller is told of an error: each crosses this door once."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from swarmd.base.errors import Code, InvariantViolation, SwarmError
from swarmd.rpc.http2.request import escaped

log = logging.getLogger(__name__)

# Trailers have to fit gRPC's default header limit of 8 KiB at other receivers.
TEXT_CHARACTERS_MAX = 4096
TEXT_BYTES_MAX = 6000
"""The same as it is sent, where a letter beyond ASCII takes six bytes or more."""
_SURE_CHARACTERS = TEXT_BYTES_MAX // 12


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
    if len(clean) <= _SURE_CHARACTERS:
        return clean
    if len(clean) <= TEXT_CHARACTERS_MAX and len(escaped(clean)) <= TEXT_BYTES_MAX:
        return clean
    cut = clean[: TEXT_CHARACTERS_MAX - 1]
    while len(escaped(cut)) > TEXT_BYTES_MAX:
        cut = cut[: len(cut) * 3 // 4]
    return cut + "…"
