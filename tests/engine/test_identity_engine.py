"""Our joining side against a stock manager, and our key files under a stock engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.base.entropy import SystemEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import keyfile, tokens, unlock
from swarmd.node.statedir import KeyStore, StateDir
from tests.harness import joiner
from tests.harness.engines import Engine, Lan, require_engine, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def token_of(engine: Engine, role: str) -> str:
    return engine.docker("swarm", "join-token", "-q", role).stdout.strip()


def test_joining_a_stock_manager(tmp_path: Path) -> None:
    require_engine()
    with Lan() as lan, Engine("e1", lan=lan) as engine:
        us, addr, state = lan.host("us"), f"{engine.ip}:2377", tmp_path / "swarm"
        engine.docker("swarm", "init", "--advertise-addr", engine.ip)
        token = token_of(engine, "worker")
        foreign = tokens.join_token(b"another root", SystemEntropy())
        assert joiner.join(us, state, addr, foreign)["error"] == "WrongRoot"
        refused = joiner.join(us, state, addr, token[:-4] + "zzzz")
        assert refused == {
            "error": "InvalidArgument",
            "message": "A valid join token is necessary to join this cluster",
        }
        joined = joiner.join(us, state, addr, token)
        assert joined["role"] == ca.WORKER and joined["kek"] == ""
        node_id = joined["node_id"]
        assert joiner.join(us, state, addr) == joined
        engine.docker("swarm", "ca", "--rotate", "--detach", "--quiet")
        moved = joiner.join(us, state, addr)
        assert moved["node_id"] == node_id and moved["issuer"] != joined["issuer"]
        # and once more, now showing the certificate from the rotation
        assert joiner.join(us, state, addr)["issuer"] == moved["issuer"]
        assert engine.json("node", "inspect", node_id)[0]["Spec"]["Role"] == "worker"
        # the rotation waits for our report, which only a session could bring
        engine.docker("node", "rm", "--force", node_id)
        wait_until(
            "the rotation ends",
            lambda: (
                not engine.json("info", "--format", "{{json .Swarm.Cluster}}")[
                    "RootRotationInProgress"
                ]
            ),
        )
        assert token_of(engine, "worker") != token
        refused = joiner.join(us, state, addr)
        assert "A valid join token is necessary" in refused["message"]


def test_a_manager_certificate_comes_with_the_unlock_key(tmp_path: Path) -> None:
    require_engine()
    with Lan() as lan, Engine("e1", lan=lan) as engine:
        engine.docker("swarm", "init", "--autolock", "--advertise-addr", engine.ip)
        key = engine.docker("swarm", "unlock-key", "-q").stdout.strip()
        token = token_of(engine, "manager")
        joined = joiner.join(lan.host("us"), tmp_path / "swarm", f"{engine.ip}:2377", token)
        assert joined["role"] == ca.MANAGER
        assert unlock.format_unlock_key(bytes.fromhex(joined["kek"])) == key
        assert joined["kek_version"] > 0


def test_a_stock_engine_opens_the_key_file_we_wrote() -> None:
    require_engine()
    with Engine("e1") as engine:
        engine.docker("swarm", "init", "--autolock", "--advertise-addr", "127.0.0.1")
        text = engine.docker("swarm", "unlock-key", "-q").stdout.strip()
        kek = unlock.parse_unlock_key(text)
        path = engine.swarm_dir / "certificates" / "swarm-node.key"
        wait_until("the key is locked", lambda: keyfile.is_locked(path.read_bytes()))
        wait_until(
            "the raft keys are new", lambda: not keyfile.read(path.read_bytes(), kek).needs_rotation
        )
        engine.stop()
        before = path.read_bytes()
        file = keyfile.read(before, kek)
        path.write_bytes(keyfile.write(file, SystemEntropy()))
        assert path.read_bytes() != before
        engine.start()
        state = engine.docker("info", "--format", "{{.Swarm.LocalNodeState}}").stdout.strip()
        assert state == "locked"
        engine.docker("swarm", "unlock", stdin=text + "\n")
        wait_until(
            "the manager is back",
            lambda: engine.docker("node", "ls", "-q", check=False).stdout.strip() != "",
        )
        store = KeyStore(StateDir(engine.swarm_dir), SystemEntropy())
        assert store.open(kek).role == ca.MANAGER
