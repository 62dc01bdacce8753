"""The /swarm endpoints."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable

from aiohttp import web

from swarmd import api
from swarmd.base.errors import Code, SwarmError
from swarmd.faces.engineapi import addresses, texts
from swarmd.faces.engineapi.backend import InitRequest, JoinRequest, LocalState
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context, why_no_manager
from swarmd.faces.engineapi.convert.cluster import (
    cluster_spec,
    merge_forced,
    merge_spec,
    swarm_json,
)
from swarmd.faces.engineapi.convert.fields import Fields, WrongType
from swarmd.faces.engineapi.errors import Refusal, bad_request, plain, rpc_text, unavailable
from swarmd.faces.engineapi.routes import Table

Merge = Callable[[Fields, api.ClusterSpec], api.ClusterSpec]

_KEY_PREFIX = "SWMKEY-1-"
_POOL_SINCE = (1, 39)
_DATA_PATH_PORT_SINCE = (1, 40)
# A manager is asked about its peers before it leaves; it may have no quorum to answer with.
_STATS_SECONDS = 5.0


async def init(context: Context, call: Call) -> web.StreamResponse:
    """Start a cluster, then merge the given spec into its defaults.

    The merge is a second step, as in stock engines: refused settings leave an active swarm.
    """
    fields = await call.fields("swarm.InitRequest")
    forced = fields.flag("ForceNewCluster")
    _refuse_member(context.backend.local(), forced)
    listen = addresses.with_defaults(fields.text("ListenAddr"), "ListenAddr")
    spec = fields.child("Spec")
    if spec.text("Name") not in ("", "default"):
        raise bad_request(texts.SPEC_NAME)
    _check_types(spec)
    around = addresses.Surroundings(
        interfaces=context.interfaces(),
        engine_subnets=await engine_subnets(context),
        default_advertise=context.default_advertise,
    )
    resolved = addresses.resolve_init(listen, fields.text("AdvertiseAddr"), around)
    data_path = addresses.resolve_data_path(fields.text("DataPathAddr"), around.interfaces)
    pool = fields.strings("DefaultAddrPool")
    subnet_bits = fields.number("SubnetSize", "uint32")
    if call.version < _POOL_SINCE:
        pool, subnet_bits = None, 0
    addresses.check_pool(pool, subnet_bits)
    port = fields.number("DataPathPort", "uint32")
    if call.version < _DATA_PATH_PORT_SINCE:
        port = 0
    request = InitRequest(
        listen_addr=resolved.listen,
        advertise_addr=resolved.advertise,
        local_addr=resolved.local,
        data_path_addr=data_path,
        data_path_port=addresses.data_path_port(port),
        force_new_cluster=forced,
        autolock=fields.flag("AutoLockManagers"),
        availability=fields.text("Availability"),
        default_addr_pool=None if pool is None else tuple(item.strip() for item in pool),
        subnet_size=subnet_bits,
    )
    try:
        node_id = await context.backend.init(request)
    except SwarmError as error:
        raise plain(error) from error
    context.events.poke()
    await _merge(context, spec, merge_forced if forced else merge_spec)
    return call.replies.json(node_id)


def _check_types(spec: Fields) -> None:
    """Refuse what is no spec at all before anything has begun; its values are judged later."""
    try:
        merge_spec(spec, api.ClusterSpec())
    except WrongType:
        raise
    except Refusal:
        pass


def _refuse_member(local: LocalState, forced: bool) -> None:
    if local.state == "inactive":
        return
    if not forced:
        raise unavailable(texts.ALREADY_IN_SWARM)
    if not local.is_manager:
        raise unavailable(texts.WORKER_MANAGER_CALL)


async def _merge(context: Context, fields: Fields, merge: Merge) -> None:
    try:
        cluster = await context.cluster()
    except SwarmError as error:
        raise Refusal(500, f"error on listing clusters: {rpc_text(error)}") from error
    try:
        spec = merge(fields, cluster.spec)
        if not spec.annotations.name:
            spec.annotations.name = "default"
        request = api.UpdateClusterRequest(
            cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=spec
        )
        await context.ask("Control/UpdateCluster", request)
    except SwarmError as error:
        raise Refusal(500, f"error updating cluster settings: {rpc_text(error)}") from error
    except Refusal as error:
        raise Refusal(500, f"error updating cluster settings: {error.message}") from error


async def engine_subnets(context: Context) -> list[str]:
    """Subnets of the local engine's own networks: not addresses of this machine to others."""
    if context.engine is None:
        return []
    try:
        networks = await context.engine.get_json("/networks")
    except Refusal:
        return []
    return [
        config["Subnet"]
        for network in networks or []
        for config in (network.get("IPAM") or {}).get("Config") or []
        if isinstance(config.get("Subnet"), str)
    ]


async def join(context: Context, call: Call) -> web.StreamResponse:
    """Join the cluster of the first remote address given."""
    fields = await call.fields("swarm.JoinRequest")
    if context.backend.local().state != "inactive":
        raise unavailable(texts.ALREADY_IN_SWARM)
    listen = addresses.with_defaults(fields.text("ListenAddr"), "ListenAddr")
    remotes = fields.strings("RemoteAddrs")
    if not remotes:
        raise bad_request("at least 1 RemoteAddr is required to join")
    remotes = [addresses.with_defaults(remote, "remoteAddr") for remote in remotes]
    interfaces = context.interfaces()
    host, port = addresses.resolve_listen(listen, interfaces)
    around = addresses.Surroundings(interfaces=interfaces)
    request = JoinRequest(
        listen_addr=addresses.join_host_port(host, port),
        advertise_addr=_join_advertise(fields.text("AdvertiseAddr"), port, around),
        remote_addr=remotes[0],
        join_token=fields.text("JoinToken"),
        data_path_addr=addresses.resolve_data_path(fields.text("DataPathAddr"), interfaces),
        availability=fields.text("Availability"),
    )
    await context.backend.join(request)
    context.events.poke()
    return call.replies.empty()


