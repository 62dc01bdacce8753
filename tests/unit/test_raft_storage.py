"""MemoryStorage: the durable part of the log, as the driver mirrors it."""

import pytest

from swarmd.base.errors import InvariantViolation, OutOfRange
from swarmd.cluster.raft import MemoryStorage, new_conf_state, new_entry, new_snapshot
from swarmd.cluster.raft.messages import NORMAL


def entry(index, term, data=b""):
    return new_entry(NORMAL, term, index, data)


def filled(*terms, start=3, start_term=3):
    """A log compacted to `start`, with one entry per term after it."""
    storage = MemoryStorage()
    storage.apply_snapshot(new_snapshot(start, start_term, new_conf_state((1, 2)), b"state"))
    storage.append([entry(start + 1 + i, term) for i, term in enumerate(terms)])
    return storage


def listed(storage):
    return [
        (e.Index, e.Term) for e in storage.entries(storage.first_index(), storage.last_index() + 1)
    ]


def test_empty():
    storage = MemoryStorage()
    assert (storage.first_index(), storage.last_index()) == (1, 0)
    assert storage.term(0) == 0
    assert storage.term(1) is None
    assert storage.snapshot().metadata.index == 0
    assert storage.entries(1, 1) == []


@pytest.mark.parametrize(("index", "term"), [(2, None), (3, 3), (4, 4), (5, 5), (6, None)])
def test_term(index, term):
    assert filled(4, 5).term(index) == term


@pytest.mark.parametrize(
    ("lo", "hi", "limit", "indexes"),
    [
        (4, 5, None, [4]),
        (4, 7, None, [4, 5, 6]),
        (4, 7, 0, [4]),
        (4, 7, 12, [4, 5]),
        (4, 7, 17, [4, 5]),
        (4, 7, 18, [4, 5, 6]),
        (6, 7, 1, [6]),
        (7, 7, None, []),
    ],
)
def test_entries(lo, hi, limit, indexes):
    storage = filled(4, 5, 6)
    assert storage.entries(4, 5)[0].ByteSize() == 6
    assert [e.Index for e in storage.entries(lo, hi, limit)] == indexes


@pytest.mark.parametrize(("lo", "hi"), [(2, 5), (3, 4), (4, 8)])
def test_entries_out_of_range(lo, hi):
    with pytest.raises(OutOfRange):
        filled(4, 5, 6).entries(lo, hi)


@pytest.mark.parametrize(
    ("added", "result"),
    [
        ([], [(4, 4), (5, 5)]),
        ([(1, 1), (2, 2)], [(4, 4), (5, 5)]),
        ([(4, 4), (5, 5)], [(4, 4), (5, 5)]),
        ([(4, 6), (5, 6)], [(4, 6), (5, 6)]),
        ([(2, 3), (3, 3), (4, 5)], [(4, 5)]),
        ([(4, 5)], [(4, 5)]),
        ([(6, 5)], [(4, 4), (5, 5), (6, 5)]),
    ],
)
def test_append(added, result):
    storage = filled(4, 5)
    storage.append([entry(index, term) for index, term in added])
    assert listed(storage) == result


def test_append_refuses_a_gap():
    with pytest.raises(InvariantViolation, match="last 5, appending at 7"):
        filled(4, 5).append([entry(7, 5)])


def test_compact_keeps_the_term_at_the_edge():
    storage = filled(4, 5, 6)
    storage.compact(5)
    assert (storage.first_index(), storage.last_index()) == (6, 6)
    assert storage.term(5) == 5
    assert storage.term(4) is None
    storage.compact(6)
    assert (storage.first_index(), storage.last_index(), storage.term(6)) == (7, 6, 6)


@pytest.mark.parametrize("index", [2, 3, 7])
def test_compact_out_of_range(index):
    with pytest.raises(OutOfRange):
        filled(4, 5, 6).compact(index)


def test_create_snapshot_leaves_the_log():
    storage = filled(4, 5, 6)
    snapshot = storage.create_snapshot(5, new_conf_state((1, 2, 3), (4,)), b"later")
    assert (snapshot.metadata.index, snapshot.metadata.term, snapshot.data) == (5, 5, b"later")
    assert list(storage.conf_state.voters) == [1, 2, 3]
    assert list(storage.conf_state.learners) == [4]
    assert storage.snapshot() is snapshot
    assert listed(storage) == [(4, 4), (5, 5), (6, 6)]


@pytest.mark.parametrize("index", [2, 3, 7])
def test_create_snapshot_out_of_range(index):
    with pytest.raises(OutOfRange):
        filled(4, 5, 6).create_snapshot(index, new_conf_state((1,)), b"")


def test_apply_snapshot_replaces_everything():
    storage = filled(4, 5, 6)
    storage.apply_snapshot(new_snapshot(9, 8, new_conf_state((5,)), b"new"))
    assert (storage.first_index(), storage.last_index(), storage.term(9)) == (10, 9, 8)
    assert list(storage.conf_state.voters) == [5]
    with pytest.raises(OutOfRange):
        storage.apply_snapshot(new_snapshot(9, 8, new_conf_state((5,)), b"new"))
    assert storage.snapshot().data == b"new"


def test_snapshot_scalars_are_explicit():
    metadata = filled(4).snapshot().metadata
    assert metadata.HasField("index")
    assert metadata.HasField("term")
    assert metadata.conf_state.HasField("auto_leave")
