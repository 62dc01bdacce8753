"""Names: of services and networks (a DNS label), of secrets and configs."""

from __future__ import annotations

import re

from swarmd import api
from swarmd.base.errors import InvalidArgument

_PAYLOAD_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9\-_.]*[a-zA-Z0-9])?")
dns_name_length_max = 63
payload_name_length_max = 64


def check_dns_name(annotations: api.Annotations) -> None:
    """Services and networks. Length comes last, as in the reference."""
    name = annotations.name
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if not _looks_like_dns(name):
        raise InvalidArgument("name must be valid as a DNS name component")
    if len(name) > dns_name_length_max:
        raise InvalidArgument("name must be 63 characters or fewer")


def _looks_like_dns(name: str) -> bool:
    # The set of `[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*`, which itself backtracks without bound.
    edges = re.fullmatch(r"[a-zA-Z0-9]", name[0]) and re.fullmatch(r"[a-zA-Z0-9]", name[-1])
    return bool(edges) and re.fullmatch(r"[a-zA-Z0-9_-]+", name) is not None


def check_payload_name(annotations: api.Annotations) -> None:
    """Secrets and configs."""
    name = annotations.name
    if not name:
        raise InvalidArgument("name must be provided")
    if len(name.encode()) > payload_name_length_max or not _PAYLOAD_NAME.fullmatch(name):
        raise InvalidArgument(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, "
            "and the start and end character must be [a-zA-Z0-9]"
        )
