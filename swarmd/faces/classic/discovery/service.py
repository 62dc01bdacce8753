"""The hub's HTTP protocol: create, register, list, delete. One handler, no router.

Facts: POST .../clusters answers the token as plain text; POST .../clusters/TOKEN?ttl=S takes
"ip:port" as the body; GET gives a JSON list; whatever comes before /clusters is the client's own
choice of path.
"""

from __future__ import annotations

import asyncio
import json
import logging
from urllib.parse import parse_qsl

from aiohttp import web

from swarmd.base.aio import Lane
from swarmd.base.clock import Clock
from swarmd.base.errors import InvalidArgument, NotFound, ResourceExhausted, SwarmError
from swarmd.faces.classic.discovery.guard import Guard
from swarmd.faces.classic.discovery.registry import DEFAULT_TTL_SECONDS, Registry, is_token

log = logging.getLogger("discovery")

body_bytes_max = 1024
prefix_bytes_max = 128
_STATUS = {InvalidArgument: 400, NotFound: 404, ResourceExhausted: 507}


class DiscoveryService:
    """Answers discovery requests from one `Registry`."""

    def __init__(
        self, registry: Registry, lane: Lane, clock: Clock, body_seconds_max: float
    ) -> None:
        self._registry = registry
        self._lane = lane
        self._clock = clock
        self._body_seconds_max = body_seconds_max
        # 128 bits cannot be guessed at these rates; they keep the noise of trying small.
        self.guesses = Guard(burst=20, seconds_each=10.0)
        self.creations = Guard(burst=20, seconds_each=30.0)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; errors become a status and a line of text."""
        try:
            return await self._dispatch(request)
        except SwarmError as error:
            status = _STATUS.get(type(error), 500)
            if status == 500:
                log.error("%s", error)
            return _text(status, error.message if status != 500 else "internal error")

    async def _dispatch(self, request: web.BaseRequest) -> web.Response:
        prefix, found, rest = request.path.rstrip("/").rpartition("/clusters")
        token = rest[1:]
        if not found or len(prefix) > prefix_bytes_max or (rest and not rest.startswith("/")):
            return _text(404, "not found")
        address = request.remote or ""
        if not rest:
            return await self._create(request, address)
        wait = self.guesses.wait(address, self._clock.monotonic())
        if wait:
            return _too_many(wait)
        try:
            if not is_token(token):
                raise NotFound("no such cluster")
            return await self._cluster(request, token)
        except NotFound:
            self.guesses.spend(address, self._clock.monotonic())
            raise

    async def _create(self, request: web.BaseRequest, address: str) -> web.Response:
        if request.method != "POST":
            return _not_allowed("POST")
        wait = self.creations.wait(address, self._clock.monotonic())
        if wait:
            return _too_many(wait)
        self.creations.spend(address, self._clock.monotonic())
        token = await self._lane.run(lambda: self._registry.create(self._clock.now()))
        return web.Response(text=token, content_type="text/plain")

    async def _cluster(self, request: web.BaseRequest, token: str) -> web.Response:
        registry, now = self._registry, self._clock.now
        match request.method:
            case "GET" | "HEAD":
                found = await self._lane.run(lambda: registry.entries(token, now()))
                return web.Response(text=json.dumps(found), content_type="application/json")
            case "POST":
                try:
                    async with asyncio.timeout(self._body_seconds_max):
                        entry = await _entry(request)
                except TimeoutError:
                    return _too_slow()
                ttl = _ttl(request)
                await self._lane.run(lambda: registry.register(token, entry, ttl, now()))
                return _text(200, "OK")
            case "DELETE":
                await self._lane.run(lambda: registry.delete(token))
                return web.Response(status=204)
        return _not_allowed("GET, HEAD, POST, DELETE")


async def _entry(request: web.BaseRequest) -> str:
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise InvalidArgument("the body must be ip:port") from None
    try:
        return body.decode("ascii").strip()
    except UnicodeDecodeError:
        raise InvalidArgument("the body must be ip:port") from None


def _ttl(request: web.BaseRequest) -> int:
    query = dict(parse_qsl(request.rel_url.raw_query_string))
    text = query.get("ttl", str(DEFAULT_TTL_SECONDS))
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidArgument("ttl must be a number of seconds")
    return int(text)


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n", content_type="text/plain")


def _too_many(wait_seconds: float) -> web.Response:
    response = _text(429, "too many requests")
    response.headers["Retry-After"] = str(int(wait_seconds) + 1)
    return response


def _too_slow() -> web.Response:
    response = _text(408, "the body did not come")
    response.force_close()  # the rest of it may still come
    return response


def _not_allowed(methods: str) -> web.Response:
    response = _text(405, "method not allowed")
    response.headers["Allow"] = methods
    return response
