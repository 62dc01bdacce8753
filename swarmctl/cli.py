"""The command tree's root: global flags, where commands live, and how a run ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from swarmctl import __version__, helptext
from swarmctl.command import Group, Settings
from swarmctl.connect import Client, Endpoint, TLSFiles, choose_host
from swarmctl.errors import CliError
from swarmctl.flags import Flag, Given
from swarmctl.kinds import BOOL, LIST, STRING

PROGRAM = "swarmctl"
_SWARM = "swarmctl.commands.swarm"
_JOINING = "swarmctl.commands.joining"

SWARM_SUMMARIES = {
    "ca": "Display and rotate the root CA",
    "init": "Initialize a swarm",
    "join": "Join a swarm as a node and/or manager",
    "join-token": "Manage join tokens",
    "leave": "Leave the swarm",
    "unlock": "Unlock swarm",
    "unlock-key": "Manage the unlock key",
    "update": "Update the swarm",
}
SWARM_SOURCES = {
    "ca": "swarmctl.commands.ca:CA",
    "init": f"{_JOINING}:INIT",
    "join": f"{_JOINING}:JOIN",
    "join-token": f"{_JOINING}:JOIN_TOKEN",
    "leave": f"{_JOINING}:LEAVE",
    "unlock": f"{_SWARM}:UNLOCK",
    "unlock-key": f"{_SWARM}:UNLOCK_KEY",
    "update": f"{_SWARM}:UPDATE",
}
GROUP_SUMMARIES = {
    "backup": "Manage backups of the swarm's state",
    "network": "Manage networks",
    "node": "Manage Swarm nodes",
    "swarm": "Manage Swarm",
}
OTHER_SUMMARIES = {
    "completion": "Print a completion script for bash, zsh or fish",
    "events": "Get real time events from the server",
    "info": "Display system-wide information",
    "recover": "Show what is left of a swarm without quorum, and the way back",
    "update-address": "Change the address this manager is known by",
    "version": "Show the version information",
}
SOURCES = {
    **SWARM_SOURCES,
    "backup": "swarmctl.commands.groups:BACKUP",
    "completion": "swarmctl.commands.completion:COMPLETION",
    "events": "swarmctl.commands.events:EVENTS",
    "info": "swarmctl.commands.info:INFO",
    "network": "swarmctl.commands.groups:NETWORK",
    "node": "swarmctl.commands.groups:NODE",
    "recover": "swarmctl.commands.recover:RECOVER",
    "swarm": "swarmctl.commands.groups:SWARM",
    "update-address": "swarmctl.commands.address:UPDATE_ADDRESS",
    "version": "swarmctl.commands.version:VERSION",
}
GLOBAL_FLAGS = (
    Flag("debug", BOOL, "Enable debug mode", short="D", value=False),
    Flag("host", LIST, "Daemon socket to connect to", short="H"),
    Flag("tls", BOOL, "Use TLS; implied by --tlsverify", value=False),
    Flag("tlscacert", STRING, "Trust certs signed only by this CA", value=""),
    Flag("tlscert", STRING, "Path to TLS certificate file", value=""),
    Flag("tlskey", STRING, "Path to TLS key file", value=""),
    Flag("tlsverify", BOOL, "Use TLS and verify the remote", value=False),
    Flag("version", BOOL, "Print version information and quit", short="v", value=False),
)


def endpoint(values: Mapping[str, Any], env: Mapping[str, str]) -> Endpoint:
    """The daemon's address and TLS files from flags and environment, as docker reads them."""
    verify = bool(values.get("tlsverify") or env.get("DOCKER_TLS_VERIFY"))
    tls = verify or bool(values.get("tls") or env.get("DOCKER_TLS"))
    url = choose_host(list(values.get("host") or ()), env, os.geteuid(), tls)
    if not tls or not url.startswith("tcp://"):
        return Endpoint(url)
    folder = env.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    paths = {}
    for field, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")):
        default = os.path.join(folder, name)
        given = values.get(field) or ""
        # Files of the folder are only used when they are there; those named must be.
        paths[field] = given or (default if os.path.exists(default) else "")
    files = TLSFiles(paths["tlscacert"], paths["tlscert"], paths["tlskey"], verify)
    return Endpoint(url, files)


class Root(Group):
    """`swarmctl` itself."""

    def __init__(self) -> None:
        super().__init__(PROGRAM, "Manage a swarm", SOURCES, SOURCES, GLOBAL_FLAGS)

    def prepare(self, ctx: click.Context, given: Given) -> None:
        """Remember how to reach the daemon; nothing is dialled yet."""
        env = os.environ
        ctx.obj = Settings(
            lambda: Client(endpoint(given.values, env), env.get("DOCKER_API_VERSION", "")),
            debug=given["debug"],
        )
        ctx.call_on_close(ctx.obj.close)
        if given["version"] and not ctx.resilient_parsing:
            click.echo(f"{PROGRAM} version {__version__}")
            ctx.exit()

    def usage_line(self, ctx: click.Context) -> str:
        """As docker's own."""
        return f"{PROGRAM} [OPTIONS] COMMAND [ARG...]"

    def unknown(self, ctx: click.Context, name: str) -> str:
        """The root's text names no usage."""
        return (
            f"{PROGRAM}: unknown command: {PROGRAM} {name}\n\n"
            f"Run '{PROGRAM} --help' for more information"
        )

    def get_help(self, ctx: click.Context) -> str:
        """Groups, the shortcuts for the swarm's commands, and the rest."""
        sections = [
            ("Management Commands", list(GROUP_SUMMARIES.items())),
            ("Swarm Commands", list(SWARM_SUMMARIES.items())),
            ("Commands", list(OTHER_SUMMARIES.items())),
        ]
        return helptext.group(PROGRAM, self.summary, sections, GLOBAL_FLAGS)


def run(words: Sequence[str]) -> int:
    """Run a command line; returns the exit code. Errors are printed here and nowhere else."""
    root = Root()
    if "_SWARMCTL_COMPLETE" in os.environ:
        root.main(list(words), PROGRAM, complete_var="_SWARMCTL_COMPLETE")
    try:
        result = root.main(list(words), PROGRAM, standalone_mode=False)
    except CliError as error:
        if error.message:
            print(error.message, file=sys.stderr)
        return error.status
    except click.Abort:
        return 130
    return result if isinstance(result, int) else 0
