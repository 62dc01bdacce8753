"""Autolock through the life of the daemon: what is on disk, what starts, what is refused."""

from __future__ import annotations

import base64
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.cluster.ca import keyfile
from swarmd.cluster.ca.unlock import parse_unlock_key
from tests.harness.daemons import ROOT, Daemon, Refused, daemon_place, own_loopback_ip
from tests.harness.lan import wait_until

LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. "
    'Please use "docker swarm unlock" to unlock it.'
)
LOCKED_LEAVE = (
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
)


@pytest.fixture
def place() -> Iterator[Path]:
    with daemon_place() as made:
        yield made


def key_text(daemon: Daemon) -> str:
    """The node's key file."""
    return (daemon.swarm_dir / "certificates" / "swarm-node.key").read_text()


def opened(daemon: Daemon, key: str = "") -> keyfile.KeyFile:
    """What the key file holds. Raises when the unlock key is another."""
    kek = parse_unlock_key(key) if key else b""
    return keyfile.read(key_text(daemon).encode(), kek)


def is_sealed(daemon: Daemon) -> bool:
    """Whether the key on disk needs the unlock key; its headers keep the cluster's version."""
    return "ENCRYPTED PRIVATE KEY" in key_text(daemon)


def unlock_key(daemon: Daemon) -> str:
    return str(daemon.get("/swarm/unlockkey")["UnlockKey"])


def init_locked(daemon: Daemon) -> None:
    """Make it the manager of a new swarm with autolock, as the docker CLI asks for it."""
    daemon.post(
        "/swarm/init",
        {
            "ListenAddr": daemon.addr,
            "AdvertiseAddr": daemon.addr,
            "AutoLockManagers": True,
            "Spec": {"EncryptionConfig": {"AutoLockManagers": True}},
        },
    )


def unlock(daemon: Daemon, key: str) -> None:
    daemon.post("/swarm/unlock", {"UnlockKey": key})


def other_key(key: str) -> str:
    """A well-formed key that fits nothing."""
    raw = base64.b64decode(key.removeprefix("SWMKEY-1-") + "=")
    return "SWMKEY-1-" + base64.b64encode(raw[::-1]).decode().rstrip("=")


def refusal(daemon: Daemon, method: str, path: str, body: object = None) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        daemon.call(method, path, body)
    return refused.value.status, refused.value.message


def test_a_locked_manager_waits_for_its_key(place: Path) -> None:
    with Daemon(place / "m") as daemon:
        init_locked(daemon)
        daemon.wait_ready("m")
        assert is_sealed(daemon)
        key, before = unlock_key(daemon), daemon.shape()
        assert key.startswith("SWMKEY-1-")
        assert refusal(daemon, "POST", "/swarm/unlock", {"UnlockKey": key}) == (
            409,
            "swarm is not locked",
        )
        daemon.restart()
        info = daemon.swarm()
        assert (info["LocalNodeState"], info["ControlAvailable"]) == ("locked", False)
        assert info["Error"] == LOCKED
        assert info["NodeID"] == ""
        assert refusal(daemon, "GET", "/nodes") == (503, LOCKED)
        assert refusal(daemon, "GET", "/swarm") == (503, LOCKED)
        assert refusal(daemon, "POST", "/swarm/leave") == (503, LOCKED_LEAVE)
        init = {"ListenAddr": daemon.addr, "AdvertiseAddr": daemon.addr}
        assert "already part of a swarm" in refusal(daemon, "POST", "/swarm/init", init)[1]
        assert refusal(daemon, "POST", "/swarm/unlock", {"UnlockKey": "hunter2"}) == (
            400,
            "invalid key string",
        )
        assert refusal(daemon, "POST", "/swarm/unlock", {"UnlockKey": other_key(key)}) == (
            401,
            "swarm could not be unlocked: invalid key provided",
        )
        assert daemon.state() == "locked"
        unlock(daemon, key)
        daemon.wait_ready("m")
        assert daemon.shape() == before
        assert unlock_key(daemon) == key


@contextlib.contextmanager
def locked(place: Path) -> Iterator[tuple[Daemon, str]]:
    """A sole manager that was started again and waits for its key; and the key."""
    with Daemon(place / "m") as daemon:
        init_locked(daemon)
        key = unlock_key(daemon)
        assert key.startswith("SWMKEY-1-")
        daemon.restart()
        yield daemon, key


def update_address(daemon: Daemon, addr: str) -> subprocess.CompletedProcess[str]:
    """Run `swarmctl update-address`."""
    command = [sys.executable, "-m", "swarmctl", "-H", f"unix://{daemon.socket}"]
    return subprocess.run(
        [*command, "update-address", addr], cwd=ROOT, capture_output=True, text=True, timeout=90
    )


def own_addr(daemon: Daemon) -> str:
    """What the only manager is listed with; "" while it does not lead."""
    try:
        (node,) = daemon.get("/nodes")
    except Refused:
        return ""
    return str(node["ManagerStatus"]["Addr"])


def settings_file(daemon: Daemon) -> str:
    return (daemon.swarm_dir / "docker-state.json").read_text()


