"""`node inspect --pretty`: one node for people, in docker's layout to the last tab."""

from __future__ import annotations

from typing import Any

from swarmctl.gotext import Stamp
from swarmctl.human import capitalised, size


def pretty_node(node: dict[str, Any]) -> str:
    """The whole text, without the last line break."""
    spec, status = node["Spec"], node.get("Status", {})
    description = node.get("Description", {})
    lines = [f"ID:\t\t\t{node['ID']}"]
    if spec.get("Name"):
        lines.append(f"Name:\t\t\t{spec['Name']}")
    lines += _labels("Labels:", spec.get("Labels") or {})
    lines += [
        f"Hostname:              \t{description.get('Hostname', '')}",
        f"Joined at:             \t{capitalised(Stamp(node['CreatedAt']))}",
        "Status:",
        f" State:\t\t\t{capitalised(status.get('State', ''))}",
    ]
    if status.get("Message"):
        lines.append(f" Message:              \t{capitalised(status['Message'])}")
    lines.append(f" Availability:         \t{capitalised(spec.get('Availability', ''))}")
    if status.get("Addr"):
        lines.append(f" Address:\t\t{status['Addr']}")
    if node.get("ManagerStatus"):
        lines += _manager(node["ManagerStatus"])
    return "\n".join(lines + _host(description) + _tls(description.get("TLSInfo") or {}))


def _labels(title: str, labels: dict[str, str]) -> list[str]:
    if not labels:
        return []
    return [
        title,
        *(f" - {key}" + (f"={labels[key]}" * bool(labels[key])) for key in sorted(labels)),
    ]


def _manager(manager: dict[str, Any]) -> list[str]:
    return [
        "Manager Status:",
        f" Address:\t\t{manager.get('Addr', '')}",
        f" Raft Status:\t\t{capitalised(manager.get('Reachability', ''))}",
        f" Leader:\t\t{'Yes' if manager.get('Leader') else 'No'}",
    ]


def _host(description: dict[str, Any]) -> list[str]:
    platform, engine = description.get("Platform", {}), description.get("Engine", {})
    resources = description.get("Resources", {})
    memory = resources.get("MemoryBytes", 0)
    lines = [
        "Platform:",
        f" Operating System:\t{platform.get('OS', '')}",
        f" Architecture:\t\t{platform.get('Architecture', '')}",
        "Resources:",
        f" CPUs:\t\t\t{resources.get('NanoCPUs', 0) // 10**9}",
        f" Memory:\t\t{size(memory) if memory else ''}",
    ]
    plugins: dict[str, list[str]] = {}
    for plugin in engine.get("Plugins") or []:
        plugins.setdefault(plugin.get("Type", ""), []).append(plugin.get("Name", ""))
    if plugins:
        lines.append("Plugins:")
        lines += [f" {kind}:\t\t{', '.join(plugins[kind])}" for kind in sorted(plugins)]
    lines.append(f"Engine Version:\t\t{engine.get('EngineVersion', '')}")
    return lines + _labels("Engine Labels:", engine.get("Labels") or {})


def _tls(info: dict[str, Any]) -> list[str]:
    if not any(info.get(key) for key in ("TrustRoot", "CertIssuerSubject", "CertIssuerPublicKey")):
        return []
    return [
        "TLS Info:",
        " TrustRoot:",
        info.get("TrustRoot", ""),
        f" Issuer Subject:\t{info.get('CertIssuerSubject', '')}",
        f" Issuer Public Key:\t{info.get('CertIssuerPublicKey', '')}",
    ]
