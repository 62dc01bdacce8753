"""Properties of the Raft core's parts against simple models."""

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.api import raftpb
from swarmd.cluster.raft import MemoryStorage, new_conf_state, new_entry, new_snapshot
from swarmd.cluster.raft.confchange import Membership, change
from swarmd.cluster.raft.jitter import Jitter
from swarmd.cluster.raft.log import RaftLog
from swarmd.cluster.raft.messages import NORMAL, take
from swarmd.cluster.raft.progress import Inflights, Progress, ProgressState
from swarmd.cluster.raft.quorum import VoteResult, committed_index, majority, vote_result
from tests.harness.raft_group import Group

ids = st.integers(1, 9)
voters = st.sets(ids, min_size=1, max_size=7).map(lambda found: tuple(sorted(found)))


# -- quorum ----------------------------------------------------------------------------------


@given(voters, st.dictionaries(ids, st.integers(0, 20)))
def test_committed_index_is_the_largest_a_majority_reached(voters, acked):
    index = committed_index(voters, lambda id: acked.get(id, 0))
    reached = sum(acked.get(id, 0) >= index for id in voters)
    beyond = sum(acked.get(id, 0) > index for id in voters)
    assert reached >= majority(len(voters)) > beyond


@given(voters, st.dictionaries(ids, st.booleans()))
def test_votes_are_decided_exactly_when_the_rest_cannot_change_them(voters, votes):
    def outcome(rest):
        return sum(votes.get(id, rest) for id in voters) >= majority(len(voters))

    expected = {
        (True, True): VoteResult.WON,
        (False, True): VoteResult.PENDING,
        (False, False): VoteResult.LOST,
    }[outcome(False), outcome(True)]
    assert vote_result(voters, votes) is expected


@given(voters, ids, st.sampled_from([0, 1, 2, 3]))
def test_quorums_of_neighbouring_configurations_overlap(voters, id, kind):
    """What single-step changes rest on (thesis 4.1)."""
    before = Membership(voters)
    wanted = raftpb.ConfChange(type=kind, node_id=id)
    if len(voters) == 1 and id in voters and kind in (1, 3):
        return
    after = change(before, wanted)
    assert after.voters == tuple(sorted(set(after.voters)))
    assert not set(after.voters) & set(after.learners)
    together = len(set(before.voters) | set(after.voters))
    assert majority(len(before.voters)) + majority(len(after.voters)) > together
    assert change(after, wanted) == after


# -- log -------------------------------------------------------------------------------------


def entries_from(index, terms):
    return [new_entry(NORMAL, term, index + i, b"") for i, term in enumerate(terms)]


log_steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 30), st.integers(1, 4)),
        st.tuples(st.just("ready"), st.just(0), st.just(0)),
        st.tuples(st.just("stable"), st.just(0), st.just(0)),
        st.tuples(st.just("commit"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("compact"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("snapshot"), st.integers(1, 5), st.just(0)),
    ),
    max_size=40,
)


