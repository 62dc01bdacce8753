"""GET /nodes, GET and DELETE /nodes/{id}, POST /nodes/{id}/update."""

from __future__ import annotations

from aiohttp import web

from swarmd import api
from swarmd.base.errors import NotFound
from swarmd.faces.engineapi.backend import Caller
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context
from swarmd.faces.engineapi.convert.node import node_json, node_spec
from swarmd.faces.engineapi.filters import node_filters
from swarmd.faces.engineapi.lookups import CALL_SECONDS, NODE, find
from swarmd.faces.engineapi.routes import Table

_ID_LENGTH = 25


async def list_nodes(context: Context, call: Call) -> web.StreamResponse:
    """Nodes that pass the filters; the manager's order."""
    filters = node_filters(call.filters())
    reply = await context.ask("Control/ListNodes", api.ListNodesRequest(filters=filters))
    return call.replies.json([node_json(node) for node in reply.nodes])


async def get_node(context: Context, call: Call) -> web.StreamResponse:
    """One node by id, host name or id prefix."""
    node = await find(context.control(), NODE, call.ident)
    return call.replies.json(node_json(node))


async def remove_node(context: Context, call: Call) -> web.StreamResponse:
    """Remove a node that left; `force` for one that still looks alive."""
    control = context.control()
    node = await find(control, NODE, call.ident)
    request = api.RemoveNodeRequest(node_id=node.id, force=call.flag("force"))
    await control.unary("Control/RemoveNode", request, timeout=CALL_SECONDS)
    return call.replies.empty()


async def update_node(context: Context, call: Call) -> web.StreamResponse:
    """Replace a node's spec, given the version it was read at."""
    fields = await call.fields("swarm.NodeSpec")
    version = call.object_version("node")
    control = context.control()
    spec = node_spec(fields)
    if len(call.ident) == _ID_LENGTH:
        # Most likely a whole id: saves the look-up, which is half the cost of this call.
        try:
            await _update(control, call.ident, version, spec)
            return call.replies.empty()
        except NotFound:
            pass
    await _update(control, (await find(control, NODE, call.ident)).id, version, spec)
    return call.replies.empty()


async def _update(control: Caller, id: str, version: int, spec: api.NodeSpec) -> None:
    # A new request each time: an in-process manager keeps what it was given.
    request = api.UpdateNodeRequest(node_id=id, spec=spec)
    request.node_version.index = version
    await control.unary("Control/UpdateNode", request, timeout=CALL_SECONDS)


ROUTES: Table = {
    ("GET", "/nodes"): list_nodes,
    ("GET", "/nodes/*"): get_node,
    ("DELETE", "/nodes/*"): remove_node,
    ("POST", "/nodes/*/update"): update_node,
}
