"""Tokens, roots and certificates of a running swarm, with a stock worker and a swarmd worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.cluster import ca
from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(200)]

# A certificate's times are whole minutes, rounded to the nearest as the reference does.
ROUNDING = timedelta(seconds=30)
BAD_TOKEN = (
    "Error response from daemon: rpc error: code = InvalidArgument desc = "
    "A valid join token is necessary to join this cluster"
)

REMOVED = (
    "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = "
    "Permission denied: "
)


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()
    with Lan() as made:
        yield made


def info(manager: Swarmd) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        manager.docker("info", "--format", "{{json .Swarm.Cluster}}").stdout
    )
    return found


def trusted(manager: Swarmd) -> str:
    return str(info(manager)["TLSInfo"]["TrustRoot"])


def digest(token: str) -> str:
    return token.split("-")[2]


def wait_ready(manager: Swarmd, *names: str) -> None:
    wait_until(
        f"{names} are ready",
        lambda: all(manager.node_states().get(name) == "Ready" for name in names),
        60,
        pause=0.2,
    )


def certificate(node: Engine | Swarmd) -> x509.Certificate:
    folder = node.swarm_dir if isinstance(node, Engine) else node.state_dir / "swarm"
    pem = (folder / "certificates" / "swarm-node.crt").read_bytes()
    return x509.load_pem_x509_certificates(pem)[0]


def roots_on_disk(node: Engine | Swarmd) -> str:
    folder = node.swarm_dir if isinstance(node, Engine) else node.state_dir / "swarm"
    return (folder / "certificates" / "swarm-root-ca.crt").read_text().strip()


def join(node: Engine | Swarmd, token: str, manager: Swarmd) -> Any:
    return node.docker("swarm", "join", "--token", token, f"{manager.ip}:2377", check=False)


def test_a_rotation_moves_both_kinds_of_workers(lan: Lan) -> None:
    with (
        Swarmd("m", lan=lan) as manager,
        Engine("e", lan=lan) as engine,
        Swarmd("w", lan=lan) as worker,
    ):
        manager.docker("swarm", "init", "--advertise-addr", manager.ip)
        old_token, old_root = manager.token(), trusted(manager)
        for node in (engine, worker):
            assert join(node, old_token, manager).returncode == 0
        wait_ready(manager, "m", "e", "w")
        serials = {node.name: certificate(node).serial_number for node in (engine, worker)}

        shown = manager.docker("swarm", "ca", "--rotate", timeout=60)
        assert "BEGIN CERTIFICATE" in shown.stdout
        root = trusted(manager)
        assert root != old_root
        assert root.strip() in shown.stdout
        assert not info(manager)["RootRotationInProgress"]
        new_token = manager.token()
        assert digest(new_token) != digest(old_token)
        for node in (engine, worker):
            wait_until("its root is the new one", lambda n=node: roots_on_disk(n) == root.strip())
            assert certificate(node).serial_number != serials[node.name]
        wait_ready(manager, "m", "e", "w")

        # The old token is of another root: refused before anything is sent.
        left = worker.docker("info", "--format", "{{.Swarm.NodeID}}").stdout.strip()
        worker.docker("swarm", "leave")
        manager.docker("node", "rm", "--force", left)
        refused = join(worker, old_token, manager)
        assert refused.returncode == 1
        assert "remote CA does not match fingerprint" in refused.stderr
        mixed = "-".join([*new_token.split("-")[:3], old_token.split("-")[3]])
        assert join(worker, mixed, manager).stderr.strip() == BAD_TOKEN
        assert join(worker, new_token, manager).returncode == 0
        # What was rotated outlives a restart of everybody.
        for node in (manager, engine, worker):
            node.restart()
        wait_ready(manager, "m", "e", "w")
        assert trusted(manager) == root
        assert "refused connection" not in manager.log  # nobody misbehaved


def test_a_rotation_waits_for_a_worker_that_is_down(lan: Lan) -> None:
    with (
        Swarmd("m", lan=lan) as manager,
        Engine("e", lan=lan) as engine,
        Swarmd("w", lan=lan) as worker,
    ):
        manager.docker("swarm", "init", "--advertise-addr", manager.ip)
        token = manager.token()
        for node in (engine, worker):
            assert join(node, token, manager).returncode == 0
        wait_ready(manager, "m", "e", "w")
        old = trusted(manager)
        for node in (engine, worker):
            node.kill()
            manager.docker("swarm", "ca", "--rotate", "--detach")
            others = [one for one in (engine, worker) if one is not node]
            wait_until(
                "the others have new certificates",
                lambda others=others, old=old: all(
                    issued_by_other(one, old) for one in (*others, manager)
                ),
                30,
            )
            assert info(manager)["RootRotationInProgress"]
            node.start()
            wait_until(
                "the rotation is over", lambda: not info(manager)["RootRotationInProgress"], 60
            )
            wait_ready(manager, "m", "e", "w")
            assert trusted(manager) != old
            old = trusted(manager)


def issued_by_other(node: Engine | Swarmd, root_pem: str) -> bool:
    """Whether the node's certificate is not signed by the root in `root_pem` any more."""
    issuer = x509.load_pem_x509_certificate(root_pem.encode())
    try:
        certificate(node).verify_directly_issued_by(issuer)
    except Exception as error:
        return "Signature" in type(error).__name__
    return False