def test_a_locked_manager_keeps_its_address_until_it_is_unlocked(place: Path) -> None:
    with locked(place) as (daemon, key):
        before, to = settings_file(daemon), f"{own_loopback_ip()}:{daemon.port}"
        for _ in range(3):
            ran = update_address(daemon, to)
            assert (ran.returncode, ran.stdout) == (1, "")
            assert ran.stderr == f"Error response from daemon: {LOCKED}\n"
            assert refusal(daemon, "GET", "/swarmd/address") == (503, LOCKED)
            assert daemon.state() == "locked"
        assert settings_file(daemon) == before
        unlock(daemon, key)
        assert daemon.state() == "active"
        ran = update_address(daemon, to)  # at once
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith(f"Manager address updated: {to}, it was {daemon.addr}.")
        assert own_addr(daemon) == to


def test_a_locked_manager_takes_the_address_of_its_start_once_unlocked(place: Path) -> None:
    with locked(place) as (daemon, key):
        to = f"{own_loopback_ip()}:{daemon.port}"
        before = settings_file(daemon)
        daemon.args = ["--advertise-addr", to.partition(":")[0]]
        daemon.restart()
        assert daemon.state() == "locked"
        assert settings_file(daemon) == before, "nobody knows it by that address yet"
        unlock(daemon, key)
        wait_until("it is known so", lambda: own_addr(daemon) == to)
        wait_until("it is written down", lambda: f'"AdvertiseAddr":"{to}"' in settings_file(daemon))
        assert daemon.swarm()["NodeAddr"] == to.partition(":")[0]
        daemon.args = []
        daemon.restart()
        unlock(daemon, key)
        wait_until("it is still known so", lambda: own_addr(daemon) == to)


def test_a_locked_node_stops_soon_and_can_be_left_by_force(place: Path) -> None:
    with Daemon(place / "m") as daemon:
        daemon.init(EncryptionConfig={"AutoLockManagers": True})
        wait_until("the key file is sealed", lambda: is_sealed(daemon))
        daemon.restart()
        status, seconds = daemon.signal(signal.SIGTERM)
        assert (status, seconds < 3) == (0, True), (status, seconds)
        daemon.start()
        assert daemon.state() == "locked"
        daemon.post("/swarm/leave?force=1")
        assert daemon.state() == "inactive"
        assert list(daemon.swarm_dir.iterdir()) == []
        assert daemon.init()


def test_autolock_turned_on_rotated_and_off(place: Path) -> None:
    with Daemon(place / "m") as daemon:
        daemon.init()
        daemon.wait_ready("m")
        before = daemon.shape()
        assert not is_sealed(daemon)
        assert unlock_key(daemon) == ""
        open_key = opened(daemon).key_pem

        daemon.change_swarm(EncryptionConfig={"AutoLockManagers": True})
        wait_until("the key file is sealed", lambda: is_sealed(daemon))
        first = unlock_key(daemon)
        # The key that lay open is not used any more, so the sealed one is another.
        wait_until("another is sealed", lambda: opened(daemon, first).key_pem != open_key)
        daemon.restart()
        assert daemon.state() == "locked"
        unlock(daemon, first)
        daemon.wait_ready("m")

        version = opened(daemon, first).kek.version
        daemon.change_swarm("rotateManagerUnlockKey=true")
        second = unlock_key(daemon)
        assert second != first
        wait_until(
            "the key file is sealed anew",
            lambda: f"kek-version: {version}\n" not in key_text(daemon),
        )
        assert opened(daemon, second).kek.version > version
        daemon.restart()
        assert refusal(daemon, "POST", "/swarm/unlock", {"UnlockKey": first})[0] == 401
        unlock(daemon, second)
        daemon.wait_ready("m")

        daemon.change_swarm(EncryptionConfig={"AutoLockManagers": False})
        wait_until("the key file is open", lambda: not is_sealed(daemon))
        assert unlock_key(daemon) == ""
        daemon.restart()
        daemon.wait_ready("m")
        assert daemon.shape() == before


def test_killed_right_after_autolock_it_opens_with_the_key(place: Path) -> None:
    """Sealing the key file and changing the log's key are several steps: none may be lost."""
    with Daemon(place / "m") as daemon:
        daemon.init()
        daemon.wait_ready("m")
        before = daemon.shape()
        daemon.change_swarm(EncryptionConfig={"AutoLockManagers": True})
        key = unlock_key(daemon)
        daemon.kill()
        daemon.start()
        if daemon.state() == "locked":  # else the file was not sealed yet
            unlock(daemon, key)
        daemon.wait_ready("m")
        assert daemon.shape() == before
        wait_until("the key file is sealed", lambda: is_sealed(daemon))
        daemon.restart()
        assert daemon.state() == "locked"
        unlock(daemon, key)
        daemon.wait_ready("m")


def test_a_worker_is_not_locked(place: Path) -> None:
    with Daemon(place / "m") as manager, Daemon(place / "w") as worker:
        manager.init(EncryptionConfig={"AutoLockManagers": True})
        worker.join(manager.token(), manager)
        worker.restart()
        assert worker.state() != "locked"
        manager.wait_ready("m", "w")
