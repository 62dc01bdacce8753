"""Prometheus metrics over HTTP: one page, read only."""

from __future__ import annotations

import asyncio

from aiohttp import web

from swarmd.base import metrics
from swarmd.rpc.address import split


async def _page(request: web.BaseRequest) -> web.Response:
    if request.path != "/metrics":
        return web.Response(status=404, text="see /metrics\n")
    return web.Response(body=metrics.exposition(), content_type="text/plain", charset="utf-8")


async def serve_metrics(addr: str, ready: asyncio.Event) -> None:
    """Serve /metrics on "host:port" until cancelled. Raises `OSError` when it cannot listen."""
    host, port = split(addr)
    server = web.Server(_page, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, host or None, port)
    try:
        ready.set()
        await asyncio.Event().wait()
    finally:
        listener.close()
        await server.shutdown(1.0)
