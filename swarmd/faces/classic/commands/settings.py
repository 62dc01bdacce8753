"""What several commands share: the discovery argument and its options, errors, running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import click

from swarmd.base.aio import first_of, race
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.faces.classic.commands.durations import parse_duration
from swarmd.faces.classic.discovery.backends import Backend, Settings, backend_for

F = TypeVar("F", bound=Callable[..., Any])
CA_OPTION = "token.cacertfile"


def hub_options(command: F) -> F:
    """Options about the discovery service."""
    for add in (
        click.option(
            "--discovery-opt", multiple=True, help=f"discovery options ({CA_OPTION}=FILE)"
        ),
        click.option(
            "--discovery",
            "hub_url",
            default="",
            envvar="SWARM_DISCOVERY_URL",
            metavar="URL",
            help="discovery service for token://ID, such as https://HOST:PORT/v1",
        ),
    ):
        command = add(command)
    return command


discovery_argument = click.argument("discovery", required=False, default="", metavar="<discovery>")


def discovery_url(given: str, command: str) -> str:
    """The argument, or SWARM_DISCOVERY. Raises `InvalidArgument` without any."""
    url = given or os.environ.get("SWARM_DISCOVERY", "")
    if not url:
        raise InvalidArgument(
            f"discovery required to {command} a cluster. See 'swarm {command} --help'."
        )
    return url


def discovery_settings(hub_url: str, options: Sequence[str], ttl_seconds: float = 0) -> Settings:
    """What the options say. Raises `InvalidArgument`."""
    values: dict[str, str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise InvalidArgument("--discovery-opt must contain key=value strings")
        values[key] = value
    return Settings(hub_url, int(ttl_seconds), values.get(CA_OPTION, ""))


def make_backend(url: str, settings: Settings) -> Backend:
    """The client for `url`. Raises `SwarmError`."""
    return backend_for(url, settings)


def heartbeat_of(text: str) -> float:
    """The heartbeat in seconds. Raises `InvalidArgument`."""
    seconds = duration_option("heartbeat", text)
    if seconds < 1:
        raise InvalidArgument("--heartbeat should be at least one second")
    return seconds


def duration_option(name: str, text: str) -> float:
    """A duration in seconds. Raises `InvalidArgument` with the option's name."""
    try:
        return parse_duration(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid --{name}: {error.message}") from error


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Print expected trouble on standard error and end with status 1."""
    try:
        yield
    except SwarmError as error:
        click.echo(error.message, err=True)
        raise SystemExit(1) from error
    except OSError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from error


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` until it is over or a signal asks for the end."""

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await race(work(), stop)

    try:
        asyncio.run(until_signal())
    except BaseExceptionGroup as group:
        raise first_of(group) from group
