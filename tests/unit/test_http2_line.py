"""One connection in the event loop: tasks, writes, deadlines and ends, without TLS or sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from swarmd.base.aio import Tasks
from swarmd.base.errors import Code
from swarmd.rpc.http2.budget import Budget
from swarmd.rpc.http2.call import Call
from swarmd.rpc.http2.connection import Allowance
from swarmd.rpc.http2.line import Answer, Line
from swarmd.rpc.http2.request import Metadata, Refused
from swarmd.rpc.http2.shortcut import MESSAGE_BYTES_MAX, AnswerAtOnce
from swarmd.rpc.registry import Connection
from tests.harness.h2peer import Peer, frame, frames, message, number


class Link:
    """The TLS side: notes every write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closing = False

    def send(self, data: bytes) -> None:
        self.writes.append(data)

    def finish(self) -> None:
        self.closing = True


class Desk:
    """Answers every call with one piece of code."""

    def __init__(self, tasks: Tasks, answer: Answer) -> None:
        self.tasks = tasks
        self.answer = answer
        self.at_once: AnswerAtOnce | None = None
        self.over: list[Code | None] = []

    def find(self, path: bytes) -> Answer:
        if path.endswith(b"Nothing"):
            raise Refused(Code.UNIMPLEMENTED, "unknown")
        return self.answer

    def find_at_once(self, path: bytes) -> AnswerAtOnce | None:
        return self.at_once

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self.tasks.spawn(work, name)

    def ended(self, call: Call) -> None:
        self.over.append(call.code)


class Bench:
    """A line with a peer that said hello."""

    def __init__(self, tasks: Tasks, answer: Answer, allowance: Allowance) -> None:
        self.link = Link()
        self.desk = Desk(tasks, answer)
        self.lost = 0
        self.peer = Peer()
        whose = Connection(None, "192.0.2.1:1")
        self.line = Line(self.link, whose, self.desk, allowance, self._lost)
        self.line.begin(60, lambda: None)
        self.line.send(self.peer.begin())
        self.link.writes.clear()

    def _lost(self, line: Line) -> None:
        self.lost += 1

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            for _ in range(10**6):
                if true():
                    return
                await asyncio.sleep(0)

    def status(self) -> dict[str, str]:
        """Everything the last answer's header blocks said."""
        told: dict[str, str] = {}
        for item in frames(b"".join(self.link.writes)):
            if item.kind == "HEADERS":
                told |= self.peer.read(item.payload)
        return told


@contextlib.asynccontextmanager
async def bench(answer: Answer, **allowance: int) -> AsyncIterator[Bench]:
    async with Tasks() as tasks:
        made = Bench(tasks, answer, Allowance(**allowance))
        yield made
        made.line.finish()


async def echo(call: Call) -> None:
    call.answer(await call.read() or b"nothing")


async def forever(call: Call) -> None:
    await asyncio.Event().wait()


async def test_an_answer_is_one_write() -> None:
    async with bench(echo) as at:
        at.line.send(at.peer.call(1, b"hello"))
        await at.until(lambda: at.link.writes)
        (written,) = at.link.writes
        assert [item.kind for item in frames(written)] == ["HEADERS", "DATA", "HEADERS"]
        assert message(b"hello") in written
        await at.until(lambda: at.line.idle)
        assert at.desk.over == [Code.OK]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (8, 1), (10, 2)])
async def test_a_few_answers_of_one_turn_share_a_write(count: int, expected: int) -> None:
    async with bench(echo) as at:
        at.line.send(b"".join(at.peer.call(1 + 2 * number, b"x") for number in range(count)))
        await at.until(lambda: at.line.idle and at.link.writes)
        assert len(at.link.writes) == expected


async def test_what_one_batch_of_bytes_causes_is_one_write() -> None:
    async with bench(forever) as at:
        at.line.send(frame("PING", 0, b"12345678") * 5 + at.peer.headers(2 * 10**6 + 1, end=True))
        assert len(at.link.writes) == 1 and len(list(frames(at.link.writes[0]))) == 5


