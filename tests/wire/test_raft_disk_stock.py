"""The on-disk formats against a stock engine: read what it wrote, and let it start from ours."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.cluster.ca import keyfile
from swarmd.cluster.ca.envelope import decryptor, secretbox
from swarmd.cluster.ca.unlock import parse_unlock_key
from swarmd.cluster.store import Store, edit
from swarmd.manager.commit import Committer
from swarmd.manager.raftnode import Place, RaftDisk, RaftNode
from swarmd.manager.raftnode.disk import SNAPSHOT_DIR, WAL_DIR
from swarmd.manager.raftnode.frames import SnapshotMark
from swarmd.manager.raftnode.wal import Wal
from tests.harness.engines import Engine, require_engine, wait_until

pytestmark = pytest.mark.engine
NEW_KEY = bytes(range(32))


@dataclass(frozen=True)
class Stock:
    """A stock engine's swarm state as it was left by kill -9."""

    path: Path
    node_id: str
    dek: bytes


def dek_of(swarm: Path) -> bytes:
    text = (swarm / "certificates" / "swarm-node.key").read_text()
    match = re.search(r"^raft-dek: (\S+)$", text, re.M)
    assert match is not None
    record = api.MaybeEncryptedRecord.FromString(base64.b64decode(match[1]))
    assert record.algorithm == api.MaybeEncryptedRecord.NONE
    return record.data


def set_dek(swarm: Path, dek: bytes) -> None:
    path = swarm / "certificates" / "swarm-node.key"
    value = base64.b64encode(api.MaybeEncryptedRecord(data=dek).SerializeToString()).decode()
    path.write_text(re.sub(r"^raft-dek: \S+$", f"raft-dek: {value}", path.read_text(), flags=re.M))


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    require_engine()
    copy = tmp_path_factory.mktemp("stock") / "swarm"
    with Engine("wal1") as engine:
        engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        node_id = engine.docker("info", "--format", "{{.Swarm.NodeID}}").stdout.strip()
        engine.docker("config", "create", "motd", "-", stdin="hello")
        engine.docker("node", "update", "--label-add", "colour=blue", node_id)
        engine.docker("network", "create", "-d", "overlay", "back")
        engine.kill()
        shutil.copytree(engine.swarm_dir, copy)
        yield Stock(copy, node_id, dek_of(copy))


@pytest.fixture
def state(stock: Stock, tmp_path: Path) -> Stock:
    shutil.copytree(stock.path, tmp_path / "swarm")
    return replace(stock, path=tmp_path / "swarm")


def place(state: Stock, **changes: object) -> Place:
    base = Place(
        state.path / "raft",
        state.node_id,
        "127.0.0.1:2377",
        secretbox(state.dek, SystemEntropy()),
        decryptor(state.dek),
    )
    return replace(base, **changes)


@asynccontextmanager
async def running(where: Place) -> AsyncIterator[tuple[RaftNode, Store, Committer]]:
    """Our own driver on a state directory."""
    store, clock = Store(), SystemClock()
    node = RaftNode(where, store, clock, SystemEntropy())
    async with Tasks() as tasks:
        ready = asyncio.Event()
        tasks.spawn(node.run(ready), "node")
        async with asyncio.timeout(10):
            await ready.wait()
        yield node, store, Committer(store, node, clock)


def stock_starts_from(state: Stock, check: Callable[[Engine], None]) -> None:
    """Let a stock engine start on `state`, twice, and put what it made of it back there."""
    with Engine("wal2") as engine:
        engine.stop()
        shutil.rmtree(engine.swarm_dir)
        shutil.copytree(state.path, engine.swarm_dir)
        for _ in range(2):
            engine.start()
            nodes = engine.docker("node", "ls", "--format", "{{.ID}} {{.ManagerStatus}}").stdout
            assert nodes.split() == [state.node_id, "Leader"]
            check(engine)
            engine.kill()
        shutil.rmtree(state.path)
        shutil.copytree(engine.swarm_dir, state.path)


def label_of(store: Store, state: Stock, name: str) -> str | None:
    node = store.view().get(api.Node, state.node_id)
    assert node is not None
    return node.spec.annotations.labels.get(name)