def _join_advertise(text: str, port: str, around: addresses.Surroundings) -> str:
    # Errors do not matter here: the remote side can detect the address.
    if not text:
        return ""
    try:
        return addresses.join_host_port(*addresses.resolve_advertise(text, port, around))
    except Refusal:
        return ""


async def leave(context: Context, call: Call) -> web.StreamResponse:
    """Leave; a manager only with `force` unless the others keep a quorum."""
    local = context.backend.local()
    force = call.flag("force")
    if local.state == "inactive":
        raise unavailable(texts.NO_SWARM)
    if local.state == "locked" and not force:
        raise unavailable(texts.LOCKED_LEAVE)
    if local.is_manager and not force:
        raise unavailable(texts.LEAVE_MANAGER + await _leave_warning(context, local))
    try:
        await context.backend.leave(force)
    except SwarmError as error:
        raise plain(error) from error
    return call.replies.empty()


async def _leave_warning(context: Context, local: LocalState) -> str:
    if not local.control_available:
        return texts.LEAVE_INACTIVE_MANAGER + texts.LEAVE_RESTORE
    try:
        reply = await context.backend.control().unary(
            "Control/ListNodes", api.ListNodesRequest(), timeout=_STATS_SECONDS
        )
    except SwarmError:
        return texts.LEAVE_RESTORE
    return _quorum_warning(reply.nodes, local.node_id)


def _quorum_warning(nodes: Iterable[api.Node], own_id: str) -> str:
    reachable = unreachable = 0
    active = False
    for node in nodes:
        state = node.manager_status.reachability if node.HasField("manager_status") else None
        if state == api.RaftMemberStatus.REACHABLE:
            reachable += 1
            active = active or node.id == own_id
        elif state == api.RaftMemberStatus.UNREACHABLE:
            unreachable += 1
    total = reachable + unreachable
    if not active or reachable - 2 > unreachable:
        return texts.LEAVE_RESTORE
    if reachable == 1 and unreachable == 0:
        return texts.LEAVE_LAST_MANAGER
    return texts.LEAVE_QUORUM.format(left=reachable - 1, total=total) + texts.LEAVE_RESTORE


async def inspect(context: Context, call: Call) -> web.StreamResponse:
    """The cluster with its join tokens."""
    return call.replies.json(swarm_json(await context.cluster()))


async def update(context: Context, call: Call) -> web.StreamResponse:
    """Replace the whole spec and rotate what is asked for."""
    fields = await call.fields("swarm.Spec")
    version = call.object_version("swarm")
    rotation = api.KeyRotation(
        worker_join_token=_rotate(call, "rotateWorkerToken"),
        manager_join_token=_rotate(call, "rotateManagerToken"),
        manager_unlock_key=_rotate(call, "rotateManagerUnlockKey"),
    )
    cluster_id = await context.cluster_id()
    if fields.text("Name") not in ("", "default"):
        raise bad_request(texts.SPEC_NAME)
    spec = cluster_spec(fields)
    spec.annotations.name = "default"
    request = api.UpdateClusterRequest(cluster_id=cluster_id, spec=spec, rotation=rotation)
    request.cluster_version.index = version
    await context.ask("Control/UpdateCluster", request)
    return call.replies.empty()


def _rotate(call: Call, name: str) -> bool:
    try:
        return call.strict_flag(name) is True
    except ValueError as error:
        raise bad_request(f"invalid value for {name}: {error}") from None


async def unlock_key(context: Context, call: Call) -> web.StreamResponse:
    """The key that unlocks managers; empty without autolock."""
    reply = await context.ask("CA/GetUnlockKey", api.GetUnlockKeyRequest())
    key = reply.unlock_key
    text = _KEY_PREFIX + base64.b64encode(key).decode().rstrip("=") if key else ""
    return call.replies.json({"UnlockKey": text})


async def unlock(context: Context, call: Call) -> web.StreamResponse:
    """Start a locked manager with its key."""
    fields = await call.fields("swarm.UnlockRequest")
    local = context.backend.local()
    if local.control_available:
        raise Refusal(409, texts.NOT_LOCKED)
    if local.state != "locked":
        raise why_no_manager(local)
    key = fields.text("UnlockKey")
    check_unlock_key(key)
    try:
        await context.backend.unlock(key)
    except SwarmError as error:
        if error.code is Code.UNAUTHENTICATED:
            raise Refusal(401, texts.WRONG_UNLOCK_KEY) from error
        if context.backend.local().control_available:  # another request was first
            raise Refusal(409, texts.NOT_LOCKED) from error
        text = f"swarm component could not be started: {error.message}"
        raise Refusal(500, text) from error
    context.events.poke()
    return call.replies.empty()


def check_unlock_key(key: str) -> None:
    """Refuse what cannot be an unlock key: the prefix, then unpadded base64."""
    text = key.removeprefix(_KEY_PREFIX)
    try:
        if text == key or text.endswith("="):
            raise ValueError(key)
        base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise bad_request(texts.MALFORMED_UNLOCK_KEY) from None


ROUTES: Table = {
    ("POST", "/swarm/init"): init,
    ("POST", "/swarm/join"): join,
    ("POST", "/swarm/leave"): leave,
    ("GET", "/swarm"): inspect,
    ("POST", "/swarm/update"): update,
    ("GET", "/swarm/unlockkey"): unlock_key,
    ("POST", "/swarm/unlock"): unlock,
}
