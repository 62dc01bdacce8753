"""One request: its path taken apart, its answer, and the way to the engine concerned."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from aiohttp import web

from swarmd.base.errors import SwarmError
from swarmd.faces.classic.api.filters import Filters, parse_filters
from swarmd.faces.classic.api.information import API_VERSION
from swarmd.faces.classic.engines.cluster import Cluster
from swarmd.faces.classic.engines.engine import Engine
from swarmd.faces.classic.scheduler.node import Container
from swarmd.faces.http.link import Head
from swarmd.faces.http.refusal import Refusal, bad_request, not_found
from swarmd.faces.http.relay import relay, say_continue

log = logging.getLogger("classic")

body_bytes_max = 4 << 20
_FALSE = ("", "0", "no", "false", "none")
_VERSION = re.compile(r"/v([0-9]+)\.([0-9]+)(/.*)")
Refresh = Callable[[Engine], Awaitable[None]]


class Call:
    """A request to the cluster. `names` are the parts of the path its route left open."""

    def __init__(self, request: web.BaseRequest, cluster: Cluster) -> None:
        self.request = request
        self.cluster = cluster
        self.names: Mapping[str, str] = {}
        path = request.path
        found = _VERSION.fullmatch(path)
        self.version = (int(found[1]), int(found[2])) if found else None
        self.path = found[3] if found else path
        self.pairs = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
        self.query: dict[str, str] = {}
        for key, value in self.pairs:
            self.query.setdefault(key, value)

    def flag(self, name: str) -> bool:
        """A form boolean."""
        return self.query.get(name, "").strip().lower() not in _FALSE

    def number(self, name: str) -> int:
        """A number; 0 when there is none."""
        text = self.query.get(name, "")
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else 0

    def filters(self) -> Filters:
        """The `filters` query value. Raises a 400 `Refusal`."""
        return parse_filters(self.query.get("filters", ""))

    async def body(self) -> dict[str, Any]:
        """The request's JSON object; empty without a body. Raises a 400 `Refusal`."""
        await say_continue(self.request)
        try:
            data = await self.request.read()
            found = json.loads(data) if data.strip() else {}
        except web.HTTPRequestEntityTooLarge:
            raise bad_request("http: request body too large") from None
        except ValueError as error:
            raise bad_request(str(error)) from error
        if not isinstance(found, dict):
            raise bad_request("the body must be a JSON object")
        return found

    def container(self, wanted: str | None = None) -> tuple[Engine, Container]:
        """The container the path (or `wanted`) names, on a healthy engine.

        Raises a 404 `Refusal`, or 500 when its node does not answer.
        """
        name = self.names["name"] if wanted is None else wanted
        found = self.cluster.container(name)
        if found is None:
            raise not_found(f"No such container: {name}")
        engine, _ = found
        if not engine.healthy:
            raise Refusal(500, f"Container {name} running on unhealthy node {engine.name}")
        return found

    def target(self, engine: Engine, path: str, pairs: list[tuple[str, str]] | None = None) -> str:
        """`path` on `engine` in the client's version, if the engine speaks it, and its query."""
        version = min(self.version or engine.calls.version, engine.calls.version)
        raw = self.request.rel_url.raw_query_string if pairs is None else urlencode(pairs)
        tail = f"?{raw}" if raw else ""
        return f"/v{version[0]}.{version[1]}{quote(path, safe='/:@')}{tail}"

    async def forward(
        self,
        engine: Engine,
        path: str,
        *,
        pairs: list[tuple[str, str]] | None = None,
        body: bytes | None = None,
        refresh: Refresh | None = None,
    ) -> web.StreamResponse:
        """Let `engine` answer at `path`; `refresh` happens before the client hears of it."""

        async def on_head(head: Head) -> None:
            if refresh is not None and head.status < 400:
                await quietly(refresh, engine)

        async with engine.checked() as calls:
            return await relay(
                self.request,
                calls.link,
                body,
                self.target(engine, path, pairs),
                on_head if refresh is not None else None,
            )


async def quietly(refresh: Refresh, engine: Engine) -> None:
    """Refresh; what goes wrong shows at the engine's state, the change itself is made."""
    try:
        await refresh(engine)
    except (Refusal, SwarmError) as error:
        log.debug("refresh of %s: %s", engine.name, error.message)


def as_json(value: Any, status: int = 200) -> web.Response:
    """`value` as JSON with a line end, as Go's encoder writes it."""
    return web.Response(
        body=(json.dumps(value) + "\n").encode(),
        status=status,
        headers={"Content-Type": "application/json", "Api-Version": API_VERSION},
    )


def empty(status: int = 204) -> web.Response:
    """No body."""
    return web.Response(status=status, headers={"Api-Version": API_VERSION})


def as_error(status: int, message: str) -> web.Response:
    """Errors are plain text here, as in the reference."""
    return web.Response(
        body=(message + "\n").encode("utf-8", "replace"),
        status=status,
        headers={
            "Content-Type": "text/plain; charset=utf-8",
            "X-Content-Type-Options": "nosniff",
            "Api-Version": API_VERSION,
        },
    )


async def streaming(request: web.BaseRequest) -> web.StreamResponse:
    """A JSON answer that goes on; its head is on the way when this returns."""
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Api-Version": API_VERSION}
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"")
    return response
