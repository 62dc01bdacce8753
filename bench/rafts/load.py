"""Closed-loop clients over TCP, alike for every system: next write after the last answer."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

# Whether the bytes so far are a whole answer: True (done), False (refused), None (more to come).
Judge = Callable[[bytes], bool | None]
# The write with this number and so many bytes of value.
Request = Callable[[int, int], bytes]
KEYS = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """Where the clients connect, and the words they use there."""

    port: int
    request: Request
    judge: Judge


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds of every acknowledged write, in order of acknowledgement, and of the whole."""

    seconds: tuple[float, ...]
    wall: float

    @property
    def per_second(self) -> float:
        """Acknowledged writes per second."""
        return len(self.seconds) / self.wall

    def quantile(self, share: float) -> float:
        """Milliseconds below which `share` of the writes were acknowledged."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


class _Client:
    def __init__(self, target: Target) -> None:
        self.sock = socket.create_connection(("127.0.0.1", target.port), 30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.begun = 0.0

    def send(self, data: bytes) -> None:
        self.buffer = b""
        self.begun = time.perf_counter()
        self.sock.sendall(data)

    def receive(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the member hung up")
        self.buffer += data
        return self.buffer


def run(
    target: Target, clients: int, size: int, seconds: float, writes_max: int = 1 << 30
) -> Outcome:
    """Write for `seconds`, or `writes_max` writes. Raises `RuntimeError` for a refused write."""
    done: list[float] = []
    sent = 0
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(clients):
            client = _Client(target)
            stack.callback(client.sock.close)
            selector.register(client.sock, selectors.EVENT_READ, client)
        begun = time.perf_counter()
        for key in list(selector.get_map().values()):
            key.data.send(target.request(sent, size))
            sent += 1
        active = clients
        while active:
            ready = selector.select(30)
            if not ready:
                raise RuntimeError("no answer within 30 s")
            for key, _ in ready:
                client = key.data
                verdict = target.judge(client.receive())
                if verdict is None:
                    continue
                if not verdict:
                    raise RuntimeError(f"refused: {client.buffer[:200]!r}")
                now = time.perf_counter()
                done.append(now - client.begun)
                if now - begun < seconds and sent < writes_max:
                    client.send(target.request(sent, size))
                    sent += 1
                else:
                    active -= 1
        return Outcome(tuple(done), time.perf_counter() - begun)


def line_request(number: int, size: int) -> bytes:
    """One line: key and value."""
    return b"k%d %s\n" % (number % KEYS, value(number, size))


def line_judge(answer: bytes) -> bool | None:
    """One line: "ok" or why not."""
    return answer == b"ok\n" if answer.endswith(b"\n") else None


def value(number: int, size: int) -> bytes:
    """A value of exactly `size` bytes that differs from write to write."""
    return (b"%d-" % number).ljust(size, b"v")
