"""A task spec: resources, restart, placement, references, runtime (BEHAVIOUR 4.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from google.protobuf.duration_pb2 import Duration

from swarmd import api
from swarmd.base.errors import InvalidArgument, Unimplemented
from swarmd.base.gotemplate.values import number_text, quote
from swarmd.manager.controlapi import constraints
from swarmd.manager.controlapi.durations import MILLISECOND, nanoseconds
from swarmd.manager.controlapi.images import is_image_reference
from swarmd.manager.controlapi.templating import expand_for_validation

nano_cpus_min = 1_000_000
memory_bytes_min = 4 << 20
runtime_name_length_min = 3
_RESERVED_RUNTIMES = ("container", "attachment")


def check_task_spec(spec: api.TaskSpec) -> None:
    """Check in the reference's order, which decides what the user reads."""
    if spec.HasField("resources"):
        if spec.resources.HasField("limits"):
            _check_resources(spec.resources.limits)
        if spec.resources.HasField("reservations"):
            _check_resources(spec.resources.reservations)
    if spec.HasField("restart"):
        _check_not_negative(spec.restart, "delay", "TaskSpec: restart-delay")
        _check_not_negative(spec.restart, "window", "TaskSpec: restart-window")
    constraints.parse(spec.placement.constraints)
    if spec.HasField("container"):
        _check_secret_refs(spec.container.secrets)
        _check_config_refs(spec.container)
    _check_runtime(spec)


def _check_resources(resources: api.Resources) -> None:
    cpus, memory = resources.nano_cpus, resources.memory_bytes
    if cpus != 0 and cpus < nano_cpus_min:
        shown = number_text(cpus / 1e9)
        raise InvalidArgument(f"invalid cpu value {shown}: Must be at least 0.001")
    if memory != 0 and memory < memory_bytes_min:
        raise InvalidArgument(f"invalid memory value {memory}: Must be at least 4MiB")
    # Malformed generic resources pass: the reference throws its own verdict away.


def _check_not_negative(policy: api.RestartPolicy, field: str, what: str) -> None:
    if policy.HasField(field) and nanoseconds(getattr(policy, field)) < 0:
        raise InvalidArgument(f"{what} cannot be negative")


class _Targets:
    """File names taken so far by references of one kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._taken: dict[str, str] = {}

    def take(self, name: str, file: api.FileTarget) -> None:
        if not file.name:
            raise InvalidArgument(
                f"malformed file {self._kind} reference, invalid target file name provided"
            )
        if file.name in self._taken:
            raise InvalidArgument(
                f"{self._kind} references '{self._taken[file.name]}' and '{name}' "
                f"have a conflicting target: '{file.name}'"
            )
        self._taken[file.name] = name


class _Reference(Protocol):
    def WhichOneof(self, group: str) -> str | None: ...


def _check_reference(kind: str, id: str, name: str, reference: _Reference) -> None:
    if not id or not name:
        raise InvalidArgument(f"malformed {kind} reference")
    if reference.WhichOneof("target") is None:
        raise InvalidArgument(f"malformed {kind} reference, no target provided")


def _check_secret_refs(references: Iterable[api.SecretReference]) -> None:
    targets = _Targets("secret")
    for reference in references:
        _check_reference("secret", reference.secret_id, reference.secret_name, reference)
        targets.take(reference.secret_name, reference.file)


def _check_config_refs(container: api.ContainerSpec) -> None:
    targets = _Targets("config")
    runtime_ids = set()
    for reference in container.configs:
        _check_reference("config", reference.config_id, reference.config_name, reference)
        if reference.HasField("file"):
            targets.take(reference.config_name, reference.file)
        else:
            runtime_ids.add(reference.config_id)
    wanted = container.privileges.credential_spec.config
    if wanted and wanted not in runtime_ids:
        raise InvalidArgument(
            f"CredentialSpec references config '{wanted}', but that config isn't in "
            "config references with RuntimeTarget"
        )


def _check_runtime(spec: api.TaskSpec) -> None:
    runtime = spec.WhichOneof("runtime")
    if runtime is None:
        raise InvalidArgument("TaskSpec: missing runtime")
    if runtime == "container":
        _check_container(expand_for_validation(spec))
    elif runtime == "generic":
        _check_generic(spec.generic)
    else:
        raise Unimplemented("RuntimeSpec: unimplemented runtime in service spec")


def _check_container(container: api.ContainerSpec) -> None:
    """The spec with its templates expanded."""
    if not container.image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    if not is_image_reference(container.image):
        raise InvalidArgument(
            f"ContainerSpec: {quote(container.image)} is not a valid repository/tag"
        )
    targets = set()
    for mount in container.mounts:
        if mount.target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)
    if container.HasField("healthcheck"):
        _check_health(container.healthcheck)


def _check_health(health: api.HealthConfig) -> None:
    times: tuple[tuple[str, str], ...] = (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    )
    for field, name in times:
        value: Duration = getattr(health, field)
        if nanoseconds(value) != 0 and nanoseconds(value) < MILLISECOND:
            raise InvalidArgument(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("ContainerSpec: Retries in HealthConfig cannot be negative")


def _check_generic(generic: api.GenericRuntimeSpec) -> None:
    if len(generic.kind.encode()) < runtime_name_length_min:
        raise InvalidArgument(f"Generic runtime: Invalid name {quote(generic.kind)}")
    if generic.kind.lower() in _RESERVED_RUNTIMES:
        raise InvalidArgument(f"Generic runtime: {quote(generic.kind)} is a reserved name")
    if not generic.HasField("payload"):
        raise InvalidArgument("Generic runtime is missing payload")
    if not generic.payload.type_url:
        raise InvalidArgument("Generic runtime is missing payload type")
    if not generic.payload.value:
        raise InvalidArgument("Generic runtime has an empty payload")
