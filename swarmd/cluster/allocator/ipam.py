"""Address arithmetic: the next free subnet, address or number. Holds no state.

Everything is handed out onward from the last one given, wrapping at the end, so that what
was freed is not given to somebody else while old traffic for it may still be about
(BEHAVIOUR 3.2).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Subnet: TypeAlias = IPv4Network | IPv6Network

DEFAULT_POOL = "10.0.0.0/8"
DEFAULT_SUBNET_BITS = 24


class CannotAllocate(Exception):
    """What was asked for is not to be had now; the text says why."""


@dataclass(frozen=True, slots=True)
class Span:
    """Whole numbers from `first` to `last`, both included; empty when last < first."""

    first: int
    last: int

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last


def next_number(span: Span, after: int, taken: Callable[[int], bool]) -> int | None:
    """The first number not taken from `after` on, wrapping once; None when all are taken.

    An `after` outside the span means its beginning.
    """
    start = after if after in span else span.first
    for number in range(start, span.last + 1):
        if not taken(number):
            return number
    for number in range(span.first, min(start, span.last + 1)):
        if not taken(number):
            return number
    return None


def usable(subnet: Subnet) -> Span:
    """The addresses of a subnet that may be given: not its own, nor IPv4's broadcast."""
    first = int(subnet.network_address) + 1
    last = int(subnet.broadcast_address) - (1 if subnet.version == 4 else 0)
    return Span(first, last)


def within(subnet: Subnet, part: Subnet | None) -> Span:
    """The usable addresses of a subnet that lie in `part` (a range), if there is one."""
    whole = usable(subnet)
    if part is None:
        return whole
    first, last = int(part.network_address), int(part.broadcast_address)
    return Span(max(whole.first, first), min(whole.last, last))


def parse_subnet(text: str) -> Subnet:
    """Read `10.0.0.0/24`; host bits are cut off. Raises CannotAllocate."""
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise CannotAllocate(f"invalid subnet {text}") from error


@lru_cache(maxsize=16_384)
def parse_address(text: str) -> Address | None:
    """Read `10.0.0.2` or `10.0.0.2/24`; None for anything else."""
    try:
        return ip_interface(text).ip if "/" in text else ip_address(text)
    except ValueError:
        return None


@lru_cache(maxsize=16)
def parse_pools(pools: tuple[str, ...]) -> tuple[IPv4Network, ...]:
    """Read the cluster's default pools; what is no IPv4 network is left out."""
    found = []
    for text in pools:
        try:
            found.append(IPv4Network(text, strict=False))
        except ValueError:
            continue
    return tuple(found)


def overlapping(subnet: Subnet, held: Iterable[Subnet]) -> Subnet | None:
    """The first of `held` that shares an address with `subnet`."""
    for other in held:
        # overlaps() wants one version on both sides, which the type checker cannot see
        if isinstance(subnet, IPv4Network):
            if isinstance(other, IPv4Network) and subnet.overlaps(other):
                return other
        elif isinstance(other, IPv6Network) and subnet.overlaps(other):
            return other
    return None


def next_subnet(
    pools: Sequence[IPv4Network], bits: int, after: int, held: Iterable[Subnet]
) -> IPv4Network | None:
    """The first free block of prefix length `bits` in the pools, onward from `after`.

    `after` is the number of an address: the search begins behind it, in the pool that holds
    it, and comes back to the first pool at the end. None when no block is free.
    """
    blocks = _merged(held)
    spans = [Span(int(p.network_address), int(p.broadcast_address)) for p in pools]
    begin = next((index for index, span in enumerate(spans) if after in span), 0)
    for turn in range(len(spans) + 1):  # the pool begun with comes twice: rest, then head
        span = spans[(begin + turn) % len(spans)]
        low = after + 1 if turn == 0 and after in span else span.first
        start = _free_block(Span(low, span.last), 1 << (32 - bits), blocks)
        if start is not None:
            return IPv4Network((start, bits))
    return None


def _merged(held: Iterable[Subnet]) -> list[Span]:
    """IPv4 blocks as sorted spans that do not touch each other inside."""
    spans: list[Span] = []
    numbers = sorted(
        (int(subnet.network_address), int(subnet.broadcast_address))
        for subnet in held
        if subnet.version == 4
    )
    for first, last in numbers:
        if spans and first <= spans[-1].last:
            spans[-1] = Span(spans[-1].first, max(spans[-1].last, last))
        else:
            spans.append(Span(first, last))
    return spans


def _free_block(span: Span, size: int, blocks: Sequence[Span]) -> int | None:
    """Start of the first aligned block of `size` numbers in `span` that meets none of `blocks`."""
    start = _aligned(span.first, size)
    index = bisect_left(blocks, start, key=lambda block: block.last)
    while start + size - 1 <= span.last:
        if index == len(blocks) or blocks[index].first > start + size - 1:
            return start
        start = _aligned(blocks[index].last + 1, size)
        index += 1
    return None


def _aligned(number: int, size: int) -> int:
    return -(-number // size) * size
