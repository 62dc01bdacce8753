"""Tokens, root and autolock of three mixed managers, changed through any of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.harness import joiner
from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.quorum import Node, init, join, label, label_of, leader, rest, wait_listed
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

REFUSED = {
    "error": "InvalidArgument",
    "message": "A valid join token is necessary to join this cluster",
}
ROLES = ("worker", "manager")


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()
    with Lan() as made:
        yield made


def file_of(node: Node, name: str) -> Path:
    """A file among the node's certificates."""
    swarm = node.swarm_dir if isinstance(node, Engine) else node.state_dir / "swarm"
    return swarm / "certificates" / name


def tokens(at: Node) -> dict[str, str]:
    """Both join tokens by role, as this manager shows them."""
    found = rest(at, "GET", "/swarm")["JoinTokens"]
    return {role: found[role.title()] for role in ROLES}


def addr(node: Node) -> str:
    return f"{node.ip}:2377"


def remove(at: Node, joined: Sequence[dict[str, Any]]) -> None:
    """Forget nodes that never came (a rotation of the root would wait for them)."""
    for one in joined:
        at.docker("node", "rm", "--force", one["node_id"])


class Probe:
    """Somebody outside who tries tokens."""

    def __init__(self, lan: Lan, place: Path) -> None:
        self._host = lan.host("probe")
        self._place = place
        self._count = 0

    def tries(self, *wanted: tuple[Node, str]) -> list[dict[str, Any]]:
        """What each (manager, token) comes to; every try is a new node."""
        attempts = []
        for node, token in wanted:
            self._count += 1
            attempts.append((self._place / str(self._count), addr(node), token))
        return joiner.join_each(self._host, *attempts)


def test_three_under_our_leader(lan: Lan, tmp_path: Path) -> None:
    with (
        Swarmd("m1", lan=lan) as m1,
        Engine("e1", lan=lan) as e1,
        Swarmd("m2", lan=lan) as m2,
    ):
        all_of_it(Probe(lan, tmp_path), m1, e1, m2)


def test_three_under_a_stock_leader(lan: Lan, tmp_path: Path) -> None:
    with (
        Engine("e1", lan=lan) as e1,
        Engine("e2", lan=lan) as e2,
        Swarmd("m1", lan=lan) as m1,
    ):
        all_of_it(Probe(lan, tmp_path), e1, e2, m1)


def all_of_it(probe: Probe, lead: Node, stock: Engine, ours: Swarmd) -> None:
    """The whole walk; `stock` and `ours` follow `lead`."""
    members = (lead, stock, ours)
    init(lead)
    join(stock, lead, "manager")
    join(ours, stock, "manager")
    wait_healthy(lead, members)
    for at in members:
        tokens_rotate(probe, at, members)
    root_rotates(probe, stock if isinstance(lead, Swarmd) else ours, members)
    autolock_comes_and_goes(lead, stock, ours)
    assert leader(lead) == lead.name, "nothing of this unseats a leader"
    for node in members:
        if isinstance(node, Swarmd):
            assert "Traceback" not in node.log


def wait_healthy(lead: Node, members: Sequence[Node]) -> None:
    """Wait until every member lists all of them as they should be."""
    wanted = {one.name: "Ready Reachable" for one in members} | {lead.name: "Ready Leader"}
    for at in members:
        wait_listed(at, **wanted)


def tokens_rotate(probe: Probe, at: Node, members: Sequence[Node]) -> None:
    """Both tokens, changed through one member: known to all, the old ones good nowhere."""
    old = tokens(at)
    for role in ROLES:
        at.docker("swarm", "join-token", "--rotate", "-q", role)
    new = tokens(at)
    assert not set(old.values()) & set(new.values())
    for member in members:
        assert tokens(member) == new
    tried = [(member, old[role]) for member in members for role in ROLES]
    answers = probe.tries(*tried, *((at, new[role]) for role in ROLES))
    assert answers[:-2] == [REFUSED] * len(tried)
    joined = answers[-2:]
    assert [one.get("role") for one in joined] == ["swarm-worker", "swarm-manager"], joined
    remove(at, joined)


