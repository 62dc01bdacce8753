"""Configs: like secrets, but readable."""

from __future__ import annotations

from swarmd import api
from swarmd.base.entropy import new_id
from swarmd.base.errors import AlreadyExists, InvalidArgument, NotFound
from swarmd.cluster.store import NameConflict, Transaction, edit
from swarmd.manager.controlapi.filters import matches_any_name
from swarmd.manager.controlapi.seams import Calls, invalid_argument, not_found
from swarmd.manager.controlapi.secrets import check_unused
from swarmd.manager.controlapi.validate_payload import check_config_spec, check_labels_only


class ConfigCalls(Calls):
    """CreateConfig, GetConfig, ListConfigs, UpdateConfig, RemoveConfig."""

    async def create_config(
        self, request: api.CreateConfigRequest, peer: object
    ) -> api.CreateConfigResponse:
        """Store a config."""
        if not request.HasField("spec"):
            raise invalid_argument()
        check_config_spec(request.spec)
        wanted = api.Config(id=new_id(self.needs.entropy), spec=request.spec)

        def change(tx: Transaction) -> api.Config:
            try:
                return tx.create(wanted)
            except NameConflict:
                name = request.spec.annotations.name
                raise AlreadyExists(f"config {name} already exists") from None

        return api.CreateConfigResponse(config=await self.needs.committer.update(change))

    async def get_config(
        self, request: api.GetConfigRequest, peer: object
    ) -> api.GetConfigResponse:
        """One config with its data."""
        if not request.config_id:
            raise InvalidArgument("config ID must be provided")
        config = self.needs.store.view().get(api.Config, request.config_id)
        if config is None:
            raise NotFound(not_found("config", request.config_id))
        return api.GetConfigResponse(config=config)

    async def list_configs(
        self, request: api.ListConfigsRequest, peer: object
    ) -> api.ListConfigsResponse:
        """All configs that match, with their data."""
        found = [
            config
            for config in self.needs.store.view().all(api.Config)
            if matches_any_name(request.filters, config.id, config.spec.annotations)
        ]
        return api.ListConfigsResponse(configs=found)

    async def update_config(
        self, request: api.UpdateConfigRequest, peer: object
    ) -> api.UpdateConfigResponse:
        """Replace the labels, and nothing else."""
        if not request.config_id or not request.HasField("config_version"):
            raise invalid_argument()
        if not request.HasField("spec"):
            raise invalid_argument()

        def change(tx: Transaction) -> api.Config:
            stored = tx.get(api.Config, request.config_id)
            if stored is None:
                raise NotFound(not_found("config", request.config_id))
            check_labels_only(stored.spec, request.spec)
            config = edit(stored)
            config.meta.version.CopyFrom(request.config_version)
            labels = config.spec.annotations.labels
            labels.clear()
            labels.update(request.spec.annotations.labels)
            return tx.update(config)

        return api.UpdateConfigResponse(config=await self.needs.committer.update(change))

    async def remove_config(
        self, request: api.RemoveConfigRequest, peer: object
    ) -> api.RemoveConfigResponse:
        """Delete a config that no service uses."""
        if not request.config_id:
            raise InvalidArgument("config ID must be provided")

        def change(tx: Transaction) -> None:
            config = tx.get(api.Config, request.config_id)
            if config is None:
                raise NotFound(f"could not find config {request.config_id}")
            check_unused(tx, "config", config)
            tx.delete(api.Config, config.id)

        await self.needs.committer.update(change)
        return api.RemoveConfigResponse()
