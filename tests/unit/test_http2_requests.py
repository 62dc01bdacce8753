"""What headers of a call mean, how messages are cut, how answers are written."""

from __future__ import annotations

import pytest
from hpack import Decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.base import limits
from swarmd.base.errors import Code, NotFound
from swarmd.rpc.http2 import headers, request, wire
from swarmd.rpc.http2.headers import HeaderReader
from swarmd.rpc.http2.messages import Messages, Oversized, framed
from swarmd.rpc.http2.request import Refused
from swarmd.rpc.http2.wire import StreamFault
from swarmd.rpc.status import refusal_of
from tests.harness.h2peer import CALL, message

BASE = [(name.encode(), value.encode()) for name, value in CALL]


def changed(name: str, value: str | None) -> list[tuple[bytes, bytes]]:
    """The usual headers with one of them replaced or left out."""
    kept = [(key, old) for key, old in BASE if key != name.encode()]
    if value is None:
        return kept
    at = [key for key, _ in BASE].index(name.encode())
    return [*kept[:at], (name.encode(), value.encode()), *kept[at:]]


def test_the_usual_request() -> None:
    got = request.read(BASE)
    assert (got.path, got.metadata, got.timeout) == (BASE[2][1], [], None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600.0), ("2M", 120.0), ("30S", 30.0), ("4999m", 4.999), ("4999923u", 4.999923),
        ("99999999n", 0.099999999), ("0S", 0.0), ("00000001S", 1.0),
    ],
)  # fmt: skip
def test_timeouts(text: str, seconds: float) -> None:
    got = request.read([*BASE, (b"grpc-timeout", text.encode())])
    assert got.timeout == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "S", "123456789S", "1s", "-1S", "1.5S", "1 S", "1SS"])
def test_impossible_timeouts(text: str) -> None:
    with pytest.raises(Refused, match="malformed grpc-timeout") as refused:
        request.read([*BASE, (b"grpc-timeout", text.encode())])
    assert (refused.value.code, refused.value.http) == (Code.INTERNAL, 400)


def test_metadata_keeps_order_repeats_and_empty_values() -> None:
    more = [
        (b"forwarded_cert", b"true"), (b"forwarded_cert_ou", b"a"), (b"grpc-trace-bin", b"AA"),
        (b"forwarded_cert_cn", b""), (b"forwarded_cert_ou", b"b"), (b"user-agent", b"x"),
    ]  # fmt: skip
    assert request.read([*BASE, *more]).metadata == [
        ("forwarded_cert", "true"),
        ("forwarded_cert_ou", "a"),
        ("forwarded_cert_cn", ""),
        ("forwarded_cert_ou", "b"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", [b""]), ("AAE=", [b"\0\1"]), ("AAE", [b"\0\1"]), ("AAE,/w", [b"\0\1", b"\xff"]),
        ("AAE=, /w==", [b"\0\1", b"\xff"]),
    ],
)  # fmt: skip
def test_binary_metadata(value: str, expected: list[bytes]) -> None:
    got = request.read([*BASE, (b"x-bin", value.encode())]).metadata
    assert got == [("x-bin", item) for item in expected]


@pytest.mark.parametrize("value", [b"A", b"!!!!", b"AA=A", b"\xff\xff"])
def test_binary_metadata_that_is_none(value: bytes) -> None:
    with pytest.raises(Refused, match="malformed binary metadata"):
        request.read([*BASE, (b"x-bin", value)])


@pytest.mark.parametrize(
    "fields",
    [
        changed(":method", None),
        changed(":path", None),
        changed(":scheme", None),
        [*BASE, (b":path", b"/again")],
        [BASE[0], *BASE],
        [*BASE, (b":status", b"200")],
        [*BASE, (b":protocol", b"x")],
        [BASE[5], *BASE],
        [*BASE, (b"Upper", b"x")],
        [*BASE, (b"sp ace", b"x")],
        [*BASE, (b"", b"x")],
        [*BASE, (b"x", b"a\nb")],
        [*BASE, (b"x", b"a\0b")],
        [*BASE, (b"x", b"\xc3\xa4")],
        [*BASE, (b"connection", b"close")],
        [*BASE, (b"transfer-encoding", b"chunked")],
    ],
)
def test_what_is_no_http_request(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(StreamFault) as fault:
        request.read(fields)
    assert fault.value.code == wire.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("fields", "code", "http", "text"),
    [
        (changed("content-type", "text/html"), Code.INVALID_ARGUMENT, 415,
         'invalid gRPC request content-type "text/html"'),
        (changed("content-type", None), Code.INVALID_ARGUMENT, 415,
         'invalid gRPC request content-type ""'),
        (changed("content-type", "application/grpcx"), Code.INVALID_ARGUMENT, 415,
         'invalid gRPC request content-type "application/grpcx"'),
        (changed(":method", "GET"), Code.INTERNAL, 405,
         'Received a HEADERS frame with :method "GET" which should be POST'),
        ([*BASE, (b"grpc-encoding", b"gzip")], Code.UNIMPLEMENTED, 200,
         'grpc: Decompressor is not installed for grpc-encoding "gzip"'),
    ],
)  # fmt: skip
def test_what_is_no_grpc_call(
    fields: list[tuple[bytes, bytes]], code: Code, http: int, text: str
) -> None:
    with pytest.raises(Refused) as refused:
        request.read(fields)
    assert (refused.value.code, refused.value.http, str(refused.value)) == (code, http, text)


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=x"])
def test_other_names_of_grpc(kind: str) -> None:
    assert request.read(changed("content-type", kind)).path == BASE[2][1]


