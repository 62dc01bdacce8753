"""GET /events: this node's cluster events and, beside them, the engine's own."""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import urlencode

from aiohttp import web
from multidict import CIMultiDict

from swarmd.base.aio import Channel, ChannelClosed, Tasks
from swarmd.faces.engineapi.call import STRICT_SINCE, Call, encode_json
from swarmd.faces.engineapi.context import Context
from swarmd.faces.engineapi.convert.common import Json
from swarmd.faces.engineapi.engine import Connection, EngineLink
from swarmd.faces.engineapi.errors import Refusal, bad_request
from swarmd.faces.engineapi.filters import Filters
from swarmd.faces.engineapi.routes import Table
from swarmd.faces.engineapi.timestamps import unix_nanos
from swarmd.faces.http.hijack import Handler

logger = logging.getLogger("engineapi")

_NAMED = ("daemon", "container", "plugin", "volume", "network", "node", "service", "secret")
_JSON_LINES_SINCE = (1, 52)
_BAD_RANGE = "`since` time ({since}) cannot be after `until` time ({until})"
_SEQUENCE = "application/json-seq"
_AROUND = b"\x1e \r"
_Past: TypeAlias = tuple[int, bytes]
_Stream: TypeAlias = tuple[Connection, Any]
_STREAM_TYPES = ("application/jsonl", "application/x-ndjson", _SEQUENCE)


def includes(filters: Filters, event: Mapping[str, Any]) -> bool:
    """Whether a cluster event passes the filters of GET /events (moby events/filter.go)."""
    actor = event["Actor"]
    id, attributes = actor["ID"], actor["Attributes"]
    if not (
        filters.exact("event", event["Action"])
        and filters.exact("type", event["Type"])
        and filters.exact("scope", event["scope"])
        and filters.has_labels("label", attributes)
    ):
        return False
    name = attributes.get("name", "")
    if not all(
        filters.fuzzy(kind, id) or filters.fuzzy(kind, name) for kind in (*_NAMED, "config")
    ):
        return False
    return filters.exact("image", id) or filters.exact("image", attributes.get("image", ""))


async def events(context: Context, call: Call) -> web.StreamResponse:
    """Past events from `since` on, then new ones, until `until` or the client goes."""
    filters = call.filters()
    since, end = _time(call, "since"), _time(call, "until")
    if end is not None and since is not None and end < since:
        raise bad_request(_BAD_RANGE.format(since=call.query["since"], until=call.query["until"]))
    now = int(context.clock.now() * 1e9)
    link = None if filters.get("scope") == ["swarm"] else context.engine
    response, mark = _response(call)
    # Listening starts before the past is read, so nothing falls in between.
    with context.events.listen() as channel:
        own = [] if since is None and end is None else context.events.past(since or 0, end)
        ours = [_past(encode_json(event)) for event in own if includes(filters, event)]
        theirs, engine = await _engine_side(link, call, since, end, now)
        try:
            await response.prepare(call.request)
            out = _Output(response, mark)
            # Each side has an order, which may not be that of its times: it is kept.
            for _, line in heapq.merge(ours, theirs, key=lambda event: event[0]):
                await out.line(line)
            left = None if end is None else max(0.0, (end - now) / 1e9)
            await _stream(call, out, filters, channel, engine, left)
            await response.write_eof()
        except OSError:
            # The client is gone.
            response.force_close()
        finally:
            if engine is not None:
                await engine[0].close()
    return response


def _time(call: Call, name: str) -> int | None:
    text = call.query.get(name, "")
    if not text:
        return None
    try:
        return unix_nanos(text)
    except ValueError as error:
        if call.version < STRICT_SINCE:
            quoted = json.dumps(text.partition(".")[0], ensure_ascii=False)
            raise Refusal(500, f"strconv.ParseInt: parsing {quoted}: invalid syntax") from None
        raise bad_request(f"invalid value for '{name}': {error}") from None


def _response(call: Call) -> tuple[web.StreamResponse, bytes]:
    kind = "application/jsonl" if call.version >= _JSON_LINES_SINCE else "application/json"
    accepted = [
        part.split(";")[0].strip() for part in call.request.headers.get("Accept", "").split(",")
    ]
    kind = next((wanted for wanted in accepted if wanted in _STREAM_TYPES), kind)
    headers = CIMultiDict(call.replies.common)
    headers["Content-Type"] = kind
    response = web.StreamResponse(headers=headers)
    if call.request.version >= (1, 1):
        response.enable_chunked_encoding()
    return response, b"\x1e" if kind == _SEQUENCE else b""


