"""Extensions: kinds of objects that others define. Created, read, removed; never changed."""

from __future__ import annotations

from swarmd import api
from swarmd.base.entropy import new_id
from swarmd.base.errors import AlreadyExists, InvalidArgument, NotFound
from swarmd.cluster.store import NameConflict, Transaction
from swarmd.manager.controlapi.seams import Calls, listed, not_found

resources_named_max = 10


class ExtensionCalls(Calls):
    """CreateExtension, GetExtension, RemoveExtension."""

    async def create_extension(
        self, request: api.CreateExtensionRequest, peer: object
    ) -> api.CreateExtensionResponse:
        """Register a kind."""
        if not request.annotations.name:
            raise InvalidArgument("extension name must be provided")
        wanted = api.Extension(
            id=new_id(self.needs.entropy),
            annotations=request.annotations,
            description=request.description,
        )

        def change(tx: Transaction) -> api.Extension:
            try:
                return tx.create(wanted)
            except NameConflict:
                name = request.annotations.name
                raise AlreadyExists(f"extension {name} already exists") from None

        return api.CreateExtensionResponse(extension=await self.needs.committer.update(change))

    async def get_extension(
        self, request: api.GetExtensionRequest, peer: object
    ) -> api.GetExtensionResponse:
        """One extension, by id."""
        if not request.extension_id:
            raise InvalidArgument("extension ID must be provided")
        extension = self.needs.store.view().get(api.Extension, request.extension_id)
        if extension is None:
            raise NotFound(not_found("extension", request.extension_id))
        return api.GetExtensionResponse(extension=extension)

    async def remove_extension(
        self, request: api.RemoveExtensionRequest, peer: object
    ) -> api.RemoveExtensionResponse:
        """Delete a kind that has no objects.

        The friendly refusal looks for resources by the extension's *id*, as the reference
        does; those filed under its name are noticed by the store, with its own text.
        """
        if not request.extension_id:
            raise InvalidArgument("extension ID must be provided")

        def change(tx: Transaction) -> None:
            extension = tx.get(api.Extension, request.extension_id)
            if extension is None:
                raise NotFound(f"could not find extension {request.extension_id}")
            users = tx.by(api.Resource, "kind", extension.id)[:resources_named_max]
            if users:
                word, joined = listed([user.annotations.name for user in users], "resource")
                raise InvalidArgument(
                    f"extension '{extension.annotations.name}' is in use by the following "
                    f"{word}: {joined}"
                )
            tx.delete(api.Extension, extension.id)

        await self.needs.committer.update(change)
        return api.RemoveExtensionResponse()
