"""Addresses of engines: host:port, patterns of them, and the parts of a discovery URL. Pure."""

from __future__ import annotations

import re

from swarmd.base.errors import InvalidArgument

# One range in a pattern: far above a real cluster, far below what would fill the memory.
range_entries_max = 65_536
_RANGE = re.compile(r"\[(.+):(.+)\]")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}\Z")


def split_host_port(address: str) -> tuple[str, str]:
    """ "10.0.0.1:2375" as ("10.0.0.1", "2375"). Raises `InvalidArgument` in Go's words."""

    def wrong(why: str) -> InvalidArgument:
        return InvalidArgument(f"address {address}: {why}")

    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket:
            raise wrong("missing ']' in address")
        if not rest.startswith(":"):
            raise wrong("missing port in address")
        port = rest[1:]
    else:
        host, colon, port = address.rpartition(":")
        if not colon:
            raise wrong("missing port in address")
        if ":" in host:
            raise wrong("too many colons in address")
    if ":" in port or "[" in host or "]" in host + port:
        raise wrong("unexpected ':', '[' or ']' in address")
    return host, port


def join_host_port(host: str, port: str) -> str:
    """The other way round; brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_address(address: str) -> bool:
    """Whether it is host:port with a port from 1 to 65535 (what `swarm join` takes)."""
    try:
        _, port = split_host_port(address)
    except InvalidArgument:
        return False
    return port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535


def generate(pattern: str) -> list[str]:
    """Write out a range: "10.0.0.[1:3]:2375" is three addresses; anything else is itself.

    Raises `InvalidArgument` above `range_entries_max`.
    """
    found = _RANGE.search(pattern)
    if found is None or not (_NUMBER.match(found[1]) and _NUMBER.match(found[2])):
        return [pattern]
    low, high = int(found[1]), int(found[2])
    if high - low >= range_entries_max:
        raise InvalidArgument(f"{pattern}: more than {range_entries_max} addresses")
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [f"{head}{number}{tail}" for number in range(low, high + 1)]


def create_entries(addresses: list[str]) -> list[str]:
    """The addresses in their usual form, empty ones left out. Raises `InvalidArgument`."""
    return [join_host_port(*split_host_port(address)) for address in addresses if address]


def parse_file(text: str) -> list[str]:
    """Addresses of a discovery file: one pattern a line, comments begin with "#"."""
    found: list[str] = []
    for line in text.strip().split("\n"):
        found.extend(generate(line.partition("#")[0].strip()))
    return create_entries(found)


def parse_nodes(text: str) -> list[str]:
    """Addresses of a nodes:// URL: patterns with commas between. Raises `InvalidArgument`."""
    try:
        return [
            join_host_port(*split_host_port(address))
            for pattern in text.split(",")
            for address in generate(pattern)
        ]
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{error.message}, please check you are using the correct discovery "
            "(missing token:// ?)"
        ) from error


def split_url(url: str) -> tuple[str, str]:
    """Scheme and rest; without a scheme it is a list of nodes."""
    scheme, separator, rest = url.partition("://")
    return (scheme, rest) if separator else ("nodes", url)


def without_secret(url: str) -> str:
    """A discovery URL to show in logs: a token's id is the whole secret, so it is left out."""
    scheme, rest = split_url(url)
    if scheme != "token":
        return url
    return f"token://{rest[: rest.rfind('/') + 1]}..."
