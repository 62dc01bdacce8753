"""`swarm list`: the members of a cluster, one a line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from swarmd.base.errors import DeadlineExceeded, InvalidArgument
from swarmd.faces.classic.commands.arguments import GoCommand
from swarmd.faces.classic.commands.settings import (
    discovery_argument,
    discovery_settings,
    discovery_url,
    duration_option,
    hub_options,
    make_backend,
    refusing,
)
from swarmd.faces.classic.discovery.backends import Backend


@click.command(cls=GoCommand)
@click.option("--timeout", default="10s", show_default=True, help="timeout period")
@hub_options
@discovery_argument
def list_members(timeout: str, hub_url: str, discovery_opt: Sequence[str], discovery: str) -> None:
    """List nodes in a cluster"""
    with refusing():
        url = discovery_url(discovery, "list")
        seconds = duration_option("timeout", timeout)
        if seconds <= 0:
            raise InvalidArgument("--timeout should be a positive number")
        backend = make_backend(url, discovery_settings(hub_url, discovery_opt))
        for address in asyncio.run(_fetch(backend, seconds)):
            click.echo(address)


async def _fetch(backend: Backend, seconds: float) -> list[str]:
    try:
        async with asyncio.timeout(seconds):
            return await backend.fetch()
    except TimeoutError:
        raise DeadlineExceeded("Timed out") from None
