"""The ports a manager serves: opened and closed while it runs, and widened to a wildcard.

The kernel does not let anybody listen on all addresses of a port while one of them is listened
on, not even who does. So the wildcard takes the place of the addresses it covers, and they its
place when it is given up. In between is no moment for the event loop, and what was open keeps
its claim on the port until the other one listens: after a failure it listens again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarmd.rpc import address

log = logging.getLogger(__name__)

BACKLOG = 1024
_WILDCARDS = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class _Spot:
    """An "ip:port" as it was asked for, and as it was bound (port 0 has become another)."""

    text: str
    bound: str


@dataclass(eq=False, slots=True)
class _Port:
    """One that is open, and what it took the place of."""

    text: str
    server: asyncio.Server
    covered: tuple[_Spot, ...] = ()

    @property
    def bound(self) -> list[str]:
        """The "ip:port"s it is bound to."""
        return [address.of_socket(sock.getsockname()) for sock in self.server.sockets]


class Ports:
    """Listens, with one protocol per connection. One change at a time."""

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._protocol = protocol
        self._open: list[_Port] = []

    @property
    def addresses(self) -> list[str]:
        """The first "ip:port" of each port that is open, in the order they were opened."""
        return [port.bound[0] for port in self._open]

    async def open(self, text: str) -> None:
        """Listen on "ip:port". Raises `OSError`; then all is as it was before.

        A wildcard takes the place of the addresses of its port; their connections stay.
        """
        host, number = address.split(text)
        try:
            server = await asyncio.get_running_loop().create_server(
                self._protocol, host or None, number, backlog=BACKLOG, reuse_address=True
            )
        except OSError as error:
            below = self._below(host, number)
            if error.errno != errno.EADDRINUSE or not below:
                raise
            await self._replace(below, [_Spot(text, text)])
        else:
            self._open.append(_Port(text, server))

    def serves(self, text: str) -> bool:
        """True if connections to "ip:port" come in already, perhaps by a wildcard."""
        host, number = address.split(text)
        covering = {text, address.join("::" if ":" in host else "0.0.0.0", number)}
        return any(name in covering for port in self._open for name in port.bound)

    async def quit(self, text: str) -> None:
        """Close what was opened as `text`, and open again what it took the place of.

        Connections stay. It stays open itself if the others cannot be had any more.
        """
        for port in [one for one in self._open if one.text == text]:
            if not port.covered:
                self._open.remove(port)
                port.server.close()
                continue
            try:
                await self._replace([port], port.covered)
            except OSError as error:
                log.error("%s stays open: %s", text, error)

    def close(self) -> None:
        """Listen no more; connections stay."""
        for port in self._open:
            port.server.close()
        self._open.clear()

    def _below(self, host: str, number: int) -> list[_Port]:
        """What a wildcard covers, and has to take the place of."""
        family = _WILDCARDS.get(host)
        return [
            port
            for port in self._open
            if all(
                sock.family == family and sock.getsockname()[1] == number
                for sock in port.server.sockets
            )
        ]

    async def _replace(self, old: list[_Port], new: Sequence[_Spot]) -> None:
        covered = tuple(_Spot(port.text, port.bound[0]) for port in old)
        sockets = self._listen_instead(old, [spot.bound for spot in new])
        loop = asyncio.get_running_loop()
        opened = []
        for spot, sock in zip(new, sockets, strict=True):
            # It does not wait for anything until it is told to serve.
            server = await loop.create_server(
                self._protocol, sock=sock, backlog=BACKLOG, start_serving=False
            )
            opened.append(_Port(spot.text, server, covered if len(new) == 1 else ()))
        self._open += opened
        for port in opened:
            await port.server.start_serving()

    def _listen_instead(self, old: list[_Port], new: list[str]) -> list[socket.socket]:
        """Sockets that listen at `new`, with `old` closed; or `OSError`, and `old` as before."""
        opened = []
        with contextlib.ExitStack() as handles, contextlib.ExitStack() as undo:
            for sock in [one for port in old for one in port.server.sockets]:
                held = handles.enter_context(_another(sock))
                undo.callback(held.listen, BACKLOG)
                _pause(held)
            for name in new:
                opened.append(_listening(name))
                undo.callback(opened[-1].close)  # before the others listen again
            undo.pop_all()
            for port in old:
                self._open.remove(port)
                port.server.close()
        return opened


def _another(sock: socket.socket) -> socket.socket:
    """The same socket by a second handle: event loops do not let theirs be handled so."""
    return socket.socket(fileno=os.dup(sock.fileno()))


def _pause(sock: socket.socket) -> None:
    """Have it listen no more, but stay bound, so that it may listen again."""
    name = sock.getsockname()
    sock.shutdown(socket.SHUT_RD)
    try:
        sock.bind(name)  # a port of the kernel's choice was given back
    except OSError as error:
        if error.errno != errno.EINVAL:  # bound still
            raise


def _listening(name: str) -> socket.socket:
    host, number = address.split(name)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, number), family=family, backlog=BACKLOG)
