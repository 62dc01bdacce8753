"""The scheduler: filters, then the strategy; soft conditions are given up if need be."""

from __future__ import annotations

from collections.abc import Sequence

from swarmd.base.entropy import Entropy
from swarmd.base.errors import InvalidArgument
from swarmd.faces.classic.scheduler.errors import NO_NODE, NoNode
from swarmd.faces.classic.scheduler.filters import FILTERS, apply
from swarmd.faces.classic.scheduler.node import Node
from swarmd.faces.classic.scheduler.strategies import OLD_NAMES, STRATEGIES
from swarmd.faces.classic.scheduler.wish import Wish


class Scheduler:
    """One strategy and its filters."""

    def __init__(
        self, entropy: Entropy, strategy: str = "spread", filters: Sequence[str] = tuple(FILTERS)
    ) -> None:
        """Raises `InvalidArgument` for names that are not known."""
        strategy = OLD_NAMES.get(strategy, strategy)
        if strategy not in STRATEGIES:
            raise InvalidArgument("strategy not supported")
        if any(name not in FILTERS for name in filters):
            raise InvalidArgument("filter not supported")
        self.strategy = strategy
        self.filters = tuple(filters)
        self._entropy = entropy

    def select(self, wish: Wish, nodes: Sequence[Node]) -> list[Node]:
        """Nodes that may take the container, best first; never empty. Raises `NoNode`."""
        try:
            return self._round(wish, nodes, soft=True)
        except NoNode:
            return self._round(wish, nodes, soft=False)

    def _round(self, wish: Wish, nodes: Sequence[Node], *, soft: bool) -> list[Node]:
        chosen = [FILTERS[name] for name in self.filters]
        kept = apply(chosen, wish, nodes, soft=soft)
        if not kept:
            raise NoNode(NO_NODE)
        return STRATEGIES[self.strategy](wish, kept, self._entropy)
