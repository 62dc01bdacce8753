"""`swarm manage`: the Docker Remote API over all engines that discovery names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.base.errors import InvalidArgument, Unimplemented
from swarmd.faces.classic.api.app import ClassicAPI
from swarmd.faces.classic.api.server import ClassicServer
from swarmd.faces.classic.commands.arguments import GoCommand
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
from swarmd.faces.classic.commands.tls import contexts
from swarmd.faces.classic.engines.cluster import Cluster
from swarmd.faces.classic.engines.creation import Creator
from swarmd.faces.classic.engines.engine import Settings
from swarmd.faces.classic.engines.picture import DEFAULT_OVERCOMMIT
from swarmd.faces.classic.engines.watchdog import Watchdog
from swarmd.faces.classic.scheduler.filters import FILTERS
from swarmd.faces.classic.scheduler.select import Scheduler
from swarmd.faces.classic.scheduler.strategies import STRATEGIES

DEFAULT_HOST = "tcp://127.0.0.1:2375"


class HostType(click.types.StringParamType):
    """A listen address. The reference cuts its variable at commas, and a flag's value never."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """The variable's value as addresses."""
        return [part.strip() for part in rv.split(",")]


@click.command(cls=GoCommand)
@click.option("--strategy", default="spread", help=f"placement strategy [{', '.join(STRATEGIES)}]")
@click.option("--filter", "-f", "filters", multiple=True, help=f"filters [{', '.join(FILTERS)}]")
@click.option(
    "--host",
    "-H",
    "hosts",
    multiple=True,
    type=HostType(),
    envvar="SWARM_HOST",
    help="ip/socket to listen on; the variable takes several with commas between",
)
@click.option("--tls", is_flag=True, help="use TLS; implied by --tlsverify")
@click.option("--tlsverify", is_flag=True, help="use TLS and verify the remote")
@click.option("--tlscacert", default="", help="trust only remotes with a certificate of this CA")
@click.option("--tlscert", default="", help="path to TLS certificate file")
@click.option("--tlskey", default="", help="path to TLS key file")
@click.option("--engine-refresh-min-interval", default="30s", show_default=True)
@click.option("--engine-refresh-max-interval", default="60s", show_default=True)
@click.option("--engine-failure-retry", type=int, default=3, show_default=True)
@click.option("--heartbeat", default="60s", show_default=True, help="period between look-ups")
@click.option("--api-enable-cors", "--cors", "cors", is_flag=True, help="enable CORS headers")
@click.option("--cluster-driver", "-c", default="swarm", help="cluster driver to use [swarm]")
@click.option("--cluster-opt", multiple=True, help="swarm.overcommit=0.05, swarm.createretry=0")
@click.option("--replication", is_flag=True, hidden=True)
@click.option("--advertise", "--addr", "addr", default="", envvar="SWARM_ADVERTISE", hidden=True)
@hub_options
@discovery_argument
def manage(**given: Any) -> None:
    """Manage a docker cluster"""
    with refusing():
        if given["cluster_driver"] != "swarm":
            raise InvalidArgument(f'unsupported cluster "{given["cluster_driver"]}"')
        if given["replication"]:
            raise Unimplemented(
                "Leader election is only supported with consul, etcd and zookeeper discovery."
            )
        url = discovery_url(given["discovery"], "manage")
        overcommit, retries = cluster_options(given["cluster_opt"])
        settings = engine_settings(given, overcommit)
        heartbeat = heartbeat_of(given["heartbeat"])
        found = discovery_settings(given["hub_url"], given["discovery_opt"])
        backend = make_backend(url, found)
        entropy = SystemEntropy()
        scheduler = Scheduler(entropy, given["strategy"], given["filters"] or tuple(FILTERS))
        secure = contexts(
            tls=given["tls"],
            verify=given["tlsverify"],
            ca=given["tlscacert"],
            cert=given["tlscert"],
            key=given["tlskey"],
        )
        cluster = Cluster(
            backend,
            scheduler,
            SystemClock(),
            entropy,
            context=secure.client,
            settings=settings,
            heartbeat_seconds=heartbeat,
        )
        creator = Creator(cluster, retries)
        api = ClassicAPI(cluster, creator, cors=given["cors"])
        server = ClassicServer(api, given["hosts"] or (DEFAULT_HOST,), secure.server)
        run(lambda: serve(cluster, creator, server))


def cluster_options(options: Sequence[str]) -> tuple[float, int]:
    """Overcommit and create retries. Raises `InvalidArgument`."""
    values = dict(option.partition("=")[::2] for option in options)
    try:
        overcommit = float(values.get("swarm.overcommit") or DEFAULT_OVERCOMMIT)
        retries = int(values.get("swarm.createretry") or 0)
    except ValueError as error:
        raise InvalidArgument(f"--cluster-opt: {error}") from error
    if overcommit <= -1:
        raise InvalidArgument(f"swarm.overcommit should be larger than -1, {overcommit} is invalid")
    if retries < 0:
        raise InvalidArgument(f"swarm.createretry can not be negative, {retries} is invalid")
    return overcommit, retries


def engine_settings(given: dict[str, Any], overcommit: float) -> Settings:
    """How engines are watched. Raises `InvalidArgument`."""
    name = "engine-refresh-{}-interval"
    low = duration_option(name.format("min"), given["engine_refresh_min_interval"])
    high = duration_option(name.format("max"), given["engine_refresh_max_interval"])
    if low <= 0:
        raise InvalidArgument("min refresh interval should be a positive number")
    if high < low:
        raise InvalidArgument("max refresh interval cannot be less than min refresh interval")
    if given["engine_failure_retry"] <= 0:
        raise InvalidArgument("invalid failure retry count")
    return Settings(low, high, given["engine_failure_retry"], overcommit)


async def serve(cluster: Cluster, creator: Creator, server: ClassicServer) -> None:
    """The task tree of `swarm manage`; never returns."""
    cluster_ready, watchdog_ready, server_ready = (asyncio.Event() for _ in range(3))
    async with Tasks() as tasks:
        tasks.spawn(Watchdog(cluster, creator).run(watchdog_ready), "watchdog")
        await watchdog_ready.wait()
        tasks.spawn(cluster.run(cluster_ready), "cluster")
        await cluster_ready.wait()
        await server.run(server_ready)
