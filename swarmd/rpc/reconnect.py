"""A connection to a manager that is made again when it broke, under whatever speaks on it.

A caller outlives its connection: when that breaks, calls under way fail with
`Disconnected`, and the next call connects and verifies anew within its own task. Nothing
is retried here. Credentials are fixed; after a renewal dial again.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar

from swarmd.base.clock import Clock
from swarmd.base.errors import DeadlineExceeded
from swarmd.rpc.dialled import unreachable
from swarmd.rpc.names import CA_NAME
from swarmd.rpc.peer import Disconnected
from swarmd.rpc.tls import Credentials

CLOSING = "grpc: the client connection is closing"
"""What callers are told once we hung up ourselves."""


class Line(Protocol):
    """One connection."""

    @property
    def usable(self) -> bool:
        """False once it is over, or its server takes no new calls."""
        ...

    @property
    def lost(self) -> bool:
        """True once it is over."""
        ...

    async def close(self) -> None:
        """Hang up; calls under way fail with `ClosedHere`."""
        ...


AnyLine = TypeVar("AnyLine", bound=Line)


class Reconnecting(abc.ABC, Generic[AnyLine]):
    """The life of a caller and its connections."""

    def __init__(
        self, addr: str, credentials: Credentials, server_name: str, timeout: float, clock: Clock
    ) -> None:
        self.addr = addr
        self.credentials = credentials
        self._server_name = server_name
        self._authority = CA_NAME if server_name == CA_NAME else addr
        self._timeout = timeout
        self._clock = clock
        self._line: AnyLine | None = None
        # Lines whose server said goodbye while calls were still under way on them.
        self._retired: list[AnyLine] = []
        self._closed = False
        self._retiring = False
        self._calls = 0
        # Held over the await of a connection attempt, which has a time limit and calls
        # nobody who could want this lock.
        self._connecting = asyncio.Lock()

    @abc.abstractmethod
    async def _open(self) -> AnyLine:
        """Connect and verify. Raises `Disconnected`; the time limit is set around it."""

    @property
    def connected(self) -> bool:
        """True while the connection is up."""
        return self._line is not None and self._line.usable

    async def connect(self) -> None:
        """Make sure there is a connection. Raises `Disconnected`."""
        await self._get_line()

    async def close(self) -> None:
        """End the connection; calls under way fail. Closing twice is fine."""
        self._closed = True
        lines = [*self._retired, self._line]
        self._line = None
        self._retired = []
        for line in lines:
            if line is not None:
                await line.close()

    async def retire(self) -> None:
        """Close as soon as no call is under way any more; at once when there is none."""
        self._retiring = True
        if not self._calls:
            await self.close()

    @asynccontextmanager
    async def _under_way(self) -> AsyncIterator[None]:
        """Around every call: the last one out of a retired connection closes it."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if self._retiring and not self._calls:
                await self.close()

    async def _get_line(self, timeout: float | None = None) -> AnyLine:
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        line = self._line
        if line is not None and line.usable:
            return line
        try:
            async with asyncio.timeout(limit), self._connecting:
                return await self._reconnect()
        except TimeoutError as error:
            text = unreachable(self.addr, "i/o timeout")
            if timeout is not None and timeout < self._timeout:
                raise DeadlineExceeded(text) from error
            raise Disconnected(text) from error

    async def _reconnect(self) -> AnyLine:
        if self._line is not None:
            if self._line.usable:
                return self._line
            self._retired.append(self._line)
            self._line = None
        await self._sweep()
        self._check_open()
        line = await self._open()
        if self._closed:
            await line.close()
            self._check_open()
        self._line = line
        return line

    async def _sweep(self) -> None:
        """Close retired lines whose connection is over."""
        gone = [line for line in self._retired if line.lost]
        self._retired = [line for line in self._retired if not line.lost]
        for line in gone:
            await line.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Disconnected(CLOSING)
