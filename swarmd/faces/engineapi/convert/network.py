"""Networks of the cluster, as GET /networks shows them, and what POST /networks/create asks."""

from __future__ import annotations

from swarmd import api
from swarmd.faces.engineapi.convert.cidr import parse_cidr
from swarmd.faces.engineapi.convert.common import (
    Json,
    annotations_json,
    driver_json,
    put,
    put_map,
    sorted_map,
    start,
    time_text,
)
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.errors import Refusal

PREDEFINED_LABEL = "com.docker.swarm.predefined"
# First API versions that show a network member, by (major, minor).
_ENABLE_IPV4 = (1, 48)
_CONTAINERS_MAP = (1, 52)


def is_ingress(network: api.Network) -> bool:
    """Whether this is the routing mesh; old clusters marked it with a label."""
    spec = network.spec
    if spec.ingress:
        return True
    labels = spec.annotations.labels
    return spec.annotations.name == "ingress" and "com.docker.swarm.internal" in labels


def is_predefined(network: api.Network) -> bool:
    """Whether it stands for a node-local network of every engine; hidden from lists."""
    return network.spec.annotations.labels.get(PREDEFINED_LABEL) == "true"


def network_json(network: api.Network, version: tuple[int, int], *, listed: bool = False) -> Json:
    """A cluster network for a client of API `version`; `listed` for GET /networks."""
    spec = network.spec
    out: Json = {
        "Name": spec.annotations.name,
        "Id": network.id,
        "Created": time_text(network.meta.created_at),
        "Scope": "swarm",
        "Driver": network.driver_state.name,
    }
    if version >= _ENABLE_IPV4:
        out["EnableIPv4"] = True
    out["EnableIPv6"] = spec.ipv6_enabled
    out["IPAM"] = _ipam(network)
    out["Internal"] = spec.internal
    out["Attachable"] = spec.attachable
    out["Ingress"] = is_ingress(network)
    out["ConfigFrom"] = {"Network": spec.network}
    out["ConfigOnly"] = False
    if version < _CONTAINERS_MAP:
        out["Containers"] = None
    elif not listed:
        out["Containers"] = {}
    out["Options"] = sorted_map(network.driver_state.options) or None
    out["Labels"] = sorted_map(spec.annotations.labels) or None
    return out


def _ipam(network: api.Network) -> Json:
    if not network.HasField("ipam"):
        return {"Driver": "", "Options": None, "Config": None}
    ipam = network.ipam
    return {
        "Driver": ipam.driver.name,
        "Options": sorted_map(ipam.driver.options) or None,
        "Config": [_ipam_config(config) for config in ipam.configs],
    }


def _ipam_config(config: api.IPAMConfig) -> Json:
    out: Json = {}
    put(out, "Subnet", config.subnet)
    put(out, "IPRange", config.range)
    put(out, "Gateway", config.gateway)
    put_map(out, "AuxiliaryAddresses", config.reserved)
    return out


def check_subnets(fields: Fields) -> None:
    """Refuse what the engine itself would refuse before asking a manager [M: 500]."""
    for item in fields.child("IPAM").children("Config"):
        subnet = item.text("Subnet")
        if parse_cidr(subnet) is None:
            raise Refusal(500, f"Invalid subnet {subnet} : invalid CIDR address: {subnet}")


def check_place(fields: Fields) -> None:
    """Refuse a cluster network without a name, or one that is to stay on a node [M: 500, 403]."""
    name, driver = fields.text("Name"), fields.text("Driver")
    if not name.strip():
        raise Refusal(500, f"invalid name: {name}")
    if fields.text("Scope") == "local":
        raise Refusal(403, f"cannot downgrade network scope for {driver} networks")


def network_spec(fields: Fields) -> api.NetworkSpec:
    """A NetworkSpec from a create request; the scope is implied by the driver."""
    spec = api.NetworkSpec(
        internal=fields.flag("Internal"),
        attachable=fields.flag("Attachable"),
        ingress=fields.flag("Ingress"),
        ipv6_enabled=fields.flag("EnableIPv6"),
    )
    spec.annotations.name = fields.text("Name")
    spec.annotations.labels.update(fields.mapping("Labels"))
    spec.driver_config.name = fields.text("Driver")
    spec.driver_config.options.update(fields.mapping("Options"))
    ipam = fields.maybe_child("IPAM")
    if ipam is not None:
        spec.ipam.driver.name = ipam.text("Driver") or "default"
        spec.ipam.driver.options.update(ipam.mapping("Options"))
        for item in ipam.children("Config"):
            spec.ipam.configs.add(
                subnet=item.text("Subnet"),
                range=item.text("IPRange"),
                gateway=item.text("Gateway"),
            )
    source = fields.maybe_child("ConfigFrom")
    if source is not None:
        spec.network = source.text("Network")
    return spec


def attached_json(attachment: api.NetworkAttachment) -> Json:
    """A task's place in a network: the whole network and the addresses."""
    network = attachment.network
    spec = annotations_json(network.spec.annotations)
    if network.spec.HasField("driver_config"):
        spec["DriverConfiguration"] = driver_json(network.spec.driver_config)
    put(spec, "IPv6Enabled", network.spec.ipv6_enabled)
    put(spec, "Internal", network.spec.internal)
    put(spec, "Attachable", network.spec.attachable)
    put(spec, "Ingress", is_ingress(network))
    if network.spec.HasField("ipam"):
        spec["IPAMOptions"] = _ipam_options(network.spec.ipam)
    if network.spec.network:
        spec["ConfigFrom"] = {"Network": network.spec.network}
    spec["Scope"] = "swarm"
    shown = start(network)
    shown["Spec"] = spec
    shown["DriverState"] = driver_json(network.driver_state)
    if network.HasField("ipam"):
        shown["IPAMOptions"] = _ipam_options(network.ipam)
    out: Json = {"Network": shown}
    put(out, "Addresses", list(attachment.addresses))
    return out


def _ipam_options(ipam: api.IPAMOptions) -> Json:
    out: Json = {"Driver": driver_json(ipam.driver)}
    configs = []
    for config in ipam.configs:
        shown: Json = {}
        put(shown, "Subnet", config.subnet)
        put(shown, "Range", config.range)
        put(shown, "Gateway", config.gateway)
        configs.append(shown)
    put(out, "Configs", configs)
    return out
