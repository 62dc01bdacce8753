"""Networks: created unallocated, removed when nothing uses them."""

from __future__ import annotations

from swarmd import api
from swarmd.base.entropy import new_id
from swarmd.base.errors import AlreadyExists, FailedPrecondition, NotFound
from swarmd.cluster.store import NameConflict, Transaction
from swarmd.manager.controlapi.filters import matches
from swarmd.manager.controlapi.seams import (
    Calls,
    NameTaken,
    invalid_argument,
    is_ingress,
    needs_ingress,
    not_found,
)
from swarmd.manager.controlapi.validate_network import PREDEFINED, check_network_spec


class NetworkCalls(Calls):
    """CreateNetwork, GetNetwork, ListNetworks, RemoveNetwork.

    `appdata` of the requests belongs to an engine's own hooks and changes nothing here.
    """

    async def create_network(
        self, request: api.CreateNetworkRequest, peer: object
    ) -> api.CreateNetworkResponse:
        """Store a new network; the allocator gives it subnets and a VXLAN id later."""
        if not request.HasField("spec"):
            raise invalid_argument()
        check_network_spec(request.spec, self.needs.plugins)
        wanted = api.Network(id=new_id(self.needs.entropy), spec=request.spec)

        def change(tx: Transaction) -> api.Network:
            if request.spec.ingress:
                present = next(filter(is_ingress, tx.all(api.Network)), None)
                if present is not None:
                    raise AlreadyExists(f"ingress network ({present.id}) is already present")
            try:
                return tx.create(wanted)
            except NameConflict:
                raise NameTaken from None

        network = await self.needs.committer.update(change)
        return api.CreateNetworkResponse(network=network)

    async def get_network(
        self, request: api.GetNetworkRequest, peer: object
    ) -> api.GetNetworkResponse:
        """One network, by id."""
        if not request.network_id:
            raise invalid_argument()
        network = self.needs.store.view().get(api.Network, request.network_id)
        if network is None:
            raise NotFound(not_found("network", request.network_id))
        return api.GetNetworkResponse(network=network)

    async def list_networks(
        self, request: api.ListNetworksRequest, peer: object
    ) -> api.ListNetworksResponse:
        """All networks that match."""
        found = [
            network
            for network in self.needs.store.view().all(api.Network)
            if matches(request.filters, network.id, network.spec.annotations)
        ]
        return api.ListNetworksResponse(networks=found)

    async def remove_network(
        self, request: api.RemoveNetworkRequest, peer: object
    ) -> api.RemoveNetworkResponse:
        """Delete a network by id. Tasks already told to go do not hold it."""
        if not request.network_id:
            raise invalid_argument()

        def change(tx: Transaction) -> None:
            network = tx.get(api.Network, request.network_id)
            if network is None:
                raise NotFound(not_found("network", request.network_id))
            annotations = network.spec.annotations
            if annotations.labels.get(PREDEFINED) == "true":
                raise FailedPrecondition(
                    f"network {network.id} ({annotations.name}) is a swarm predefined network "
                    "and cannot be removed"
                )
            if is_ingress(network):
                _check_mesh_unused(tx)
            else:
                _check_unused(tx, network.id)
            tx.delete(api.Network, network.id)

        await self.needs.committer.update(change)
        return api.RemoveNetworkResponse()


def _check_mesh_unused(tx: Transaction) -> None:
    for service in tx.all(api.Service):
        if needs_ingress(service.spec):
            raise FailedPrecondition(
                f"ingress network cannot be removed because service {service.id} depends on it"
            )


def _check_unused(tx: Transaction, network_id: str) -> None:
    services = tx.by(api.Service, "network", network_id)
    if services:
        raise FailedPrecondition(f"network {network_id} is in use by service {services[0].id}")
    running = api.TaskState.RUNNING
    for task in tx.by(api.Task, "network", network_id):
        if task.desired_state <= running and task.status.state <= running:
            raise FailedPrecondition(f"network {network_id} is in use by task {task.id}")
