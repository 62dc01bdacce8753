"""`init --force-new-cluster` on managers that lost their quorum, ours and a stock engine's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemons import Daemon, Refused, daemon_place
from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.quorum import SOON_MISSED, init, join, label, label_of, wait_listed
from tests.harness.swarmds import Swarmd

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place() -> Iterator[Path]:
    with daemon_place() as made:
        yield made


def force(daemon: Daemon, port: int | None = None) -> str:
    addr = f"{daemon.ip}:{port or daemon.port}"
    request = {"ListenAddr": addr, "AdvertiseAddr": addr, "ForceNewCluster": True, "Spec": {}}
    return str(daemon.post("/swarm/init", request))


def managers(daemon: Daemon) -> dict[str, str]:
    """Host name -> address of the nodes that are members."""
    return {
        node["Description"].get("Hostname", ""): node["ManagerStatus"]["Addr"]
        for node in daemon.get("/nodes")
        if node.get("ManagerStatus")
    }


def test_the_last_of_three_goes_on_with_everything(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "m2") as m2, Daemon(place / "m3") as m3:
        m1.init(Dispatcher={"HeartbeatPeriod": 2_000_000_000})  # who is lost is soon down
        for other in (m2, m3):
            other.join(m1.token("Manager"), m1)
        m1.wait_ready("m1", "m2", "m3")
        m3.label_self("mark", "was-there")
        before = m3.shape()
        # The leader needed only one of the two others to accept it.
        wait_until("m3 has it", lambda: b"was-there" in m3.call("POST", "/swarmd/backup"))
        m1.kill()
        m2.kill()
        assert force(m3) == before["self"]
        assert m3.shape() == before
        assert managers(m3) == {"m3": m3.addr}
        node = m3.get(f"/nodes/{before['self']}")
        assert node["Spec"]["Labels"] == {"mark": "was-there"}
        assert node["ManagerStatus"]["Leader"] is True
        wait_until("the lost ones are down", lambda: m3.nodes()["m1"] == "down", 60)
        m3.restart()
        m3.wait_ready("m3")
        assert managers(m3) == {"m3": m3.addr}
        # One of the lost comes back with the old log: it is told that it was removed.
        m2.start()
        wait_until("m2 was told", lambda: "removed from the cluster" in m2.log, 60)
        m2.post("/swarm/leave?force=1")
        m2.join(m3.token("Manager"), m3)
        wait_until("m2 is a member again", lambda: set(managers(m3)) == {"m2", "m3"}, 30)
        m2.label_self("mark", "again")
        assert m3.shape()["cluster"] == before["cluster"]


def test_root_and_lock_stay_when_nothing_is_said_of_them(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "w1") as w1:
        m1.init(EncryptionConfig={"AutoLockManagers": True})
        w1.join(m1.token(), m1)
        m1.wait_ready("m1", "w1")
        config = m1.get("/swarm")["Spec"]["CAConfig"]
        m1.change_swarm(CAConfig={**config, "ForceRotate": 1})
        wait_until("it has another root", lambda: not m1.get("/swarm")["RootRotationInProgress"])
        w1.kill()  # a rotation would wait for it
        before, key = m1.get("/swarm"), m1.get("/swarm/unlockkey")
        force(m1)
        after = m1.get("/swarm")
        assert after["JoinTokens"] == before["JoinTokens"]
        assert after["RootRotationInProgress"] is False
        assert after["Spec"] == before["Spec"]
        assert after["Spec"]["EncryptionConfig"] == {"AutoLockManagers": True}
        assert m1.get("/swarm/unlockkey") == key
        m1.restart()
        assert m1.state() == "locked"


def test_a_healthy_manager_alone_may_move_to_another_address(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "other") as other:
        m1.init()
        before = m1.shape()
        m1.kill()
        m1.start()  # a commit index that came to the disk late takes nothing away
        force(m1, other.port)
        assert m1.shape() == before
        assert managers(m1) == {"m1": f"{m1.ip}:{other.port}"}
        request = {"ListenAddr": other.addr, "RemoteAddrs": [f"{m1.ip}:{other.port}"]}
        other.post("/swarm/join", {**request, "JoinToken": m1.token()})
        with pytest.raises(Refused, match="not a swarm manager") as refused:
            force(other)
        assert refused.value.status == 503


def test_a_port_that_cannot_be_had_leaves_the_node_as_it_was(place: Path) -> None:
    with Daemon(place / "m1") as m1, Daemon(place / "m2") as m2:
        m1.init()
        m2.init()
        before = m1.shape()
        addr = {"ListenAddr": m2.addr, "AdvertiseAddr": m1.addr}
        with pytest.raises(Refused, match="address already in use"):
            m1.post("/swarm/init", {**addr, "ForceNewCluster": True, "Spec": {}})
        m1.wait_ready("m1")
        assert m1.shape() == before
        assert managers(m1) == {"m1": m1.addr}


def test_without_a_swarm_it_is_an_ordinary_init(place: Path) -> None:
    with Daemon(place / "m1") as m1:
        assert force(m1) == m1.shape()["self"]


@pytest.mark.engine
def test_the_state_of_a_stock_manager_without_quorum() -> None:
    require_engine()
    with Lan() as lan, Engine("e1", lan=lan) as e1, Engine("e2", lan=lan) as e2:
        init(e1, *SOON_MISSED)
        join(e2, e1, "manager")
        e1.docker("secret", "create", "kept", "/etc/hostname")
        e1.docker("network", "create", "-d", "overlay", "back")
        label(e1, "e2", "before")
        label(e1, "e1", "later")  # brings the word that the one before is committed
        wait_listed(e1, e1="Ready Leader", e2="Ready Reachable")
        node_id = e2.docker("info", "--format", "{{.Swarm.NodeID}}").stdout.strip()
        token = e1.docker("swarm", "join-token", "-q", "worker").stdout
        for engine in (e1, e2):
            engine.kill()
        with Swarmd("m1", lan=lan) as m1, Swarmd("w1", lan=lan) as w1:
            m1.kill()
            shutil.copytree(e2.swarm_dir, m1.state_dir / "swarm")
            m1.start()
            assert m1.ctl("node", "ls", check=False).returncode == 1
            done = m1.ctl("init", "--force-new-cluster", "--advertise-addr", m1.ip)
            assert f"current node ({node_id}) is now a manager" in done.stdout
            assert f"{m1.ip}:2377" in done.stdout
            assert m1.docker("swarm", "join-token", "-q", "worker").stdout == token
            # The same node now describes this host.
            wait_listed(m1, m1="Ready Leader", e1="Down")
            assert label_of(m1, "m1") == "before"
            assert "kept" in m1.docker("secret", "ls").stdout
            assert "back" in m1.docker("network", "ls").stdout
            join(w1, m1, "worker")
            wait_listed(m1, w1="Ready")
            m1.docker("node", "rm", "e1")
            m1.restart()
            wait_listed(m1, m1="Ready Leader", w1="Ready")
