"""Resources: objects of the kinds that extensions define; opaque payloads."""

from __future__ import annotations

from swarmd import api
from swarmd.base.entropy import new_id
from swarmd.base.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from swarmd.cluster.store import NameConflict, ObjectMissing, Transaction, UnknownKind, edit
from swarmd.manager.controlapi.filters import matches_any_name
from swarmd.manager.controlapi.seams import Calls, not_found


class ResourceCalls(Calls):
    """CreateResource, GetResource, ListResources, UpdateResource, RemoveResource."""

    async def create_resource(
        self, request: api.CreateResourceRequest, peer: object
    ) -> api.CreateResourceResponse:
        """Store an object; its kind must be registered."""
        if not request.annotations.name:
            raise InvalidArgument("Resource must have a name")
        if not request.kind:
            raise InvalidArgument("Resource must belong to an Extension")
        wanted = api.Resource(
            id=new_id(self.needs.entropy), annotations=request.annotations, kind=request.kind
        )
        if request.HasField("payload"):
            wanted.payload.CopyFrom(request.payload)

        def change(tx: Transaction) -> api.Resource:
            try:
                return tx.create(wanted)
            except UnknownKind:
                raise InvalidArgument(f"Kind {request.kind} is not registered") from None
            except NameConflict:
                name = request.annotations.name
                raise AlreadyExists(f"A resource with name {name} already exists") from None

        return api.CreateResourceResponse(resource=await self.needs.committer.update(change))

    async def get_resource(
        self, request: api.GetResourceRequest, peer: object
    ) -> api.GetResourceResponse:
        """One resource, by id."""
        if not request.resource_id:
            raise InvalidArgument("resource ID must be present")
        resource = self.needs.store.view().get(api.Resource, request.resource_id)
        if resource is None:
            raise NotFound(not_found("resource", request.resource_id))
        return api.GetResourceResponse(resource=resource)

    async def list_resources(
        self, request: api.ListResourcesRequest, peer: object
    ) -> api.ListResourcesResponse:
        """All resources that match."""
        view, filters = self.needs.store.view(), request.filters
        if filters.kind:
            candidates = view.by(api.Resource, "kind", filters.kind)
        else:
            candidates = view.all(api.Resource)
        found = [
            resource
            for resource in candidates
            if matches_any_name(filters, resource.id, resource.annotations)
        ]
        return api.ListResourcesResponse(resources=found)

    async def update_resource(
        self, request: api.UpdateResourceRequest, peer: object
    ) -> api.UpdateResourceResponse:
        """Replace annotations and payload, each only if given. A name is for life."""
        if not request.resource_id or not request.HasField("resource_version"):
            raise InvalidArgument("must include ID and version")

        def change(tx: Transaction) -> api.Resource:
            stored = tx.get(api.Resource, request.resource_id)
            if stored is None:
                raise NotFound(not_found("resource", request.resource_id))
            resource = edit(stored)
            if request.HasField("annotations"):
                if request.annotations.name != stored.annotations.name:
                    raise InvalidArgument("cannot change resource name")
                resource.annotations.CopyFrom(request.annotations)
            resource.meta.version.CopyFrom(request.resource_version)
            if request.HasField("payload"):
                resource.payload.CopyFrom(request.payload)
            try:
                return tx.update(resource)
            except Conflict as error:
                raise InvalidArgument(error.message) from None

        return api.UpdateResourceResponse(resource=await self.needs.committer.update(change))

    async def remove_resource(
        self, request: api.RemoveResourceRequest, peer: object
    ) -> api.RemoveResourceResponse:
        """Delete a resource."""
        if not request.resource_id:
            raise InvalidArgument("resource ID must be present")

        def change(tx: Transaction) -> None:
            try:
                tx.delete(api.Resource, request.resource_id)
            except ObjectMissing:
                raise NotFound(not_found("resource", request.resource_id)) from None

        await self.needs.committer.update(change)
        return api.RemoveResourceResponse()
