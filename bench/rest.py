"""The REST API over its unix socket: blocking, one connection per client, for measurements.

Nothing here is measured itself: `timed` reads the clock right around one request on a connection
that is open already.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from types import TracebackType
from typing import Any, Self

REQUEST_SECONDS_MAX = 120.0


class Refused(RuntimeError):
    """The server answered with a status of 400 or more; the text says what and why."""


class _Unix(http.client.HTTPConnection):
    """An HTTP connection to a path instead of an address."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("bench", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Rest:
    """One keep-alive client. Use as a context manager."""

    def __init__(self, path: str, timeout: float = REQUEST_SECONDS_MAX) -> None:
        self._connection = _Unix(path, timeout)

    def __enter__(self) -> Self:
        self._connection.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """The decoded answer (None when empty). Raises `Refused`, `OSError`."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data is not None else {}
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {text.decode(errors='replace')[:300]}")
        return json.loads(text) if text.strip() else None

    def timed(self, method: str, path: str, body: object | None = None) -> tuple[float, Any]:
        """Seconds from the first byte sent to the last byte received, and the answer."""
        self.call("HEAD", "/_ping")  # afterwards the connection is open and idle
        begun = time.perf_counter()
        answer = self.call(method, path, body)
        return time.perf_counter() - begun, answer


def answers(path: str, within: float) -> bool:
    """Whether the API answers a ping within so many seconds; looks every 2 ms."""
    end = time.perf_counter() + within
    while True:
        probe = _Unix(path, 5)
        try:
            probe.request("GET", "/_ping")
            return probe.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            if time.perf_counter() > end:
                return False
        finally:
            probe.close()
        time.sleep(0.002)
