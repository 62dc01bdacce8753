"""The allocator as a planner: one key, so that no two plans hand out the same thing."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from swarmd import api
from swarmd.base.limits import batch_bytes_max, changes_per_entry_max, entry_bytes_max
from swarmd.cluster.allocator.ipam import CannotAllocate
from swarmd.cluster.allocator.ledger import Cursors, Desk, Ledger
from swarmd.cluster.allocator.networks import (
    allocate,
    ingress_of,
    is_ingress,
    pools_of,
    unallocated,
)
from swarmd.cluster.allocator.nodes import attach, wanted_networks
from swarmd.cluster.model.states import holds_resources
from swarmd.cluster.planning import Change, Key, Moment, Plan, Planner, Update
from swarmd.cluster.store import Action, Event, View

log = logging.getLogger(__name__)

KEY = "cluster"
RETRY_SECONDS = 300.0
# A plan goes into one entry, whose other half is for what others write. One object may be
# larger and goes alone; what would not fit even so must not hold up the rest for ever.
plan_bytes_max = batch_bytes_max // 2
object_bytes_max = entry_bytes_max - 512


class Allocator(Planner):
    """Owns the allocation fields of networks and nodes.

    What it keeps between plans is only a sum over the stored objects, brought up to date by
    the events it is shown and made anew whenever the state is not the one it knows: the
    ledger, and the nodes that may need something (`suspects`, always a superset). Where
    handing out goes on is the memo.
    """

    name = "allocator"
    quiet_seconds = 0.0

    def __init__(self) -> None:
        self._stamp: object = None
        self._ledger = Ledger()
        self._suspects: dict[str, None] = {}

    def all_keys(self, view: View) -> Iterable[Key]:
        """The one key."""
        self._rebuild(view)
        return [KEY]

    def keys_for(self, event: Event, view: View) -> Iterable[Key]:
        """The one key, when what somebody holds or needs has changed.

        Every event since `all_keys` must be shown, in order, before the next plan.
        """
        if self._stamp is None:
            return self.all_keys(view)
        self._stamp = view.stamp
        if not _matters(event):
            return []
        obj = event.object
        if event.action is Action.DELETE:
            self._ledger.strike(obj)
        else:
            self._ledger.enter(obj)
        self._suspect(event, view)
        return [KEY]

    def plan(self, view: View, key: Key, moment: Moment) -> Plan:
        """Allocate networks; once all are, attach nodes.

        Nodes wait for an entry of their own because they carry copies of the networks as
        stored, metadata included.
        """
        if self._stamp is not view.stamp:
            self._rebuild(view)
        cursors = moment.memo if isinstance(moment.memo, Cursors) else Cursors()
        desk = Desk(self._ledger, cursors)
        failures: dict[str, str] = {}
        changes: list[Change] = self._networks(view, desk, failures)
        if changes:  # nodes wait; what they lacked is not news when they come up again
            failures.update((id, t) for id, t in cursors.failures.items() if id in self._suspects)
        else:
            changes = self._nodes(view, desk, failures)
        for id, text in failures.items():
            if cursors.failures.get(id) != text:
                log.warning("cannot allocate for %s: %s", id, text)
        return Plan(
            changes=tuple(changes),
            wake_at=moment.now + RETRY_SECONDS if failures else None,
            memo=desk.cursors(failures),
            reason="networks or nodes wait for addresses",
        )

    def _networks(self, view: View, desk: Desk, failures: dict[str, str]) -> list[Change]:
        pools, bits = pools_of(view.cluster())
        portion = _Portion()
        for network in unallocated(view):
            try:
                if not portion.add(allocate(network, desk, pools, bits)):
                    break
            except CannotAllocate as error:
                failures[network.id] = str(error)
        return portion.changes

    def _nodes(self, view: View, desk: Desk, failures: dict[str, str]) -> list[Change]:
        portion = _Portion()
        ingress = ingress_of(view)
        for id in sorted(self._suspects):
            node = view.get(api.Node, id)
            draft, trouble = None, ""
            if node is not None:
                draft, trouble = attach(node, wanted_networks(view, id, ingress), desk)
            try:
                if draft is not None and not portion.add(draft):
                    break
            except CannotAllocate as error:
                trouble = str(error)
            if trouble:
                failures[id] = trouble
            elif draft is None:
                del self._suspects[id]
        return portion.changes

    def _suspect(self, event: Event, view: View) -> None:
        """Note the nodes that may need another look because of an event."""
        obj = event.object
        ids: list[str] = []
        if isinstance(obj, api.Node):
            ids = [obj.id]
        elif isinstance(obj, api.Task):
            ids = [obj.node_id]
            if isinstance(event.old, api.Task):
                ids.append(event.old.node_id)
        elif isinstance(obj, api.Network) and is_ingress(obj):
            ids = [node.id for node in view.all(api.Node)]
        elif isinstance(obj, api.Network):
            ids = [node.id for node in view.by(api.Node, "attachment", obj.id)]
            ids += [task.node_id for task in view.by(api.Task, "attachment", obj.id)]
        self._suspects.update((id, None) for id in ids if id)

    def _rebuild(self, view: View) -> None:
        self._ledger = Ledger.of(view)
        self._suspects = {node.id: None for node in view.all(api.Node)}
        self._stamp = view.stamp


class _Portion:
    """The changes of one plan: as many as fit into an entry."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._bytes = 0

    def add(self, draft: api.Network | api.Node) -> bool:
        """Take one more; False when it has to wait for the next plan. Raises CannotAllocate."""
        size = draft.ByteSize()
        if size > object_bytes_max:
            raise CannotAllocate(f"the object, of {size} bytes, is too large to be written")
        full = len(self.changes) == changes_per_entry_max or self._bytes + size > plan_bytes_max
        if self.changes and full:
            return False
        self.changes.append(Update(draft))
        self._bytes += size
        return True


_CONCERNED = (api.Network, api.Node, api.Task, api.Service)


def _matters(event: Event) -> bool:
    """True when an event changes what somebody holds or needs."""
    new, old = event.object, event.old
    if not isinstance(new, _CONCERNED):
        return False
    if event.action is Action.UPDATE:
        if isinstance(new, api.Node) and isinstance(old, api.Node):
            return old.attachments != new.attachments
        if isinstance(new, api.Task) and isinstance(old, api.Task):
            same_place = old.node_id == new.node_id and old.networks == new.networks
            return not same_place or holds_resources(old) != holds_resources(new)
        if isinstance(new, api.Service) and isinstance(old, api.Service):
            return old.endpoint.virtual_ips != new.endpoint.virtual_ips
    elif isinstance(new, api.Task):
        return bool(new.networks)
    elif isinstance(new, api.Service):
        return bool(new.endpoint.virtual_ips)
    return True
