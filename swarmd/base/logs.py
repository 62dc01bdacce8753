"""One log set-up: text or JSON lines on standard error, with secrets masked.

The mask is the last fence, not the first: no room may hand a token or key to a logger.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warn", "error", "fatal")
_SECRET = re.compile(
    r"SWM(?:TKN|KEY)-[0-9]-[0-9A-Za-z+/-]+|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END|$)",
    re.S,
)


# What would begin a line of its own, or steer a terminal; peers have a say in many messages.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """The text with control characters written out: no peer makes log lines of its own."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def mask(text: str) -> str:
    """Replace join tokens, unlock keys and private keys by a fixed mark."""
    return _SECRET.sub("[redacted]", text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        message = one_line(record.getMessage())
        line = f"{stamp} {record.levelname.lower():7} {record.name}: {message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return mask(line)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "room": record.name,
            "message": mask(record.getMessage()),
        }
        if record.exc_info:
            entry["error"] = mask(self.formatException(record.exc_info))
        return json.dumps(entry)


def setup(level: str, style: str) -> None:
    """Send all logs to standard error. `level` is one of LEVELS, `style` "text" or "json"."""
    names = {"warn": "WARNING", "fatal": "CRITICAL"}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(names.get(level, level.upper()))
    for noisy in ("asyncio", "aiohttp.access", "grpc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
