"""CIDR texts read as strictly as Go's net.ParseCIDR."""

from __future__ import annotations

import ipaddress

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def parse_cidr(text: str) -> Interface | None:
    """Address and prefix length, None for anything else (netmasks, spaces, bare addresses)."""
    address, slash, bits = text.partition("/")
    if not slash or not (bits.isascii() and bits.isdigit()) or "%" in address:
        return None
    try:
        return ipaddress.ip_interface(f"{ipaddress.ip_address(address)}/{int(bits)}")
    except ValueError:
        return None
