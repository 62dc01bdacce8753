"""Ours alone, beside the stock paths: the address a manager is known by, shown and changed."""

from __future__ import annotations

from aiohttp import web

from swarmd.base.errors import SwarmError
from swarmd.faces.engineapi import addresses
from swarmd.faces.engineapi.addresses import Resolved, Surroundings
from swarmd.faces.engineapi.backend import MoveRequest
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context, why_no_manager
from swarmd.faces.engineapi.errors import Refusal, plain
from swarmd.faces.engineapi.routes import Table
from swarmd.faces.engineapi.routes.swarm import engine_subnets


async def show(context: Context, call: Call) -> web.StreamResponse:
    """What the other managers know this one by, and where it listens."""
    return call.replies.json(_json(_known(context)))


async def update(context: Context, call: Call) -> web.StreamResponse:
    """Change both; the answer is what holds from now on, and what to think of."""
    fields = await call.fields("AddressUpdate")
    known = _known(context)
    around = Surroundings(context.interfaces(), await engine_subnets(context))
    wanted = addresses.resolve_update(
        fields.text("AdvertiseAddr"), fields.text("ListenAddr"), known, around
    )
    try:
        await context.backend.move(MoveRequest(wanted, force=fields.flag("Force")))
    except SwarmError as error:
        raise plain(error) from error
    context.events.poke()
    answer = _json(wanted)
    answer["PreviousAddr"] = known.advertise
    answer["Warnings"] = _warnings(context.default_advertise, wanted, around)
    return call.replies.json(answer)


def _known(context: Context) -> Resolved:
    local = context.backend.local()
    if not local.control_available:
        raise why_no_manager(local)
    try:
        return context.backend.addresses()
    except SwarmError as error:
        raise plain(error) from error


def _json(now: Resolved) -> dict[str, object]:
    return {"AdvertiseAddr": now.advertise, "ListenAddr": now.listen}


def _warnings(option: str, now: Resolved, around: Surroundings) -> list[str]:
    if not option:
        return []
    try:
        at_start = addresses.resolve_update(option, "", now, around).advertise
    except Refusal:
        at_start = ""
    if at_start == now.advertise:
        return []
    return [
        f"This daemon is started with --advertise-addr {option}: unless that is changed too, "
        "the next start takes it for the address again."
    ]


ROUTES: Table = {
    ("GET", "/swarmd/address"): show,
    ("POST", "/swarmd/address"): update,
}