def test_every_record_of_a_stock_log_is_read(state: Stock) -> None:
    where = place(state)
    loaded = RaftDisk.load(where.directory, where.encryptor, where.decryptor)
    loaded.disk.close()
    assert loaded.damage == ()
    assert loaded.snapshot is None
    assert loaded.member.node_id == state.node_id
    assert loaded.member.addr == "127.0.0.1:2377"
    assert loaded.hard_state.vote == loaded.member.raft_id
    assert [entry.Index for entry in loaded.entries] == list(range(1, len(loaded.entries) + 1))
    first = raftpb.ConfChange.FromString(loaded.entries[0].Data)
    assert loaded.entries[0].Type == raftpb.EntryConfChange
    assert first.node_id == loaded.member.raft_id
    assert loaded.entries[1].Data == b"", "the no-op of the first leader"
    initial = api.InternalRaftRequest.FromString(loaded.entries[2].Data)
    kinds = [action.WhichOneof("target") for action in initial.action]
    assert kinds == ["cluster", "node", "network", "network", "network"]
    store = Store(strict=True)
    for entry in loaded.entries[2:]:
        store.apply(api.InternalRaftRequest.FromString(entry.Data).action)
    assert [config.spec.data for config in store.view().all(api.Config)] == [b"hello"]
    assert store.view().named(api.Network, "back") is not None
    assert label_of(store, state, "colour") == "blue"
    cluster = store.view().cluster()
    assert cluster is not None and cluster.spec.raft.snapshot_interval == 10000


def test_first_records_of_our_log_have_the_bytes_of_a_stock_one(
    state: Stock, tmp_path: Path
) -> None:
    """Up to the sealed part: same frames, same checksums, same file size and mode."""
    theirs = state.path / "raft" / WAL_DIR / f"{0:016x}-{0:016x}.wal"
    member = RaftDisk.load(
        state.path / "raft", place(state).encryptor, place(state).decryptor
    ).member
    RaftDisk.create(tmp_path / "ours", member, place(state).encryptor).close()
    ours = tmp_path / "ours" / WAL_DIR / theirs.name
    head = len(ours.read_bytes().rstrip(b"\0"))
    assert head > 60
    assert ours.read_bytes()[:head] == theirs.read_bytes()[:head]
    assert ours.stat().st_size == theirs.stat().st_size == 64_000_000
    assert ours.stat().st_mode == theirs.stat().st_mode
    for name in (WAL_DIR, SNAPSHOT_DIR):
        made, stock_made = tmp_path / "ours" / name, state.path / "raft" / name
        assert made.stat().st_mode == stock_made.stat().st_mode


def test_stock_starts_from_a_rewritten_log(state: Stock) -> None:
    where = place(state)
    loaded = RaftDisk.load(where.directory, where.encryptor, where.decryptor)
    loaded.disk.close()
    shutil.rmtree(where.directory)
    disk = RaftDisk.create(where.directory, loaded.member, where.encryptor, segment_bytes=2500)
    for entry in loaded.entries:  # one by one, over many small segments
        disk.save(raftpb.HardState(term=entry.Term, vote=loaded.member.raft_id), [entry])
    disk.save(loaded.hard_state, ())
    disk.close()
    assert len(list((where.directory / WAL_DIR).glob("*.wal"))) > 2

    def check(engine: Engine) -> None:
        assert engine.docker("config", "ls", "--format", "{{.Name}}").stdout.split() == ["motd"]
        engine.docker("node", "update", "--label-add", "shape=round", state.node_id)

    stock_starts_from(state, check)
    again = RaftDisk.load(where.directory, where.encryptor, where.decryptor)
    again.disk.close()
    assert again.damage == ()
    assert again.entries[: len(loaded.entries)] == loaded.entries
    assert len(again.entries) > len(loaded.entries)


async def test_take_over_and_hand_back(state: Stock) -> None:
    """We lead a stock state, write, take a snapshot; the stock engine goes on from there."""
    async with running(place(state)) as (node, store, committer):
        assert node.is_leader()
        assert label_of(store, state, "colour") == "blue"

        def few_entries(tx):
            cluster = edit(tx.cluster())
            cluster.spec.raft.snapshot_interval = 20
            cluster.spec.raft.log_entries_for_slow_followers = 5
            return tx.update(cluster)

        await committer.update(few_entries)
        for number in range(60):

            def change(tx, number=number):
                mine = edit(tx.get(api.Node, state.node_id))
                mine.spec.annotations.labels["number"] = str(number)
                return tx.update(mine)

            await committer.update(change)
    names = [path.name for path in (state.path / "raft" / SNAPSHOT_DIR).iterdir()]
    assert len(names) == 1 and names[0].endswith(".snap")

    def check(engine: Engine) -> None:
        label = "{{index .Spec.Labels "
        wanted = f'{label}"colour"}}}} {label}"number"}}}}'
        found = engine.docker("node", "inspect", "--format", wanted, state.node_id).stdout
        assert found.split() == ["blue", "59"]
        engine.docker("node", "update", "--label-add", "shape=round", state.node_id)

    await asyncio.to_thread(stock_starts_from, state, check)
    async with running(place(state)) as (node, store, _):
        assert node.is_leader()
        assert label_of(store, state, "number") == "59"
        assert label_of(store, state, "shape") == "round"


