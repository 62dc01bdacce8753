"""/services and /tasks."""

from __future__ import annotations

from aiohttp import web

from swarmd import api
from swarmd.base.entropy import base36
from swarmd.base.errors import NotFound, SwarmError
from swarmd.faces.engineapi.backend import Caller
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context
from swarmd.faces.engineapi.convert.common import Json
from swarmd.faces.engineapi.convert.service import (
    mode_word,
    service_json,
    service_spec,
    status_json,
)
from swarmd.faces.engineapi.convert.task import task_json
from swarmd.faces.engineapi.errors import Refusal
from swarmd.faces.engineapi.filters import SERVICE_KEYS, TASK_KEYS, task_filters
from swarmd.faces.engineapi.lookups import CALL_SECONDS, NETWORK, NODE, SERVICE, TASK, find
from swarmd.faces.engineapi.routes import Table

_STATUS_SINCE = (1, 41)
_CLIENTS_PIN_SINCE = (1, 30)
_LOCAL_NETWORK = (
    "The network {name} cannot be used with services. Only networks scoped to the swarm can be "
    "used, such as those created with the overlay driver."
)
_UNPINNED = (
    "image {image} could not be accessed on a registry to record\nits digest. Each node will "
    "access {image} independently,\npossibly leading to different nodes running different\n"
    "versions of the image.\n"
)


async def list_services(context: Context, call: Call) -> web.StreamResponse:
    """Services that pass the filters, with their task counts if asked for."""
    filters = call.filters(old_status=400)
    filters.check(SERVICE_KEYS)
    asked = api.ListServicesRequest.Filters(
        name_prefixes=filters.get("name"),
        id_prefixes=filters.get("id"),
        labels=filters.labels("label"),
        runtimes=filters.get("runtime") or ["container"],
    )
    reply = await context.ask("Control/ListServices", api.ListServicesRequest(filters=asked))
    services = [item for item in reply.services if filters.exact("mode", mode_word(item.spec))]
    statuses = await _statuses(context, call, [service.id for service in services])
    out = []
    for service in services:
        shown = service_json(service)
        if service.id in statuses:
            shown["ServiceStatus"] = statuses[service.id]
        out.append(shown)
    return call.replies.json(out)


async def _statuses(context: Context, call: Call, ids: list[str]) -> dict[str, Json]:
    if call.version < _STATUS_SINCE or not call.checked_flag("status"):
        return {}
    request = api.ListServiceStatusesRequest(services=ids)
    reply = await context.ask("Control/ListServiceStatuses", request)
    return {status.service_id: status_json(status) for status in reply.statuses}


async def get_service(context: Context, call: Call) -> web.StreamResponse:
    """One service, with the manager's defaults filled in if asked for."""
    defaults = call.checked_flag("insertDefaults")
    control = context.control()
    request = api.GetServiceRequest(service_id=call.ident, insert_defaults=defaults)
    try:
        reply = await control.unary("Control/GetService", request, timeout=CALL_SECONDS)
    except SwarmError:
        service = await find(control, SERVICE, call.ident)
        if not defaults:
            return call.replies.json(service_json(service))
        request = api.GetServiceRequest(service_id=service.id, insert_defaults=True)
        reply = await control.unary("Control/GetService", request, timeout=CALL_SECONDS)
    return call.replies.json(service_json(reply.service))


async def create_service(context: Context, call: Call) -> web.StreamResponse:
    """Create a service; its id."""
    fields = await call.fields("swarm.ServiceSpec")
    control = context.control()
    # 40 bits are enough: a taken name is refused like any other.
    spare_name = "service-" + base36(int.from_bytes(context.entropy.token(5), "big"))
    spec = service_spec(fields, call.version, spare_name)
    await _resolve_networks(context, control, spec)
    auth = call.request.headers.get("X-Registry-Auth", "")
    if auth:
        spec.task.container.pull_options.registry_auth = auth
    request = api.CreateServiceRequest(spec=spec)
    reply = await control.unary("Control/CreateService", request, timeout=CALL_SECONDS)
    out: Json = {"ID": reply.service.id}
    warnings = _warnings(call, spec)
    if warnings:
        out["Warnings"] = warnings
    return call.replies.json(out, 201)


def _warnings(call: Call, spec: api.ServiceSpec) -> list[str] | None:
    # Clients since 1.30 pin the image themselves; older ones are told that nobody did.
    image = spec.task.container.image
    if call.version >= _CLIENTS_PIN_SINCE or "@sha256:" in image or image.startswith("sha256:"):
        return None
    return [_UNPINNED.format(image=image)]


