"""Services and their specs in both directions."""

from __future__ import annotations

import struct

from google.protobuf.message import Message

from swarmd import api
from swarmd.faces.engineapi.convert.common import (
    Json,
    annotations_json,
    duration,
    nanoseconds,
    put,
    start,
    time_text,
    version_json,
    words,
)
from swarmd.faces.engineapi.convert.endpoint import (
    endpoint_json,
    endpoint_spec_json,
    fill_endpoint,
)
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.task import fill_network, task_spec, task_spec_json
from swarmd.faces.engineapi.errors import bad_request

_update_word = words(api.UpdateStatus.UpdateState)
_FAILURE_ACTIONS = {
    "pause": api.UpdateConfig.FailureAction.PAUSE,
    "continue": api.UpdateConfig.FailureAction.CONTINUE,
    "rollback": api.UpdateConfig.FailureAction.ROLLBACK,
}
_ORDERS = {
    "stop-first": api.UpdateConfig.UpdateOrder.STOP_FIRST,
    "start-first": api.UpdateConfig.UpdateOrder.START_FIRST,
}
_FAILURE_WORDS = {number: word for word, number in _FAILURE_ACTIONS.items()}
_ORDER_WORDS = {number: word for word, number in _ORDERS.items()}
_MODES = (
    ("Replicated", "replicated"),
    ("Global", "global"),
    ("ReplicatedJob", "replicated_job"),
    ("GlobalJob", "global_job"),
)
_FLOAT = struct.Struct("f")
_JOBS_SINCE = (1, 41)
_TASK_NETWORKS_ONLY_SINCE = (1, 44)


def mode_word(spec: api.ServiceSpec) -> str:
    """The service's mode as the `mode` filter names it."""
    return (spec.WhichOneof("mode") or "").replace("_", "-")


def service_json(service: api.Service) -> Json:
    """A service; its spec and the one before, where it can be reached, its update."""
    out = start(service)
    out["Spec"] = spec_json(service.spec)
    if service.HasField("previous_spec"):
        out["PreviousSpec"] = spec_json(service.previous_spec)
    out["Endpoint"] = endpoint_json(service.endpoint)
    if service.HasField("update_status"):
        out["UpdateStatus"] = _update_status_json(service.update_status)
    if service.HasField("job_status"):
        out["JobStatus"] = {
            "JobIteration": version_json(service.job_status.job_iteration),
            "LastExecution": time_text(service.job_status.last_execution),
        }
    return out


def status_json(status: api.ListServiceStatusesResponse.ServiceStatus) -> Json:
    """The task counts of GET /services?status=true."""
    return {
        "RunningTasks": status.running_tasks,
        "DesiredTasks": status.desired_tasks,
        "CompletedTasks": status.completed_tasks,
    }


def _update_status_json(status: api.UpdateStatus) -> Json:
    out: Json = {}
    if status.state != api.UpdateStatus.UpdateState.UNKNOWN:
        out["State"] = _update_word(status.state)
    if status.started_at.seconds:
        out["StartedAt"] = time_text(status.started_at)
    if status.completed_at.seconds:
        out["CompletedAt"] = time_text(status.completed_at)
    put(out, "Message", status.message)
    return out


def spec_json(spec: api.ServiceSpec) -> Json:
    """A service spec."""
    out = annotations_json(spec.annotations)
    template = api.TaskSpec()
    template.CopyFrom(spec.task)
    if not template.networks:
        # Services made by very old clients have their networks beside the template.
        template.networks.extend(spec.networks)
    task = task_spec_json(template)
    if spec.task.HasField("container"):
        task["Runtime"] = "container"
    elif spec.task.HasField("generic"):
        task["Runtime"] = spec.task.generic.kind
    out["TaskTemplate"] = task
    out["Mode"] = _mode_json(spec)
    if spec.HasField("update"):
        out["UpdateConfig"] = _update_config_json(spec.update)
    if spec.HasField("rollback"):
        out["RollbackConfig"] = _update_config_json(spec.rollback)
    if spec.HasField("endpoint"):
        out["EndpointSpec"] = endpoint_spec_json(spec.endpoint)
    return out


def _mode_json(spec: api.ServiceSpec) -> Json:
    if spec.HasField("replicated"):
        return {"Replicated": {"Replicas": spec.replicated.replicas}}
    if spec.HasField("replicated_job"):
        job = spec.replicated_job
        counts = {"MaxConcurrent": job.max_concurrent, "TotalCompletions": job.total_completions}
        return {"ReplicatedJob": counts}
    return {name: {} for name, field in _MODES if spec.HasField(field)}


def _update_config_json(config: api.UpdateConfig) -> Json:
    out: Json = {"Parallelism": config.parallelism}
    put(out, "Delay", nanoseconds(config.delay))
    put(out, "FailureAction", _FAILURE_WORDS.get(config.failure_action))
    put(out, "Monitor", nanoseconds(config.monitor))
    out["MaxFailureRatio"] = short_float(config.max_failure_ratio)
    out["Order"] = _ORDER_WORDS.get(config.order, "")
    return out


