"""Names that are derived, not stored: of tasks and of task runtimes."""

from __future__ import annotations

from swarmd import api

DEFAULT_CLUSTER = "default"


def task_name(task: api.Task) -> str:
    """Name of a task: its own, else `<service>.<slot or node id>.<task id>` (PROTOCOL 4.2)."""
    if task.annotations.name:
        return task.annotations.name
    slot = str(task.slot) if task.slot else task.node_id
    return f"{task.service_annotations.name}.{slot}.{task.id}"


def runtime(spec: api.TaskSpec) -> str:
    """What kind of work a task spec describes; empty when it says nothing."""
    chosen = spec.WhichOneof("runtime")
    if chosen is None:
        return ""
    return spec.generic.kind.lower() if chosen == "generic" else chosen
