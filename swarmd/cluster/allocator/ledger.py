"""Who holds what: subnets, addresses and VXLAN ids, as the stored objects say.

`Ledger` is the incremental sum of all objects, `Desk` one plan's working copy on top of it.
Services and tasks are entered as well as networks and nodes: whoever hands out addresses must
know all that hold one, also those that a stock leader gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from types import MappingProxyType
from typing import Any

from swarmd import api
from swarmd.cluster.allocator.ipam import (
    Address,
    CannotAllocate,
    Span,
    Subnet,
    next_number,
    next_subnet,
    overlapping,
    parse_address,
    parse_subnet,
    within,
)
from swarmd.cluster.model.states import holds_resources
from swarmd.cluster.store import Object, View

OVERLAY = "overlay"
VXLAN_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
VXLAN_IDS = Span(4096, (1 << 24) - 1)  # below are VLAN ids, which Windows refuses


@dataclass(frozen=True, slots=True)
class Block:
    """A subnet of a network, with the range to which its addresses are confined, if any."""

    subnet: Subnet
    range: Subnet | None

    @property
    def span(self) -> Span:
        """The numbers of the addresses that may be given."""
        return within(self.subnet, self.range)


@dataclass(frozen=True, slots=True)
class Cursors:
    """Where handing out goes on: the allocator's memo. Empty is a safe start."""

    subnet: int = -1  # last address of the last block given from the pools
    vxlan: int = 0  # next id to try
    addresses: Mapping[tuple[str, str], int] = field(  # (network, subnet) -> next to try
        default_factory=lambda: MappingProxyType({})
    )
    failures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class _Claims:
    """What one object holds."""

    blocks: tuple[tuple[str, Block], ...] = ()
    vxlans: tuple[int, ...] = ()
    addresses: tuple[tuple[str, Address], ...] = ()  # (network id, address)


_NOTHING = _Claims()


