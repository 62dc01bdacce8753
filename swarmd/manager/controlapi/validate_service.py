"""A service spec, and what of it depends on other objects (BEHAVIOUR 4.5). Pure.

Order of the checks: annotations, task, mode, update, endpoint; then, over a view, networks,
port conflicts, presence of the ingress network, secrets and configs.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarmd import api
from swarmd.base.errors import FailedPrecondition, InvalidArgument, Unimplemented
from swarmd.base.gotemplate.values import quote
from swarmd.cluster.store import View
from swarmd.manager.controlapi.durations import nanoseconds
from swarmd.manager.controlapi.seams import is_ingress, listed, needs_ingress
from swarmd.manager.controlapi.validate_names import check_dns_name
from swarmd.manager.controlapi.validate_task import check_task_spec

_INT64_MAX = 2**63 - 1
_INGRESS = api.PortConfig.PublishMode.INGRESS
_HOST = api.PortConfig.PublishMode.HOST
_Port = tuple[int, int]  # protocol, published port


def is_job(spec: api.ServiceSpec) -> bool:
    """True for the two run-to-completion modes."""
    return spec.WhichOneof("mode") in ("replicated_job", "global_job")


def check_service_spec(spec: api.ServiceSpec) -> None:
    """Everything that can be said about a spec alone."""
    check_dns_name(spec.annotations)
    check_task_spec(spec.task)
    _check_mode(spec)
    if spec.HasField("update"):
        if is_job(spec):
            raise InvalidArgument("Jobs may not have an update config")
        _check_update(spec.update)
    if spec.HasField("endpoint"):
        _check_endpoint(spec.endpoint)


def _check_mode(spec: api.ServiceSpec) -> None:
    """Numbers above int64 are negative ones that somebody cast."""
    mode = spec.WhichOneof("mode")
    if mode is None:
        raise InvalidArgument("Unrecognized service mode")
    if spec.replicated.replicas > _INT64_MAX:
        raise InvalidArgument("Number of replicas must be non-negative")
    if spec.replicated_job.max_concurrent > _INT64_MAX:
        raise InvalidArgument("Maximum concurrent jobs must not be negative")
    if spec.replicated_job.total_completions > _INT64_MAX:
        raise InvalidArgument("Total completed jobs must not be negative")


def _check_update(update: api.UpdateConfig) -> None:
    if nanoseconds(update.delay) < 0:
        raise InvalidArgument("TaskSpec: update-delay cannot be negative")
    if nanoseconds(update.monitor) < 0:
        raise InvalidArgument("TaskSpec: update-monitor cannot be negative")
    if update.max_failure_ratio < 0 or update.max_failure_ratio > 1:
        raise InvalidArgument(
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"
        )


def _check_endpoint(endpoint: api.EndpointSpec) -> None:
    taken: set[_Port] = set()
    dnsrr = endpoint.mode == api.EndpointSpec.ResolutionMode.DNSRR
    for port in endpoint.ports:
        if dnsrr and port.publish_mode == _INGRESS:
            raise InvalidArgument(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
            )
        if port.published_port == 0:
            continue
        if _key(port) in taken:
            raise InvalidArgument("EndpointSpec: duplicate published ports provided")
        taken.add(_key(port))


def _key(port: api.PortConfig) -> _Port:
    return int(port.protocol), port.published_port


def check_networks(view: View, spec: api.ServiceSpec) -> None:
    """The routing mesh's network cannot be joined by name; unknown ones are looked at later."""
    for attachment in spec.task.networks:
        network = view.get(api.Network, attachment.target)
        if network is not None and is_ingress(network):
            raise InvalidArgument(
                "Service cannot be explicitly attached to the ingress network "
                + quote(network.spec.annotations.name)
            )


def check_ports(view: View, spec: api.ServiceSpec, service_id: str = "") -> None:
    """Published ports against those of other services; `service_id` is the one being updated.

    Two services may share a host port: the scheduler keeps them apart.
    """
    ports = [port for port in spec.endpoint.ports if port.published_port]
    ingress = {_key(port) for port in ports if port.publish_mode == _INGRESS}
    host = {_key(port) for port in ports if port.publish_mode == _HOST}
    if not ingress and not host:
        return
    for service in view.all(api.Service):
        if service.id != service_id:
            _check_against(service, service.spec.endpoint.ports, ingress, host)
            _check_against(service, service.endpoint.ports, ingress, host)


def _check_against(
    service: api.Service, ports: Iterable[api.PortConfig], ingress: set[_Port], host: set[_Port]
) -> None:
    for port in ports:
        key = _key(port)
        if port.published_port == 0:
            continue
        if port.publish_mode == _HOST and key in ingress:
            how = "a host-published port"
        elif port.publish_mode == _INGRESS and (key in ingress or key in host):
            how = "an ingress port"
        else:
            continue
        name = service.spec.annotations.name
        raise InvalidArgument(
            f"port '{port.published_port}' is already in use by service '{name}' "
            f"({service.id}) as {how}"
        )


def check_ingress_present(view: View, spec: api.ServiceSpec) -> None:
    """A service with mesh ports needs the mesh."""
    if needs_ingress(spec) and not any(map(is_ingress, view.all(api.Network))):
        raise FailedPrecondition("service needs ingress network, but no ingress network is present")


def check_payloads_exist(view: View, spec: api.ServiceSpec) -> None:
    """Secrets and configs by id, with the name the reference claims."""
    secrets = [
        reference.secret_name
        for reference in spec.task.container.secrets
        if _name(view.get(api.Secret, reference.secret_id)) != reference.secret_name
    ]
    _refuse_missing("secret", secrets)
    configs = [
        reference.config_name
        for reference in spec.task.container.configs
        if _name(view.get(api.Config, reference.config_id)) != reference.config_name
    ]
    _refuse_missing("config", configs)


def _name(payload: api.Secret | api.Config | None) -> str | None:
    return None if payload is None else payload.spec.annotations.name


def _refuse_missing(kind: str, names: list[str]) -> None:
    if names:
        word, joined = listed(names, kind)
        raise InvalidArgument(f"{word} not found: {joined}")


def check_networks_migrate(stored: api.ServiceSpec, wanted: api.ServiceSpec) -> None:
    """The old service-level networks change only together with the task's."""
    changed = list(wanted.networks) != list(stored.networks)
    if changed and list(wanted.task.networks) == list(stored.task.networks):
        raise Unimplemented("networks must be migrated to TaskSpec before being changed")


def check_same_service(stored: api.ServiceSpec, wanted: api.ServiceSpec) -> None:
    """Mode and name are for life."""
    if stored.WhichOneof("mode") != wanted.WhichOneof("mode"):
        raise Unimplemented("service mode change is not allowed")
    if stored.annotations.name != wanted.annotations.name:
        raise Unimplemented("renaming services is not supported")
