"""`swarm create`: a new cluster; its token on standard output."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from swarmd.base.errors import InvalidArgument
from swarmd.faces.classic.commands.arguments import GoCommand
from swarmd.faces.classic.commands.settings import discovery_settings, hub_options, refusing
from swarmd.faces.classic.discovery.backends import hub_for

# The reference warns here too, that hosted token discovery would go; scripts read the token
# from standard output alone.
NOTICE = "The token is the whole secret of the cluster: whoever knows it can list and join it."


@click.command(cls=GoCommand)
@hub_options
@click.argument("arguments", nargs=-1)
def create(hub_url: str, discovery_opt: Sequence[str], arguments: Sequence[str]) -> None:
    """Create a cluster"""
    with refusing():
        if arguments:
            raise InvalidArgument(
                "the `create` command takes no arguments. See 'swarm create --help'."
            )
        settings = discovery_settings(hub_url, discovery_opt)
        token = asyncio.run(hub_for(hub_url, settings).create())
        click.echo(NOTICE, err=True)
        click.echo(token)
