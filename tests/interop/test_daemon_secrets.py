"""Nothing that must stay secret reaches a log, whatever the level and whatever is done."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.cluster import ca
from tests.harness.daemons import Daemon, Refused, daemon_place
from tests.harness.lan import wait_until

DATA = b"the-word-nobody-may-read"


@pytest.fixture
def place() -> Iterator[Path]:
    with daemon_place() as made:
        yield made


class Secrets:
    """Every text that must not be found, in all the shapes it could be printed in."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def add(self, what: str, text: str) -> None:
        """A text as it is."""
        assert len(text) >= 16, what
        self.texts[text] = what

    def add_raw(self, what: str, raw: bytes) -> None:
        """Bytes: as base64, as hexadecimal digits, as Python shows them."""
        self.add(what, base64.b64encode(raw).decode().rstrip("="))
        self.add(what, raw.hex())
        self.add(what, repr(raw)[2:-1])

    def add_token(self, what: str, token: str) -> None:
        """A join token: its last part is the secret, the digest before it is public."""
        self.add(what, token.rsplit("-", 1)[1])

    def add_tokens(self, daemon: Daemon) -> None:
        """Both present tokens."""
        for role in ("Worker", "Manager"):
            self.add_token(f"{role} token", daemon.token(role))

    def add_unlock_key(self, daemon: Daemon) -> str:
        """The present unlock key."""
        key = str(daemon.get("/swarm/unlockkey")["UnlockKey"])
        raw = key.removeprefix("SWMKEY-1-")
        self.add_raw("unlock key", base64.b64decode(raw + "=" * (-len(raw) % 4)))
        return key

    def add_key_file(self, daemon: Daemon) -> None:
        """The node's private key, sealed or not, and the raft keys in its headers."""
        text = (daemon.swarm_dir / "certificates" / "swarm-node.key").read_text()
        self.add_pem("node key", text)
        for line in text.splitlines():
            name, colon, value = line.partition(": ")
            if colon and "dek" in name.lower() and len(value) > 16:
                self.add("raft key", value.strip().rstrip("="))

    def add_pem(self, what: str, pem: str) -> None:
        """A PEM block, line by line."""
        for line in pem.splitlines():
            if len(line) > 40 and ":" not in line and not line.startswith("-"):
                self.add(what, line.rstrip("="))

    def found_in(self, text: str) -> list[str]:
        """Which of them `text` gives away."""
        return sorted({what for secret, what in self.texts.items() if secret in text})


def rotate_root(daemon: Daemon, **ca_config: object) -> None:
    """Give the cluster another root, and wait until it has taken over."""
    swarm = daemon.get("/swarm")
    now = swarm["Spec"]["CAConfig"]
    forced = now | {"ForceRotate": now.get("ForceRotate", 0) + 1} | ca_config
    daemon.change_swarm(CAConfig=forced)

    def done() -> bool:
        seen = daemon.get("/swarm")
        return (
            not seen["RootRotationInProgress"]
            and seen["TLSInfo"]["TrustRoot"] != swarm["TLSInfo"]["TrustRoot"]
        )

    wait_until("the new root has taken over", done, 60)


def kek_version(path: Path) -> int:
    """The cluster version a key file's unlock key came with."""
    found = re.search(r"^kek-version: (\d+)$", path.read_text(), re.M)
    return int(found[1]) if found is not None else 0


def test_no_secret_is_logged(place: Path) -> None:
    secrets = Secrets()
    debug = ["--log-level", "debug"]
    with (
        Daemon(place / "m", args=debug) as manager,
        Daemon(place / "n", args=[*debug, "--log-format", "json"]) as second,
        Daemon(place / "w", args=debug) as worker,
    ):
        everybody = (manager, second, worker)
        manager.init()
        secrets.add_tokens(manager)
        worker.join(manager.token(), manager)
        second.join(manager.token("Manager"), manager)
        manager.wait_ready("m", "n", "w")
        for daemon in everybody:
            secrets.add_key_file(daemon)

        used, left = manager.token(), worker.swarm()["NodeID"]
        for role in ("Worker", "Manager"):
            manager.change_swarm(f"rotate{role}Token=true")
        secrets.add_tokens(manager)
        worker.post("/swarm/leave")
        with pytest.raises(Refused):
            worker.join(used, manager)
        worker.join(manager.token(), manager)
        manager.call("DELETE", f"/nodes/{left}?force=1")  # else a rotation waits for it

        manager.post("/secrets/create", {"Name": "word", "Data": base64.b64encode(DATA).decode()})
        secrets.add_raw("secret", DATA)
        secrets.add("secret", DATA.decode())

        rotate_root(manager)
        secrets.add_tokens(manager)
        given = ca.new_root(SystemClock().now(), SystemEntropy())
        assert given.signer is not None
        given_key = given.signer.key_pem.decode()
        secrets.add_pem("CA key", given_key)
        rotate_root(manager, SigningCACert=given.pem.decode(), SigningCAKey=given_key)
        secrets.add_tokens(manager)
        for daemon in everybody:
            secrets.add_key_file(daemon)

        manager.change_swarm(EncryptionConfig={"AutoLockManagers": True})
        old = secrets.add_unlock_key(manager)
        first = manager.get("/swarm")["Version"]["Index"]
        manager.change_swarm("rotateManagerUnlockKey=true")
        key = secrets.add_unlock_key(manager)
        for daemon in (manager, second):
            path = daemon.swarm_dir / "certificates" / "swarm-node.key"
            # Sealed with the second key, not still with the first: it names its version.
            wait_until("sealed", lambda path=path: kek_version(path) > first)
        second.restart()
        for attempt in (old, "SWMKEY-1-nonsense", key):
            if attempt == key:
                second.post("/swarm/unlock", {"UnlockKey": key})
            else:
                with pytest.raises(Refused):
                    second.post("/swarm/unlock", {"UnlockKey": attempt})
        second.wait_ready("m", "n", "w", timeout=60)
        for daemon in everybody:
            secrets.add_key_file(daemon)

    assert len(secrets.texts) > 30
    assert " debug " in manager.log
    for daemon in everybody:
        assert secrets.found_in(daemon.log) == []
        # The mask of the log is the last fence; nothing may have come as far as that.
        assert "[redacted]" not in daemon.log
        assert "PRIVATE KEY" not in daemon.log
    for line in second.log.splitlines():
        assert json.loads(line)["message"]


def test_the_search_would_find_what_is_there(place: Path) -> None:
    secrets = Secrets()
    with Daemon(place / "m") as daemon:
        daemon.init(EncryptionConfig={"AutoLockManagers": True})
        secrets.add_tokens(daemon)
        key = secrets.add_unlock_key(daemon)
        secrets.add_key_file(daemon)
        file = (daemon.swarm_dir / "certificates" / "swarm-node.key").read_text()
        assert secrets.found_in(f"joined with {daemon.token()}") == ["Worker token"]
        assert secrets.found_in(key) == ["unlock key"]
        assert set(secrets.found_in(file)) >= {"node key", "raft key"}
        assert secrets.found_in(daemon.log) == []
