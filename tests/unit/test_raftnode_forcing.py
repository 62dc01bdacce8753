"""Going on alone with a log of several members: what stays, what is dropped, what is refused."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import FailedPrecondition
from swarmd.cluster.ca.envelope import decryptor, secretbox
from swarmd.cluster.store import Transaction
from swarmd.manager.raftnode import Place, RaftDisk
from swarmd.manager.raftnode.checkpoint import decode, put_down
from swarmd.manager.raftnode.forcing import Log, force_alone
from swarmd.manager.raftnode.members import raft_member
from swarmd.manager.raftnode.opening import open_place
from tests.harness.raftnodes import KEY, Group, One, Quick, eventually

OWN = raft_member(1, "node-a", "10.0.0.1:2377")
ADDR = "10.9.9.9:2377"


def add(index: int, raft_id: int, addr: str = "") -> raftpb.Entry:
    member = raft_member(raft_id, f"node-{'abc'[raft_id - 1]}", addr or f"10.0.0.{raft_id}:2377")
    return conf(index, raftpb.ConfChangeAddNode, raft_id, member.SerializeToString())


def conf(index: int, kind: int, raft_id: int, context: bytes = b"") -> raftpb.Entry:
    change = raftpb.ConfChange(id=index, type=kind, node_id=raft_id, context=context)
    return raftpb.Entry(
        Type=raftpb.EntryConfChange, Term=3, Index=index, Data=change.SerializeToString()
    )


def normal(index: int) -> raftpb.Entry:
    return raftpb.Entry(Type=raftpb.EntryNormal, Term=3, Index=index, Data=b"x")


def log(commit: int, *entries: raftpb.Entry, voters: tuple[int, ...] = ()) -> Log:
    members = [
        api.RaftMember(
            raft_id=voter, node_id=f"node-{'abc'[voter - 1]}", addr=f"10.0.0.{voter}:2377"
        )
        for voter in voters
    ]
    state = raftpb.HardState(term=3, vote=2, commit=commit)
    return Log(api.ClusterSnapshot(members=members), state, entries, voters)


def changes(entries: tuple[raftpb.Entry, ...]) -> list[tuple[int, int, int, int]]:
    """(index, term, type, raft id) of each."""
    found = []
    for entry in entries:
        assert entry.Type == raftpb.EntryConfChange
        change = raftpb.ConfChange.FromString(entry.Data)
        assert change.id == 0, "nobody waits for it"
        found.append((entry.Index, entry.Term, change.type, change.node_id))
    return found


# The decision


def test_others_are_removed_and_what_is_not_committed_is_dropped() -> None:
    forced = force_alone(log(4, add(1, 1), add(2, 2), add(3, 3), normal(4), normal(5)), OWN)
    assert [entry.Index for entry in forced.kept] == [1, 2, 3, 4]
    assert forced.dropped == 1
    remove = raftpb.ConfChangeRemoveNode
    assert changes(forced.changes) == [(5, 3, remove, 2), (6, 3, remove, 3)]
    assert forced.hard_state == raftpb.HardState(term=3, vote=2, commit=6)
    assert [member.node_id for member in forced.removed] == ["node-b", "node-c"]


def test_members_of_the_snapshot_count() -> None:
    removal = conf(11, raftpb.ConfChangeRemoveNode, 3)
    forced = force_alone(log(11, removal, voters=(1, 2, 3)), OWN)
    assert changes(forced.changes) == [(12, 3, raftpb.ConfChangeRemoveNode, 2)]


def test_a_snapshot_may_come_with_a_configuration_newer_than_its_members() -> None:
    base = log(11, normal(11), voters=(1, 2))
    forced = force_alone(Log(base.members, base.hard_state, base.entries, (1, 2, 3)), OWN)
    assert [change[3] for change in changes(forced.changes)] == [2, 3]


def test_a_member_that_does_not_know_itself_comes_in_before_the_others_go() -> None:
    forced = force_alone(log(5, normal(5), voters=(2,)), OWN)
    assert changes(forced.changes) == [
        (6, 3, raftpb.ConfChangeAddNode, 1),
        (7, 3, raftpb.ConfChangeRemoveNode, 2),
    ]


def test_a_new_address_is_taken_over() -> None:
    forced = force_alone(log(2, add(1, 1, "10.0.0.7:2377"), normal(2)), OWN)
    assert changes(forced.changes) == [(3, 3, raftpb.ConfChangeUpdateNode, 1)]
    change = raftpb.ConfChange.FromString(forced.changes[0].Data)
    assert api.RaftMember.FromString(change.context) == OWN


def test_a_sole_voter_has_committed_all_it_wrote() -> None:
    forced = force_alone(log(1, add(1, 1), normal(2), normal(3)), OWN)
    assert (len(forced.kept), forced.dropped, forced.changes) == (3, 0, ())
    assert forced.hard_state.commit == 3


def test_a_sole_voter_that_admitted_another_needs_it_from_there_on() -> None:
    forced = force_alone(log(1, add(1, 1), normal(2), add(3, 2), normal(4)), OWN)
    assert [entry.Index for entry in forced.kept] == [1, 2, 3]
    assert changes(forced.changes) == [(4, 3, raftpb.ConfChangeRemoveNode, 2)]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (log(0), "nothing to go on from"),
        (log(2, add(1, 2), conf(2, raftpb.ConfChangeRemoveNode, 1)), "was removed"),
    ],
)
def test_what_cannot_be_forced_is_refused(state: Log, reason: str) -> None:
    with pytest.raises(FailedPrecondition, match=reason):
        force_alone(state, OWN)


# On disk


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with Tasks() as tasks:
        yield Group(tmp_path, tasks)


def create(id: str):
    def change(tx: Transaction) -> api.Config:
        config = api.Config(id=id)
        config.spec.annotations.name = id
        return tx.create(config)

    return change


def place(tmp_path: Path, name: str, *, alone: bool = True) -> Place:
    return Place(
        tmp_path / name,
        f"node-{name}",
        ADDR,
        secretbox(KEY, SeededEntropy(5)),
        decryptor(KEY),
        None,
        65_536,
        Quick(),
        alone,
    )


async def three(group: Group) -> list[One]:
    a = await group.found("a")
    b = await group.join(a, "b")
    c = await group.join(a, "c")
    await a.committer.update(create("kept"))
    await eventually(lambda: all(one.config("kept") for one in (a, b, c)))
    return [a, b, c]


@pytest.mark.parametrize("name", ["a", "b"])
async def test_one_of_three_leads_alone_with_everything_it_had(
    group: Group, tmp_path: Path, name: str
) -> None:
    a, b, c = await three(group)
    ids = {one.name: one.node.id for one in (a, b, c)}
    for one in (c, b, a):
        await group.stop(one)
    opened, damage = open_place(place(tmp_path, name), SeededEntropy(1))
    opened.disk.close()
    assert damage == ()
    for _ in range(2):  # the change is in the log: another start needs no force
        alone = await group.start(group.make(name))
        await eventually(alone.node.is_leader)
        (member,) = alone.node.members()
        assert (member.raft_id, member.node_id) == (ids[name], f"node-{name}")
        assert member.addr == ADDR
        assert alone.config("kept") is not None
        for other in {"a", "b", "c"} - {name}:
            assert alone.node.membership.is_removed(ids[other])
        await alone.committer.update(create(f"new-{alone.node.commit_index()}"))
        await group.stop(alone)


async def test_what_a_lost_leader_had_not_committed_is_gone(group: Group, tmp_path: Path) -> None:
    a, b, c = await three(group)
    group.network.cut |= {b.node.id, c.node.id}
    before = a.node.commit_index()
    waiting = asyncio.get_running_loop().create_task(a.committer.update(create("lost")))
    await eventually(lambda: not a.node.is_leader())
    with pytest.raises(Exception, match=r"leader|leadership"):
        await waiting
    for one in (c, b, a):
        await group.stop(one)
    opened, _ = open_place(place(tmp_path, "a"), SeededEntropy(1))
    opened.disk.close()
    alone = await group.start(group.make("a"))
    await eventually(alone.node.is_leader)
    assert alone.config("lost") is None
    assert alone.config("kept") is not None
    assert alone.node.commit_index() > before


async def test_what_is_put_down_is_alone_from_its_first_byte_on_disk(
    group: Group, tmp_path: Path
) -> None:
    """A crash behind it: whoever opens the log next must not be a member of the old group."""
    a, b, c = await three(group)
    taken = decode(a.node.checkpoint().encode())
    own, *others = [one.node.id for one in (a, b, c)]
    for one in (c, b, a):
        await group.stop(one)
    copy = group.make("copy")
    put_down(copy.node._place, own, taken)
    await group.start(copy)
    await eventually(copy.node.is_leader)
    assert [(m.raft_id, m.node_id) for m in copy.node.members()] == [(own, "node-copy")]
    assert all(copy.node.membership.is_removed(raft_id) for raft_id in others)
    assert copy.config("kept") is not None


async def test_a_refused_force_leaves_the_log_as_it_was(group: Group, tmp_path: Path) -> None:
    a = await group.found("a")
    group.network.dropped = lambda message: message.to != a.node.id
    joined = api.JoinResponse(raft_id=99, members=a.node.membership.all())
    b = await group.start(group.make("b", joined))
    await group.stop(b)
    files = {path: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    with pytest.raises(FailedPrecondition):
        open_place(place(tmp_path, "b"), SeededEntropy(1))
    assert {path: path.read_bytes() for path in files} == files
    RaftDisk.load(
        tmp_path / "b", secretbox(KEY, SeededEntropy(5)), decryptor(KEY), segment_bytes=65_536
    ).disk.close()


async def test_what_was_acknowledged_is_committed_on_disk_a_moment_later(
    group: Group, tmp_path: Path
) -> None:
    one = await group.found("a")
    await one.committer.update(create("kept"))
    written, size = log_bytes(tmp_path / "a"), one.node.commit_index()

    def noted() -> bool:
        return log_bytes(tmp_path / "a") != written

    await eventually(noted)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")  # as a crash would leave it
    box = secretbox(KEY, SeededEntropy(5))
    loaded = RaftDisk.load(tmp_path / "copy", box, decryptor(KEY), segment_bytes=65_536)
    loaded.disk.close()
    assert loaded.hard_state.commit == size


async def test_a_start_that_is_given_up_lets_go_of_the_log(group: Group, tmp_path: Path) -> None:
    a = await group.found("a")
    await group.stop(a)
    loop = asyncio.get_running_loop()
    for _ in range(3):
        started = threading.Event()
        one = group.make("a", files=Slow(started))
        task = loop.create_task(one.node.run(asyncio.Event()))
        await asyncio.wait_for(asyncio.to_thread(started.wait, 10), 10)
        task.cancel()
        await asyncio.wait({task})
    again = await group.start(group.make("a"))
    await eventually(again.node.is_leader)


class Slow(Quick):
    """Opens files slowly, so that a start can be cancelled on the way."""

    def __init__(self, started: threading.Event) -> None:
        self._started = started

    def lock(self, fd: int) -> bool:
        """Take the lock, tell, and take some more time."""
        locked = super().lock(fd)
        self._started.set()
        threading.Event().wait(0.05)
        return locked


def log_bytes(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*.wal")))
