"""Task templates in both directions, and tasks."""

from __future__ import annotations

from swarmd import api
from swarmd.faces.engineapi.convert.common import (
    Json,
    annotations_json,
    driver_json,
    duration,
    nanoseconds,
    put,
    put_map,
    quoted,
    start,
    time_text,
    version_json,
    words,
)
from swarmd.faces.engineapi.convert.container import container_json, container_spec
from swarmd.faces.engineapi.convert.endpoint import port_json
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.network import attached_json
from swarmd.faces.engineapi.convert.node import generic_json, resources_json
from swarmd.faces.engineapi.convert.secret import fill_driver
from swarmd.faces.engineapi.errors import Refusal, bad_request

_state_word = words(api.TaskState)
_CONDITIONS = {
    "none": api.RestartPolicy.RestartCondition.NONE,
    "on-failure": api.RestartPolicy.RestartCondition.ON_FAILURE,
    "any": api.RestartPolicy.RestartCondition.ANY,
}
_VOLUMES_SINCE = (1, 42)


def task_json(task: api.Task, version: tuple[int, int]) -> Json:
    """A task as GET /tasks shows it."""
    out = start(task)
    out |= annotations_json(task.annotations)
    out["Spec"] = task_spec_json(task.spec)
    put(out, "ServiceID", task.service_id)
    put(out, "Slot", task.slot)
    put(out, "NodeID", task.node_id)
    out["Status"] = _status_json(task.status)
    out["DesiredState"] = _state_word(task.desired_state)
    put(out, "NetworksAttachments", [attached_json(item) for item in task.networks])
    put(out, "GenericResources", generic_json(task.assigned_generic_resources))
    if task.HasField("job_iteration"):
        out["JobIteration"] = version_json(task.job_iteration)
    if version >= _VOLUMES_SINCE:
        out["Volumes"] = [_volume_json(volume) for volume in task.volumes] or None
    return out


def _volume_json(volume: api.VolumeAttachment) -> Json:
    out: Json = {}
    put(out, "ID", volume.id)
    put(out, "Source", volume.source)
    put(out, "Target", volume.target)
    return out


def _status_json(status: api.TaskStatus) -> Json:
    out: Json = {"Timestamp": time_text(status.timestamp), "State": _state_word(status.state)}
    put(out, "Message", status.message)
    put(out, "Err", status.err)
    if status.HasField("container"):
        out["ContainerStatus"] = {
            "ContainerID": status.container.container_id,
            "PID": status.container.pid,
            "ExitCode": status.container.exit_code,
        }
    ports: Json = {}
    put(ports, "Ports", [port_json(port) for port in status.port_status.ports])
    out["PortStatus"] = ports
    return out


def task_spec_json(spec: api.TaskSpec) -> Json:
    """A task template. The runtime is named only for attachments here; services add theirs."""
    out: Json = {}
    if spec.HasField("container"):
        out["ContainerSpec"] = container_json(spec.container)
    if spec.HasField("attachment"):
        out["NetworkAttachmentSpec"] = {"ContainerID": spec.attachment.container_id}
    resources = _resources_json(spec)
    if resources is not None:
        out["Resources"] = resources
    if spec.HasField("restart"):
        out["RestartPolicy"] = _restart_json(spec.restart)
    if spec.HasField("placement"):
        out["Placement"] = _placement_json(spec.placement)
    put(out, "Networks", [_network_json(item) for item in spec.networks])
    if spec.HasField("log_driver"):
        out["LogDriver"] = driver_json(spec.log_driver)
    out["ForceUpdate"] = spec.force_update
    if spec.HasField("attachment"):
        out["Runtime"] = "attachment"
    return out


def _network_json(item: api.NetworkAttachmentConfig) -> Json:
    out: Json = {}
    put(out, "Target", item.target)
    put(out, "Aliases", list(item.aliases))
    put_map(out, "DriverOpts", item.driver_attachment_opts)
    return out


def _resources_json(spec: api.TaskSpec) -> Json | None:
    pids = spec.container.pidsLimit
    if not pids and not spec.HasField("resources"):
        return None
    out: Json = {}
    resources = spec.resources
    if pids or resources.HasField("limits"):
        limits: Json = {}
        put(limits, "NanoCPUs", resources.limits.nano_cpus)
        put(limits, "MemoryBytes", resources.limits.memory_bytes)
        put(limits, "Pids", pids)
        out["Limits"] = limits
    if resources.HasField("reservations"):
        out["Reservations"] = resources_json(resources.reservations)
    if resources.HasField("swap_bytes"):
        out["SwapBytes"] = resources.swap_bytes.value
    if resources.HasField("memory_swappiness"):
        out["MemorySwappiness"] = resources.memory_swappiness.value
    return out


def _restart_json(policy: api.RestartPolicy) -> Json:
    names = {number: word for word, number in _CONDITIONS.items()}
    out: Json = {"Condition": names.get(policy.condition, "any")}
    if policy.HasField("delay"):
        out["Delay"] = nanoseconds(policy.delay)
    out["MaxAttempts"] = policy.max_attempts
    if policy.HasField("window"):
        out["Window"] = nanoseconds(policy.window)
    return out


