"""Our client against our server, both without I/O: any sizes, windows and cuts; and any garbage."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.rpc.http2 import request, wire
from swarmd.rpc.http2.connection import Allowance, Connection
from swarmd.rpc.http2.headers import Header
from swarmd.rpc.http2.messages import Messages, framed
from swarmd.rpc.http2.outgoing import Outgoing
from swarmd.rpc.http2.stream import Stream
from tests.harness.h2peer import KINDS, frame, message
from tests.harness.h2server import BLOCK, Answer, Far


class Echo:
    """Answers a request with its own message, and more of it."""

    def __init__(self, stream: Stream, headers: list[Header] | None) -> None:
        assert headers is not None and request.read(headers).path.endswith(b"ProcessRaftMessage")
        self.stream = stream
        self.messages = Messages()
        self.found: list[bytes] = []

    def received(self, data: bytes, ended: bool) -> None:
        self.found += self.messages.feed(data) if data else []
        self.stream.credit(len(data))
        if ended:
            (body,) = self.found
            self.stream.respond(request.HEAD, framed(body * 2), request.OK_TAIL)

    def cut(self) -> None:
        raise AssertionError("nobody withdrew anything")

    def drained(self) -> None:
        """Fine."""


def carried(source: Connection | Outgoing, target: Connection | Outgoing, size: int) -> bool:
    """Move what `source` has to say, `size` bytes at a time; False when it has nothing."""
    moved = False
    while data := source.sender.take():
        moved = True
        for start in range(0, len(data), size):
            target.receive(data[start : start + size], 0.0)
            assert target.fault is None, target.fault
    return moved


@given(
    st.lists(st.integers(0, 70_000), min_size=1, max_size=6),
    st.sampled_from([100, 5000, 65_535, 1 << 20]),
    st.sampled_from([100, 5000, 65_535, 1 << 20]),
    st.integers(1, 3),
    st.integers(97, 20_000),
)
@settings(max_examples=40)
def test_client_and_server_understand_each_other(
    sizes: list[int], ours: int, theirs: int, streams_max: int, cut: int
) -> None:
    client = Outgoing(window_bytes=ours)
    allowance = Allowance(streams_max=streams_max, window_bytes=theirs, useless_max=10**9)
    server = Connection(Echo, allowance)
    carried(server, client, cut)  # the limit on streams is known before the first call
    bodies = [bytes((number,)) * size for number, size in enumerate(sizes)]
    answers = [Answer() for _ in bodies]
    for answer, body in zip(answers, bodies, strict=True):
        client.ask(answer, BLOCK, framed(body))
    while carried(client, server, cut) or carried(server, client, cut):
        pass
    assert [answer.result for answer in answers] == [body * 2 for body in bodies]
    assert not client.streams and not server.streams


def _frames(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(KINDS))
    payload = draw(st.binary(max_size=40) | st.sampled_from([b"\x88", message(b"x"), bytes(8)]))
    return frame(kind, draw(st.integers(0, 7)), payload, draw(st.sampled_from([0, 1, 4, 5, 8])))


@given(st.lists(st.composite(_frames)() | st.binary(max_size=30), max_size=20), st.booleans())
@settings(max_examples=200)
def test_garbage_never_does_more_than_fail_calls(pieces: list[bytes], begun: bool) -> None:
    far = Far()
    if begun:
        far.begin((wire.MAX_CONCURRENT_STREAMS, 2))
    calls = [far.ask() for _ in range(3)]
    said = far.heard()
    for piece in pieces:
        said += far.say(piece)
    fault = far.client.fault
    if fault is not None:
        assert (said[-1].kind, said[-1].number) == ("GOAWAY", fault.code)
        assert all(answer.given == 1 for answer, _ in calls)
    far.client.lost()
    assert all(answer.given == 1 for answer, _ in calls), "each call ends, once"
    assert not far.client.streams


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=5), st.data())
@settings(max_examples=40)
def test_any_cut_of_the_answers_gives_the_same(sizes: list[int], data: st.DataObject) -> None:
    far = Far()
    far.begin()
    answers = [far.ask()[0] for _ in sizes]
    raw = b"".join(far.whole(2 * at + 1, bytes(size)) for at, size in enumerate(sizes))
    while raw:
        size = data.draw(st.integers(1, min(len(raw), 500)))
        far.client.receive(raw[:size], 0.0)
        raw = raw[size:]
    assert [answer.result for answer in answers] == [bytes(size) for size in sizes]
    assert not far.client.streams
