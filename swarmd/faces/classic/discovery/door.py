"""Who may hold a connection to the discovery service, and for how long without a word.

A token is asked for by anybody who reaches the port, so connections are counted where TCP
accepts them, before TLS; whoever is slow on purpose loses its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from swarmd.faces.classic.discovery.guard import network_of

log = logging.getLogger("discovery")

COMPLAINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """Ours: the hub's are not known. A node holds one connection, one address may be many nodes."""

    connections_max: int = 2048
    per_address_max: int = 512  # a /64 counts as one
    request_seconds_max: float = 15.0  # until the head of the first request, TLS included
    body_seconds_max: float = 10.0
    stalled_seconds_max: float = 15.0  # of a client that does not read its answer


class Door:
    """Counts the connections of one listener."""

    def __init__(self, limits: DoorLimits | None = None) -> None:
        self.limits = limits or DoorLimits()
        self._open: Counter[str] = Counter()
        self._complained_at = float("-inf")

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._open.total()

    def guarded(self, make: Callable[[Visit], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """A server's connection factory; `make` gives what serves a visitor let in."""
        return lambda: Visit(self, make)

    def enter(self, network: str) -> bool:
        """Take a place; False when there is none."""
        limits = self.limits
        if (
            self.connections >= limits.connections_max
            or self._open[network] >= limits.per_address_max
        ):
            self._complain(network)
            return False
        self._open[network] += 1
        return True

    def leave(self, network: str) -> None:
        """Give a place back."""
        self._open[network] -= 1
        if self._open[network] <= 0:
            del self._open[network]

    def _complain(self, network: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= COMPLAINT_SECONDS:
            self._complained_at = now
            log.warning(
                "too many connections (%d, %d of this address): turning some away",
                *(self.connections, self._open[network]),
            )


class Visit(asyncio.Protocol):
    """One TCP connection, let in or turned away; hands everything on to what serves it."""

    def __init__(self, door: Door, make: Callable[[Visit], asyncio.Protocol]) -> None:
        self._door = door
        self._make = make
        self._inner: asyncio.Protocol | None = None
        self._network = ""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let in, or close at once."""
        self._transport = cast(asyncio.Transport, transport)
        network = network_of(_host(transport.get_extra_info("peername")))
        if not self._door.enter(network):
            self._transport.abort()
            return
        self._network = network
        self._inner = self._make(self)
        self._timer = self._later(self._door.limits.request_seconds_max)
        self._inner.connection_made(transport)

    def heard(self) -> None:
        """A request came: from now on the server's own limits hold."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def data_received(self, data: bytes) -> None:
        """Hand on."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on."""
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        """The client does not read: not for ever."""
        if self._stalled is None:
            self._stalled = self._later(self._door.limits.stalled_seconds_max)
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        if self._inner is not None:
            self._door.leave(self._network)
            self._inner.connection_lost(exc)

    def _later(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._cut)

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _host(peer: Any) -> str:
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
