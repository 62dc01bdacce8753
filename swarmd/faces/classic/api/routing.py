"""A table of routes: method and shape of the path to a coroutine."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from swarmd.faces.classic.api.call import Call

Answer = Callable[[Call], Awaitable[web.StreamResponse]]
_HOLE = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One shape, such as /containers/{name}/json. Names may contain slashes (NODE/NAME)."""

    method: str
    pattern: re.Pattern[str]
    answer: Answer


def route(method: str, shape: str, answer: Answer) -> Route:
    """Make a route."""
    pattern = _HOLE.sub(r"(?P<\1>.+)", re.escape(shape).replace(r"\{", "{").replace(r"\}", "}"))
    return Route(method, re.compile(pattern), answer)
