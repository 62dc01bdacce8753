"""Is a task made from the service's present spec? (BEHAVIOUR 1.3) Pure."""

from __future__ import annotations

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.manager.controlapi import constraints


def is_up_to_date(service: api.Service, task: api.Task, node: api.Node | None) -> bool:
    """False when the orchestrator would replace the task."""
    versions = service.HasField("spec_version") and task.HasField("spec_version")
    if versions and service.spec_version.index == task.spec_version.index:
        return True
    wanted = api.TaskSpec()
    wanted.CopyFrom(service.spec.task)
    if _only_placement_differs(wanted, task.spec) and _node_still_fits(service, node):
        return True
    _forget_pull_options(wanted, task)
    if wanted != task.spec:
        return False
    if not task.HasField("endpoint"):
        return True
    present = service.spec.HasField("endpoint"), task.endpoint.HasField("spec")
    return present[0] == present[1] and service.spec.endpoint == task.endpoint.spec


def _only_placement_differs(wanted: api.TaskSpec, spec: api.TaskSpec) -> bool:
    same_presence = wanted.HasField("placement") == spec.HasField("placement")
    if same_presence and wanted.placement == spec.placement:
        return False
    other = api.TaskSpec()
    other.CopyFrom(wanted)
    other.ClearField("placement")
    if spec.HasField("placement"):
        other.placement.CopyFrom(spec.placement)
    return other == spec


def _node_still_fits(service: api.Service, node: api.Node | None) -> bool:
    if node is None:
        return False
    try:
        parsed = constraints.parse(service.spec.task.placement.constraints)
    except SwarmError:
        return True  # upstream logs and goes on with no constraints at all
    return constraints.node_matches(parsed, node)


def _forget_pull_options(wanted: api.TaskSpec, task: api.Task) -> None:
    """Once the image is there, other registry credentials are no reason to start anew."""
    state = api.TaskState
    pulled = state.READY <= task.status.state <= state.RUNNING
    both = wanted.HasField("container") and task.spec.HasField("container")
    if not (both and pulled and task.desired_state <= state.RUNNING):
        return
    wanted.container.ClearField("pull_options")
    if task.spec.container.HasField("pull_options"):
        wanted.container.pull_options.CopyFrom(task.spec.container.pull_options)
