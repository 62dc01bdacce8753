"""The loop of `bench.failover`, a few times: the leader dies while everybody writes."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.failover import MANAGERS, group
from bench.managers import OurManager
from tests.harness.engines import require_netns

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

KILLS = 3


def test_no_write_is_lost_or_doubled_when_leaders_die() -> None:
    require_netns()
    with group(OurManager) as managers:
        with managers.writing():
            outages = [managers.kill_leader() for _ in range(KILLS)]
        assert managers.faults() == []
        accepted = [one for one in managers.journal.all() if one.outcome == "accepted"]
    assert all(0 < outage.first <= outage.everywhere for outage in outages)
    through = Counter(attempt.via for attempt in accepted)
    assert len(through) == MANAGERS and min(through.values()) > KILLS
