"""Nodes."""

from __future__ import annotations

import base64
from typing import Any

from swarmd import api
from swarmd.faces.engineapi.convert.common import (
    Json,
    annotations_json,
    numbers,
    put,
    put_map,
    quoted,
    start,
    words,
)
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.errors import bad_request

role_word = words(api.NodeRole)
availability_word = words(api.NodeSpec.Availability)
state_word = words(api.NodeStatus.State)
reachability_word = words(api.RaftMemberStatus.Reachability)
_ROLES = numbers(api.NodeRole)
_AVAILABILITIES = numbers(api.NodeSpec.Availability)


def node_json(node: api.Node) -> Json:
    """A node as GET /nodes shows it. Role is the desired one, as in stock engines."""
    out = start(node)
    spec = node.spec
    view = annotations_json(spec.annotations)
    view["Role"] = role_word(spec.desired_role)
    view["Availability"] = availability_word(spec.availability)
    out["Spec"] = view
    out["Description"] = _description(node.description)
    status = node.status
    shown: Json = {"State": state_word(status.state)}
    put(shown, "Message", status.message)
    put(shown, "Addr", status.addr)
    out["Status"] = shown
    if node.HasField("manager_status"):
        out["ManagerStatus"] = _manager_status(node.manager_status)
    return out


def _manager_status(status: api.ManagerStatus) -> Json:
    out: Json = {}
    put(out, "Leader", status.leader)
    out["Reachability"] = reachability_word(status.reachability)
    put(out, "Addr", status.addr)
    return out


def _description(description: api.NodeDescription) -> Json:
    out: Json = {}
    put(out, "Hostname", description.hostname)
    platform: Json = {}
    put(platform, "Architecture", description.platform.architecture)
    put(platform, "OS", description.platform.os)
    out["Platform"] = platform
    out["Resources"] = resources_json(description.resources)
    out["Engine"] = _engine(description.engine)
    out["TLSInfo"] = _tls_info(description.tls_info)
    if description.csi_info:
        out["CSIInfo"] = [_csi(info) for info in description.csi_info]
    return out


def _engine(engine: api.EngineDescription) -> Json:
    out: Json = {}
    put(out, "EngineVersion", engine.engine_version)
    put_map(out, "Labels", engine.labels)
    if engine.plugins:
        out["Plugins"] = [_plugin(plugin) for plugin in engine.plugins]
    return out


def _plugin(plugin: api.PluginDescription) -> Json:
    out: Json = {}
    put(out, "Type", plugin.type)
    put(out, "Name", plugin.name)
    return out


def _tls_info(info: api.NodeTLSInfo) -> Json:
    out: Json = {}
    put(out, "TrustRoot", info.trust_root.decode("utf-8", "replace"))
    put(out, "CertIssuerSubject", base64.b64encode(info.cert_issuer_subject).decode())
    put(out, "CertIssuerPublicKey", base64.b64encode(info.cert_issuer_public_key).decode())
    return out


def _csi(info: api.NodeCSIInfo) -> Json:
    out: Json = {}
    put(out, "PluginName", info.plugin_name)
    put(out, "NodeID", info.node_id)
    put(out, "MaxVolumesPerNode", info.max_volumes_per_node)
    if info.HasField("accessible_topology"):
        topology: Json = {}
        put_map(topology, "Segments", info.accessible_topology.segments)
        out["AccessibleTopology"] = topology
    return out


def resources_json(resources: api.Resources) -> Json:
    """CPUs, memory and generic resources, each unless empty."""
    out: Json = {}
    put(out, "NanoCPUs", resources.nano_cpus)
    put(out, "MemoryBytes", resources.memory_bytes)
    if resources.generic:
        out["GenericResources"] = generic_json(resources.generic)
    return out


def generic_json(resources: Any) -> list[Json]:
    """Generic resources, named and discrete."""
    out: list[Json] = []
    for resource in resources:
        which = resource.WhichOneof("resource")
        if which == "named_resource_spec":
            named: Json = {}
            put(named, "Kind", resource.named_resource_spec.kind)
            put(named, "Value", resource.named_resource_spec.value)
            out.append({"NamedResourceSpec": named})
        elif which == "discrete_resource_spec":
            discrete: Json = {}
            put(discrete, "Kind", resource.discrete_resource_spec.kind)
            put(discrete, "Value", resource.discrete_resource_spec.value)
            out.append({"DiscreteResourceSpec": discrete})
    return out


def node_spec(fields: Fields) -> api.NodeSpec:
    """A NodeSpec from POST /nodes/{id}/update; role and availability must be said.

    Membership is not in the JSON and stays zero, as stock engines send it.
    """
    role = fields.text("Role")
    availability = fields.text("Availability")
    number = _ROLES.get(role.lower())
    if number is None:
        raise bad_request(f"invalid Role: {quoted(role)}")
    drain = _AVAILABILITIES.get(availability.lower())
    if drain is None:
        raise bad_request(f"invalid Availability: {quoted(availability)}")
    spec = api.NodeSpec()
    spec.desired_role = number
    spec.availability = drain
    name = fields.text("Name")
    if name:
        spec.annotations.name = name
    labels = fields.mapping("Labels")
    if labels:
        spec.annotations.labels.update(labels)
    return spec
