"""`swarmctl update-address`: have a manager known by another address, while it runs."""

from __future__ import annotations

from swarmctl.command import ONE, Call, Command
from swarmctl.connect import Client
from swarmctl.errors import only_swarmd
from swarmctl.flags import Flag
from swarmctl.kinds import BOOL, STRING


def _update(call: Call) -> None:
    request = {
        "AdvertiseAddr": call.args[0],
        "ListenAddr": call.given["listen-addr"],
        "Force": call.given["force"],
    }
    with only_swarmd("change the address of a manager"):
        done = call.client.post("/swarmd/address", request).json()
    call.say(
        f"Manager address updated: {done['AdvertiseAddr']}, it was {done['PreviousAddr']}.\n"
        f"Listening on {done['ListenAddr']}."
    )
    for warning in done.get("Warnings") or ():
        print(f"WARNING: {warning}", file=call.err)


def _interfaces(_: Client) -> list[str]:
    """Names of this machine's interfaces: the daemon mostly is on it."""
    import socket

    return sorted(name for _, name in socket.if_nameindex() if name != "lo")


UPDATE_ADDRESS = Command(
    "update-address",
    "[OPTIONS] ADDR[:PORT]",
    "Change the address this manager is known by",
    _update,
    flags=(
        Flag(
            "force",
            BOOL,
            "Change it even if nodes will not find the only manager any more, or it cannot "
            "reach itself there",
            short="f",
            value=False,
        ),
        Flag(
            "listen-addr",
            STRING,
            'Listen address (format: "<ip|interface>[:port]"); follows the address by default',
            value="",
        ),
    ),
    arity=ONE,
    complete=_interfaces,
)
