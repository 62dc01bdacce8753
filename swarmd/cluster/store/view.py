"""The read side: what is applied right now, or what a transaction would make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmd import api
from swarmd.base.errors import invariant
from swarmd.cluster.model.names import DEFAULT_CLUSTER
from swarmd.cluster.store.kinds import ObjectT, kind_of
from swarmd.cluster.store.table import Table


class Applied:
    """The applied state that store, views and transactions share.

    `stamp` is a fresh object after every change: two views with the same stamp see the
    same state, whatever store they come from.
    """

    def __init__(self, tables: Mapping[type[Any], Table], strict: bool) -> None:
        self.tables = tables
        self.strict = strict
        self.stamp: object = object()

    def table(self, kind: type[Any]) -> Table:
        """The table of `kind`; another type is a bug of the caller."""
        table = self.tables.get(kind)
        return table if table is not None else self.tables[kind_of(kind).type]


class View:
    """Reads of the applied state. Valid until the next apply; never hold one over an await.

    The objects returned are the stored ones: read them, `edit` a copy to change them. In a
    strict store a view that outlived an apply raises `InvariantViolation`.
    """

    def __init__(self, applied: Applied) -> None:
        self._applied = applied
        self._stamp = applied.stamp

    @property
    def stamp(self) -> object:
        """Names the state seen: equal (`is`) stamps mean equal contents."""
        return self._stamp

    def get(self, kind: type[ObjectT], id: str) -> ObjectT | None:
        """The object with this id, or None."""
        return self._table(kind).objects.get(id)

    def all(self, kind: type[ObjectT]) -> list[ObjectT]:
        """All objects of a kind, sorted by id."""
        table = self._table(kind)
        return [table.objects[id] for id in table.ids]

    def by(self, kind: type[ObjectT], index: str, key: str) -> list[ObjectT]:
        """Objects found under `key` in `index` (see README), sorted by id."""
        table = self._table(kind)
        return [table.objects[id] for id in table.find(index, key)]

    def named(self, kind: type[ObjectT], name: str) -> ObjectT | None:
        """The object with this name, compared in lower case; only for kinds with names."""
        table = self._table(kind)
        invariant(table.kind.named, f"a {table.kind.target} has no unique name")
        id = table.names.get(name.lower())
        return None if id is None else table.objects[id]

    def count(self, kind: type[ObjectT]) -> int:
        """How many objects of a kind there are."""
        return len(self._table(kind).objects)

    def cluster(self) -> api.Cluster | None:
        """The default cluster object, once there is one."""
        return self.named(api.Cluster, DEFAULT_CLUSTER)

    def _table(self, kind: type[Any]) -> Table:
        applied = self._applied
        if applied.strict:
            invariant(self._stamp is applied.stamp, "a view was used after the state had changed")
        return applied.table(kind)
