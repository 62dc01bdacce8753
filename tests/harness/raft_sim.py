"""A seeded cluster of Raft cores in a bad world.

Messages are lost, late, doubled, reordered; links fail one way; members crash and lose what
was not synced; disks hang; clocks run at different speeds; members come, go, and come back as
the other kind. After every event the
promises in `raft_checks` must hold; once all faults end, everybody must make progress within a
bound.

    python -m tests.sim.nightly --only raft --seeds 1000 --start 0
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from swarmd.base.errors import InvariantViolation
from tests.harness.raft_checks import Broken, core_of
from tests.harness.raft_faults import Faults
from tests.harness.raft_world import World

# Within so many of the slowest election timeouts after all faults everything must work again.
HEALED_TIMEOUTS_MAX = 12


class Wedged(Exception):
    """The group waits for members that left; only a forced new cluster helps."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed did, for totals and to see that runs are not empty."""

    events: int
    committed: int
    terms: int
    wedged: bool
    healed_timeouts: float
    digest: int
    tally: Counter[str] = field(default_factory=Counter)
    """How often what happened, see `raft_coverage`."""


def run_seed(seed: int) -> Outcome:
    """Run one seed; a failure carries the seed and the last events in its text."""
    world = World(seed)
    wedged = False
    try:
        took = _run(world)
    except Wedged:
        took = 0.0
        wedged = True
    except (Broken, InvariantViolation) as error:
        lines = [" ".join(str(part) for part in event) for event in world.events]
        raise Broken(
            "\n".join((f"seed {seed} at {world.now:.2f}: {error}", str(world.weather), *lines))
        ) from error
    committed = world.checker.committed
    return Outcome(
        events=world.count,
        committed=len(committed),
        terms=len(world.checker.leaders),
        wedged=wedged,
        healed_timeouts=took,
        digest=committed[-1].digest if committed else 0,
        tally=world.tally,
    )


def _run(world: World) -> float:
    """One run; returns how many election timeouts the way back to work took."""
    world.found()
    Faults(world).begin()
    world.run_until(world.weather.duration)
    _heal(world)
    # Old messages and pauses drain first; they may be as late as the world was slow.
    frozen = max(member.frozen_until for member in world.members.values())
    world.run_until(max(frozen, world.now + world.weather.delay + world.weather.disk_delay))
    timeout = max(member.election_seconds for member in world.members.values())
    start = world.now
    while world.now < start + HEALED_TIMEOUTS_MAX * timeout:
        goal = len(world.checker.committed) + 1
        world.propose()
        if world.run_until(world.now + timeout / 4, partial(_works, world, goal)):
            return (world.now - start) / timeout
    if _is_wedged(world):
        raise Wedged
    raise Broken(f"no progress within {HEALED_TIMEOUTS_MAX} election timeouts after healing")


def _heal(world: World) -> None:
    """End all faults and bring everybody back, even those that know of their removal.

    A removal takes effect when applied, so the vote of a member that stopped on its own
    removal may still be needed; the others tell it to stop once they know.
    """
    world.note("healed")
    world.healed = True
    world.cut.clear()
    for member in world.members.values():
        if member.node is None:
            world.start(member)


def _works(world: World, goal: int) -> bool:
    """Whether the newest leader's whole configuration applied entry `goal`."""
    leaders = world.leaders()
    if not leaders or leaders[-1].node is None:
        return False
    membership = core_of(leaders[-1].node).membership
    members = [world.members[id] for id in membership.voters + membership.learners]
    return leaders[-1] in members and all(
        member.node is not None and member.applied >= goal for member in members
    )


def _is_wedged(world: World) -> bool:
    """Whether somebody still counts on a member that applied its own removal and left.

    Changes take effect when applied, as in etcd. If the last leader of the old configuration
    commits its own removal and dies before anybody else hears of the commit, the others go on
    waiting for its vote. Drivers make it rare: they hand over before removing a leader, and a
    removed leader goes on for a while.
    """
    gone = [member.id for member in world.members.values() if member.id in member.removed]
    return any(
        id in core_of(member.node).membership
        for member in world.members.values()
        if member.node is not None and member.id not in member.removed
        for id in gone
    )
