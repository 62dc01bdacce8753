"""State that was damaged on disk: said with the file's name, never overwritten, never a trace."""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemons import Daemon, Refused, daemon_place
from tests.harness.lan import wait_until

KEY, CERT = "certificates/swarm-node.key", "certificates/swarm-node.crt"
ROOT = "certificates/swarm-root-ca.crt"
WAL = "raft/wal-v3-encrypted/0000000000000000-0000000000000000.wal"


@dataclass
class Template:
    """A manager that was stopped, and a copy of its good state."""

    daemon: Daemon
    good: Path
    shape: dict[str, Any]

    def restore(self) -> None:
        """Put the good state back."""
        swarm = self.daemon.swarm_dir
        if swarm.is_dir():
            shutil.rmtree(swarm)
        else:
            swarm.unlink(missing_ok=True)
        # The log's file is 64 MB of nearly nothing.
        shutil.copytree(self.good, swarm, copy_function=shutil.copy)
        (self.daemon.root / "log").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def stopped() -> Iterator[Template]:
    with daemon_place() as place:
        daemon = Daemon(place / "m")
        with daemon:
            daemon.init()
            daemon.wait_ready("m")
            shape = daemon.shape()
            daemon.signal(signal.SIGTERM)
        shutil.copytree(daemon.swarm_dir, place / "good")
        yield Template(daemon, place / "good", shape)


@pytest.fixture
def place() -> Iterator[Path]:
    with daemon_place() as made:
        yield made


@pytest.fixture
def template(stopped: Template) -> Iterator[Template]:
    stopped.restore()
    yield stopped
    stopped.daemon.kill()


def prints(root: Path) -> dict[str, str]:
    """Every file below `root` with what is in it."""
    if not root.is_dir():
        return {"": hashlib.sha256(root.read_bytes()).hexdigest()}
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def flip(offset: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x20]))

    return damage


def cut(length: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:length]) and None


def fill(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def remove(path: Path) -> None:
    path.unlink()


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    (WAL, flip(30), "damaged"),
    (WAL, flip(600), "damaged"),
    (WAL, cut(0), "damaged"),
    (KEY, cut(100), "damaged"),
    (KEY, cut(0), "damaged"),
    (KEY, fill(b"\x00\xff" * 99), "damaged"),
    (KEY, remove, "missing"),
    (KEY, make_directory, "Is a directory"),
    (CERT, cut(100), "damaged"),
    (CERT, remove, "missing"),
    (ROOT, cut(100), "damaged"),
    (ROOT, cut(0), "damaged"),
    (ROOT, remove, "missing"),
    ("state.json", fill(b"\xff\x00garbage"), "damaged"),
    ("state.json", fill(b'{"a": 1}'), "damaged"),
    ("docker-state.json", fill(b"{nope"), "damaged"),
    ("docker-state.json", fill(b'{"ListenAddr": 5}'), "wrong kind"),
    ("docker-state.json", remove, "missing"),
]


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGES, ids=range(len(DAMAGES)))
def test_damage_is_said_and_left_alone(
    template: Template, name: str, damage: Callable[[Path], None], words: str
) -> None:
    daemon = template.daemon
    damage(daemon.swarm_dir / name)
    before = prints(daemon.swarm_dir)
    daemon.start()
    wait_until("the node says what is wrong", lambda: daemon.state() == "error")
    error = daemon.swarm()["Error"]
    assert str(daemon.swarm_dir / name) in error
    assert words in error
    assert error in daemon.log
    assert "Traceback" not in daemon.log
    with pytest.raises(Refused) as refused:
        daemon.get("/nodes")
    assert refused.value.status == 503
    with pytest.raises(Refused) as refused:
        daemon.init()
    assert "already part of a swarm" in refused.value.message
    assert daemon.signal(signal.SIGTERM)[0] == 0
    assert prints(daemon.swarm_dir) == before


def test_a_lost_log_begins_no_new_cluster(template: Template) -> None:
    daemon = template.daemon
    shutil.rmtree(daemon.swarm_dir / "raft")
    daemon.start()
    wait_until("the node says what is wrong", lambda: daemon.state() == "error")
    assert f"{daemon.swarm_dir / 'raft'} holds no log" in daemon.swarm()["Error"]
    assert not list(daemon.swarm_dir.glob("raft/*/*.wal"))


def test_a_manager_that_lost_its_log_starts_over_as_a_new_member(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "m2") as m2, Daemon(place / "m3") as m3:
        m1.init()
        for other in (m2, m3):
            other.join(m1.token("Manager"), m1)
        m1.wait_ready("m1", "m2", "m3")
        before = m3.shape()
        m3.kill()
        shutil.rmtree(m3.swarm_dir / "raft")
        m1.label_self("mark", "meanwhile")
        m3.start()
        m3.wait_ready("m1", "m2", "m3")
        assert m3.shape() == before, "the same node"
        assert m3.get(f"/nodes/{m1.shape()['self']}")["Spec"]["Labels"] == {"mark": "meanwhile"}
        m2.kill()  # its vote is needed now
        m3.label_self("mark", "counts")
        assert "is lost: it starts over" in m3.log
        assert "Traceback" not in m3.log


def test_a_file_put_back_heals_the_running_daemon(template: Template) -> None:
    daemon = template.daemon
    remove(daemon.swarm_dir / ROOT)
    flip(600)(daemon.swarm_dir / WAL)
    daemon.start()
    wait_until("the node says what is wrong", lambda: daemon.state() == "error")
    for name in (ROOT, WAL):
        shutil.copy(template.good / name, daemon.swarm_dir / name)
    daemon.wait_ready("m", timeout=60)  # it looks again by itself
    assert daemon.shape() == template.shape


@pytest.mark.parametrize("name", [WAL, KEY])
def test_a_damaged_manager_is_left_only_by_force(template: Template, name: str) -> None:
    daemon = template.daemon
    cut(64)(daemon.swarm_dir / name)
    daemon.start()
    wait_until("the node says what is wrong", lambda: daemon.state() == "error")
    with pytest.raises(Refused) as refused:
        daemon.post("/swarm/leave")
    assert refused.value.status == 503
    assert "Doing so may lose the consensus of your cluster." in refused.value.message
    assert daemon.state() == "error"
    daemon.post("/swarm/leave?force=1")
    assert daemon.state() == "inactive"
    assert list(daemon.swarm_dir.iterdir()) == []
    assert daemon.init() != template.shape["self"]


def test_a_file_in_the_place_of_the_state_is_kept(template: Template) -> None:
    daemon = template.daemon
    shutil.rmtree(daemon.swarm_dir)
    daemon.swarm_dir.write_text("precious")
    daemon.start()
    assert daemon.state() == "error"
    assert f"Not a directory: '{daemon.swarm_dir}" in daemon.swarm()["Error"]
    assert daemon.swarm_dir.read_text() == "precious"
