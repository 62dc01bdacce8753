"""HTTP/2 under any cut of the bytes, any header block, any garbage and any windows."""

from __future__ import annotations

from collections.abc import Iterator

from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.rpc.http2 import request, wire
from swarmd.rpc.http2.connection import Allowance, Connection
from swarmd.rpc.http2.headers import Header, HeaderReader
from swarmd.rpc.http2.stream import Stream
from swarmd.rpc.http2.wire import ConnectionFault
from tests.harness import h2peer
from tests.harness.h2peer import KINDS, Peer, frame, frames, message, number


class Log:
    """A connection whose streams note everything in one list, and answer what they got."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.connection = Connection(self.accept, Allowance(streams_max=8, window_bytes=500))
        self.out = b""

    def accept(self, stream: Stream, headers: list[Header] | None) -> Log.Ear:
        self.events.append(("open", stream.id, headers))
        return Log.Ear(self, stream)

    def feed(self, data: bytes) -> None:
        self.connection.receive(data, 0.0)
        while piece := self.connection.sender.take():
            self.out += piece

    class Ear:
        """Answers a request with its own bytes."""

        def __init__(self, log: Log, stream: Stream) -> None:
            self.log, self.stream, self.data = log, stream, b""

        def received(self, data: bytes, ended: bool) -> None:
            self.data += data
            self.stream.credit(len(data))
            if ended:
                self.log.events.append(("end", self.stream.id, self.data))
                self.stream.respond(request.HEAD, self.data, request.OK_TAIL)

        def cut(self) -> None:
            self.log.events.append(("cut", self.stream.id, self.data))

        def drained(self) -> None:
            self.log.events.append(("drained", self.stream.id))


def conversation(draw: st.DrawFn) -> bytes:
    """What a peer that mostly keeps to the rules might say."""
    peer = Peer()
    said = [peer.begin()]
    names = st.sampled_from([("x", "y"), ("x-long", "z" * 200), ("forwarded_cert_ou", "a")])
    for stream in range(1, 2 * draw(st.integers(1, 6)), 2):
        said.append(peer.headers(stream, *draw(st.lists(names, max_size=3))))
        for size in draw(st.lists(st.integers(0, 400), max_size=3)):
            said.append(frame("DATA", stream, bytes(size)))
        said.append(
            draw(
                st.sampled_from(
                    [
                        frame("DATA", stream, b"last", 1),
                        number("RST_STREAM", stream, 8),
                        frame("PING", 0, b"12345678"),
                        number("WINDOW_UPDATE", 0, 1000),
                        frame("DATA", stream + 10, b"never opened"),
                    ]
                )
            )
        )
    return b"".join(said)


conversations = st.composite(conversation)


@given(conversations(), st.data())
@settings(max_examples=50)
def test_any_cut_of_the_bytes_gives_the_same(raw: bytes, data: st.DataObject) -> None:
    whole, pieces = Log(), Log()
    whole.feed(raw)
    rest = raw
    while rest:
        size = data.draw(st.integers(1, min(len(rest), 200)))
        pieces.feed(rest[:size])
        rest = rest[size:]
    assert pieces.events == whole.events
    # When something goes out is another matter; what of each stream does is not.
    assert by_stream(pieces.out) == by_stream(whole.out)


def by_stream(raw: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for item in frames(raw):
        if item.kind in ("HEADERS", "DATA"):
            found[item.stream] = found.get(item.stream, b"") + item.payload
    return found


texts = st.binary(max_size=60)
fields = st.tuples(
    st.sampled_from([b":path", b"content-type", b"x", b"grpc-timeout"]) | texts,
    st.sampled_from([b"", b"application/grpc", b"/a/b"]) | texts,
)


@given(st.lists(st.lists(fields, max_size=12), min_size=1, max_size=12), st.data())
@settings(max_examples=50)
def test_blocks_of_the_librarys_encoder_are_read_right(
    blocks: list[list[Header]], data: st.DataObject
) -> None:
    encoder, reader = Encoder(), HeaderReader()
    for block in blocks:
        if data.draw(st.booleans()):
            encoder.header_table_size = data.draw(st.sampled_from([0, 64, 200, 4096]))
        raw = encoder.encode(block, huffman=data.draw(st.booleans()))
        assert reader.read(raw) == block


@given(st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=120)
def test_garbage_as_header_block_is_a_compression_error_at_worst(blocks: list[bytes]) -> None:
    reader = HeaderReader()
    for block in blocks:
        try:
            reader.read(block)
        except ConnectionFault as fault:
            assert fault.code == wire.COMPRESSION_ERROR


def _frames(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(KINDS))
    payload = draw(st.binary(max_size=40))
    return frame(kind, draw(st.integers(0, 9)), payload, draw(st.integers(0, 255)))


@given(st.lists(st.composite(_frames)() | st.binary(max_size=30), max_size=20), st.booleans())
@settings(max_examples=120)
def test_garbage_never_does_more_than_end_the_connection(pieces: list[bytes], begun: bool) -> None:
    log = Log()
    if begun:
        log.feed(Peer().begin())
    for piece in pieces:
        log.feed(piece)
    said = list(frames(log.out))
    fault = log.connection.fault
    if fault is not None:
        assert (said[-1].kind, said[-1].number) == ("GOAWAY", fault.code)
        assert not log.connection.streams
    opened = [event[1] for event in log.events if event[0] == "open"]
    over = [event[1] for event in log.events if event[0] in ("end", "cut")]
    assert set(over) <= set(opened) and len(opened) == len(set(opened))


class Reader:
    """A client that grants windows as it likes, and checks that they are kept."""

    def __init__(self, window: int) -> None:
        self.initial = window
        self.connection = wire.WINDOW_DEFAULT
        self.streams: dict[int, int] = {}
        self.got: dict[int, bytes] = {}
        self.ended: set[int] = set()

    def take(self, raw: bytes) -> None:
        for item in frames(raw):
            if item.kind == "DATA":
                size = len(item.payload)
                self.connection -= size
                self.streams[item.stream] -= size
                assert self.connection >= 0 and self.streams[item.stream] >= 0
                assert size <= wire.FRAME_BYTES_MAX
                self.got[item.stream] = self.got.get(item.stream, b"") + item.payload
            elif item.kind == "HEADERS" and item.flags & wire.END_STREAM:
                self.ended.add(item.stream)

    def grant(self, size: int) -> Iterator[bytes]:
        """Windows for every stream that is not done, and the connection."""
        yield number("WINDOW_UPDATE", 0, size)
        self.connection += size
        for stream in self.streams:
            if stream not in self.ended:
                self.streams[stream] += size
                yield number("WINDOW_UPDATE", stream, size)


@given(
    st.lists(st.integers(0, 90_000), min_size=1, max_size=5),
    st.sampled_from([0, 1, 1000, 65_535, 10**6]),
    st.lists(st.integers(1, 50_000), max_size=8),
)
@settings(max_examples=40)
def test_windows_are_kept_and_everything_arrives(
    sizes: list[int], window: int, grants: list[int]
) -> None:
    streams: list[Stream] = []

    def accept(stream: Stream, headers: list[Header] | None) -> Log.Ear:
        streams.append(stream)
        return Log.Ear(log, stream)

    log, peer, reader = Log(), Peer(), Reader(window)
    connection = log.connection = Connection(accept, Allowance())
    log.feed(peer.begin((wire.INITIAL_WINDOW_SIZE, window)))
    bodies = {}
    for index, size in enumerate(sizes):
        stream = 2 * index + 1
        log.feed(peer.headers(stream))
        reader.streams[stream] = window
        bodies[stream] = bytes((index + 1,)) * size
        streams[index].head(request.HEAD)
        streams[index].send(bodies[stream])
        streams[index].finish(request.OK_TAIL)
    log.feed(b"")
    for size in [*grants, 10**6, 10**6]:
        reader.take(log.out)
        log.out = b""
        log.feed(b"".join(reader.grant(size)))
    reader.take(log.out)
    assert connection.fault is None
    assert reader.ended == set(bodies)
    assert {stream: reader.got.get(stream, b"") for stream in bodies} == bodies


def test_the_peer_of_these_tests_writes_what_it_should() -> None:
    assert h2peer.PREFACE == wire.PREFACE
    assert frame("DATA", 3, message(b"x"), 1) == wire.frame(wire.DATA, 1, 3, message(b"x"))
