"""Proposals on their way: how they are numbered, written and found again when committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarmd import api
from swarmd.base import varint
from swarmd.base.clock import Clock
from swarmd.base.limits import entry_bytes_max
from swarmd.manager.raftnode.errors import RequestTooLarge
from swarmd.manager.raftnode.frames import Malformed, read_varint

_ID_TAG = 0x08
_ACTION_TAG = b"\x12"


class RequestIds:
    """Numbers for proposals and configuration changes, as stock makes them (PROTOCOL 3.2).

    16 bits of zero, 40 bits of the clock in milliseconds, 8 bits to count; then plus one each
    time. A number only has to differ from those of other proposals waiting on this member.
    """

    def __init__(self, clock: Clock) -> None:
        self._last = (int(clock.now() * 1000) & ((1 << 40) - 1)) << 8

    def next(self) -> int:
        """A number not given before by this process."""
        self._last = (self._last + 1) & ((1 << 48) - 1)
        return self._last


@dataclass(slots=True)
class Proposal:
    """Who is to be told, exactly once, what became of a proposal."""

    on_commit: Callable[[int], None]  # gets the entry's index, while it is being applied
    on_fail: Callable[[Exception], None]

    @classmethod
    def awaited(cls, on_commit: Callable[[int], None], done: asyncio.Future[None]) -> Proposal:
        """For one who waits for `done`, or stopped doing so: `on_commit` runs all the same."""

        def committed(index: int) -> None:
            on_commit(index)
            if not done.done():
                done.set_result(None)

        def failed(error: Exception) -> None:
            if not done.done():
                done.set_exception(error)

        return cls(committed, failed)


class Waiting:
    """Proposals of this member that are in the log but not applied yet."""

    def __init__(self) -> None:
        self._proposals: dict[int, Proposal] = {}

    def add(self, number: int, proposal: Proposal) -> None:
        """Remember a proposal under its number."""
        self._proposals[number] = proposal

    def take(self, number: int) -> Proposal | None:
        """Forget and return the proposal with this number."""
        return self._proposals.pop(number, None)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Give up on all of them, oldest first. They may still be committed."""
        proposals = list(self._proposals.values())
        self._proposals.clear()
        for proposal in proposals:
            proposal.on_fail(error())


def encode_request(number: int, actions: Sequence[api.StoreAction]) -> bytes:
    """A marshalled `InternalRaftRequest`, written without copying the actions first.

    Raises `RequestTooLarge` over 1.5 MiB.
    """
    parts = [bytes((_ID_TAG,)), varint.encode(number)]
    for action in actions:
        body = action.SerializeToString()
        parts += (_ACTION_TAG, varint.encode(len(body)), body)
    data = b"".join(parts)
    if len(data) > entry_bytes_max:
        raise RequestTooLarge
    return data


def request_number(data: bytes) -> int:
    """The number of a marshalled request, without decoding the rest; 0 if it has none."""
    try:
        return read_varint(data, 1)[0] if data[0] == _ID_TAG else 0
    except Malformed:
        return 0
