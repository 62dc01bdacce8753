"""Command line, SWARMD_* environment and TOML file, merged in that order of strength."""

from __future__ import annotations

import asyncio
import logging
import tomllib
from pathlib import Path
from typing import Any

import click

from swarmd import VERSION
from swarmd.base import logs
from swarmd.base.errors import SwarmError
from swarmd.daemon.config import (
    Config,
    Discovery,
    TLSFiles,
    default_run_dir,
    default_state_dir,
)


def load_file(ctx: click.Context, _param: click.Parameter, path: str | None) -> str | None:
    """Use the TOML file's keys as defaults; unknown keys are an error, not ignored."""
    if path is None:
        return None
    try:
        with open(path, "rb") as stream:
            values = tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(str(error)) from error
    known = {p.name: p for p in ctx.command.params if p.name}
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        name = {"host": "hosts", "hosts": "hosts"}.get(key, key.replace("-", "_"))
        if name not in known or name == "config":
            raise click.BadParameter(f"{path}: unknown key {key!r}")
        defaults[name] = [value] if name == "hosts" and isinstance(value, str) else value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


@click.command(
    context_settings={"auto_envvar_prefix": "SWARMD", "help_option_names": ["-h", "--help"]}
)
@click.option("--config", is_eager=True, callback=load_file, help="TOML file with these options.")
@click.option(
    "-H",
    "--host",
    "hosts",
    multiple=True,
    envvar="SWARMD_HOST",
    help="Socket(s) of the REST API: unix://PATH, or tcp://ADDR:PORT with mutual TLS.",
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where the state is kept.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where sockets are made.")
@click.option(
    "--engine",
    default="auto",
    show_default=True,
    metavar="auto|none|unix://PATH",
    help="Local Docker Engine to pass other requests to.",
)
@click.option("--hostname", default="", help="Name of this node (default: the machine's).")
@click.option(
    "--advertise-addr",
    default="",
    help="Advertised address of this node (IP or interface[:PORT]): the default of init, and "
    "from the next start on what its manager is known by.",
)
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
@click.option("--pidfile", type=click.Path(path_type=Path), help="File for the process id.")
@click.option("--metrics-addr", default="", help="ADDR:PORT for Prometheus metrics.")
@click.option("--tlscacert", type=click.Path(path_type=Path), help="CA of TCP clients.")
@click.option("--tlscert", type=click.Path(path_type=Path), help="Certificate for TCP.")
@click.option("--tlskey", type=click.Path(path_type=Path), help="Key for TCP.")
@click.option(
    "--discovery-listen", default="", help="ADDR:PORT of a discovery service for Swarm v1."
)
@click.option("--discovery-tlscert", type=click.Path(path_type=Path), help="Its certificate.")
@click.option("--discovery-tlskey", type=click.Path(path_type=Path), help="Its key.")
@click.option(
    "--discovery-insecure", is_flag=True, help="Let it serve without TLS outside loopback."
)
@click.version_option(VERSION, "-v", "--version", message="swarmd version %(version)s")
def command(config: str | None, **given: Any) -> None:
    """Swarm manager and worker daemon."""
    settings = resolve(given)
    logs.setup(settings.log_level, settings.log_format)
    from swarmd.daemon.run import main

    try:
        main(settings)
    except SwarmError as error:
        logging.getLogger("swarmd").critical("%s", error)
        raise SystemExit(1) from error
    except (OSError, asyncio.CancelledError) as error:
        logging.getLogger("swarmd").critical("cannot run: %s", error)
        raise SystemExit(1) from error


def resolve(given: dict[str, Any]) -> Config:
    """Turn option values into a Config; raises `click.UsageError` on contradictions."""
    state_dir = given["state_dir"] or default_state_dir()
    run_dir = given["run_dir"] or default_run_dir(state_dir)
    hosts = tuple(given["hosts"]) or (f"unix://{run_dir}/swarmd.sock",)
    files = [given[name] for name in ("tlscacert", "tlscert", "tlskey")]
    if any(files) and not all(files):
        raise click.UsageError("--tlscacert, --tlscert and --tlskey go together")
    for host in hosts:
        check_host(host, has_tls=all(files))
    engine = given["engine"]
    if engine not in ("auto", "none") and not engine.startswith("unix://"):
        raise click.UsageError(f"--engine: want auto, none or unix://PATH, not {engine!r}")
    return Config(
        hosts=hosts,
        state_dir=state_dir,
        run_dir=run_dir,
        engine=engine,
        hostname=given["hostname"],
        log_level=given["log_level"],
        log_format=given["log_format"],
        pidfile=given["pidfile"],
        metrics_addr=given["metrics_addr"],
        tls=TLSFiles(*files) if all(files) else None,
        advertise_addr=given["advertise_addr"],
        discovery=resolve_discovery(given),
    )


def resolve_discovery(given: dict[str, Any]) -> Discovery | None:
    """The discovery service asked for, if any; raises `click.UsageError` when it is unsafe."""
    listen = given["discovery_listen"]
    cert, key = given["discovery_tlscert"], given["discovery_tlskey"]
    if not listen:
        if cert or key:
            raise click.UsageError("--discovery-tlscert and -tlskey need --discovery-listen")
        return None
    # Not loaded by the daemons that do not use it.
    from swarmd.faces.classic.discovery.server import parse_listen

    found = Discovery(listen, cert, key, given["discovery_insecure"])
    try:
        parse_listen(listen, str(cert or ""), str(key or ""), insecure=found.insecure)
    except SwarmError as error:
        raise click.UsageError(f"--discovery-listen {error.message}") from error
    return found


def check_host(host: str, *, has_tls: bool) -> None:
    """Refuse addresses the daemon would not serve safely."""
    if host.startswith("unix://") and len(host) > len("unix://"):
        return
    if host.startswith("tcp://"):
        if not has_tls:
            raise click.UsageError(
                f"-H {host}: a TCP listener needs --tlscacert, --tlscert and --tlskey"
            )
        return
    raise click.UsageError(f"-H {host}: want unix://PATH or tcp://ADDR:PORT")
