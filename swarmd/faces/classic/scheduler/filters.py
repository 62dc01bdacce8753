"""Filters: which nodes may take a container. Each takes nodes and gives those that remain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from swarmd.faces.classic.scheduler import expressions
from swarmd.faces.classic.scheduler.errors import NO_HEALTHY_NODE, NO_SLOTS, BadExpression, NoNode
from swarmd.faces.classic.scheduler.expressions import Expression
from swarmd.faces.classic.scheduler.names import split_reference
from swarmd.faces.classic.scheduler.node import Node
from swarmd.faces.classic.scheduler.wish import Wish

Nodes = list[Node]


@dataclass(frozen=True, slots=True)
class Filter:
    """A named filter. `describe` lists the conditions for the message when none remains."""

    name: str
    keep: Callable[[Wish, Nodes, bool], Nodes]  # raises NoNode, BadExpression
    describe: Callable[[Wish], list[str]]


def _healthy(wish: Wish, nodes: Nodes, soft: bool) -> Nodes:
    kept = [node for node in nodes if node.health > 0]
    if not kept:
        raise NoNode(NO_HEALTHY_NODE)
    return kept


def _with_ports(wish: Wish, nodes: Nodes, soft: bool) -> Nodes:
    if wish.network_mode == "host":
        for port in sorted(wish.body.get("ExposedPorts") or {}):
            nodes = _need(
                [node for node in nodes if not _exposed(node, port)],
                f"unable to find a node with port {port} available in the Host mode",
            )
        return nodes
    for binding in _bindings(wish.host.get("PortBindings")):
        nodes = _need(
            [node for node in nodes if not _in_use(node, binding)],
            f"unable to find a node with port {binding.get('HostPort', '')} available",
        )
    return nodes


def _exposed(node: Node, port: str) -> bool:
    for container in node.containers:
        host = container.info.get("HostConfig") or {}
        if host.get("NetworkMode") == "host":
            config = container.info.get("Config") or {}
            if port in (config.get("ExposedPorts") or {}):
                return True
    return False


def _in_use(node: Node, wanted: dict[str, Any]) -> bool:
    for container in node.containers:
        if container.id:
            host = container.info.get("HostConfig") or {}
            network = container.info.get("NetworkSettings") or {}
            taken = [*_bindings(host.get("PortBindings")), *_bindings(network.get("Ports"))]
        else:
            taken = list(_bindings(container.wish.host.get("PortBindings")))
        if any(_same_port(wanted, other) for other in taken):
            return True
    return False


def _bindings(ports: Any) -> Iterator[dict[str, Any]]:
    for port in sorted(ports or {}):
        for binding in ports[port] or ():
            if isinstance(binding, dict):
                yield binding


def _same_port(wanted: dict[str, Any], taken: dict[str, Any]) -> bool:
    port = taken.get("HostPort")
    if not port or port != wanted.get("HostPort"):
        return False
    ours, theirs = wanted.get("HostIp") or "", taken.get("HostIp") or ""
    return ours == theirs or _all_interfaces(ours) or _all_interfaces(theirs)


def _all_interfaces(ip: str) -> bool:
    try:
        return not ip or ip_address(ip).is_unspecified
    except ValueError:
        return False


def _describe_ports(wish: Wish) -> list[str]:
    if wish.network_mode == "host":
        return [f"port {port} (Host mode)" for port in sorted(wish.body.get("ExposedPorts") or {})]
    return [
        f"port {binding.get('HostPort', '')} (Bridge mode)"
        for binding in _bindings(wish.host.get("PortBindings"))
    ]


def _with_slots(wish: Wish, nodes: Nodes, soft: bool) -> Nodes:
    return _need([node for node in nodes if _has_slot(node)], NO_SLOTS)


def _has_slot(node: Node) -> bool:
    try:
        slots = int(node.labels["containerslots"])
    except (KeyError, ValueError):  # no label, or not a number: no limit
        return True
    return len(node.containers) < slots


def _with_dependencies(wish: Wish, nodes: Nodes, soft: bool) -> Nodes:
    if not nodes:
        return nodes
    needed = [
        str(item).partition(":")[0]
        for key in ("VolumesFrom", "Links")
        for item in wish.host.get(key) or ()
    ]
    if wish.network_mode.startswith("container:"):
        needed.append(wish.network_mode.removeprefix("container:"))
    return _need(
        [node for node in nodes if all(node.container(name) for name in needed)],
        "Unable to find a node fulfilling all dependencies: " + " ".join(_describe_needs(wish)),
    )


def _describe_needs(wish: Wish) -> list[str]:
    needs = [f"--volumes-from={item}" for item in wish.host.get("VolumesFrom") or ()]
    needs += [f"--link={item}" for item in wish.host.get("Links") or ()]
    if wish.network_mode.startswith("container:"):
        needs.append(f"--net={wish.network_mode}")
    return needs


def _conditional(
    kind: str, noun: str, holds: Callable[[Expression, Node], bool]
) -> Callable[[Wish, Nodes, bool], Nodes]:
    """A filter made of expressions; soft ones count only in the first round."""

    def keep(wish: Wish, nodes: Nodes, soft: bool) -> Nodes:
        for condition in expressions.parse(wish.expressions(kind)):
            if condition.soft and not soft:
                continue
            nodes = _need(
                [node for node in nodes if holds(condition, node)],
                f"unable to find a node that satisfies the {noun} {condition}",
            )
        return nodes

    return keep


def _affinity_holds(condition: Expression, node: Node) -> bool:
    found: list[str] = []
    if condition.key == "container":
        for container in node.containers:
            if container.names:
                found += [container.id, container.names[0].removeprefix("/")]
    elif condition.key == "image":
        for image in node.images:
            tags = list(image.get("RepoTags") or ())
            found += [str(image.get("Id") or ""), *tags]
            found += [split_reference(tag)[0] for tag in tags]
    else:
        for container in node.containers:
            labels = container.summary.get("Labels") or container.wish.labels
            found.append(labels.get(condition.key) or "")
    return condition.matches(*found)


def _constraint_holds(condition: Expression, node: Node) -> bool:
    if condition.key == "node":
        return condition.matches(node.id, node.name)
    return condition.matches(node.labels.get(condition.key, ""))


def _on_whitelist(condition: Expression, node: Node) -> bool:
    return node.name in condition.value.split("|")


def _need(nodes: Nodes, message: str) -> Nodes:
    if not nodes:
        raise NoNode(message)
    return nodes


def _describer(kind: str, *, softness: bool) -> Callable[[Wish], list[str]]:
    def describe(wish: Wish) -> list[str]:
        return [
            f"{item} (soft={str(item.soft).lower()})" if softness else str(item)
            for item in expressions.parse(wish.expressions(kind))
        ]

    return describe


# In the order they are applied and shown.
FILTERS: dict[str, Filter] = {
    made.name: made
    for made in (
        Filter("health", _healthy, lambda wish: []),
        Filter("port", _with_ports, _describe_ports),
        Filter("containerslots", _with_slots, lambda wish: ["available container slots"]),
        Filter("dependency", _with_dependencies, _describe_needs),
        Filter(
            "affinity",
            _conditional("affinities", "affinity", _affinity_holds),
            _describer("affinities", softness=True),
        ),
        Filter(
            "constraint",
            _conditional("constraints", "constraint", _constraint_holds),
            _describer("constraints", softness=False),
        ),
        Filter(
            "whitelist",
            _conditional("whitelists", "whitelist", _on_whitelist),
            _describer("whitelists", softness=True),
        ),
    )
}


def apply(filters: Sequence[Filter], wish: Wish, nodes: Sequence[Node], *, soft: bool) -> Nodes:
    """Nodes that pass all filters; raises `NoNode` with the conditions up to the failed one."""
    kept = list(nodes)
    for number, filter in enumerate(filters):
        try:
            kept = filter.keep(wish, kept, soft)
        except (NoNode, BadExpression) as error:
            if filter.name == "health":
                raise
            raise NoNode(
                "Unable to find a node that satisfies the following conditions "
                + _conditions(filters[: number + 1], wish)
            ) from error
    return kept


def _conditions(filters: Sequence[Filter], wish: Wish) -> str:
    text = ""
    for filter in filters:
        try:
            found = filter.describe(wish)
        except BadExpression as error:
            return f"{text}\nerror from {filter.name} filter: {error.message}"
        if found:
            text += f"\n[{' '.join(found)}]"
    return text
