"""What the headers of a gRPC call say, and how answers are written as header blocks.

The texts of refusals are grpc-go's, which is what stock managers answer with.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from dataclasses import dataclass

from swarmd.base.errors import Code
from swarmd.rpc.http2 import headers, wire
from swarmd.rpc.http2.headers import Header
from swarmd.rpc.http2.wire import StreamFault

Value = str | bytes
Metadata = list[tuple[str, Value]]

CONTENT_TYPE = b"application/grpc"
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
# Of the library or the protocol, not of the caller. (`te` and `user-agent` are not looked at.)
_OF_THE_LIBRARY = frozenset(
    (b"content-type", b"te", b"user-agent", b"accept-encoding", b"content-length", b"host")
)
_OF_A_CONNECTION = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-z]+")
_TEXT = re.compile(rb"[ -~]*")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_UNSAFE = re.compile(rb"[^ -$&-~]")


class Refused(Exception):
    """A request that is answered at once: gRPC status, and the HTTP status it comes with."""

    def __init__(self, code: Code, text: str, http: int = 200) -> None:
        super().__init__(text)
        self.code = code
        self.http = http


@dataclass(slots=True)
class Request:
    """The headers of one call."""

    path: bytes
    metadata: Metadata
    """What the caller itself put in: repeated keys, empty values and order are kept."""
    timeout: float | None = None
    """Seconds the caller waits."""


class Reader:
    """Reads the headers of one connection's calls, which differ in little but their timeout."""

    __slots__ = ("_fields", "_request")

    def __init__(self) -> None:
        self._fields: list[Header] = []
        self._request: Request | None = None

    def read(self, fields: list[Header]) -> Request:
        """As `read`. What equals the call before is not looked at again: fields out of the
        header table are the same objects, so that comparing them costs nothing."""
        timeout = None
        for at in range(len(fields) - 1, -1, -1):
            if fields[at][0] == b"grpc-timeout":
                timeout = fields.pop(at)[1]
                break
        known = self._request
        if known is None or fields != self._fields:
            known = read(fields)
            self._fields, self._request = fields, known
        if timeout is None:
            return known
        return Request(known.path, known.metadata, seconds_of(timeout))


def read(fields: list[Header]) -> Request:
    """Understand the headers of a call.

    Raises `StreamFault` for what is no HTTP request, `Refused` for what is no gRPC call.
    """
    known: dict[bytes, bytes] = {}
    metadata: Metadata = []
    regular = False
    for name, value in fields:
        if name in _PSEUDO:
            if regular or name in known:
                raise StreamFault(wire.PROTOCOL_ERROR, "pseudo header out of place")
            known[name] = value
            continue
        regular = True
        if name in _OF_THE_LIBRARY or name.startswith(b"grpc-"):
            known[name] = value
        else:
            metadata += _custom(name, value)
    _check(known)
    encoding = known.get(b"grpc-encoding", b"")
    if encoding and encoding != b"identity":
        shown = _quoted(encoding)
        raise Refused(
            Code.UNIMPLEMENTED, f"grpc: Decompressor is not installed for grpc-encoding {shown}"
        )
    timeout = known.get(b"grpc-timeout")
    return Request(known[b":path"], metadata, None if timeout is None else seconds_of(timeout))


def _check(known: dict[bytes, bytes]) -> None:
    method = known.get(b":method")
    if method is None or b":path" not in known or b":scheme" not in known:
        raise StreamFault(wire.PROTOCOL_ERROR, "no method, path or scheme")
    kind = known.get(b"content-type", b"")
    if not is_grpc(kind):
        text = f"invalid gRPC request content-type {_quoted(kind)}"
        raise Refused(Code.INVALID_ARGUMENT, text, 415)
    if method != b"POST":
        text = f"Received a HEADERS frame with :method {_quoted(method)} which should be POST"
        raise Refused(Code.INTERNAL, text, 405)


def is_grpc(kind: bytes) -> bool:
    """True for the content types of gRPC."""
    rest = kind[len(CONTENT_TYPE) :]
    return kind.startswith(CONTENT_TYPE) and rest[:1] in (b"", b"+", b";")


def _custom(name: bytes, value: bytes) -> Metadata:
    """The caller's own header: some entries of metadata, usually one."""
    if name in _OF_A_CONNECTION or not _NAME.fullmatch(name):
        raise StreamFault(wire.PROTOCOL_ERROR, "impossible header")
    key = name.decode()
    if key.endswith("-bin"):
        return [(key, _binary(key, piece)) for piece in value.split(b",")]
    if not _TEXT.fullmatch(value):
        raise StreamFault(wire.PROTOCOL_ERROR, "impossible header value")
    return [(key, value.decode())]


def _binary(key: str, value: bytes) -> bytes:
    """Base64, with or without its padding."""
    value = value.strip(b" ")
    bare = value.rstrip(b"=")
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except binascii.Error as error:
        shown = _quoted(value)
        text = f'malformed binary metadata {shown} in header "{key}": {error}'
        raise Refused(Code.INTERNAL, text, 400) from error


def seconds_of(text: bytes) -> float:
    """`grpc-timeout` in seconds: up to eight digits and a unit. Raises `Refused`."""
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise Refused(Code.INTERNAL, f"malformed grpc-timeout: {_quoted(text)}", 400)
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def _quoted(text: bytes) -> str:
    """As Go's %q, for what is printable."""
    shown = text.decode("latin-1").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{shown}"'


HEAD = headers.status(200) + headers.literal(b"content-type", CONTENT_TYPE)
"""The header block every answer begins with."""
OK_TAIL = headers.literal(b"grpc-status", b"0")
"""The trailers of an answer that went well."""


@functools.cache
def _status(code: Code) -> bytes:
    return headers.literal(b"grpc-status", str(int(code)).encode())


def tail(code: Code, text: str) -> bytes:
    """Trailers."""
    if code is Code.OK:
        return OK_TAIL
    return _status(code) + headers.literal(b"grpc-message", escaped(text))


def only_tail(code: Code, text: str, http: int = 200) -> bytes:
    """An answer without messages: headers and trailers in one block."""
    head = HEAD if http == 200 else headers.status(http) + HEAD[1:]
    return head + tail(code, text)


def escaped(text: str) -> bytes:
    """Percent-encoding as gRPC has it: everything but printable ASCII, and the percent sign."""
    raw = text.encode("utf-8", "replace")
    return _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], raw)
