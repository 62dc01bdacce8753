"""Requests to one engine, with the API version both sides speak."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

from swarmd.faces.http.link import Connection, Head, TcpLink
from swarmd.faces.http.refusal import Refusal

# What we and our clients speak (the reference's); older engines lower it for themselves.
API_VERSION = (1, 40)
# One event, and the lines of a pull, are far below this.
_line_bytes_max = 1 << 22


class EngineCalls:
    """What is asked of an engine. Everything raises `Refusal`; `Unreachable` when it is gone."""

    def __init__(self, address: str, context: ssl.SSLContext | None) -> None:
        self.link = TcpLink(address, "the engine", context)
        self.version = API_VERSION

    def negotiate(self, newest: str, oldest: str) -> None:
        """Settle on a version the engine takes, from its /version."""
        ours = min(API_VERSION, _version(newest) or API_VERSION)
        self.version = max(ours, _version(oldest) or ours)

    def target(self, path: str, **query: Any) -> str:
        """`path` with the version in front and a query behind; values None are left out."""
        pairs = {key: _plain(value) for key, value in query.items() if value is not None}
        tail = f"?{urlencode(pairs)}" if pairs else ""
        return f"/v{self.version[0]}.{self.version[1]}{path}{tail}"

    async def get(self, path: str, **query: Any) -> Any:
        """GET, decoded."""
        return self.link.decode(*await self.link.call("GET", self.target(path, **query)))

    async def post(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, **query: Any
    ) -> Any:
        """POST JSON, decoded."""
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "application/json"
        head, answer = await self.link.call(
            "POST", self.target(path, **query), data, kind, headers=headers
        )
        return self.link.decode(head, answer)

    async def delete(self, path: str, **query: Any) -> Any:
        """DELETE, decoded."""
        return self.link.decode(*await self.link.call("DELETE", self.target(path, **query)))

    async def lines(
        self, method: str, target: str, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """A reply that is a stream of JSON objects, one by one as they come.

        Raises `Unreachable` when it cannot begin or breaks; ends when the engine ends it.
        """
        connection = await self.link.open()
        try:
            self._send(connection, method, target, headers or {})
            async for line in self.answer_lines(connection):
                yield line
        finally:
            await connection.close()

    async def answer_lines(self, connection: Connection) -> AsyncGenerator[dict[str, Any], None]:
        """The reply on a connection where the request was sent, as a stream of JSON objects.

        Raises `Refusal`; `Unreachable` when it breaks.
        """
        try:
            head = await connection.head()
            if head.status >= 400:
                data = b"".join([piece async for piece in connection.body(head)])
                self.link.decode(head, data)
            async for line in _split(connection, head):
                yield line
        except (OSError, EOFError) as error:
            raise self.link.gone(str(error)) from error

    def _send(
        self, connection: Connection, method: str, target: str, headers: dict[str, str]
    ) -> None:
        fields = [("Host", self.link.host), ("User-Agent", "swarm"), *headers.items()]
        if method == "POST":
            fields.append(("Content-Length", "0"))
        connection.send_head(method, target, fields)


async def _split(connection: Connection, head: Head) -> AsyncIterator[dict[str, Any]]:
    """JSON objects out of a body; they may or may not have line ends between them."""
    decoder = json.JSONDecoder()
    text, pending = "", b""
    async for piece in connection.body(head):
        pending += piece
        # A piece may end in the middle of a character: what is not whole waits.
        whole = _whole(pending)
        text, pending = text + pending[:whole].decode("utf-8", "replace"), pending[whole:]
        while text := text.lstrip():
            try:
                value, end = decoder.raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            if isinstance(value, dict):
                yield value
        if len(text) > _line_bytes_max:
            raise Refusal(502, "an engine's stream is no JSON")


def _whole(data: bytes) -> int:
    """Length of `data` without an unfinished character at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needed > back else len(data)
    return len(data)


def segment(text: str) -> str:
    """A name or id as one segment of a path."""
    return quote(text, safe="")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, dict | list):
        return json.dumps(value)
    return str(value)


def _version(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
