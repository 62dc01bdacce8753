"""Object tables, transactions, change events and snapshots.

Does not know that Raft exists: a version is a number handed in, and an entry is a list of
actions. Start at `Store`, then `Transaction`.
"""

from swarmd.cluster.store.errors import (
    ExtensionFixed,
    ExtensionInUse,
    NameConflict,
    ObjectExists,
    ObjectMissing,
    StoreError,
    UnknownKind,
)
from swarmd.cluster.store.kinds import (
    BY_TARGET,
    KINDS,
    Kind,
    Object,
    ObjectT,
    custom_key,
    edit,
    kind_of,
    number,
    slot_key,
)
from swarmd.cluster.store.store import Batch, Store
from swarmd.cluster.store.transaction import Action, Event, Savepoint, Transaction
from swarmd.cluster.store.view import View

__all__ = [
    "Action",
    "BY_TARGET",
    "Batch",
    "Event",
    "ExtensionFixed",
    "ExtensionInUse",
    "KINDS",
    "Kind",
    "NameConflict",
    "Object",
    "ObjectExists",
    "ObjectMissing",
    "ObjectT",
    "Savepoint",
    "Store",
    "StoreError",
    "Transaction",
    "UnknownKind",
    "View",
    "custom_key",
    "edit",
    "kind_of",
    "number",
    "slot_key",
]
