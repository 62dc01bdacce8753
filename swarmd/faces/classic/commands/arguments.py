"""Go's flag syntax: long options with one dash, "=true" behind switches. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import click


def normalise(arguments: Sequence[str], command: click.Command) -> list[str]:
    """Rewrite `arguments` so that click reads them for `command`.

    "-tls" and "-addr=X" get their second dash, "--H=X" becomes "-H X", "--tls=false" vanishes.
    What follows "--" is left alone, and so are the values of options.
    """
    options = {
        name.lstrip("-"): (name, parameter)
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
    }
    out: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*out, argument, *rest]
        bare, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or bare not in options:
            out.append(argument)
            continue
        name, option = options[bare]
        if option.is_flag:
            if not equals or _is_true(value):
                out.append(name)
        elif equals:
            out += [name, value]
        else:
            out.append(name)
            out += rest[:1]
            rest = rest[1:]
    return out


def _is_true(value: str) -> bool:
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise click.UsageError(f'invalid boolean value "{value}"')


class GoCommand(click.Command):
    """A command whose options may be written as Go programs take them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Normalise, then parse."""
        return super().parse_args(ctx, normalise(args, self))


class GoGroup(click.Group):
    """Commands with the short names the reference gives them."""

    short_names = {"c": "create", "l": "list", "m": "manage", "j": "join"}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find by name or by its first letter."""
        return super().get_command(ctx, self.short_names.get(cmd_name, cmd_name))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Normalise the options before the command's name, then parse."""
        for index, argument in enumerate(args):
            if self.get_command(ctx, argument) is not None:
                return super().parse_args(ctx, [*normalise(args[:index], self), *args[index:]])
        return super().parse_args(ctx, normalise(args, self))
