"""What can be wrong with a backup file. Texts are for operators and hold no secrets.

ArchiveError
├── NotAnArchive   another kind of file
├── NewerFormat    made by a later release
├── WrongKey       the passphrase or unlock key does not fit, or none was given
└── Damaged        changed or cut off after it was made
"""

from __future__ import annotations


class ArchiveError(Exception):
    """A backup that cannot be used."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotAnArchive(ArchiveError):
    """The file is something else."""

    def __init__(self) -> None:
        super().__init__("this is not a backup made by swarmctl")


class NewerFormat(ArchiveError):
    """The file needs a later release."""

    def __init__(self, found: object, known: int) -> None:
        super().__init__(
            f"the backup has format {found}, made by a later release; "
            f"this one reads formats up to {known}"
        )


class WrongKey(ArchiveError):
    """The file cannot be opened with what was given."""


class Damaged(ArchiveError):
    """The file is not what was written."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the backup is damaged: {what}")
