"""Whether a member still leads: asked of a quorum, by many at once, and never answered wrongly."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.errors import NO_LEADER, NotLeader
from swarmd.cluster.store import Transaction
from swarmd.manager.leadership import RaftLeadership
from swarmd.manager.raftnode import Confirmation, NodeStopped
from swarmd.manager.raftnode.confirming import ROUND_TICKS_MAX, Confirming
from tests.harness import raft_group
from tests.harness.pauses import Paused, run_paused
from tests.harness.raftnodes import Group, One, eventually

TICK = 0.2  # seconds


class Asked:
    """Callers of one member's `Confirming`, and what they were told."""

    def __init__(self, group: raft_group.Group, id: int = 1) -> None:
        self.peer = group[id]
        self.raw = self.peer.node
        self.confirming = Confirming()
        self.told: list[str] = []

    def ask(self, name: str) -> None:
        self.confirming.ask(
            self.raw,
            Confirmation(
                lambda: self.told.append(name),
                lambda error: self.told.append(f"{name}: {error}"),
            ),
        )

    def hear(self) -> bool:
        """As the driver does after a message and after a `Ready`."""
        found, self.peer.read_states = self.peer.read_states, []
        return self.confirming.hear(self.raw, found)


def heartbeats(messages: list[raftpb.Message]) -> int:
    return sum(message.type == raftpb.MsgHeartbeat for message in messages)


def test_a_member_that_is_alone_needs_nobody() -> None:
    group = raft_group.Group(1)
    group.elect(1)
    asked = Asked(group)
    asked.ask("a")
    asked.ask("b")
    assert asked.told == ["a", "b"]


def test_a_quorum_answers_and_those_who_come_later_share_the_next_round() -> None:
    group = raft_group.Group(3)
    group.elect(1)
    asked = Asked(group)
    for name in "abc":
        asked.ask(name)
    assert heartbeats(group.process(1)) == 2, "one to each of the others"
    group.deliver(2)
    group.process(2)
    asked.ask("d")
    group.deliver(1)
    assert asked.told == []
    assert asked.hear(), "the others are asked anew"
    # Only `a` began a round: b, c and d came while it was under way.
    assert asked.told == ["a"]
    assert heartbeats(group.process(1)) == 2
    group.deliver(3)  # both rounds at once
    group.process(3)
    group.deliver(1)
    assert not asked.hear()
    assert asked.told == ["a", "b", "c", "d"]


def test_a_lost_round_is_repeated_by_the_next_heartbeat() -> None:
    group = raft_group.Group(3)
    group.elect(1)
    asked = Asked(group)
    asked.ask("a")
    group.process(1)
    group.drop(2)
    group.drop(3)
    asked.hear()
    assert asked.told == []
    group.tick(1, group[1].config.heartbeat_ticks)
    group.process(1)
    group.deliver(2)
    group.process(2)
    group.deliver(1)
    asked.hear()
    assert asked.told == ["a"]


def test_answers_to_an_earlier_leadership_confirm_nothing() -> None:
    group = raft_group.Group(3)
    group.elect(1)
    asked = Asked(group)
    asked.ask("old")
    group.process(1)
    group.drop(2)
    group.drop(3)
    asked.raw.transfer_leadership(3)
    group.stabilize()
    assert group[3].node.leading
    with pytest.raises(NotLeader):
        asked.ask("not leading")
    asked.confirming.end(NotLeader)
    group[3].node.transfer_leadership(1)
    group.stabilize()
    asked.hear()
    asked.ask("new")
    group.isolate(1)
    group.process(1)
    asked.hear()
    assert asked.told == [f"old: {NotLeader()}"]
    group.mend()
    group.tick(1, group[1].config.heartbeat_ticks)
    group.process(1)
    group.deliver(3)
    group.process(3)
    group.deliver(1)
    asked.hear()
    assert asked.told[1:] == ["new"]


def test_nobody_waits_for_ever_for_a_quorum() -> None:
    group = raft_group.Group(3)
    group.elect(1)
    asked = Asked(group)
    group.isolate(1)
    asked.ask("a")
    group.process(1)
    for _ in range(ROUND_TICKS_MAX - 1):
        asked.confirming.tick()
    asked.ask("b")
    assert asked.told == []
    asked.confirming.tick()
    assert asked.told == [f"a: {NO_LEADER}", f"b: {NO_LEADER}"]
    with pytest.raises(NotLeader, match="does not have a leader"):
        asked.ask("at once")
    group.mend()
    group.tick(1, group[1].config.heartbeat_ticks)
    group.process(1)
    group.deliver(2)
    group.process(2)
    group.deliver(1)
    assert not asked.hear()
    asked.ask("c")
    group.process(1)
    group.deliver(2)
    group.process(2)
    group.deliver(1)
    asked.hear()
    assert asked.told[2:] == ["c"]


def test_a_member_removed_meanwhile_is_not_waited_for() -> None:
    group = raft_group.Group(2)
    group.elect(1)
    asked = Asked(group)
    remove = raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=2)
    asked.raw.propose_conf_change(remove)
    group.process(1)
    group.deliver(2)
    group.process(2)
    asked.ask("a")
    group.deliver(1)
    group.isolate(1)
    group.process(1)  # the removal is committed and applied
    asked.hear()
    assert asked.told == ["a"]


# Real members in one process


async def no_dialling(addr: str) -> Any:
    raise AssertionError(addr)


def doubt(member: One) -> RaftLeadership:
    return RaftLeadership(member.node, no_dialling)


def make_config(tx: Transaction) -> None:
    config = api.Config(id="c")
    config.spec.annotations.name = "c"
    tx.create(config)


def test_a_leader_that_is_cut_off_confirms_nothing(monkeypatch, tmp_path) -> None:
    async def story(group: Paused) -> None:
        first, *rest = group.all
        await doubt(first).confirm()
        with pytest.raises(NotLeader):
            await doubt(rest[0]).confirm()
        group.network.cut.add(first.node.id)
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(refused(first))
            await eventually(lambda: any(one.node.is_leader() for one in rest))
            leader = next(one for one in rest if one.node.is_leader())
            await doubt(leader).confirm()
            assert first.node.is_leader(), "it knows nothing yet"
            assert not asked.done()
            group.network.cut.clear()
        await group.stop(leader)
        with pytest.raises(NotLeader) as caught:
            await doubt(leader).confirm()
        assert isinstance(caught.value.__cause__, NodeStopped)

    run_paused(monkeypatch, tmp_path, story)


async def refused(member: One) -> None:
    with pytest.raises(NotLeader, match="lost leader status"):
        await doubt(member).confirm()


def test_reads_do_not_wait_for_the_disk(monkeypatch, tmp_path) -> None:
    async def story(group: Paused) -> None:
        first = group.all[0]
        group.times.stuck.add("a")
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(first.committer.update(make_config))
            for _ in range(3):
                async with asyncio.timeout(1):
                    await doubt(first).confirm()
            assert not writing.done()
            group.times.stuck.clear()
        assert first.config("c") is not None

    run_paused(monkeypatch, tmp_path, story)


async def test_who_is_alone_is_certain(tmp_path: Path) -> None:
    async with Tasks() as tasks:
        group = Group(tmp_path, tasks)
        first = await group.found("a", tick_seconds=TICK)
        await eventually(doubt(first).is_certain)
        second = await group.join(first, "b", tick_seconds=TICK)
        assert first.node.is_leader() and not doubt(first).is_certain()
        assert not doubt(second).is_certain()
        await eventually(lambda: second.node.applied_index() >= 3)
        await first.membership.remove(second.node.id)
        assert doubt(first).is_certain()
