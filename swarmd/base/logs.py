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


def mask(text: str) -> str:
    """Replace join tokens, unlock keys and private keys by a fixed mark."""
    return _SECRET.sub("[redacted]", text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{stamp} {record.levelname.lower():7} {record.name}: {record.getMessage()}"
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
