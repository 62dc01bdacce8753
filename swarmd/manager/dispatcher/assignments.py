"""What one node should have, and what changed since it was last told. Pure.

An `AssignmentSet` mirrors what a node was sent: tasks, the secrets and configs they use,
and CSI volumes. `look_at_task` and `look_at_volume` compare one object of the store with
that mirror; `take` hands out the changes gathered so far. Rules from the reference
(manager/dispatcher/assignments.go, api/equality), facts in wire/PROTOCOL 5.3.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from swarmd import api
from swarmd.cluster.store import View

log = logging.getLogger(__name__)

ASSIGNED = api.TaskState.ASSIGNED
RUNNING = api.TaskState.RUNNING
SECRET = api.ResourceType.SECRET
CONFIG = api.ResourceType.CONFIG
VOLUME = api.ResourceType.VOLUME
TASK = api.ResourceType.TASK
PUBLISHED = api.VolumePublishStatus.PUBLISHED
PENDING_NODE_UNPUBLISH = api.VolumePublishStatus.PENDING_NODE_UNPUBLISH

# Nodes take changes in any order; we send what tasks need before the tasks.
ORDER = {SECRET: 0, CONFIG: 1, VOLUME: 2, TASK: 3}


class Key(NamedTuple):
    """One assigned object: its type and id."""

    kind: api.ResourceType
    id: str


class Needs(NamedTuple):
    """What a task uses: by `resource_references`, and by its container spec."""

    references: tuple[Key, ...]
    secrets: tuple[Key, ...]
    configs: tuple[Key, ...]

    def all(self) -> Iterable[Key]:
        """Each key once, in a fixed order."""
        return dict.fromkeys((*self.references, *self.secrets, *self.configs))


def needs_of(task: api.Task) -> Needs:
    """The secrets and configs `task` uses; references of other types mean nothing here."""
    spec = task.spec
    return Needs(
        tuple(
            Key(ref.resource_type, ref.resource_id)
            for ref in spec.resource_references
            if ref.resource_type in (SECRET, CONFIG)
        ),
        tuple(Key(SECRET, ref.secret_id) for ref in spec.container.secrets),
        tuple(Key(CONFIG, ref.config_id) for ref in spec.container.configs),
    )


def differs(a: api.Task, b: api.Task) -> bool:
    """Whether a node has to hear of the step from `a` to `b`.

    Status and meta do not count: the status came from the node itself.
    """
    if a is b:
        return False
    stripped = []
    for task in (a, b):
        copy = api.Task()
        copy.CopyFrom(task)
        copy.ClearField("status")
        copy.ClearField("meta")
        stripped.append(copy)
    return bool(stripped[0] != stripped[1])


class AssignmentSet:
    """What one node was told, and the changes it has not been told yet."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self._tasks: dict[str, api.Task] = {}
        self._volumes: dict[str, int] = {}  # volume id -> publish state last told
        self._users: dict[Key, dict[str, None]] = {}  # who uses a secret or config
        self._uses: dict[str, tuple[Key, ...]] = {}  # what a task or volume uses
        self._has: set[Key] = set()  # secrets and configs the node holds
        self._changes: dict[Key, api.AssignmentChange] = {}

    def load(self, view: View) -> None:
        """Look at everything there is for this node."""
        for task in view.by(api.Task, "node", self.node_id):
            self.look_at_task(view, task.id)
        for volume in view.all(api.Volume):
            if self._publication(volume) is not None:
                self.look_at_volume(view, volume.id)

    def tasks(self) -> list[api.Task]:
        """The tasks the node should know, by id."""
        return [self._tasks[id] for id in sorted(self._tasks)]

    def take(self) -> list[api.AssignmentChange]:
        """The changes since the last call, dependencies before tasks."""
        keys = sorted(self._changes, key=lambda key: (ORDER[key.kind], key.id))
        changes = [self._changes[key] for key in keys]
        self._changes.clear()
        return changes

    def look_at_task(self, view: View, task_id: str) -> bool:
        """Compare one task with what the node was told; True when it must hear of it."""
        task = view.get(api.Task, task_id)
        if task is None or task.node_id != self.node_id:
            return self._drop_task(task_id)
        state = task.status.state
        if state < ASSIGNED:
            return False
        known = self._tasks.get(task_id)
        self._tasks[task_id] = task
        if known is None:
            if state <= RUNNING:
                self._use_for_task(view, task)
            self._tell_task(task)
            return True
        released = state > RUNNING and self._release(task_id)
        # States up to ASSIGNED are set by managers, so the node has not seen them yet.
        told = differs(known, task) or (state <= ASSIGNED and known != task)
        if told or Key(TASK, task_id) in self._changes:
            self._tell_task(task)
        return told or released

    def look_at_volume(self, view: View, volume_id: str) -> bool:
        """Compare one CSI volume with what the node was told; True when it must hear of it."""
        volume = view.get(api.Volume, volume_id)
        status = self._publication(volume) if volume is not None else None
        known = self._volumes.get(volume_id)
        if volume is None or status is None or status.state > PENDING_NODE_UNPUBLISH:
            if known is None:
                return False
            # The node was told to let go while PENDING_NODE_UNPUBLISH; only the
            # secrets of the volume are left to take back.
            del self._volumes[volume_id]
            return self._release(volume_id)
        if status.state < PUBLISHED or status.state == known:
            return False
        if known is None:
            self._use_for_volume(view, volume)
        self._volumes[volume_id] = status.state
        self._tell_volume(volume, status)
        return True

    def _publication(self, volume: api.Volume) -> api.VolumePublishStatus | None:
        for status in volume.publish_status:
            if status.node_id == self.node_id:
                return status
        return None

    def _tell_task(self, task: api.Task) -> None:
        self._changes[Key(TASK, task.id)] = api.AssignmentChange(
            assignment=api.Assignment(task=task), action=api.AssignmentChange.UPDATE
        )

    def _tell_volume(self, volume: api.Volume, status: api.VolumePublishStatus) -> None:
        leaving = status.state == PENDING_NODE_UNPUBLISH
        assignment = api.VolumeAssignment(
            id=volume.id,
            volume_id=volume.volume_info.volume_id,
            volume_context=volume.volume_info.volume_context,
            publish_context=status.publish_context,
            secrets=volume.spec.secrets,
        )
        if volume.spec.HasField("driver"):
            assignment.driver.CopyFrom(volume.spec.driver)
        if volume.spec.HasField("access_mode"):
            assignment.access_mode.CopyFrom(volume.spec.access_mode)
        self._changes[Key(VOLUME, volume.id)] = api.AssignmentChange(
            assignment=api.Assignment(volume=assignment),
            action=api.AssignmentChange.REMOVE if leaving else api.AssignmentChange.UPDATE,
        )

    def _drop_task(self, task_id: str) -> bool:
        if self._tasks.pop(task_id, None) is None:
            return False
        self._changes[Key(TASK, task_id)] = api.AssignmentChange(
            assignment=api.Assignment(task=api.Task(id=task_id)),
            action=api.AssignmentChange.REMOVE,
        )
        self._release(task_id)
        return True

    def _use_for_task(self, view: View, task: api.Task) -> None:
        needs = needs_of(task)
        for key in needs.all():
            # Upstream sends a container's secrets again with each new task, so that
            # driver-made values can differ; what is only referenced goes out once.
            again = key in needs.secrets and key not in needs.references
            self._use(view, key, task.id, again)
        self._uses[task.id] = tuple(needs.all())

    def _use_for_volume(self, view: View, volume: api.Volume) -> None:
        keys = tuple(dict.fromkeys(Key(SECRET, s.secret) for s in volume.spec.secrets))
        for key in keys:
            self._use(view, key, volume.id, again=False)
        self._uses[volume.id] = keys

    def _use(self, view: View, key: Key, user: str, again: bool) -> None:
        self._users.setdefault(key, {})[user] = None
        if key in self._has and not again:
            return
        assignment = self._whole(view, key, user)
        if assignment is None:
            return
        self._has.add(key)
        self._changes[key] = api.AssignmentChange(
            assignment=assignment, action=api.AssignmentChange.UPDATE
        )

    def _whole(self, view: View, key: Key, user: str) -> api.Assignment | None:
        """The object with its data, or None when it cannot be had (logged)."""
        if key.kind == CONFIG:
            config = view.get(api.Config, key.id)
            if config is not None:
                return api.Assignment(config=config)
            log.warning("config %s used by %s not found", key.id, user)
            return None
        secret = view.get(api.Secret, key.id)
        if secret is None:
            log.warning("secret %s used by %s not found", key.id, user)
            return None
        if secret.spec.HasField("driver"):
            # The reference asks a plugin of the leader's engine; there is none here.
            log.warning(
                "secret %s used by %s needs secret driver %s, which this manager does not have",
                key.id,
                user,
                secret.spec.driver.name,
            )
            return None
        return api.Assignment(secret=secret)

    def _release(self, user: str) -> bool:
        """`user` needs its secrets and configs no more; True when the node must drop some."""
        modified = False
        for key in self._uses.pop(user, ()):
            users = self._users[key]
            users.pop(user, None)
            if users:
                continue
            del self._users[key]
            if key not in self._has:
                continue
            self._has.discard(key)
            if key.kind == SECRET:
                bare = api.Assignment(secret=api.Secret(id=key.id))
            else:
                bare = api.Assignment(config=api.Config(id=key.id))
            self._changes[key] = api.AssignmentChange(
                assignment=bare, action=api.AssignmentChange.REMOVE
            )
            modified = True
        return modified
