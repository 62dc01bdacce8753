"""/networks: the cluster's and the local engine's, as one.

Swarm-scoped ones are created and removed through Control; everything else is the engine's. Where
both know a network (an overlay in use here) the engine's view wins on inspection, since it shows
containers and peers, and the cluster's in lists (moby network_routes.go).
"""

from __future__ import annotations

import logging
import re
from typing import Any

from aiohttp import web

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.faces.engineapi import texts
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context, why_no_manager
from swarmd.faces.engineapi.convert.common import Json
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.network import (
    check_place,
    check_subnets,
    is_ingress,
    is_predefined,
    network_json,
    network_spec,
)
from swarmd.faces.engineapi.engine import EngineLink
from swarmd.faces.engineapi.errors import (
    Refusal,
    bad_request,
    not_found,
    rpc_text,
    unavailable,
)
from swarmd.faces.engineapi.filters import NETWORK_PRUNE_KEYS, Filters, NetworkFilter
from swarmd.faces.engineapi.lookups import NETWORK, find
from swarmd.faces.engineapi.routes import Table
from swarmd.faces.engineapi.timestamps import moment_nanos
from swarmd.faces.http.refusal import Unreachable
from swarmd.faces.http.relay import relay

logger = logging.getLogger("engineapi")

_PREDEFINED_NAMES = frozenset({"bridge", "host", "none", "default"})
_IN_USE = re.compile(r"network [0-9A-Za-z]+ is in use")


async def list_networks(context: Context, call: Call) -> web.StreamResponse:
    """The cluster's networks, if a manager answers, and the engine's others."""
    wanted = NetworkFilter(call.filters())
    out = [
        network_json(network, call.version, listed=True)
        for network in await _cluster_networks(context)
        if wanted.includes(network)
    ]
    if context.engine is not None:
        known = {network["Id"] for network in out}
        try:
            local = await context.engine.get_json(call.request.raw_path)
        except Unreachable:  # as elsewhere, the swarm's part is shown without the engine
            local = []
        out += [network for network in local or [] if network["Id"] not in known]
    return call.replies.json(out)


async def _cluster_networks(context: Context) -> list[api.Network]:
    # A node that cannot ask a manager still lists what it has itself.
    try:
        reply = await context.ask("Control/ListNetworks", api.ListNetworksRequest())
    except (SwarmError, Refusal):
        return []
    return [network for network in reply.networks if not is_predefined(network)]


async def _local_networks(engine: EngineLink | None) -> list[Json]:
    if engine is None:
        return []
    try:
        found: list[Json] = await engine.get_json("/networks") or []
    except Refusal:
        return []
    return found


async def inspect(context: Context, call: Call) -> web.StreamResponse:
    """One network by id, name or id prefix, over both scopes."""
    call.checked_flag("verbose")
    scope = call.query.get("scope", "")
    term = call.ident
    local = [
        network
        for network in await _local_networks(context.engine)
        if not scope or network.get("Scope") == scope
    ]
    local_ids = {network["Id"] for network in local}
    if term in local_ids:
        return await _local(context, call, term)
    found = await _cluster_match(context, term)
    if found is not None and (found.id.startswith(term) or scope == "swarm"):
        chosen: str | api.Network = found.id if found.id in local_ids else found
    else:
        cluster = {network.id: network for network in await _cluster_networks(context)}
        if scope not in ("", "swarm"):
            cluster = {}
        names = {network["Id"]: str(network["Name"]) for network in local}
        names |= {key: network.spec.annotations.name for key, network in cluster.items()}
        id = _unique(
            names, term, "network {term} is ambiguous: {count} matches found based on {by}"
        )
        chosen = id if id in local_ids else cluster[id]
    if isinstance(chosen, str):
        return await _local(context, call, chosen)
    return call.replies.json(network_json(chosen, call.version))


async def _cluster_match(context: Context, term: str) -> api.Network | None:
    try:
        return await find(context.control(), NETWORK, term)
    except (SwarmError, Refusal):
        return None


def _unique(names: dict[str, str], term: str, ambiguous: str) -> str:
    """The one id meant by `term`: by full name first, then by id prefix."""
    if term in names:
        return term
    by_name = [id for id, name in names.items() if name == term]
    by_prefix = [id for id in names if id.startswith(term)]
    for matches, by in ((by_name, "name"), (by_prefix, "ID prefix")):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise bad_request(ambiguous.format(term=term, count=len(matches), by=by))
    raise not_found(f"network {term} not found")


async def _local(context: Context, call: Call, id: str) -> web.StreamResponse:
    """The engine's own answer about one of its networks."""
    if context.engine is None:
        raise not_found(f"network {call.ident} not found")
    query = f"?{call.query_text}" if call.query_text else ""
    target = f"/v{call.version[0]}.{call.version[1]}/networks/{id}{query}"
    return call.replies.json(await context.engine.get_json(target))


