"""Cuts that last, with stock engines: who is unseated by a member that comes back, and who not.

Takes minutes: `make nightly`. The file is named so that no plain run collects it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.nemesis import elections, host_of
from tests.harness.quorum import (
    Node,
    init,
    join,
    label,
    leader,
    wait_leader,
    wait_listed,
)
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]
CUT_SECONDS = 30.0
NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()
    with Lan() as made:
        yield made


def terms(*nodes: Node) -> int:
    return max(elections(nodes), default=0)


def marked(at: Node, name: str, text: str) -> bool:
    """Whether this manager knows of the label; False while it knows nothing."""
    wanted = ("node", "inspect", "--format", "{{.Spec.Labels.mark}}", name)
    return str(at.docker(*wanted, check=False).stdout).strip() == text


def cut_off(node: Node, others: list[Node]) -> None:
    """Away for 30 s while the others go on; back when all is as it was for everybody."""
    host_of(node).unplug()
    time.sleep(CUT_SECONDS)
    label(others[0], others[1].name, f"without-{node.name}")
    host_of(node).plug()
    wait_until(
        f"{node.name} is back",
        lambda: marked(node, others[1].name, f"without-{node.name}"),
        90,
        pause=0.5,
    )
    time.sleep(10)  # an election it may have caused would be over by now


def test_who_unseats_a_stock_leader(lan: Lan) -> None:
    """The same cut, first for a swarmd member, then for a stock one in the same group."""
    with Engine("e1", lan=lan) as e1, Engine("e2", lan=lan) as e2, Swarmd("m1", lan=lan) as m1:
        init(e1)
        join(e2, e1, "manager")
        join(m1, e1, "manager")
        wait_listed(m1, e1="Ready Leader", e2="Ready Reachable", m1="Ready Reachable")
        term = terms(e1, e2, m1)
        cut_off(m1, [e1, e2])
        assert leader(e2) == "e1" and terms(e1, e2, m1) == term
        cut_off(e2, [e1, m1])
        wait_leader(e1, "e1", "e2", "m1", timeout=90)
        assert terms(e1, e2, m1) > term, "a stock member unseats its leader: see PROTOCOL 3.1"


@pytest.mark.parametrize("kind", ["swarmd", "stock"])
def test_a_minority_refuses_in_the_stock_words(lan: Lan, kind: str) -> None:
    """A leader and a follower, each alone on the wrong side of a cut; then it heals."""
    with (
        Swarmd("m1", lan=lan) as m1,
        Swarmd("m2", lan=lan) as m2,
        Swarmd("m3", lan=lan) if kind == "swarmd" else Engine("e3", lan=lan) as third,
    ):
        nodes: list[Node] = [m1, m2, third]
        init(m1)
        join(m2, m1, "manager")
        join(third, m1, "manager")
        wait_listed(m1, m1="Ready Leader", m2="Ready Reachable")
        for lost in (m1, m2):
            rest = [node for node in nodes if node is not lost]
            host_of(lost).unplug()
            wait_leader(rest[0], rest[0].name, rest[1].name, timeout=90)
            label(rest[1], "m1", f"without-{lost.name}")
            for command in (("update", "--label-add", "mark=minority", "m1"), ("ls",)):
                wait_until(
                    f"{lost.name} refuses {command}",
                    lambda lost=lost, command=command: (
                        NO_LEADER in lost.docker("node", *command, check=False).stderr
                    ),
                    90,
                    pause=0.5,
                )
            host_of(lost).plug()
            wait_until(
                "it heals",
                lambda lost=lost: marked(lost, "m1", f"without-{lost.name}"),
                90,
                pause=0.5,
            )
            wait_listed(lost, 60, **{node.name: status(lost, node) for node in nodes})
        assert all(len(ids) == 1 for ids in elections(nodes).values()), "two leaders in one term"


def status(at: Node, node: Node) -> str:
    return "Ready Leader" if leader(at) == node.name else "Ready Reachable"
