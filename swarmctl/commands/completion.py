"""`swarmctl completion`: the script a shell sources; it calls back for the words."""

from __future__ import annotations

from swarmctl.command import ONE, Call, Command
from swarmctl.errors import CliError

SHELLS = ("bash", "fish", "zsh")


def _completion(call: Call) -> None:
    from click.shell_completion import ShellComplete, get_completion_class

    from swarmctl.cli import PROGRAM, Root

    shell = call.args[0]
    found = get_completion_class(shell) if shell in SHELLS else None
    if found is None:
        raise CliError(f"unknown shell {shell}: one of {', '.join(SHELLS)}")
    # The plain source, without bash's own look at which bash is installed here.
    completer = found(Root(), {}, PROGRAM, "_SWARMCTL_COMPLETE")
    call.say(ShellComplete.source(completer))


COMPLETION = Command(
    "completion",
    "bash|fish|zsh",
    "Print a completion script for bash, zsh or fish",
    _completion,
    arity=ONE,
    complete=lambda client: list(SHELLS),
)
