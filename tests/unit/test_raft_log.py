"""The log: unstable tail over storage, conflicts, commit and applied cursors."""

import pytest

from swarmd.base.errors import InvariantViolation
from swarmd.cluster.raft import MemoryStorage, new_conf_state, new_entry, new_snapshot
from swarmd.cluster.raft.log import RaftLog
from swarmd.cluster.raft.messages import CONF_CHANGE, NORMAL
from swarmd.cluster.raft.unstable import Unstable


def entries(*pairs):
    return [new_entry(NORMAL, term, index, b"") for index, term in pairs]


def pairs(found):
    return [(e.Index, e.Term) for e in found]


def a_log(stable=(), unstable=(), snapshot=(0, 0), committed=0):
    storage = MemoryStorage()
    if snapshot[0]:
        storage.apply_snapshot(new_snapshot(*snapshot, new_conf_state((1,)), b""))
    storage.append(entries(*stable))
    log = RaftLog(storage)
    if unstable:
        log.append(entries(*unstable))
    log.commit_to(committed)
    return log


# -- unstable --------------------------------------------------------------------------------


def an_unstable(offset, *pairs_, in_progress=None, snapshot=None):
    unstable = Unstable(offset)
    if snapshot:
        unstable.restore(new_snapshot(*snapshot, new_conf_state((1,)), b""))
    if pairs_:
        unstable.append(entries(*pairs_))
    if in_progress is not None:
        unstable.offset_in_progress = in_progress
    return unstable


@pytest.mark.parametrize(
    ("start", "in_progress", "added", "offset", "then_in_progress", "result"),
    [
        # at the end
        ([(5, 1)], 5, [(6, 1), (7, 1)], 5, 5, [(5, 1), (6, 1), (7, 1)]),
        ([(5, 1)], 6, [(6, 1), (7, 1)], 5, 6, [(5, 1), (6, 1), (7, 1)]),
        # everything is replaced
        ([(5, 1)], 5, [(5, 2), (6, 2)], 5, 5, [(5, 2), (6, 2)]),
        ([(5, 1)], 6, [(4, 2), (5, 2)], 4, 4, [(4, 2), (5, 2)]),
        # the tail is replaced
        ([(5, 1), (6, 1), (7, 1)], 5, [(6, 2)], 5, 5, [(5, 1), (6, 2)]),
        ([(5, 1), (6, 1), (7, 1)], 8, [(7, 2), (8, 2)], 5, 7, [(5, 1), (6, 1), (7, 2), (8, 2)]),
        ([(5, 1), (6, 1), (7, 1)], 6, [(7, 2)], 5, 6, [(5, 1), (6, 1), (7, 2)]),
    ],
)
def test_unstable_append(start, in_progress, added, offset, then_in_progress, result):
    unstable = an_unstable(5, *start, in_progress=in_progress)
    unstable.append(entries(*added))
    assert unstable.offset == offset
    assert unstable.offset_in_progress == then_in_progress
    assert pairs(unstable.entries) == result


def test_unstable_append_refuses_a_gap():
    with pytest.raises(InvariantViolation):
        an_unstable(5, (5, 1)).append(entries((7, 1)))


@pytest.mark.parametrize(
    ("index", "term", "offset", "left"),
    [
        (5, 1, 6, [(6, 2)]),
        (6, 2, 7, []),
        (6, 1, 5, [(5, 1), (6, 2)]),  # another term: not the entry that was written
        (4, 1, 5, [(5, 1), (6, 2)]),  # older than what is here
        (7, 2, 5, [(5, 1), (6, 2)]),  # not there (any more)
    ],
)
def test_unstable_stable_to(index, term, offset, left):
    unstable = an_unstable(5, (5, 1), (6, 2))
    unstable.accept()
    unstable.stable_to(index, term)
    assert (unstable.offset, pairs(unstable.entries)) == (offset, left)
    assert unstable.offset_in_progress == 7


def test_unstable_hands_out_each_entry_once():
    unstable = an_unstable(5, (5, 1))
    assert pairs(unstable.next_entries()) == [(5, 1)]
    unstable.accept()
    assert not unstable.has_next_entries()
    unstable.append(entries((6, 1)))
    assert pairs(unstable.next_entries()) == [(6, 1)]


