"""Making, joining and leaving a swarm: init, join, join-token, leave."""

from __future__ import annotations

from typing import Any

from swarmctl.command import ONE, Call, Command
from swarmctl.commands.lookup import node_path
from swarmctl.commands.unlocking import print_unlock
from swarmctl.errors import ApiError, CliError
from swarmctl.flags import Flag
from swarmctl.kinds import BOOL, NETWORKS, STRING, UINT32
from swarmctl.options import (
    SPEC_FLAGS,
    addresses,
    availability,
    merge_spec,
    node_availability,
    quiet,
)

_NO_ADDRESS = (
    "could not choose an IP address to advertise",
    "could not find the system's IP address",
)


def empty_spec() -> dict[str, Any]:
    """A cluster spec with nothing said, as stock clients send it."""
    return {
        "Labels": None,
        "Orchestration": {},
        "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
        "Dispatcher": {},
        "CAConfig": {},
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": False},
    }


def _init(call: Call) -> None:
    given = call.given
    spec = empty_spec()
    wanted = node_availability(given)
    merge_spec(spec, given, None)
    request = {
        "ListenAddr": given["listen-addr"],
        "AdvertiseAddr": given["advertise-addr"],
        "DataPathAddr": given["data-path-addr"],
        "DataPathPort": given["data-path-port"],
        "ForceNewCluster": given["force-new-cluster"],
        "Spec": spec,
        "AutoLockManagers": given["autolock"],
        "Availability": wanted,
        "DefaultAddrPool": given["default-addr-pool"],
        "SubnetSize": given["default-addr-pool-mask-length"],
    }
    try:
        node_id = call.client.post("/swarm/init", request).json()
    except ApiError as error:
        if any(text in error.message for text in _NO_ADDRESS):
            raise CliError(f"{error.message} - specify one with --advertise-addr") from None
        raise
    call.say(f"Swarm initialized: current node ({node_id}) is now a manager.\n")
    _print_join(call, node_id, "worker")
    call.say(
        "To add a manager to this swarm, run 'swarmctl join-token manager' "
        "and follow the instructions."
    )
    if given["autolock"]:
        print_unlock(call)


def _print_join(call: Call, node_id: str, role: str) -> None:
    """The command other nodes join with; nothing if this node is no manager after all."""
    node = call.client.get(node_path(node_id)).json()
    swarm = call.client.get("/swarm").json()
    if node.get("ManagerStatus") is None:
        return
    token, addr = swarm["JoinTokens"][role.capitalize()], node["ManagerStatus"].get("Addr", "")
    call.say(
        f"To add a {role} to this swarm, run the following command:\n\n"
        f"    swarmctl join --token {token} {addr}\n"
    )


def _join(call: Call) -> None:
    given = call.given
    request = {
        "ListenAddr": given["listen-addr"],
        "AdvertiseAddr": given["advertise-addr"],
        "DataPathAddr": given["data-path-addr"],
        "RemoteAddrs": [call.args[0]],
        "JoinToken": given["token"],
        "Availability": node_availability(given),
    }
    call.client.post("/swarm/join", request)
    info = call.client.get("/info").json()
    role = "manager" if info["Swarm"]["ControlAvailable"] else "worker"
    call.say(f"This node joined a swarm as a {role}.")


def _join_token(call: Call) -> None:
    role = call.args[0]
    if role not in ("worker", "manager"):
        raise CliError(f"unknown role {role}")
    if call.given["rotate"]:
        update_swarm(call, call.client.get("/swarm").json(), rotate=role)
        if not call.given["quiet"]:
            call.say(f"Successfully rotated {role} join token.\n")
    if call.given["quiet"]:
        call.say(call.client.get("/swarm").json()["JoinTokens"][role.capitalize()])
        return
    # Asked for before anything else, so that a node outside a swarm gets the swarm's error.
    call.client.get("/swarm")
    info = call.client.get("/info").json()
    _print_join(call, info["Swarm"]["NodeID"], role)


def update_swarm(call: Call, swarm: dict[str, Any], rotate: str = "") -> None:
    """Send a swarm's spec back; `rotate` is worker, manager or unlock."""
    query = {
        "version": str(swarm["Version"]["Index"]),
        "rotateWorkerToken": str(rotate == "worker").lower(),
        "rotateManagerToken": str(rotate == "manager").lower(),
        "rotateManagerUnlockKey": str(rotate == "unlock").lower(),
    }
    call.client.post("/swarm/update", swarm["Spec"], query)


def _leave(call: Call) -> None:
    call.client.post("/swarm/leave", query={"force": "1"} if call.given["force"] else None)
    call.say("Node left the swarm.")


INIT = Command(
    "init",
    "[OPTIONS]",
    "Initialize a swarm",
    _init,
    flags=(
        *addresses(),
        *SPEC_FLAGS,
        Flag(
            "autolock",
            BOOL,
            "Enable manager autolocking (requiring an unlock key to start a stopped manager)",
            value=False,
        ),
        availability("active"),
        Flag(
            "data-path-port",
            UINT32,
            "Port number to use for data path traffic (1024 - 49151). If no value is set or is set "
            "to 0, the default port (4789) is used.",
            value=0,
        ),
        Flag("default-addr-pool", NETWORKS, "default address pool in CIDR format", default="[]"),
        Flag(
            "default-addr-pool-mask-length",
            UINT32,
            "default address pool subnet mask length",
            default="24",
            value=24,
        ),
        Flag(
            "force-new-cluster",
            BOOL,
            "Force create a new cluster from current state",
            value=False,
        ),
    ),
)
JOIN = Command(
    "join",
    "[OPTIONS] HOST:PORT",
    "Join a swarm as a node and/or manager",
    _join,
    flags=(
        *addresses(),
        availability("active"),
        Flag("token", STRING, "Token for entry into the swarm", value=""),
    ),
    arity=ONE,
)
JOIN_TOKEN = Command(
    "join-token",
    "[OPTIONS] (worker|manager)",
    "Manage join tokens",
    _join_token,
    flags=(
        quiet("Only display token"),
        Flag("rotate", BOOL, "Rotate join token", value=False),
    ),
    arity=ONE,
    complete=lambda client: ["worker", "manager"],
)
LEAVE = Command(
    "leave",
    "[OPTIONS]",
    "Leave the swarm",
    _leave,
    flags=(
        Flag(
            "force",
            BOOL,
            "Force this node to leave the swarm, ignoring warnings",
            short="f",
            value=False,
        ),
    ),
)