async def test_a_full_transport_holds_writers_up() -> None:
    sent: list[int] = []

    async def stream(call: Call) -> None:
        for count in range(10):
            await call.write(b"x" * 1000)
            sent.append(count)
        call.end(Code.OK)

    async with bench(stream) as at:
        at.line.hold()
        at.line.send(at.peer.call(1, b""))
        for _ in range(50):
            await asyncio.sleep(0)
        assert sent == [] and at.link.writes == []
        at.line.release()
        await at.until(lambda: at.line.idle)
        assert len(sent) == 10 and at.status()["grpc-status"] == "0"


async def test_withdrawn_lost_and_late_calls_cancel_their_tasks() -> None:
    outcome: list[str] = []

    async def wait(call: Call) -> None:
        try:
            await call.read()
            await call.read()
            outcome.append("whole")
        except asyncio.CancelledError:
            outcome.append("cut")
            raise

    async with bench(wait) as at:
        part = frame("DATA", 1, message(b"x"))
        at.line.send(at.peer.headers(1) + part)
        await asyncio.sleep(0)
        at.line.send(number("RST_STREAM", 1, 8))
        await at.until(lambda: len(outcome) == 1)
        at.line.send(at.peer.headers(3, ("grpc-timeout", "1m")))
        await at.until(lambda: len(outcome) == 2)
        assert at.status()["grpc-status"] == "4"
        at.line.send(at.peer.headers(5) + frame("DATA", 5, b"\0\0\0\0\5half", 1))
        await at.until(lambda: len(at.desk.over) == 3)
        at.line.send(at.peer.headers(7))
        await asyncio.sleep(0)
        at.line.finish()
        await at.until(lambda: len(at.desk.over) == 4)
    assert set(outcome) == {"cut"} and at.lost == 1
    ends = [Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.CANCELLED]
    assert at.desk.over == ends


async def test_a_call_withdrawn_before_its_task_began_leaves_nothing() -> None:
    async with bench(echo) as at:
        at.line.send(at.peer.call(1, b"x") + number("RST_STREAM", 1, 8))
        await at.until(lambda: at.line.idle)
        assert at.desk.over == [Code.CANCELLED] and at.link.writes == []


async def test_tasks_that_will_not_end_count_against_new_calls() -> None:
    release = asyncio.Event()

    async def stubborn(call: Call) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async with bench(stubborn, streams_max=2) as at:
        for stream in range(1, 9, 2):
            at.line.send(at.peer.headers(stream))
            await asyncio.sleep(0)
            at.line.send(number("RST_STREAM", stream, 8))
        assert len(at.line.calls) == 4
        at.line.send(at.peer.headers(9))
        (reset,) = frames(b"".join(at.link.writes))
        assert (reset.kind, reset.stream, reset.number) == ("RST_STREAM", 9, 7)
        release.set()
        await at.until(lambda: at.line.idle)


async def test_a_task_that_ends_without_an_answer_is_answered_for() -> None:
    async def forgetful(call: Call) -> None:
        return None

    async with bench(forgetful) as at:
        at.line.send(at.peer.call(1, b"x"))
        await at.until(lambda: at.link.writes)
        assert at.status()["grpc-status"] == "14"


async def test_refusals_make_no_task() -> None:
    async with bench(forever) as at:
        fields = [(":method", "POST"), (":scheme", "https"), (":path", "/a/Nothing")]
        kind = ("content-type", "application/grpc")
        at.line.send(at.peer.headers(1, kind, call=fields, end=True))
        assert at.status() == {
            ":status": "200",
            "content-type": "application/grpc",
            "grpc-status": "12",
            "grpc-message": "unknown",
        }
        assert at.line.idle and not at.desk.over


@pytest.mark.parametrize(("timeout", "least"), [("1H", 3500.0), ("99999999H", 1e11)])
async def test_time_remaining(timeout: str, least: float) -> None:
    left: list[float | None] = []

    async def look(call: Call) -> None:
        left.append(call.time_remaining())
        call.end(Code.OK)

    async with bench(look) as at:
        at.line.send(at.peer.call(1, b"", ("grpc-timeout", timeout)))
        at.line.send(at.peer.call(3, b""))
        await at.until(lambda: len(left) == 2)
    assert left[0] is not None and left[0] > least and left[1] is None


