"""Routes: one module per noun, each with a `ROUTES` table of (method, shape) -> handler.

A shape is the path without its version and with ``*`` for the id segment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context

Route = Callable[[Context, Call], Awaitable[web.StreamResponse]]
Table = dict[tuple[str, str], Route]
