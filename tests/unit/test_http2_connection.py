"""The rules of HTTP/2 frames, one by one, against the connection without any socket."""

from __future__ import annotations

import struct

import pytest

from swarmd.base.errors import Code
from swarmd.rpc.http2 import request, wire
from swarmd.rpc.http2.connection import Allowance, Connection
from swarmd.rpc.http2.endpoint import LATE_MAX, UNTAKEN_BYTES_MAX
from swarmd.rpc.http2.headers import LIST_BYTES_MAX, Header
from swarmd.rpc.http2.stream import Stream
from tests.harness.h2peer import CALL, Frame, Peer, frame, frames, message, number, settings

ALLOWANCE = Allowance(streams_max=4, window_bytes=1000, resets_max=10, useless_max=20)
PRIORITY = b"\0\0\0\0\1"


class Ear:
    """Notes what happens to one stream."""

    def __init__(self, stream: Stream, headers: list[Header] | None) -> None:
        self.stream = stream
        self.headers = headers
        self.data = b""
        self.ended = False
        self.was_cut = 0
        self.drains = 0

    def received(self, data: bytes, ended: bool) -> None:
        self.data += data
        self.ended = self.ended or ended

    def cut(self) -> None:
        self.was_cut += 1

    def drained(self) -> None:
        self.drains += 1


class Bench:
    """A connection, its peer, and every stream so far."""

    def __init__(self, allowance: Allowance = ALLOWANCE, *pairs: tuple[int, int]) -> None:
        self.peer = Peer()
        self.ears: dict[int, Ear] = {}
        self.connection = Connection(self._accept, allowance)
        self.now = 0.0
        self.opening = self.say(self.peer.begin(*pairs))

    def _accept(self, stream: Stream, headers: list[Header] | None) -> Ear:
        self.ears[stream.id] = ear = Ear(stream, headers)
        return ear

    def say(self, *data: bytes) -> list[Frame]:
        self.connection.receive(b"".join(data), self.now)
        return self.taken()

    def taken(self) -> list[Frame]:
        out = b""
        while piece := self.connection.sender.take():
            out += piece
        return list(frames(out))

    def ends(self, code: int, *data: bytes) -> None:
        """Say something that must end the connection with `code`, and cut every stream."""
        live = [ear for ear in self.ears.values() if not ear.stream.over]
        *_, last = self.say(*data)
        assert (last.kind, last.number) == ("GOAWAY", code), last
        assert self.connection.fault is not None and not self.connection.streams
        assert all(ear.was_cut == 1 for ear in live)
        assert self.say(b"more") == []


def test_the_server_speaks_first_and_acknowledges_settings() -> None:
    one, two, three = Bench(Allowance(streams_max=4, window_bytes=20_000)).opening
    assert (one.kind, two.kind, three.kind) == ("SETTINGS", "WINDOW_UPDATE", "SETTINGS")
    assert dict(struct.iter_unpack(">HL", one.payload)) == {
        wire.MAX_CONCURRENT_STREAMS: 4,
        wire.INITIAL_WINDOW_SIZE: 20_000,
        wire.MAX_HEADER_LIST_SIZE: LIST_BYTES_MAX,
    }
    assert two.number == 80_000 - 65_535
    assert three.flags == wire.ACK


def test_a_call_from_end_to_end() -> None:
    bench = Bench()
    assert bench.say(bench.peer.call(1, b"beat")) == []
    ear = bench.ears[1]
    assert ear.headers == [(name.encode(), value.encode()) for name, value in CALL]
    assert ear.data == message(b"beat") and ear.ended
    ear.stream.respond(request.HEAD, message(b"yes"), request.OK_TAIL)
    head, data, tail = bench.taken()
    assert bench.peer.read(head.payload) == {":status": "200", "content-type": "application/grpc"}
    assert (data.kind, data.payload) == ("DATA", message(b"yes"))
    assert bench.peer.read(tail.payload) == {"grpc-status": "0"}
    assert (head.flags, data.flags, tail.flags) == (4, 0, 5)
    assert not bench.connection.streams and ear.was_cut == 0


@pytest.mark.parametrize(
    "text", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"\0" * 30, b"PX"]
)
def test_what_is_no_preface_ends_at_its_first_wrong_byte(text: bytes) -> None:
    connection = Connection(Ear, ALLOWANCE)
    connection.receive(text, 0.0)
    assert connection.fault is not None and not connection.begun


