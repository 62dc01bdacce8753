"""Managers whose hosts change their IP address: three of ours, a stock one among them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.quorum import Node, init, join, label, label_of, leader, wait_listed
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()
    with Lan() as made:
        yield made


def addresses(at: Node) -> dict[str, str]:
    """Host name -> address of the managers, as one of them lists them; empty if it cannot."""
    shown = "{{.Description.Hostname}} {{if .ManagerStatus}}{{.ManagerStatus.Addr}}{{end}}"
    ids = at.docker("node", "ls", "-q", check=False).stdout.split()
    if not ids:
        return {}
    rows = at.docker("node", "inspect", "--format", shown, *ids, check=False).stdout.splitlines()
    return dict(row.split() for row in rows if len(row.split()) == 2)


def remotes(worker: Engine) -> set[str]:
    """The addresses of managers a worker would try."""
    found = worker.json("info", "--format", "{{json .Swarm.RemoteManagers}}")
    return {manager["Addr"] for manager in found}


def wait_known(everywhere: list[Node]) -> None:
    """Wait until all managers list each other at the addresses of their hosts, reachable."""
    wanted = {node.name: f"{node.ip}:2377" for node in everywhere}
    for at in everywhere:
        wait_until(
            f"{at.name} lists {wanted}", lambda at=at: addresses(at) == wanted, 90, pause=0.3
        )
    first = leader(everywhere[0])
    rows = {n: "Ready Leader" if n == first else "Ready Reachable" for n in wanted}
    for at in everywhere:
        wait_listed(at, timeout=90, **rows)


def writes_go_on(everywhere: list[Node], text: str) -> None:
    """Write through each manager, and read it at all others."""
    for at in everywhere:
        label(at, at.name, f"{text}-{at.name}")
    for at in everywhere:
        for other in everywhere:
            wanted = f"{text}-{at.name}"
            wait_until(
                f"{other.name} has {wanted}",
                lambda other=other, at=at, wanted=wanted: label_of(other, at.name) == wanted,
            )


def option(node: Swarmd) -> None:
    """Start with the host's present address from now on."""
    node.args = ("--engine", "none", "--advertise-addr", node.ip)


def test_three_managers_and_a_stock_worker_follow_every_address(lan: Lan) -> None:
    with (
        Swarmd("m1", lan=lan) as m1,
        Swarmd("m2", lan=lan) as m2,
        Swarmd("m3", lan=lan) as m3,
        Engine("w1", lan=lan) as w1,
    ):
        managers: list[Node] = [m1, m2, m3]
        assert m1.host is not None and m2.host is not None and m3.host is not None
        init(m1)
        join(m2, m1, "manager")
        join(m3, m1, "manager")
        join(w1, m1, "worker")
        wait_listed(m1, w1="Ready")
        original = {node.ip for node in managers}

        # The leader has both addresses for a while, as the guide has it.
        m1.host.add_ip(lan.spare_ip())
        done = m1.ctl("update-address", m1.ip)
        assert done.stdout.startswith(f"Manager address updated: {m1.ip}:2377, it was ")
        wait_known(managers)
        lead = leader(m1)
        assert lead in ("m2", "m3"), "others judged whether they reach it"

        # A follower's address is already gone when it is told: nobody can answer it any more.
        live, last = (m2, m3) if lead == "m3" else (m3, m2)
        live.host.change_ip(lan.spare_ip())
        assert live.ctl("update-address", "eth0").stdout.startswith(
            f"Manager address updated: {live.ip}:2377"
        )
        wait_known(managers)
        writes_go_on(managers, "live")

        # The leader dies, and comes back elsewhere.
        last.kill()
        last.host.change_ip(lan.spare_ip())
        option(last)
        last.start()
        wait_known(managers)
        writes_go_on(managers, "back")
        assert not original & {node.ip for node in managers}

        # The worker knows none of the first addresses, and all of today's.
        w1.restart()
        wait_listed(m1, w1="Ready")
        today = {f"{node.ip}:2377" for node in managers}
        wait_until("it knows today's addresses", lambda: today <= remotes(w1))


def test_a_stock_leader_and_a_stock_follower_follow_us(lan: Lan) -> None:
    with Engine("e1", lan=lan) as e1, Swarmd("m1", lan=lan) as m1, Swarmd("m2", lan=lan) as m2:
        managers: list[Node] = [e1, m1, m2]
        init(e1)
        join(m1, e1, "manager")
        join(m2, e1, "manager")
        wait_known(managers)
        assert leader(m1) == "e1"
        assert m1.host is not None and m2.host is not None

        refused = m1.ctl(
            "update-address", "--listen-addr", "0.0.0.0:2377", "192.0.2.7", check=False
        )
        assert refused.returncode == 1
        assert "could not connect to prospective new cluster member" in refused.stderr
        refused = m1.ctl("update-address", m2.ip, check=False)
        assert f"raft: address {m2.ip}:2377 belongs to another manager" in refused.stderr
        wait_known(managers)

        m1.host.change_ip(lan.spare_ip())
        m1.ctl("update-address", m1.ip)
        wait_known(managers)
        m2.kill()
        m2.host.change_ip(lan.spare_ip())
        option(m2)
        m2.start()
        wait_known(managers)
        writes_go_on(managers, "stock-leads")

        # Now one of us leads, and the stock engine learns it as a follower.
        e1.restart()
        wait_until("we lead", lambda: leader(m1) in ("m1", "m2"), 60, pause=0.3)
        wait_known(managers)
        lead = m1 if leader(m1) == "m1" else m2
        assert lead.host is not None
        lead.host.add_ip(lan.spare_ip())
        lead.ctl("update-address", lead.ip)
        wait_known(managers)
        writes_go_on(managers, "ours-led")
