"""The rules of HTTP/2 and gRPC for a client, one by one, without any socket."""

from __future__ import annotations

import struct

import pytest

from swarmd.base.errors import Code, DeadlineExceeded, InvalidArgument
from swarmd.rpc.http2 import outgoing, request, response, wire
from swarmd.rpc.http2.headers import LIST_BYTES_MAX, HeaderReader
from swarmd.rpc.http2.outgoing import Outgoing
from swarmd.rpc.peer import ClosedHere, Disconnected
from tests.harness.h2peer import Frame, frame, message, number, settings
from tests.harness.h2server import HEAD, TAIL, Answer, Far, Fields


def far(*pairs: tuple[int, int], client: Outgoing | None = None) -> Far:
    """A connection that both sides have begun."""
    made = Far(client or Outgoing())
    made.heard()
    made.begin(*pairs)
    return made


def status(fields: Fields) -> Fields:
    """Trailers alone."""
    return (*HEAD, *fields)


def test_the_client_speaks_first() -> None:
    at = Far(Outgoing(window_bytes=20_000))
    one, two = at.heard()
    assert dict(struct.iter_unpack(">HL", one.payload)) == {
        wire.ENABLE_PUSH: 0,
        wire.INITIAL_WINDOW_SIZE: 20_000,
        wire.MAX_HEADER_LIST_SIZE: LIST_BYTES_MAX,
    }
    assert (two.kind, two.stream, two.number) == ("WINDOW_UPDATE", 0, 80_000 - 65_535)
    assert at.begin((3, 10)) == [Frame("SETTINGS", 1, 0, b"")]


def test_a_call_from_end_to_end() -> None:
    at = far()
    answer, exchange = at.ask(b"beat")
    head, data = at.heard()
    assert (head.stream, head.flags, data.flags) == (1, 4, 1)
    assert at.read(head.payload) == {
        ":method": "POST",
        ":scheme": "https",
        ":path": "/docker.swarmkit.v1.Raft/ProcessRaftMessage",
        ":authority": "10.0.0.1:2377",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    assert not at.decoder.header_table.dynamic_entries
    assert data.payload == message(b"beat")
    assert at.say(at.whole(1, b"yes")) == []
    assert (answer.result, answer.error, answer.given) == (b"yes", None, 1)
    assert not at.client.streams and exchange.over
    exchange.withdraw()
    assert at.heard() == []


def test_what_our_servers_say_is_known_by_its_bytes() -> None:
    reader = HeaderReader()
    for block, fields in outgoing._OURS.items():
        assert reader.read(block) == fields
    assert not reader._table.dynamic_entries
    at = far()
    answer, _ = at.ask()
    at.say(
        frame("HEADERS", 1, request.HEAD, 4),
        frame("DATA", 1, message(b"y")),
        frame("HEADERS", 1, request.OK_TAIL, 5),
    )
    assert answer.result == b"y"


def test_numbers_of_streams_are_odd_and_used_once() -> None:
    at = far()
    for stream in (1, 3, 5):
        answer, _ = at.ask()
        assert {item.stream for item in at.heard()} == {stream}
        at.say(at.whole(stream, b""))
        assert answer.result == b""


def test_a_connection_without_numbers_left_takes_no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "LAST_STREAM", 3)
    at = far((3, 1))
    answers = [at.ask()[0] for _ in range(3)]
    at.say(at.whole(1, b"1"))
    at.say(at.whole(3, b"3"))
    assert [answer.result for answer in answers] == [b"1", b"3", None]
    assert isinstance(answers[2].error, Disconnected)
    assert not at.client.usable and isinstance(at.ask()[0].error, Disconnected)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2000000u"), (0.05, "50000000n"), (1e-12, "1n"), (0, "1n"), (100.0, "100000m"),
     (1e6, "1000000S"), (1e9, "16666667M"), (1e11, "27777778H")],
)  # fmt: skip
def test_timeouts(seconds: float, text: str) -> None:
    field = response.timeout_field(seconds)
    assert Far().read(field) == {"grpc-timeout": text}
    assert response.timeout_field(1e13) == b""


