"""The groups: only names, so that help needs no command's module."""

from __future__ import annotations

from swarmctl.cli import GROUP_SUMMARIES, SWARM_SOURCES, SWARM_SUMMARIES
from swarmctl.command import Group

_BACKUP = "swarmctl.commands.backup"
_NODE = "swarmctl.commands.node"
_NETWORK = "swarmctl.commands.network"

SWARM = Group("swarm", GROUP_SUMMARIES["swarm"], SWARM_SOURCES, SWARM_SUMMARIES)
BACKUP = Group(
    "backup",
    GROUP_SUMMARIES["backup"],
    {
        "create": f"{_BACKUP}:CREATE",
        "restore": f"{_BACKUP}:RESTORE",
        "verify": f"{_BACKUP}:VERIFY",
    },
    {
        "create": "Write the state of the manager asked to a file, while it runs",
        "restore": "Begin anew on this node with the state in a backup",
        "verify": "Check that a backup is whole and can be opened; needs no daemon",
    },
)
NODE = Group(
    "node",
    GROUP_SUMMARIES["node"],
    {
        "demote": f"{_NODE}:DEMOTE",
        "inspect": f"{_NODE}:INSPECT",
        "list": f"{_NODE}:LS",
        "ls": f"{_NODE}:LS",
        "promote": f"{_NODE}:PROMOTE",
        "ps": "swarmctl.commands.tasks:PS",
        "remove": f"{_NODE}:RM",
        "rm": f"{_NODE}:RM",
        "update": f"{_NODE}:UPDATE",
    },
    {
        "demote": "Demote one or more nodes from manager in the swarm",
        "inspect": "Display detailed information on one or more nodes",
        "ls": "List nodes in the swarm",
        "promote": "Promote one or more nodes to manager in the swarm",
        "ps": "List tasks running on one or more nodes, defaults to current node",
        "rm": "Remove one or more nodes from the swarm",
        "update": "Update a node",
    },
)
NETWORK = Group(
    "network",
    GROUP_SUMMARIES["network"],
    {
        "create": f"{_NETWORK}:CREATE",
        "inspect": f"{_NETWORK}:INSPECT",
        "list": f"{_NETWORK}:LS",
        "ls": f"{_NETWORK}:LS",
        "remove": f"{_NETWORK}:RM",
        "rm": f"{_NETWORK}:RM",
    },
    {
        "create": "Create a network",
        "inspect": "Display detailed information on one or more networks",
        "ls": "List networks",
        "rm": "Remove one or more networks",
    },
)
