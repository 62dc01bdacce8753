"""`swarm join`: announce an engine again and again until told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import click

from swarmd.base.entropy import Entropy, SystemEntropy
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.faces.classic.commands.arguments import GoCommand
from swarmd.faces.classic.commands.durations import format_duration
from swarmd.faces.classic.commands.settings import (
    discovery_argument,
    discovery_settings,
    discovery_url,
    duration_option,
    heartbeat_of,
    hub_options,
    make_backend,
    refusing,
    run,
)
from swarmd.faces.classic.discovery.backends import Backend
from swarmd.faces.classic.discovery.entries import is_address, without_secret

log = logging.getLogger("swarm")


@click.command(cls=GoCommand)
@click.option(
    "--advertise",
    "--addr",
    "addr",
    default="",
    envvar="SWARM_ADVERTISE",
    help="Address of the Docker Engine joining the cluster; managers must reach it there.",
)
@click.option("--heartbeat", default="60s", show_default=True, help="period between heartbeats")
@click.option("--ttl", default="180s", show_default=True, help="when a silent node is dropped")
@click.option("--delay", default="0s", show_default=True, help="random delay up to this long")
@hub_options
@discovery_argument
def join(
    addr: str,
    heartbeat: str,
    ttl: str,
    delay: str,
    hub_url: str,
    discovery_opt: Sequence[str],
    discovery: str,
) -> None:
    """Join a docker cluster"""
    with refusing():
        url = discovery_url(discovery, "join")
        check_address(addr)
        delay_seconds = duration_option("delay", delay)
        if delay_seconds < 0:
            raise InvalidArgument("--delay should not be a negative number")
        heartbeat_seconds = heartbeat_of(heartbeat)
        ttl_seconds = duration_option("ttl", ttl)
        if ttl_seconds <= heartbeat_seconds:
            raise InvalidArgument("--ttl must be strictly superior to the heartbeat value")
        settings = discovery_settings(hub_url, discovery_opt, ttl_seconds)
        backend = make_backend(url, settings)
        shown = without_secret(url)
        entropy = SystemEntropy()
        run(lambda: announce(backend, addr, heartbeat_seconds, delay_seconds, shown, entropy))


def check_address(addr: str) -> None:
    """Raises `InvalidArgument` unless it is host:port."""
    if not addr:
        raise InvalidArgument("missing mandatory --advertise flag")
    if not is_address(addr):
        raise InvalidArgument("--advertise should be of the form ip:port or hostname:port")


async def announce(
    backend: Backend,
    addr: str,
    heartbeat_seconds: float,
    delay_seconds: float,
    shown: str,
    entropy: Entropy,
) -> None:
    """Register at every heartbeat; trouble is logged and tried again. Never returns."""
    if delay_seconds > 0:
        wait = entropy.uniform(0, delay_seconds)
        log.info("Add a random delay %s to avoid synchronized registration", format_duration(wait))
        await asyncio.sleep(wait)
    every = format_duration(heartbeat_seconds)
    while True:
        log.info(
            "Registering on the discovery service every %s... addr=%s discovery=%s",
            *(every, addr, shown),
        )
        try:
            async with asyncio.timeout(heartbeat_seconds):
                await backend.register(addr)
        except TimeoutError:
            log.error("the discovery service did not answer within a heartbeat")
        except SwarmError as error:
            log.error("%s", error.message)
        await asyncio.sleep(heartbeat_seconds)
