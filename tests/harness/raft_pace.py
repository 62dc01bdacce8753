"""Groups of swarmd and stock members in good networks: who must not be replaced, and how fast
who must be.

`raft_sim` breaks everything and looks for lost or differing entries. Here the network is good
and faults come one at a time, so that the promises of docs/decisions/0007-fast-failover.md can
be put in numbers: each episode breaks one thing, says what may follow from it, and waits until
the group is at rest. Clocks go wrong, members pause, disks hang, members come, go and come back
as the other kind. The promises of `raft_checks` hold throughout.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from swarmd.api import raftpb
from swarmd.base.errors import InvariantViolation
from swarmd.manager.raftnode.timers import FAST_ELECTION, FAST_HEARTBEAT, PARTS, STOCK_ELECTION
from tests.harness.raft_checks import Broken, core_of
from tests.harness.raft_member import Kind, Member, Weather
from tests.harness.raft_world import World

# All in seconds. From the leader's last moment to the next leader in a fast group: the longest
# wait of a follower (14 ticks), what was left of a tick, and the way of two rounds of votes.
FAST_TIMEOUT = 1.5
# The same in stock timing: waits of 10 to 19 ticks of a second, which start at the last heartbeat.
STOCK_TIMEOUT = 20.0
STOCK_PATIENCE = 10.0
# A member whose pre-vote came too early, or whose vote was split, waits once more.
ROUNDS_MAX = 4
# A group is at rest after this many stock timeouts, whatever happened, or something is wrong.
REST_TIMEOUTS = 6
# From a change of members to the mode it asks for: the next heartbeat of stock, and an answer.
MODE_SECONDS = 1.5
# The same after the start of a newcomer, of which the leader knows that it comes.
NEWCOMER_SECONDS = 0.6
MEMBERS_MAX = 5
# What a hanging disk may cost a leader: from then on it is silent (driver.SLOW_DISK_TICKS).
DISK_PATIENCE = 5.0

EPISODES = (
    "calm",
    "noise",
    "short pauses",
    "followers paused",
    "leader paused for long",
    "leader killed in a fast group",
    "leader killed where stock votes are needed",
    "leader cut off",
    "follower cut off",
    "leader deaf",
    "disk of a leader hangs",
    "disk of a leader is gone",
    "disk of a follower hangs",
    "swarmd member added",
    "stock member added",
    "member removed",
    "came back as the other kind",
    "follower restarted",
    "handed over",
)


def draw(chance: random.Random) -> Weather:
    """A good network of swarmd members, stock members, or both."""
    return Weather(
        duration=0.0,
        members=chance.choice((2, 3, 3, 4, 5, 5)),
        check_quorum=True,
        election_ticks=STOCK_ELECTION // PARTS,
        loss=0.0,
        double=0.0,
        delay=chance.choice((0.002, 0.01, 0.03)),
        disk_delay=chance.choice((0.0, 0.005, 0.03)),
        fault_every=0.0,
        propose_every=chance.choice((0.3, 2.0)),
        read_every=2.0,
        snapshot_every=chance.choice((50, 1000)),
        size_per_message=65535,
        inflight=256,
        paced=True,
        stock_share=chance.choice((0.0, 0.0, 0.0, 0.2, 0.3, 0.6, 1.0)),
        skew=chance.choice((0.0, 0.02, 0.1)),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed did. Times are in seconds from a leader's end to the next leader."""

    events: int
    committed: int
    tally: Counter[str]
    fast: tuple[float, ...]
    stock: tuple[float, ...]
    digest: int


def run_seed(seed: int) -> Outcome:
    """Run one seed; a failure carries the seed and the last events in its text."""
    pace = Pace(seed)
    try:
        pace.run()
    except (Broken, InvariantViolation) as error:
        lines = [" ".join(str(part) for part in event) for event in pace.world.events]
        head = f"seed {seed} at {pace.world.now:.2f} ({pace.episode}): {error}"
        raise Broken("\n".join((head, str(pace.world.weather), *lines))) from error
    committed = pace.world.checker.committed
    return Outcome(
        events=pace.world.count,
        committed=len(committed),
        tally=pace.tally + pace.world.tally,
        fast=tuple(pace.fast),
        stock=tuple(pace.stock),
        digest=committed[-1].digest,
    )