def test_metadata() -> None:
    raw = response.metadata_fields([("forwarded_cert_ou", "a"), ("x", ""), ("K-bin", "hm?")])
    assert Far().read(raw) == {"forwarded_cert_ou": "a", "x": "", "k-bin": "aG0/"}
    for pair in (("x y", "a"), (":path", "a"), ("grpc-timeout", "1S"), ("x", "ü"), ("x", "\n")):
        with pytest.raises(InvalidArgument, match="metadata"):
            response.metadata_fields([pair])


# Answers


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        (status((("grpc-status", "5"), ("grpc-message", "gr%C3%B6%zz%25"))), 5, "grö%zz%"),
        (status((("grpc-status", "99"),)), 2, ""),
        (status((("grpc-status", "x"),)), 13, "malformed grpc-status: x"),
        (status((("grpc-status", "1" * 10),)), 13, "malformed grpc-status: 1111111111"),
        (status(()), 13, "the answer ended without a status"),
        (((":status", "503"),), 14, "unexpected HTTP status code received from server: 503"),
        (((":status", "404"), *TAIL), 12, "unexpected HTTP status code received from server: 404"),
        (((":status", "418"),), 2, "unexpected HTTP status code received from server: 418"),
        (((":status", "200"), ("content-type", "text/html")), 2,
         'unexpected content-type "text/html"'),
        (((":status", "431"), *tuple(HEAD)[1:], ("grpc-status", "8")), 8, ""),
    ],
)  # fmt: skip
def test_calls_that_end_badly(fields: Fields, code: int, text: str) -> None:
    at = far()
    answer, _ = at.ask()
    at.heard()
    assert at.say(at.headers(1, fields, True)) == []
    assert answer.error is not None and answer.given == 1
    assert (answer.error.code, answer.error.message) == (code, text)
    assert not at.client.streams and at.client.usable


def test_status_behind_a_message_counts() -> None:
    at = far()
    answer, _ = at.ask()
    tail = at.headers(1, (("grpc-status", "10"), ("grpc-message", "no")), True)
    at.say(at.headers(1), frame("DATA", 1, message(b"x")), tail)
    assert answer.error is not None and answer.error.code == Code.ABORTED


def test_an_answer_without_message_is_none() -> None:
    at = far()
    one, two = at.ask()[0], at.ask()[0]
    at.say(at.headers(1, status(TAIL), True))
    at.say(at.headers(3), at.headers(3, TAIL, True))
    assert [(a.result, a.error, a.given) for a in (one, two)] == [(None, None, 1)] * 2


def test_what_is_no_grpc_is_not_waited_for() -> None:
    at = far()
    answer, _ = at.ask()
    at.heard()
    (reset,) = at.say(at.headers(1, ((":status", "502"), ("content-type", "text/html"))))
    assert (reset.kind, reset.number) == ("RST_STREAM", wire.CANCEL)
    assert answer.error is not None and answer.error.code == Code.UNAVAILABLE
    assert at.say(frame("DATA", 1, b"<html>", 1)) == [] and at.client.usable


def test_informational_answers_are_passed_over() -> None:
    at = far()
    answer, _ = at.ask()
    at.say(at.headers(1, ((":status", "103"), ("link", "x"))), at.whole(1, b"y"))
    assert answer.result == b"y"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (frame("DATA", 1, message(b"x") * 2), "more than one message"),
        (frame("DATA", 1, message(b"x")) + frame("DATA", 1, message(b"y")), "more than one"),
        (frame("DATA", 1, message(b"x", 1)), "compressed flag set"),
        (frame("DATA", 1, message(b"x", 7)), "unexpected payload format 7"),
        (frame("DATA", 1, b"\0\0\0\x04\1"), "larger than max"),
    ],
)
def test_messages_that_cannot_be_taken(data: bytes, text: str) -> None:
    at = far(client=Outgoing(answer_bytes_max=1024))
    answer, _ = at.ask()
    at.heard()
    at.say(at.headers(1))
    (reset,) = at.say(data)
    assert (reset.kind, reset.number) == ("RST_STREAM", wire.CANCEL)
    assert answer.error is not None and text in answer.error.message
    assert at.say(frame("DATA", 1, b"more"), at.headers(1, TAIL, True)) == []
    assert at.client.usable and not at.client.streams


def test_an_answer_refused_at_its_very_end_needs_no_reset() -> None:
    at = far()
    answer, _ = at.ask()
    at.heard()
    assert at.say(at.headers(1), frame("DATA", 1, message(b"x") * 2, 1)) == []
    assert answer.given == 1 and answer.error is not None and not at.client.streams