class Ledger:
    """Claims of all objects. Entering an object again replaces what it held before."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], _Claims] = {}
        self._blocks: dict[str, list[Block]] = {}
        self._vxlans: dict[int, int] = {}  # id -> how many hold it
        self._addresses: dict[str, dict[Address, int]] = {}

    @classmethod
    def of(cls, view: View) -> Ledger:
        """The ledger of everything stored."""
        ledger = cls()
        for kind in (api.Network, api.Node, api.Service, api.Task):
            held: Iterable[Any] = view.all(kind)
            for obj in held:
                ledger.enter(obj)
        return ledger

    def enter(self, obj: Object) -> None:
        """Take down what an object holds now."""
        claims = _claims_of(obj)
        key = (type(obj).__name__, obj.id)
        before = self._claims.get(key, _NOTHING)
        if claims == before:
            return
        self._count(before, -1)
        self._count(claims, +1)
        if claims == _NOTHING:
            del self._claims[key]
        else:
            self._claims[key] = claims

    def strike(self, obj: Object) -> None:
        """Free what a deleted object held."""
        before = self._claims.pop((type(obj).__name__, obj.id), _NOTHING)
        self._count(before, -1)

    def blocks(self, network_id: str) -> list[Block]:
        """The subnets of an allocated network, in the order of its configs."""
        return self._blocks.get(network_id, [])

    def all_blocks(self) -> list[Block]:
        """The subnets of all networks."""
        return [block for blocks in self._blocks.values() for block in blocks]

    def holds_vxlan(self, number: int) -> bool:
        """True when a network has this VXLAN id."""
        return number in self._vxlans

    def holders(self, network_id: str) -> Mapping[Address, int]:
        """Addresses in use on a network, and by how many objects."""
        return self._addresses.get(network_id, {})

    def contents(self) -> object:
        """Everything, in a form that can be compared."""
        return (
            {id: sorted(map(str, blocks)) for id, blocks in self._blocks.items()},
            self._vxlans,
            self._addresses,
            self._claims,
        )

    def _count(self, claims: _Claims, by: int) -> None:
        for network_id, block in claims.blocks:
            blocks = self._blocks.setdefault(network_id, [])
            blocks.append(block) if by > 0 else blocks.remove(block)
            if not blocks:
                del self._blocks[network_id]
        for number in claims.vxlans:
            _tally(self._vxlans, number, by)
        for network_id, address in claims.addresses:
            held = self._addresses.setdefault(network_id, {})
            _tally(held, address, by)
            if not held:
                del self._addresses[network_id]


class Desk:
    """One plan's working copy: the ledger, what the plan has given, and where it goes on."""

    def __init__(self, ledger: Ledger, cursors: Cursors) -> None:
        self._ledger = ledger
        self._subnet = cursors.subnet
        self._vxlan = cursors.vxlan
        self._next = dict(cursors.addresses)
        self._blocks: dict[str, list[Block]] = {}
        self._vxlans: set[int] = set()
        self._addresses: dict[str, set[Address]] = {}
        self._full: set[tuple[str, str]] = set()  # found full; nothing is freed during a plan

    def cursors(self, failures: Mapping[str, str]) -> Cursors:
        """The memo of the plan; networks that are gone are forgotten."""
        kept = {
            key: number
            for key, number in self._next.items()
            if key[0] in self._blocks or self._ledger.blocks(key[0])
        }
        return Cursors(
            self._subnet,
            self._vxlan,
            MappingProxyType(dict(sorted(kept.items()))),
            MappingProxyType(dict(sorted(failures.items()))),
        )

    def pool_subnet(self, pools: Sequence[IPv4Network], bits: int) -> IPv4Network:
        """The next free subnet of the default pools; not yet taken."""
        held = [block.subnet for block in self._all_blocks()]
        subnet = next_subnet(pools, bits, self._subnet, held)
        if subnet is None:
            raise CannotAllocate(
                "could not find an available, non-overlapping address pool among the defaults"
            )
        self._subnet = int(subnet.broadcast_address)
        return subnet

    def take_block(self, network_id: str, block: Block) -> None:
        """Take a subnet. Raises CannotAllocate when it overlaps another network's.

        A subnet with a range may be shared with networks that have exactly this subnet and
        another range.
        """
        clashes = []
        for other in self._all_blocks():
            if overlapping(block.subnet, [other.subnet]) is None:
                continue
            shared = block.subnet == other.subnet and block.range is not None
            if not shared or block.range == other.range:
                clashes.append(other.subnet)
        if clashes:  # the first, in whatever order this ledger came to know them
            raise CannotAllocate(f"subnet {block.subnet} overlaps with {min(clashes)}")
        self._blocks.setdefault(network_id, []).append(block)

    def take_address(self, network_id: str, block: Block, wanted: Address | None = None) -> Address:
        """Take the next free address of a block, or the one wanted. Raises CannotAllocate."""
        if wanted is not None:
            if int(wanted) not in block.span or wanted.version != block.subnet.version:
                raise CannotAllocate(f"address {wanted} is not to be had in {block.subnet}")
            if self._is_taken(network_id, wanted):
                raise CannotAllocate(f"address {wanted} is already in use")
            self._addresses.setdefault(network_id, set()).add(wanted)
            return wanted
        make = type(block.subnet.network_address)
        key = (network_id, str(block.subnet))
        number = None
        if key not in self._full:
            number = next_number(
                block.span,
                self._next.get(key, 0),
                lambda number: self._is_taken(network_id, make(number)),
            )
        if number is None:
            self._full.add(key)
            raise CannotAllocate(f"no address is left in {block.subnet}")
        self._next[key] = number + 1
        address = make(number)
        self._addresses.setdefault(network_id, set()).add(address)
        return address

    def take_vxlan(self, wanted: int | None = None) -> int:
        """Take the next free VXLAN id, or the one wanted. Raises CannotAllocate."""
        if wanted is not None:
            if self._is_vxlan_taken(wanted):
                raise CannotAllocate(f"vxlan id {wanted} is already in use")
            self._vxlans.add(wanted)
            return wanted
        number = next_number(VXLAN_IDS, self._vxlan, self._is_vxlan_taken)
        if number is None:
            raise CannotAllocate("no vxlan id is left")
        self._vxlan = number + 1
        self._vxlans.add(number)
        return number

    def any_address(self, network_id: str) -> str:
        """Take an address from the first subnet of a network that has one; as `10.0.0.2/24`."""
        blocks = self._ledger.blocks(network_id)
        for block in sorted(blocks, key=lambda block: block.subnet.version):
            try:
                address = self.take_address(network_id, block)
            except CannotAllocate:
                continue
            return f"{address}/{block.subnet.prefixlen}"
        raise CannotAllocate(f"no address is left in network {network_id}")

    def undo_to(self, mark: Mark) -> None:
        """Give back what was taken since the mark."""
        self._subnet, self._vxlan = mark.subnet, mark.vxlan
        self._next, self._vxlans = dict(mark.next), set(mark.vxlans)
        self._full.clear()
        self._blocks = {id: list(blocks) for id, blocks in mark.blocks.items()}
        self._addresses = {id: set(held) for id, held in mark.addresses.items()}

    def mark(self) -> Mark:
        """Remember what has been taken so far."""
        return Mark(
            self._subnet,
            self._vxlan,
            dict(self._next),
            frozenset(self._vxlans),
            {id: tuple(blocks) for id, blocks in self._blocks.items()},
            {id: frozenset(held) for id, held in self._addresses.items()},
        )

    def _all_blocks(self) -> list[Block]:
        return [*self._ledger.all_blocks(), *(b for bs in self._blocks.values() for b in bs)]

    def _is_taken(self, network_id: str, address: Address) -> bool:
        given = self._addresses.get(network_id, ())
        return address in given or address in self._ledger.holders(network_id)

    def _is_vxlan_taken(self, number: int) -> bool:
        return number in self._vxlans or self._ledger.holds_vxlan(number)


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment at a desk."""

    subnet: int
    vxlan: int
    next: Mapping[tuple[str, str], int]
    vxlans: frozenset[int]
    blocks: Mapping[str, tuple[Block, ...]]
    addresses: Mapping[str, frozenset[Address]]


def is_allocated(network: api.Network) -> bool:
    """True when a network has its driver state and addresses."""
    return network.HasField("driver_state") and network.HasField("ipam")


def is_overlay(network: api.Network) -> bool:
    """True for networks that span nodes."""
    return OVERLAY in (network.driver_state.name, network.spec.driver_config.name)


def vxlan_ids(options: Mapping[str, str]) -> tuple[int, ...]:
    """The ids in a driver's options. Raises CannotAllocate when they cannot be read."""
    text = options.get(VXLAN_OPTION, "")
    try:
        ids = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise CannotAllocate(f"invalid vxlan id list {text}") from error
    if any(not 0 <= number <= VXLAN_IDS.last for number in ids):
        raise CannotAllocate(f"vxlan id out of range in {text}")
    return ids


