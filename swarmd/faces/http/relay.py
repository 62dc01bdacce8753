"""A request goes to an engine and its answer comes back unchanged.

Bodies are streamed both ways at the same time (a build answers while its context is still being
sent). Requests that ask for an upgrade, or whose answer has no frame on a path known to turn
raw, are joined to the engine by `hijack`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import CIMultiDict

from swarmd.base.aio import Tasks
from swarmd.faces.http import hijack
from swarmd.faces.http.link import Connection, Head, Link
from swarmd.faces.http.refusal import Refusal

# Framing belongs to each connection; the rest is passed on.
_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection", "te"}
)
_REQUEST_DROPPED = _HOP_HEADERS | {"content-length", "expect"}


async def say_continue(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`: the client holds its body back until then."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The interim head is not part of the reply's size.
        request.writer.output_size = 0


OnHead = Callable[[Head], Awaitable[None]]


async def relay(
    request: web.BaseRequest,
    link: Link,
    body: bytes | None = None,
    target: str = "",
    on_head: OnHead | None = None,
) -> web.StreamResponse:
    """Have the engine answer `request`, whose `body` may have been read already.

    `target` is what to ask for instead of the request's own path and query; `on_head` is
    awaited once the engine has answered and before the client hears of it. Raises a `Refusal`
    when the engine cannot be reached.
    """
    engine = await link.open()
    handler = request.protocol
    if isinstance(handler, hijack.Handler):
        handler.lost_callbacks.append(engine.abort)
    joined = False
    try:
        raw = _may_turn_raw(request)
        if raw and body is None:
            body = await request.read()
        _send_head(request, engine, None if body is None else len(body), target)
        if body:
            engine.writer.write(body)
        outcome = await _exchange(request, engine, raw, body is None, on_head)
        if isinstance(outcome, web.StreamResponse):
            return outcome
        joined = True
    finally:
        if isinstance(handler, hijack.Handler) and engine.abort in handler.lost_callbacks:
            handler.lost_callbacks.remove(engine.abort)
        if not joined:
            await engine.close()
    return await hijack.join(request, engine, outcome)


async def _exchange(
    request: web.BaseRequest,
    engine: Connection,
    raw: bool,
    send_body: bool,
    on_head: OnHead | None,
) -> web.StreamResponse | Head:
    """Send the body while the answer is read: the finished answer, or the head of a raw stream."""
    trouble: Exception
    async with Tasks() as tasks:
        if send_body:
            tasks.spawn(_send_body(request, engine), "relay-body")
        # Caught inside: what leaves a task group comes out as a group.
        try:
            head = await engine.head()
            if raw and _is_raw(head):
                return head
            if on_head is not None:
                await on_head(head)
            return await _answer(request, engine, head)
        except Refusal as error:
            trouble = error
        except OSError as error:
            trouble = Refusal(502, f"{engine.noun} broke off: {error}")
    raise trouble


def _may_turn_raw(request: web.BaseRequest) -> bool:
    if "Upgrade" in request.headers:
        return True
    # Old clients attach without asking for an upgrade.
    path = request.path
    if request.method != "POST":
        return False
    return path.endswith("/attach") or ("/exec/" in path and path.endswith("/start"))


def _is_raw(head: Head) -> bool:
    return head.status == 101 or (head.status == 200 and not head.chunked and head.length is None)


def _send_head(
    request: web.BaseRequest, engine: Connection, length: int | None, target: str
) -> None:
    headers = [
        (key, value)
        for key, value in request.headers.items()
        if key.lower() not in _REQUEST_DROPPED
    ]
    if "Host" not in request.headers:
        headers.append(("Host", "docker"))
    upgrade = request.headers.get("Upgrade")
    if upgrade is not None:
        headers += [("Connection", "Upgrade"), ("Upgrade", upgrade)]
    else:
        headers.append(("Connection", "close"))
    if length is None:
        length = request.content_length
    if length is not None:
        headers.append(("Content-Length", str(length)))
    elif request.can_read_body:
        headers.append(("Transfer-Encoding", "chunked"))
    elif request.method == "POST":
        headers.append(("Content-Length", "0"))
    engine.send_head(request.method, target or request.raw_path, headers)


async def _send_body(request: web.BaseRequest, engine: Connection) -> None:
    if not request.can_read_body:
        return
    framed = request.content_length is None
    await say_continue(request)
    try:
        async for piece in request.content.iter_any():
            if framed:
                engine.writer.write(b"%x\r\n" % len(piece))
                engine.writer.write(piece)
                engine.writer.write(b"\r\n")
            else:
                engine.writer.write(piece)
            await engine.writer.drain()
        if framed:
            engine.writer.write(b"0\r\n\r\n")
            await engine.writer.drain()
    except OSError:
        # The engine closed early; it may have answered, so the reader decides.
        return
    except web.RequestPayloadError:
        # The client went away in the middle of its body.
        engine.abort()


class _Relayed(web.StreamResponse):
    """An answer that names the program that made it, or none: not the one that passes it on."""

    async def _prepare_headers(self) -> None:
        named = "Server" in self.headers
        await super()._prepare_headers()
        if not named:
            del self.headers["Server"]


async def _answer(request: web.BaseRequest, engine: Connection, head: Head) -> web.StreamResponse:
    headers: CIMultiDict[str] = CIMultiDict()
    for key, value in head.headers:
        if key.lower() not in _HOP_HEADERS:
            headers.add(key, value)
    response = _Relayed(status=head.status, reason=head.reason, headers=headers)
    empty = request.method == "HEAD"
    if head.length is None and not empty and head.status not in (204, 304):
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for piece in engine.body(head, empty=empty):
            await response.write(piece)
        await response.write_eof()
    except OSError:
        # Too late for an error reply: an unfinished body tells the client.
        response.force_close()
        if request.transport is not None:
            request.transport.abort()
    return response
