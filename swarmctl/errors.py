"""What can go wrong, with the exit code it ends in.

CliError            exit 1 unless it says otherwise; the text goes to standard error
├── UsageError      exit 125: a flag that cannot be understood
├── ApiError        the daemon answered with an error; carries the HTTP status
└── ConnectError    nobody answered
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class CliError(Exception):
    """The command failed; an empty text prints nothing."""

    def __init__(self, message: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class UsageError(CliError):
    """A flag that does not exist or has a bad value."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 125)


class ApiError(CliError):
    """The daemon's answer was an error."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def only_swarmd(what: str) -> Iterator[None]:
    """Say of a daemon that does not know the path asked for that it cannot do `what`."""
    try:
        yield
    except ApiError as error:
        if "page not found" in error.message:
            raise CliError(f"this daemon cannot {what}: only swarmd can") from None
        raise


class ConnectError(CliError):
    """The daemon could not be reached."""


def joined(errors: list[CliError]) -> None:
    """Raise what a loop over several objects collected, one line each; nothing if empty."""
    if errors:
        raise CliError("\n".join(error.message for error in errors))
