"""The ground floor: ids, errors, backoff, channels, tasks, log masking, readiness message."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.base import logs, varint
from swarmd.base.aio import Channel, ChannelClosed, Lane, Tasks
from swarmd.base.backoff import Backoff
from swarmd.base.entropy import SeededEntropy, base36, new_id
from swarmd.base.errors import Code, NotFound, SwarmError, error_for
from swarmd.base.listeners import Listeners
from swarmd.base.timestamps import seconds, timestamp
from swarmd.daemon.notify import notify


def test_ids_look_like_the_reference_ones() -> None:
    entropy = SeededEntropy(1)
    made = [new_id(entropy) for _ in range(2000)]
    assert len(set(made)) == 2000
    assert all(re.fullmatch(r"[0-9a-z]{25}", one) for one in made)


@given(st.integers(min_value=0, max_value=1 << 200))
def test_base36_is_read_back(number: int) -> None:
    assert int(base36(number), 36) == number


@given(st.floats(min_value=0, max_value=4e9))
def test_timestamps_keep_microseconds(now: float) -> None:
    assert abs(seconds(timestamp(now)) - now) < 2e-6


def test_errors_come_back_by_code() -> None:
    assert isinstance(error_for(5, "gone"), NotFound)
    unknown = error_for(2, "text")
    assert type(unknown) is SwarmError
    assert unknown.message == "text"
    assert error_for(15, "x").code is Code.DATA_LOSS
    assert error_for(99, "x").code is Code.UNKNOWN


def test_backoff_grows_to_its_cap() -> None:
    rule = Backoff(base_seconds=0.1, cap_seconds=8.0)
    assert [rule.limit(n) for n in (0, 1, 2)] == [0.1, 0.2, 0.4]
    assert rule.limit(500) == 8.0
    entropy = SeededEntropy(3)
    assert all(0 < rule.delay(n, entropy) <= rule.limit(n) for n in range(50))


async def test_channel_keeps_order_and_cuts_off_slow_readers() -> None:
    channel: Channel[int] = Channel(3)
    assert all(channel.put_nowait(n) for n in range(3))
    assert not channel.put_nowait(3)
    assert [await channel.get() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ChannelClosed):
        await channel.get()


async def test_tasks_cancelled_from_outside_end_cancelled_though_a_child_fails() -> None:
    begun = asyncio.Event()
    went_on = False

    async def fails_on_its_way_out() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            raise ValueError("connection closed")

    async def tries_again() -> None:
        nonlocal went_on
        try:
            async with Tasks() as tasks:
                tasks.spawn(fails_on_its_way_out(), "child")
                await asyncio.Event().wait()
        except* ValueError:
            went_on = True

    task = asyncio.ensure_future(tries_again())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not went_on


async def test_tasks_in_a_timeout_that_passed_are_a_timeout() -> None:
    async def fails_on_its_way_out() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            async with Tasks() as tasks:
                tasks.spawn(fails_on_its_way_out(), "child")
                await asyncio.Event().wait()
    await asyncio.sleep(0)  # no cancellation is left over


async def test_leaving_tasks_ends_children_and_failures_come_out() -> None:
    ended: list[str] = []

    async def child(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with Tasks() as tasks:
        for name in ("a", "b", "c"):
            tasks.spawn(child(name), name)
        await asyncio.sleep(0)
    assert ended == ["a", "b", "c"]

    async def fails() -> None:
        raise NotFound("x")

    with pytest.raises(ExceptionGroup) as caught:
        async with Tasks() as tasks:
            tasks.spawn(fails(), "fails")
            await asyncio.Event().wait()
    assert caught.group_contains(NotFound)


async def test_lane_runs_in_order() -> None:
    lane = Lane("test")
    order: list[int] = []
    await asyncio.gather(*(lane.run(lambda n=n: order.append(n)) for n in range(20)))
    assert order == list(range(20))
    lane.close()


async def test_a_lane_tells_what_went_wrong_and_goes_on() -> None:
    lane = Lane("test")
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 // 0)
    assert await lane.run(lambda: 7) == 7
    lane.close()
    with pytest.raises(RuntimeError, match="closed"):
        await lane.run(lambda: 7)


async def test_a_lane_skips_what_nobody_waits_for_and_finishes_what_it_began() -> None:
    lane = Lane("test")
    begun, go, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        assert go.wait(10)
        done.append("begun")

    async with Tasks() as tasks:
        running = tasks.spawn(lane.run(slow), "begun")
        waiting = tasks.spawn(lane.run(lambda: done.append("waiting")), "waiting")
        await asyncio.to_thread(begun.wait, 10)
        for task in (running, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    go.set()
    lane.close()
    assert done == ["begun"]


@contextmanager
def logging_as(style: str, patch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A logger as the daemon's are."""
    root = logging.getLogger()
    patch.setattr(root, "handlers", list(root.handlers))
    level = root.level
    try:
        logs.setup("info", style)
        yield logging.getLogger("x")
    finally:
        root.setLevel(level)


@pytest.mark.parametrize("style", ["text", "json"])
def test_secrets_never_reach_the_log(
    style: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "SWMTKN-1-" + "a" * 50 + "-" + "b" * 25
    with logging_as(style, monkeypatch) as log:
        log.info("token %s key %s", secret, "SWMKEY-1-AbC+/9xyz")
        log.info("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END")
    shown = capsys.readouterr().err
    assert shown.count("[redacted]") == 3
    assert "b" * 25 not in shown
    assert "MHcCAQEE" not in shown


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_peer_writes_lines_of_its_own_into_the_log(
    style: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "no\n2026-01-01T00:00:00 info swarmd.node: all is well\r\x1b[2J\x85\u2028\tZ\u00fcrich"
    with logging_as(style, monkeypatch) as log:
        log.warning("a manager answers: %s", said)
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert "\x1b" not in shown and "rich" in shown


def test_readiness_message_reaches_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        assert notify("READY=1")
        assert sock.recv(100) == b"READY=1"
    assert not notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varints_come_back(number: int, behind: bytes) -> None:
    raw = varint.encode(number)
    assert varint.decode(b"x" + raw + behind, 1) == (number, 1 + len(raw))
    with pytest.raises(ValueError, match="cut off"):
        varint.decode(raw[:-1], 0)


def test_a_varint_has_an_end() -> None:
    with pytest.raises(ValueError, match="too long"):
        varint.decode(b"\xff" * 11, 0)


def test_listeners_are_called_in_order_and_may_leave_meanwhile() -> None:
    heard: list[str] = []
    listeners = Listeners[[str]]()
    leave = listeners.add(lambda text: (heard.append("first " + text), leave()))
    listeners.add(lambda text: heard.append("second " + text))
    for text in ("a", "b"):
        listeners.call(text)
    assert heard == ["first a", "second a", "second b"]
