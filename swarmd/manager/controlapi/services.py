"""Services: wishes written to the store; making tasks of them is the orchestrator's work."""

from __future__ import annotations

from swarmd import api
from swarmd.base.entropy import new_id
from swarmd.base.errors import AlreadyExists, FailedPrecondition, NotFound
from swarmd.base.timestamps import timestamp
from swarmd.cluster.store import NameConflict, ObjectMissing, Transaction, View, edit
from swarmd.manager.controlapi import validate_service as validate
from swarmd.manager.controlapi.defaults import with_defaults
from swarmd.manager.controlapi.filters import matches_service
from swarmd.manager.controlapi.seams import NAME_CONFLICT, Calls, invalid_argument, not_found
from swarmd.manager.controlapi.statuses import service_status

_PREVIOUS = api.UpdateServiceRequest.Rollback.PREVIOUS


class ServiceCalls(Calls):
    """Create, Get, List, Update and Remove services, and count their tasks."""

    async def create_service(
        self, request: api.CreateServiceRequest, peer: object
    ) -> api.CreateServiceResponse:
        """Store a new service, its spec version at zero."""
        if not request.HasField("spec"):
            raise invalid_argument()
        spec = request.spec
        validate.check_service_spec(spec)
        wanted = api.Service(id=new_id(self.needs.entropy), spec=spec)
        wanted.spec_version.SetInParent()
        if validate.is_job(spec):
            wanted.job_status.job_iteration.SetInParent()
            wanted.job_status.last_execution.CopyFrom(timestamp(self.needs.clock.now()))

        def change(tx: Transaction) -> api.Service:
            validate.check_networks(tx, spec)
            validate.check_ports(tx, spec)
            validate.check_ingress_present(tx, spec)
            validate.check_payloads_exist(tx, spec)
            try:
                return tx.create(wanted)
            except NameConflict:
                name = spec.annotations.name
                raise AlreadyExists(f"{NAME_CONFLICT}: service {name} already exists") from None

        return api.CreateServiceResponse(service=await self.needs.committer.update(change))

    async def get_service(
        self, request: api.GetServiceRequest, peer: object
    ) -> api.GetServiceResponse:
        """One service; with `insert_defaults` the gaps in its spec are filled."""
        if not request.service_id:
            raise invalid_argument()
        service = self.needs.store.view().get(api.Service, request.service_id)
        if service is None:
            raise NotFound(not_found("service", request.service_id))
        response = api.GetServiceResponse(service=service)
        if request.insert_defaults:
            response.service.spec.CopyFrom(with_defaults(service.spec))
        return response

    async def list_services(
        self, request: api.ListServicesRequest, peer: object
    ) -> api.ListServicesResponse:
        """All services that match."""
        found = [
            service
            for service in self.needs.store.view().all(api.Service)
            if matches_service(request.filters, service)
        ]
        return api.ListServicesResponse(services=found)

    async def list_service_statuses(
        self, request: api.ListServiceStatusesRequest, peer: object
    ) -> api.ListServiceStatusesResponse:
        """Desired, running and completed tasks per service asked for, known or not."""
        view = self.needs.store.view()
        return api.ListServiceStatusesResponse(
            statuses=[
                service_status(id, view.get(api.Service, id), view.by(api.Task, "service", id))
                for id in request.services
            ]
        )

    async def update_service(
        self, request: api.UpdateServiceRequest, peer: object
    ) -> api.UpdateServiceResponse:
        """Replace the spec and keep the old one, or go back to the one before.

        A rollback's own spec must be valid too, and is otherwise unused.
        """
        if not request.service_id or not request.HasField("service_version"):
            raise invalid_argument()
        if not request.HasField("spec"):
            raise invalid_argument()
        validate.check_service_spec(request.spec)

        def change(tx: Transaction) -> api.Service:
            validate.check_networks(tx, request.spec)
            stored = tx.get(api.Service, request.service_id)
            if stored is None:
                raise NotFound(not_found("service", request.service_id))
            _check_update(tx, stored, request.spec)
            service = edit(stored)
            service.meta.version.CopyFrom(request.service_version)
            if service.HasField("job_status"):
                service.job_status.job_iteration.index += 1
                service.job_status.last_execution.CopyFrom(timestamp(self.needs.clock.now()))
            if request.rollback == _PREVIOUS:
                self._roll_back(service)
            else:
                _roll_forward(service, request)
            validate.check_ingress_present(tx, service.spec)
            return tx.update(service)

        return api.UpdateServiceResponse(service=await self.needs.committer.update(change))

    def _roll_back(self, service: api.Service) -> None:
        """Swap present and previous, both ways, so a second rollback returns."""
        if not service.HasField("previous_spec"):
            raise FailedPrecondition(f"service {service.id} does not have a previous spec")
        before = edit(service)
        service.spec.CopyFrom(before.previous_spec)
        service.previous_spec.CopyFrom(before.spec)
        _copy_version(before, "previous_spec_version", service, "spec_version")
        _copy_version(before, "spec_version", service, "previous_spec_version")
        service.update_status.CopyFrom(
            api.UpdateStatus(
                state=api.UpdateStatus.UpdateState.ROLLBACK_STARTED,
                message="manually requested rollback",
                started_at=timestamp(self.needs.clock.now()),
            )
        )

    async def remove_service(
        self, request: api.RemoveServiceRequest, peer: object
    ) -> api.RemoveServiceResponse:
        """Delete a service at once; its tasks follow by the orchestrator."""
        if not request.service_id:
            raise invalid_argument()

        def change(tx: Transaction) -> None:
            try:
                tx.delete(api.Service, request.service_id)
            except ObjectMissing:
                raise NotFound(not_found("service", request.service_id)) from None

        await self.needs.committer.update(change)
        return api.RemoveServiceResponse()


def _check_update(view: View, stored: api.Service, spec: api.ServiceSpec) -> None:
    present = stored.spec
    same = present.HasField("endpoint") and spec.endpoint == present.endpoint
    if spec.HasField("endpoint") and not same:
        validate.check_ports(view, spec, stored.id)
    validate.check_networks_migrate(present, spec)
    validate.check_payloads_exist(view, spec)
    validate.check_same_service(present, spec)


def _roll_forward(service: api.Service, request: api.UpdateServiceRequest) -> None:
    """The new spec's version is the one the caller saw, not the one being written."""
    service.previous_spec.CopyFrom(service.spec)
    _copy_version(service, "spec_version", service, "previous_spec_version")
    service.spec.CopyFrom(request.spec)
    service.spec_version.CopyFrom(request.service_version)
    service.ClearField("update_status")


def _copy_version(source: api.Service, field: str, target: api.Service, name: str) -> None:
    target.ClearField(name)
    if source.HasField(field):
        getattr(target, name).CopyFrom(getattr(source, field))
