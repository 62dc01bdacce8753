"""Small questions to the daemon that several commands ask."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from swarmctl.connect import Client
from swarmctl.errors import CliError


def path_of(kind: str, id: str) -> str:
    """`/nodes/<id>`, `/networks/<id>`; an empty id would ask for the list instead."""
    if not id.strip():
        raise CliError(f"invalid {kind} name or ID: value is empty")
    return f"/{kind}s/{quote(id.strip(), safe='/:@!$&()*+,;=')}"


def node_path(id: str) -> str:
    """`/nodes/<id>`."""
    return path_of("node", id)


def own_node(client: Client, reference: str) -> str:
    """A node's reference, with `self` looked up."""
    if reference != "self":
        return reference
    node_id = str(client.get("/info").json()["Swarm"]["NodeID"])
    if not node_id:
        client.get("/nodes")  # says what is wrong: not in a swarm, not a manager, locked
        raise CliError("node ID not found in /info")
    return node_id


def node_names(client: Client) -> list[str]:
    """For completion: hostnames, and `self`."""
    nodes: list[dict[str, Any]] = client.get("/nodes").json()
    return [*sorted(node["Description"].get("Hostname", "") for node in nodes), "self"]


def network_names(client: Client) -> list[str]:
    """For completion."""
    return sorted(network["Name"] for network in client.get("/networks").json())
