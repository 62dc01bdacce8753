"""aiohttp's low-level server with connections that can turn raw: no access log, no router."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from swarmd.faces.http.hijack import Handler

# What requests in progress get to finish; streams that would go on are cut off then.
SHUTDOWN_SECONDS = 1.0


class RawServer(web.Server):
    """Gives every request to one function; listeners take it as their connection factory."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        body_bytes_max: int,
    ) -> None:
        super().__init__(
            handle, request_factory=partial(_make_request, body_bytes_max), access_log=None
        )

    def __call__(self) -> Handler:
        return Handler(self, loop=self._loop, **self._kwargs)

    def hang_up(self) -> None:
        """End what waits on an engine for a client: logs that are followed, raw streams."""
        for connection in self.connections:
            if isinstance(connection, Handler):
                connection.abandon()

    async def shut_down(self) -> None:
        """Let requests finish for a while, then end them."""
        self.pre_shutdown()
        # A little before aiohttp gives up waiting, so that it sees the handlers end.
        loop = asyncio.get_running_loop()
        hang_up = loop.call_later(SHUTDOWN_SECONDS * 0.8, self.hang_up)
        await self.shutdown(SHUTDOWN_SECONDS)
        hang_up.cancel()


def _make_request(
    body_bytes_max: int, message: Any, payload: Any, protocol: Any, writer: Any, task: Any
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=body_bytes_max
    )