@pytest.mark.parametrize("body", [b"", message(b"x"), b"\0\0"])
def test_an_end_without_trailers(body: bytes) -> None:
    at = far()
    answer, _ = at.ask()
    at.say(at.headers(1), frame("DATA", 1, body, 1))
    assert answer.error is not None and "without sending trailers" in answer.error.message


def test_half_a_message_is_none() -> None:
    at = far()
    answer, _ = at.ask()
    at.say(at.headers(1), frame("DATA", 1, message(b"whole")[:-1]), at.headers(1, TAIL, True))
    assert answer.error is not None and answer.error.message == "unexpected EOF"


def test_headers_that_are_too_long_cost_their_call_only() -> None:
    at = far()
    answer, other = at.ask()[0], at.ask()[0]
    long = [(f"x-{n}", "y" * 3000) for n in range(6)]
    at.say(at.headers(1, (*HEAD, *long)), at.whole(3, b"fine"))
    assert answer.error is not None and answer.error.code == Code.RESOURCE_EXHAUSTED
    assert other.result == b"fine"


def test_header_blocks_go_on_over_frames_and_padding_is_taken_off() -> None:
    at = far()
    answer, _ = at.ask()
    block = at.encoder.encode(list(HEAD))
    said = [frame("HEADERS", 1, b"\x02\0\0\0\0\1" + block[:3] + b"\0\0", 8 | 32)]
    said += [frame("CONTINUATION", 1, block[3:4]), frame("CONTINUATION", 1, block[4:], 4)]
    at.say(*said, frame("DATA", 1, b"\x05" + message(b"z") + b"\0" * 5, 8))
    at.say(at.headers(1, TAIL, True))
    assert answer.result == b"z"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (wire.NO_ERROR, Code.INTERNAL),
        (wire.PROTOCOL_ERROR, Code.INTERNAL),
        (wire.REFUSED_STREAM, Code.UNAVAILABLE),
        (wire.CANCEL, Code.CANCELLED),
        (wire.ENHANCE_YOUR_CALM, Code.RESOURCE_EXHAUSTED),
        (wire.INADEQUATE_SECURITY, Code.PERMISSION_DENIED),
        (77, Code.INTERNAL),
    ],
)
def test_resets(code: int, kind: Code) -> None:
    at = far()
    answer, other = at.ask()[0], at.ask()[0]
    at.say(at.headers(1), number("RST_STREAM", 1, code), at.whole(3, b"on"))
    assert answer.error is not None and (answer.error.code, answer.given) == (kind, 1)
    assert "RST_STREAM with error code" in answer.error.message
    assert other.result == b"on"
    assert at.say(number("RST_STREAM", 1, code)) == [] and at.client.usable


def test_a_reset_behind_the_deadline_is_the_deadline() -> None:
    at = far()
    answer, _ = at.ask(deadline=5.0)
    at.now = 5.0
    at.say(number("RST_STREAM", 1, wire.CANCEL))
    assert isinstance(answer.error, DeadlineExceeded)


def test_withdrawn_and_expired_calls_are_reset_and_their_late_answers_ignored() -> None:
    at = far()
    (gone, exchange), (late, expired) = at.ask(), at.ask()
    at.heard()
    exchange.withdraw()
    expired.expire()
    assert [(f.stream, f.number) for f in at.heard()] == [(1, 8), (3, 8)]
    assert gone.given == 0 and isinstance(late.error, DeadlineExceeded)
    assert at.say(at.whole(1, b"late"), at.headers(3)) == []
    assert at.say(number("RST_STREAM", 3, 0), at.headers(3, TAIL, True))[-1].kind == "GOAWAY"


# Rules that end the connection, or one call