def test_identity_is_no_compression() -> None:
    assert request.read([*BASE, (b"grpc-encoding", b"identity")]).metadata == []


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain text, 'quoted'", b"plain text, 'quoted'"),
        ("100%", b"100%25"),
        ("a\nb\x7f", b"a%0Ab%7F"),
        ("größer", b"gr%C3%B6%C3%9Fer"),
        ("\ud800", b"?"),
        ("", b""),
    ],
)
def test_error_texts_are_percent_encoded(text: str, written: bytes) -> None:
    assert request.escaped(text) == written


@pytest.mark.parametrize("code", list(Code))
@pytest.mark.parametrize("http", [200, 405, 415, 431])
def test_an_answer_of_trailers_only(code: Code, http: int) -> None:
    got = dict(Decoder().decode(request.only_tail(code, "why", http)))
    assert got[":status"] == str(http) and got["grpc-status"] == str(int(code))
    assert got["content-type"] == "application/grpc"
    assert got.get("grpc-message") == (None if code is Code.OK else "why")


@given(st.binary(max_size=300), st.binary(max_size=5_000))
@settings(max_examples=50, deadline=None)
def test_literals_are_read_back_by_the_library(name: bytes, value: bytes) -> None:
    decoder = Decoder(max_header_list_size=1 << 20)
    assert list(decoder.decode(headers.literal(name, value), raw=True)) == [(name, value)]
    assert not decoder.header_table.dynamic_entries


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
@settings(max_examples=50, deadline=None)
def test_messages_come_out_whole_however_they_are_cut(
    bodies: list[bytes], data: st.DataObject
) -> None:
    raw = b"".join(map(framed, bodies))
    cutter, found = Messages(), []
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        found += cutter.feed(raw[:size])
        raw = raw[size:]
    assert found == bodies and not cutter.partial


def test_half_a_message_is_known_to_be_half() -> None:
    cutter = Messages()
    assert cutter.feed(framed(b"abc")[:-1]) == [] and cutter.partial
    assert cutter.feed(b"c\0") == [b"abc"] and cutter.partial


def test_a_too_large_message_is_refused_by_its_length_alone() -> None:
    size = limits.receive_bytes_max + 1
    with pytest.raises(Oversized) as refused:
        Messages().feed(b"\0" + size.to_bytes(4, "big"))
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert str(refused.value) == (
        f"grpc: received message larger than max ({size} vs. {limits.receive_bytes_max})"
    )
    assert Messages().feed(b"\0" + (size - 1).to_bytes(4, "big")) == []


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        (1, "grpc: compressed flag set with identity or empty encoding"),
        (2, "grpc: received unexpected payload format 2"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"abc"])
def test_flags_of_messages(flag: int, text: str, body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Messages().feed(message(body, flag))
    assert (refused.value.code, str(refused.value)) == (Code.INTERNAL, text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("no such thing", 13),
        ("\u00e9" * 900, 900),
        ("\u00e9" * 5000, 700),
        ("\u8a9e" * 3000, 450),
        ("\U0001f40b" * 600, 300),
        ("x" * 5000, 4095),
    ],
)
def test_a_refusal_fits_into_the_headers_of_its_reader(text: str, kept: int) -> None:
    """Trailers that are too long hide the reason they carry."""
    refusal = refusal_of("Control/GetNetwork", NotFound(text))
    block = request.only_tail(refusal.code, refusal.text)
    assert len(block) < 8192 and HeaderReader().read(block) is not None
    assert refusal.text == text or refusal.text.startswith(text[:kept])
    assert refusal.text == text or refusal.text.endswith("\u2026")
