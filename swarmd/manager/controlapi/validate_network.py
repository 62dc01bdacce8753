"""A network spec (BEHAVIOUR 4.6): flags, name, driver, addresses."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from swarmd import api
from swarmd.base.errors import InvalidArgument, PermissionDenied, Unimplemented
from swarmd.manager.controlapi.seams import Plugins
from swarmd.manager.controlapi.validate_names import check_dns_name

PREDEFINED = "com.docker.swarm.predefined"
BUILT_IN_DRIVERS = frozenset(("bridge", "host", "ipvlan", "macvlan", "overlay"))
_Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address


def check_network_spec(spec: api.NetworkSpec, plugins: Plugins) -> None:
    """Everything that can be said about a network without looking at others."""
    if spec.attachable and spec.ingress:
        raise InvalidArgument("ingress network cannot be attachable")
    check_dns_name(spec.annotations)
    if PREDEFINED in spec.annotations.labels:
        raise PermissionDenied(
            f"label {PREDEFINED} is for internally created predefined networks "
            "and cannot be applied by users"
        )
    if spec.HasField("driver_config"):
        if spec.ingress and spec.driver_config.name != "overlay":
            raise Unimplemented("only overlay driver is currently supported for ingress network")
        _check_driver(spec.driver_config, BUILT_IN_DRIVERS, "NetworkDriver", plugins)
    if spec.HasField("ipam"):
        _check_ipam(spec.ipam, plugins)


def _check_driver(
    driver: api.Driver, built_in: frozenset[str], capability: str, plugins: Plugins
) -> None:
    if not driver.name:
        raise InvalidArgument("driver name: if driver is specified name is required")
    if driver.name not in built_in and not plugins.has(driver.name, capability):
        raise InvalidArgument(f"error during lookup of plugin {driver.name}")


def _check_ipam(ipam: api.IPAMOptions, plugins: Plugins) -> None:
    if ipam.HasField("driver"):
        built_in = frozenset((ipam.driver.name,) if ipam.driver.name.lower() == "default" else ())
        _check_driver(ipam.driver, built_in, "IpamDriver", plugins)
    for config in ipam.configs:
        _check_addresses(config)


def _check_addresses(config: api.IPAMConfig) -> None:
    subnet = _cidr(config.subnet)
    if subnet is None:
        raise InvalidArgument(f"ipam configuration: invalid subnet {config.subnet}")
    if config.range:
        part = _cidr(config.range)
        if part is None:
            raise InvalidArgument(f"ipam configuration: invalid range {config.range}")
        if part[0] not in subnet[1]:
            raise InvalidArgument(
                f"ipam configuration: subnet {config.subnet} does not contain range {config.range}"
            )
    if config.gateway:
        gateway = _ip(config.gateway)
        if gateway is None:
            raise InvalidArgument(f"ipam configuration: invalid gateway {config.gateway}")
        if gateway not in subnet[1]:
            raise InvalidArgument(
                f"ipam configuration: subnet {config.subnet} "
                f"does not contain gateway {config.gateway}"
            )


def _ip(text: str) -> _Address | None:
    """An address as the reference reads it: no zone, no octal."""
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _cidr(text: str) -> tuple[_Address, _Network] | None:
    """(address, network) of `address/bits`; None when it is not that."""
    head, slash, bits = text.partition("/")
    address = _ip(head)
    if address is None or not slash or not re.fullmatch(r"\d{1,3}", bits, re.ASCII):
        return None
    try:
        return address, ip_network(text, strict=False)
    except ValueError:
        return None
