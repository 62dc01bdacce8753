"""Addresses as nodes write them: "10.0.0.1:2377", "[fe80::1]:2377", ":2377"."""

from __future__ import annotations

import ipaddress

from swarmd.base.errors import InvalidArgument


def split(text: str) -> tuple[str, int]:
    """Host (empty for every interface) and port. Raises `InvalidArgument`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidArgument(f"address {text}: too many colons in address")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"address {text}: missing or invalid port in address")
    return host, int(port)


def join(host: str, port: int) -> str:
    """Write a socket address; IPv4 inside IPv6 is written as IPv4, as Go does."""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        return f"{mapped}:{port}"
    return f"[{host}]:{port}" if parsed.version == 6 else f"{host}:{port}"


def of_socket(name: object) -> str:
    """The "ip:port" of what `getpeername` or `getsockname` returned; "" if it is none."""
    if isinstance(name, tuple) and len(name) >= 2:
        return join(str(name[0]), int(name[1]))
    return ""
