"""Autolock through the life of the daemon: what is on disk, what starts, what is refused."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemons import Daemon, Refused, daemon_place
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


def is_sealed(daemon: Daemon) -> bool:
    """Whether the key on disk needs the unlock key; its headers keep the cluster's version."""
    return "ENCRYPTED PRIVATE KEY" in key_text(daemon)


def unlock_key(daemon: Daemon) -> str:
    return str(daemon.get("/swarm/unlockkey")["UnlockKey"])


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
        daemon.post(
            "/swarm/init",
            {
                "ListenAddr": daemon.addr,
                "AdvertiseAddr": daemon.addr,
                "AutoLockManagers": True,
                "Spec": {"EncryptionConfig": {"AutoLockManagers": True}},
            },
        )
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
        open_key = key_text(daemon)

        daemon.change_swarm(EncryptionConfig={"AutoLockManagers": True})
        wait_until("the key file is sealed", lambda: is_sealed(daemon))
        first = unlock_key(daemon)
        # The key that lay open is not used any more, so the sealed one is another.
        assert open_key.splitlines()[1:-1] != key_text(daemon).splitlines()[1:-1]
        daemon.restart()
        assert daemon.state() == "locked"
        unlock(daemon, first)
        daemon.wait_ready("m")

        sealed = key_text(daemon)
        daemon.change_swarm("rotateManagerUnlockKey=true")
        second = unlock_key(daemon)
        assert second != first
        wait_until("the key file is sealed anew", lambda: key_text(daemon) != sealed)
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
