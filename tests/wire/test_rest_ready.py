"""Answers known whole, as clients of every kind see them on the connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmd import api
from swarmd.faces.http.ready import Heads
from tests.wire.rest_kit import FakeBackend, Rest, serving


async def said(rest: Rest, asked: bytes) -> bytes:
    """Everything that comes back until the connection ends; we say nothing more after `asked`."""
    reader, writer = await asyncio.open_unix_connection(rest.path)
    writer.write(asked)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: docker", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_requests_in_one_packet_are_answered_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        closing = get("/v1.41/unknown", "Connection: close")
        whole = await said(rest, get("/nodes/a/b/c/d") + get("/v9.9/nodes") + closing)
    heads = whole.split(b"HTTP/1.1 ")[1:]
    assert [head[:3] for head in heads] == [b"404", b"400", b"404"]
    assert b"Connection: close" not in heads[0]
    assert b"Connection: close" in heads[2]
    for head in heads:
        assert head.count(b"Content-Length: ") == head.count(b"Date: ") == 1
        assert b"Content-Type: application/json" in head
        block, _, body = head.partition(b"\r\n\r\n")
        length = next(line for line in block.split(b"\r\n") if line.startswith(b"Content-Length"))
        assert int(length.split(b": ")[1]) == len(body) > 0


async def test_a_head_request_gets_no_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as rest:
        whole = await said(rest, get("/nodes", "Connection: close", method="HEAD"))
    assert whole.startswith(b"HTTP/1.1 404 ")
    assert whole.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("headers", [(), ("Connection: keep-alive",)])
async def test_an_old_client_is_answered_in_its_version(
    tmp_path: Path, headers: tuple[str, ...]
) -> None:
    async with serving(tmp_path) as rest:
        asked = get("/nodes/a/b/c/d", *headers, version="1.0")
        if headers:
            asked += get("/nodes/a/b/c/d", version="1.0")
        whole = await said(rest, asked)
    assert whole.count(b"HTTP/1.0 404 ") == 1 + len(headers)


async def test_a_long_answer_comes_whole(tmp_path: Path) -> None:
    backend = FakeBackend()
    nodes = [api.Node(id=f"{number:025d}") for number in range(3000)]
    backend.caller.answers["Control/ListNodes"] = api.ListNodesResponse(nodes=nodes)
    async with serving(tmp_path, backend) as rest:
        found = await rest.get("/v1.41/nodes")
    assert [node["ID"] for node in found] == [node.id for node in nodes]


def test_a_head_knows_its_date_for_a_second() -> None:
    heads = Heads({"Server": "x"})
    one, again, other = (
        heads.head(status, 5, now) for status, now in ((200, 1), (200, 1.9), (404, 1))
    )
    assert one == again
    assert one.startswith(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\nDate: ")
    assert other.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert one.endswith(b" GMT\r\n\r\n")
