"""The types a flag can have: how its text is read, shown as a default, and refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swarmctl.gotext import parse_duration, quote

_UINT64_MAX, _INT64_MAX = 2**64 - 1, 2**63 - 1


@dataclass(frozen=True, slots=True)
class Kind:
    """A flag type. `shown` is its word in help texts; `parse` raises ValueError with Go's text.

    `many` collects every use in a list.
    """

    name: str
    shown: str
    parse: Callable[[str], Any]
    many: bool = False


def _bool(text: str) -> bool:
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def _integer(function: str, low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        body = text.replace("_", "") if re.match(r"[+-]?0[xXbBoO]", text) else text
        signed = r"[+-]?" if low < 0 else ""
        if not re.fullmatch(signed + r"(?:\d+|0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+)", body):
            raise ValueError(f"strconv.{function}: parsing {quote(text)}: invalid syntax")
        digits = body.lstrip("+-")
        octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
        number = int(body, 8 if octal else 0)
        if not low <= number <= high:
            raise ValueError(f"strconv.{function}: parsing {quote(text)}: value out of range")
        return number

    return parse


def _network(text: str) -> str:
    """A CIDR prefix, made canonical."""
    from ipaddress import ip_network

    if "/" not in text:
        raise ValueError(f"invalid string being converted to CIDR: {text}")
    try:
        return str(ip_network(text.strip(), strict=False))
    except ValueError:
        raise ValueError(f"invalid string being converted to CIDR: {text}") from None


def _networks(text: str) -> list[str]:
    return [_network(part) for part in text.split(",")]


def _strings(text: str) -> list[str]:
    import csv

    return next(csv.reader([text]), [])


def _label(text: str) -> str:
    key = text.partition("=")[0].lstrip(" \t")
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    if " " in key or "\t" in key:
        raise ValueError(f"label '{key}' contains whitespaces")
    return text


def _filter(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return name.strip().lower(), value.strip()


def _pem_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"open {path}: {reason}") from None
    return text


_PEM = re.compile(r"-----BEGIN ([^-\n]+)-----\n.*?\n-----END \1-----", re.DOTALL)


def _pem_file(path: str) -> str:
    text = _pem_text(path)
    if not _PEM.search(text):
        raise ValueError("file contents must be in PEM format")
    return text


def _external_ca(text: str) -> dict[str, Any]:
    """`protocol=cfssl,url=https://...[,cacert=FILE][,key=value]...`."""
    options: dict[str, str] = {}
    found: dict[str, Any] = {}
    for part in _strings(text):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"invalid field '{part}' must be a key=value pair")
        if key.lower() == "protocol":
            if value.lower() != "cfssl":
                raise ValueError(f"unrecognized external CA protocol {value}")
            found["Protocol"] = "cfssl"
        elif key.lower() == "url":
            found["URL"] = value
        elif key.lower() == "cacert":
            found["CACert"] = _external_cert(value)
        else:
            options[key] = value
    for key, word in (("Protocol", "protocol"), ("URL", "url")):
        if key not in found:
            raise ValueError(f"the external-ca option needs a {word}= parameter")
    cert = found.pop("CACert", "")
    return {**found, **({"Options": options} if options else {}), "CACert": cert}


def _external_cert(path: str) -> str:
    try:
        text = _pem_text(path)
    except ValueError as error:
        raise ValueError(f"unable to read CA cert for external CA: {error}") from None
    if not _PEM.search(text):
        raise ValueError("CA cert for external CA must be in PEM format")
    return text


def _node_addr(text: str) -> str:
    """`<ip|interface>[:port]`; what is missing comes from 0.0.0.0:2377."""
    default_host, default_port = "0.0.0.0", "2377"
    addr = text.removeprefix("tcp://")
    if not addr:
        if "://" in text or not text:
            return f"{default_host}:{default_port}"
        raise ValueError(f"invalid proto, expected tcp: {text}")
    if "://" in addr:
        raise ValueError(f"invalid proto, expected tcp: {text}")
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(\d*))?", addr)
    if bracketed:
        host, port = f"[{bracketed[1]}]", bracketed[2] or ""
    elif addr.count(":") <= 1:
        host, _, port = addr.partition(":")
    else:
        raise ValueError(f"invalid bind address format: {text}")
    if port and not port.isdigit():
        raise ValueError(f"invalid bind address format: {text}")
    return f"{host or default_host}:{port or default_port}"


BOOL = Kind("bool", "", _bool)
STRING = Kind("string", "string", str)
STRINGS = Kind("strings", "strings", _strings, many=True)
LIST = Kind("list", "list", str, many=True)
LABELS = Kind("list", "list", _label, many=True)
MAP = Kind("map", "map", str, many=True)
FILTER = Kind("filter", "filter", _filter, many=True)
DURATION = Kind("duration", "duration", parse_duration)
INT = Kind("int", "int", _integer("ParseInt", -_INT64_MAX - 1, _INT64_MAX))
UINT = Kind("uint", "uint", _integer("ParseUint", 0, _UINT64_MAX))
UINT32 = Kind("uint32", "uint32", _integer("ParseUint", 0, 2**32 - 1))
NETWORKS = Kind("ipNetSlice", "ipNetSlice", _networks, many=True)
NODE_ADDR = Kind("node-addr", "node-addr", _node_addr)
EXTERNAL_CA = Kind("external-ca", "external-ca", _external_ca, many=True)
PEM_FILE = Kind("pem-file", "pem-file", _pem_file)


def pairs(entries: Sequence[str]) -> dict[str, str]:
    """`key=value` texts as a dictionary; without `=` the value is empty."""
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}
