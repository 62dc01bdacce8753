"""Changing and unlocking a swarm: update, unlock, unlock-key."""

from __future__ import annotations

import sys

from swarmctl.command import Call, Command
from swarmctl.commands.joining import update_swarm
from swarmctl.commands.unlocking import print_unlock, unlock_key
from swarmctl.errors import CliError
from swarmctl.flags import Flag
from swarmctl.kinds import BOOL
from swarmctl.options import SPEC_FLAGS, merge_spec, quiet
from swarmctl.output import is_terminal, stdin_text


def _update(call: Call) -> None:
    if not call.given.changed:
        call.out.write(call.help_text)
        return
    swarm = call.client.get("/swarm").json()
    spec = swarm["Spec"]
    locked_before = spec["EncryptionConfig"]["AutoLockManagers"]
    merge_spec(spec, call.given, swarm.get("TLSInfo", {}).get("TrustRoot", ""))
    update_swarm(call, swarm)
    call.say("Swarm updated.")
    if spec["EncryptionConfig"]["AutoLockManagers"] and not locked_before:
        print_unlock(call)


def _unlock(call: Call) -> None:
    state = call.client.get("/info").json()["Swarm"]["LocalNodeState"]
    if state == "inactive":
        raise CliError("Error: This node is not part of a swarm")
    if state in ("pending", "active", "error"):
        raise CliError("Error: swarm is not locked")
    call.client.post("/swarm/unlock", {"UnlockKey": _read_key()})


def _read_key() -> str:
    """Ask for the key without showing it; from a pipe, take the first line."""
    if not is_terminal(sys.stdin):
        return stdin_text()
    import getpass

    try:
        return getpass.getpass("Enter unlock key: ")
    except EOFError:
        return ""


def _unlock_key(call: Call) -> None:
    if call.given["rotate"]:
        swarm = call.client.get("/swarm").json()
        if not swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"]:
            raise CliError("cannot rotate because autolock is not turned on")
        update_swarm(call, swarm, rotate="unlock")
        if not call.given["quiet"]:
            call.say("Successfully rotated manager unlock key.")
    key = unlock_key(call)
    if not key:
        raise CliError("no unlock key is set")
    if call.given["quiet"]:
        call.say(key)
    else:
        print_unlock(call, key)


UPDATE = Command(
    "update",
    "[OPTIONS]",
    "Update the swarm",
    _update,
    flags=(
        Flag("autolock", BOOL, "Change manager autolocking setting (true|false)", value=False),
        *SPEC_FLAGS,
    ),
)
UNLOCK = Command("unlock", "", "Unlock swarm", _unlock)
UNLOCK_KEY = Command(
    "unlock-key",
    "[OPTIONS]",
    "Manage the unlock key",
    _unlock_key,
    flags=(
        quiet("Only display token"),
        Flag("rotate", BOOL, "Rotate unlock key", value=False),
    ),
)
