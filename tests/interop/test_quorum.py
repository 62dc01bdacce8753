"""Several managers, swarmd and stock in every mix: joining, losing the leader, changing roles."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.quorum import (
    SOON_MISSED,
    Node,
    change,
    containers,
    import_busybox,
    init,
    join,
    keep_short_log,
    label,
    label_of,
    leader,
    listed,
    wait_leader,
    wait_listed,
)
from tests.harness.swarmds import Swarmd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@pytest.fixture
def lan() -> Iterator[Lan]:
    require_engine()
    with Lan() as made:
        yield made


def test_three_swarmd_managers_lose_their_leader(lan: Lan) -> None:
    with (
        Swarmd("m1", lan=lan) as m1,
        Swarmd("m2", lan=lan) as m2,
        Swarmd("m3", lan=lan) as m3,
        Swarmd("w1", lan=lan) as w1,
    ):
        init(m1)
        join(m2, m1, "manager")
        join(m3, m2, "manager")  # through a follower
        join(w1, m3, "worker")
        for at in (m1, m2, m3):
            wait_listed(
                at, m1="Ready Leader", m2="Ready Reachable", m3="Ready Reachable", w1="Ready"
            )
        for at in (m1, m2, m3):
            label(at, "w1", f"by-{at.name}")
            assert {label_of(other, "w1") for other in (m1, m2, m3)} == {f"by-{at.name}"}
        begun = time.monotonic()
        m1.kill()
        wait_leader(m2, "m2", "m3")
        # Two seconds by the rule (decision 0007), and what a busy machine adds.
        assert time.monotonic() - begun < 6
        wait_listed(m3, w1="Ready")
        for at in (m2, m3):
            wait_until("m1 is missed", lambda at=at: listed(at).get("m1", "  ")[1] == "Unreachable")
            label(at, "w1", f"after-{at.name}")
        m1.start()  # with its state, no Join: it is a member still
        wait_listed(m2, m1="Ready Reachable", m2=status(m2, "m2"), m3=status(m2, "m3"))
        assert label_of(m1, "w1") == "after-m3"
        label(m1, "w1", "all-back")
        assert label_of(m2, "w1") == "all-back"
        logs = m1.log + m2.log + m3.log
        admitted = [line for line in logs.splitlines() if "is raft member" in line]
        own = m1.docker("info", "--format", "{{.Swarm.NodeID}}").stdout.strip()
        assert len(admitted) == 2 and not any(own in line for line in admitted), admitted


def status(at: Node, name: str) -> str:
    """What a manager that works is listed as: leader or not."""
    return "Ready Leader" if leader(at) == name else "Ready Reachable"


def test_minority_refuses_with_the_stock_text(lan: Lan) -> None:
    with Swarmd("m1", lan=lan) as m1, Swarmd("m2", lan=lan) as m2:
        init(m1)
        join(m2, m1, "manager")
        wait_listed(m1, m2="Ready Reachable")
        refused = m2.docker("swarm", "leave", check=False)
        assert refused.returncode == 1
        assert "Removing this node leaves 1 managers out of 2" in refused.stderr
        refused = m1.docker("node", "rm", "m2", check=False)
        assert "is a cluster manager and is a member of the raft cluster" in refused.stderr
        m2.kill()
        text = "The swarm does not have a leader. It's possible that too few managers are online."
        wait_until(
            "the rest has no leader",
            lambda: text in m1.docker("node", "ls", check=False).stderr,
            60,
            pause=0.5,
        )
        m2.start()
        wait_leader(m1, "m1", "m2")
        wait_listed(m1, m1=status(m1, "m1"), m2=status(m1, "m2"))


def test_a_joiner_nobody_can_call_back_is_refused(lan: Lan) -> None:
    with Swarmd("m1", lan=lan) as m1, Swarmd("m2", lan=lan) as m2:
        init(m1)
        token = m1.docker("swarm", "join-token", "-q", "manager").stdout.strip()
        lie = f"{lan.prefix}.250:2377"
        join_command = ("swarm", "join", "--advertise-addr", lie, "--token", token)
        refused = m2.docker(*join_command, f"{m1.ip}:2377", check=False)
        assert refused.returncode == 1
        assert (
            "could not connect to prospective new cluster member using its advertised address"
            in refused.stderr
        )
        assert m2.docker("info", "--format", "{{.Swarm.LocalNodeState}}").stdout == "inactive\n"
        assert leader(m1) == "m1", "the swarm goes on as it was"
        join(m2, m1, "manager")
        wait_listed(m1, m1="Ready Leader", m2="Ready Reachable")


def test_stock_takes_over_our_swarm_and_gives_it_back(lan: Lan) -> None:
    with (
        Swarmd("m1", lan=lan) as m1,
        Engine("e1", lan=lan) as e1,
        Engine("e2", lan=lan) as e2,
        Swarmd("w1", lan=lan) as w1,
        Engine("w2", lan=lan) as w2,
    ):
        import_busybox(w2)
        init(m1)
        join(e1, m1, "manager")
        join(e2, m1, "manager")
        join(w1, e1, "worker")
        join(w2, m1, "worker")
        for at in (m1, e1, e2):
            wait_listed(at, m1="Ready Leader", e1="Ready Reachable", w1="Ready", w2="Ready")
        e1.docker("secret", "create", "ours", "/etc/hostname")  # through a follower
        label(e1, "w1", "by-stock-follower")
        m1.kill()
        first = wait_leader(e1, "e1", "e2")
        wait_listed(e1, w1="Ready", w2="Ready")
        assert "ours" in e1.docker("secret", "ls").stdout
        assert label_of(e2, "w1") == "by-stock-follower"
        run_service(e1)
        before = wait_until("the service runs", lambda: containers(w2), 60)
        m1.start()
        wait_listed(e1, m1="Ready Reachable")
        assert label_of(m1, "w1") == "by-stock-follower"
        second = "e2" if first == "e1" else "e1"
        change(m1, "demote", second)
        wait_listed(m1, **{second: "Ready"})
        change(m1, "demote", first)
        wait_listed(m1, m1="Ready Leader", e1="Ready", e2="Ready", w1="Ready", w2="Ready")
        assert containers(w2) == before, "a container was touched"
        change(m1, "promote", "e1")
        wait_listed(e1, m1="Ready Leader", e1="Ready Reachable")
        # What our leader says of it, shown by a stock follower.
        assert "web" in e1.docker("service", "ls").stdout
        assert "ours" in e1.docker("secret", "ls").stdout
        wait_until("its task is known", lambda: "Running" in tasks(e1), 20)


def run_service(at: Node) -> None:
    """A service of one task on the worker w2."""
    at.docker(
        *("service", "create", "--detach", "--name", "web", "--network", "host"),
        *("--constraint", "node.hostname==w2", "--no-resolve-image", "box:latest"),
        *("/bin/busybox", "sleep", "100000"),
    )


def tasks(at: Node) -> str:
    return str(at.docker("service", "ps", "web").stdout)


def test_swarmd_takes_over_a_stock_swarm_and_gives_it_back(lan: Lan) -> None:
    with (
        Engine("e1", lan=lan) as e1,
        Swarmd("m1", lan=lan) as m1,
        Swarmd("m2", lan=lan) as m2,
        Engine("w2", lan=lan) as w2,
        Swarmd("w1", lan=lan) as w1,
    ):
        import_busybox(w2)
        init(e1)
        join(w2, e1, "worker")
        e1.docker("secret", "create", "theirs", "/etc/hostname")
        e1.docker("config", "create", "conf", "/etc/hostname")
        e1.docker("network", "create", "-d", "overlay", "net")
        run_service(e1)
        before = wait_until("the service runs", lambda: containers(w2), 60)
        tokens = e1.docker("swarm", "join-token", "-q", "worker").stdout
        join(m1, e1, "manager")
        join(m2, m1, "manager")
        join(w1, m2, "worker")
        for at in (e1, m1, m2):
            wait_listed(at, e1="Ready Leader", m1="Ready Reachable", w1="Ready", w2="Ready")
        e1.kill()
        wait_leader(m1, "m1", "m2")
        wait_listed(m2, w1="Ready", w2="Ready")
        for at in (m1, m2):
            assert at.docker("swarm", "join-token", "-q", "worker").stdout == tokens
            assert "net" in at.docker("network", "ls").stdout
        label(m2, "w2", "by-swarmd")
        assert containers(w2) == before, "a container was touched"
        e1.start()
        wait_listed(m1, e1="Ready Reachable")
        assert label_of(e1, "w2") == "by-swarmd"
        # Our leader's answers, shown by a stock follower.
        assert "theirs" in e1.docker("secret", "ls").stdout
        assert "conf" in e1.docker("config", "ls").stdout
        assert "web" in e1.docker("service", "ls").stdout
        wait_until("the task is known", lambda: "Running" in tasks(e1), 20)
        last = leader(e1)
        first = other(last, "m1", "m2")
        change(e1, "demote", first)
        wait_listed(e1, **{first: "Ready"})
        change(e1, "demote", last)
        wait_listed(e1, e1="Ready Leader", m1="Ready", m2="Ready", w1="Ready", w2="Ready")
        assert containers(w2) == before, "a container was touched"


def other(name: str, one: str, two: str) -> str:
    """The one of two that is not `name`."""
    return two if name == one else one


@pytest.mark.parametrize("kind", ["swarmd", "stock"])
def test_roles_change_under_either_leader(lan: Lan, kind: str) -> None:
    with (
        Swarmd("m1", lan=lan) as m1,
        Engine("e1", lan=lan) as e1,
        Swarmd("m3", lan=lan) as m3,
        Swarmd("w1", lan=lan) as w1,
        Engine("w2", lan=lan) as w2,
    ):
        lead, second = (m1, e1) if kind == "swarmd" else (e1, m1)
        init(lead)
        refused = lead.docker("node", "demote", lead.name, check=False)
        assert "attempting to demote the last manager of the swarm" in refused.stderr
        for node in (second, m3):
            join(node, lead, "manager")
        for node in (w1, w2):
            join(node, lead, "worker")
            wait_listed(lead, **{node.name: "Ready"})
        for node in (w1, w2):
            change(lead, "promote", node.name)
            wait_listed(lead, **{node.name: "Ready Reachable"})
            wait_listed(node, **{lead.name: "Ready Leader", node.name: "Ready Reachable"})
        for node in (w1, w2):
            change(lead, "demote", node.name)
            wait_listed(lead, **{node.name: "Ready"})
            wait_until(f"{node.name} knows", lambda n=node: "not a swarm manager" in refusal(n), 40)
        wait_until("its log is gone", lambda: not (w1.state_dir / "swarm/raft").exists(), 20)
        # At once promoted again: a new member under a new raft id.
        change(lead, "promote", "w1")
        wait_listed(lead, w1="Ready Reachable")
        change(lead, "demote", "w1")
        wait_listed(lead, w1="Ready")
        # The leader itself: hands leadership over, then goes.
        change(lead, "demote", lead.name)
        wait_listed(second, **{lead.name: "Ready"})
        wait_leader(second, second.name, "m3")
        change(second, "promote", lead.name)
        wait_listed(second, **{lead.name: "Ready Reachable"})
        # Two of three left: no more can be spared, but the lost one.
        m3.kill()
        wait_leader(second, second.name, lead.name)
        wait_until("m3 is missed", lambda: listed(second)["m3"][1] == "Unreachable", 60)
        refused = second.docker("node", "demote", lead.name, check=False)
        assert "this would result in a loss of quorum" in refused.stderr
        change(second, "demote", "m3")
        wait_until("m3 is no manager", lambda: listed(second)["m3"][1] == "", 60)
        m3.start()  # it learns of its removal from its peers
        wait_listed(second, m3="Ready")
        wait_until("m3 knows", lambda: "not a swarm manager" in refusal(m3), 60)


def refusal(node: Node) -> str:
    return str(node.docker("node", "ls", check=False).stderr)


def test_leave_force_leaves_a_dead_member_behind(lan: Lan) -> None:
    with Swarmd("m1", lan=lan) as m1, Swarmd("m2", lan=lan) as m2, Swarmd("m3", lan=lan) as m3:
        init(m1, *SOON_MISSED)
        join(m2, m1, "manager")
        join(m3, m1, "manager")
        wait_listed(m1, m2="Ready Reachable", m3="Ready Reachable")
        m3.docker("swarm", "leave", "--force")
        assert m3.docker("info", "--format", "{{.Swarm.LocalNodeState}}").stdout == "inactive\n"
        wait_listed(m1, m1="Ready Leader", m2="Ready Reachable", m3="Down Unreachable")
        change(m1, "demote", "m3")
        wait_listed(m1, m3="Down")
        change(m1, "rm", "m3")
        assert set(listed(m2)) == {"m1", "m2"}
        join(m3, m2, "manager")
        wait_listed(m1, m1="Ready Leader", m2="Ready Reachable", m3="Ready Reachable")


@pytest.mark.parametrize("kind", ["swarmd", "stock"])
def test_newcomers_catch_up_from_a_snapshot(lan: Lan, kind: str) -> None:
    """Both kinds take in the other's snapshots; then the newcomers carry on alone."""
    with (
        Swarmd("m1", lan=lan) as m1,
        Engine("e1", lan=lan) as e1,
        Swarmd("m2", lan=lan) as m2,
    ):
        lead, second = (m1, e1) if kind == "swarmd" else (e1, m1)
        init(lead)
        wait_listed(lead, **{lead.name: "Ready Leader"})
        keep_short_log(lead)
        for number in range(20):
            label(lead, lead.name, str(number))
        join(second, lead, "manager")
        join(m2, lead, "manager")
        for at in (second, m2):
            wait_listed(
                at,
                **{lead.name: "Ready Leader", second.name: "Ready Reachable"},
                m2="Ready Reachable",
            )
        second.kill()  # falls behind the log
        for number in range(20):
            label(lead, lead.name, f"late-{number}")
        second.start()
        wait_listed(lead, **{second.name: "Ready Reachable"})
        label(second, lead.name, "last")
        lead.kill()
        wait_leader(m2, "m2", second.name)
        assert label_of(m2, lead.name) == label_of(second, lead.name) == "last"
        assert "raft state" not in m2.log


