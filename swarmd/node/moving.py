"""Being known by another address: what stands against it, and following it once it is so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from swarmd import api
from swarmd.base.errors import FailedPrecondition, SwarmError
from swarmd.manager.manager import Manager

log = logging.getLogger(__name__)

names_shown_max = 5


def demand_found(manager: Manager, node_id: str, addr: str) -> None:
    """Refuse what would make nodes lose a sole manager.

    A connected node is told the new address; one that is not knows the old address only, and
    no other manager to ask. Raises `FailedPrecondition`, which names them.
    """
    lost = left_behind(manager, node_id)
    if not lost:
        return
    names = ", ".join(lost[:names_shown_max]) + (", ..." if len(lost) > names_shown_max else "")
    raise FailedPrecondition(
        f"This is the only manager, and {len(lost)} node(s) that are not connected now know it by "
        f"its present address alone: {names}. They will not find it at {addr} and have to leave "
        "and join again. Use `--force` to change the address all the same."
    )


def left_behind(manager: Manager, node_id: str) -> list[str]:
    """Host names (or ids) of the nodes that a sole manager cannot tell of its new address."""
    if len(manager.raft.members()) > 1:
        return []
    nodes = manager.store.view().all(api.Node)
    ready = api.NodeStatus.State.READY
    return sorted(
        node.description.hostname or node.id
        for node in nodes
        if node.id != node_id and node.status.state != ready
    )


async def follow_address(
    manager: Manager, moved: Callable[[], None], settled: Callable[[], Awaitable[None]]
) -> None:
    """Until cancelled: call `moved` after the manager became known by another address, and
    `settled` (at once too) while it is known by the one it should be known by."""
    changed = asyncio.Event()
    unsubscribe = manager.raft.subscribe(changed.set)
    known = manager.address.known
    try:
        while True:
            if manager.address.settled:
                await _remember(settled)
            await changed.wait()
            changed.clear()
            now = manager.address.known
            if now and now != known:
                known = now
                moved()
    finally:
        unsubscribe()


async def _remember(settled: Callable[[], Awaitable[None]]) -> None:
    try:
        await settled()
    except (SwarmError, OSError) as error:
        log.warning("the address of this manager could not be written down: %s", error)
