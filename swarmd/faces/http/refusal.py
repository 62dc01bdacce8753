"""An answer that says no: an HTTP status and the text shown with it."""

from __future__ import annotations


class Refusal(Exception):
    """This program's own answer: an HTTP status and a text shown without a gRPC prefix."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Unreachable(Refusal):
    """The engine behind us does not answer: 503, unless there is something to say without it."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message)


def bad_request(message: str) -> Refusal:
    """A request that can never work as it stands: 400."""
    return Refusal(400, message)


def not_found(message: str) -> Refusal:
    """A thing that is not there: 404."""
    return Refusal(404, message)


def unavailable(message: str) -> Refusal:
    """A request that cannot be served in the present state: 503."""
    return Refusal(503, message)