def root_rotates(probe: Probe, at: Node, members: Sequence[Node]) -> None:
    """Another root, asked for through one member: everybody moves, writes go on everywhere."""
    before, old = root_of(at), tokens(at)
    at.docker("swarm", "ca", "--rotate", "--quiet", timeout=180)
    root = root_of(at)
    assert root != before
    issuer = x509.load_pem_x509_certificate(root.encode())
    for member in members:
        assert root_of(member) == root
        on_disk = file_of(member, "swarm-root-ca.crt")
        wait_until("its root is the new one", lambda f=on_disk: f.read_text().strip() == root, 60)
        pem = file_of(member, "swarm-node.crt").read_bytes()
        x509.load_pem_x509_certificates(pem)[0].verify_directly_issued_by(issuer)
        label(member, at.name, f"{member.name}-goes-on")
        assert {label_of(other, at.name) for other in members} == {f"{member.name}-goes-on"}
    new = tokens(at)
    answers = probe.tries((at, old["worker"]), *((member, new["worker"]) for member in members))
    assert answers[0]["error"] == "WrongRoot"
    joined = answers[1:]
    assert [one.get("role") for one in joined] == ["swarm-worker"] * len(members), joined
    remove(at, joined)


def root_of(at: Node) -> str:
    """The root this manager shows; a rotation must be over."""
    swarm = rest(at, "GET", "/swarm")
    assert not swarm["RootRotationInProgress"]
    return str(swarm["TLSInfo"]["TrustRoot"]).strip()


def is_sealed(node: Node) -> bool:
    """Whether the node's key file needs the unlock key."""
    return "ENCRYPTED PRIVATE KEY" in file_of(node, "swarm-node.key").read_text()


def key_version(node: Node) -> int:
    """The cluster version the unlock key of the file came with."""
    text = file_of(node, "swarm-node.key").read_text()
    found = re.search(r"^kek-version: (\d+)$", text, re.M)
    return int(found[1]) if found is not None else 0


def unlock_key(at: Node) -> str:
    """The key as this member tells it; "" without autolock."""
    return str(rest(at, "GET", "/swarm/unlockkey")["UnlockKey"])


def local_state(node: Node) -> str:
    return node.docker("info", "--format", "{{.Swarm.LocalNodeState}}").stdout.strip()


def comes_back_locked(lead: Node, node: Node, key: str, wrong: str = "") -> None:
    """Restart a member, see that it is locked, open it, wait for it."""
    node.kill()
    node.start()
    assert local_state(node) == "locked"
    if wrong:
        refused = node.docker("swarm", "unlock", stdin=f"{wrong}\n", check=False)
        assert "swarm could not be unlocked: invalid key provided" in refused.stderr
        assert local_state(node) == "locked"
    node.docker("swarm", "unlock", stdin=f"{key}\n")
    wait_until("it is active", lambda: local_state(node) == "active", 60)
    wait_listed(lead, **{lead.name: "Ready Leader", node.name: "Ready Reachable"})


def autolock_comes_and_goes(lead: Node, stock: Engine, ours: Swarmd) -> None:
    """On through one follower, another key through the other, off through the first."""
    members = (lead, stock, ours)
    ours.docker("swarm", "update", "--autolock")
    first = ours.docker("swarm", "unlock-key", "-q").stdout.strip()
    assert first.startswith("SWMKEY-1-")
    for member in members:
        assert unlock_key(member) == first
        wait_until(f"{member.name} is sealed", lambda m=member: is_sealed(m), 60)
    comes_back_locked(lead, ours, first)
    comes_back_locked(lead, stock, first)
    wait_healthy(lead, members)

    versions = {member.name: key_version(member) for member in members}
    stock.docker("swarm", "unlock-key", "--rotate")
    second = unlock_key(stock)
    assert second != first
    for member in members:
        assert unlock_key(member) == second
        wait_until(
            f"{member.name} is sealed anew",
            lambda m=member: key_version(m) > versions[m.name],
            60,
        )
    comes_back_locked(lead, ours, second, wrong=first)
    comes_back_locked(lead, stock, second, wrong=first)
    wait_healthy(lead, members)

    ours.docker("swarm", "update", "--autolock=false")
    for member in members:
        assert unlock_key(member) == ""
        wait_until(f"{member.name} is open", lambda m=member: not is_sealed(m), 60)
    ours.kill()
    ours.start()
    wait_healthy(lead, members)
