"""Gives nodes an address in each overlay network their tasks use, and in ingress.

It is the address of the node's load balancer there (BEHAVIOUR 3.6). Every node has one in
ingress; others come and go with tasks.
"""

from __future__ import annotations

from swarmd import api
from swarmd.cluster.allocator.ipam import CannotAllocate
from swarmd.cluster.allocator.ledger import Desk, is_allocated, is_overlay
from swarmd.cluster.model.states import holds_resources
from swarmd.cluster.store import View, edit


def wanted_networks(view: View, node_id: str, ingress: api.Network | None) -> list[api.Network]:
    """The allocated overlay networks a node needs: those of its tasks, then ingress."""
    ids: dict[str, None] = {}
    for task in view.by(api.Task, "node", node_id):
        if holds_resources(task):
            ids.update((attachment.network.id, None) for attachment in task.networks)
    if ingress is not None:
        ids.pop(ingress.id, None)
        ids[ingress.id] = None
    found = (view.get(api.Network, id) for id in ids)
    return [n for n in found if n is not None and is_allocated(n) and is_overlay(n)]


def attach(node: api.Node, wanted: list[api.Network], desk: Desk) -> tuple[api.Node | None, str]:
    """The node with the attachments it should have, or None when it has them already.

    Attachments keep their place and address; new ones come last. The text tells what could
    not be given, if anything; entries without an address are never made, engines refuse them.
    """
    needed = {network.id: network for network in wanted}
    kept = [a for a in node.attachments if a.network.id in needed and a.addresses]
    have = {attachment.network.id for attachment in kept}
    added, trouble = [], ""
    for id, network in needed.items():
        if id in have:
            continue
        try:
            address = desk.any_address(id)
        except CannotAllocate as error:
            trouble = str(error)
            continue
        attachment = api.NetworkAttachment(addresses=[address])
        attachment.network.CopyFrom(network)
        added.append(attachment)
    if not added and len(kept) == len(node.attachments):
        return None, trouble
    draft = edit(node)
    del draft.attachments[:]
    draft.attachments.extend([*kept, *added])
    return draft, trouble