def test_the_operator_gives_the_root(lan: Lan, tmp_path: Path) -> None:
    made = ca.new_root(SystemClock().now(), SystemEntropy(), cn="the operator's own")
    assert made.signer is not None
    cert, key = tmp_path / "ca.pem", tmp_path / "ca-key.pem"
    cert.write_bytes(made.pem)
    key.write_bytes(made.signer.key_pem)
    with Swarmd("m", lan=lan) as manager, Engine("e", lan=lan) as engine:
        manager.docker("swarm", "init", "--advertise-addr", manager.ip)
        old = manager.token()
        assert join(engine, old, manager).returncode == 0
        wait_ready(manager, "m", "e")
        manager.docker(
            *("swarm", "ca", "--rotate", "--ca-cert", str(cert), "--ca-key", str(key)),
            *("--cert-expiry", "100h"),
        )
        assert trusted(manager).strip() == made.pem.decode().strip()
        shown = manager.docker("swarm", "ca").stdout
        assert shown.strip() == made.pem.decode().strip()
        issuer = x509.load_pem_x509_certificate(made.pem)
        for node in (manager, engine):
            certificate(node).verify_directly_issued_by(issuer)
            # A node is told to trust the new root alone once all of them have moved.
            wanted = made.pem.decode().strip()
            wait_until("so is its root", lambda n=node, w=wanted: roots_on_disk(n) == w)
        refused = manager.docker("swarm", "ca", "--rotate", "--ca-key", str(key), check=False)
        assert refused.returncode == 1
        wait_ready(manager, "m", "e")


def test_expiry_is_that_of_the_next_certificate(lan: Lan) -> None:
    with (
        Swarmd("m", lan=lan) as manager,
        Engine("e", lan=lan) as engine,
        Swarmd("w", lan=lan) as worker,
    ):
        manager.docker("swarm", "init", "--advertise-addr", manager.ip)
        life = certificate(manager).not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=89) < life <= timedelta(days=90) + ROUNDING
        manager.docker("swarm", "update", "--cert-expiry", "5h")
        for node in (engine, worker):
            assert join(node, manager.token(), manager).returncode == 0
            left = certificate(node).not_valid_after_utc - datetime.now(UTC)
            assert timedelta(hours=4, minutes=55) < left <= timedelta(hours=5, minutes=5)


def test_a_removed_node_is_refused(lan: Lan) -> None:
    with (
        Swarmd("m", lan=lan) as manager,
        Engine("e", lan=lan) as engine,
        Swarmd("w", lan=lan) as worker,
    ):
        manager.docker("swarm", "init", "--advertise-addr", manager.ip)
        for node in (engine, worker):
            assert join(node, manager.token(), manager).returncode == 0
        wait_ready(manager, "m", "e", "w")
        ids = {
            node: node.docker("info", "--format", "{{.Swarm.NodeID}}").stdout.strip()
            for node in (engine, worker)
        }
        for name in ("e", "w"):
            assert manager.docker("node", "rm", "--force", name).stdout == f"{name}\n"
        for node, id in ids.items():
            wait_until(
                "it is told so",
                lambda node=node, id=id: f"{REMOVED}node {id} was removed from swarm" in node.log,
                40,
            )
        worker.restart()
        assert set(manager.node_states()) == {"m"}
        # It can come back as a new node.
        worker.docker("swarm", "leave")
        assert join(worker, manager.token(), manager).returncode == 0
        wait_ready(manager, "m", "w")
