"""The file format of backups: a bundle of files with a manifest, in an envelope or in clear.

A leaf without imports of its own, because the command line reads backups without a daemon
(docs/decisions/0009).
"""

from swarmd.base.archive.bundle import FORMAT, Bundle, pack, unpack
from swarmd.base.archive.envelope import (
    Kind,
    Lock,
    from_passphrase,
    from_unlock_key,
    kind_of,
    open_sealed,
    seal,
)
from swarmd.base.archive.errors import ArchiveError, Damaged, NewerFormat, NotAnArchive, WrongKey

__all__ = [
    "FORMAT",
    "ArchiveError",
    "Bundle",
    "Damaged",
    "Kind",
    "Lock",
    "NewerFormat",
    "NotAnArchive",
    "WrongKey",
    "from_passphrase",
    "from_unlock_key",
    "kind_of",
    "open_sealed",
    "pack",
    "seal",
    "unpack",
]
