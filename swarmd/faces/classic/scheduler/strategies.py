"""Strategies: in which order the nodes that may take a container are preferred."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swarmd.base.entropy import Entropy
from swarmd.faces.classic.scheduler.errors import NO_RESOURCES, NoNode
from swarmd.faces.classic.scheduler.node import Node
from swarmd.faces.classic.scheduler.wish import Wish

Strategy = Callable[[Wish, Sequence[Node], Entropy], list[Node]]

# How much health weighs against load: 100 times this, where load is at most 200.
_HEALTH_FACTOR = 10


def spread(wish: Wish, nodes: Sequence[Node], entropy: Entropy) -> list[Node]:
    """The emptiest and healthiest first."""
    weighed = _weigh(wish, nodes, -_HEALTH_FACTOR)
    return [node for weight, node in sorted(weighed, key=_rank)]


def binpack(wish: Wish, nodes: Sequence[Node], entropy: Entropy) -> list[Node]:
    """The fullest (and healthiest) first, so that other nodes stay free for large containers."""
    weighed = _weigh(wish, nodes, _HEALTH_FACTOR)
    return [node for weight, node in sorted(weighed, key=_rank, reverse=True)]


def shuffled(wish: Wish, nodes: Sequence[Node], entropy: Entropy) -> list[Node]:
    """Any order."""
    keyed = [(entropy.token(8), number) for number in range(len(nodes))]
    return [nodes[number] for _, number in sorted(keyed)]


# "binpacking" is an old name that scripts still use.
STRATEGIES: dict[str, Strategy] = {"spread": spread, "binpack": binpack, "random": shuffled}
OLD_NAMES = {"binpacking": "binpack"}


def _rank(weighed: tuple[int, Node]) -> tuple[int, int, str]:
    weight, node = weighed
    # The name makes ties come out the same every time.
    return weight, len(node.containers), node.name


def _weigh(wish: Wish, nodes: Sequence[Node], health_factor: int) -> list[tuple[int, Node]]:
    weighed = []
    for node in nodes:
        load = _load(wish, node)
        if load is not None:
            weighed.append((load + health_factor * node.health, node))
    if not weighed:
        raise NoNode(NO_RESOURCES)
    return weighed


def _load(wish: Wish, node: Node) -> int | None:
    """Per cent of CPUs plus per cent of memory in use afterwards; None when it does not fit."""
    if node.total_memory < wish.memory or node.total_cpus < wish.cpus:
        return None
    cpus = memory = 100
    if wish.cpus > 0:
        cpus = (node.used_cpus + wish.cpus) * 100 // node.total_cpus
    if wish.memory > 0:
        memory = (node.used_memory + wish.memory) * 100 // node.total_memory
    return cpus + memory if cpus <= 100 and memory <= 100 else None
