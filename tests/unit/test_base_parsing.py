"""Text of Go peers that is no UTF-8: read all the same, everywhere messages come in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError, Message

from swarmd import api
from swarmd.base import parsing
from swarmd.base.aio import Tasks
from swarmd.base.parsing import parse
from swarmd.manager.raftnode.opening import decode_snapshot
from swarmd.manager.raftnode.proposals import encode_request
from swarmd.rpc import methods
from tests.harness.raftnodes import Group, One, eventually

MARK, LATIN1, SHOWN = "@@", b"\xfcb", "\ufffdb"


def go_bytes(message: Message) -> bytes:
    """As a Go peer may send it: with bytes of another encoding where the mark is."""
    return message.SerializeToString().replace(MARK.encode(), LATIN1)


def a_node() -> api.Node:
    node = api.Node(id="n")
    node.spec.annotations.labels[f"k{MARK}"] = f"v{MARK}"
    node.description.hostname = f"h{MARK}"
    node.description.engine.labels["plain"] = "text"
    node.certificate.csr = MARK.encode()
    node.meta.created_at.seconds = 1_790_000_000
    return node


def test_wrong_bytes_in_texts_are_replaced_and_nothing_else() -> None:
    node = parse(api.Node, go_bytes(a_node()))
    expected = a_node()
    expected.spec.annotations.labels.clear()
    expected.spec.annotations.labels[f"k{SHOWN}"] = f"v{SHOWN}"
    expected.description.hostname = f"h{SHOWN}"
    expected.certificate.csr = LATIN1
    assert node == expected


def test_a_field_of_a_newer_peer_is_kept() -> None:
    newer = b"\xba\x3e\x03\xff\xfe\xfd"  # field 999, bytes
    node = parse(api.Node, go_bytes(a_node()) + newer)
    assert node.SerializeToString().endswith(newer)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_what_is_broken_otherwise_stays_an_error(cut: int) -> None:
    with pytest.raises(DecodeError):
        parse(api.Node, go_bytes(a_node())[:-cut])
    with pytest.raises(DecodeError):
        parse(api.Node, b"\xff")


def test_the_work_for_a_stranger_is_bounded() -> None:
    request = api.UpdateTaskStatusRequest()
    for number in range(3 * parsing.FIELDS_MAX):
        request.updates.add(task_id=f"{number}{MARK}")
    with pytest.raises(DecodeError):
        parse(api.UpdateTaskStatusRequest, go_bytes(request), parsing.FIELDS_MAX)


def test_an_answer_that_names_such_a_node_is_read() -> None:
    answer = api.ListNodesResponse(nodes=[a_node(), api.Node(id="other")])
    read = methods.find("Control/ListNodes").parse(go_bytes(answer))
    assert [node.id for node in read.nodes] == ["n", "other"]


def test_a_snapshot_of_a_stock_leader_is_read() -> None:
    snapshot = api.Snapshot()
    snapshot.store.nodes.append(a_node())
    assert decode_snapshot(go_bytes(snapshot), "here").store.nodes[0].description.hostname == (
        f"h{SHOWN}"
    )


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with Tasks() as tasks:
        yield Group(tmp_path, tasks)


def hostname(one: One) -> str:
    node = one.store.view().get(api.Node, "n")
    return node.description.hostname if node is not None else ""


async def test_an_entry_of_a_stock_leader_is_applied_now_and_after_a_restart(
    group: Group,
) -> None:
    one = await group.found("a")
    action = api.StoreAction(action=api.StoreActionKind.STORE_ACTION_CREATE, node=a_node())
    data = encode_request(1, [action]).replace(MARK.encode(), LATIN1)
    raw = one.node._core()
    one.node._append(partial(raw.propose, data))
    await eventually(lambda: hostname(one) == f"h{SHOWN}")
    await group.stop(one)
    again = await group.start(group.make("a"))
    await eventually(lambda: hostname(again) == f"h{SHOWN}")
