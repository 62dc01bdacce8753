"""The filters of list requests, pure: values of one key are OR, keys are AND."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from swarmd import api
from swarmd.cluster.model.names import runtime, task_name


class NameFilters(Protocol):
    """What every list request can filter by."""

    @property
    def names(self) -> Sequence[str]:
        """Exact names."""
        ...

    @property
    def id_prefixes(self) -> Sequence[str]:
        """Beginnings of ids."""
        ...

    @property
    def name_prefixes(self) -> Sequence[str]:
        """Beginnings of names."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels that must be there; an empty value accepts any."""
        ...


def one_of(value: str, wanted: Sequence[str]) -> bool:
    """True when nothing is wanted or `value` is among it."""
    return not wanted or value in wanted


def begins(value: str, prefixes: Sequence[str]) -> bool:
    """True when nothing is wanted or `value` begins with one of it."""
    return not prefixes or value.startswith(tuple(prefixes))


def labelled(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """True when every wanted key is there, with the wanted value unless that is empty."""
    return all(key in labels and value in ("", labels[key]) for key, value in wanted.items())


def matches(filters: NameFilters, id: str, annotations: api.Annotations) -> bool:
    """The common part for clusters, services, networks and volumes."""
    return (
        one_of(annotations.name, filters.names)
        and begins(annotations.name, filters.name_prefixes)
        and begins(id, filters.id_prefixes)
        and labelled(annotations.labels, filters.labels)
    )


def matches_any_name(filters: NameFilters, id: str, annotations: api.Annotations) -> bool:
    """The rule of secrets, configs and resources: names, prefixes and ids together are one OR.

    Names are compared in lower case there, since the reference only asks its name index.
    """
    wanted = (*filters.names, *filters.name_prefixes, *filters.id_prefixes)
    name = annotations.name.lower()
    named = (
        not wanted
        or any(name == other.lower() for other in filters.names)
        or any(name.startswith(other.lower()) for other in filters.name_prefixes)
        or any(id.startswith(other) for other in filters.id_prefixes)
    )
    return named and labelled(annotations.labels, filters.labels)


def matches_node(filters: api.ListNodesRequest.Filters, node: api.Node) -> bool:
    """Nodes: names mean the hostname, `labels` the engine's, `node_labels` the spec's.

    A node that never described itself fails every filter on its description, the one by an
    empty name prefix too.
    """
    described = node.HasField("description")
    hostname = node.description.hostname
    if (filters.names or filters.name_prefixes) and not described:
        return False
    if filters.labels and not node.description.HasField("engine"):
        return False
    return (
        one_of(hostname, filters.names)
        and begins(hostname, filters.name_prefixes)
        and begins(node.id, filters.id_prefixes)
        and labelled(node.description.engine.labels, filters.labels)
        and labelled(node.spec.annotations.labels, filters.node_labels)
        and (not filters.roles or node.role in filters.roles)
        and (not filters.memberships or node.spec.membership in filters.memberships)
    )


def matches_service(filters: api.ListServicesRequest.Filters, service: api.Service) -> bool:
    """Services: the common part and the runtime."""
    return matches(filters, service.id, service.spec.annotations) and in_runtimes(
        service.spec.task, filters.runtimes
    )


def matches_task(filters: api.ListTasksRequest.Filters, task: api.Task) -> bool:
    """Tasks: everything but `up_to_date`, which needs the service."""
    name = task_name(task)
    return (
        one_of(name, filters.names)
        and begins(name, filters.name_prefixes)
        and begins(task.id, filters.id_prefixes)
        and labelled(task.service_annotations.labels, filters.labels)
        and one_of(task.service_id, filters.service_ids)
        and one_of(task.node_id, filters.node_ids)
        and in_runtimes(task.spec, filters.runtimes)
        and (not filters.desired_states or task.desired_state in filters.desired_states)
    )


def in_runtimes(spec: api.TaskSpec, wanted: Sequence[str]) -> bool:
    """True when nothing is wanted or the spec's runtime, if it has one, is among it."""
    if not wanted:
        return True
    found = runtime(spec)
    return bool(found) and found in wanted


def matches_volume(filters: api.ListVolumesRequest.Filters, volume: api.Volume) -> bool:
    """Volumes: the common part, group and driver; one without a driver never matches."""
    return (
        matches(filters, volume.id, volume.spec.annotations)
        and one_of(volume.spec.group, filters.groups)
        and volume.spec.HasField("driver")
        and one_of(volume.spec.driver.name, filters.drivers)
    )


def unique(values: Iterable[str]) -> list[str]:
    """The values without repeats, in order."""
    return list(dict.fromkeys(values))
