"""How a call of ours is written as a header block, and what the header blocks of its answer say.

Texts and codes for what is no gRPC answer are those of grpc-go and of gRPC's specification.
"""

from __future__ import annotations

import base64
import functools
import math
import re
from collections.abc import Sequence

from swarmd.base.errors import (
    Code,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    SwarmError,
    error_for,
)
from swarmd.rpc.http2 import headers, wire
from swarmd.rpc.http2.headers import LIST_BYTES_MAX, Header
from swarmd.rpc.http2.request import CONTENT_TYPE, is_grpc
from swarmd.rpc.http2.wire import StreamFault

# Places in the static table (RFC 7541, appendix A).
_AUTHORITY, _METHOD_POST, _PATH, _SCHEME_HTTPS, _CONTENT_TYPE = 1, 3, 4, 7, 31
_KEY = re.compile(r"[-_.0-9a-z]+")
_VALUE = re.compile(r"[ -~]*")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNITS = (("n", 1e9), ("u", 1e6), ("m", 1e3), ("S", 1.0), ("M", 1 / 60), ("H", 1 / 3600))
_UNIT_MAX = 99_999_999

_OF_HTTP = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}
_OF_RESET = {
    wire.REFUSED_STREAM: Code.UNAVAILABLE,
    wire.CANCEL: Code.CANCELLED,
    wire.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    wire.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}

USUAL_HEAD = [(b":status", b"200"), (b"content-type", CONTENT_TYPE)]
USUAL_TAIL = [(b"grpc-status", b"0")]


# Asking.


@functools.lru_cache(maxsize=512)
def head(path: str, authority: str) -> bytes:
    """The part of a call's header block that is the same every time."""
    return b"".join(
        (
            headers.indexed(_METHOD_POST),
            headers.indexed(_SCHEME_HTTPS),
            headers.named(_PATH, path.encode()),
            headers.named(_AUTHORITY, authority.encode()),
            headers.named(_CONTENT_TYPE, CONTENT_TYPE),
            headers.literal(b"te", b"trailers"),
        )
    )


@functools.lru_cache(maxsize=64)
def timeout_field(seconds: float) -> bytes:
    """`grpc-timeout`: up to eight digits, rounded up; nothing for what is as good as for ever."""
    for unit, each in _UNITS:
        number = math.ceil(seconds * each)
        if number <= _UNIT_MAX:
            return headers.literal(b"grpc-timeout", f"{max(number, 1)}{unit}".encode())
    return b""


def metadata_fields(metadata: Sequence[tuple[str, str]]) -> bytes:
    """A call's metadata. Raises `InvalidArgument` for what no header can hold."""
    made = []
    for key, value in metadata:
        name = key.lower()
        raw = value.encode()
        if name.endswith("-bin"):
            raw = base64.b64encode(raw).rstrip(b"=")
        elif not _VALUE.fullmatch(value):
            raise InvalidArgument(f"metadata {key}: the value cannot be sent")
        if not _KEY.fullmatch(name) or name.startswith("grpc-"):
            raise InvalidArgument(f"metadata {key}: no such key can be sent")
        made.append(headers.literal(name.encode(), raw))
    return b"".join(made)


# Being answered.


class Told:
    """What one header block of an answer says."""

    __slots__ = ("_kind", "_status", "_text", "http")

    def __init__(self, fields: list[Header] | None, *, first: bool) -> None:
        """Raises `StreamFault` for what is no answer, `ResourceExhausted` for a long one."""
        if fields is None:
            text = f"received metadata size exceeds the limit of {LIST_BYTES_MAX} bytes"
            raise ResourceExhausted(text)
        self.http = 0
        """The HTTP status; 0 in trailers."""
        self._kind = b""
        self._status: bytes | None = None
        self._text = b""
        for name, value in fields:
            if name[:1] == b":":
                if name != b":status" or not first or self.http or len(value) != 3:
                    raise StreamFault(wire.PROTOCOL_ERROR, "pseudo header out of place")
                self.http = int(value) if value.isdigit() else 0
            elif name == b"content-type":
                self._kind = value
            elif name == b"grpc-status":
                self._status = value
            elif name == b"grpc-message":
                self._text = value
        if first and self.http < 100:
            raise StreamFault(wire.PROTOCOL_ERROR, "no status")

    @property
    def informational(self) -> bool:
        """An HTTP status that says nothing yet."""
        return 100 <= self.http < 200

    def trouble(self) -> SwarmError | None:
        """Why an answer that begins so is no gRPC answer; None when it is one."""
        if is_grpc(self._kind) and (self.http == 200 or self._status is not None):
            return None
        shown = self._kind.decode("latin-1")
        if self.http == 200:
            return error_for(Code.UNKNOWN, f'unexpected content-type "{shown}"')
        text = f"unexpected HTTP status code received from server: {self.http}"
        return error_for(_OF_HTTP.get(self.http, Code.UNKNOWN), text)

    def verdict(self) -> SwarmError | None:
        """How a call ends with these trailers; None when it ends well."""
        status = self._status
        if status is None:
            return Internal("the answer ended without a status")
        if not status.isdigit() or len(status) > 9:
            return Internal(f"malformed grpc-status: {status.decode('latin-1')}")
        code = int(status)
        return error_for(code, unescaped(self._text)) if code else None


def unescaped(text: bytes) -> str:
    """Percent-encoding as gRPC has it, undone; what is broken stays as it is."""
    raw = _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text) if b"%" in text else text
    return raw.decode("utf-8", "replace")


def reset_error(code: int) -> SwarmError:
    """What an RST_STREAM with `code` means to the call."""
    name = wire.CODES[code] if code < len(wire.CODES) else str(code)
    text = f"stream terminated by RST_STREAM with error code: {name}"
    return error_for(_OF_RESET.get(code, Code.INTERNAL), text)