def test_a_budget_refills_with_time_but_not_over_its_brim() -> None:
    budget = Budget(3, 2.0)
    assert [budget.spend(100.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.spend(100.5) for _ in range(2)] == [True, False]
    assert [budget.spend(900.0) for _ in range(4)] == [True, True, True, False]


def shout(connection: Connection, metadata: Metadata, raw: bytes) -> bytes | None:
    if raw == b"wait":
        return None
    if raw == b"no":
        raise Refused(Code.ABORTED, "no")
    return raw.upper() + connection.remote_addr.encode()


async def test_a_call_that_waits_for_nothing_is_answered_with_its_last_byte() -> None:
    async with bench(echo) as at:
        at.desk.at_once = shout
        at.line.send(at.peer.call(1, b"hello"))
        (written,) = at.link.writes
        assert [item.kind for item in frames(written)] == ["HEADERS", "DATA", "HEADERS"]
        assert message(b"HELLO192.0.2.1:1") in written
        assert at.status()["grpc-status"] == "0"
        assert at.line.idle and at.desk.over == []


async def test_a_refusal_at_once_has_a_status() -> None:
    async with bench(echo) as at:
        at.desk.at_once = shout
        at.line.send(at.peer.call(1, b"no"))
        told = at.status()
        assert (told["grpc-status"], told["grpc-message"]) == ("10", "no")
        assert at.line.idle


@pytest.mark.parametrize("cut", [1, 4, 5, 7])
async def test_a_message_in_pieces_is_answered_at_once_too(cut: int) -> None:
    whole = message(b"hello")
    async with bench(echo) as at:
        at.desk.at_once = shout
        at.line.send(at.peer.headers(1) + frame("DATA", 1, whole[:cut]))
        assert not at.link.writes
        at.line.send(frame("DATA", 1, whole[cut:]) + frame("DATA", 1, b"", flags=1))
        assert message(b"HELLO192.0.2.1:1") in b"".join(at.link.writes)


@pytest.mark.parametrize(
    "data",
    [
        message(b"wait"),
        message(b"x" * (MESSAGE_BYTES_MAX + 1)),
        b"".join(message(b"x") for _ in range(2)),
    ],
    ids=["something to wait for", "long", "two messages"],
)
async def test_what_cannot_be_answered_at_once_gets_a_task(data: bytes) -> None:
    async with bench(echo) as at:
        at.desk.at_once = shout
        pieces = [data[at_ : at_ + 10_000] for at_ in range(0, len(data), 10_000)]
        at.line.send(at.peer.headers(1) + b"".join(frame("DATA", 1, one) for one in pieces))
        at.line.send(frame("DATA", 1, b"", flags=1))
        await at.until(lambda: at.desk.over)
        assert at.desk.over == [Code.OK]


@pytest.mark.parametrize("data", [b"", b"\x00\x00", b"\x01\x00\x00\x00\x01x"])
async def test_what_is_no_message_is_refused_as_ever(data: bytes) -> None:
    async def read(call: Call) -> None:
        if await call.read() is None:
            call.end(Code.INTERNAL, "nothing")

    async with bench(read) as at:
        at.desk.at_once = shout
        at.line.send(at.peer.headers(1) + frame("DATA", 1, data, flags=1))
        await at.until(lambda: at.line.idle)
        assert at.status()["grpc-status"] == "13"


async def test_a_call_withdrawn_before_it_is_complete_leaves_nothing() -> None:
    async with bench(echo) as at:
        at.desk.at_once = shout
        at.line.send(at.peer.headers(1) + frame("DATA", 1, message(b"hello")))
        assert not at.line.idle
        at.line.send(number("RST_STREAM", 1, 8))
        assert at.line.idle and not at.link.writes
