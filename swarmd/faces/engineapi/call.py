"""One request on its way to a route, and the replies a route can make."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import CIMultiDict

from swarmd.faces.engineapi.convert.fields import Fields, fields_of
from swarmd.faces.engineapi.errors import Refusal, bad_request
from swarmd.faces.engineapi.filters import Filters
from swarmd.faces.engineapi.jsonbody import decode_json, media_type
from swarmd.faces.http.ready import Heads, Ready
from swarmd.faces.http.relay import say_continue

# Request bodies the cluster itself reads: configs carry 1,000 KiB as base64.
body_bytes_max = 4 << 20
# Engine 23.0, from which on requests are read strictly. Those before read any body as JSON, as
# far as its first value goes; scripts of their time (`curl -d`) say nothing of JSON.
STRICT_SINCE = (1, 42)

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_FALSE = ("", "0", "no", "false", "none")


def encode_json(value: Any) -> bytes:
    """Compact JSON with the line end Go's encoder adds."""
    return (_encode(value) + "\n").encode("utf-8", "surrogatepass")


class Replies:
    """Makes replies with the headers every one of them carries."""

    def __init__(self, server: str, api_version: str, os_type: str, experimental: str) -> None:
        self.common: CIMultiDict[str] = CIMultiDict(
            {
                "Api-Version": api_version,
                "Docker-Experimental": experimental,
                "Ostype": os_type,
                "Server": server,
            }
        )
        self._empty = Heads(self.common)
        self._json = Heads({**self.common, "Content-Type": "application/json"})

    def json(self, value: Any, status: int = 200) -> web.StreamResponse:
        """`value` as JSON."""
        return Ready(self._json, encode_json(value), status)

    def empty(self, status: int = 200) -> web.StreamResponse:
        """No body."""
        return Ready(self._empty, b"", status)

    def text(self, body: bytes, status: int = 200) -> web.Response:
        """Plain text."""
        headers = CIMultiDict(self.common)
        headers["Content-Type"] = "text/plain; charset=utf-8"
        return web.Response(body=body, status=status, headers=headers)

    def error(self, status: int, message: str) -> web.StreamResponse:
        """The JSON every error comes as."""
        return self.json({"message": message}, status)


class Call:
    """A request with its path taken apart. `ident` is the decoded id segment, if any."""

    __slots__ = ("_query", "ident", "path", "query_text", "replies", "request", "version")

    def __init__(
        self,
        request: web.BaseRequest,
        path: str,
        query_text: str,
        version: tuple[int, int],
        replies: Replies,
    ) -> None:
        self.request = request
        self.path = path
        self.query_text = query_text
        self.version = version
        self.replies = replies
        self.ident = ""
        self._query: dict[str, str] | None = None

    @property
    def query(self) -> dict[str, str]:
        """Query values by name; the first counts, as in Go."""
        if self._query is None:
            out: dict[str, str] = {}
            text = self.query_text
            if text and "%" not in text and "+" not in text:
                # Most queries are plain: a fifth of the cost of parse_qsl.
                for item in text.split("&"):
                    key, _, value = item.partition("=")
                    out.setdefault(key, value)
            elif text:
                for key, value in parse_qsl(text, keep_blank_values=True):
                    out.setdefault(key, value)
            self._query = out
        return self._query

    def flag(self, name: str) -> bool:
        """A form boolean: everything but an empty value, 0, no, false, none is true."""
        return self.query.get(name, "").strip().lower() not in _FALSE

    def strict_flag(self, name: str) -> bool | None:
        """A boolean as Go's ParseBool reads it, None when absent or empty; ValueError else."""
        value = self.query.get(name, "")
        if not value:
            return None
        if value in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        if value in ("0", "f", "F", "false", "FALSE", "False"):
            return False
        raise ValueError(value)

    def checked_flag(self, name: str) -> bool:
        """A boolean as above, absent is false; anything else is refused in Go's words."""
        try:
            return self.strict_flag(name) is True
        except ValueError as error:
            quoted = json.dumps(str(error))
            why = f"strconv.ParseBool: parsing {quoted}: invalid syntax"
            raise bad_request(f"invalid value for {name}: {error}: {why}") from None

    def object_version(self, noun: str) -> int:
        """The `version` query value: the object version a change is based on."""
        text = self.query.get("version", "")
        if text.isascii() and text.isdigit():
            number = int(text)
            if number < 1 << 64:
                return number
            why = "value out of range"
        else:
            why = "invalid syntax"
        quoted = json.dumps(text)
        raise bad_request(
            f"invalid {noun} version '{text}': strconv.ParseUint: parsing {quoted}: {why}"
        )

    def filters(self, *, old_status: int = 500) -> Filters:
        """The `filters` query value; `old_status` is what engines before 23.0 refuse junk with."""
        old = self.version < STRICT_SINCE
        return Filters.parse(self.query.get("filters", ""), old_status=old_status if old else None)

    async def fields(self, type_name: str) -> Fields:
        """The request body, which must be one JSON object. Raises a 400 `Refusal`.

        `type_name` is the Go type that a stock engine reads it into, for its error texts.
        """
        return fields_of(await self.body_json(), type_name)

    async def body_json(self) -> Any:
        """The request body decoded; old clients need not say that it is JSON."""
        content_type = self.request.headers.get("Content-Type", "")
        body = await self.body()
        strict = self.version >= STRICT_SINCE
        if strict and (content_type or body):
            kind = media_type(content_type)
            if not kind:
                raise bad_request("malformed Content-Type header (): mime: no media type")
            if kind != "application/json":
                raise bad_request(
                    f"unsupported Content-Type header ({content_type}): must be 'application/json'"
                )
        return decode_json(body, strict=strict)

    def old_json_check(self) -> None:
        """What 20.10 checks before it creates networks, and for nothing else of the cluster."""
        content_type = self.request.headers.get("Content-Type", "")
        if self.version >= STRICT_SINCE or not self.request.can_read_body:
            return
        if media_type(content_type) != "application/json":
            raise bad_request(f"Content-Type specified ({content_type}) must be 'application/json'")

    async def body(self) -> bytes:
        """The raw request body. Raises a 400 `Refusal` above `body_bytes_max`."""
        await say_continue(self.request)
        try:
            return await self.request.read()
        except web.HTTPRequestEntityTooLarge:
            raise bad_request("http: request body too large") from None

    async def large_body(self, bytes_max: int) -> bytes:
        """A request body that may be larger than others. Raises a 413 `Refusal` above the limit."""
        await say_continue(self.request)
        pieces, size = [], 0
        async for piece in self.request.content.iter_any():
            size += len(piece)
            if size > bytes_max:
                raise Refusal(413, "http: request body too large")
            pieces.append(piece)
        return b"".join(pieces)
