"""What one seed draws: how bad the world is, and who lives in it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from enum import Enum

from swarmd.cluster.raft import MemoryStorage, RawNode, Ready, Role, Timing
from swarmd.manager.raftnode.timers import PARTS, STOCK_ELECTION, STOCK_HEARTBEAT, Timers
from tests.harness.raft_checks import Seen, core_of
from tests.harness.raft_disk import Disk

STOCK_TICKS = STOCK_ELECTION // PARTS  # an election timeout in seconds, wherever ticks are


class Kind(Enum):
    """Who a member is."""

    BARE = "bare"  # the core with any timing and pre-vote or none
    SWARMD = "swarmd"  # as our driver runs it: pre-vote, marks, ten ticks a second
    STOCK = "stock"  # as stock runs it: no pre-vote, no marks, a tick a second

    @property
    def other(self) -> Kind:
        """What a member may come back as."""
        return {Kind.SWARMD: Kind.STOCK, Kind.STOCK: Kind.SWARMD}.get(self, self)


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the world is; drawn once per seed. Times are in units of about one tick."""

    duration: float
    members: int
    check_quorum: bool
    election_ticks: int
    loss: float
    double: float
    delay: float
    disk_delay: float
    fault_every: float
    propose_every: float
    read_every: float
    snapshot_every: int
    size_per_message: int
    inflight: int
    paced: bool
    """Members are SWARMD and STOCK, and a tick is a second; else they are BARE."""
    stock_share: float
    """How many of the members of a paced world are STOCK."""
    skew: float
    """By how much the clock of a member of a paced world may go wrong, as a factor less one."""

    @staticmethod
    def draw(chance: random.Random) -> Weather:
        """One of many worlds, from calm to awful."""
        paced = chance.random() < 0.25
        election_ticks = STOCK_TICKS if paced else chance.choice((3, 4, 6, 10))
        length = chance.uniform(5, 12) if paced else chance.uniform(12, 26)
        size, window = chance.choice(((1, 1), (1, 16), (60, 4), (60, 256), (65535, 256)))
        return Weather(
            duration=election_ticks * length,
            members=chance.choice((1, 2, 3, 3, 3, 4, 5, 5)),
            check_quorum=paced or chance.random() < 0.8,
            election_ticks=election_ticks,
            loss=chance.choice((0.0, 0.01, 0.05, 0.2)),
            double=chance.choice((0.0, 0.02, 0.15)),
            delay=election_ticks * chance.choice((0.002, 0.01, 0.05, 0.2, 0.6)),
            disk_delay=election_ticks * chance.choice((0.0, 0.0, 0.03, 0.2, 0.6)),
            fault_every=election_ticks * chance.choice((0.2, 0.4, 0.8)),
            propose_every=chance.choice((0.5, 2.0, 6.0)),
            read_every=chance.choice((0.7, 5.0)),
            snapshot_every=chance.choice((5, 20, 1000)),
            size_per_message=size,
            inflight=window,
            paced=paced,
            stock_share=chance.choice((0.0, 0.3, 0.7)),
            skew=chance.choice((0.02, 0.3)),
        )


class Member:
    """One manager: a disk that outlives crashes, and what runs on it."""

    def __init__(self, id: int, chance: random.Random, weather: Weather) -> None:
        self.id = id
        self.kind = Kind.BARE
        self.disk = Disk()
        self.storage = MemoryStorage()
        self.node: RawNode | None = None
        self.timers: Timers | None = None  # SWARMD: as the driver has them
        self.seen = Seen()
        self.life = 0
        self.founders: list[int] = []
        self.frozen_until = 0.0
        self.stuck_until = 0.0  # the disk
        self.stuck_ticks = 0
        self.skew = chance.uniform(0.75, 1.35)
        self._bare_ticks = weather.election_ticks + chance.choice((0, 0, 0, 2))
        # Members without pre-vote are what stock managers are.
        self._bare_pre_vote = chance.random() < 0.6
        self.pending: Ready | None = None
        self.applied = 0
        self.digest = 0
        self.removed: list[int] = []
        self.snapshot_index = 0
        self.asked_over = 0  # the term in which a leader asked it to take over
        if weather.paced:
            self.kind = Kind.STOCK if chance.random() < weather.stock_share else Kind.SWARMD
            self.skew = chance.uniform(1 - weather.skew, 1 + weather.skew)

    @property
    def tick_seconds(self) -> float:
        """How long its ticks really are."""
        return self.skew / PARTS if self.kind is Kind.SWARMD else self.skew

    @property
    def pre_vote(self) -> bool:
        """Whether it asks before it stands."""
        return self._bare_pre_vote if self.kind is Kind.BARE else self.kind is Kind.SWARMD

    @property
    def first_timers(self) -> tuple[int, int]:
        """Election and heartbeat ticks it starts with, which are the slowest it ever has."""
        if self.kind is Kind.SWARMD:
            return STOCK_ELECTION, STOCK_HEARTBEAT
        return (STOCK_TICKS if self.kind is Kind.STOCK else self._bare_ticks), 1

    @property
    def election_seconds(self) -> float:
        """Its shortest wait for a leader, at the start."""
        return self.first_timers[0] * self.tick_seconds

    def retime(self, ticks: int) -> None:
        """Change the election ticks of a BARE member, now and after restarts."""
        self._bare_ticks = ticks
        if self.node is not None:
            self.node.set_timers(Timing(ticks, 1))

    def tune(self) -> None:
        """Have the core wait as the marks of others say, as the driver does."""
        if self.timers is None or self.node is None:
            return
        if self.leads():
            self.timers.on_members(self.node.conf_state().voters, self.id)
        self.node.set_timers(self.timers.now())

    def leads(self) -> bool:
        """Whether it is up and believes to lead."""
        return self.node is not None and core_of(self.node).role is Role.LEADER

    def learners(self) -> tuple[int, ...]:
        """The members without a vote, as it knows them."""
        return core_of(self.node).membership.learners if self.node is not None else ()

    def encode(self) -> bytes:
        """The state machine as snapshot data."""
        return json.dumps([self.applied, self.digest, self.removed]).encode()

    def decode(self, data: bytes) -> None:
        """Replace the state machine."""
        self.applied, self.digest, self.removed = json.loads(data) if data else (0, 0, [])