def test_an_orderly_stop_hands_leadership_over(lan: Lan) -> None:
    with Swarmd("m1", lan=lan) as m1, Engine("e1", lan=lan) as e1, Engine("e2", lan=lan) as e2:
        init(m1)
        join(e1, m1, "manager")
        join(e2, m1, "manager")
        wait_listed(m1, m1="Ready Leader", e1="Ready Reachable", e2="Ready Reachable")
        begun = time.monotonic()
        assert m1.stop() == 0
        wait_leader(e1, "e1", "e2")
        assert time.monotonic() - begun < 8, "they had to elect: that takes 10 s and more"
        assert "handed leadership over" in m1.log
        m1.start()
        wait_listed(e1, m1="Ready Reachable")


def elections(*engines: Engine) -> int:
    """How often stock engines became leaders."""
    return sum(engine.log.count("became leader at term") for engine in engines)


def test_a_member_cut_off_does_not_unseat_a_stock_leader(lan: Lan) -> None:
    with Engine("e1", lan=lan) as e1, Engine("e2", lan=lan) as e2, Swarmd("m1", lan=lan) as m1:
        init(e1)
        join(e2, e1, "manager")
        join(m1, e1, "manager")
        wait_listed(m1, e1="Ready Leader", e2="Ready Reachable", m1="Ready Reachable")
        before = elections(e1, e2)
        assert before == 1, "their logs tell"
        assert m1.host is not None
        m1.host.unplug()
        wait_listed(e1, m1="Down Unreachable")
        label(e1, "e2", "meanwhile")
        wait_until(
            "it misses its leader",
            lambda: "does not have a leader" in refusal(m1),
            60,
            pause=0.5,
        )
        m1.host.plug()
        wait_listed(m1, e1="Ready Leader", m1="Ready Reachable")
        assert label_of(m1, "e2") == "meanwhile"
        label(m1, "e2", "back")
        assert leader(e2) == "e1" and elections(e1, e2) == before
