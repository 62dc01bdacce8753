"""Nodes: ls, inspect, update, promote, demote, rm."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from swarmctl.command import ONE, SOME, Call, Command
from swarmctl.commands.lookup import node_names, node_path, own_node
from swarmctl.commands.pretty import pretty_node
from swarmctl.errors import CliError, joined
from swarmctl.flags import Flag
from swarmctl.human import capitalised, natural_key
from swarmctl.kinds import BOOL, LIST, STRING, pairs
from swarmctl.options import (
    INSPECT_FORMAT_HELP,
    availability,
    filter_query,
    filtered,
    formatted,
    quiet,
)
from swarmctl.output import Listing, inspect
from swarmctl.shapes import NODE, typed
from swarmd.base.gotemplate import Struct

Node = dict[str, Any]

_LISTING = Listing(
    {
        "ID": "ID",
        "Self": "",
        "Hostname": "HOSTNAME",
        "Status": "STATUS",
        "Availability": "AVAILABILITY",
        "ManagerStatus": "MANAGER STATUS",
        "EngineVersion": "ENGINE VERSION",
        "TLSStatus": "TLS STATUS",
    },
    "table {{.ID}} {{if .Self}}*{{else}} {{ end }}\\t{{.Hostname}}\\t{{.Status}}\\t"
    "{{.Availability}}\\t{{.ManagerStatus}}\\t{{.EngineVersion}}",
    "node_id: {{.ID}}\\nhostname: {{.Hostname}}\\nstatus: {{.Status}}\\n"
    "availability: {{.Availability}}\\nmanager_status: {{.ManagerStatus}}\\n",
    "node_id: {{.ID}}",
)


def _ls(call: Call) -> None:
    nodes = call.client.get("/nodes", filter_query(call.given["filter"])).json()
    info: dict[str, Any] = {}
    if nodes and not call.given["quiet"]:
        info = call.client.get("/info").json().get("Swarm") or {}
    nodes.sort(key=lambda node: natural_key(node["Description"].get("Hostname", "")))
    rows = [_row(node, info) for node in nodes]
    _LISTING.print(rows, call.given["format"], call.given["quiet"], call.out)


def _row(node: Node, info: dict[str, Any]) -> Struct:
    manager = node.get("ManagerStatus") or {}
    status = "leader" if manager.get("Leader") else manager.get("Reachability", "")
    description = node.get("Description", {})
    return Struct(
        "*node.nodeContext",
        {
            "ID": node["ID"],
            "Self": node["ID"] == info.get("NodeID"),
            "Hostname": description.get("Hostname", ""),
            "Status": capitalised(node.get("Status", {}).get("State", "")),
            "Availability": capitalised(node["Spec"].get("Availability", "")),
            "ManagerStatus": capitalised(status),
            "EngineVersion": description.get("Engine", {}).get("EngineVersion", ""),
            "TLSStatus": _tls_status(description, info),
        },
    )


def _tls_status(description: dict[str, Any], info: dict[str, Any]) -> str:
    """Does the node carry the certificate the cluster wants?"""
    keys = ("TrustRoot", "CertIssuerSubject", "CertIssuerPublicKey")
    wanted = (info.get("Cluster") or {}).get("TLSInfo") or {}
    found = description.get("TLSInfo") or {}
    if not any(wanted.get(key) for key in keys) or not any(found.get(key) for key in keys):
        return "Unknown"
    same = all((wanted.get(key) or "") == (found.get(key) or "") for key in keys)
    return "Ready" if same else "Needs Rotation"


def _inspect(call: Call) -> None:
    form = "pretty" if call.given["pretty"] else call.given["format"]
    if form.startswith("pretty") and form != "pretty":
        raise CliError("cannot supply extra formatting options to the pretty template")

    def fetch(reference: str) -> tuple[Struct, str]:
        raw = call.client.get(node_path(own_node(call.client, reference))).text()
        return typed(json.loads(raw), NODE), raw

    if form != "pretty":
        inspect(call.args, form, fetch, call.out, raw_too=False)
        return
    for reference in call.args:
        call.out.write(pretty_node(json.loads(fetch(reference)[1])) + "\n")


_Change = Callable[[Node], bool]  # changes a node's spec in place; False: leave it alone


def _change_nodes(call: Call, change: _Change, done: Callable[[str], str]) -> None:
    for reference in call.args:
        node = call.client.get(node_path(reference)).json()
        if not change(node):
            continue
        query = {"version": str(node["Version"]["Index"])}
        call.client.post(f"{node_path(node['ID'])}/update", node["Spec"], query)
        call.say(done(reference))


def _update(call: Call) -> None:
    given = call.given

    def change(node: Node) -> bool:
        spec = node["Spec"]
        for flag, field in (("role", "Role"), ("availability", "Availability")):
            if flag in given.changed:
                spec[field] = given[flag]
        labels = dict(spec.get("Labels") or {})
        labels.update(pairs(given["label-add"]))
        for key in given["label-rm"]:
            if key not in labels:
                raise CliError(f"key {key} doesn't exist in node's labels")
            del labels[key]
        spec["Labels"] = dict(sorted(labels.items()))
        return True

    _change_nodes(call, change, lambda reference: reference)


def _role(role: str, done: str) -> Callable[[Call], None]:
    def body(call: Call) -> None:
        def change(node: Node) -> bool:
            if node["Spec"].get("Role") == role:
                call.say(f"Node {node['ID']} is already a {role}.")
                return False
            node["Spec"]["Role"] = role
            return True

        _change_nodes(call, change, done.format)

    return body


def _rm(call: Call) -> None:
    errors = []
    query = {"force": "1"} if call.given["force"] else None
    for reference in call.args:
        try:
            call.client.delete(node_path(reference), query)
            call.say(reference)
        except CliError as error:
            errors.append(error)
    joined(errors)


LS = Command(
    "ls",
    "[OPTIONS]",
    "List nodes in the swarm",
    _ls,
    flags=(filtered(), formatted(), quiet("Only display IDs")),
    aliases=("list",),
)
INSPECT = Command(
    "inspect",
    "[OPTIONS] self|NODE [NODE...]",
    "Display detailed information on one or more nodes",
    _inspect,
    flags=(
        formatted(INSPECT_FORMAT_HELP, "f"),
        Flag("pretty", BOOL, "Print the information in a human friendly format", value=False),
    ),
    arity=SOME,
    complete=node_names,
)
UPDATE = Command(
    "update",
    "[OPTIONS] NODE",
    "Update a node",
    _update,
    flags=(
        availability(""),
        Flag("label-add", LIST, 'Add or update a node label ("key=value")'),
        Flag("label-rm", LIST, "Remove a node label if exists"),
        Flag(
            "role",
            STRING,
            'Role of the node ("worker", "manager")',
            value="",
            choices=("worker", "manager"),
        ),
    ),
    arity=ONE,
    complete=node_names,
)
PROMOTE = Command(
    "promote",
    "NODE [NODE...]",
    "Promote one or more nodes to manager in the swarm",
    _role("manager", "Node {} promoted to a manager in the swarm."),
    arity=SOME,
    complete=node_names,
)
DEMOTE = Command(
    "demote",
    "NODE [NODE...]",
    "Demote one or more nodes from manager in the swarm",
    _role("worker", "Manager {} demoted in the swarm."),
    arity=SOME,
    complete=node_names,
)
RM = Command(
    "rm",
    "[OPTIONS] NODE [NODE...]",
    "Remove one or more nodes from the swarm",
    _rm,
    flags=(Flag("force", BOOL, "Force remove a node from the swarm", short="f", value=False),),
    arity=SOME,
    aliases=("remove",),
    complete=node_names,
)