async def _resolve_networks(context: Context, control: Caller, spec: api.ServiceSpec) -> None:
    """Networks by name or prefix become ids; an engine's own networks cannot be used."""
    for item in spec.task.networks:
        try:
            item.target = (await find(control, NETWORK, item.target)).id
        except (Refusal, NotFound) as error:
            name = await _local_network(context, item.target)
            if name is None:
                raise
            if name not in ("bridge", "host", "none"):
                raise Refusal(403, _LOCAL_NETWORK.format(name=name)) from error
            # Stands for the same network of every engine.
            item.target = (await find(control, NETWORK, name)).id


async def _local_network(context: Context, term: str) -> str | None:
    """The name of the engine's network meant by `term`, if there is one."""
    if context.engine is None:
        return None
    try:
        networks = await context.engine.get_json("/networks") or []
    except Refusal:
        return None
    for network in networks:
        scoped = network.get("Scope") == "swarm"
        if not scoped and (network["Name"] == term or network["Id"].startswith(term)):
            return str(network["Name"])
    return None


async def update_service(context: Context, call: Call) -> web.StreamResponse:
    """Replace a service's spec, or go back to the one before."""
    fields = await call.fields("swarm.ServiceSpec")
    version = call.object_version("service")
    control = context.control()
    spec = service_spec(fields, call.version, "")
    await _resolve_networks(context, control, spec)
    service = await find(control, SERVICE, call.ident)
    _carry_auth(call, spec, service)
    request = api.UpdateServiceRequest(
        service_id=service.id, spec=spec, rollback=_rollback(call.query.get("rollback", ""))
    )
    request.service_version.index = version
    await control.unary("Control/UpdateService", request, timeout=CALL_SECONDS)
    return call.replies.json({"Warnings": _warnings(call, spec)})


def _carry_auth(call: Call, spec: api.ServiceSpec, service: api.Service) -> None:
    """Without new credentials the present ones stay, or those of the spec before."""
    options = spec.task.container.pull_options
    auth = call.request.headers.get("X-Registry-Auth", "")
    if auth:
        options.registry_auth = auth
        return
    source = call.query.get("registryAuthFrom", "")
    if source not in ("", "spec", "previous-spec"):
        raise Refusal(500, "unsupported registryAuthFrom value")
    before = service.spec
    if source == "previous-spec":
        if not service.HasField("previous_spec"):
            raise Refusal(500, "service does not have a previous spec")
        before = service.previous_spec
    if not before.task.HasField("container"):
        raise Refusal(500, "service does not use container tasks")
    if before.task.container.HasField("pull_options"):
        options.CopyFrom(before.task.container.pull_options)


def _rollback(text: str) -> api.UpdateServiceRequest.Rollback:
    if text in ("", "none"):
        return api.UpdateServiceRequest.Rollback.NONE
    if text == "previous":
        return api.UpdateServiceRequest.Rollback.PREVIOUS
    raise Refusal(500, f"unrecognized rollback option {text}")


async def remove_service(context: Context, call: Call) -> web.StreamResponse:
    """Remove a service; its tasks stop afterwards."""
    control = context.control()
    service = await find(control, SERVICE, call.ident)
    request = api.RemoveServiceRequest(service_id=service.id)
    await control.unary("Control/RemoveService", request, timeout=CALL_SECONDS)
    return call.replies.empty()


async def list_tasks(context: Context, call: Call) -> web.StreamResponse:
    """Tasks that pass the filters; services and nodes may be named."""
    filters = call.filters()
    filters.check(TASK_KEYS)
    control = context.control()
    asked = task_filters(filters)
    for index, term in enumerate(filters.get("service")):
        asked.service_ids[index] = (await find(control, SERVICE, term)).id
    for index, term in enumerate(filters.get("node")):
        asked.node_ids[index] = (await find(control, NODE, term)).id
    if "runtime" not in filters:
        # Attachments of single containers are not shown.
        asked.runtimes.extend(["container", ""])
    request = api.ListTasksRequest(filters=asked)
    reply = await control.unary("Control/ListTasks", request, timeout=CALL_SECONDS)
    return call.replies.json([task_json(task, call.version) for task in reply.tasks])


async def get_task(context: Context, call: Call) -> web.StreamResponse:
    """One task by id, name or id prefix."""
    task = await find(context.control(), TASK, call.ident)
    return call.replies.json(task_json(task, call.version))


ROUTES: Table = {
    ("GET", "/services"): list_services,
    ("GET", "/services/*"): get_service,
    ("POST", "/services/create"): create_service,
    ("POST", "/services/*/update"): update_service,
    ("DELETE", "/services/*"): remove_service,
    ("GET", "/tasks"): list_tasks,
    ("GET", "/tasks/*"): get_task,
}