class LogModel:
    """The log as one plain list of (index, term), beside the real one and its driver."""

    def __init__(self, limit):
        self.storage = MemoryStorage()
        self.log = RaftLog(self.storage)
        self.entries = []
        self.base = (0, 0)
        self.term = 1
        self.limit = limit
        self.flight = None

    def append(self, at, count):
        """A new leader replaces the tail after some index at or above the commit index."""
        self.term += 1
        last = self.log.last_index()
        before = max(self.log.committed, min(at, last))
        self.log.append(entries_from(before + 1, [self.term] * count))
        self.entries = [e for e in self.entries if e[0] <= before]
        self.entries += [(before + 1 + i, self.term) for i in range(count)]

    def ready(self, *_):
        if self.flight is None:
            unstable = self.log.unstable
            self.flight = (
                unstable.next_entries(),
                unstable.next_snapshot(),
                (self.term, self.log.last_index(), self.log.last_term()),
            )
            unstable.accept()

    def stable(self, *_):
        if self.flight is None:
            return
        entries, snapshot, (term, index, last_term) = self.flight
        if snapshot is not None:
            self.storage.apply_snapshot(snapshot)
        self.storage.append(entries)
        if term == self.term:
            self.log.unstable.stable_to(index, last_term)
        if snapshot is not None:
            self.log.unstable.stable_snapshot_to(snapshot.metadata.index)
            self.log.applied_to(max(snapshot.metadata.index, self.log.applied))
        self.flight = None

    def commit(self, index, _):
        self.log.commit_to(min(index, self.log.last_index()))

    def compact(self, index, _):
        """Only what is stable and committed may be dropped, and not while a Ready is out."""
        stable = self.log.unstable.offset - 1
        index = min(index, self.log.committed, stable)
        if self.flight is None and self.log.unstable.snapshot is None and index > self.base[0]:
            self.base = (index, self.storage.term(index))
            self.storage.compact(index)
            self.entries = [e for e in self.entries if e[0] > index]

    def snapshot(self, ahead, _):
        index = self.log.last_index() + ahead
        self.term += 1
        self.log.restore(new_snapshot(index, self.term, new_conf_state((1,)), b""))
        self.base = (index, self.term)
        self.entries = []

    def check(self):
        log, (base, base_term) = self.log, self.base
        assert log.first_index() == base + 1
        assert log.last_index() == base + len(self.entries)
        assert log.term(base) == base_term
        assert [log.term(index) for index, _ in self.entries] == [t for _, t in self.entries]
        assert log.term(base + len(self.entries) + 1) is None
        if base > 0:
            assert log.term(base - 1) is None
        found = log.slice(base + 1, log.last_index() + 1, None)
        assert [(e.Index, e.Term) for e in found] == self.entries
        if self.entries:
            limited = log.slice(base + 1, log.last_index() + 1, self.limit)
            assert 1 <= len(limited) <= len(self.entries)
            assert found[: len(limited)] == limited
            size = sum(e.ByteSize() for e in limited)
            assert size <= self.limit or len(limited) == 1
            if len(limited) < len(found):
                assert size + found[len(limited)].ByteSize() > self.limit


@settings(max_examples=300)
@given(log_steps, st.integers(0, 60))
def test_the_log_is_one_list_whatever_is_written_when(steps, limit):
    model = LogModel(limit)
    for name, first, second in steps:
        getattr(model, name)(first, second)
        model.check()
    # Everything written in the end: storage alone holds the same.
    model.stable()
    model.term += 1
    model.ready()
    model.stable()
    model.check()
    assert model.storage.last_index() == model.log.last_index()
    assert model.log.unstable.entries == []


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 12), st.integers(0, 200))
def test_take_fills_up_to_the_limit(sizes, start, limit):
    entries = [new_entry(NORMAL, 1, i + 1, b"." * size) for i, size in enumerate(sizes)]
    start = min(start, len(entries))
    taken = take(entries, start, len(entries), limit)
    assert taken == entries[start : start + len(taken)]
    size = sum(e.ByteSize() for e in taken)
    assert size <= limit or len(taken) == 1
    rest = entries[start + len(taken) :]
    assert not rest or (taken and size + rest[0].ByteSize() > limit)


@given(
    st.lists(st.integers(1, 5), max_size=12).map(sorted),
    st.lists(st.integers(1, 5), max_size=12).map(sorted),
)
def test_conflict_hints_never_skip_a_match(ours, theirs):
    """Probing with the hints of both sides reaches the last common entry, never below it."""

    def a_log(terms):
        storage = MemoryStorage()
        storage.append(entries_from(1, terms))
        return RaftLog(storage)

    # Make shared prefixes legal: equal (index, term) means equal prefix.
    common = 0
    while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
        common += 1
    theirs = theirs[:common] + [term + 10 * (i % 2) for i, term in enumerate(theirs[common:])]
    leader_log, follower_log = a_log(ours), a_log(sorted(theirs))
    theirs = sorted(theirs)
    common = 0
    while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
        common += 1
    if any(a == b for a, b in zip(ours[common:], theirs[common:], strict=False)):
        return  # such logs cannot exist together
    index = len(ours)
    for _ in range(30):
        term = leader_log.term(index)
        if follower_log.matches(index, term):
            break
        hint = min(index, follower_log.last_index())
        hint, hint_term = follower_log.find_conflict_by_term(hint, term)
        if hint_term > 0:
            hint, _ = leader_log.find_conflict_by_term(hint, hint_term)
        lower = min(index - 1, hint)
        assert lower >= common
        index = lower
    assert index == common


# -- progress --------------------------------------------------------------------------------