def short_float(value: float) -> float | int:
    """A 32-bit float with the fewest digits that mean it, whole numbers without a point."""
    if value == int(value):
        return int(value)
    tries = (float(f"{value:.{digits}g}") for digits in range(1, 9))
    return next((short for short in tries if _FLOAT.pack(short) == _FLOAT.pack(value)), value)


def service_spec(fields: Fields, version: tuple[int, int], spare_name: str) -> api.ServiceSpec:
    """A service spec from a request of an API `version`; `spare_name` if it has none."""
    spec = api.ServiceSpec(task=task_spec(fields.child("TaskTemplate")))
    spec.annotations.name = fields.text("Name") or spare_name
    spec.annotations.labels.update(fields.mapping("Labels"))
    if version < _TASK_NETWORKS_ONLY_SINCE and not spec.task.networks:
        for item in fields.children("Networks"):
            fill_network(item, spec.task.networks.add())
    for name, config in (("UpdateConfig", spec.update), ("RollbackConfig", spec.rollback)):
        given = fields.maybe_child(name)
        if given is not None:
            _fill_update_config(given, config)
    endpoint = fields.maybe_child("EndpointSpec")
    if endpoint is not None:
        fill_endpoint(endpoint, spec.endpoint)
    _fill_mode(fields.child("Mode"), spec, version)
    _blank_newer(spec, version)
    _check_swap(spec)
    return spec


def _fill_mode(fields: Fields, spec: api.ServiceSpec, version: tuple[int, int]) -> None:
    given = {name: fields.maybe_child(name) for name, _ in _MODES}
    if version < _JOBS_SINCE:
        given["ReplicatedJob"] = given["GlobalJob"] = None
    if sum(mode is not None for mode in given.values()) > 1:
        raise bad_request("must specify only one service mode")
    job, replicated = given["ReplicatedJob"], given["Replicated"]
    if given["Global"] is not None:
        getattr(spec, "global").SetInParent()
    elif given["GlobalJob"] is not None:
        spec.global_job.SetInParent()
    elif job is not None:
        at_once = job.maybe_number("MaxConcurrent", "uint64")
        spec.replicated_job.max_concurrent = 1 if at_once is None else at_once
        total = job.maybe_number("TotalCompletions", "uint64")
        wanted = spec.replicated_job.max_concurrent if total is None else total
        spec.replicated_job.total_completions = wanted
    else:
        count = replicated.maybe_number("Replicas", "uint64") if replicated is not None else None
        spec.replicated.SetInParent()
        spec.replicated.replicas = 1 if count is None else count


def _fill_update_config(fields: Fields, config: api.UpdateConfig) -> None:
    action, order = fields.text("FailureAction"), fields.text("Order")
    if action and action not in _FAILURE_ACTIONS:
        raise bad_request(f"unrecognized update failure action {action}")
    if order and order not in _ORDERS:
        raise bad_request(f"unrecognized update order {order}")
    config.SetInParent()
    config.parallelism = fields.number("Parallelism", "uint64")
    config.delay.CopyFrom(duration(fields.number("Delay")))
    config.max_failure_ratio = fields.real("MaxFailureRatio")
    monitor = fields.number("Monitor")
    if monitor:
        config.monitor.CopyFrom(duration(monitor))
    config.failure_action = _FAILURE_ACTIONS[action or "pause"]
    config.order = _ORDERS[order or "stop-first"]


def _check_swap(spec: api.ServiceSpec) -> None:
    resources = spec.task.resources
    if resources.HasField("swap_bytes") and not resources.limits.memory_bytes:
        raise bad_request("memory swap provided, but no memory-limit was set")


def _blank_newer(spec: api.ServiceSpec, version: tuple[int, int]) -> None:
    """Drop what clients of this version cannot mean (moby swarm/helpers.go)."""
    container = spec.task.container
    if version < (1, 52):
        _clear(spec.task, "resources", "swap_bytes", "memory_swappiness")
    if version < (1, 46):
        container.oom_score_adj = 0
        for mount in container.mounts:
            if mount.HasField("tmpfs_options"):
                mount.tmpfs_options.options = "null"
    if version < (1, 44):
        _clear(container, "privileges", "seccomp", "apparmor", "no_new_privileges")
        _clear(container, "healthcheck", "start_interval")
    if version < (1, 41):
        for field in ("capability_add", "capability_drop", "ulimits", "pidsLimit"):
            container.ClearField(field)
    if version < (1, 40):
        container.ClearField("sysctls")
        _clear(spec.task, "placement", "max_replicas")
        if container.HasField("privileges"):
            _clear(container.privileges, "credential_spec", "config")
        if any(config.HasField("runtime") for config in container.configs):
            raise bad_request("invalid Config: either File or Runtime should be set")


def _clear(parent: Message, name: str, *fields: str) -> None:
    # Only in a message that is there: touching an absent one could make it present.
    if parent.HasField(name):
        child = getattr(parent, name)
        for field in fields:
            child.ClearField(field)
