"""One table: objects by id, and the indexes that find them.

Every list of ids is kept sorted, so that answers come out in the same order on every
manager and in every simulation run.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

from swarmd.cluster.store.kinds import Kind


class Table:
    """The applied objects of one kind. Changed only by the store."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.objects: dict[str, Any] = {}
        self.ids: list[str] = []
        self.names: dict[str, str] = {}  # lower-case name -> id
        self.indexes: dict[str, dict[str, list[str]]] = {name: {} for name in kind.indexes}

    def put(self, obj: Any) -> Any | None:
        """Add or replace an object; returns the one it replaced."""
        old = self.objects.get(obj.id)
        self.objects[obj.id] = obj
        if old is None:
            insort(self.ids, obj.id)
        self._rename(obj.id, old, obj)
        for name, indexer in self.kind.indexes.items():
            before = () if old is None else indexer(old)
            after = indexer(obj)
            if before != after:
                self._move(self.indexes[name], obj.id, before, after)
        return old

    def remove(self, id: str) -> Any:
        """Take an object out; returns it. It must be there."""
        old = self.objects.pop(id)
        self.ids.pop(bisect_left(self.ids, id))
        self._rename(id, old, None)
        for name, indexer in self.kind.indexes.items():
            self._move(self.indexes[name], id, indexer(old), ())
        return old

    def find(self, index: str, key: str) -> list[str]:
        """Ids under `key`, sorted. Not to be changed by the caller."""
        return self.indexes[index].get(key, [])

    def _rename(self, id: str, old: Any | None, new: Any | None) -> None:
        if not self.kind.named:
            return
        before = None if old is None else self.kind.annotations(old).name.lower()
        after = None if new is None else self.kind.annotations(new).name.lower()
        if before is not None and before != after and self.names.get(before) == id:
            del self.names[before]
        if after is not None:
            self.names[after] = id

    @staticmethod
    def _move(index: dict[str, list[str]], id: str, before: Any, after: Any) -> None:
        for key in before:
            if key not in after:
                ids = index[key]
                ids.pop(bisect_left(ids, id))
                if not ids:
                    del index[key]
        for key in after:
            if key not in before:
                insort(index.setdefault(key, []), id)