@pytest.mark.parametrize("size", range(24))
def test_part_of_a_preface_is_waited_for(size: int) -> None:
    connection = Connection(Ear, ALLOWANCE)
    for byte in Peer().begin()[:size]:
        connection.receive(bytes((byte,)), 0.0)
    assert connection.fault is None and not connection.begun


@pytest.mark.parametrize("first", [frame("PING", 0, b"x" * 8), frame("SETTINGS", flags=1)])
def test_settings_come_first(first: bytes) -> None:
    connection = Connection(Ear, ALLOWANCE)
    connection.receive(Peer().begin()[:24] + first, 0.0)
    assert connection.fault is not None and connection.fault.code == wire.PROTOCOL_ERROR


OPEN = object()
"""Stands for the headers of stream 1, not ended."""
WHOLE = object()
"""Stands for a whole call on stream 1."""


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([frame("DATA", 0, b"x")], wire.PROTOCOL_ERROR),
        ([frame("DATA", 1, b"x")], wire.PROTOCOL_ERROR),
        ([frame("DATA", 2, b"x")], wire.PROTOCOL_ERROR),
        ([OPEN, frame("DATA", 1, b"\x05abc", 8)], wire.PROTOCOL_ERROR),
        ([OPEN, frame("DATA", 1, b"", 8)], wire.PROTOCOL_ERROR),
        ([frame("DATA", 1, b"x" * 16385)], wire.FRAME_SIZE_ERROR),
        ([frame("HEADERS", 0, b"\x82", 4)], wire.PROTOCOL_ERROR),
        ([frame("HEADERS", 2, b"\x82", 4)], wire.PROTOCOL_ERROR),
        ([frame("HEADERS", 1, b"\x09\x82", 4 | 8)], wire.PROTOCOL_ERROR),
        ([frame("HEADERS", 1, b"\0\0\0", 4 | 32)], wire.FRAME_SIZE_ERROR),
        ([frame("HEADERS", 1, b"\x80", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\xbe", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\x82\x20", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\x3f\xff\xff\xff\xff\xff\xff", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\x40\x05ab", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\x40\x01a\x81\x00", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\x3f\xe2\x1f", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\x82", 0), frame("DATA", 1)], wire.PROTOCOL_ERROR),
        ([frame("HEADERS", 1, b"\x82"), frame("CONTINUATION", 3)], wire.PROTOCOL_ERROR),
        ([frame("CONTINUATION", 1)], wire.PROTOCOL_ERROR),
        ([WHOLE, frame("CONTINUATION", 1)], wire.PROTOCOL_ERROR),
        ([frame("PRIORITY", 0, PRIORITY)], wire.PROTOCOL_ERROR),
        ([number("RST_STREAM", 0, 8)], wire.PROTOCOL_ERROR),
        ([number("RST_STREAM", 1, 8)], wire.PROTOCOL_ERROR),
        ([OPEN, frame("RST_STREAM", 1, b"abc")], wire.FRAME_SIZE_ERROR),
        ([frame("SETTINGS", 1)], wire.PROTOCOL_ERROR),
        ([frame("SETTINGS", 0, b"abc")], wire.FRAME_SIZE_ERROR),
        ([frame("SETTINGS", 0, b"abcdef", 1)], wire.FRAME_SIZE_ERROR),
        ([settings((2, 2))], wire.PROTOCOL_ERROR),
        ([settings((4, 2**31))], wire.FLOW_CONTROL_ERROR),
        ([settings((5, 16383))], wire.PROTOCOL_ERROR),
        ([settings((5, 2**24))], wire.PROTOCOL_ERROR),
        ([OPEN, number("WINDOW_UPDATE", 1, 2**31 - 65536), settings((4, 2**31 - 1))],
         wire.FLOW_CONTROL_ERROR),
        ([frame("PUSH_PROMISE", 1, b"\0\0\0\2")], wire.PROTOCOL_ERROR),
        ([frame("PING", 1, b"12345678")], wire.PROTOCOL_ERROR),
        ([frame("PING", 0, b"1234567")], wire.FRAME_SIZE_ERROR),
        ([frame("GOAWAY", 1, b"12345678")], wire.PROTOCOL_ERROR),
        ([frame("GOAWAY", 0, b"1234567")], wire.FRAME_SIZE_ERROR),
        ([number("WINDOW_UPDATE", 0, 0)], wire.PROTOCOL_ERROR),
        ([number("WINDOW_UPDATE", 0, 2**31 - 1)], wire.FLOW_CONTROL_ERROR),
        ([number("WINDOW_UPDATE", 1, 1)], wire.PROTOCOL_ERROR),
        ([OPEN, frame("WINDOW_UPDATE", 1, b"\0\0\1")], wire.FRAME_SIZE_ERROR),
    ],
)  # fmt: skip
def test_these_end_the_connection(said: list[object], code: int) -> None:
    bench = Bench()
    first = {OPEN: lambda: bench.peer.headers(1), WHOLE: lambda: bench.peer.call(1, b"x")}
    data = [item if isinstance(item, bytes) else first[item]() for item in said]
    for piece in data[:-1]:
        bench.say(piece)
    if said[0] is WHOLE:
        bench.ears[1].stream.finish(request.OK_TAIL)
    bench.ends(code, data[-1])


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (number("WINDOW_UPDATE", 1, 0), wire.PROTOCOL_ERROR),
        (number("WINDOW_UPDATE", 1, 2**31 - 1), wire.FLOW_CONTROL_ERROR),
        (frame("PRIORITY", 1, b"1234"), wire.FRAME_SIZE_ERROR),
        (frame("DATA", 1, b"x" * 1001), wire.FLOW_CONTROL_ERROR),
        (frame("HEADERS", 1, b"\x82", 4), wire.PROTOCOL_ERROR),
        (frame("DATA", 3, b"x"), wire.STREAM_CLOSED),
        (frame("HEADERS", 3, b"\x82", 5), wire.STREAM_CLOSED),
    ],
)
def test_these_end_one_stream_and_no_other(said: bytes, code: int) -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1), bench.peer.headers(3, end=True), bench.peer.headers(5))
    reset = bench.say(said)[-1]
    assert (reset.kind, reset.number) == ("RST_STREAM", code)
    assert bench.ears[reset.stream].was_cut == 1
    assert set(bench.connection.streams) == {1, 3, 5} - {reset.stream}
    bench.ears[5].stream.finish(request.OK_TAIL)
    assert [item.kind for item in bench.taken()] == ["HEADERS", "RST_STREAM"]
    assert bench.connection.fault is None


