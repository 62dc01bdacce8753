"""The text around an unlock key."""

from __future__ import annotations

from swarmctl.command import Call
from swarmctl.errors import CliError


def unlock_key(call: Call) -> str:
    """The key, empty when autolock is off."""
    try:
        reply = call.client.get("/swarm/unlockkey").json()
    except CliError as error:
        raise CliError(f"could not fetch unlock key: {error.message}") from None
    return str(reply.get("UnlockKey") or "")


def print_unlock(call: Call, key: str | None = None) -> None:
    """Say how to unlock a manager after a restart."""
    key = unlock_key(call) if key is None else key
    if key:
        call.say(
            "To unlock a swarm manager after it restarts, run the `swarmctl unlock`\n"
            f"command and provide the following key:\n\n    {key}\n\n"
            "Remember to store this key in a password manager, since without it you\n"
            "will not be able to restart the manager."
        )
