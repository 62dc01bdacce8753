"""The driver: founding, restarting, proposing, snapshots, failing disks, several members."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import FailedPrecondition, NotLeader
from swarmd.cluster.ca.envelope import decryptor, secretbox
from swarmd.cluster.store import Transaction, edit
from swarmd.manager.raftnode import (
    ChangeRefused,
    DiskDamaged,
    DiskFailed,
    NodeStopped,
    NotMember,
    QuorumAtRisk,
    RaftDisk,
    RequestTooLarge,
)
from swarmd.manager.raftnode.files import Files
from swarmd.manager.raftnode.proposals import RequestIds, encode_request, request_number
from tests.harness.raftnodes import KEY, Group, One, eventually

NEVER = 1e6  # seconds per tick: nothing happens by the clock


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with Tasks() as tasks:
        yield Group(tmp_path, tasks)


def create(id: str, size: int = 10) -> Callable[[Transaction], api.Config]:
    def change(tx: Transaction) -> api.Config:
        config = api.Config(id=id)
        config.spec.annotations.name = id
        config.spec.data = b"x" * size
        return tx.create(config)

    return change


async def write(one: One, id: str, size: int = 10) -> api.Config:
    return await one.committer.update(create(id, size))


def set_raft(interval: int, kept: int = 5) -> Callable[[Transaction], None]:
    def change(tx: Transaction) -> None:
        cluster = api.Cluster(id="c")
        cluster.spec.annotations.name = "default"
        cluster.spec.raft.snapshot_interval = interval
        cluster.spec.raft.log_entries_for_slow_followers = kept
        tx.create(cluster)

    return change


def on_disk(tmp_path: Path, name: str) -> list[raftpb.Entry]:
    box = secretbox(KEY, SeededEntropy(9))
    loaded = RaftDisk.load(tmp_path / name, box, decryptor(KEY), segment_bytes=65_536)
    loaded.disk.close()
    return list(loaded.entries)


# Alone


async def test_the_first_member_founds_as_stock_does(group: Group, tmp_path: Path) -> None:
    one = await group.found("a", tick_seconds=NEVER)
    assert one.node.is_leader()
    assert 1 <= one.node.id <= 1 << 63
    (member,) = one.node.members()
    assert (member.raft_id, member.node_id) == (one.node.id, "node-a")
    assert member.leader and member.reachable
    assert one.node.leader() == member
    assert one.node.commit_index() == one.node.applied_index() == 2
    made = await write(one, "x")
    assert made.meta.version.index == 2, "the commit index when the change was made"
    assert one.node.applied_index() == 3
    await group.stop(one)
    first, noop, third = on_disk(tmp_path, "a")
    change = raftpb.ConfChange.FromString(first.Data)
    assert (first.Term, first.Type) == (1, raftpb.EntryConfChange)
    assert (change.type, change.node_id) == (raftpb.ConfChangeAddNode, member.raft_id)
    assert api.RaftMember.FromString(change.context).node_id == "node-a"
    assert (noop.Term, noop.Type, noop.Data) == (2, raftpb.EntryNormal, b"")
    request = api.InternalRaftRequest.FromString(third.Data)
    assert third.Term == 2 and request.action[0].config.id == "x"


async def test_a_restart_leads_at_once_and_has_everything(group: Group) -> None:
    one = await group.found("a", tick_seconds=NEVER)
    for number in range(20):
        await write(one, f"c{number}")
    await group.stop(one)
    again = await group.start(group.make("a", tick_seconds=NEVER))
    assert again.node.id == one.node.id
    assert again.node.is_leader()
    assert again.store.save() == one.store.save()
    assert [member.addr for member in again.node.members()] == [
        member.addr for member in one.node._members.all()
    ]


async def test_nothing_can_be_asked_before_and_after(group: Group) -> None:
    one = group.make("a")
    assert not one.node.is_leader() and one.node.id == 0 and one.node.leader() is None
    with pytest.raises(NotLeader):
        await write(one, "x")
    with pytest.raises(NodeStopped):
        await one.node.propose([], lambda index: None)
    with pytest.raises(NodeStopped):
        one.node.step(raftpb.Message(type=raftpb.MsgApp, term=1))
    await group.start(one)
    await group.stop(one)
    assert not one.node.is_leader()
    with pytest.raises(NodeStopped, match="raft: failed to process the request: node is stopped"):
        await one.node.propose([], lambda index: None)


async def test_an_entry_over_the_limit_is_refused_with_the_stock_text(group: Group) -> None:
    one = await group.found("a", tick_seconds=NEVER)
    before = one.node.commit_index()
    with pytest.raises(RequestTooLarge, match="raft: raft message is too large and can't be sent"):
        await write(one, "x", 3 << 19)
    assert one.node.commit_index() == before
    await write(one, "y", (3 << 19) - 200)
    assert one.config("y") is not None and one.config("x") is None


async def test_a_cancelled_proposer_changes_nothing_about_its_entry(group: Group) -> None:
    one = await group.found("a", tick_seconds=NEVER)
    seen: list[int] = []
    action = api.StoreAction(action=api.StoreActionKind.STORE_ACTION_CREATE)
    action.config.id = "x"
    waiting = asyncio.ensure_future(one.node.propose([action], seen.append))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    await eventually(lambda: seen == [3])


async def test_the_state_of_another_node_is_refused(group: Group, tmp_path: Path) -> None:
    one = await group.found("a")
    await group.stop(one)
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(FailedPrecondition, match="belongs to node node-a, this is node node-b"):
        await group.start(group.make("b"))


async def test_damage_is_reported(
    group: Group, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = await group.found("a", tick_seconds=NEVER)
    await write(one, "x", 2000)
    await group.stop(one)
    (log,) = (tmp_path / "a" / "wal-v3-encrypted").iterdir()
    content = log.read_bytes().rstrip(b"\0")
    log.write_bytes(content[:-1000])
    caplog.set_level(logging.WARNING)
    again = await group.start(group.make("a", tick_seconds=NEVER))
    assert again.config("x") is None
    (record,) = [r for r in caplog.records if "repaired" in r.message]
    assert str(log) in record.message and "a write was cut short" in record.message


# Snapshots


async def test_snapshots_by_count_and_a_short_log(group: Group, tmp_path: Path) -> None:
    one = await group.found("a", tick_seconds=NEVER)
    await one.committer.update(set_raft(interval=10, kept=3))
    for number in range(47):
        await write(one, f"c{number}", 500)
    await eventually(lambda: one.node._opened.storage.snapshot().metadata.index >= 40)
    await eventually(lambda: not one.node._snapshotter.busy.locked())
    newest = one.node._opened.storage.snapshot().metadata
    assert list(newest.conf_state.voters) == [one.node.id]
    assert one.node._opened.storage.first_index() == newest.index - 3 + 1
    await group.stop(one)
    (file,) = (tmp_path / "a" / "snap-v3-encrypted").iterdir()
    assert file.name == f"{2:016x}-{newest.index:016x}.snap"
    again = await group.start(group.make("a", tick_seconds=NEVER))
    assert again.store.save() == one.store.save()
    assert again.node.is_leader() and len(again.node.members()) == 1


async def test_a_heavy_log_is_cut_down_before_it_is_long(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmd.manager.raftnode.snapshotting.LOG_BYTES_MAX", 10_000)
    one = await group.found("a", tick_seconds=NEVER)
    await one.committer.update(set_raft(interval=10_000, kept=1))
    for number in range(30):
        await write(one, "x" if number == 0 else f"c{number}", 1000)
    await eventually(lambda: one.node._opened.storage.first_index() > 5)
    await eventually(lambda: not one.node._snapshotter.busy.locked())
    weight = one.node._snapshotter.log_bytes
    assert weight < 25_000
    await group.stop(one)
    again = await group.start(group.make("a", tick_seconds=NEVER))
    assert again.node._opened.log_bytes < weight + 2500, "and the count goes on after a restart"
    assert again.store.save() == one.store.save()


async def test_a_member_that_lost_its_log_does_not_start_a_new_cluster(
    group: Group, tmp_path: Path
) -> None:
    one = await group.found("a", tick_seconds=NEVER)
    await one.committer.update(set_raft(interval=5))
    for number in range(12):
        await write(one, f"c{number}")
    await eventually(lambda: list((tmp_path / "a" / "snap-v3-encrypted").glob("*.snap")))
    await group.stop(one)
    for path in (tmp_path / "a" / "wal-v3-encrypted").iterdir():
        path.unlink()
    with pytest.raises(DiskDamaged, match="holds no raft log"):
        await group.start(group.make("a"))


async def test_no_snapshots_by_count_when_the_interval_is_zero(
    group: Group, tmp_path: Path
) -> None:
    one = await group.found("a", tick_seconds=NEVER)
    await one.committer.update(set_raft(interval=0))
    for number in range(30):
        await write(one, f"c{number}")
    await group.stop(one)
    assert not list((tmp_path / "a" / "snap-v3-encrypted").iterdir())


class NoSnapshots(Files):
    """A disk with room for the log only."""

    broken = True

    def rename(self, source: Path, target: Path) -> None:
        """Fail with snapshots."""
        if self.broken and target.suffix == ".snap":
            raise OSError(errno.ENOSPC, "No space left on device")
        super().rename(source, target)


async def test_a_snapshot_that_fails_is_not_tried_with_every_entry(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    one = await group.start(group.make("a", tick_seconds=NEVER, files=NoSnapshots()))
    await one.committer.update(set_raft(interval=5))
    for number in range(70):
        await write(one, f"c{number}")
        await eventually(lambda: not one.node._snapshotter._asked)
    assert 3 <= len([text for text in caplog.messages if "not written" in text]) <= 8


async def test_a_snapshot_that_fails_is_tried_again(
    group: Group, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = NoSnapshots()
    one = await group.start(group.make("a", tick_seconds=NEVER, files=files))
    await one.committer.update(set_raft(interval=5))
    for number in range(12):
        await write(one, f"c{number}")
    await eventually(lambda: "not written: [Errno 28] No space left" in caplog.text)
    assert one.node.is_leader(), "the log itself goes on"
    files.broken = False
    for number in range(12, 24):
        await write(one, f"c{number}")
    snapshots = tmp_path / "a" / "snap-v3-encrypted"
    await eventually(lambda: list(snapshots.glob("*.snap")))


async def test_a_change_of_key(group: Group, tmp_path: Path) -> None:
    new = b"n" * 32
    one = await group.found("a", tick_seconds=NEVER)
    await write(one, "x")
    done = asyncio.Event()
    await one.node.rotate(secretbox(new, SeededEntropy(5)), done.set)
    async with asyncio.timeout(10):
        await done.wait()  # nothing was written meanwhile: the state itself was enough
    await write(one, "y")
    await group.stop(one)
    box = secretbox(new, SeededEntropy(6))
    loaded = RaftDisk.load(tmp_path / "a", box, decryptor(new), segment_bytes=65_536)
    loaded.disk.close()
    assert loaded.snapshot is not None and len(loaded.entries) == 1


# Failing disks


class FailingSync(Files):
    """Syncs fail from the moment `broken` is set."""

    broken = False

    def sync(self, fd: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(fd)


async def test_a_failed_sync_ends_the_node_and_acknowledges_nothing(group: Group) -> None:
    files = FailingSync()
    one = await group.start(group.make("a", tick_seconds=NEVER, files=files))
    await write(one, "before")
    files.broken = True
    writes = [asyncio.ensure_future(write(one, f"c{number}")) for number in range(5)]
    await asyncio.wait(writes, timeout=10)
    for done in writes:
        assert isinstance(done.exception(), NodeStopped)
        assert "Input/output error" in str(done.exception())
    assert one.task is not None
    with pytest.raises(DiskFailed, match=r"raft log: write to .*: Input/output error"):
        await one.task
    files.broken = False
    with pytest.raises(NotLeader):
        await write(one, "after")
    assert one.config("c0") is None, "and nothing was applied"
    again = await group.start(group.make("a", tick_seconds=NEVER))
    assert again.config("before") is not None


# Several members


async def three(group: Group) -> tuple[One, One, One]:
    one = await group.found("a")
    two = await group.join(one, "b")
    three = await group.join(one, "c")
    await eventually(lambda: len(three.node.members()) == 3 and three.node.leader() is not None)
    return one, two, three


async def test_members_join_and_hold_the_same_state(group: Group) -> None:
    one, two, three_ = await three(group)
    for number in range(30):
        await write(one, f"c{number}", 300)
    index = one.node.applied_index()
    await eventually(lambda: two.node.applied_index() == three_.node.applied_index() == index)
    assert one.store.save() == two.store.save() == three_.store.save()
    for member in (one, two, three_):
        assert [m.node_id for m in member.node.members() if m.leader] == ["node-a"]
        assert {m.node_id for m in member.node.members()} == {"node-a", "node-b", "node-c"}
    with pytest.raises(NotLeader):
        await write(two, "x")


async def test_new_entries_are_acknowledged_before_old_ones_are_applied(group: Group) -> None:
    one, two, _ = await three(group)
    left: list[int] = []

    def look(message: raftpb.Message) -> bool:
        if message.type == raftpb.MsgAppResp and getattr(message, "from") == two.node.id:
            left.append(two.node.commit_index() - two.node.applied_index())
        return False

    group.network.dropped = look
    for number in range(20):
        await write(one, f"c{number}")
    await eventually(lambda: two.node.applied_index() == one.node.applied_index())
    assert max(left) > 0, "acknowledgements left while committed entries waited"
    assert one.store.save() == two.store.save()


async def test_a_new_member_catches_up_by_snapshot(group: Group) -> None:
    one = await group.found("a")
    await one.committer.update(set_raft(interval=10, kept=2))
    for number in range(40):
        await write(one, f"c{number}")
    await eventually(lambda: one.node._opened.storage.first_index() > 20)
    two = await group.join(one, "b")
    await eventually(lambda: two.node.applied_index() == one.node.applied_index())
    assert two.store.save() == one.store.save()
    assert len(two.node.members()) == 2
    await group.stop(two)
    again = await group.start(group.make("b"))
    await eventually(lambda: again.config("c39") is not None)


async def test_lost_leadership_fails_what_waits_and_others_lead(group: Group) -> None:
    one, two, three_ = await three(group)
    await write(one, "before")
    changes: list[bool] = []
    one.node.subscribe(lambda: changes.append(one.node.is_leader()))
    group.network.cut.add(one.node.id)
    waiting = asyncio.ensure_future(write(one, "lost"))
    await eventually(lambda: two.node.is_leader() or three_.node.is_leader())
    leader = two if two.node.is_leader() else three_
    await write(leader, "after")
    await asyncio.wait({waiting}, timeout=10)
    assert isinstance(waiting.exception(), NotLeader)
    assert False in changes
    group.network.cut.clear()
    await eventually(lambda: one.config("after") is not None)
    await eventually(lambda: one.node.applied_index() == leader.node.applied_index())
    assert one.config("lost") is None, "its entry was replaced by the new leader's"
    assert one.store.save() == leader.store.save()


async def test_an_entry_of_a_lost_leader_that_was_committed_is_applied_once(
    group: Group,
) -> None:
    one, two, three_ = await three(group)
    await write(one, "before")
    # Appends reach the others, their answers do not reach the leader.
    group.network.dropped = lambda message: (
        message.to == one.node.id and message.type != raftpb.MsgApp
    )
    waiting = asyncio.ensure_future(write(one, "x"))
    await eventually(lambda: two.node.is_leader() or three_.node.is_leader())
    await asyncio.wait({waiting}, timeout=10)
    assert isinstance(waiting.exception(), NotLeader)
    group.network.dropped = lambda message: False
    await eventually(lambda: all(member.config("x") for member in (one, two, three_)))
    assert one.store.save() == two.store.save() == three_.store.save()


async def test_leadership_can_be_handed_over(group: Group) -> None:
    one, two, _ = await three(group)
    leader = await one.membership.transfer(two.node.id)
    assert leader.node_id == "node-b"
    await eventually(two.node.is_leader)
    assert not one.node.is_leader()
    with pytest.raises(NotLeader):
        await one.membership.transfer()
    await write(two, "x")


async def test_a_removed_member_stops_and_cannot_come_back(group: Group) -> None:
    one, two, three_ = await three(group)
    gone = three_.node.id
    await one.membership.remove(gone)
    assert three_.task is not None
    with pytest.raises(NotMember, match="raft: member was removed from the cluster"):
        async with asyncio.timeout(10):
            await three_.task
    assert gone not in one.node.membership and one.node.membership.is_removed(gone)
    with pytest.raises(NotMember):
        one.node.step(raftpb.Message(type=raftpb.MsgHeartbeatResp, term=9, **{"from": gone}))
    with pytest.raises(ChangeRefused, match="raft: node doesn't exist"):
        await one.membership.remove(gone)
    await eventually(lambda: len(two.node.members()) == 2)
    back = await one.membership.add("node-c", "10.0.0.9:1")
    assert back != gone


async def test_a_removal_that_could_cost_the_quorum_is_refused(group: Group) -> None:
    one, two, three_ = await three(group)
    group.network.cut.add(three_.node.id)
    assert not one.membership.can_remove(two.node.id)
    with pytest.raises(QuorumAtRisk, match="may result in loss of quorum"):
        await one.membership.remove(two.node.id)
    assert one.membership.can_remove(three_.node.id)
    await one.membership.remove(three_.node.id)
    assert {m.node_id for m in one.node.members()} == {"node-a", "node-b"}


async def test_a_member_that_moves_keeps_its_id(group: Group) -> None:
    one, two, _ = await three(group)
    same = await one.membership.add("node-b", "10.9.9.9:2377")
    assert same == two.node.id
    await eventually(
        lambda: {m.addr for m in two.node.members() if m.node_id == "node-b"} == {"10.9.9.9:2377"}
    )
    before = one.node.commit_index()
    assert await one.membership.add("node-b", "10.9.9.9:2377") == same
    assert one.node.commit_index() == before, "nothing to change"


async def test_members_and_removals_survive_a_restart(group: Group) -> None:
    one, two, three_ = await three(group)
    gone = three_.node.id
    await one.membership.remove(gone)
    await group.stop(two)
    await group.stop(one)
    again = await group.start(group.make("a"))
    await eventually(lambda: len(again.node.members()) == 2)
    assert again.node.membership.is_removed(gone)
    assert not again.node.is_leader(), "one of two is no quorum"
    await eventually(lambda: again.node.leaderless_ticks() > 3)
    await group.start(group.make("b"))
    await eventually(lambda: again.node.leader() is not None)


# Numbers of proposals


def test_request_numbers_are_made_as_stock_makes_them() -> None:
    clock = ManualClock(1_700_000_000.123)
    ids = RequestIds(clock)
    first = ids.next()
    assert first >> 48 == 0
    assert first >> 8 == 1_700_000_000_123 & ((1 << 40) - 1)
    assert first & 0xFF == 1
    assert [ids.next() for _ in range(3)] == [first + 1, first + 2, first + 3]


def test_requests_are_marshalled_like_messages() -> None:
    actions = []
    for number in range(3):
        action = api.StoreAction(action=api.StoreActionKind.STORE_ACTION_UPDATE)
        action.config.id = f"c{number}"
        action.config.spec.data = b"x" * 300
        actions.append(action)
    data = encode_request(123456789, actions)
    assert data == api.InternalRaftRequest(id=123456789, action=actions).SerializeToString()
    assert request_number(data) == 123456789
    assert request_number(b"\x12\x00") == 0
    assert edit(actions[0].config) == actions[0].config