@pytest.mark.parametrize(
    "said",
    [
        frame("PRIORITY", 1, PRIORITY),
        frame("PRIORITY", 99, PRIORITY),
        b"\0\0\3\x42\0\0\0\0\0abc",
        b"\0\0\3\xff\xff\0\0\0\1abc",
        frame("GOAWAY", 0, b"12345678bye"),
        frame("PING", 0, b"12345678", 1),
        frame("SETTINGS", 0, b"", 1),
    ],
)
def test_these_are_ignored(said: bytes) -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1))
    assert bench.say(said) == []
    assert bench.connection.fault is None and bench.ears[1].was_cut == 0
    bench.say(frame("DATA", 1, b"on", 1))
    assert bench.ears[1].data == b"on"


def test_pings_are_answered() -> None:
    (pong,) = Bench().say(frame("PING", 0, b"12345678"))
    assert pong == Frame("PING", 1, 0, b"12345678")


def test_padding_and_priority_are_taken_off_and_padding_is_credited() -> None:
    bench = Bench()
    block = bench.peer.encoder.encode(list(CALL))
    bench.say(frame("HEADERS", 1, b"\x03" + PRIORITY + block + b"\0" * 3, 4 | 8 | 32))
    assert len(bench.ears[1].headers or ()) == len(CALL)
    (update,) = bench.say(frame("DATA", 1, b"\xfe" + b"hey" + b"\0" * 254, 8))
    assert bench.ears[1].data == b"hey"
    assert (update.kind, update.stream, update.number) == ("WINDOW_UPDATE", 1, 255)


