"""Listen, advertise and data path addresses: read, resolve, choose (BEHAVIOUR 4.2, 5.4).

Pure: interfaces are handed in. The texts are the stock ones, since the CLI adds its hint to
some of them. Start at `resolve_init`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from swarmd.faces.engineapi.convert.cidr import parse_cidr
from swarmd.faces.engineapi.convert.common import quoted
from swarmd.faces.engineapi.errors import Refusal, bad_request
from swarmd.faces.engineapi.interfaces import Address, Interface

DEFAULT_HOST = "0.0.0.0"
DEFAULT_PORT = "2377"
DATA_PATH_PORT = 4789
DEFAULT_SUBNET_BITS = 24
# A /30 has too few addresses left beside the load balancer's own.
SUBNET_BITS_MAX = 29

BAD_LISTEN = "listen address must be an IP address or network interface (with optional port number)"
BAD_ADVERTISE = (
    "advertise address must be a non-zero IP address or network interface "
    "(with optional port number)"
)
BAD_DATA_PATH = (
    "data path address must be a non-zero IP address or network interface (without a port number)"
)
BAD_DEFAULT_ADVERTISE = (
    "default advertise address must be a non-zero IP address or network interface "
    "(without a port number)"
)
NO_ADDRESS = "could not find the system's IP address"
MUST_SAY_LISTEN = (
    "must specify a listening address because the address to advertise is not recognized as a "
    "system address, and a system's IP address to use could not be uniquely identified"
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What address choice looks at: interfaces, the engine's own subnets, the daemon's default."""

    interfaces: Sequence[Interface]
    engine_subnets: Sequence[str] = ()
    default_advertise: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Addresses of a node: "host:port", "host:port", and one of this machine without a port."""

    listen: str
    advertise: str
    local: str


def split_host_port(text: str) -> tuple[str, str] | None:
    """Host and port as Go's net.SplitHostPort; None where that fails."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return None
    if host.startswith("["):
        if not host.endswith("]"):
            return None
        host = host[1:-1]
    elif ":" in host:
        return None
    if any(mark in host + port for mark in "[]"):
        return None
    return host, port


