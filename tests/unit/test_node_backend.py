"""What the REST face is told of a node that is on its way: is there a manager?"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.daemon.backend import NodeBackend
from swarmd.faces.engineapi import texts
from swarmd.faces.engineapi.context import why_no_manager
from swarmd.node.statedir import NodeSettings
from swarmd.node.swarm import Place


def node(
    place: Place, *, is_manager: bool, alive: bool, manager: bool, expired: bool = False
) -> Any:
    """A node with a life (`alive`) or without, with a manager that is not ready or without."""
    address = SimpleNamespace(known="", trouble="")
    running = SimpleNamespace(address=address, ready=asyncio.Event()) if manager else None
    membership = SimpleNamespace(
        manager=running,
        identity=SimpleNamespace(node_id="id"),
        managers=list,
        expired=expired,
    )
    return SimpleNamespace(
        place=place,
        error="",
        settings=NodeSettings(),
        is_manager=is_manager,
        membership=membership if alive else None,
    )


@pytest.mark.parametrize(
    ("place", "is_manager", "alive", "manager", "text"),
    [
        (Place.PENDING, True, False, False, texts.MANAGER_PREPARING),
        (Place.PENDING, True, True, False, texts.MANAGER_PREPARING),
        (Place.PENDING, True, True, True, texts.MANAGER_PREPARING),
        (Place.ERROR, True, False, False, texts.MANAGER_PREPARING),
        (Place.ERROR, True, True, False, texts.MANAGER_PREPARING),
        (Place.ACTIVE, True, True, True, texts.MANAGER_PREPARING),
        # Promoted a moment ago: it works as the worker it was.
        (Place.ACTIVE, True, True, False, texts.WORKER_MANAGER_CALL),
        (Place.ACTIVE, False, True, False, texts.WORKER_MANAGER_CALL),
        (Place.LOCKED, True, False, False, texts.LOCKED),
        (Place.INACTIVE, False, False, False, texts.NOT_IN_SWARM_MANAGER_CALL),
    ],
)
def test_what_is_said_of_manager_calls(
    place: Place, is_manager: bool, alive: bool, manager: bool, text: str
) -> None:
    made = node(place, is_manager=is_manager, alive=alive, manager=manager)
    local = NodeBackend(made).local()
    assert not local.control_available
    assert why_no_manager(local).message == text


@pytest.mark.parametrize(
    ("place", "manager", "told"),
    [
        (Place.PENDING, False, True),
        (Place.ACTIVE, False, False),  # it expired in use: its session goes on for now
        (Place.PENDING, True, False),  # a sole manager renews its own
    ],
)
def test_a_node_that_slept_through_its_certificate_says_so(
    place: Place, manager: bool, told: bool
) -> None:
    made = node(place, is_manager=manager, alive=True, manager=manager, expired=True)
    local = NodeBackend(made).local()
    assert local.certificates_expired is told
    assert (local.state, local.error) == (
        ("error", texts.CERTIFICATES_EXPIRED) if told else (place.value, "")
    )
    if told:
        assert why_no_manager(local).message == texts.CERTIFICATES_EXPIRED
