"""A member's progress in the leader's eyes, and the window of messages in flight."""

import pytest

from swarmd.base.errors import InvariantViolation
from swarmd.cluster.raft.progress import Inflights, Progress, ProgressState

PROBE, REPLICATE, SNAPSHOT = ProgressState.PROBE, ProgressState.REPLICATE, ProgressState.SNAPSHOT


def a_progress(state=PROBE, match=0, next_index=1, pending=0, capacity=4):
    progress = Progress(next_index, capacity)
    progress.state = state
    progress.match = match
    progress.pending_snapshot = pending
    return progress


def test_inflights_fill_and_free():
    window = Inflights(3)
    for index in (2, 4, 4):
        window.add(index)
    assert window.is_full()
    with pytest.raises(InvariantViolation):
        window.add(5)
    window.free_to(1)
    assert len(window) == 3
    window.free_to(2)
    assert len(window) == 2
    window.free_to(4)
    assert len(window) == 0
    window.add(9)
    window.clear()
    assert len(window) == 0


@pytest.mark.parametrize(
    ("state", "paused_flag", "paused"),
    [
        (PROBE, False, False),
        (PROBE, True, True),
        (REPLICATE, False, False),
        (REPLICATE, True, True),
        (SNAPSHOT, False, True),
        (SNAPSHOT, True, True),
    ],
)
def test_is_paused(state, paused_flag, paused):
    progress = a_progress(state)
    progress.flow_paused = paused_flag
    assert progress.is_paused() is paused


@pytest.mark.parametrize(
    ("progress", "next_index"),
    [
        (a_progress(REPLICATE, match=1, next_index=5), 2),
        (a_progress(SNAPSHOT, match=1, next_index=5, pending=10), 11),
        (a_progress(SNAPSHOT, match=1, next_index=5, pending=0), 2),
        (a_progress(SNAPSHOT, match=7, next_index=8, pending=3), 8),
    ],
)
def test_become_probe(progress, next_index):
    progress.flow_paused = True
    progress.sent_commit = 100
    progress.become_probe()
    assert (progress.state, progress.next) == (PROBE, next_index)
    assert progress.pending_snapshot == 0
    assert progress.sent_commit == next_index - 1
    assert not progress.is_paused()


def test_become_replicate_and_snapshot():
    progress = a_progress(match=1, next_index=5)
    progress.become_replicate()
    assert (progress.state, progress.match, progress.next) == (REPLICATE, 1, 2)
    progress.inflights.add(3)
    progress.become_snapshot(10)
    assert (progress.state, progress.next, progress.pending_snapshot) == (SNAPSHOT, 11, 10)
    assert len(progress.inflights) == 0
    assert progress.sent_commit == 10


@pytest.mark.parametrize(
    ("acked", "match", "next_index", "news"),
    [(2, 3, 5, False), (3, 3, 5, False), (4, 4, 5, True), (5, 5, 6, True), (6, 6, 7, True)],
)
def test_maybe_update(acked, match, next_index, news):
    progress = a_progress(match=3, next_index=5)
    progress.flow_paused = True
    assert progress.maybe_update(acked) is news
    assert (progress.match, progress.next) == (match, next_index)
    assert progress.flow_paused is not news


@pytest.mark.parametrize(
    ("state", "match", "next_index", "rejected", "hint", "news", "then"),
    [
        # replicate: stale unless beyond what is known to match
        (REPLICATE, 5, 10, 5, 5, False, 10),
        (REPLICATE, 5, 10, 4, 4, False, 10),
        (REPLICATE, 5, 10, 9, 9, True, 6),
        # probe: stale unless it answers the last probe
        (PROBE, 0, 0, 0, 0, False, 0),
        (PROBE, 0, 10, 5, 5, False, 10),
        (PROBE, 0, 10, 9, 9, True, 9),
        (PROBE, 0, 2, 1, 1, True, 1),
        (PROBE, 0, 1, 0, 0, True, 1),
        (PROBE, 0, 10, 9, 2, True, 3),
        (PROBE, 0, 10, 9, 0, True, 1),
        (PROBE, 4, 10, 9, 0, True, 5),
    ],
)
def test_maybe_decrease(state, match, next_index, rejected, hint, news, then):
    progress = a_progress(state, match=match, next_index=next_index)
    progress.flow_paused = True
    assert progress.maybe_decrease(rejected, hint) is news
    assert (progress.match, progress.next) == (match, then)


def test_sent_entries_in_probe_pauses_once_something_was_sent():
    progress = a_progress(PROBE, next_index=3)
    progress.sent_entries(0)
    assert not progress.is_paused()
    progress.sent_entries(2)
    assert progress.is_paused()
    assert progress.next == 3


def test_sent_entries_in_replicate_runs_ahead_until_the_window_is_full():
    progress = a_progress(REPLICATE, next_index=3, capacity=2)
    progress.sent_entries(2)
    assert (progress.next, progress.is_paused()) == (5, False)
    progress.sent_entries(1)
    assert (progress.next, progress.is_paused()) == (6, True)
    assert progress.inflights.is_full()


def test_sent_entries_is_a_bug_while_a_snapshot_is_pending():
    with pytest.raises(InvariantViolation):
        a_progress(SNAPSHOT).sent_entries(1)


@pytest.mark.parametrize(
    ("sent", "next_index", "commit", "bump"),
    [(3, 10, 4, True), (3, 10, 3, False), (9, 10, 12, False), (5, 10, 12, True)],
)
def test_can_bump_commit(sent, next_index, commit, bump):
    progress = a_progress(REPLICATE, next_index=next_index)
    progress.sent_commit = sent
    assert progress.can_bump_commit(commit) is bump
