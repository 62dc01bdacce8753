"""JSON of requests, with the error texts of the decoder that stock engines use."""

from __future__ import annotations

import json
from typing import Any

from swarmd.faces.engineapi.errors import bad_request

_decode_first = json.JSONDecoder().raw_decode


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters."""
    return content_type.split(";", 1)[0].strip().lower()


def decode_json(body: bytes, *, strict: bool) -> Any:
    """The value of a request body. Raises a 400 `Refusal`.

    Engines before 23.0 (not `strict`) read one value and ignore what follows it.
    """
    if not body.strip():
        raise bad_request("got EOF while reading request body")
    begin = "invalid JSON: " if strict else ""
    try:
        if strict:
            return json.loads(body)
        return _decode_first(body.decode("utf-8", "replace").lstrip(" \t\r\n"))[0]
    except UnicodeDecodeError:
        raise bad_request("invalid JSON: invalid UTF-8 in request body") from None
    except json.JSONDecodeError as error:
        raise bad_request(f"{begin}{_body_trouble(error)}") from None


def _body_trouble(error: json.JSONDecodeError) -> str:
    if _at_end(error):
        return "unexpected EOF"
    if error.msg == "Extra data":
        return "unexpected content after JSON"
    return _bad_character(error)


def value_trouble(error: json.JSONDecodeError) -> str:
    """What is wrong with JSON that is a whole value of its own, as a query's is."""
    if _at_end(error):
        return "unexpected end of JSON input"
    if error.msg == "Extra data":
        return f"invalid character {error.doc[error.pos]!r} after top-level value"
    return _bad_character(error)


def _at_end(error: json.JSONDecodeError) -> bool:
    return error.pos >= len(error.doc.rstrip())


def _bad_character(error: json.JSONDecodeError) -> str:
    return f"invalid character {error.doc[error.pos]!r} looking for beginning of value"
