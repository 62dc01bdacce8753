"""The ten kinds of stored objects: where each sits on the wire and by what it can be found.

One `Kind` per message type. Index keys are texts; enum numbers are written in decimal
(`number`), a slot as `slot_key` says. Start at the table at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from swarmd import api
from swarmd.base.errors import InvariantViolation
from swarmd.cluster.model.names import runtime, task_name

Object: TypeAlias = (
    api.Node
    | api.Service
    | api.Task
    | api.Network
    | api.Cluster
    | api.Secret
    | api.Config
    | api.Resource
    | api.Extension
    | api.Volume
)
ObjectT = TypeVar("ObjectT", bound=Object)

Keys: TypeAlias = Iterable[str]
Indexer: TypeAlias = Callable[[Any], Keys]


@dataclass(frozen=True, slots=True)
class Kind:
    """One object type and the rules of its table."""

    type: type[Any]
    target: str  # field of the oneof in StoreAction; also the word used in texts
    snapshot: str  # repeated field of StoreSnapshot
    annotations: Callable[[Any], api.Annotations]
    indexes: Mapping[str, Indexer]
    name_on_create: bool = False  # create refuses a name that is taken
    name_on_update: bool = False  # update refuses a name that another object has

    @property
    def named(self) -> bool:
        """True when names are unique within the kind."""
        return self.name_on_create


def number(value: int) -> str:
    """Index key for an enum value."""
    return str(int(value))


def slot_key(service_id: str, slot: int) -> str:
    """Key of the task index `slot`."""
    return f"{service_id}/{slot}"


def custom_key(key: str, value: str) -> str:
    """Key of the index `custom`, fed by `Annotations.indices`."""
    return f"{key}|{value}"


def _in_spec(obj: Any) -> api.Annotations:
    annotations: api.Annotations = obj.spec.annotations
    return annotations


def _on_top(obj: Any) -> api.Annotations:
    annotations: api.Annotations = obj.annotations
    return annotations


def _custom(annotations: Callable[[Any], api.Annotations]) -> Indexer:
    def keys(obj: Any) -> Keys:
        indices = annotations(obj).indices
        return {custom_key(entry.key, entry.val) for entry in indices} if indices else ()

    return keys


def _attached(attachments: Iterable[api.NetworkAttachment]) -> Keys:
    return {entry.network.id for entry in attachments}


def _targets(configs: Iterable[api.NetworkAttachmentConfig]) -> Keys:
    return {entry.target for entry in configs}


def _service_networks(service: api.Service) -> Keys:
    # Service-level networks count only when the task template names none (BEHAVIOUR 3.3).
    return _targets(service.spec.task.networks or service.spec.networks)


def _secrets(spec: api.TaskSpec) -> Keys:
    return {ref.secret_id for ref in spec.container.secrets}


def _configs(spec: api.TaskSpec) -> Keys:
    return {ref.config_id for ref in spec.container.configs}


def _text(value: str) -> Keys:
    return (value,) if value else ()


_NODE: Mapping[str, Indexer] = {
    "name": lambda node: _text(node.description.hostname.lower()),
    "role": lambda node: (number(node.role),),
    "membership": lambda node: (number(node.spec.membership),),
    "attachment": lambda node: _attached(node.attachments),
    "custom": _custom(_in_spec),
}
_SERVICE: Mapping[str, Indexer] = {
    "runtime": lambda service: _text(runtime(service.spec.task)),
    "network": _service_networks,
    "secret": lambda service: _secrets(service.spec.task),
    "config": lambda service: _configs(service.spec.task),
    "custom": _custom(_in_spec),
}
_TASK: Mapping[str, Indexer] = {
    "name": lambda task: (task_name(task).lower(),),
    "runtime": lambda task: _text(runtime(task.spec)),
    "service": lambda task: (task.service_id,),
    "node": lambda task: (task.node_id,),
    "slot": lambda task: (slot_key(task.service_id, task.slot),),
    "desired_state": lambda task: (number(task.desired_state),),
    "state": lambda task: (number(task.status.state),),
    "network": lambda task: _targets(task.spec.networks),
    "attachment": lambda task: _attached(task.networks),
    "secret": lambda task: _secrets(task.spec),
    "config": lambda task: _configs(task.spec),
    "volume": lambda task: {volume.id for volume in task.volumes},
    "custom": _custom(_on_top),
}
_RESOURCE: Mapping[str, Indexer] = {
    "kind": lambda resource: (resource.kind,),
    "custom": _custom(_on_top),
}
_VOLUME: Mapping[str, Indexer] = {
    "group": lambda volume: (volume.spec.group,),
    "driver": lambda volume: _text(volume.spec.driver.name),
    "custom": _custom(_in_spec),
}
_SPEC_ONLY: Mapping[str, Indexer] = {"custom": _custom(_in_spec)}
_TOP_ONLY: Mapping[str, Indexer] = {"custom": _custom(_on_top)}

# Names: unique per kind where the reference's table says so (PROTOCOL 4.2). Updating a
# Resource does not look at names there, and an Extension is never updated.
KINDS: tuple[Kind, ...] = (
    Kind(api.Node, "node", "nodes", _in_spec, _NODE),
    Kind(api.Service, "service", "services", _in_spec, _SERVICE, True, True),
    Kind(api.Task, "task", "tasks", _on_top, _TASK),
    Kind(api.Network, "network", "networks", _in_spec, _SPEC_ONLY, True, True),
    Kind(api.Cluster, "cluster", "clusters", _in_spec, _SPEC_ONLY, True, True),
    Kind(api.Secret, "secret", "secrets", _in_spec, _SPEC_ONLY, True, True),
    Kind(api.Config, "config", "configs", _in_spec, _SPEC_ONLY, True, True),
    Kind(api.Resource, "resource", "resources", _on_top, _RESOURCE, True),
    Kind(api.Extension, "extension", "extensions", _on_top, _TOP_ONLY, True),
    Kind(api.Volume, "volume", "volumes", _in_spec, _VOLUME, True, True),
)
BY_TYPE: Mapping[type[Any], Kind] = {kind.type: kind for kind in KINDS}
BY_TARGET: Mapping[str, Kind] = {kind.target: kind for kind in KINDS}


def kind_of(cls: type[Any]) -> Kind:
    """The kind whose objects are `cls`; anything else is a bug of the caller."""
    kind = BY_TYPE.get(cls)
    if kind is None:
        raise InvariantViolation(f"{cls.__name__} is not a stored object")
    return kind


def edit(obj: ObjectT) -> ObjectT:
    """A private copy of a stored object, to be changed and handed to `Transaction.update`.

    Fields this release does not know are kept; the version in its metadata is the one the
    update will be checked against.
    """
    copy: Any = type(obj)()
    copy.CopyFrom(obj)
    made: ObjectT = copy
    return made
