"""The plain end of one TLS connection: decrypted bytes to the protocol, its bytes to the link.

What one batch of bytes produces goes out in one write, and so does what a few tasks of one turn
of the loop produce. While the transport is full nothing is taken from the protocol, so what has
to be sent waits with its streams and its writers wait with it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, Protocol, TypeVar

from swarmd.rpc.http2.endpoint import Endpoint
from swarmd.rpc.http2.wire import ConnectionFault

# When so many tasks of one turn had something to send it goes out, before the turn is over: the
# other side, often another processor, begins with it meanwhile.
KICKS_MAX = 8

AnyEndpoint = TypeVar("AnyEndpoint", bound=Endpoint[Any])


class Transport(Protocol):
    """What this needs of the TLS connection below it."""

    @property
    def closing(self) -> bool:
        """True when nothing can be written any more."""
        ...

    def send(self, data: bytes) -> None:
        """Encrypt and write."""
        ...

    def finish(self) -> None:
        """Close after what was sent has gone out."""
        ...


class PlainEnd(Generic[AnyEndpoint]):
    """A `swarmd.rpc.link.Partner` for either side of the protocol; `finish` is its user's."""

    __slots__ = ("_flushing", "_kicks", "_link", "_loop", "_protocol", "_receiving")

    def __init__(self, link: Transport, protocol: AnyEndpoint) -> None:
        self._link = link
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._receiving = False
        self._flushing = False
        self._kicks = 0

    @property
    def fault(self) -> ConnectionFault | None:
        """How the peer broke the rules, if it did."""
        return self._protocol.fault

    def send(self, data: bytes) -> None:
        """Bytes of the peer (called by the link)."""
        self._receiving = True
        try:
            self._protocol.receive(data, self._loop.time())
        finally:
            self._receiving = False
        self._flush()
        if self._protocol.fault is not None:
            self._link.finish()

    def hold(self) -> None:
        """The transport is full (called by the link)."""
        self._protocol.sender.held = True

    def release(self) -> None:
        """The transport takes more (called by the link)."""
        self._protocol.sender.held = False
        self._flush()

    def kick(self) -> None:
        """Something was sent: write it at the end of this turn of the loop, or sooner."""
        if self._receiving:
            return
        self._kicks += 1
        if self._kicks >= KICKS_MAX:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._kicks = 0
        while not self._link.closing and (data := self._protocol.sender.take()):
            self._link.send(data)
