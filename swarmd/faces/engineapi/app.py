"""The REST application: version, dispatch, errors. One dictionary look-up finds a route.

aiohttp's own router and middlewares are not used: they cost more than a node update itself.
Start reading at `EngineAPI.handle`.
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import unquote

from aiohttp import web

from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy, SystemEntropy
from swarmd.base.errors import InvariantViolation, SwarmError
from swarmd.faces.engineapi import texts
from swarmd.faces.engineapi.backend import Backend, HostFacts
from swarmd.faces.engineapi.call import Call, Replies
from swarmd.faces.engineapi.context import NEWEST, OLDEST, Context
from swarmd.faces.engineapi.engine import EngineFacts, EngineLink, parse_version
from swarmd.faces.engineapi.errors import Refusal, answer, bad_request, unavailable
from swarmd.faces.engineapi.eventlog import EventLog
from swarmd.faces.engineapi.interfaces import Interfaces, system_interfaces
from swarmd.faces.engineapi.routes import (
    Table,
    address,
    backup,
    events,
    logs,
    networks,
    nodes,
    secrets,
    services,
    swarm,
    system,
)
from swarmd.faces.engineapi.routes.engine import is_engine_path
from swarmd.faces.http.hijack import Handler
from swarmd.faces.http.relay import relay

logger = logging.getLogger("engineapi")

_JSON_ERRORS_SINCE = (1, 24)
_TABLES: tuple[Table, ...] = (
    nodes.ROUTES,
    swarm.ROUTES,
    networks.ROUTES,
    system.ROUTES,
    events.ROUTES,
    services.ROUTES,
    secrets.ROUTES,
    logs.ROUTES,
    backup.ROUTES,
    address.ROUTES,
)


class EngineAPI:
    """Answers Docker Engine API requests for one node."""

    def __init__(
        self,
        backend: Backend,
        host: HostFacts,
        clock: Clock,
        *,
        engine: str | None = None,
        interfaces: Interfaces = system_interfaces,
        default_advertise: str = "",
        entropy: Entropy | None = None,
    ) -> None:
        """`engine` is the path of the local engine's socket, None when there is none."""
        self.events = EventLog(backend, clock)
        self.context = Context(
            backend=backend,
            host=host,
            clock=clock,
            events=self.events,
            interfaces=interfaces,
            engine=EngineLink(engine) if engine else None,
            default_advertise=default_advertise,
            entropy=entropy or SystemEntropy(),
        )
        # Done with an InvariantViolation: the server passes it on, which ends the process.
        self.broken: asyncio.Future[None] | None = None
        self._routes = {key: route for table in _TABLES for key, route in table.items()}
        self._newest = NEWEST
        self._versions: dict[str, tuple[int, int]] = {}
        self._replies = self._make_replies(None)

    def _make_replies(self, facts: EngineFacts | None) -> Replies:
        server = f"Docker/{self.context.host.server_version} ({self.context.host.os_type})"
        experimental = "false"
        if facts is not None:
            server = facts.server or server
            experimental = facts.experimental
        newest = f"{self._newest[0]}.{self._newest[1]}"
        return Replies(server, newest, self.context.host.os_type, experimental)

    async def probe(self) -> None:
        """Ask the engine for its version: clients must not use more than both of us speak."""
        engine = self.context.engine
        if engine is None:
            return
        facts = await engine.facts()
        if facts != self.context.engine_facts:
            self.context.engine_facts = facts
            self._newest = max(OLDEST, min(NEWEST, facts.api_version))
            self._versions.clear()
            self._replies = self._make_replies(facts)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Every error becomes a status and a JSON message."""
        try:
            return await self._dispatch(request)
        except (Refusal, SwarmError) as error:
            status, message = answer(error)
            return self._replies.error(status, message)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except InvariantViolation as error:
            if self.broken is not None and not self.broken.done():
                self.broken.set_exception(error)
            return self._replies.error(500, "internal error")
        except Exception:
            logger.exception("%s request failed", request.method)
            return self._replies.error(500, "internal error")
        finally:
            if isinstance(request.protocol, Handler):
                request.protocol.release()

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query_text = request.raw_path.partition("?")
        prefix, path = _split_version(path)
        if path == "/_ping" or (self.context.engine and not self.context.engine_facts):
            await self._try_probe()
        try:
            version = self._version(prefix)
        except _TooOld as error:
            return self._replies.text((error.message + "\n").encode(), 400)
        call = Call(request, path, query_text, version, self._replies)
        method = request.method
        shape = path
        route = self._routes.get((method, shape))
        if route is None:
            # The second segment is an id; image names may make paths longer, those are not ours.
            parts = path.split("/")
            if 3 <= len(parts) <= 4 and parts[2]:
                ident = parts[2]
                parts[2] = "*"
                route = self._routes.get((method, "/".join(parts)))
                call.ident = unquote(ident) if "%" in ident else ident
        if route is not None:
            return await route(self.context, call)
        return await self._other(call)

    async def _try_probe(self) -> None:
        try:
            await self.probe()
        except Refusal as error:
            logger.debug("engine does not answer: %s", error.message)

    def _version(self, prefix: str) -> tuple[int, int]:
        if not prefix:
            return self._newest
        version = self._versions.get(prefix)
        if version is None:
            version = parse_version(prefix) or (0, 0)
            if version < OLDEST:
                text = (
                    f"client version {prefix} is too old. Minimum supported API version is "
                    f"{OLDEST[0]}.{OLDEST[1]}, please upgrade your client to a newer version"
                )
                raise _TooOld(text) if version < _JSON_ERRORS_SINCE else bad_request(text)
            if version > self._newest:
                raise bad_request(
                    f"client version {prefix} is too new. Maximum supported API version is "
                    f"{self._newest[0]}.{self._newest[1]}"
                )
            self._versions[prefix] = version
        return version

    async def _other(self, call: Call) -> web.StreamResponse:
        """Not the cluster's: the engine's if there is one."""
        if call.request.method == "OPTIONS":
            return self._replies.empty()
        if self.context.engine is not None:
            return await relay(call.request, self.context.engine)
        if is_engine_path(call.request.method, call.path):
            raise unavailable(texts.NO_ENGINE)
        raise Refusal(404, texts.PAGE_NOT_FOUND)


class _TooOld(Exception):
    """A client from before JSON errors."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _split_version(path: str) -> tuple[str, str]:
    """``/v1.41/nodes`` as ("1.41", "/nodes"); the first is empty without a version."""
    if path.startswith("/v"):
        version, slash, rest = path[2:].partition("/")
        if slash and version and version.replace(".", "").isdigit():
            return version, "/" + rest
    return "", path
