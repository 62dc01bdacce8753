"""Fills in what a network needs before anyone can use it (BEHAVIOUR 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, ip_interface

from swarmd import api
from swarmd.cluster.allocator.ipam import (
    DEFAULT_POOL,
    DEFAULT_SUBNET_BITS,
    CannotAllocate,
    parse_address,
    parse_pools,
    parse_subnet,
)
from swarmd.cluster.allocator.ledger import (
    OVERLAY,
    VXLAN_OPTION,
    Block,
    Desk,
    is_allocated,
    vxlan_ids,
)
from swarmd.cluster.store import View, edit

DEFAULT_IPAM = "default"
NODE_LOCAL_DRIVERS = frozenset({"bridge", "host", "ipvlan", "macvlan"})
INTERNAL_LABEL = "com.docker.swarm.internal"
INGRESS = "ingress"


def is_ingress(network: api.Network) -> bool:
    """True for the routing mesh's network, also as very old clusters mark it."""
    annotations = network.spec.annotations
    legacy = INTERNAL_LABEL in annotations.labels and annotations.name == INGRESS
    return network.spec.ingress or legacy


def ingress_of(view: View) -> api.Network | None:
    """The ingress network, the allocated one first; it may have been removed."""
    found = [network for network in view.all(api.Network) if is_ingress(network)]
    found.sort(key=lambda network: not is_allocated(network))
    return found[0] if found else None


def unallocated(view: View) -> list[api.Network]:
    """Networks that wait for us: ingress first, then in the order of their creation.

    A second ingress network is not ours to serve.
    """
    ingress = ingress_of(view)
    waiting = [network for network in view.all(api.Network) if not is_allocated(network)]
    waiting = [n for n in waiting if not is_ingress(n) or (ingress and n.id == ingress.id)]
    waiting.sort(key=_creation)
    return waiting


def pools_of(cluster: api.Cluster | None) -> tuple[Sequence[IPv4Network], int]:
    """The cluster's default pools and the prefix length of subnets cut from them.

    The length counts only together with a given pool, as in the reference.
    """
    pools = () if cluster is None else parse_pools(tuple(cluster.defaultAddressPool))
    if cluster is None or not pools:
        return parse_pools((DEFAULT_POOL,)), DEFAULT_SUBNET_BITS
    return pools, cluster.subnetSize or DEFAULT_SUBNET_BITS


def allocate(
    network: api.Network, desk: Desk, pools: Sequence[IPv4Network], bits: int
) -> api.Network:
    """The network with driver state and addresses. Raises CannotAllocate, having taken nothing."""
    draft = edit(network)
    driver = network.spec.driver_config.name or OVERLAY
    if driver in NODE_LOCAL_DRIVERS:
        draft.driver_state.Clear()
        draft.driver_state.name = driver
        draft.ipam.Clear()
        draft.ipam.driver.SetInParent()  # old engines expect it, empty
        return draft
    if driver != OVERLAY:
        raise CannotAllocate(f"network driver {driver} not found")
    mark = desk.mark()
    try:
        _fill_ipam(draft, desk, pools, bits)
        _fill_driver(draft, desk)
    except CannotAllocate:
        desk.undo_to(mark)
        raise
    return draft


def _fill_ipam(draft: api.Network, desk: Desk, pools: Sequence[IPv4Network], bits: int) -> None:
    name = draft.spec.ipam.driver.name or DEFAULT_IPAM
    if name != DEFAULT_IPAM:
        raise CannotAllocate(f"could not resolve IPAM driver {name}")
    # What an earlier leader has begun counts before what the operator asked for.
    source = draft.ipam if draft.HasField("ipam") else draft.spec.ipam
    configs = [edit_config(config) for config in source.configs]
    if not configs:
        configs = [api.IPAMConfig(family=api.IPAMConfig.AddressFamily.IPV4)]
    draft.ipam.Clear()
    draft.ipam.driver.name = name
    draft.ipam.driver.options.update(draft.spec.ipam.driver.options)
    for config in configs:
        _fill_config(draft.id, config, desk, pools, bits)
    draft.ipam.configs.extend(configs)


def edit_config(config: api.IPAMConfig) -> api.IPAMConfig:
    """A private copy."""
    copy = api.IPAMConfig()
    copy.CopyFrom(config)
    return copy


def _fill_config(
    network_id: str, config: api.IPAMConfig, desk: Desk, pools: Sequence[IPv4Network], bits: int
) -> None:
    asked = parse_subnet(config.subnet) if config.subnet else None
    if asked is None or int(asked.network_address) == 0:
        if asked is not None and asked.version != 4:
            raise CannotAllocate("there is no default pool for IPv6")
        # None at all, or 0.0.0.0/26: a subnet of that size from the pools.
        length = asked.prefixlen if asked is not None and asked.prefixlen else bits
        subnet = desk.pool_subnet(pools, length)
        block = Block(subnet, None)
        config.subnet = str(subnet)
    else:
        block = Block(asked, parse_subnet(config.range) if config.range else None)
        # Shown as it was asked for, host bits too: tools compare the two, and would make it anew.
        config.subnet = str(ip_interface(config.subnet))
    desk.take_block(network_id, block)
    if config.gateway:
        gateway = parse_address(config.gateway)
        if gateway is None:
            raise CannotAllocate(f"invalid gateway {config.gateway}")
        # A gateway given by the operator may lie outside the range, not outside the subnet.
        desk.take_address(network_id, Block(block.subnet, None), gateway)
    else:
        config.gateway = str(desk.take_address(network_id, block))


def _fill_driver(draft: api.Network, desk: Desk) -> None:
    options = dict(draft.spec.driver_config.options)
    options.update(draft.driver_state.options)
    wanted = vxlan_ids(options)
    count = sum(
        1 for config in draft.ipam.configs if config.family != api.IPAMConfig.AddressFamily.IPV6
    )
    if count == 0:
        raise CannotAllocate("an overlay network needs an IPv4 subnet")
    ids = [
        desk.take_vxlan(wanted[index] if index < len(wanted) else None) for index in range(count)
    ]
    options[VXLAN_OPTION] = ",".join(map(str, ids))
    draft.driver_state.Clear()
    draft.driver_state.name = OVERLAY
    draft.driver_state.options.update(options)


def _creation(network: api.Network) -> tuple[bool, int, int, str]:
    created = network.meta.created_at
    return not is_ingress(network), created.seconds, created.nanos, network.id
