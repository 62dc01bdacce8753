"""Turns a node's desired role into its role, keeping Raft's membership in step.

Mirrors the reference (PROTOCOL 2.4, 2.5). A promotion is written at once; the node then
renews its certificate and joins. A demotion first takes the member out of Raft, if the rest
keeps a quorum, and only then writes the role. A leader that is demoted hands leadership over
and leaves the rest to its successor. Members whose node object is gone are taken out too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarmd import api
from swarmd.cluster.planning import Effect, Key, Moment, Plan, Planner, Update
from swarmd.cluster.store import Action, Event, View, edit

RETRY_SECONDS = 5.0


class Member(Protocol):
    """What is needed to know of a Raft member; `manager.raftnode.Member` is one."""

    @property
    def node_id(self) -> str:
        """The node it runs on."""
        ...

    @property
    def leader(self) -> bool:
        """True for the leader, which is where this planner runs."""
        ...

    @property
    def reachable(self) -> bool:
        """True when the leader can talk to it."""
        ...


@dataclass(frozen=True, slots=True)
class RemoveRaftMember(Effect):
    """Propose that this node's member leaves Raft; nothing to do if it is not one.

    The doer checks the quorum once more and bounds the wait (5 s in the reference).
    """

    node_id: str


@dataclass(frozen=True, slots=True)
class TransferLeadership(Effect):
    """Hand leadership to another member; `node_id` is ours. Raise if that fails."""

    node_id: str


@dataclass(frozen=True, slots=True)
class _Tried:
    """Memo: leadership was to be handed over; if we still lead, the member goes anyway."""


class RoleManager(Planner):
    """Owns `Node.role` and Raft's membership. A key is a node id.

    `members` tells Raft's current members. It is not part of the store, so whoever wires
    this should have the runner look again when membership changes; until then a retry every
    5 s finds out.
    """

    name = "rolemanager"
    quiet_seconds = 0.0

    def __init__(self, members: Callable[[], Sequence[Member]]) -> None:
        self._members = members

    def all_keys(self, view: View) -> Iterable[Key]:
        """All nodes, then the members that have no node object."""
        nodes = [node.id for node in view.all(api.Node)]
        orphans = {member.node_id for member in self._members()}.difference(nodes)
        return [*nodes, *sorted(orphans)]

    def keys_for(self, event: Event, view: View) -> Iterable[Key]:
        """A node whose roles differ, or that is gone."""
        node = event.object
        if not isinstance(node, api.Node):
            return []
        settled = node.role == node.spec.desired_role
        return [] if settled and event.action is not Action.DELETE else [node.id]

    def plan(self, view: View, key: Key, moment: Moment) -> Plan:
        """One step towards the desired role."""
        node = view.get(api.Node, key)
        if node is None:
            return self._evict(key, moment)
        if node.role == node.spec.desired_role:
            return Plan()
        if node.spec.desired_role == api.NodeRole.MANAGER:
            return _set_role(node, api.NodeRole.MANAGER)
        if self._member(key) is None:
            return _set_role(node, api.NodeRole.WORKER)
        return self._evict(key, moment)

    def _evict(self, node_id: str, moment: Moment) -> Plan:
        """Take a node's member out of Raft, or wait until that is safe."""
        member = self._member(node_id)
        if member is None:
            return Plan()
        again = moment.now + RETRY_SECONDS
        if not can_remove(self._members(), node_id):
            return Plan(wake_at=again, memo=moment.memo)
        if member.leader and not isinstance(moment.memo, _Tried):
            return Plan(
                effects=(TransferLeadership(node_id),),
                wake_at=again,
                memo=_Tried(),
                reason="demoted; handing leadership over",
            )
        return Plan(
            effects=(RemoveRaftMember(node_id),),
            wake_at=again,
            memo=moment.memo,
            reason="no longer a manager; leaving raft",
        )

    def _member(self, node_id: str) -> Member | None:
        found = (member for member in self._members() if member.node_id == node_id)
        return next(found, None)


def can_remove(members: Sequence[Member], node_id: str) -> bool:
    """True when a quorum is left without this member.

    Of n members, at least (n-1)//2 + 1 others must be reachable; the leader, where this runs,
    reaches itself (PROTOCOL 2.5).
    """
    others = [member for member in members if member.node_id != node_id]
    reachable = sum(1 for member in others if member.leader or member.reachable)
    return reachable >= (len(members) - 1) // 2 + 1


def _set_role(node: api.Node, role: api.NodeRole) -> Plan:
    draft = edit(node)
    draft.role = role
    word = "promoted" if role == api.NodeRole.MANAGER else "demoted"
    return Plan(changes=(Update(draft),), reason=word)
