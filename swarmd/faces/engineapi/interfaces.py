"""The machine's network interfaces and their addresses, read from the kernel by netlink.

Nothing simpler shows every address: SIOCGIFADDR knows one per interface, and the refusals of
BEHAVIOUR 4.2 name two.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_RTM_GETLINK, _RTM_NEWLINK = 18, 16
_RTM_GETADDR, _RTM_NEWADDR = 22, 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBi")
_ATTRIBUTE = struct.Struct("=HH")
_reply_bytes_max = 1 << 16
_reply_seconds_max = 2.0


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface: `kind` is "device" for a physical one, else veth, bridge, ..."""

    name: str
    up: bool
    loopback: bool
    kind: str
    addresses: tuple[Address, ...]


Interfaces = Callable[[], list[Interface]]


def system_interfaces() -> list[Interface]:
    """All interfaces in the kernel's order. Raises OSError when the kernel does not answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
        channel.settimeout(_reply_seconds_max)
        channel.bind((0, 0))
        links = list(_dump(channel, _RTM_GETLINK, _RTM_NEWLINK))
        rows = list(_dump(channel, _RTM_GETADDR, _RTM_NEWADDR))
    addresses: dict[int, list[Address]] = {}
    for row in rows:
        index, address = _read_address(row)
        if address is not None:
            addresses.setdefault(index, []).append(address)
    return [_read_link(link, addresses) for link in links]


def _dump(channel: socket.socket, ask: int, want: int) -> Iterator[bytes]:
    body = struct.pack("=B15x", socket.AF_UNSPEC)
    size = _HEADER.size + len(body)
    channel.send(_HEADER.pack(size, ask, _NLM_F_REQUEST | _NLM_F_DUMP, ask, 0) + body)
    while True:
        data = channel.recv(_reply_bytes_max)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
            if sequence == ask:
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", data, at + _HEADER.size)
                    raise OSError(-code, os.strerror(-code))
                if kind == want:
                    yield data[at + _HEADER.size : at + length]
            at += (max(length, _HEADER.size) + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        # The two top bits are flags (nested, byte order).
        yield kind & 0x3FFF, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _read_address(row: bytes) -> tuple[int, Address | None]:
    index = _ADDR.unpack_from(row)[4]
    found = dict(_attributes(row[_ADDR.size :]))
    # On point-to-point links ADDRESS is the far end.
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    return index, ip_address(raw) if raw else None


def _read_link(link: bytes, addresses: dict[int, list[Address]]) -> Interface:
    _, _, index, flags, _ = _LINK.unpack_from(link)
    found = dict(_attributes(link[_LINK.size :]))
    info = dict(_attributes(found.get(_IFLA_LINKINFO, b"")))
    return Interface(
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
        up=bool(flags & _IFF_UP),
        loopback=bool(flags & _IFF_LOOPBACK),
        kind=info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode() or "device",
        addresses=tuple(addresses.get(index, ())),
    )