def test_header_blocks_go_on_over_frames() -> None:
    bench = Bench()
    block = bench.peer.encoder.encode(list(CALL))
    pieces = [block[:5], block[5:6], b"", block[6:]]
    bench.say(frame("HEADERS", 1, pieces[0], 1))
    for piece in pieces[1:-1]:
        bench.say(frame("CONTINUATION", 1, piece))
    bench.say(frame("CONTINUATION", 1, pieces[-1], 4))
    assert len(bench.ears[1].headers or ()) == len(CALL) and bench.ears[1].ended


def test_trailers_end_a_request() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1), frame("DATA", 1, b"x"))
    bench.say(bench.peer.headers(1, end=True, call=(("x", "y"),)))
    assert bench.ears[1].ended and bench.ears[1].data == b"x"


def test_too_long_headers_cost_their_call_only_and_the_table_stays_right() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1, ("x-long", "y" * 9000), ("x-more", "z" * 9000)))
    assert bench.ears[1].headers is None
    bench.say(bench.peer.headers(3, ("x-short", "y")), bench.peer.headers(5, ("x-short", "y")))
    assert (bench.ears[5].headers or [])[-1] == (b"x-short", b"y")


def test_a_bomb_of_references_is_not_unpacked() -> None:
    bench = Bench()
    bench.say(frame("HEADERS", 1, b"\x40\x01a\x7f\xc1\x1e" + b"v" * 4000 + b"\xbe" * 12000, 4))
    assert bench.ears[1].headers is None
    assert bench.connection.fault is None


def test_data_and_window_updates_on_streams_that_are_over() -> None:
    """What crosses our early answer on the wire is fine, more than that is not."""
    bench = Bench()
    bench.say(bench.peer.headers(1), frame("DATA", 1, b"x" * 400))
    bench.ears[1].stream.finish(request.tail(Code.UNKNOWN, "no"))
    assert [(f.kind, f.number) for f in bench.taken()[1:]] == [("RST_STREAM", wire.NO_ERROR)]
    assert bench.say(frame("DATA", 1, b"x" * 500), number("WINDOW_UPDATE", 1, 5)) == []
    bench.say(frame("DATA", 1, b"x" * 100, 1))
    assert bench.connection.fault is None
    bench.ends(wire.STREAM_CLOSED, frame("DATA", 1, b"x"))


def test_a_refused_sender_keeps_to_its_window_too() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1))
    bench.ears[1].stream.reset()
    bench.ends(wire.FLOW_CONTROL_ERROR, frame("DATA", 1, b"x" * 1001))


def test_a_reset_cuts_its_stream() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1), bench.peer.headers(3))
    assert bench.say(number("RST_STREAM", 1, 8)) == []
    assert (bench.ears[1].was_cut, bench.ears[3].was_cut) == (1, 0)
    bench.ears[1].stream.send(b"too late")
    bench.ears[1].stream.finish(b"")
    assert bench.taken() == []


def test_more_streams_than_allowed_are_refused() -> None:
    bench = Bench()
    for stream in (1, 3, 5, 7):
        bench.say(bench.peer.headers(stream))
    (reset,) = bench.say(bench.peer.headers(9, ("x-new", "entry")))
    assert (reset.kind, reset.stream, reset.number) == ("RST_STREAM", 9, wire.REFUSED_STREAM)
    assert bench.say(frame("DATA", 9, b"on its way", 1)) == []
    bench.say(number("RST_STREAM", 1, 8), bench.peer.headers(11, ("x-new", "entry")))
    assert (bench.ears[11].headers or [])[-1] == (b"x-new", b"entry")


def test_refused_streams_are_not_remembered_without_end() -> None:
    """A patient peer stays within every budget, for as long as it likes."""
    bench = Bench()
    for stream in range(1, 8, 2):
        bench.say(bench.peer.headers(stream))
    for stream in range(9, 9 + 4 * LATE_MAX, 2):
        bench.now += 1.0
        bench.say(bench.peer.headers(stream))
    assert bench.connection.fault is None
    assert len(bench.connection._late) <= LATE_MAX
    assert bench.say(frame("DATA", 9, b"on its way")) == [], "forgotten, but no fault"
    assert bench.connection.fault is None


