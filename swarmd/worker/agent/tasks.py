"""The tasks this node was assigned, and what it says about them. Pure.

This release has no executor: a task is refused at once, so that managers place it
elsewhere, and a task that should end is reported ended. Secrets and configs are not kept,
since nothing here could use them.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarmd import api
from swarmd.base.timestamps import timestamp

NO_EXECUTOR = "no container executor on this node"
REJECTED = api.TaskState.REJECTED
SHUTDOWN = api.TaskState.SHUTDOWN
RUNNING = api.TaskState.RUNNING
REMOVE = api.AssignmentChange.REMOVE


def answer(task: api.Task, now: float) -> api.TaskStatus | None:
    """What to report of `task`; None when it has already ended."""
    if task.status.state > RUNNING:
        return None
    if task.desired_state >= SHUTDOWN:
        status = api.TaskStatus(state=SHUTDOWN, message="shutdown")
    else:
        status = api.TaskStatus(state=REJECTED, message="rejected", err=NO_EXECUTOR)
    status.timestamp.CopyFrom(timestamp(now))
    return status


class TaskBook:
    """Assigned tasks by id, with the last status we gave each."""

    def __init__(self) -> None:
        self._tasks: dict[str, api.Task] = {}
        self._statuses: dict[str, api.TaskStatus] = {}
        self._unpublished: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def assign(self, changes: Iterable[api.AssignmentChange], now: float) -> None:
        """Take a COMPLETE set: what it does not name is forgotten."""
        listed = list(changes)
        named = {change.assignment.task.id for change in listed}
        for task_id in [id for id in self._tasks if id not in named]:
            self._forget(task_id)
        self.update(listed, now)

    def update(self, changes: Iterable[api.AssignmentChange], now: float) -> None:
        """Take changes of the set."""
        for change in changes:
            item = change.assignment.WhichOneof("item")
            if item == "task":
                self._on_task(change, now)
            elif item == "volume" and change.action == REMOVE:
                # Nothing was ever mounted here, and the manager waits for the word.
                self._unpublished[change.assignment.volume.id] = None

    def statuses(self) -> dict[str, api.TaskStatus]:
        """Every status to report on a new session, by task id."""
        return dict(self._statuses)

    def take_unpublished(self) -> list[str]:
        """Volumes to report as let go, once."""
        ids = list(self._unpublished)
        self._unpublished.clear()
        return ids

    def _on_task(self, change: api.AssignmentChange, now: float) -> None:
        task = change.assignment.task
        if change.action == REMOVE:
            self._forget(task.id)
            return
        self._tasks[task.id] = task
        if task.id in self._statuses:
            return  # it has ended here; a state never goes back
        status = answer(task, now)
        if status is not None:
            self._statuses[task.id] = status

    def _forget(self, task_id: str) -> None:
        self._tasks.pop(task_id, None)
        self._statuses.pop(task_id, None)