progress_steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3)),
        st.tuples(st.just("ack"), st.integers(0, 40)),
        st.tuples(st.just("reject"), st.integers(0, 40)),
        st.tuples(st.just("heartbeat"), st.just(0)),
        st.tuples(st.just("probe"), st.just(0)),
        st.tuples(st.just("replicate"), st.just(0)),
        st.tuples(st.just("snapshot"), st.integers(1, 40)),
    ),
    max_size=60,
)


@given(progress_steps, st.integers(1, 4))
def test_progress_keeps_match_below_next_and_its_window(steps, capacity):
    progress = Progress(1, capacity)
    for name, value in steps:
        before = progress.match
        if name == "send" and not progress.is_paused():
            progress.sent_entries(0 if progress.inflights.is_full() else value)
        elif name == "ack":
            progress.inflights.free_to(value)
            progress.maybe_update(value)
        elif name == "reject":
            progress.maybe_decrease(value, value // 2)
        elif name == "heartbeat":
            progress.flow_paused = False
        elif name == "probe":
            progress.become_probe()
        elif name == "replicate":
            progress.become_replicate()
        elif name == "snapshot":
            progress.become_snapshot(max(value, progress.match))
        assert before <= progress.match < progress.next
        assert len(progress.inflights) <= capacity
        assert progress.inflights.is_full() is (len(progress.inflights) == capacity)
        if progress.state is ProgressState.SNAPSHOT:
            assert progress.is_paused()


@given(st.lists(st.one_of(st.integers(1, 5), st.integers(-40, -1)), max_size=50))
def test_inflights_against_a_list(steps):
    window, model, last = Inflights(5), [], 0
    for step in steps:
        if step > 0 and len(model) < 5:
            last += step
            window.add(last)
            model.append(last)
        elif step < 0:
            window.free_to(-step)
            model = [index for index in model if index > -step]
        assert len(window) == len(model)
        assert window.is_full() is (len(model) == 5)


# -- chance ----------------------------------------------------------------------------------


@given(st.integers(0, 1 << 64), st.integers(1, 1 << 63), st.integers(1, 1000))
def test_jitter_stays_in_range_and_repeats(seed, id, bound):
    first, second = Jitter(seed, id), Jitter(seed, id)
    row = [first.below(bound) for _ in range(20)]
    assert row == [second.below(bound) for _ in range(20)]
    assert all(0 <= number < bound for number in row)


# -- a whole group ---------------------------------------------------------------------------

moves = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(1, 3), st.integers(1, 12)),
        st.tuples(st.just("propose"), st.integers(1, 3), st.integers(1, 3)),
        st.tuples(st.just("process"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("deliver"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("drop"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("restart"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("campaign"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("settle"), st.integers(1, 3), st.just(0)),
    ),
    max_size=60,
)


def do(group, name, id, count):
    """One move of a member."""
    peer = group[id]
    if name == "tick":
        group.tick(id, count)
    elif name == "propose" and peer.node.status().leader == id:
        for _ in range(count):
            peer.node.propose(b"%d" % len(group.trace))
    elif name == "process":
        group.process(id)
    elif name == "deliver":
        group.deliver(id)
    elif name == "drop":
        group.drop(id)
    elif name == "restart":
        # What came since the last Ready is lost with the process.
        group.restart(id)
    elif name == "campaign":
        peer.node.campaign()
    elif name == "settle":
        group.stabilize()


@settings(max_examples=150)
@given(moves, st.booleans())
def test_members_apply_the_same_whatever_happens(steps, pre_vote):
    group = Group(3, pre_vote=pre_vote)
    leaders = {}
    agreed = {}

    def look():
        for peer in group.peers.values():
            status = peer.node.status()
            if status.leader == status.id:
                assert leaders.setdefault(status.term, status.id) == status.id
            for entry in peer.applied:
                value = (entry.Term, entry.Data)
                assert agreed.setdefault(entry.Index, value) == value

    # Chance alone hardly ever elects anybody in so few steps.
    group[1].node.campaign()
    group.stabilize()
    group[1].node.propose(b"first")
    for name, id, count in steps:
        do(group, name, id, count)
        look()
    for _ in range(60):
        for id in (1, 2, 3):
            group.tick(id)
            group.stabilize()
        look()
    assert leaders and agreed
    commits = {peer.node.status().commit for peer in group.peers.values()}
    assert len(commits) == 1
    assert len({peer.node.status().leader for peer in group.peers.values()}) == 1
