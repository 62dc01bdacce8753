"""Endpoints and their published ports."""

from __future__ import annotations

from swarmd import api
from swarmd.faces.engineapi.convert.common import Json, numbers, put, quoted, words
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.errors import bad_request

_mode_word = words(api.EndpointSpec.ResolutionMode)
_protocol_word = words(api.PortConfig.Protocol)
_publish_word = words(api.PortConfig.PublishMode)
_MODES = numbers(api.EndpointSpec.ResolutionMode)
_PROTOCOLS = numbers(api.PortConfig.Protocol)
_PUBLISH_MODES = numbers(api.PortConfig.PublishMode)


def port_json(port: api.PortConfig) -> Json:
    """One port, its numbers unless zero."""
    out: Json = {}
    put(out, "Name", port.name)
    out["Protocol"] = _protocol_word(port.protocol)
    put(out, "TargetPort", port.target_port)
    put(out, "PublishedPort", port.published_port)
    out["PublishMode"] = _publish_word(port.publish_mode)
    return out


def endpoint_spec_json(spec: api.EndpointSpec) -> Json:
    """What was asked for."""
    out: Json = {"Mode": _mode_word(spec.mode)}
    put(out, "Ports", [port_json(port) for port in spec.ports])
    return out


def endpoint_json(endpoint: api.Endpoint) -> Json:
    """What was allocated; virtual addresses carry their prefix length."""
    has_spec = endpoint.HasField("spec")
    out: Json = {"Spec": endpoint_spec_json(endpoint.spec) if has_spec else {}}
    put(out, "Ports", [port_json(port) for port in endpoint.ports])
    addresses = []
    for address in endpoint.virtual_ips:
        shown: Json = {}
        put(shown, "NetworkID", address.network_id)
        put(shown, "Addr", address.addr)
        addresses.append(shown)
    put(out, "VirtualIPs", addresses)
    return out


def fill_endpoint(fields: Fields, spec: api.EndpointSpec) -> None:
    """An endpoint spec of a request."""
    mode = fields.text("Mode")
    if mode not in ("", "vip", "dnsrr"):
        raise bad_request(f"invalid resolution mode: {quoted(mode)}")
    spec.SetInParent()
    spec.mode = _MODES.get(mode, 0)
    for item in fields.children("Ports"):
        port = spec.ports.add(
            name=item.text("Name"),
            target_port=item.number("TargetPort", "uint32"),
            published_port=item.number("PublishedPort", "uint32"),
        )
        # Unknown words count as the first, as in stock engines.
        port.protocol = _PROTOCOLS.get(item.text("Protocol").lower(), 0)
        port.publish_mode = _PUBLISH_MODES.get(item.text("PublishMode").lower(), 0)