def test_after_goodbye_old_streams_go_on_and_new_ones_are_not_looked_at() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1))
    bench.connection.goodbye()
    (said,) = bench.taken()
    assert said.kind == "GOAWAY" and said.payload[:8] == b"\0\0\0\1\0\0\0\0"
    assert bench.say(bench.peer.call(3, b"x"), number("RST_STREAM", 3, 8)) == []
    assert 3 not in bench.ears and bench.connection.fault is None
    bench.say(frame("DATA", 1, b"x", 1))
    bench.ears[1].stream.finish(request.OK_TAIL)
    assert [item.kind for item in bench.taken()] == ["HEADERS"]


FLOODS = {
    "pings": lambda n: frame("PING", 0, b"12345678"),
    "settings": lambda n: settings((3, 1)),
    "acknowledgements": lambda n: frame("SETTINGS", 0, b"", 1),
    "empty data": lambda n: frame("DATA", 1),
    "padding only": lambda n: frame("DATA", 1, b"\1\0", 8),
    "priorities": lambda n: frame("PRIORITY", 2 * n + 1, PRIORITY),
    "unknown frames": lambda n: b"\0\0\0\x42\0\0\0\0\0",
    "stale resets": lambda n: number("RST_STREAM", 3, 8),
    "goodbyes": lambda n: frame("GOAWAY", 0, b"12345678"),
}


@pytest.mark.parametrize("what", FLOODS)
def test_floods_of_nothing_end_the_connection(what: str) -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1), bench.peer.headers(3), number("RST_STREAM", 3, 8))
    flood = FLOODS[what]
    for count in range(15):
        bench.say(flood(count))
        assert bench.connection.fault is None
    bench.ends(wire.ENHANCE_YOUR_CALM, *map(flood, range(15, 30)))


def test_the_same_amount_over_time_is_fine() -> None:
    bench = Bench()
    for _ in range(500):
        bench.now += 1.0
        assert [item.kind for item in bench.say(frame("PING", 0, b"12345678"))] == ["PING"]
    assert bench.connection.fault is None


def test_pings_that_measure_what_we_send_are_free() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1))
    bench.ears[1].stream.head(request.HEAD)
    for _ in range(100):
        bench.ears[1].stream.send(b"x")
        bench.say(frame("PING", 0, b"12345678"))
    assert bench.connection.fault is None


def test_rapid_reset_ends_the_connection() -> None:
    """CVE-2023-44487: calls opened and withdrawn without end."""
    bench = Bench()
    stream = 1
    while bench.connection.fault is None:
        bench.say(bench.peer.headers(stream), number("RST_STREAM", stream, 8))
        stream += 2
        assert stream < 30
    assert bench.connection.fault.code == wire.ENHANCE_YOUR_CALM
    assert all(ear.was_cut == 1 for ear in bench.ears.values())


def test_withdrawing_answered_calls_is_free() -> None:
    bench = Bench()
    for stream in range(1, 201, 2):
        bench.say(bench.peer.headers(stream))
        bench.ears[stream].stream.head(request.HEAD)
        bench.say(number("RST_STREAM", stream, 8))
    assert bench.connection.fault is None


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_continuation_flood_ends_the_connection(size: int) -> None:
    bench = Bench()
    bench.say(frame("HEADERS", 1, b"\x82"))
    pieces = [frame("CONTINUATION", 1, b"\x82" * size)] * 9
    bench.ends(wire.ENHANCE_YOUR_CALM, *pieces)


def test_a_peer_that_asks_much_and_reads_nothing_is_hung_up_on() -> None:
    allowance = Allowance(useless_max=10**9)
    bench = Bench(allowance)
    bench.connection.sender.held = True
    pings = frame("PING", 0, b"12345678") * 1000
    for _ in range(UNTAKEN_BYTES_MAX // 17_000 + 2):
        bench.connection.receive(pings, 0.0)
    assert bench.connection.fault is not None
    assert bench.connection.fault.code == wire.ENHANCE_YOUR_CALM


def test_connection_window_is_kept() -> None:
    bench = Bench()
    bench.say(*(bench.peer.headers(stream) for stream in (1, 3, 5, 7)))
    credited = 0
    for _ in range(3):
        for stream in (1, 3, 5, 7):
            said = bench.say(frame("DATA", stream, b"x" * 300))
            credited += sum(item.number for item in said if item.stream == 0)
    assert credited == 3600, "what a call does not read holds up no other call"


def test_a_stream_is_credited_as_it_is_read() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1))
    assert bench.say(frame("DATA", 1, b"x" * 900)) == []
    stream = bench.ears[1].stream
    stream.credit(200)
    assert bench.taken() == []
    stream.credit(100)
    (update,) = bench.taken()
    assert (update.stream, update.number) == (1, 300)
    bench.say(frame("DATA", 1, b"x" * 400))
    assert bench.ears[1].was_cut == 0


