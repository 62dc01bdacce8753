"""What task states mean. Numbers only grow along a task's life, so order is comparison."""

from __future__ import annotations

from swarmd import api


def holds_resources(task: api.Task) -> bool:
    """True until the task has ended: addresses and attachments are needed up to RUNNING."""
    return task.status.state <= api.TaskState.RUNNING


def is_terminal(state: int) -> bool:
    """True for states no task leaves: everything after RUNNING."""
    return state > api.TaskState.RUNNING