def _placement_json(placement: api.Placement) -> Json:
    out: Json = {}
    put(out, "Constraints", list(placement.constraints))
    preferences = [
        {"Spread": {"SpreadDescriptor": item.spread.spread_descriptor}}
        for item in placement.preferences
        if item.HasField("spread")
    ]
    put(out, "Preferences", preferences)
    put(out, "MaxReplicas", placement.max_replicas)
    platforms = []
    for platform in placement.platforms:
        shown: Json = {}
        put(shown, "Architecture", platform.architecture)
        put(shown, "OS", platform.os)
        platforms.append(shown)
    put(out, "Platforms", platforms)
    return out


def task_spec(fields: Fields) -> api.TaskSpec:
    """A task template from a request; only containers can be asked for."""
    spec = api.TaskSpec(force_update=fields.number("ForceUpdate", "uint64"))
    for item in fields.children("Networks"):
        fill_network(item, spec.networks.add())
    resources = fields.maybe_child("Resources")
    if resources is not None:
        _fill_resources(resources, spec.resources)
    driver = fields.maybe_child("LogDriver")
    if driver is not None:
        fill_driver(driver, spec.log_driver)
    _fill_runtime(fields, spec)
    if resources is not None:
        spec.container.pidsLimit = resources.child("Limits").number("Pids")
    restart = fields.maybe_child("RestartPolicy")
    if restart is not None:
        _fill_restart(restart, spec.restart)
    placement = fields.maybe_child("Placement")
    if placement is not None:
        _fill_placement(placement, spec.placement)
    return spec


def _fill_runtime(fields: Fields, spec: api.TaskSpec) -> None:
    runtime = fields.text("Runtime")
    container = fields.maybe_child("ContainerSpec")
    if runtime == "plugin" and fields.maybe_child("PluginSpec") is not None:
        raise Refusal(500, 'runtime type "plugin" only supported in experimental')
    if runtime not in ("", "container", "plugin"):
        raise bad_request("unsupported runtime")
    if container is None or runtime == "plugin":
        raise bad_request("mismatched Runtime and *Spec fields")
    spec.container.CopyFrom(container_spec(container))


def fill_network(fields: Fields, config: api.NetworkAttachmentConfig) -> None:
    """One network a task is to be attached to."""
    config.target = fields.text("Target")
    config.aliases.extend(fields.strings("Aliases") or ())
    config.driver_attachment_opts.update(fields.mapping("DriverOpts"))


def _fill_resources(fields: Fields, resources: api.ResourceRequirements) -> None:
    resources.SetInParent()
    limits = fields.maybe_child("Limits")
    if limits is not None:
        resources.limits.SetInParent()
        resources.limits.nano_cpus = limits.number("NanoCPUs")
        resources.limits.memory_bytes = limits.number("MemoryBytes")
    reservations = fields.maybe_child("Reservations")
    if reservations is not None:
        resources.reservations.SetInParent()
        resources.reservations.nano_cpus = reservations.number("NanoCPUs")
        resources.reservations.memory_bytes = reservations.number("MemoryBytes")
        for item in reservations.children("GenericResources"):
            _fill_generic(item, resources.reservations.generic.add())
    swap = fields.maybe_number("SwapBytes")
    if swap is not None:
        resources.swap_bytes.value = swap
    swappiness = fields.maybe_number("MemorySwappiness")
    if swappiness is not None:
        resources.memory_swappiness.value = swappiness


def _fill_generic(fields: Fields, resource: api.GenericResource) -> None:
    discrete = fields.maybe_child("DiscreteResourceSpec")
    named = fields.maybe_child("NamedResourceSpec")
    if discrete is not None:
        resource.discrete_resource_spec.kind = discrete.text("Kind")
        resource.discrete_resource_spec.value = discrete.number("Value")
    elif named is not None:
        resource.named_resource_spec.kind = named.text("Kind")
        resource.named_resource_spec.value = named.text("Value")


def _fill_restart(fields: Fields, policy: api.RestartPolicy) -> None:
    condition = fields.text("Condition")
    if condition and condition not in _CONDITIONS:
        raise bad_request(f"invalid RestartCondition: {quoted(condition)}")
    policy.SetInParent()
    policy.condition = _CONDITIONS[condition or "any"]
    delay, window = fields.maybe_number("Delay"), fields.maybe_number("Window")
    if delay is not None:
        policy.delay.CopyFrom(duration(delay))
    if window is not None:
        policy.window.CopyFrom(duration(window))
    policy.max_attempts = fields.number("MaxAttempts", "uint64")


def _fill_placement(fields: Fields, placement: api.Placement) -> None:
    placement.SetInParent()
    placement.constraints.extend(fields.strings("Constraints") or ())
    placement.max_replicas = fields.number("MaxReplicas", "uint64")
    for item in fields.children("Preferences"):
        spread = item.maybe_child("Spread")
        if spread is not None:
            added = placement.preferences.add()
            added.spread.spread_descriptor = spread.text("SpreadDescriptor")
            added.spread.SetInParent()
    for item in fields.children("Platforms"):
        placement.platforms.add(architecture=item.text("Architecture"), os=item.text("OS"))