async def test_stock_starts_after_our_change_of_key(state: Stock) -> None:
    finished = asyncio.Event()
    async with running(place(state)) as (node, _, committer):
        await node.rotate(secretbox(NEW_KEY, SystemEntropy()), finished.set)

        def change(tx):
            mine = edit(tx.get(api.Node, state.node_id))
            mine.spec.annotations.labels["key"] = "new"
            return tx.update(mine)

        await committer.update(change)
        async with asyncio.timeout(10):
            await finished.wait()
    assert len(list((state.path / "raft" / WAL_DIR).glob("*.wal"))) == 1
    set_dek(state.path, NEW_KEY)

    def check(engine: Engine) -> None:
        wanted = '{{index .Spec.Labels "key"}}'
        found = engine.docker("node", "inspect", "--format", wanted, state.node_id).stdout
        assert found.split() == ["new"]

    await asyncio.to_thread(stock_starts_from, state, check)


@pytest.mark.parametrize(("wal_name", "snap_name"), [("wal-v3", "snap-v3"), ("wal", "snap")])
async def test_state_of_an_older_engine_is_migrated(
    state: Stock, wal_name: str, snap_name: str
) -> None:
    """Older names hold the same frames with nothing sealed."""
    where = place(state)
    loaded = RaftDisk.load(where.directory, where.encryptor, where.decryptor)
    loaded.disk.close()
    shutil.rmtree(where.directory)
    (where.directory / snap_name).mkdir(parents=True)
    old = Wal.create(
        where.directory / wal_name,
        loaded.member.SerializeToString(),
        hard_state=loaded.hard_state,
        entries=loaded.entries,
    )
    old.close()
    again = RaftDisk.load(where.directory, where.encryptor, where.decryptor)
    again.disk.close()
    assert again.entries == loaded.entries
    assert again.hard_state == loaded.hard_state
    assert (where.directory / WAL_DIR).exists() and (where.directory / wal_name).exists()
    sealed = Wal.open(where.directory / WAL_DIR)
    content = sealed.read(SnapshotMark(0, 0))
    sealed.close()
    assert all(
        api.MaybeEncryptedRecord.FromString(entry.Data).algorithm
        == api.MaybeEncryptedRecord.SECRETBOX_SALSA20_POLY1305
        for entry in content.entries
    )
    stock_starts_from(state, lambda engine: None)


async def test_a_stock_snapshot_and_changed_key_are_read(tmp_path: Path) -> None:
    """Turning autolock on makes a stock manager change its key, which takes a snapshot."""
    require_engine()
    copy = tmp_path / "swarm"
    with Engine("wal3") as engine:
        engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        before = dek_of(engine.swarm_dir)
        engine.docker("swarm", "update", "--autolock=true")
        unlock = engine.docker("swarm", "unlock-key", "-q").stdout.strip()
        engine.docker("config", "create", "motd", "-", stdin="hello")
        raft, key_path = engine.swarm_dir / "raft", engine.swarm_dir / "certificates"
        wait_until("a snapshot", lambda: list((raft / SNAPSHOT_DIR).glob("*.snap")))
        wait_until(
            "the change of key to end",
            lambda: b"raft-dek-pending" not in (key_path / "swarm-node.key").read_bytes(),
        )
        node_id = engine.docker("info", "--format", "{{.Swarm.NodeID}}").stdout.strip()
        engine.kill()
        shutil.copytree(engine.swarm_dir, copy)
    text = (copy / "certificates" / "swarm-node.key").read_bytes()
    dek = keyfile.read(text, parse_unlock_key(unlock)).dek
    assert dek and dek != before
    state = Stock(copy, node_id, dek)
    where = place(state)
    loaded = RaftDisk.load(where.directory, where.encryptor, where.decryptor)
    loaded.disk.close()
    assert loaded.damage == ()
    assert loaded.snapshot is not None
    snapshot = api.Snapshot.FromString(loaded.snapshot.data)
    assert [member.node_id for member in snapshot.membership.members] == [node_id]
    async with running(where) as (node, store, committer):
        assert node.is_leader()
        assert [config.spec.data for config in store.view().all(api.Config)] == [b"hello"]
        await committer.update(lambda tx: tx.delete(api.Config, tx.all(api.Config)[0].id))
    with Engine("wal4") as engine:
        engine.stop()
        shutil.rmtree(engine.swarm_dir)
        shutil.copytree(copy, engine.swarm_dir)
        engine.start()
        engine.docker("swarm", "unlock", stdin=unlock + "\n")
        wait_until(
            "a leader",
            lambda: (
                engine.docker("config", "ls", "-q", check=False).stdout == ""
                and engine.docker("node", "ls", check=False).returncode == 0
            ),
        )