OPEN = object()
"""Stands for the headers of the first answer."""
WHOLE = object()
"""Stands for the whole of it."""


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([frame("DATA", 0, b"x")], wire.PROTOCOL_ERROR),
        ([frame("DATA", 2, b"x")], wire.PROTOCOL_ERROR),
        ([frame("DATA", 5, b"x")], wire.PROTOCOL_ERROR),
        ([OPEN, frame("DATA", 1, b"", 8)], wire.PROTOCOL_ERROR),
        ([OPEN, frame("DATA", 1, b"x" * 16385)], wire.FRAME_SIZE_ERROR),
        ([WHOLE, frame("DATA", 1, b"x")], wire.STREAM_CLOSED),
        ([WHOLE, frame("HEADERS", 1, b"\x88", 4)], wire.STREAM_CLOSED),
        ([frame("HEADERS", 0, b"\x88", 4)], wire.PROTOCOL_ERROR),
        ([frame("HEADERS", 2, b"\x88", 4)], wire.PROTOCOL_ERROR),
        ([frame("HEADERS", 5, b"\x88", 4)], wire.PROTOCOL_ERROR),
        ([frame("HEADERS", 1, b"\x80", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\xbe", 4)], wire.COMPRESSION_ERROR),
        ([frame("HEADERS", 1, b"\x88"), frame("PING", 0, b"12345678")], wire.PROTOCOL_ERROR),
        ([frame("CONTINUATION", 1)], wire.PROTOCOL_ERROR),
        ([frame("HEADERS", 1, b"\x88"), *[frame("CONTINUATION", 1)] * 9], wire.ENHANCE_YOUR_CALM),
        ([frame("PUSH_PROMISE", 1, b"\0\0\0\2\x82", 4)], wire.PROTOCOL_ERROR),
        ([settings((2, 1))], wire.PROTOCOL_ERROR),
        ([settings((4, 2**31))], wire.FLOW_CONTROL_ERROR),
        ([settings((5, 1))], wire.PROTOCOL_ERROR),
        ([frame("SETTINGS", 1)], wire.PROTOCOL_ERROR),
        ([frame("PING", 0, b"1")], wire.FRAME_SIZE_ERROR),
        ([frame("RST_STREAM", 1, b"1")], wire.FRAME_SIZE_ERROR),
        ([number("RST_STREAM", 5, 8)], wire.PROTOCOL_ERROR),
        ([frame("GOAWAY", 0, b"1")], wire.FRAME_SIZE_ERROR),
        ([frame("GOAWAY", 1, b"12345678")], wire.PROTOCOL_ERROR),
        ([number("WINDOW_UPDATE", 0, 0)], wire.PROTOCOL_ERROR),
        ([number("WINDOW_UPDATE", 0, 2**31 - 1)], wire.FLOW_CONTROL_ERROR),
        ([frame("PING", 0, b"12345678", 1)] * 20_003, wire.ENHANCE_YOUR_CALM),
    ],
)  # fmt: skip
def test_these_end_the_connection(said: list[object], code: int) -> None:
    at = far((3, 2))
    answers = [at.ask()[0] for _ in range(3)]
    at.heard()
    pieces = {OPEN: lambda: at.headers(1), WHOLE: lambda: at.whole(1, b"x")}
    data = b"".join(item if isinstance(item, bytes) else pieces[item]() for item in said)
    last = at.say(data)[-1]
    assert (last.kind, last.number) == ("GOAWAY", code)
    assert last.payload[:4] == b"\0\0\0\0", "the server opened nothing"
    assert at.client.fault is not None and not at.client.usable and not at.client.streams
    assert all(answer.given == 1 for answer in answers)
    assert isinstance(answers[2].error, Disconnected)
    assert at.say(b"more") == []


def test_settings_come_first() -> None:
    at = Far()
    at.heard()
    (said,) = at.say(frame("PING", 0, b"12345678"))
    assert (said.kind, said.number) == ("GOAWAY", wire.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (frame("DATA", 1, b"x"), wire.PROTOCOL_ERROR),
        (frame("HEADERS", 1, b"\x82", 4), wire.PROTOCOL_ERROR),
        (frame("HEADERS", 1, b"\x88\x88", 4), wire.PROTOCOL_ERROR),
        (frame("HEADERS", 1, b"\x08\x0210", 4), wire.PROTOCOL_ERROR),
        (frame("HEADERS", 1, b"\x00\x01a\x01b\x88", 4), None),
        (frame("HEADERS", 1, b"\x08\x03103", 5), wire.PROTOCOL_ERROR),
        (frame("HEADERS", 3, b"\x0f\x10\x01x", 4), wire.PROTOCOL_ERROR),
        (frame("HEADERS", 3, b"\x88", 5), wire.PROTOCOL_ERROR),
        (frame("DATA", 3, b"x" * 1001), wire.FLOW_CONTROL_ERROR),
        (number("WINDOW_UPDATE", 1, 0), wire.PROTOCOL_ERROR),
        (number("WINDOW_UPDATE", 3, 2**31 - 1), wire.FLOW_CONTROL_ERROR),
        (frame("PRIORITY", 1, b"1234"), wire.FRAME_SIZE_ERROR),
    ],
)
def test_these_end_one_call_and_no_other(said: bytes, code: int | None) -> None:
    at = far(client=Outgoing(window_bytes=1000))
    answers = [at.ask()[0] for _ in range(3)]
    at.say(at.headers(3))
    reset = at.say(said)[-1]
    assert reset.kind == "RST_STREAM" and (code is None or reset.number == code)
    failed = answers[reset.stream // 2]
    assert failed.error is not None and failed.given == 1
    assert sum(answer.given for answer in answers) == 1
    at.say(at.whole(5, b"fine"))
    assert answers[2].result == b"fine" and at.client.usable


@pytest.mark.parametrize(
    "said",
    [
        frame("PRIORITY", 1, b"\0\0\0\0\1"),
        b"\0\0\3\x42\0\0\0\0\0abc",
        frame("PING", 0, b"12345678", 1),
        frame("SETTINGS", 0, b"", 1),
        number("WINDOW_UPDATE", 0, 5),
    ],
)
def test_these_are_ignored(said: bytes) -> None:
    at = far()
    answer, _ = at.ask()
    at.heard()
    assert at.say(said) == []
    at.say(at.whole(1, b"on"))
    assert answer.result == b"on"


def test_pings_are_answered() -> None:
    at = far()
    assert at.say(frame("PING", 0, b"12345678")) == [Frame("PING", 1, 0, b"12345678")]


def test_pings_that_follow_our_calls_are_free() -> None:
    """grpc-go measures the line with one per round trip."""
    at = far()
    for stream in range(1, 2 * outgoing.USELESS_MAX + 400, 2):
        at.ask()
        at.heard()
        at.say(frame("PING", 0, b"12345678"), at.whole(stream, b""))
    assert at.client.usable


# Windows and turns


def test_requests_wait_for_windows_of_stream_and_connection() -> None:
    at = far((4, 10_000))
    body = bytes(range(256)) * 400
    whole = message(body)
    answer, _ = at.ask(body)
    got = [item for item in at.heard() if item.kind == "DATA"]
    assert sum(len(item.payload) for item in got) == 10_000
    got += at.say(number("WINDOW_UPDATE", 1, 1 << 20))
    assert sum(len(item.payload) for item in got) == 65_535
    assert all(len(item.payload) <= 16_384 and not item.flags for item in got)
    got += at.say(number("WINDOW_UPDATE", 0, 1 << 20))
    assert b"".join(item.payload for item in got) == whole
    assert [item.flags for item in got][-1] == 1 and sum(item.flags for item in got) == 1
    at.say(at.whole(1, b"done"))
    assert answer.result == b"done"


def test_smaller_windows_hold_back_and_larger_ones_let_go() -> None:
    at = far()
    at.ask(bytes(100_000))
    at.heard()
    assert at.say(settings((4, 1000)), number("WINDOW_UPDATE", 0, 10**6))[0].kind == "SETTINGS"
    more = at.say(settings((4, 80_000)))
    assert sum(len(item.payload) for item in more if item.kind == "DATA") == 80_000 - 65_535


def test_an_early_answer_ends_what_is_left_of_the_request() -> None:
    at = far((4, 100))
    answer, _ = at.ask(bytes(1000))
    at.heard()
    (reset,) = at.say(at.headers(1, status((("grpc-status", "8"),)), True))
    assert (reset.kind, reset.number) == ("RST_STREAM", wire.CANCEL)
    assert answer.error is not None and answer.error.code == Code.RESOURCE_EXHAUSTED
    assert at.say(number("WINDOW_UPDATE", 1, 1000), number("RST_STREAM", 1, 0)) == []
    assert at.client.usable


def test_what_was_received_is_given_back() -> None:
    at = far(client=Outgoing(window_bytes=4000))
    answer, _ = at.ask()
    at.heard()
    at.say(at.headers(1))
    whole, given = message(bytes(50_000)), {0: 0, 1: 0}
    for start in range(0, len(whole), 1000):
        for item in at.say(frame("DATA", 1, whole[start : start + 1000])):
            given[item.stream] += item.number
    assert given[1] >= 46_000 and given[0] >= 46_000
    at.say(at.headers(1, TAIL, True))
    assert answer.result == bytes(50_000)


def test_calls_beyond_the_servers_limit_wait_their_turn() -> None:
    at = far((3, 2))
    calls = [at.ask() for _ in range(6)]
    assert {item.stream for item in at.heard()} == {1, 3}
    calls[2][1].withdraw()
    calls[3][1].expire()
    assert at.heard() == []
    assert {item.stream for item in at.say(at.whole(3, b"b"))} == {5}
    calls[0][1].withdraw()
    assert [(item.kind, item.stream) for item in at.heard()] == [
        ("RST_STREAM", 1), ("HEADERS", 7), ("DATA", 7),
    ]  # fmt: skip
    at.say(at.whole(5, b"e"), at.whole(7, b"f"))
    assert [answer.result for answer, _ in calls] == [None, b"b", None, None, b"e", b"f"]
    assert [answer.given for answer, _ in calls] == [0, 1, 0, 1, 1, 1]


def test_a_server_may_raise_its_limit_from_nothing() -> None:
    at = far((3, 0))
    answer, _ = at.ask()
    assert at.heard() == []
    assert [item.kind for item in at.say(settings((3, 1)))] == ["HEADERS", "DATA", "SETTINGS"]
    at.say(at.whole(1, b"x"))
    assert answer.result == b"x"


def test_a_hundred_calls_before_the_servers_settings() -> None:
    at = Far()
    for _ in range(101):
        at.ask()
    assert sum(item.kind == "HEADERS" for item in at.heard()) == 100


def test_a_smaller_header_table_is_acknowledged_once() -> None:
    at = far((1, 0))
    at.ask()
    at.ask()
    blocks = [item.payload for item in at.heard() if item.kind == "HEADERS"]
    assert [block[:1] for block in blocks] == [b"\x20", b"\x83"]


def test_a_full_transport_holds_data_back() -> None:
    at = far()
    at.client.sender.held = True
    answer, _ = at.ask(b"x" * 100)
    assert at.heard() == []
    at.client.sender.held = False
    assert [item.kind for item in at.heard()] == ["HEADERS", "DATA", "DATA"]
    at.say(at.whole(1, b"y"))
    assert answer.result == b"y"


# Ends


def test_goodbye_fails_what_was_not_looked_at_and_lets_the_rest_finish() -> None:
    at = far((3, 2))
    calls = [at.ask()[0] for _ in range(3)]
    at.heard()
    at.say(frame("GOAWAY", 0, b"\0\0\0\1" + b"\0\0\0\0bye"))
    assert not at.client.usable and at.client.fault is None
    assert [type(answer.error) for answer in calls] == [type(None), Disconnected, Disconnected]
    assert isinstance(at.ask()[0].error, Disconnected)
    at.say(at.whole(1, b"last"))
    assert calls[0].result == b"last" and not at.client.streams


def test_a_goodbye_in_two_steps_as_grpc_go_says_it() -> None:
    at = far()
    one, two = at.ask()[0], at.ask()[0]
    at.heard()
    said = at.say(frame("GOAWAY", 0, b"\x7f\xff\xff\xff\0\0\0\0"), frame("PING", 0, b"12345678"))
    assert [item.kind for item in said] == ["PING"]
    at.say(frame("GOAWAY", 0, b"\0\0\0\3\0\0\0\0"), at.whole(1, b"1"), at.whole(3, b"2"))
    assert (one.result, two.result) == (b"1", b"2")


def test_a_lost_connection_fails_every_call_once() -> None:
    at = far((3, 1))
    answers = [at.ask()[0] for _ in range(2)]
    at.client.why = lambda: ClosedHere("closing")
    at.client.lost()
    at.client.lost()
    assert [type(answer.error) for answer in answers] == [ClosedHere, ClosedHere]
    assert [answer.given for answer in answers] == [1, 1]
    late = Answer()
    at.client.ask(late, b"", b"")
    assert isinstance(late.error, ClosedHere)