class Pace:
    """One group, and one episode after the other."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed, draw)
        self.chance = self.world.chance
        self.tally: Counter[str] = Counter()
        self.episode = "founding"
        self.fast: list[float] = []
        self.stock: list[float] = []
        self._episodes: tuple[tuple[int, Callable[[], bool]], ...] = (
            (2, self._calm),
            (2, self._noise),
            (3, self._short_pauses),
            (2, self._followers_paused),
            (3, self._leader_paused),
            (6, self._leader_killed),
            (2, self._leader_cut_off),
            (3, self._follower_cut_off),
            (1, self._leader_deaf),
            (2, self._leader_disk_hangs),
            (1, self._leader_disk_gone),
            (1, self._follower_disk_hangs),
            (4, self._add),
            (3, self._remove),
            (4, self._turn),
            (2, self._restart),
            (2, self._hand_over),
        )

    def run(self) -> None:
        """Found the group, then some episodes that are possible in it."""
        self.world.found()
        self._propose()
        self._read()
        self._rest()
        weights = [weight for weight, _ in self._episodes]
        acts = [act for _, act in self._episodes]
        for _ in range(self.chance.randint(6, 10)):
            if self.chance.choices(acts, weights)[0]():
                self._rest()
                self._linger(0.0, 3.0)

    # -- clients -----------------------------------------------------------------------------

    def _propose(self) -> None:
        self.world.propose()
        self.world.after(
            self.chance.expovariate(1 / self.world.weather.propose_every), self._propose
        )

    def _read(self) -> None:
        up = [m for m in self.world.members.values() if m.node is not None]
        if up:
            self.world.read(self.chance.choice(up))
        self.world.after(self.chance.expovariate(1 / self.world.weather.read_every), self._read)

    # -- what is the case --------------------------------------------------------------------

    @property
    def leader(self) -> Member:
        """The newest leader."""
        leaders = self.world.leaders()
        if not leaders:
            raise Broken("nobody leads")
        return leaders[-1]

    @property
    def voters(self) -> list[Member]:
        """The members of the newest leader's group."""
        node = self.leader.node
        assert node is not None
        return [self.world.members[id] for id in node.conf_state().voters]

    @property
    def followers(self) -> list[Member]:
        """The voters but the leader."""
        leader = self.leader
        return [member for member in self.voters if member is not leader]

    def _fast_expected(self) -> bool:
        """Whether the leader knows the marks, and so many of the others that they can do alone."""
        marked = sum(member.kind is Kind.SWARMD for member in self.followers)
        return self.leader.kind is Kind.SWARMD and marked >= len(self.voters) // 2 + 1

    def _slowest(self) -> float:
        return max(member.skew for member in self.world.members.values())

    def _terms(self) -> int:
        return max(member.seen.term for member in self.world.members.values())

    def _has_leader(self) -> bool:
        """Whether all voters are up and follow one leader that could do its work."""
        leaders = self.world.leaders()
        if len(leaders) != 1:
            return False
        goal = len(self.world.checker.committed)
        return all(
            member.node is not None
            and core_of(member.node).leader == leaders[0].id
            and member.applied == goal
            for member in self.voters
        )

    def _has_mode(self) -> bool:
        """Whether all members wait as this group of this leader should."""
        fast = self._fast_expected()
        timers = self.leader.timers
        if timers is not None and timers.fast != fast:
            return False
        return all(m.timers is None or m.timers.told == fast for m in self.followers)

    def _check_waits(self) -> None:
        """Everybody counts as the mode says, leaders' own quorum always as stock."""
        fast = self._fast_expected()
        for member in self.voters:
            assert member.node is not None
            core, election = core_of(member.node), member.first_timers[0]
            if fast and not member.leads() and member.kind is Kind.SWARMD:
                election = FAST_ELECTION
            if core.timing.election_ticks != election:
                raise Broken(
                    f"{member.id} waits {core.timing.election_ticks} ticks, not {election}"
                )
        beat = FAST_HEARTBEAT if fast else self.leader.first_timers[1]
        node = self.leader.node
        if node is None or core_of(node).timing.heartbeat_ticks != beat:
            raise Broken(f"heartbeats of {self.leader.id} are not {beat} ticks apart")

    # -- steps of episodes -------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        self.episode = name
        self.tally[name] += 1
        self.world.note("episode", name)

    def _linger(self, low: float, high: float) -> None:
        self.world.run_until(self.world.now + self.chance.uniform(low, high))

    def _rest(self) -> None:
        """Wait until everybody follows one leader, and soon after in the right mode."""
        world = self.world
        bound = world.now + REST_TIMEOUTS * STOCK_TIMEOUT * self._slowest()
        if not world.run_until(bound, self._has_leader):
            raise Broken("not everybody follows one leader")
        if not world.run_until(world.now + MODE_SECONDS * self._slowest() + 0.5, self._has_mode):
            raise Broken(f"fast should be {self._fast_expected()}")

    def _undisturbed(self, act: Callable[[], None]) -> None:
        """What `act` does and a rest after it must not cost the leader anything."""
        leader, term = self.leader, self._terms()
        act()
        self._rest()
        self._linger(1.0, 4.0)
        if self._terms() != term or not leader.leads():
            raise Broken(f"{leader.id} of term {term} was disturbed")

    def _others_lead(self, begun: int, changes_max: int) -> None:
        """Check how many leaders there were since the log of leaders was `begun` long."""
        changes = len(self.world.leader_log) - begun
        if changes > changes_max:
            raise Broken(f"{changes} leaders came, where {changes_max} had to do")

    def _next_leader(self, since: float, *, fast: bool) -> None:
        """Wait for the next leader, who must come neither late nor too early."""
        world, begun = self.world, len(self.world.leader_log)
        limit = (FAST_TIMEOUT if fast else STOCK_TIMEOUT) * self._slowest()
        slack = 6 * (world.weather.delay + world.weather.disk_delay)
        world.run_until(
            since + ROUNDS_MAX * limit + slack, lambda: len(world.leader_log) > begun, every=1
        )
        if len(world.leader_log) == begun:
            raise Broken(f"no leader within {ROUNDS_MAX} times {limit:.2f} s")
        took = world.leader_log[begun][0] - since
        (self.fast if fast else self.stock).append(took)
        quickest = min(member.skew for member in world.members.values())
        # The last heartbeat may be as old as a tick, and so may be the voter's last tick.
        if not fast and took < (STOCK_PATIENCE - 1) * quickest - self._slowest() - slack:
            raise Broken(f"a leader within {took:.2f} s, where stock votes were needed")

    def _pause(self, member: Member, seconds: float) -> None:
        self.world.note("pause", member.id, round(seconds, 3))
        member.frozen_until = max(member.frozen_until, self.world.now + seconds)

    def _pause_limit(self) -> float:
        """How long a leader may stand still without being missed.

        A follower counts its shortest wait but for a tick; the last heartbeat may be as old
        as their distance, and the next one be late by a tick or two.
        """
        leader, shortest = self.leader, float("inf")
        assert leader.node is not None
        beat = core_of(leader.node).timing.heartbeat_ticks * leader.tick_seconds
        for member in self.followers:
            assert member.node is not None
            timing = core_of(member.node).timing
            least, _ = timing.stand_ticks or (timing.election_ticks, 0)
            shortest = min(shortest, (least - 1) * member.tick_seconds)
        late = 2 * (self.world.weather.delay + self.world.weather.disk_delay)
        return shortest - beat - 2 * leader.tick_seconds - late

    # -- episodes: nothing may happen --------------------------------------------------------

    def _calm(self) -> bool:
        self._begin("calm")
        self._undisturbed(partial(self._linger, 5.0, 25.0))
        self._check_waits()
        return True

    def _noise(self) -> bool:
        """Some messages are lost, doubled, or late by more than their distance."""
        self._begin("noise")
        good = self.world.weather
        self.world.weather = replace(good, loss=0.05, double=0.05, delay=0.15)
        self._undisturbed(partial(self._quietly, good))
        return True

    def _quietly(self, good: Weather) -> None:
        self._linger(5.0, 15.0)
        self.world.weather = good

    def _short_pauses(self) -> bool:
        """Everybody stands still now and then, none for longer than the limit."""
        self._begin("short pauses")
        self._undisturbed(self._jitter)
        return True

    def _jitter(self) -> None:
        for _ in range(self.chance.randint(1, 8)):
            for member in [self.leader, *self.followers]:
                if member.leads() or self.chance.random() < 0.5:
                    self._pause(member, self._pause_limit() * self.chance.uniform(0.5, 1.0))
            longest = max(member.frozen_until for member in self.voters) - self.world.now
            # Time for a heartbeat in between: the limit is for one pause.
            self._linger(longest + 2.5 * self._slowest(), longest + 4.0)

    def _followers_paused(self) -> bool:
        """Followers stand still for long, even all of them."""
        self._begin("followers paused")
        self._undisturbed(self._pause_followers)
        return True

    def _pause_followers(self) -> None:
        followers = self.followers
        for member in self.chance.sample(followers, self.chance.randint(1, len(followers))):
            self._pause(member, self.chance.uniform(1.0, 7.0))
        self._linger(8.0, 9.0)

    def _follower_cut_off(self) -> bool:
        """One that asks before it stands does no harm, however long it was away."""
        follower = self.chance.choice(self.followers)
        if len(self.voters) < 3:
            return False
        self._begin("follower cut off")
        longest = 35.0 if follower.kind is Kind.SWARMD else 7.0
        self._undisturbed(partial(self._cut, follower, longest, self.chance.randint(1, 3)))
        return True

    def _leader_deaf(self) -> bool:
        """Its heartbeats get through; what it misses is less than it waits for a quorum."""
        self._begin("leader deaf")
        self._undisturbed(partial(self._cut, self.leader, 6.0, 1))
        return True

    def _cut(self, member: Member, longest: float, ways: int) -> None:
        """Cut links of a member: 1 towards it, 2 from it, 3 both."""
        for other in self.world.members:
            if ways & 1:
                self.world.cut.add((other, member.id))
            if ways & 2:
                self.world.cut.add((member.id, other))
        self.world.note("cut off", member.id, "ways", ways)
        self._linger(1.0, longest)
        self.world.cut.clear()
        self.world.note("mended")

    def _leader_disk_hangs(self) -> bool:
        """Our heartbeats do not wait for the disk; a stock leader stands still meanwhile."""
        self._begin("disk of a leader hangs")
        self._undisturbed(partial(self._hang, self.leader, DISK_PATIENCE - 1))
        return True

    def _follower_disk_hangs(self) -> bool:
        self._begin("disk of a follower hangs")
        self._undisturbed(partial(self._hang, self.chance.choice(self.followers), 6.0))
        return True

    def _hang(self, member: Member, longest: float) -> None:
        seconds = self.chance.uniform(0.5, longest)
        if member.kind is Kind.STOCK:
            self._pause(member, seconds)
        else:
            self.world.note("disk of", member.id, "hangs", round(seconds, 3))
            member.stuck_until = self.world.now + seconds
        self._linger(seconds, seconds + 2.0)

    def _restart(self) -> bool:
        self._begin("follower restarted")
        follower = self.chance.choice(self.followers)
        self._undisturbed(partial(self._bounce, follower, follower.kind))
        return True

    def _turn(self) -> bool:
        """A follower comes back as the other kind, on the same state."""
        self._begin("came back as the other kind")
        follower = self.chance.choice(self.followers)
        self._undisturbed(partial(self._bounce, follower, follower.kind.other))
        return True

    def _bounce(self, member: Member, kind: Kind) -> None:
        self.world.crash(member)
        self._linger(0.0, 6.0)
        member.kind = kind
        self.world.start(member)

    def _add(self) -> bool:
        """A member is added, and starts at once or after a while."""
        if len(self.voters) >= MEMBERS_MAX:
            return False
        member = self.world.newcomer()
        swarmd = member.kind is Kind.SWARMD
        self._begin("swarmd member added" if swarmd else "stock member added")
        self._undisturbed(partial(self._join, member))
        return True

    def _join(self, member: Member) -> None:
        self._change(raftpb.ConfChangeAddNode, member.id)
        if not self.world.run_until(self.world.now + 1.0, lambda: member in self.voters):
            raise Broken(f"{member.id} was not added")
        late = self.chance.choice((0.0, 0.5, 5.0))
        self._linger(0.0, late)
        self.world.start(member)
        if late > 1.0 or self.leader.kind is Kind.STOCK:
            return
        # The leader asks around quickly: after two of its heartbeats everybody should know.
        bound = self.world.now + NEWCOMER_SECONDS * self._slowest()
        slack = 6 * (self.world.weather.delay + self.world.weather.disk_delay)
        if not self.world.run_until(bound + slack, self._has_mode):
            raise Broken(
                f"fast should be {self._fast_expected()} {NEWCOMER_SECONDS} s after a start"
            )

    def _remove(self) -> bool:
        if len(self.voters) < 3:
            return False
        self._begin("member removed")
        follower = self.chance.choice(self.followers)
        self._undisturbed(partial(self._drop, follower))
        return True

    def _drop(self, member: Member) -> None:
        self._change(raftpb.ConfChangeRemoveNode, member.id)
        self._linger(0.5, 1.0)
        if member.node is not None:
            # It may not have heard of it; a peer's answer would tell it.
            self.world.stop(member)

    def _change(self, kind: raftpb.ConfChangeType, id: int) -> None:
        for _ in range(20):
            if self.world.change(kind, id):
                return
            self._linger(0.1, 0.2)
        raise Broken("a change of members was not taken")

    # -- episodes: another leader ------------------------------------------------------------

    def _leader_killed(self) -> bool:
        if len(self.voters) < 3:
            return False
        leader, fast = self.leader, self._fast_expected()
        self._begin(
            "leader killed in a fast group"
            if fast
            else "leader killed where stock votes are needed"
        )
        begun = len(self.world.leader_log)
        self.world.crash(leader)
        self._next_leader(self.world.now, fast=fast)
        self._linger(0.0, 15.0)
        self.world.start(leader)
        self._rest()
        self._others_lead(begun, self._changes_max())
        return True

    def _changes_max(self) -> int:
        """One; but two stock members may stand at once, and the later one unseats the first."""
        stock = sum(member.kind is Kind.STOCK for member in self.voters)
        return 1 if stock < 2 else 2

    def _leader_paused(self) -> bool:
        """Longer than the limit: at most one other leader comes, in its time."""
        if len(self.voters) < 3:
            return False
        self._begin("leader paused for long")
        leader, fast = self.leader, self._fast_expected()
        begun, since = len(self.world.leader_log), self.world.now
        low = self._pause_limit()
        self._pause(leader, self.chance.uniform(low, low + (4.0 if fast else 14.0)))
        self.world.run_until(leader.frozen_until + 0.5)
        self._rest()
        self._others_lead(begun, self._changes_max())
        if len(self.world.leader_log) > begun and fast:
            self.fast.append(self.world.leader_log[begun][0] - since)
        return True

    def _leader_cut_off(self) -> bool:
        """From everybody, or only its own words are lost."""
        if len(self.voters) < 3:
            return False
        self._begin("leader cut off")
        leader, fast = self.leader, self._fast_expected()
        begun = len(self.world.leader_log)
        ways = self.chance.choice((2, 3))
        for other in self.world.members:
            self.world.cut.add((leader.id, other))
            if ways == 3:
                self.world.cut.add((other, leader.id))
        self._next_leader(self.world.now, fast=fast)
        self._linger(0.0, 15.0)
        self.world.cut.clear()
        self._rest()
        self._others_lead(begun, self._changes_max())
        return True

    def _leader_disk_gone(self) -> bool:
        """It falls silent in the end, so that another one takes over."""
        if len(self.voters) < 3 or self.leader.kind is Kind.STOCK:
            return False
        self._begin("disk of a leader is gone")
        leader, fast = self.leader, self._fast_expected()
        begun = len(self.world.leader_log)
        leader.stuck_until = self.world.now + 90.0
        self.world.propose()
        self._next_leader(self.world.now + DISK_PATIENCE * leader.skew, fast=fast)
        self.world.crash(leader)
        leader.stuck_until = 0.0
        self._linger(0.0, 5.0)
        self.world.start(leader)
        self._rest()
        self._others_lead(begun, self._changes_max())
        return True

    def _hand_over(self) -> bool:
        """The heir leads at once, in the next term."""
        self._begin("handed over")
        heir, term = self.chance.choice(self.followers), self._terms()
        begun, node = len(self.world.leader_log), self.leader.node
        assert node is not None
        node.transfer_leadership(heir.id)
        self.world.touched(self.leader)
        self._linger(1.0, 1.5)
        if not heir.leads() or self._terms() != term + 1:
            raise Broken(f"{heir.id} did not take over")
        self._rest()
        self._others_lead(begun, 1)
        return True
