"""The dispatcher's writes, as functions on one store transaction. Pure.

It owns `Node.status`, `Node.description`, and `Task.status` from ACCEPTED on; nothing else
is touched here. All functions write only what differs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from swarmd import api
from swarmd.base import limits
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.base.timestamps import timestamp
from swarmd.cluster.store import Transaction, View, edit

log = logging.getLogger(__name__)

T = TypeVar("T")

READY = api.NodeStatus.READY
DOWN = api.NodeStatus.DOWN
UNKNOWN = api.NodeStatus.UNKNOWN
DISCONNECTED = api.NodeStatus.DISCONNECTED
PENDING_UNPUBLISH = api.VolumePublishStatus.PENDING_UNPUBLISH

# The texts users see in `docker node inspect`.
HEARTBEAT_FAILURE = "heartbeat failure"
UNKNOWN_HEARTBEAT_FAILURE = 'heartbeat failure for node in "unknown" state'
MOVED_TO_UNKNOWN = 'Node moved to "unknown" state due to leadership change in cluster'
FINDING_MANAGER = "node is currently trying to find new manager"
NODE_NOT_FOUND = "node not found"

# One transaction must fit one raft entry beside what others write: a share of it.
write_bytes_max = limits.batch_bytes_max // 2
write_objects_max = limits.changes_per_entry_max // 2
stamp_bytes = 128  # meta, applied_by and applied_at
# What a node may tell of itself; stock engines need a few thousand bytes. Ours: a node whose
# object fills an entry could not be called DOWN any more, nor UNKNOWN by the next leader.
description_bytes_max = 256 << 10
# Stock leaders take larger ones. With these bytes for state and message it must fit alone.
node_bytes_max = limits.entry_bytes_max - 512


def portions(sized: Iterable[tuple[T, int]]) -> Iterator[list[T]]:
    """Cut (item, bytes) pairs into lists that each fit one transaction."""
    portion: list[T] = []
    total = 0
    for item, size in sized:
        full = len(portion) >= write_objects_max or total + size > write_bytes_max
        if portion and full:
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += size
    if portion:
        yield portion


def node_portions(view: View, node_ids: Iterable[str]) -> Iterator[list[str]]:
    """Cut node ids so that writing each list's node objects fits one transaction.

    A node that would not fit into an entry at all is left out and logged: a leadership must
    not end over it.
    """
    sized = []
    for node_id in node_ids:
        node = view.get(api.Node, node_id)
        if node is None:
            continue
        size = node.ByteSize()
        if size > node_bytes_max:
            log.warning("node %s is too large to be written, its state stays", node_id)
        else:
            sized.append((node_id, size))
    return portions(sized)


def check_description(description: api.NodeDescription) -> None:
    """Raise InvalidArgument for one that is too large to be kept."""
    size = description.ByteSize()
    if size > description_bytes_max:
        raise InvalidArgument(
            f"node description of {size} bytes is larger than {description_bytes_max}"
        )


def task_portions(
    view: View, task_ids: Iterable[str], added_bytes: Callable[[str], int]
) -> Iterator[list[str]]:
    """Cut task ids so that writing each list's task objects fits one transaction.

    `added_bytes` says what a write may add to the task. A task that would not fit into an
    entry at all is left out and logged: it must not hold up the others for ever.
    """
    sized = []
    for task_id in task_ids:
        task = view.get(api.Task, task_id)
        if task is None:
            continue
        size = task.ByteSize() + added_bytes(task_id) + stamp_bytes
        if size > limits.batch_bytes_max:
            log.warning("report of task %s is too large to be written, left out", task_id)
        else:
            sized.append((task_id, size))
    return portions(sized)


def mark_ready(
    tx: Transaction, node_id: str, description: api.NodeDescription | None, addr: str
) -> None:
    """The node has registered: READY, with its description and observed address.

    An empty `addr` keeps the address known before. Raises SwarmError `node not found`.
    """
    node = tx.get(api.Node, node_id)
    if node is None:
        raise SwarmError(NODE_NOT_FOUND)
    draft = edit(node)
    draft.status.state = READY
    draft.status.message = ""
    if addr:
        draft.status.addr = addr
    if description is not None:
        draft.description.CopyFrom(description)
    if draft != node:
        tx.update(draft)


def mark_nodes(
    tx: Transaction, node_ids: Iterable[str], state: api.NodeStatus.State, message: str
) -> None:
    """Set state and message of nodes that are there; address and description stay."""
    for node_id in node_ids:
        node = tx.get(api.Node, node_id)
        if node is None:
            continue
        if node.status.state == state and node.status.message == message:
            continue
        draft = edit(node)
        draft.status.state = state
        draft.status.message = message
        tx.update(draft)


def orphan_tasks(tx: Transaction, task_ids: Iterable[str]) -> None:
    """Give up tasks that may have made progress on a node nobody has heard of for long."""
    for task_id in task_ids:
        task = tx.get(api.Task, task_id)
        if task is None or not may_progress(task):
            continue
        draft = edit(task)
        draft.status.state = api.TaskState.ORPHANED
        tx.update(draft)


def may_progress(task: api.Task) -> bool:
    """Whether the node may have moved the task on without our knowing."""
    return api.TaskState.ASSIGNED <= task.status.state <= api.TaskState.RUNNING


def reported(status: api.TaskStatus, applied_by: str, now: float) -> api.TaskStatus:
    """A copy of a node's report, stamped by the leader."""
    copy = api.TaskStatus()
    copy.CopyFrom(status)
    copy.applied_by = applied_by
    copy.applied_at.CopyFrom(timestamp(now))
    return copy


def says_more(task: api.Task, status: api.TaskStatus) -> bool:
    """Whether a report changes what is stored; a state never goes back."""
    if task.status.state > status.state:
        return False
    stored = api.TaskStatus()
    stored.CopyFrom(task.status)
    fresh = api.TaskStatus()
    fresh.CopyFrom(status)
    for copy in (stored, fresh):
        copy.ClearField("applied_by")
        copy.ClearField("applied_at")
    return bool(stored != fresh)


def set_statuses(
    tx: Transaction, statuses: Iterable[tuple[str, api.TaskStatus]], leader_id: str, now: float
) -> None:
    """Write task reports; unknown tasks and reports that say nothing new are passed over."""
    for task_id, status in statuses:
        task = tx.get(api.Task, task_id)
        if task is None or not says_more(task, status):
            continue
        draft = edit(task)
        draft.status.CopyFrom(reported(status, leader_id, now))
        tx.update(draft)


def is_published(view: View, volume_id: str, node_id: str) -> bool:
    """Whether a volume is there that was published to this node."""
    volume = view.get(api.Volume, volume_id)
    return volume is not None and any(s.node_id == node_id for s in volume.publish_status)


def mark_unpublished(tx: Transaction, pairs: Iterable[tuple[str, str]]) -> None:
    """Nodes say they have let go of volumes: (volume id, node id)."""
    for volume_id, node_id in pairs:
        volume = tx.get(api.Volume, volume_id)
        if volume is None:
            continue
        draft = edit(volume)
        for status in draft.publish_status:
            if status.node_id == node_id:
                status.state = PENDING_UNPUBLISH
                break
        if draft != volume:
            tx.update(draft)
