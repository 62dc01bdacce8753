"""The state directory: stock files read and written byte for byte, crashes, permissions."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import keyfile, unlock
from swarmd.cluster.ca.errors import InvalidKEK
from swarmd.cluster.ca.keyfile import KEK
from swarmd.node import statedir
from swarmd.node.remotes import Remote
from swarmd.node.statedir import KeyStore, NodeSettings, StateDir, StateError
from tests.harness.ca_kit import STOCK, World


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def stock(tmp_path: Path) -> StateDir:
    shutil.copytree(STOCK, tmp_path / "swarm")
    return StateDir(tmp_path / "swarm")


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "swarm")


def store_of(state: StateDir) -> KeyStore:
    return KeyStore(state, SeededEntropy(1))


def test_a_stock_directory_opens(stock: StateDir) -> None:
    store = store_of(stock)
    identity = store.open()
    assert identity.is_manager and len(identity.node_id) == len(identity.organization) == 25
    root_pem = stock.root_pem()
    assert root_pem is not None
    verified = ca.verify(identity.pair.cert_pem, root_pem, identity.not_before + 7200)
    assert verified.leaf.not_valid_after_utc.timestamp() == identity.not_after
    assert len(store.file().dek) == 32
    assert stock.remotes() == [Remote(identity.node_id, "127.0.0.1:2377")]
    settings = stock.settings()
    assert settings is not None
    assert (settings.local_addr, settings.data_path_port) == ("127.0.0.1", 4789)


def test_a_stock_directory_is_rewritten_byte_for_byte(stock: StateDir) -> None:
    store = store_of(stock)
    identity = store.open()
    settings = stock.settings()
    assert settings is not None
    stock.save_settings(settings)
    stock.save_remotes(stock.remotes())
    store.write(identity.pair)
    root_pem = stock.root_pem()
    assert root_pem is not None
    stock.save_root(root_pem)
    for name in ("state.json", "docker-state.json"):
        assert (stock.path / name).read_bytes() == (STOCK / name).read_bytes()
        assert mode(stock.path / name) == 0o600
    for name, wanted in (
        ("swarm-root-ca.crt", 0o644),
        ("swarm-node.crt", 0o644),
        ("swarm-node.key", 0o600),
    ):
        path = stock.certificates / name
        assert path.read_bytes() == (STOCK / "certificates" / name).read_bytes()
        assert mode(path) == wanted


def test_a_locked_stock_key(stock: StateDir) -> None:
    shutil.copy(stock.path / "locked.key", stock.key_path)
    assert stock.is_locked()
    kek = unlock.parse_unlock_key((STOCK / "locked.unlock-key").read_text())
    for wrong in (b"", b"x" * 32):
        with pytest.raises(InvalidKEK):
            store_of(stock).open(wrong)
    file = keyfile.read(stock.key_path.read_bytes(), kek)
    assert len(file.dek) == 32 and file.kek.key == kek and file.kek.version > 0
    again = keyfile.write(file, SeededEntropy(1))
    assert keyfile.read(again, kek) == file
    assert list(keyfile.headers(again)) == list(keyfile.headers(stock.key_path.read_bytes()))


def test_nothing_there_yet(state: StateDir) -> None:
    assert state.root_pem() is None and state.settings() is None and state.remotes() == []
    assert not state.has_identity() and not state.is_locked()
    with pytest.raises(StateError, match=r"swarm-node\.key is missing"):
        store_of(state).open()
    with pytest.raises(StateError, match="not open"):
        store_of(state).file()
    state.forget()


def test_modes_do_not_depend_on_the_umask(state: StateDir) -> None:
    old = os.umask(0o077)
    try:
        state.save_root(b"root")
        os.umask(0)
        store_of(state).write(World().pair("n1"))
        state.save_remotes([Remote("a", "b:1")])
    finally:
        os.umask(old)
    assert mode(state.root_path) == mode(state.cert_path) == 0o644
    assert mode(state.key_path) == mode(state.remotes_path) == 0o600
    assert mode(state.path) == 0o700


def test_no_temporary_files_stay(state: StateDir) -> None:
    state.save_root(b"root")
    store_of(state).write(World().pair("n1"))
    assert sorted(path.name for path in state.certificates.iterdir()) == [
        "swarm-node.crt",
        "swarm-node.key",
        "swarm-root-ca.crt",
    ]


def test_a_new_pair_keeps_the_raft_keys(state: StateDir) -> None:
    world, store = World(), store_of(state)
    store.write(world.pair("n1", ca.MANAGER), KEK(b"k" * 32, 5))
    assert state.is_locked()
    dek = b"d" * 32
    store.update(lambda file: keyfile.KeyFile(file.key_pem, file.kek, dek=dek))
    pair = world.pair("n1", ca.MANAGER)
    assert store.write(pair).pair.key_pem == pair.key_pem
    reopened = store_of(state)
    assert reopened.open(b"k" * 32).pair == pair
    assert (reopened.file().dek, reopened.file().kek) == (dek, KEK(b"k" * 32, 5))


def test_locking_with_a_new_certificate_asks_for_new_raft_keys(state: StateDir) -> None:
    world, store = World(), store_of(state)
    store.write(world.pair("n1", ca.MANAGER))
    store.update(lambda file: keyfile.KeyFile(file.key_pem, dek=b"d" * 32))
    store.write(world.pair("n1", ca.MANAGER), KEK(b"k" * 32, 5))
    assert store.file().needs_rotation


def test_an_unlock_key_that_was_asked_for_earlier_does_not_undo_a_newer_one(
    state: StateDir,
) -> None:
    """Autolock came on between the leader's answer to a renewal and the writing of it."""
    world, store = World(), store_of(state)
    store.write(world.pair("n1", ca.MANAGER), KEK(b"", 3))
    store.update(lambda file: file.with_kek(KEK(b"k" * 32, 5)))
    renewed = world.pair("n1", ca.MANAGER)
    store.write(renewed, KEK(b"", 3))
    assert state.is_locked() and store.file().kek == KEK(b"k" * 32, 5)
    assert store.identity().pair.cert_pem == renewed.cert_pem
    store.write(world.pair("n1", ca.MANAGER), KEK(b"", 6))
    assert not state.is_locked()


