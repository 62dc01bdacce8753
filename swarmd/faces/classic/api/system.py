"""Routes about the cluster itself: ping, info, version, events."""

from __future__ import annotations

import asyncio
import contextlib
import json

from aiohttp import web

from swarmd.base.aio import ChannelClosed
from swarmd.faces.classic.api import information
from swarmd.faces.classic.api.call import Call, as_json, streaming
from swarmd.faces.classic.api.routing import Route, route
from swarmd.faces.classic.engines.cluster import ClusterEvent
from swarmd.faces.http.hijack import Handler
from swarmd.faces.http.refusal import Refusal, bad_request


class System:
    """What concerns no single object."""

    def routes(self) -> list[Route]:
        """In the order they are tried."""
        return [
            route("GET", "/_ping", self.ping),
            route("HEAD", "/_ping", self.ping),
            route("GET", "/info", self.info),
            route("GET", "/version", self.version),
            route("GET", "/events", self.events),
            route("GET", "/images/viz", self.not_offered),
        ]

    async def ping(self, call: Call) -> web.StreamResponse:
        """OK, and the API version to use."""
        headers = {"Api-Version": information.API_VERSION, "Ostype": "linux"}
        body = b"" if call.request.method == "HEAD" else b"OK"
        return web.Response(body=body, headers={**headers, "Content-Type": "text/plain"})

    async def info(self, call: Call) -> web.StreamResponse:
        """`docker info`."""
        return as_json(information.info(call.cluster, call.cluster.clock.now()))

    async def version(self, call: Call) -> web.StreamResponse:
        """`docker version`."""
        return as_json(information.version())

    async def not_offered(self, call: Call) -> web.StreamResponse:
        """What a cluster cannot do."""
        raise Refusal(501, "Not supported in clustering mode.")

    async def events(self, call: Call) -> web.StreamResponse:
        """Events of all engines from now until `until`, or until the client goes."""
        seconds = _seconds_left(call)
        filters = call.filters()
        response = await streaming(call.request)
        channel, leave = call.cluster.listen()
        connection = call.request.protocol
        if isinstance(connection, Handler):
            connection.lost_callbacks.append(channel.close)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    event = await channel.get()
                    kinds = filters.get("type")
                    if not kinds or event.message.get("Type") in kinds:
                        await response.write(event_line(event))
        except (TimeoutError, ChannelClosed, ConnectionError):
            # The time is over, or the client is gone: then there is nobody to write to.
            with contextlib.suppress(ConnectionError):
                await response.write_eof()
            return response
        finally:
            leave()


def _seconds_left(call: Call) -> float | None:
    text = call.query.get("until", "")
    if not text:
        return None
    try:
        return max(0.0, float(text) - call.cluster.clock.now())
    except ValueError as error:
        raise bad_request(f"invalid until: {text}") from error


def event_line(event: ClusterEvent) -> bytes:
    """An engine's event with the node it comes from."""
    engine, message = event.engine, event.message
    actor = message.get("Actor") or {}
    node = {"Name": engine.name, "Id": engine.id, "Addr": engine.address, "Ip": engine.ip}
    attributes = {
        **(actor.get("Attributes") or {}),
        **{f"node.{key.lower()}": value for key, value in node.items()},
    }
    told = {
        **message,
        "from": f"{message.get('from') or ''} node:{engine.name}",
        "Actor": {**actor, "Attributes": attributes},
        "node": node,
    }
    return (json.dumps(told) + "\n").encode()
