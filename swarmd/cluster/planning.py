"""The contract of every control loop: look at the state, return a plan.

A planner decides and never acts. It gets a view, the key to look at and the moment, and
returns the changes it wants; one shared runner (`manager/reconciler.py`) watches, batches,
commits and retries for all planners. Events only say which key to look at again.

Two properties hold for every planner and are tested for each: planning twice on the same
view gives the same plan, and replanning on the result soon gives an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from swarmd.base.errors import Conflict, InvariantViolation
from swarmd.base.limits import changes_per_entry_max
from swarmd.cluster.store import Event, Object, Transaction, View

Key: TypeAlias = str

QUIET_SECONDS = 0.05
BURST_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Create:
    """Add this object."""

    object: Object


@dataclass(frozen=True, slots=True)
class Update:
    """Replace an object by this one; its `meta.version` is the version that was read."""

    object: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object, if it still has the version that was read."""

    kind: type[Object]
    id: str
    version: int


Change: TypeAlias = Create | Update | Delete


class Effect:
    """Something to do outside the store, after the plan's changes are committed.

    Concrete effects are frozen dataclasses and idempotent: a crash may repeat one. The
    runner finds the doer by the effect's type.
    """


def no_chance(size: int) -> bytes:
    """The `token` of a moment that was made without one."""
    raise InvariantViolation(f"this moment offers no chance ({size} bytes were asked for)")


@dataclass(frozen=True, slots=True)
class Moment:
    """Time, chance and memory, handed to a plan.

    `now` is wall seconds. `new_id` and `token` are seeded in tests and simulation. `memo` is
    what this planner returned last time for this key under this leadership; None is always a
    safe start.
    """

    now: float
    new_id: Callable[[], str]
    memo: object | None = None
    token: Callable[[int], bytes] = no_chance


@dataclass(frozen=True, slots=True)
class Plan:
    """What a planner wants. At most `changes_per_entry_max` changes: they go in one entry.

    `wake_at` is wall seconds: look at this key again then. `reason` is for logs.
    """

    changes: tuple[Change, ...] = ()
    effects: tuple[Effect, ...] = ()
    wake_at: float | None = None
    memo: object | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if len(self.changes) > changes_per_entry_max:
            raise InvariantViolation(
                f"a plan has {len(self.changes)} changes, at most {changes_per_entry_max} fit"
            )

    @property
    def acts(self) -> bool:
        """True when the plan changes anything, inside the store or outside."""
        return bool(self.changes or self.effects)


class Planner(Protocol):
    """One control loop. Explicit subclasses inherit the default for `quiet_seconds`."""

    name: str
    quiet_seconds: float = QUIET_SECONDS
    """How long events must pause before planning; 0 means on the next turn of the loop."""

    def all_keys(self, view: View) -> Iterable[Key]:
        """Every key worth a look, in a fixed order; asked at the start and after a restore."""
        ...

    def keys_for(self, event: Event, view: View) -> Iterable[Key]:
        """The keys to look at again because of an event; `view` is the state after it."""
        ...

    def plan(self, view: View, key: Key, moment: Moment) -> Plan:
        """Decide for one key. Must not change anything it reads."""
        ...


def make(changes: Iterable[Change], tx: Transaction) -> None:
    """Make a plan's changes in a transaction.

    Raises Conflict when an object moved on since it was planned, or what the store raises.
    """
    for change in changes:
        match change:
            case Create(obj):
                tx.create(obj)
            case Update(obj):
                tx.update(obj)
            case Delete(kind, id, version):
                held = tx.get(kind, id)
                if held is not None and held.meta.version.index != version:
                    raise Conflict
                tx.delete(kind, id)