def test_a_workers_certificate_unlocks(state: StateDir) -> None:
    world, store = World(), store_of(state)
    store.write(world.pair("n1", ca.MANAGER), KEK(b"k" * 32, 5))
    store.write(world.pair("n1"), KEK())
    assert not state.is_locked()
    assert store_of(state).open().role == ca.WORKER


def test_new_directories_survive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = statedir.sync_directory

    def note(path: Path) -> None:
        synced.append(path)
        real(path)

    monkeypatch.setattr(statedir, "sync_directory", note)
    state = StateDir(tmp_path / "var" / "swarm")
    state.prepare()
    assert synced == [tmp_path, tmp_path / "var", state.path]
    assert (mode(state.path), mode(state.certificates)) == (0o700, 0o755)
    state.prepare()
    assert len(synced) == 3, "once"


def test_an_update_that_changes_nothing_writes_nothing(state: StateDir) -> None:
    store = store_of(state)
    store.write(World().pair("n1"))
    before = state.key_path.stat().st_ino
    store.update(lambda file: file)
    assert state.key_path.stat().st_ino == before
    store.update(lambda file: file.with_kek(KEK(b"k" * 32, 3)))
    assert state.key_path.stat().st_ino != before


class Crash(Exception):
    """The process dies here."""


@pytest.mark.parametrize("step", range(14))
def test_a_crash_at_any_step_leaves_a_usable_pair(
    step: int, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    old, new = world.pair("n1"), world.pair("n1")
    store_of(state).write(old)
    left = step

    def dying(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **more: object) -> object:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1
            return real(*args, **more)

        monkeypatch.setattr(statedir.os, name, call)

    store = store_of(state)
    store.open()
    for name in ("open", "fsync", "replace"):
        dying(name)
    # a dead process cleans nothing up
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    try:
        store.write(new)
        done = True
    except Crash:
        done = False
    monkeypatch.undo()
    found = store_of(state).open()
    assert found.pair in (old, new)
    assert found.pair == new or not done
    assert (step < 13) is not done


def test_a_certificate_that_belongs_to_no_key_is_told(state: StateDir) -> None:
    world, store = World(), store_of(state)
    store.write(world.pair("n1"))
    state.cert_path.write_bytes(world.pair("n1").cert_pem)
    with pytest.raises(
        StateError, match=r"swarm-node\.crt is missing, damaged, or does not belong"
    ):
        store_of(state).open()
    state.cert_path.write_bytes(b"junk")
    state.cert_temp_path.write_bytes(b"more junk")
    with pytest.raises(StateError):
        store_of(state).open()
    state.key_path.write_bytes(b"junk")
    with pytest.raises(StateError, match=r"swarm-node\.key is damaged"):
        store_of(state).open()


def test_a_full_disk_keeps_the_old_pair(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    world, store = World(), store_of(state)
    old = world.pair("n1")
    store.write(old)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(statedir.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write(world.pair("n1"))
    monkeypatch.undo()
    assert store_of(state).open().pair == old
    assert store.identity().pair == old
    assert not list(state.certificates.glob(".tmp-*"))


def test_a_link_is_not_followed_when_writing(state: StateDir, tmp_path: Path) -> None:
    state.prepare()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (state.path / ".tmp-state.json").symlink_to(victim)
    with pytest.raises(OSError):
        state.save_remotes([])
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{}", b'"x"', b"[1]", b'[{"addr":1}]', b'[{"node_id":[],"addr":"a"}]', b"\xff",
     b"[" * 100_000],
)  # fmt: skip
def test_damaged_list_of_managers(text: bytes, state: StateDir) -> None:
    state.prepare()
    state.remotes_path.write_bytes(text)
    with pytest.raises(StateError):
        state.remotes()


def test_list_of_managers(state: StateDir) -> None:
    state.prepare()
    for text, wanted in (
        (b"null", []),
        (b'[{"addr":""},{"node_id":"n"}]', []),
        (b'[{"addr":"a:1"}]', [Remote("", "a:1")]),
    ):
        state.remotes_path.write_bytes(text)
        assert state.remotes() == wanted
    state.save_remotes([Remote("b", "2:2"), Remote("a", "1:1")])
    assert json.loads(state.remotes_path.read_text()) == [
        {"node_id": "a", "addr": "1:1"},
        {"node_id": "b", "addr": "2:2"},
    ]


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"LocalAddr":1}', b'{"SubnetSize":"x"}', b'{"JoinInProgress":1}',
     b'{"DefaultAddressPool":"x"}', b'{"DefaultAddressPool":[1]}', b'{"SubnetSize":true}'],
)  # fmt: skip
def test_damaged_settings(text: bytes) -> None:
    with pytest.raises(StateError):
        NodeSettings.from_json(text)


