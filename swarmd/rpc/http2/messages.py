"""gRPC's messages in a stream of bytes: a flag, four bytes of length, the message."""

from __future__ import annotations

from swarmd.base import limits
from swarmd.base.errors import Code
from swarmd.rpc.http2.request import Refused

PREFIX_BYTES = 5


class Messages:
    """Cuts the data of one direction of a call into messages."""

    __slots__ = ("_bytes_max", "_rest")

    def __init__(self, bytes_max: int | None = None) -> None:
        """`bytes_max`: the largest message; by default what a manager receives."""
        self._bytes_max = limits.receive_bytes_max if bytes_max is None else bytes_max
        self._rest: bytearray | None = None

    @property
    def partial(self) -> bool:
        """True in the middle of a message."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes.

        Raises `Refused` for one that is too large or compressed, as soon as its length is
        known: what is too large is never taken in.
        """
        if not self._rest:
            size = len(data) - PREFIX_BYTES
            if size >= 0 and not data[0] and int.from_bytes(data[1:PREFIX_BYTES], "big") == size:
                self._check_size(size)
                return [data[PREFIX_BYTES:]]
            self._rest = bytearray(data)
        else:
            self._rest += data
        return self._cut(self._rest)

    def _cut(self, rest: bytearray) -> list[bytes]:
        found: list[bytes] = []
        at = 0
        while len(rest) - at >= PREFIX_BYTES:
            _check_flag(rest[at])
            size = int.from_bytes(rest[at + 1 : at + PREFIX_BYTES], "big")
            self._check_size(size)
            stop = at + PREFIX_BYTES + size
            if stop > len(rest):
                break
            found.append(bytes(memoryview(rest)[at + PREFIX_BYTES : stop]))
            at = stop
        if at == len(rest):
            self._rest = None
        elif at:
            del rest[:at]
        return found

    def _check_size(self, size: int) -> None:
        if size > self._bytes_max:
            raise Oversized(size, self._bytes_max)


def _check_flag(flag: int) -> None:
    if flag == 1:
        # A call that names a compression is refused before its first message.
        text = "grpc: compressed flag set with identity or empty encoding"
        raise Refused(Code.INTERNAL, text)
    if flag:
        raise Refused(Code.INTERNAL, f"grpc: received unexpected payload format {flag}")


class Oversized(Refused):
    """A message over the limit of what we receive."""

    def __init__(self, size: int, bytes_max: int) -> None:
        text = f"grpc: received message larger than max ({size} vs. {bytes_max})"
        super().__init__(Code.RESOURCE_EXHAUSTED, text)


def framed(message: bytes) -> bytes:
    """One message with its prefix, uncompressed."""
    return b"\x00" + len(message).to_bytes(4, "big") + message