async def create(context: Context, call: Call) -> web.StreamResponse:
    """Create in the cluster when the driver or scope says so, else on the engine."""
    call.old_json_check()
    fields = await call.fields("types.NetworkCreateRequest")
    name = fields.text("Name")
    if await _name_taken(context, name):
        raise Refusal(409, f"network with name {name} already exists")
    if not _is_swarm_scoped(fields):
        if context.engine is None:
            raise unavailable(texts.NO_ENGINE)
        return await relay(call.request, context.engine, await call.body())
    await _check_create(context, fields, name)
    spec = network_spec(fields)
    reply = await context.ask("Control/CreateNetwork", api.CreateNetworkRequest(spec=spec))
    return call.replies.json({"Id": reply.network.id, "Warning": ""}, 201)


async def _name_taken(context: Context, name: str) -> bool:
    request = api.ListNetworksRequest(filters=api.ListNetworksRequest.Filters(names=[name]))
    try:
        reply = await context.ask("Control/ListNetworks", request)
    except (SwarmError, Refusal):
        return False
    return bool(reply.networks)


def _is_swarm_scoped(fields: Fields) -> bool:
    # One that only lends its configuration is a node's own, whatever else it says.
    if fields.flag("ConfigOnly"):
        return False
    return fields.text("Driver") == "overlay" or fields.text("Scope") == "swarm"


async def _check_create(context: Context, fields: Fields, name: str) -> None:
    """What a stock engine checks itself before it asks a manager, in its order."""
    if name in _PREDEFINED_NAMES:
        raise Refusal(403, f"operation is not permitted on predefined {name} network ")
    if any(network["Name"] == name for network in await _local_networks(context.engine)):
        raise Refusal(409, f"network with name {name} already exists")
    check_subnets(fields)
    check_place(fields)
    local = context.backend.local()
    if local.control_available:
        return
    if local.state == "active" and not local.is_manager:
        raise Refusal(403, texts.WORKER_NETWORK_CREATE)
    # Not in a swarm: stock answers 500 here, unlike everywhere else [M].
    refusal = why_no_manager(local)
    raise Refusal(500, refusal.message)


async def remove(context: Context, call: Call) -> web.StreamResponse:
    """Remove from the cluster or from the engine, wherever the one match is."""
    local = await _local_networks(context.engine)
    cluster = await _cluster_networks(context)
    names = {
        network["Id"]: str(network["Name"])
        for network in local
        # Never the engine's copy of the routing mesh by name.
        if network["Id"].startswith(call.ident) or not network.get("Ingress")
    }
    names |= {network.id: network.spec.annotations.name for network in cluster}
    ambiguous = "network {term} is ambiguous ({count} matches found based on {by})"
    id = _unique(names, call.ident, ambiguous)
    scopes = {network["Id"]: network.get("Scope") for network in local}
    if id in scopes and scopes[id] != "swarm":
        if context.engine is None:
            raise not_found(f"network {call.ident} not found")
        return await relay(call.request, context.engine)
    request = api.RemoveNetworkRequest(network_id=id)
    await context.ask("Control/RemoveNetwork", request)
    return call.replies.empty(204)


async def prune(context: Context, call: Call) -> web.StreamResponse:
    """Remove what nothing uses, in the cluster (if a manager is here) and on the engine."""
    filters = call.filters()
    filters.check(NETWORK_PRUNE_KEYS)
    deleted: list[str] = []
    if context.engine is not None:
        head, data = await context.engine.call("POST", call.request.raw_path)
        report: Any = context.engine.decode(head, data) or {}
        deleted += report.get("NetworksDeleted") or []
    if context.backend.local().control_available:
        deleted += await _prune_cluster(context, filters, _until(context, filters))
    return call.replies.json({"NetworksDeleted": deleted or None})


def _until(context: Context, filters: Filters) -> int | None:
    values = filters.get("until")
    if len(values) > 1:
        raise bad_request("more than one until filter specified")
    try:
        return moment_nanos(values[0], context.clock.now()) if values else None
    except ValueError as error:
        raise bad_request(f"failed to parse value as time or duration: {error}") from None


def _prunable(network: api.Network, filters: Filters, until: int | None) -> bool:
    # The routing mesh goes only when it is named.
    if is_ingress(network):
        return False
    created = network.meta.created_at
    if until is not None and created.seconds * 1_000_000_000 + created.nanos > until:
        return False
    labels = network.spec.annotations.labels
    if "label!" in filters and filters.has_labels("label!", labels):
        return False
    return filters.has_labels("label", labels)


async def _prune_cluster(context: Context, filters: Filters, until: int | None) -> list[str]:
    out: list[str] = []
    for network in await _cluster_networks(context):
        if not _prunable(network, filters, until):
            continue
        try:
            request = api.RemoveNetworkRequest(network_id=network.id)
            await context.ask("Control/RemoveNetwork", request)
        except SwarmError as error:
            # Trying is the only way to know: use elsewhere is not visible from here.
            if not _IN_USE.search(error.message):
                logger.warning("network %s not pruned: %s", network.id, rpc_text(error))
            continue
        out.append(network.spec.annotations.name)
    return out


ROUTES: Table = {
    ("GET", "/networks"): list_networks,
    ("GET", "/networks/*"): inspect,
    ("POST", "/networks/create"): create,
    ("POST", "/networks/prune"): prune,
    ("DELETE", "/networks/*"): remove,
}
