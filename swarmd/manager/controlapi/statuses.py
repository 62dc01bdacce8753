"""Running against desired: the numbers `service ls` shows (BEHAVIOUR 6). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from swarmd import api

ServiceStatus = api.ListServiceStatusesResponse.ServiceStatus


def service_status(
    id: str, service: api.Service | None, tasks: Iterable[api.Task]
) -> ServiceStatus:
    """Count the tasks of one service; one that is gone wants none but may still have some."""
    status = ServiceStatus(service_id=id)
    spec = service.spec if service is not None else api.ServiceSpec()
    mode = spec.WhichOneof("mode")
    count_desired = service is not None and mode not in ("replicated", "replicated_job")
    status.desired_tasks = spec.replicated.replicas + spec.replicated_job.max_concurrent
    job = service is not None and service.HasField("job_status")
    state = api.TaskState
    for task in tasks:
        if job and service is not None and not _same_iteration(service, task):
            continue
        status.completed_tasks += job and task.status.state == state.COMPLETE
        status.running_tasks += task.status.state == state.RUNNING
        if count_desired:
            unfinished = task.status.state != state.COMPLETE
            status.desired_tasks += task.desired_state == state.RUNNING or (
                unfinished and task.desired_state == state.COMPLETE
            )
    return status


def _same_iteration(service: api.Service, task: api.Task) -> bool:
    wanted = service.job_status.job_iteration.index
    return task.HasField("job_iteration") and task.job_iteration.index == wanted
