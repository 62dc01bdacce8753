"""The ping, /version and /info."""

from __future__ import annotations

import logging
import platform
from typing import Any

from aiohttp import web

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.faces.engineapi import texts
from swarmd.faces.engineapi.backend import HostFacts
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import OLDEST, Context
from swarmd.faces.engineapi.convert.cluster import cluster_json, empty_cluster_json
from swarmd.faces.engineapi.convert.common import Json, put
from swarmd.faces.engineapi.convert.info import base_info
from swarmd.faces.engineapi.engine import parse_version
from swarmd.faces.engineapi.errors import Refusal, answer
from swarmd.faces.engineapi.routes import Table
from swarmd.faces.http.refusal import Unreachable

logger = logging.getLogger("engineapi")

# Go's names of machines, for /version.
_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
_SWARM_HEADER_SINCE = (1, 42)


async def ping(context: Context, call: Call) -> web.StreamResponse:
    """Alive; the headers tell versions and, to clients new enough, the swarm state."""
    response = call.replies.text(b"" if call.request.method == "HEAD" else b"OK")
    headers = response.headers
    headers["Cache-Control"] = "no-cache, no-store, must-revalidate"
    headers["Pragma"] = "no-cache"
    if call.request.method == "HEAD":
        headers["Content-Length"] = "0"
    facts = context.engine_facts
    if facts is not None and facts.builder_version:
        headers["Builder-Version"] = facts.builder_version
    if call.version >= _SWARM_HEADER_SINCE:
        headers["Swarm"] = swarm_status(context)
    return response


def swarm_status(context: Context) -> str:
    """The ping header's word for the state of this node."""
    local = context.backend.local()
    if local.state != "active":
        return local.state
    return "active/manager" if local.is_manager or local.control_available else "active/worker"


async def version(context: Context, call: Call) -> web.StreamResponse:
    """The engine's versions with ours as one more component, or ours alone."""
    ours = {
        "Name": "swarmd",
        "Version": context.host.server_version,
        "Details": {"GitCommit": context.host.git_commit},
    }
    newest = call.replies.common["Api-Version"]
    try:
        if context.engine is not None:
            out = await context.engine.get_json("/version")
            out["ApiVersion"] = newest
            _raise_minimum(out)
            out["Components"] = [*(out.get("Components") or []), ours]
            return call.replies.json(out)
    except Unreachable as error:
        logger.debug("version without the engine: %s", error.message)
    return call.replies.json(_own_version(context.host, newest, ours))


def _raise_minimum(version: Json) -> None:
    """Older clients than we know are not served, even where the engine would."""
    details = [part.get("Details") or {} for part in version.get("Components") or ()]
    for shown in (version, *details):
        lowest = parse_version(str(shown.get("MinAPIVersion", "")))
        if lowest is not None and lowest < OLDEST:
            shown["MinAPIVersion"] = f"{OLDEST[0]}.{OLDEST[1]}"


def _own_version(host: HostFacts, newest: str, ours: Json) -> Json:
    oldest = f"{OLDEST[0]}.{OLDEST[1]}"
    arch = _GO_ARCH.get(host.architecture, host.architecture)
    python = platform.python_version()
    details = {
        "ApiVersion": newest,
        "Arch": arch,
        "BuildTime": host.build_time,
        "Experimental": "false",
        "GitCommit": host.git_commit,
        "GoVersion": f"python{python}",
        "KernelVersion": host.kernel_version,
        "MinAPIVersion": oldest,
        "Os": host.os_type,
    }
    out: Json = {
        "Platform": {"Name": ""},
        "Components": [
            {"Name": "Engine", "Version": host.server_version, "Details": details},
            ours,
        ],
        "Version": host.server_version,
        "ApiVersion": newest,
        "MinAPIVersion": oldest,
        "GitCommit": host.git_commit,
        "GoVersion": f"python{python}",
        "Os": host.os_type,
        "Arch": arch,
        "KernelVersion": host.kernel_version,
    }
    put(out, "BuildTime", host.build_time)
    return out


async def info(context: Context, call: Call) -> web.StreamResponse:
    """The engine's /info, or this host's own, with the Swarm section of this node."""
    swarm = await swarm_info(context)
    out = base_info(context.host, context.clock.now())
    engine_warnings = []
    if context.engine is not None:
        target = f"/v{call.version[0]}.{call.version[1]}/info"
        try:
            out = await context.engine.get_json(target)
        except Unreachable as error:  # the swarm can be looked at and changed all the same
            engine_warnings = [f"WARNING: {error.message}"]
    out["Swarm"] = swarm
    warnings = [*(out.get("Warnings") or []), *engine_warnings, *swarm.get("Warnings", [])]
    out["Warnings"] = warnings or None
    return call.replies.json(out)


async def swarm_info(context: Context) -> Json:
    """The Swarm section. What the manager refuses is shown in it, never raised."""
    local = context.backend.local()
    out: Json = {
        "NodeID": local.node_id,
        "NodeAddr": local.node_addr,
        "LocalNodeState": local.state,
        "ControlAvailable": local.control_available,
        "Error": texts.LOCKED if local.state == "locked" else local.error,
        "RemoteManagers": None,
    }
    if local.remotes:
        out["RemoteManagers"] = [
            {"NodeID": remote.node_id, "Addr": remote.addr} for remote in local.remotes
        ]
    if local.control_available:
        await _add_cluster(context, out)
    return out


async def _add_cluster(context: Context, out: Json) -> None:
    try:
        out_cluster: Json = cluster_json(await context.cluster())
    except (SwarmError, Refusal) as error:
        out["Error"] = answer(error)[1]
        out_cluster = empty_cluster_json()
    nodes: Any = ()
    try:
        nodes = (await context.ask("Control/ListNodes", api.ListNodesRequest())).nodes
    except (SwarmError, Refusal) as error:
        out["Error"] = answer(error)[1]
    managers = sum(node.HasField("manager_status") for node in nodes)
    put(out, "Nodes", len(nodes))
    put(out, "Managers", managers)
    out["Cluster"] = out_cluster
    if managers == 2 and out["LocalNodeState"] in ("active", "pending"):
        out["Warnings"] = [texts.TWO_MANAGERS]


async def options(context: Context, call: Call) -> web.StreamResponse:
    """OPTIONS of anything."""
    return call.replies.empty()


ROUTES: Table = {
    ("GET", "/_ping"): ping,
    ("HEAD", "/_ping"): ping,
    ("GET", "/version"): version,
    ("GET", "/info"): info,
}
