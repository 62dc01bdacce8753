"""The application: find the route, answer, turn errors into a status and a line of text."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from swarmd.base.errors import (
    AlreadyExists,
    InvalidArgument,
    InvariantViolation,
    NotFound,
    SwarmError,
)
from swarmd.faces.classic.api.call import Call, as_error, empty
from swarmd.faces.classic.api.containers import Containers
from swarmd.faces.classic.api.images import Images
from swarmd.faces.classic.api.networks import Networks, Volumes
from swarmd.faces.classic.api.routing import Route
from swarmd.faces.classic.api.system import System
from swarmd.faces.classic.engines.cluster import Cluster
from swarmd.faces.classic.engines.creation import Creator
from swarmd.faces.http.hijack import Handler
from swarmd.faces.http.refusal import Refusal

log = logging.getLogger("classic")

_STATUS: dict[type[SwarmError], int] = {InvalidArgument: 400, NotFound: 404, AlreadyExists: 409}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept",
    "Access-Control-Allow-Methods": "GET, POST, DELETE, PUT, OPTIONS, HEAD",
}


class ClassicAPI:
    """Answers Docker Remote API requests for one cluster."""

    def __init__(self, cluster: Cluster, creator: Creator, *, cors: bool = False) -> None:
        self._cluster = cluster
        self._cors = cors
        # Done with a bug: the server passes it on, which ends the process.
        self.broken: asyncio.Future[None] | None = None
        self._routes: list[Route] = [
            *System().routes(),
            *Containers(creator).routes(),
            *Images().routes(),
            *Networks().routes(),
            *Volumes().routes(),
        ]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            answer = await self._answer(request)
        finally:
            if isinstance(request.protocol, Handler):
                request.protocol.release()
        if self._cors and not answer.prepared:
            answer.headers.update(_CORS)
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._dispatch(Call(request, self._cluster))
        except Refusal as error:
            return as_error(error.status, error.message)
        except SwarmError as error:
            return as_error(_STATUS.get(type(error), 500), error.message)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except InvariantViolation as error:
            if self.broken is not None and not self.broken.done():
                self.broken.set_exception(error)
            return as_error(500, "internal error")
        except Exception:
            log.exception("%s request failed", request.method)
            return as_error(500, "internal error")

    async def _dispatch(self, call: Call) -> web.StreamResponse:
        method = call.request.method
        if method == "OPTIONS" and self._cors:
            return empty(200)
        for route in self._routes:
            if route.method == method and (found := route.pattern.fullmatch(call.path)):
                call.names = found.groupdict()
                return await route.answer(call)
        raise Refusal(404, "404 page not found")
