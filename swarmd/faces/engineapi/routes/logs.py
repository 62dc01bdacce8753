"""GET /services/{id}/logs and /tasks/{id}/logs: lines of many tasks in one stream."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import quote_plus

from aiohttp import web
from multidict import CIMultiDict

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.errors import SwarmError
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context
from swarmd.faces.engineapi.convert.common import time_text
from swarmd.faces.engineapi.errors import Refusal, bad_request, rpc_text
from swarmd.faces.engineapi.lookups import SERVICE, TASK, find
from swarmd.faces.engineapi.routes import Table
from swarmd.faces.engineapi.timestamps import unix_nanos
from swarmd.faces.http.hijack import Handler

_CONTENT_TYPE_SINCE = (1, 42)
_PREFIX = "com.docker.swarm"
_SYSTEM_ERROR = 3
_FRAME = struct.Struct(">BxxxI")


async def service_logs(context: Context, call: Call) -> web.StreamResponse:
    """What the tasks of one service print."""
    options = _options(call)
    service = await find(context.control(), SERVICE, call.ident)
    selector = api.LogSelector(service_ids=[service.id])
    return await _stream(context, call, selector, options, service.spec.task)


async def task_logs(context: Context, call: Call) -> web.StreamResponse:
    """What one task prints."""
    options = _options(call)
    task = await find(context.control(), TASK, call.ident)
    return await _stream(context, call, api.LogSelector(task_ids=[task.id]), options, task.spec)


def _options(call: Call) -> api.LogSubscriptionOptions:
    options = api.LogSubscriptionOptions(follow=call.flag("follow"))
    if call.flag("stdout"):
        options.streams.append(api.LogStream.LOG_STREAM_STDOUT)
    if call.flag("stderr"):
        options.streams.append(api.LogStream.LOG_STREAM_STDERR)
    if not options.streams:
        raise Refusal(500, "Bad parameters: you must choose at least one stream")
    options.tail = _tail(call.query.get("tail", ""))
    since = call.query.get("since", "")
    if since:
        try:
            nanos = unix_nanos(since)
        except ValueError as error:
            raise bad_request(f'invalid value for "since": {error}') from None
        if nanos:
            options.since.seconds, options.since.nanos = divmod(nanos, 1_000_000_000)
    return options


def _tail(text: str) -> int:
    # Managers count backwards from -1, which means nothing; 0 means everything.
    if text in ("", "all"):
        return 0
    try:
        lines = int(text)
    except ValueError:
        raise Refusal(500, 'tail value must be a positive integer or "all"') from None
    if lines < 0:
        raise Refusal(500, "negative tail values not supported")
    return -(lines + 1)


async def _stream(
    context: Context,
    call: Call,
    selector: api.LogSelector,
    options: api.LogSubscriptionOptions,
    spec: api.TaskSpec,
) -> web.StreamResponse:
    if not spec.HasField("container"):
        raise Refusal(500, "error making log selector: logs only supported on container tasks")
    tty = spec.container.tty
    request = api.SubscribeLogsRequest(selector=selector, options=options)
    messages = context.control().server_stream("Logs/SubscribeLogs", request)
    headers = CIMultiDict(call.replies.common)
    if call.version >= _CONTENT_TYPE_SINCE:
        kind = "raw" if tty else "multiplexed"
        headers["Content-Type"] = f"application/vnd.docker.{kind}-stream"
    response = web.StreamResponse(headers=headers)
    if call.request.version >= (1, 1):
        response.enable_chunked_encoding()
    await response.prepare(call.request)
    lost = asyncio.Event()
    handler = call.request.protocol
    if isinstance(handler, Handler):
        handler.lost_callbacks.append(lost.set)
    try:
        async with Tasks() as tasks:
            work = tasks.spawn(_copy(call, response, messages, tty), "logs")
            over = tasks.spawn(lost.wait(), "logs-lost")
            await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        await response.write_eof()
    except OSError:
        response.force_close()
    finally:
        if isinstance(handler, Handler) and lost.set in handler.lost_callbacks:
            handler.lost_callbacks.remove(lost.set)
    return response


async def _copy(
    call: Call, response: web.StreamResponse, messages: AsyncIterator[Any], tty: bool
) -> None:
    details, timestamps = call.flag("details"), call.flag("timestamps")
    try:
        async with aclosing(_as_generator(messages)) as stream:
            async for batch in stream:
                for message in batch.messages:
                    line = log_line(message, details=details, timestamps=timestamps)
                    await response.write(line if tty else _framed(message.stream, line))
    except SwarmError as error:
        # The head is sent: what went wrong can only be told in the stream.
        line = f"Error grabbing logs: {rpc_text(error)}\n".encode()
        await _last_words(response, line if tty else _framed(_SYSTEM_ERROR, line))
    except OSError:
        # The client is gone.
        return


async def _last_words(response: web.StreamResponse, line: bytes) -> None:
    try:
        await response.write(line)
    except OSError:
        return


async def _as_generator(messages: AsyncIterator[Any]) -> Any:
    async for message in messages:
        yield message


def _framed(stream: int, line: bytes) -> bytes:
    return _FRAME.pack(stream, len(line)) + line


def log_line(message: api.LogMessage, *, details: bool, timestamps: bool) -> bytes:
    """One line with its time and details before it, as `docker service logs` reads it."""
    out = b""
    if timestamps:
        stamp = time_text(message.timestamp)
        # Always nine digits here.
        out = f"{stamp[:19]}.{message.timestamp.nanos:09d}Z ".encode()
    if details:
        where = message.context
        pairs = {attr.key: attr.value for attr in message.attrs}
        pairs |= {
            f"{_PREFIX}.node.id": where.node_id,
            f"{_PREFIX}.service.id": where.service_id,
            f"{_PREFIX}.task.id": where.task_id,
        }
        shown = (f"{quote_plus(key)}={quote_plus(pairs[key])}" for key in sorted(pairs))
        out += ",".join(shown).encode() + b" "
    return out + message.data


ROUTES: Table = {
    ("GET", "/services/*/logs"): service_logs,
    ("GET", "/tasks/*/logs"): task_logs,
}
