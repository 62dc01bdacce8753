"""A closed-loop load generator for HTTP over a unix socket; raw enough not to be the limit.

Each connection sends its next request when the last answer is complete. Requests are ready-made
bytes, handed out from one list, so every request is sent exactly once.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of one load: seconds for all, seconds of each, and how many were refused."""

    wall: float
    latencies: list[float]
    refused: int
    sample: str

    @property
    def per_second(self) -> float:
        """Completed requests per second."""
        return len(self.latencies) / self.wall

    def quantile(self, share: float) -> float:
        """Latency in milliseconds below which `share` of the requests lie."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


def request(method: str, path: str, body: object | None = None) -> bytes:
    """One HTTP/1.1 request as bytes."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(data)}\r\n"
    if data:
        head += "Content-Type: application/json\r\n"
    return head.encode() + b"\r\n" + data


class _Connection:
    """One keep-alive connection and the answer it waits for."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        self.buffer = b""
        self.begun = 0.0

    def send(self, data: bytes) -> None:
        self.begun = time.perf_counter()
        self.sock.sendall(data)

    def receive(self) -> tuple[int, bytes] | None:
        """Status and body once the answer is complete."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            if not rest.endswith(b"0\r\n\r\n"):
                return None
            body = rest
        else:
            size = 0
            mark = lower.find(b"content-length:")
            if mark >= 0:
                size = int(lower[mark + 15 :].split(b"\r\n", 1)[0])
            if len(rest) < size:
                return None
            body = rest[:size]
        self.buffer = b""
        return int(head.split(b" ", 2)[1]), body


def run(
    paths: Sequence[str], requests: Sequence[bytes], connections: int, limit: float = 120
) -> Result:
    """Send every request once over `connections` connections; at most `limit` seconds.

    Connections take turns among the sockets `paths` and are open before the clock starts.
    Raises `ConnectionError` when one is closed by the server.
    """
    waiting = iter(requests)
    latencies: list[float] = []
    refused, sample, active = 0, "", 0
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        count = min(connections, len(requests))
        opened = [_Connection(paths[number % len(paths)]) for number in range(count)]
        for connection in opened:
            stack.callback(connection.sock.close)
            selector.register(connection.sock, selectors.EVENT_READ, connection)
        begun = time.perf_counter()
        for connection, data in zip(opened, waiting, strict=False):
            connection.send(data)
            active += 1
        while active and time.perf_counter() - begun < limit:
            for key, _ in selector.select(1):
                connection = key.data
                answer = connection.receive()
                if answer is None:
                    continue
                latencies.append(time.perf_counter() - connection.begun)
                if answer[0] >= 400:
                    refused += 1
                    sample = answer[1].decode(errors="replace")[:200]
                following = next(waiting, None)
                if following is None:
                    selector.unregister(connection.sock)
                    active -= 1
                else:
                    connection.send(following)
        return Result(time.perf_counter() - begun, latencies, refused, sample)
