"""Tasks: read, listed, removed. Their makers live elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from swarmd import api
from swarmd.base.errors import NotFound
from swarmd.cluster.store import ObjectMissing, Transaction, View, number
from swarmd.manager.controlapi.filters import matches_task, unique
from swarmd.manager.controlapi.freshness import is_up_to_date
from swarmd.manager.controlapi.seams import Calls, invalid_argument, not_found


class TaskCalls(Calls):
    """GetTask, ListTasks, RemoveTask."""

    async def get_task(self, request: api.GetTaskRequest, peer: object) -> api.GetTaskResponse:
        """One task, by id."""
        if not request.task_id:
            raise invalid_argument()
        task = self.needs.store.view().get(api.Task, request.task_id)
        if task is None:
            raise NotFound(not_found("task", request.task_id))
        return api.GetTaskResponse(task=task)

    async def list_tasks(
        self, request: api.ListTasksRequest, peer: object
    ) -> api.ListTasksResponse:
        """All tasks that match; an index narrows the search where one fits."""
        view, filters = self.needs.store.view(), request.filters
        found = [task for task in _candidates(view, filters) if matches_task(filters, task)]
        if filters.up_to_date:
            found = [task for task in found if _is_current(view, task)]
        return api.ListTasksResponse(tasks=found)

    async def remove_task(
        self, request: api.RemoveTaskRequest, peer: object
    ) -> api.RemoveTaskResponse:
        """Delete a task from the store, whatever it does."""
        if not request.task_id:
            raise invalid_argument()

        def change(tx: Transaction) -> None:
            try:
                tx.delete(api.Task, request.task_id)
            except ObjectMissing:
                raise NotFound(not_found("task", request.task_id)) from None

        await self.needs.committer.update(change)
        return api.RemoveTaskResponse()


def _candidates(view: View, filters: api.ListTasksRequest.Filters) -> Iterable[api.Task]:
    """A superset of what matches, sorted by id."""
    if filters.service_ids:
        index, keys = "service", unique(filters.service_ids)
    elif filters.node_ids:
        index, keys = "node", unique(filters.node_ids)
    elif filters.desired_states:
        index, keys = "desired_state", unique(map(number, filters.desired_states))
    else:
        return view.all(api.Task)
    found = [task for key in keys for task in view.by(api.Task, index, key)]
    return sorted(found, key=lambda task: task.id)


def _is_current(view: View, task: api.Task) -> bool:
    service = view.get(api.Service, task.service_id)
    node = view.get(api.Node, task.node_id)
    return service is not None and is_up_to_date(service, task, node)
