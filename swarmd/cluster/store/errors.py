"""What the store refuses, with the reference's texts (they reach clients unchanged).

Errors without a class of their own in the reference travel with code UNKNOWN, so here too.
"""

from __future__ import annotations

from swarmd.base.errors import AlreadyExists, NotFound, SwarmError


class StoreError(SwarmError):
    """An entry was dropped whole because one of its actions cannot be applied."""


class ObjectExists(AlreadyExists):
    """An object with this id is already there."""

    def __init__(self) -> None:
        super().__init__("object already exists")


class NameConflict(AlreadyExists):
    """Another object of the kind has this name (compared in lower case)."""

    def __init__(self) -> None:
        super().__init__("name conflicts with an existing object")


class ObjectMissing(NotFound):
    """No object has this id."""

    def __init__(self) -> None:
        super().__init__("object does not exist")


class UnknownKind(SwarmError):
    """A Resource names a kind for which there is no Extension."""

    def __init__(self) -> None:
        super().__init__("object kind is unregistered")


class ExtensionFixed(SwarmError):
    """Extensions never change once created."""

    def __init__(self) -> None:
        super().__init__("extensions are immutable")


class ExtensionInUse(SwarmError):
    """An Extension cannot go while Resources of its kind exist."""

    def __init__(self) -> None:
        super().__init__(
            "cannot delete extension because objects of this type exist in the data store"
        )
