"""Placement constraints: `key==value`, `key!=value` (BEHAVIOUR 1.12). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from swarmd import api
from swarmd.base.errors import SwarmError

_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE | re.ASCII)
_NODE_LABEL, _ENGINE_LABEL = "node.labels.", "engine.labels."
_ROLES: dict[int, str] = {number: name for name, number in api.NodeRole.items()}


@dataclass(frozen=True, slots=True)
class Constraint:
    """One parsed expression; `equal` is False for `!=`."""

    key: str
    equal: bool
    value: str

    def accepts(self, found: str) -> bool:
        """Compare without regard to case."""
        return (self.value.casefold() == found.casefold()) == self.equal


def parse(expressions: Iterable[str]) -> list[Constraint]:
    """Parse a placement's constraints. Raises SwarmError (code UNKNOWN, as stock)."""
    return [_one(expression) for expression in expressions]


def _one(expression: str) -> Constraint:
    operator = next((each for each in ("==", "!=") if each in expression), None)
    if operator is None:
        raise SwarmError("constraint expected one operator from ==, !=")
    left, _, right = expression.partition(operator)
    key, value = left.strip(), right.strip()
    if not _KEY.fullmatch(key):
        raise SwarmError(f"key '{key}' is invalid")
    if not _VALUE.fullmatch(value):
        raise SwarmError(f"value '{value}' is invalid")
    return Constraint(key, operator == "==", value)


def node_matches(constraints: Iterable[Constraint], node: api.Node) -> bool:
    """True when the node satisfies all; an unknown key matches no node."""
    return all(_matches(constraint, node) for constraint in constraints)


def _matches(constraint: Constraint, node: api.Node) -> bool:
    key = constraint.key.lower()
    if key == "node.ip":
        return _matches_address(constraint, node.status.addr)
    if key.startswith(_NODE_LABEL) and len(key) > len(_NODE_LABEL):
        name = constraint.key[len(_NODE_LABEL) :]
        return constraint.accepts(node.spec.annotations.labels.get(name, ""))
    if key.startswith(_ENGINE_LABEL) and len(key) > len(_ENGINE_LABEL):
        name = constraint.key[len(_ENGINE_LABEL) :]
        return constraint.accepts(node.description.engine.labels.get(name, ""))
    plain = {
        "node.id": node.id,
        "node.hostname": node.description.hostname,
        "node.role": _ROLES.get(node.role, str(node.role)),
        "node.platform.os": node.description.platform.os,
        "node.platform.arch": node.description.platform.architecture,
    }
    return key in plain and constraint.accepts(plain[key])


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _matches_address(constraint: Constraint, addr: str) -> bool:
    own, wanted = _address(addr), _address(constraint.value)
    if wanted is not None:
        return (own == wanted) == constraint.equal
    try:
        network = ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    inside = own is not None and own.version == network.version and own in network
    return inside == constraint.equal
