"""What goes wrong: crashes, cuts, pauses, churn, false alarms; one draw after the other."""

from __future__ import annotations

from functools import partial

from swarmd.api import raftpb
from tests.harness.raft_member import Kind, Member
from tests.harness.raft_world import World

MEMBERS_MAX = 7


class Faults:
    """Does something nasty every few ticks until the world is healed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance
        self._kinds = (
            (4, self._crash),
            (8, self._restart),
            (3, self._cut_one),
            (2, self._cut_half),
            (3, self._cut_one_way),
            (10, self._mend),
            (2, self._freeze),
            (3, self._add),
            (2, self._remove),
            (1, self._update),
            (4, self._transfer),
            (3, self._campaign),
            (2, self._retime),
            (3, self._promote),
            (1, self._stick),
        )

    def begin(self) -> None:
        """Schedule the first fault and the clients."""
        self._next()
        self.world.after(1.0, self._propose)
        self.world.after(1.0, self._read)

    def _propose(self) -> None:
        if not self.world.healed:
            self.world.propose()
            pause = self.chance.expovariate(1 / self.world.weather.propose_every)
            self.world.after(pause, self._propose)

    def _next(self) -> None:
        self.world.after(self.chance.expovariate(1 / self.world.weather.fault_every), self._strike)

    def _strike(self) -> None:
        if self.world.healed:
            return
        weights = [weight for weight, _ in self._kinds]
        self.chance.choices([act for _, act in self._kinds], weights)[0]()
        self._next()

    def _awake(self) -> Member | None:
        """One that would notice what it is asked."""
        member = self._any(up=True)
        return member if member is not None and member.frozen_until <= self.world.now else None

    def _any(self, *, up: bool) -> Member | None:
        found = [m for m in self.world.members.values() if (m.node is not None) == up]
        return self.chance.choice(found) if found else None

    def _crash(self) -> None:
        """Crash one member, often the leader."""
        leaders = self.world.leaders()
        member = self._any(up=True)
        if leaders and self.chance.random() < 0.4:
            member = leaders[-1]
        if member is not None:
            self.world.crash(member)
            if self.chance.random() < 0.8:
                self.world.after(
                    self.chance.uniform(0.1, 2 * self.world.weather.election_ticks),
                    partial(self._back, member),
                )

    def _restart(self) -> None:
        member = self._any(up=False)
        if member is not None:
            self._back(member)

    def _back(self, member: Member) -> None:
        """Bring a member back, unless it knows that it was removed."""
        if member.node is None and not self.world.healed and member.id not in member.removed:
            if self.chance.random() < 0.2 and member.kind is not Kind.BARE:
                member.kind = member.kind.other
                self.world.tally["came back as the other kind"] += 1
            self.world.start(member)

    def _cut_one(self) -> None:
        """Isolate one member both ways; now and then the leader, which hurts most."""
        leaders = self.world.leaders()
        member = self._any(up=True)
        if leaders and self.chance.random() < 0.5:
            member = leaders[-1]
        if member is not None:
            self._cut([member.id])

    def _cut_half(self) -> None:
        """Split the members, often so that the leader keeps one follower of many."""
        ids = list(self.world.members)
        leaders = self.world.leaders()
        if leaders and self.chance.random() < 0.5:
            self._cut(sorted({leaders[-1].id, self.chance.choice(ids)}))
        else:
            self._cut([id for id in ids if self.chance.random() < 0.5])

    def _cut(self, ids: list[int]) -> None:
        if self.chance.random() < 0.6:
            self.world.cut.clear()
        self.world.note("cut off", ids)
        self.world.tally["cut both ways"] += 1
        for id in ids:
            for other in self.world.members:
                if other not in ids:
                    self.world.cut.update(((id, other), (other, id)))

    def _cut_one_way(self) -> None:
        ids = list(self.world.members)
        if len(ids) > 1:
            self.world.tally["cut one way"] += 1
            for _ in range(self.chance.randint(1, len(ids))):
                pair = tuple(self.chance.sample(ids, 2))
                self.world.note("cut", pair)
                self.world.cut.add((pair[0], pair[1]))

    def _mend(self) -> None:
        self.world.note("mend")
        self.world.tally["mended"] += bool(self.world.cut)
        self.world.cut.clear()

    def _freeze(self) -> None:
        member = self._any(up=True)
        if member is not None:
            member.frozen_until = self.world.now + self.chance.uniform(
                1, 2.5 * self.world.weather.election_ticks
            )
            self.world.tally["pause"] += 1
            self.world.note("freeze", member.id, "until", round(member.frozen_until, 2))

    def _add(self) -> None:
        world = self.world
        if len(world.members) >= MEMBERS_MAX or not world.leaders():
            return
        if self.chance.random() < 0.85:
            kind = raftpb.ConfChangeAddNode
        else:
            kind = raftpb.ConfChangeAddLearnerNode
        world.change(kind, world.join().id)

    def _remove(self) -> None:
        id = self.chance.choice(list(self.world.members))
        self.world.change(raftpb.ConfChangeRemoveNode, id)

    def _update(self) -> None:
        id = self.chance.choice(list(self.world.members))
        self.world.change(raftpb.ConfChangeUpdateNode, id)

    def _transfer(self) -> None:
        """Ask any member, so that forwarding is used as well."""
        member, heir = self._awake(), self._any(up=True)
        if member is not None and heir is not None and member.node is not None:
            self.world.note("transfer", member.id, "to", heir.id)
            member.node.transfer_leadership(heir.id)
            self.world.touched(member)

    def _campaign(self) -> None:
        member = self._awake()
        if member is not None and member.node is not None:
            self.world.note("campaign", member.id)
            self.world.tally["false alarm"] += bool(self.world.leaders())
            member.node.campaign()
            self.world.touched(member)

    def _read(self) -> None:
        """Ask for a read, mostly at leaders, who may be deposed without knowing it."""
        if self.world.healed:
            return
        leaders = self.world.leaders()
        member = self.chance.choice(leaders) if leaders else self._any(up=True)
        if self.chance.random() < 0.3:
            member = self._any(up=True)
        if member is not None:
            self.world.read(member)
        self.world.after(self.chance.expovariate(1 / self.world.weather.read_every), self._read)

    def _retime(self) -> None:
        member = self._any(up=True)
        if member is not None and member.kind is Kind.BARE:
            member.retime(self.chance.choice((3, 5, 6, 10, 14)))
            self.world.note("timers", member.id, member.first_timers)
            self.world.tally["timers changed"] += 1

    def _promote(self) -> None:
        """Make a learner of the newest leader a voter."""
        leaders = self.world.leaders()
        learners = leaders[-1].learners() if leaders else ()
        if learners:
            self.world.change(raftpb.ConfChangeAddNode, self.chance.choice(learners))

    def _stick(self) -> None:
        """Let a disk hang; what needs a sync waits."""
        member = self._any(up=True)
        if member is not None:
            ticks = self.world.weather.election_ticks
            member.stuck_until = self.world.now + self.chance.uniform(0.1, 1.5) * ticks
            self.world.note("disk of", member.id, "hangs until", round(member.stuck_until, 2))
            self.world.tally["disk hung"] += 1
