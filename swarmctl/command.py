"""Commands and groups of our own kind: docker's usage texts on click's command tree."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem

from swarmctl import helptext
from swarmctl.connect import Client
from swarmctl.errors import CliError, UsageError
from swarmctl.flags import Flag, Given, Reader, defaults

_MANY = -1


@dataclass
class Call:
    """One run of a command: what was given, where to print, whom to ask."""

    given: Given
    connect: Callable[[], Client]
    out: TextIO
    err: TextIO
    help_text: str = ""
    debug: bool = False

    @property
    def client(self) -> Client:
        """The connection to the daemon, made when first needed."""
        return self.connect()

    @property
    def args(self) -> list[str]:
        """The arguments."""
        return self.given.args

    def say(self, *words: object) -> None:
        """Print a line to standard output."""
        print(*words, file=self.out)


@dataclass(frozen=True)
class Arity:
    """How many arguments a command takes."""

    least: int = 0
    most: int = 0

    def check(self, path: str, usage: str, count: int) -> None:
        """Raise CliError with docker's text when `count` will not do."""
        if self.least <= count and self.most in (_MANY, max(count, self.least)):
            return
        if self.most == _MANY or self.least != self.most:
            trouble, verb = f"requires at least {self.least} {_plural(self.least)}", "See"
        elif self.most == 0:
            trouble, verb = "accepts no arguments", "Run"
        else:
            trouble, verb = f"requires {self.least} {_plural(self.least)}", "Run"
        raise CliError(
            f"swarmctl: '{path}' {trouble}\n\nUsage:  {usage}\n\n"
            f"{verb} '{path} --help' for more information"
        )


NONE, ONE, SOME, ANY = Arity(), Arity(1, 1), Arity(1, _MANY), Arity(0, _MANY)


def _plural(count: int) -> str:
    return "argument" if count == 1 else "arguments"


class Command(click.Command):
    """A command that does something."""

    def __init__(
        self,
        name: str,
        usage: str,
        summary: str,
        body: Callable[[Call], None],
        *,
        flags: Sequence[Flag] = (),
        arity: Arity = NONE,
        aliases: Sequence[str] = (),
        complete: Callable[[Client], list[str]] | None = None,
    ) -> None:
        super().__init__(name, params=[*flags], help=summary, add_help_option=False)
        self.usage_words, self.summary, self.body = usage, summary, body
        self.flags, self.arity, self.aliases, self.completer = flags, arity, aliases, complete

    def usage_line(self, path: str) -> str:
        """`swarmctl node ls [OPTIONS]`."""
        return f"{path} {self.usage_words}".rstrip()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read flags and arguments our way; print the help if asked."""
        path = ctx.command_path
        if ctx.resilient_parsing:
            ctx.meta["given"] = defaults(self.flags)
            return []
        try:
            given = Reader(self.flags).read(args)
        except UsageError as error:
            raise flag_error(error, path, self.usage_line(path)) from None
        if given.help:
            click.echo(self.get_help(ctx), nl=False)
            ctx.exit()
        self.arity.check(path, self.usage_line(path), len(given.args))
        ctx.meta["given"] = given
        return []

    def get_help(self, ctx: click.Context) -> str:
        """The whole help text."""
        path = ctx.command_path
        parent = path.rpartition(" ")[0]
        aliases = ", ".join([path, *(f"{parent} {alias}" for alias in self.aliases)])
        return helptext.command(
            self.usage_line(path), self.summary, aliases if self.aliases else "", self.flags
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the body."""
        settings: Settings = ctx.find_root().obj
        call = Call(
            ctx.meta["given"],
            settings.client,
            sys.stdout,
            sys.stderr,
            self.get_help(ctx),
            settings.debug,
        )
        try:
            self.body(call)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output has enough; keep the interpreter's last flush quiet.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise CliError(status=128 + signal.SIGPIPE) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Flags, or what the daemon knows (names of nodes, networks)."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-") or self.completer is None:
            return found
        try:
            names = self.completer(ctx.find_root().obj.client())
        except (CliError, AttributeError):
            return found
        return [*found, *(CompletionItem(name) for name in names if name.startswith(incomplete))]


def flag_error(error: UsageError, path: str, usage: str) -> UsageError:
    """A flag's trouble with the lines docker prints after it."""
    return UsageError(
        f"{error.message}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information"
    )


@dataclass
class Settings:
    """What the global flags chose."""

    connect: Callable[[], Client]
    debug: bool = False
    _client: Client | None = None

    def client(self) -> Client:
        """One connection for the whole run."""
        if self._client is None:
            self._client = self.connect()
        return self._client

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()


Source = Mapping[str, str]  # command name -> "module:attribute"


class Group(click.Group):
    """Commands loaded only when asked for."""

    def __init__(
        self,
        name: str,
        summary: str,
        sources: Source,
        summaries: Source,
        flags: Sequence[Flag] = (),
    ) -> None:
        super().__init__(
            name,
            params=[*flags],
            help=summary,
            invoke_without_command=True,
            add_help_option=False,
        )
        self.summary, self.sources, self.summaries, self.flags = summary, sources, summaries, flags
        self.callback = self._alone

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names that have a summary; aliases have none."""
        return sorted(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and take it from there."""
        source = self.sources.get(cmd_name)
        if source is None:
            return None
        module, _, attribute = source.partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read our flags; what follows is a command and belongs to click."""
        path = ctx.command_path
        try:
            given = Reader(self.flags, interspersed=False).read(args)
        except UsageError as error:
            if not ctx.resilient_parsing:
                raise flag_error(error, path, self.usage_line(ctx)) from None
            given = defaults(self.flags)
        self.prepare(ctx, given)
        if given.help and not ctx.resilient_parsing:
            click.echo(self.get_help(ctx), nl=False)
            ctx.exit()
        if given.args and given.args[0].startswith("-"):
            raise CliError(self.unknown(ctx, given.args[0]))
        return super().parse_args(ctx, given.args)

    def prepare(self, ctx: click.Context, given: Given) -> None:
        """Act on the group's own flags; most have none."""

    def usage_line(self, ctx: click.Context) -> str:
        """The group's own usage."""
        return ctx.command_path

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command under its proper name, or say that there is none."""
        found = self.get_command(ctx, args[0])
        if found is None:
            if ctx.resilient_parsing:
                return None, None, args
            raise CliError(self.unknown(ctx, args[0]))
        return found.name, found, args[1:]

    def unknown(self, ctx: click.Context, name: str) -> str:
        """Docker's text for a command that does not exist."""
        path = ctx.command_path
        return (
            f"swarmctl: unknown command: {path} {name}\n\nUsage:  {path}\n\n"
            f"Run '{path} --help' for more information"
        )

    def get_help(self, ctx: click.Context) -> str:
        """The group's help."""
        entries = [(name, self.summaries[name]) for name in self.list_commands(ctx)]
        return helptext.group(ctx.command_path, self.summary, [("Commands", entries)])

    def _alone(self, **values: Any) -> None:
        """Without a command: help, on standard error."""
        ctx = click.get_current_context()
        if ctx.invoked_subcommand is None:
            click.echo(self.get_help(ctx), nl=False, err=True)
