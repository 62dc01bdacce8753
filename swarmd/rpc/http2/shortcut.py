"""Calls that are answered where they arrive, without a task: heartbeats, most of all calls.

A task, its timers and its way through the loop cost more than such an answer itself. Only a call
whose one message comes whole and at once takes this way; any other becomes an ordinary `Call`.
"""

from __future__ import annotations

from collections.abc import Callable

from swarmd.rpc.http2 import request as written
from swarmd.rpc.http2.messages import PREFIX_BYTES, framed
from swarmd.rpc.http2.request import Metadata, Refused, Request
from swarmd.rpc.http2.stream import Listener, Stream
from swarmd.rpc.registry import Connection

MESSAGE_BYTES_MAX = 32 * 1024
"""A longer message is worth a task; it must fit into the window of anybody."""

AnswerAtOnce = Callable[[Connection, Metadata, bytes], bytes | None]
"""Turns a message into its answer without waiting for anything; None if something must be
waited for. Raises `Refused`."""


class Shortcut:
    """Listens to a stream until its request is complete, then answers it at once."""

    __slots__ = ("_answer", "_connection", "_data", "_ordinary", "_request", "_stream")

    def __init__(
        self,
        request: Request,
        stream: Stream,
        connection: Connection,
        answer: AnswerAtOnce,
        ordinary: Callable[[Request, Stream], Listener],
    ) -> None:
        """`ordinary` begins an ordinary call and returns who listens then."""
        self._request = request
        self._stream = stream
        self._connection = connection
        self._answer = answer
        self._ordinary = ordinary
        self._data = b""

    def received(self, data: bytes, ended: bool) -> None:
        """More of the request (called by the connection)."""
        data = self._data + data if self._data else data
        if not ended and len(data) <= MESSAGE_BYTES_MAX:
            self._data = data
        elif not (ended and _is_one_message(data) and self._respond(data[PREFIX_BYTES:])):
            stream = self._stream
            stream.listener = self._ordinary(self._request, stream)
            stream.listener.received(data, ended)

    def cut(self) -> None:
        """Nothing was begun."""

    def drained(self) -> None:
        """Nobody waits for it."""

    def _respond(self, message: bytes) -> bool:
        """Answer; False when that takes a task."""
        try:
            reply = self._answer(self._connection, self._request.metadata, message)
        except Refused as refusal:
            tail = written.only_tail(refusal.code, str(refusal), refusal.http)
            self._stream.finish(tail)
            return True
        if reply is not None:
            self._stream.respond(written.HEAD, framed(reply), written.OK_TAIL)
        return reply is not None


def _is_one_message(data: bytes) -> bool:
    """Whether this is exactly one uncompressed message of modest size."""
    size = len(data) - PREFIX_BYTES
    return 0 <= size <= MESSAGE_BYTES_MAX and data[:PREFIX_BYTES] == size.to_bytes(5, "big")
