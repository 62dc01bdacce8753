"""The `swarm` program: global options and the four commands."""

from __future__ import annotations

import click

from swarmd.base import logs
from swarmd.faces.classic.commands.arguments import GoGroup
from swarmd.faces.classic.commands.create import create
from swarmd.faces.classic.commands.join import join
from swarmd.faces.classic.commands.list import list_members
from swarmd.faces.classic.commands.manage import manage

VERSION = "1.2.9 (swarmd)"
_LEVELS = {"warning": "warn", "panic": "fatal"}


@click.group(cls=GoGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, envvar="DEBUG", help="debug mode")
@click.option("--log-level", "-l", default="info", show_default=True, help="log level")
@click.option("--experimental", is_flag=True, hidden=True)
@click.version_option(VERSION, "-v", "--version", message="swarm version %(version)s")
@click.pass_context
def program(ctx: click.Context, debug: bool, log_level: str, experimental: bool) -> None:
    """A Docker-native clustering system"""
    level = _LEVELS.get(log_level, log_level)
    if level not in logs.LEVELS:
        raise click.UsageError(f'not a valid logrus Level: "{log_level}"')
    given = ctx.get_parameter_source("log_level")
    if debug and given is click.core.ParameterSource.DEFAULT:
        level = "debug"
    logs.setup(level, "text")


program.add_command(create, "create")
program.add_command(list_members, "list")
program.add_command(manage, "manage")
program.add_command(join, "join")
