"""The allocator's plans fit into entries of the log, however large the nodes are."""

from __future__ import annotations

import pytest

from swarmd import api
from swarmd.base.limits import entry_bytes_max
from tests.harness.planners import carry_out
from tests.unit.test_allocator import Lab


@pytest.fixture
def lab() -> Lab:
    lab = Lab()
    lab.settle()
    return lab


def add_nodes(lab: Lab, count: int, size: int) -> None:
    for number in range(count):
        node = api.Node(id=f"node{number:03}")
        node.description.hostname = "h" * size
        lab.change(lambda tx, node=node: tx.create(node))


@pytest.mark.parametrize(("count", "size"), [(150, 12_000), (8, 250_000), (3, 1_000_000)])
def test_many_nodes_are_attached_in_several_entries(lab: Lab, count: int, size: int) -> None:
    add_nodes(lab, count, size)
    attached = 0
    for number in range(count):
        plan = lab.plan()
        lab.memo = plan.memo
        if not plan.changes:
            break
        total = sum(change.object.ByteSize() for change in plan.changes)
        assert total <= entry_bytes_max - 64 * len(plan.changes)
        attached += len(plan.changes)
        carry_out(lab.store, plan, 100 + number)
    assert attached == count
    addresses = {lab.addresses(f"node{number:03}")["ingress"][0] for number in range(count)}
    assert len(addresses) == count


def test_a_node_too_large_for_any_entry_does_not_hold_up_the_others(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    add_nodes(lab, 1, entry_bytes_max - 100)
    lab.change(lambda tx: tx.create(api.Node(id="zz")))
    last = lab.settle()
    assert lab.addresses("zz")["ingress"] and not lab.addresses("node000")
    assert last.wake_at is not None
    assert "too large to be written" in caplog.text
    caplog.clear()
    lab.plan()
    assert not caplog.messages, "said once"