def test_settings_of_other_releases() -> None:
    found = NodeSettings.from_json(b'{"LocalAddr":"a","DefaultAddressPool":null,"New":{}}')
    assert found == NodeSettings(local_addr="a")


def test_oversized_files_are_not_read(state: StateDir) -> None:
    state.save_root(b"x" * (statedir.state_bytes_max + 1))
    with pytest.raises(StateError, match="larger than"):
        state.root_pem()


def test_the_raft_member_outlives_its_log(state: StateDir) -> None:
    assert state.raft_member() == 0
    state.prepare()
    state.raft.mkdir()
    state.save_raft_member(0xAB)
    written = state.member_path.stat()
    state.save_raft_member(0xAB)
    assert state.member_path.stat().st_ino == written.st_ino, "nothing new, nothing written"
    shutil.rmtree(state.raft)
    assert state.raft_member() == 0xAB
    state.save_raft_member(1 << 62)
    assert state.raft_member() == 1 << 62
    assert mode(state.member_path) == 0o600
    state.member_path.write_text("zz")
    with pytest.raises(StateError, match="raft-member is damaged: not a raft id"):
        state.raft_member()
    state.raft.mkdir()
    state.forget_log()
    assert state.raft_member() == 0 and not state.raft.exists()


def test_forgetting(stock: StateDir) -> None:
    (stock.path / "raft" / "wal").mkdir(parents=True)
    (stock.path / "raft" / "wal" / "x").write_bytes(b"x")
    (stock.path / "link").symlink_to("/")
    stock.forget()
    assert list(stock.path.iterdir()) == []
    assert Path("/etc").exists()
