"""Ours alone, beside the stock paths: backups, restoring, and what recovery would mean.

A backup leaves here in clear, as `base.archive`'s bundle; the command line encrypts it. Who
may call this may read every secret of the cluster anyway.
"""

from __future__ import annotations

from aiohttp import web
from multidict import CIMultiDict

from swarmd.base.errors import SwarmError
from swarmd.faces.engineapi import addresses, texts
from swarmd.faces.engineapi.backend import RestoreRequest
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context, why_no_manager
from swarmd.faces.engineapi.errors import plain, unavailable
from swarmd.faces.engineapi.routes import Table
from swarmd.faces.engineapi.routes.swarm import engine_subnets

MEDIA_TYPE = "application/x-tar"
backup_bytes_max = 4 << 30
_PIECE_BYTES = 1 << 20


async def create(context: Context, call: Call) -> web.StreamResponse:
    """This manager's state; works without a leader too."""
    _refuse_others(context)
    try:
        data = await context.backend.backup()
    except SwarmError as error:
        raise plain(error) from error
    headers = CIMultiDict(call.replies.common)
    headers["Content-Type"] = MEDIA_TYPE
    response = web.StreamResponse(headers=headers)
    response.content_length = len(data)
    await response.prepare(call.request)
    rest = memoryview(data)
    while rest:
        await response.write(rest[:_PIECE_BYTES])
        rest = rest[_PIECE_BYTES:]
    await response.write_eof()
    return response


async def restore(context: Context, call: Call) -> web.StreamResponse:
    """Go on as the only manager of the cluster in the backup that is the body."""
    if context.backend.local().state != "inactive":
        raise unavailable(texts.ALREADY_IN_SWARM)
    around = addresses.Surroundings(
        interfaces=context.interfaces(),
        engine_subnets=await engine_subnets(context),
        default_advertise=context.default_advertise,
    )
    wanted = call.query.get("listenAddr") or addresses.DEFAULT_HOST
    listen = addresses.with_defaults(wanted, "ListenAddr")
    resolved = addresses.resolve_init(listen, call.query.get("advertiseAddr", ""), around)
    data_path = addresses.resolve_data_path(call.query.get("dataPathAddr", ""), around.interfaces)
    request = RestoreRequest(
        data=await call.large_body(backup_bytes_max),
        listen_addr=resolved.listen,
        advertise_addr=resolved.advertise,
        local_addr=resolved.local,
        data_path_addr=data_path,
    )
    try:
        node_id = await context.backend.restore(request)
    except SwarmError as error:
        raise plain(error) from error
    context.events.poke()
    return call.replies.json(node_id)


async def recovery(context: Context, call: Call) -> web.StreamResponse:
    """Quorum, members and log as this manager sees them."""
    _refuse_others(context)
    try:
        found = context.backend.outlook()
    except SwarmError as error:
        raise plain(error) from error
    managers = [
        {
            "NodeID": manager.node_id,
            "Hostname": manager.hostname,
            "Addr": manager.addr,
            "Reachable": manager.reachable,
            "Leader": manager.leader,
            "Self": manager.own,
        }
        for manager in found.managers
    ]
    return call.replies.json(
        {
            "ClusterID": found.cluster_id,
            "NodeID": found.node_id,
            "Managers": managers,
            "Quorum": found.quorum,
            "Reachable": found.reachable,
            "Nodes": found.nodes,
            "RaftTerm": found.term,
            "CommitIndex": found.commit,
            "LastIndex": found.last,
            "Dropped": found.dropped,
        }
    )


def _refuse_others(context: Context) -> None:
    local = context.backend.local()
    if not local.is_manager:
        raise why_no_manager(local)


ROUTES: Table = {
    ("POST", "/swarmd/backup"): create,
    ("POST", "/swarmd/backup/restore"): restore,
    ("GET", "/swarmd/backup/recovery"): recovery,
}