def test_unstable_snapshot():
    unstable = an_unstable(5, snapshot=(9, 3))
    assert (unstable.offset, unstable.last_index(), unstable.term(9)) == (10, 9, 3)
    assert unstable.next_snapshot() is unstable.snapshot
    unstable.accept()
    assert unstable.next_snapshot() is None
    unstable.stable_snapshot_to(8)
    assert unstable.snapshot is not None
    unstable.stable_snapshot_to(9)
    assert unstable.snapshot is None
    assert unstable.last_index() is None


# -- log -------------------------------------------------------------------------------------


def test_bounds_and_terms_over_storage_and_tail():
    log = a_log(snapshot=(3, 2), stable=[(4, 2), (5, 3)], unstable=[(6, 4)])
    assert (log.first_index(), log.last_index(), log.last_term()) == (4, 6, 4)
    assert [log.term(i) for i in range(1, 8)] == [None, None, 2, 2, 3, 4, None]


def test_tail_hides_what_it_replaces():
    log = a_log(stable=[(1, 1), (2, 1), (3, 1)])
    log.append(entries((2, 2)))
    assert (log.last_index(), log.last_term(), log.term(3)) == (2, 2, None)
    assert pairs(log.slice(1, 3, None)) == [(1, 1), (2, 2)]


def test_append_never_replaces_committed_entries():
    log = a_log(stable=[(1, 1), (2, 2)], committed=1)
    with pytest.raises(InvariantViolation, match="committed 1"):
        log.append(entries((1, 3)))


@pytest.mark.parametrize(
    ("index", "term", "up_to_date"),
    [
        (2, 4, True),
        (3, 4, True),
        (4, 4, True),
        (2, 2, False),
        (3, 2, False),
        (4, 2, False),
        (2, 3, False),
        (3, 3, True),
        (4, 3, True),
    ],
)
def test_is_up_to_date(index, term, up_to_date):
    log = a_log(stable=[(1, 1), (2, 2), (3, 3)])
    assert log.is_up_to_date(index, term) is up_to_date


@pytest.mark.parametrize(
    ("index", "term", "added", "commit", "last", "committed", "result"),
    [
        # no match before: wrong term, beyond the end
        (3, 2, [(4, 4)], 3, None, 1, [(1, 1), (2, 2), (3, 3)]),
        (4, 3, [(5, 4)], 3, None, 1, [(1, 1), (2, 2), (3, 3)]),
        # only a commit index; never beyond what the message vouches for
        (3, 3, [], 3, 3, 3, [(1, 1), (2, 2), (3, 3)]),
        (3, 3, [], 4, 3, 3, [(1, 1), (2, 2), (3, 3)]),
        (2, 2, [], 3, 2, 2, [(1, 1), (2, 2), (3, 3)]),
        (0, 0, [], 3, 0, 1, [(1, 1), (2, 2), (3, 3)]),
        (3, 3, [], 0, 3, 1, [(1, 1), (2, 2), (3, 3)]),
        # new entries
        (3, 3, [(4, 4)], 3, 4, 3, [(1, 1), (2, 2), (3, 3), (4, 4)]),
        (3, 3, [(4, 4), (5, 4)], 9, 5, 5, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4)]),
        # conflicts cut the tail, known entries do not
        (2, 2, [(3, 4)], 3, 3, 3, [(1, 1), (2, 2), (3, 4)]),
        (1, 1, [(2, 4)], 3, 2, 2, [(1, 1), (2, 4)]),
        (1, 1, [(2, 2)], 1, 2, 1, [(1, 1), (2, 2), (3, 3)]),
        (1, 1, [(2, 2), (3, 3), (4, 3)], 1, 4, 1, [(1, 1), (2, 2), (3, 3), (4, 3)]),
        (1, 1, [(2, 2), (3, 4), (4, 4)], 1, 4, 1, [(1, 1), (2, 2), (3, 4), (4, 4)]),
    ],
)
def test_try_append(index, term, added, commit, last, committed, result):
    log = a_log(stable=[(1, 1)], unstable=[(2, 2), (3, 3)], committed=1)
    assert log.try_append(index, term, entries(*added), commit) == last
    assert log.committed == committed
    assert pairs(log.slice(1, log.last_index() + 1, None)) == result