class _Output:
    """Writes whole events, one after the other, from whichever side they come."""

    def __init__(self, response: web.StreamResponse, mark: bytes) -> None:
        self._response = response
        self._mark = mark

    async def event(self, event: Json) -> None:
        await self.line(encode_json(event))

    async def line(self, line: bytes) -> None:
        # One write each: lines of both sides must not mix.
        await self._response.write(self._mark + line)


def _past(line: bytes) -> _Past:
    return int(json.loads(line).get("timeNano") or 0), line


async def _engine_side(
    link: EngineLink | None, call: Call, since: int | None, end: int | None, now: int
) -> tuple[list[_Past], _Stream | None]:
    """What the engine knows of the past, whole, and its stream of what is to come."""
    if link is None:
        return [], None
    if since is None and end is None:
        return [], await _engine_events(link, call.request.raw_path)
    begin, over = since or 0, now if end is None else min(end, now)
    past = [] if begin > over else await _engine_past(link, call, begin, over)
    if end is not None and end <= now:
        return past, None
    target = _target(call, since=max(begin, now + 1), until=end)
    return past, await _engine_events(link, target)


async def _engine_past(link: EngineLink, call: Call, since: int, end: int) -> list[_Past]:
    head, data = await link.call("GET", _target(call, since=since, until=end))
    if head.status >= 400:
        link.decode(head, data)
    lines = (line.strip(_AROUND) for line in data.split(b"\n"))
    return [_past(line + b"\n") for line in lines if line]


def _target(call: Call, *, since: int, until: int | None) -> str:
    """The same question about another time."""
    query = {"since": _seconds(since)}
    if until is not None:
        query["until"] = _seconds(until)
    if "filters" in call.query:
        query["filters"] = call.query["filters"]
    return f"/v{call.version[0]}.{call.version[1]}/events?{urlencode(query)}"


def _seconds(nanos: int) -> str:
    return f"{nanos // 1_000_000_000}.{nanos % 1_000_000_000:09d}"


async def _engine_events(link: EngineLink, target: str) -> _Stream:
    """The engine's own stream, already answered with success."""
    connection = await link.open()
    try:
        headers = [("Host", "docker"), ("Connection", "close"), ("Accept", "application/json")]
        connection.send_head("GET", target, headers)
        head = await connection.head()
        if head.status >= 400:
            data = b"".join([piece async for piece in connection.body(head)])
            link.decode(head, data)
    except (OSError, Refusal):
        await connection.close()
        raise
    return connection, head


async def _stream(
    call: Call,
    out: _Output,
    filters: Filters,
    channel: Channel[Json],
    engine: _Stream | None,
    seconds: float | None,
) -> None:
    lost = asyncio.Event()
    handler = call.request.protocol
    if isinstance(handler, Handler):
        handler.lost_callbacks.append(lost.set)
    try:
        async with Tasks() as tasks:
            work = [tasks.spawn(_own(out, filters, channel), "events-own")]
            if engine is not None:
                work.append(tasks.spawn(_engines(out, *engine), "events-engine"))
            # Either side's end is the end: the client reconnects and sees both again.
            over = tasks.spawn(lost.wait(), "events-lost")
            await asyncio.wait({*work, over}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    except* OSError as group:
        logger.debug("an event stream broke: %s", group.exceptions[0])
    finally:
        if isinstance(handler, Handler) and lost.set in handler.lost_callbacks:
            handler.lost_callbacks.remove(lost.set)


async def _own(out: _Output, filters: Filters, channel: Channel[Json]) -> None:
    while True:
        try:
            event = await channel.get()
        except ChannelClosed:
            return
        if includes(filters, event):
            await out.event(event)


async def _engines(out: _Output, connection: Connection, head: Any) -> None:
    kept = b""
    async for piece in connection.body(head):
        *lines, kept = (kept + piece).split(b"\n")
        for line in lines:
            if line.strip(_AROUND):
                await out.line(line.lstrip(b"\x1e") + b"\n")


ROUTES: Table = {("GET", "/events"): events}