def join_host_port(host: str, port: str) -> str:
    """``host:port`` with brackets round an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def with_defaults(text: str, name: str) -> str:
    """An address with the default host and port where it has none.

    Raises a 400 for an empty one; what cannot be read comes back as it is, as stock does.
    """
    if not text:
        raise bad_request(f"invalid {name} {quoted(text)}: invalid empty address")
    if text.startswith("tcp://"):
        text = text[len("tcp://") :]
    if "/" in text:
        return text
    if text.startswith("[") and text.endswith("]"):
        return join_host_port(text[1:-1], DEFAULT_PORT)
    if ":" not in text:
        return f"{text}:{DEFAULT_PORT}"
    parts = split_host_port(text)
    if parts is None or (parts[1] and not parts[1].isdigit()):
        return text
    return join_host_port(parts[0] or DEFAULT_HOST, parts[1] or DEFAULT_PORT)


def resolve_listen(text: str, interfaces: Sequence[Interface]) -> tuple[str, str]:
    """Host (an IP) and port to listen on."""
    parts = split_host_port(text)
    if parts is None:
        raise bad_request(f"could not parse listen address {text}")
    address = _named_address(parts[0], interfaces)
    if address is None:
        raise bad_request(BAD_LISTEN)
    return str(address), parts[1]


def resolve_advertise(text: str, port: str, around: Surroundings) -> tuple[str, str]:
    """Host (an IP) and port to tell others; found out where nothing is said."""
    if text:
        parts = split_host_port(text) or (text, port)
        return str(_certain(parts[0], around.interfaces, BAD_ADVERTISE)), parts[1]
    if around.default_advertise:
        parts = split_host_port(around.default_advertise) or (around.default_advertise, port)
        return str(_certain(parts[0], around.interfaces, BAD_DEFAULT_ADVERTISE)), parts[1]
    return str(system_address(around)), port


def resolve_data_path(text: str, interfaces: Sequence[Interface]) -> str:
    """The data path IP, empty when not given."""
    return str(_certain(text, interfaces, BAD_DATA_PATH)) if text else ""


def resolve_init(listen: str, advertise: str, around: Surroundings) -> Resolved:
    """All addresses of a swarm init; `listen` has its defaults filled in already."""
    listen_host, listen_port = resolve_listen(listen, around.interfaces)
    host, port = resolve_advertise(advertise, listen_port, around)
    return Resolved(
        listen=join_host_port(listen_host, listen_port),
        advertise=join_host_port(host, port),
        local=_local_address(listen_host, host, around),
    )


def _local_address(listen_host: str, advertise_host: str, around: Surroundings) -> str:
    if not ip_address(listen_host).is_unspecified:
        return listen_host
    wanted = ip_address(advertise_host)
    if any(wanted in interface.addresses for interface in around.interfaces):
        return advertise_host
    try:
        return str(system_address(around))
    except Refusal:
        raise bad_request(MUST_SAY_LISTEN) from None


def resolve_update(text: str, listen_text: str, known: Resolved, around: Surroundings) -> Resolved:
    """All addresses of a manager that is to be known by another one; `known` are the present.

    Without a port it keeps the one it is known by. Unless `listen_text` says where, it listens
    as before: but a listen address that was the same as the advertised one moves along.
    """
    if not text:
        raise bad_request(f"invalid AdvertiseAddr {quoted(text)}: invalid empty address")
    listen_host, listen_port = split_host_port(known.listen) or (DEFAULT_HOST, DEFAULT_PORT)
    old_host, old_port = split_host_port(known.advertise) or ("", listen_port)
    host, port = resolve_advertise(text, old_port, around)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise bad_request(BAD_ADVERTISE)
    if listen_text:
        wanted = with_defaults(listen_text, "ListenAddr")
        listen_host, listen_port = resolve_listen(wanted, around.interfaces)
    else:
        listen_host = host if listen_host == old_host else listen_host
        # Ports that differ are translated on the way here; that stays as it is.
        listen_port = port if listen_port == old_port else listen_port
    try:
        local = _local_address(listen_host, host, around)
    except Refusal:
        local = known.local
    return Resolved(
        listen=join_host_port(listen_host, listen_port),
        advertise=join_host_port(host, port),
        local=local,
    )


def check_pool(pool: Sequence[str] | None, subnet_bits: int) -> None:
    """Refuse address pools that cannot be cut into subnets of `subnet_bits` (0: the default)."""
    if pool is None:
        return
    bits = subnet_bits or DEFAULT_SUBNET_BITS
    if bits > SUBNET_BITS_MAX:
        raise Refusal(500, f"subnet size is out of range: {bits}")
    for text in pool:
        cidr = parse_cidr(text.strip())
        if cidr is None:
            base = text.strip()
            raise Refusal(500, f"invalid base pool {base}: invalid CIDR address: {base}")
        if bits < cidr.network.prefixlen:
            raise Refusal(
                500,
                f"invalid CIDR: {quoted(text.strip())}. Subnet size is too small for pool: {bits}",
            )


def data_path_port(port: int) -> int:
    """The VXLAN port, 4789 for 0."""
    if port == 0:
        return DATA_PATH_PORT
    if not 1024 <= port <= 49151:
        raise Refusal(500, f"Datapath port number is not in valid range (1024-49151) : {port}")
    return port


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def _named_address(text: str, interfaces: Sequence[Interface]) -> Address | None:
    for interface in interfaces:
        if interface.name == text:
            return _only_address(interface)
    return _parse(text)


def _certain(text: str, interfaces: Sequence[Interface], refusal: str) -> Address:
    address = _named_address(text, interfaces)
    if address is None or address.is_unspecified:
        raise bad_request(refusal)
    return address


def _only_address(interface: Interface) -> Address:
    found: dict[int, Address] = {}
    for address in interface.addresses:
        other = found.get(address.version)
        if other is not None:
            raise bad_request(
                f"interface {interface.name} has more than one IPv{address.version} address "
                f"({other} and {address})"
            )
        found[address.version] = address
    chosen = found.get(4) or found.get(6)
    if chosen is None:
        raise bad_request(f"interface {interface.name} has no usable IPv4 or IPv6 address")
    return chosen


def _is_global_unicast(address: Address) -> bool:
    if isinstance(address, IPv4Address) and str(address) == "255.255.255.255":
        return False
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_link_local
    )


def system_address(around: Surroundings) -> Address:
    """The only address of the only interface that has one.

    Physical devices come first. Inside containers and namespaces there are none with an address;
    then every interface that is up counts, less those in the engine's own subnets.
    """
    devices = [
        (interface.name, _global(interface))
        for interface in around.interfaces
        if interface.kind == "device" and interface.up
    ]
    if any(addresses for _, addresses in devices):
        return _single(devices)
    return _single(list(_outside_engine(around)))


def _global(interface: Interface) -> list[Address]:
    return [address for address in interface.addresses if _is_global_unicast(address)]


def _outside_engine(around: Surroundings) -> Iterator[tuple[str, list[Address]]]:
    cidrs = [parse_cidr(text) for text in around.engine_subnets]
    networks = [cidr.network for cidr in cidrs if cidr is not None]
    for interface in around.interfaces:
        if not interface.up or interface.loopback:
            continue
        addresses = _global(interface)
        inside = any(
            address.version == network.version and address in network
            for address in addresses
            for network in networks
        )
        if not inside:
            yield interface.name, addresses


def _single(candidates: Sequence[tuple[str, list[Address]]]) -> Address:
    chosen: tuple[str, Address] | None = None
    for name, addresses in candidates:
        best: dict[int, Address] = {}
        for address in addresses:
            if address.version in best:
                raise _several((name, best[address.version]), (name, address))
            best[address.version] = address
        preferred = best.get(4) or best.get(6)
        if preferred is None:
            continue
        if chosen is not None:
            raise _several(chosen, (name, preferred))
        chosen = (name, preferred)
    if chosen is None:
        raise bad_request(NO_ADDRESS)
    return chosen[1]


def _several(first: tuple[str, Address], second: tuple[str, Address]) -> Refusal:
    text = "could not choose an IP address to advertise since this system has multiple addresses on"
    if first[0] == second[0]:
        return bad_request(f"{text} interface {first[0]} ({first[1]} and {second[1]})")
    return bad_request(
        f"{text} different interfaces ({first[1]} on {first[0]} and {second[1]} on {second[0]})"
    )