def test_try_append_refuses_to_cut_committed_entries():
    log = a_log(stable=[(1, 1), (2, 2)], committed=2)
    with pytest.raises(InvariantViolation, match="conflicts with a committed"):
        log.try_append(1, 1, entries((2, 3)), 2)


@pytest.mark.parametrize(
    ("index", "term", "hint"),
    [
        (100, 2, (100, 2)),
        (103, 1, (100, 0)),
        (103, 2, (102, 2)),
        (103, 4, (102, 2)),
        (105, 5, (105, 5)),
        (105, 4, (102, 2)),
        (107, 6, (107, 0)),
    ],
)
def test_find_conflict_by_term(index, term, hint):
    """A log 100/2 (snapshot) 101/2 102/2 103/5 104/5 105/5, then nothing."""
    log = a_log(snapshot=(100, 2), stable=[(101, 2), (102, 2), (103, 5), (104, 5), (105, 5)])
    if hint == (100, 0):
        # Below the snapshot no term is known.
        hint = (99, 0)
    assert log.find_conflict_by_term(index, term) == hint


def test_find_conflict_in_an_empty_log():
    assert a_log().find_conflict_by_term(0, 5) == (0, 0)


def test_commit_beyond_the_log_is_lost_data():
    log = a_log(stable=[(1, 1)])
    with pytest.raises(InvariantViolation, match="commit 2 is beyond the last index 1"):
        log.commit_to(2)
    log.commit_to(1)
    log.commit_to(0)
    assert log.committed == 1


@pytest.mark.parametrize(
    ("index", "term", "moved"), [(3, 3, True), (3, 2, False), (2, 2, True), (1, 1, False)]
)
def test_try_commit_wants_an_entry_of_the_term(index, term, moved):
    log = a_log(stable=[(1, 1), (2, 2), (3, 3)], committed=1)
    assert log.try_commit(index, term) is moved
    assert log.committed == (index if moved else 1)


@pytest.mark.parametrize(
    ("lo", "hi", "limit", "indexes"),
    [
        (1, 1, None, []),
        (3, 6, None, None),
        (4, 8, None, [4, 5, 6, 7]),
        (4, 6, None, [4, 5]),
        (6, 8, None, [6, 7]),
        (5, 7, None, [5, 6]),
        (4, 8, 0, [4]),
        (4, 8, 6, [4]),
        (4, 8, 11, [4]),
        (4, 8, 12, [4, 5]),
        (4, 8, 17, [4, 5]),
        (4, 8, 18, [4, 5, 6]),
        (4, 8, 24, [4, 5, 6, 7]),
        (6, 8, 3, [6]),
    ],
)
def test_slice(lo, hi, limit, indexes):
    log = a_log(snapshot=(3, 3), stable=[(4, 3), (5, 3)], unstable=[(6, 3), (7, 3)])
    found = log.slice(lo, hi, limit)
    assert (None if found is None else [e.Index for e in found]) == indexes


def test_slice_beyond_the_end_is_a_bug():
    with pytest.raises(InvariantViolation):
        a_log(stable=[(1, 1)]).slice(1, 4, None)


def test_next_committed_pages_and_waits_for_a_snapshot():
    log = a_log(stable=[(1, 1), (2, 1), (3, 1)], committed=3)
    log.committed_size_max = 12
    assert pairs(log.next_committed()) == [(1, 1), (2, 1)]
    log.applying = 2
    assert pairs(log.next_committed()) == [(3, 1)]
    log.restore(new_snapshot(9, 2, new_conf_state((1,)), b""))
    assert log.next_committed() == ()
    assert (log.first_index(), log.last_index(), log.committed) == (10, 9, 9)


@pytest.mark.parametrize("index", [0, 4])
def test_applied_stays_within_bounds(index):
    log = a_log(stable=[(1, 1), (2, 1), (3, 1), (4, 1)], committed=3)
    log.applied_to(2)
    with pytest.raises(InvariantViolation):
        log.applied_to(index)


def test_has_unapplied_conf_change():
    log = a_log(stable=[(1, 1), (2, 1)])
    log.append([new_entry(CONF_CHANGE, 1, 3, b"")])
    log.append(entries((4, 1)))
    log.commit_to(2)
    log.committed_size_max = 1
    assert not log.has_unapplied_conf_change()
    log.commit_to(4)
    assert log.has_unapplied_conf_change()
    log.applied_to(3)
    assert not log.has_unapplied_conf_change()
