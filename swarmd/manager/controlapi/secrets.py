"""Secrets: their data comes in here and never goes out."""

from __future__ import annotations

from swarmd import api
from swarmd.base.entropy import new_id
from swarmd.base.errors import AlreadyExists, InvalidArgument, NotFound, SwarmError
from swarmd.cluster.store import NameConflict, Transaction, edit
from swarmd.manager.controlapi import redact
from swarmd.manager.controlapi.filters import matches_any_name
from swarmd.manager.controlapi.seams import Calls, invalid_argument, listed, not_found
from swarmd.manager.controlapi.validate_payload import check_labels_only, check_secret_spec


class SecretCalls(Calls):
    """CreateSecret, GetSecret, ListSecrets, UpdateSecret, RemoveSecret."""

    async def create_secret(
        self, request: api.CreateSecretRequest, peer: object
    ) -> api.CreateSecretResponse:
        """Store a secret; one with a driver needs the plugin to be there."""
        if not request.HasField("spec"):
            raise invalid_argument()
        check_secret_spec(request.spec)
        driver = request.spec.driver.name
        if driver and not self.needs.plugins.has(driver, "secretprovider"):
            raise SwarmError(f'plugin "{driver}" not found')
        wanted = api.Secret(id=new_id(self.needs.entropy), spec=request.spec)

        def change(tx: Transaction) -> api.Secret:
            try:
                return tx.create(wanted)
            except NameConflict:
                name = request.spec.annotations.name
                raise AlreadyExists(f"secret {name} already exists") from None

        secret = await self.needs.committer.update(change)
        return api.CreateSecretResponse(secret=redact.secret(secret))

    async def get_secret(
        self, request: api.GetSecretRequest, peer: object
    ) -> api.GetSecretResponse:
        """One secret, without its data."""
        if not request.secret_id:
            raise InvalidArgument("secret ID must be provided")
        secret = self.needs.store.view().get(api.Secret, request.secret_id)
        if secret is None:
            raise NotFound(not_found("secret", request.secret_id))
        return api.GetSecretResponse(secret=redact.secret(secret))

    async def list_secrets(
        self, request: api.ListSecretsRequest, peer: object
    ) -> api.ListSecretsResponse:
        """All secrets that match and are not internal, without their data."""
        found = [
            redact.secret(secret)
            for secret in self.needs.store.view().all(api.Secret)
            if not secret.internal
            and matches_any_name(request.filters, secret.id, secret.spec.annotations)
        ]
        return api.ListSecretsResponse(secrets=found)

    async def update_secret(
        self, request: api.UpdateSecretRequest, peer: object
    ) -> api.UpdateSecretResponse:
        """Replace the labels, and nothing else."""
        if not request.secret_id or not request.HasField("secret_version"):
            raise invalid_argument()
        if not request.HasField("spec"):
            raise invalid_argument()

        def change(tx: Transaction) -> api.Secret:
            stored = tx.get(api.Secret, request.secret_id)
            if stored is None:
                raise NotFound(not_found("secret", request.secret_id))
            check_labels_only(stored.spec, request.spec)
            secret = edit(stored)
            secret.meta.version.CopyFrom(request.secret_version)
            labels = secret.spec.annotations.labels
            labels.clear()
            labels.update(request.spec.annotations.labels)
            return tx.update(secret)

        secret = await self.needs.committer.update(change)
        return api.UpdateSecretResponse(secret=redact.secret(secret))

    async def remove_secret(
        self, request: api.RemoveSecretRequest, peer: object
    ) -> api.RemoveSecretResponse:
        """Delete a secret that no service uses."""
        if not request.secret_id:
            raise InvalidArgument("secret ID must be provided")

        def change(tx: Transaction) -> None:
            secret = tx.get(api.Secret, request.secret_id)
            if secret is None:
                raise NotFound(f"could not find secret {request.secret_id}")
            check_unused(tx, "secret", secret)
            tx.delete(api.Secret, secret.id)

        await self.needs.committer.update(change)
        return api.RemoveSecretResponse()


def check_unused(tx: Transaction, kind: str, payload: api.Secret | api.Config) -> None:
    """Refuse to remove a secret or config that services still name."""
    names = [service.spec.annotations.name for service in tx.by(api.Service, kind, payload.id)]
    if names:
        word, joined = listed(names, "service")
        raise InvalidArgument(
            f"{kind} '{payload.spec.annotations.name}' is in use by the following {word}: {joined}"
        )