def _claims_of(obj: Object) -> _Claims:
    match obj:
        case api.Network():
            return _network_claims(obj) if is_allocated(obj) else _NOTHING
        case api.Node():
            return _Claims(addresses=_attached(obj.attachments))
        case api.Task():
            return _Claims(addresses=_attached(obj.networks)) if holds_resources(obj) else _NOTHING
        case api.Service():
            vips = ((vip.network_id, parse_address(vip.addr)) for vip in obj.endpoint.virtual_ips)
            return _Claims(addresses=tuple((id, addr) for id, addr in vips if addr is not None))
        case _:
            return _NOTHING


def _network_claims(network: api.Network) -> _Claims:
    blocks, addresses = [], []
    for config in network.ipam.configs:
        try:
            subnet = parse_subnet(config.subnet)
            part = parse_subnet(config.range) if config.range else None
        except CannotAllocate:
            continue  # written by somebody else; nothing of ours can clash with it
        blocks.append((network.id, Block(subnet, part)))
        gateway = parse_address(config.gateway)
        if gateway is not None:
            addresses.append((network.id, gateway))
    try:
        vxlans = vxlan_ids(network.driver_state.options)
    except CannotAllocate:
        vxlans = ()
    return _Claims(tuple(blocks), vxlans, tuple(addresses))


def _attached(
    attachments: Iterable[api.NetworkAttachment],
) -> tuple[tuple[str, Address], ...]:
    found = []
    for attachment in attachments:
        for text in attachment.addresses:
            address = parse_address(text)
            if address is not None:
                found.append((attachment.network.id, address))
    return tuple(found)


def _tally(counts: dict[Any, int], key: Any, by: int) -> None:
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)
