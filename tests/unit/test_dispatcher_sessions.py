"""The table of registered nodes, by explicit times."""

from __future__ import annotations

import pytest

from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import InvalidArgument, NotFound, Unavailable
from swarmd.manager.dispatcher.sessions import NodeTable
from swarmd.manager.dispatcher.timers import Timers


class Even:
    """Chance without chance: the middle of every interval."""

    def token(self, size: int) -> bytes:
        self.count = getattr(self, "count", 0) + 1
        return bytes([self.count]) * size

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


@pytest.fixture
def table() -> NodeTable:
    return NodeTable(Even())


def names(found: list) -> list[str]:
    return [node_id for node_id, _ in found]


def test_a_node_expires_after_three_periods(table: NodeTable) -> None:
    table.register("a", 0.0)
    assert names(table.expired(14.9)) == []
    assert names(table.expired(15.0)) == ["a"]
    assert names(table.expired(99.0)) == []  # named once


def test_heartbeats_move_the_expiry(table: NodeTable) -> None:
    session = table.register("a", 0.0)
    for now in range(0, 100, 5):
        assert table.heartbeat("a", session, float(now)) == 5.0
        assert names(table.expired(float(now))) == []
    assert names(table.expired(109.9)) == []
    assert names(table.expired(110.0)) == ["a"]


def test_a_shorter_period_takes_effect_with_the_next_heartbeat(table: NodeTable) -> None:
    session = table.register("a", 0.0)
    table.period = 1.0
    assert names(table.expired(10.0)) == []  # still the old grace
    assert table.heartbeat("a", session, 10.0) == 1.0
    assert names(table.expired(12.9)) == []
    assert names(table.expired(13.0)) == ["a"]


def test_an_unknown_node_has_six_periods_and_no_session(table: NodeTable) -> None:
    table.add_unknown("a", 0.0)
    with pytest.raises(InvalidArgument, match="session invalid"):
        table.heartbeat("a", "", 1.0)
    assert names(table.expired(29.9)) == []
    [(node_id, record)] = table.expired(30.0)
    assert (node_id, record.session_id) == ("a", "")


def test_registering_ends_the_grace_of_an_unknown_node(table: NodeTable) -> None:
    table.add_unknown("a", 0.0)
    table.admit("a", 20.0)
    session = table.register("a", 20.0)
    assert table.is_current("a", session)
    assert names(table.expired(34.9)) == []
    assert names(table.expired(35.0)) == ["a"]


@pytest.mark.parametrize(
    ("node_id", "session_id", "error", "text"),
    [
        ("b", "x", NotFound, "node not registered"),
        ("b", "", NotFound, "node not registered"),
        ("a", "", InvalidArgument, "session invalid"),
        ("a", "x", InvalidArgument, "session invalid"),
    ],
)
def test_wrong_sessions_are_refused_with_the_stock_texts(
    table: NodeTable, node_id: str, session_id: str, error: type, text: str
) -> None:
    table.register("a", 0.0)
    for call in (
        lambda: table.check(node_id, session_id),
        lambda: table.heartbeat(node_id, session_id, 1.0),
    ):
        with pytest.raises(error) as caught:
            call()
        assert caught.value.message == text


def test_a_new_session_makes_the_old_one_invalid(table: NodeTable) -> None:
    old = table.register("a", 0.0)
    new = table.register("a", 1.0)
    assert old != new
    assert not table.is_current("a", old)
    assert table.is_current("a", new)
    with pytest.raises(InvalidArgument, match="session invalid"):
        table.check("a", old)


def test_the_fifth_quick_registration_is_refused(table: NodeTable) -> None:
    now = 0.0
    for _ in range(4):
        table.admit("a", now)
        table.register("a", now)
        now += 7.9
    with pytest.raises(Unavailable) as caught:
        table.admit("a", now)
    assert caught.value.message == "node a exceeded rate limit count of registrations"


def test_eight_quiet_seconds_forgive(table: NodeTable) -> None:
    for _ in range(4):
        table.admit("a", 0.0)
        table.register("a", 0.0)
    for refused_at in (1.0, 5.0, 8.0):  # a refused attempt does not start the wait again
        with pytest.raises(Unavailable):
            table.admit("a", refused_at)
    table.admit("a", 8.1)


def test_the_rate_limit_counts_nodes_apart(table: NodeTable) -> None:
    for _ in range(4):
        table.admit("a", 0.0)
        table.register("a", 0.0)
    table.admit("b", 0.0)


def test_removing_a_node_forgets_its_attempts(table: NodeTable) -> None:
    for _ in range(4):
        table.admit("a", 0.0)
        table.register("a", 0.0)
    table.remove("a")
    table.admit("a", 0.1)
    assert "a" not in table


def test_a_down_node_is_given_up_after_a_day_unless_it_comes_back(table: NodeTable) -> None:
    day = 24 * 3600.0
    for node_id in ("a", "b", "c"):
        table.add_down(node_id, 100.0)
    table.register("b", 200.0)
    table.forget("c")
    assert table.orphaned(100.0 + day - 1) == []
    assert table.orphaned(100.0 + day) == ["a"]
    assert table.orphaned(1e9) == []


def test_extending_and_forgetting(table: NodeTable) -> None:
    table.register("a", 0.0)
    assert names(table.expired(15.0)) == ["a"]
    table.extend("a", 15.0)
    table.extend("nobody", 15.0)
    assert names(table.expired(29.9)) == []
    assert names(table.expired(30.0)) == ["a"]
    assert table.forget("a") is not None
    assert table.forget("a") is None
    assert len(table) == 0


def test_disconnect_marks_only_nodes_with_a_session(table: NodeTable) -> None:
    table.add_unknown("u", 0.0)
    session = table.register("a", 0.0)
    assert not table.disconnect("nobody")
    assert not table.disconnect("u")
    assert table.disconnect("a")
    assert table.check("a", session).disconnect


def test_periods_scatter_half_a_second_around_the_spec() -> None:
    table = NodeTable(SeededEntropy(1))
    seen = [table.choose_period() for _ in range(500)]
    assert 4.5 <= min(seen) < 4.6
    assert 5.4 < max(seen) <= 5.5
    table.period = 0.2  # the reference would hand out negative periods here
    assert all(0.1 <= table.choose_period() <= 0.3 for _ in range(500))


def test_next_deadline_is_never_late(table: NodeTable) -> None:
    assert table.next_deadline() is None
    session = table.register("a", 0.0)
    assert table.next_deadline() == 15.0
    table.heartbeat("a", session, 10.0)
    assert table.next_deadline() <= 25.0  # may be early, corrected when it comes
    assert table.expired(15.0) == []
    assert table.next_deadline() == 25.0
    table.remove("a")
    table.add_down("a", 30.0)
    assert table.next_deadline() <= 30.0 + 24 * 3600


def test_timers_take_due_keys_in_order_and_ignore_stale_entries() -> None:
    timers = Timers()
    timers.arm("late", 9.0)
    timers.arm("early", 2.0)
    timers.arm("moved up", 8.0)
    timers.arm("moved up", 1.0)
    timers.arm("gone", 1.5)
    assert timers.disarm("gone")
    assert not timers.disarm("gone")
    assert timers.due(5.0) == ["moved up", "early"]
    assert "late" in timers
    assert timers.due(100.0) == ["late"]
    assert len(timers) == 0
    timers.arm("again", 1.0)
    timers.disarm("again")
    timers.arm("again", 5.0)
    assert timers.due(4.0) == []
    assert timers.due(5.0) == ["again"]
    assert timers.next() is None