def test_data_waits_for_windows_and_streams_take_turns() -> None:
    bench = Bench(Allowance(), (4, 100))
    bench.say(bench.peer.headers(1), bench.peer.headers(3))
    for number_ in (1, 3):
        bench.ears[number_].stream.head(request.HEAD)
        bench.ears[number_].stream.send(bytes(250))
        bench.ears[number_].stream.finish(request.OK_TAIL)
    sent = [item for item in bench.taken() if item.kind == "DATA"]
    assert [(item.stream, len(item.payload)) for item in sent] == [(1, 100), (3, 100)]
    assert bench.say(number("WINDOW_UPDATE", 0, 1000)) == []
    (more,) = bench.say(number("WINDOW_UPDATE", 3, 10))
    assert (more.stream, len(more.payload)) == (3, 10)
    rest = bench.say(settings((4, 300)))
    sizes = {1: 0, 3: 0}
    for item in rest:
        if item.kind == "DATA":
            sizes[item.stream] += len(item.payload)
    assert sizes == {1: 150, 3: 140}
    assert [item.kind for item in rest].count("HEADERS") == 2


def test_windows_that_shrink_below_zero_are_waited_for() -> None:
    bench = Bench(Allowance(), (4, 1000))
    bench.say(bench.peer.headers(1, end=True))
    stream = bench.ears[1].stream
    stream.head(request.HEAD)
    stream.send(bytes(800))
    bench.taken()
    bench.say(settings((4, 100)))
    assert stream.send_window == -700
    stream.send(bytes(50))
    assert bench.taken() == [] and bench.ears[1].drains == 0
    assert bench.say(number("WINDOW_UPDATE", 1, 700)) == []
    (data,) = bench.say(number("WINDOW_UPDATE", 1, 60))
    assert len(data.payload) == 50 and bench.ears[1].drains == 1


def test_nothing_is_given_out_while_the_transport_is_full() -> None:
    bench = Bench(Allowance())
    bench.say(bench.peer.headers(1))
    bench.connection.sender.held = True
    stream = bench.ears[1].stream
    stream.respond(request.HEAD, b"answer", request.OK_TAIL)
    assert bench.taken() == []
    bench.connection.sender.held = False
    kinds = [item.kind for item in bench.taken()]
    assert kinds == ["HEADERS", "DATA", "HEADERS", "RST_STREAM"]


def test_a_peer_with_a_smaller_table_is_told_that_we_use_none() -> None:
    bench = Bench(ALLOWANCE, (1, 0))
    bench.peer.decoder.max_allowed_table_size = 0
    bench.say(bench.peer.call(1, b"x"), bench.peer.call(3, b"x"))
    for stream in (1, 3):
        bench.ears[stream].stream.respond(request.HEAD, b"", request.OK_TAIL)
    blocks = [item.payload for item in bench.taken() if item.kind == "HEADERS"]
    assert blocks[0][:1] == b"\x20" and all(block[:1] != b"\x20" for block in blocks[1:])
    for block in blocks:
        bench.peer.read(block)


def test_long_trailers_are_cut_into_frames() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1, end=True))
    bench.ears[1].stream.finish(request.only_tail(Code.NOT_FOUND, "ä" * 4096))
    sent = bench.taken()
    assert [item.kind for item in sent] == ["HEADERS", "CONTINUATION"]
    assert [item.flags for item in sent] == [1, 4]
    bench.peer.decoder.max_header_list_size = 1 << 20
    told = bench.peer.read(b"".join(item.payload for item in sent))
    assert told["grpc-message"] == "%C3%A4" * 4096


def test_a_lost_connection_cuts_every_stream_once() -> None:
    bench = Bench()
    bench.say(bench.peer.headers(1), bench.peer.headers(3))
    bench.connection.lost()
    bench.connection.lost()
    assert [ear.was_cut for ear in bench.ears.values()] == [1, 1]
    bench.ears[1].stream.respond(request.HEAD, b"", request.OK_TAIL)
    assert bench.taken() == []
