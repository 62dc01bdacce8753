"""Reading who somebody is: from a certificate, or from what a forwarding manager says.

Reading only; whether to believe it is decided in `authorize`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

FORWARDED = "forwarded_cert"
FORWARDED_ID = "forwarded_cert_cn"
FORWARDED_ORGANIZATION = "forwarded_cert_org"
FORWARDED_ROLE = "forwarded_cert_ou"
REMOTE_ADDR = "remote_addr"
REDIRECT = "redirect"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a verified leaf certificate says about its holder."""

    node_id: str
    organization: str
    roles: tuple[str, ...]
    not_after: float
    """Wall seconds; calls are refused from then on, also on old connections."""


def subject_of(der: bytes) -> Subject:
    """Read a leaf: CN is the node, first O the cluster, every OU a role (wire/PROTOCOL 0.3).

    Raises `ValueError` for a certificate whose subject cannot be read.
    """
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.subject
    organizations = _texts(names, NameOID.ORGANIZATION_NAME)
    common_names = _texts(names, NameOID.COMMON_NAME)
    return Subject(
        node_id=common_names[-1] if common_names else "",
        organization=organizations[0] if organizations else "",
        roles=tuple(_texts(names, NameOID.ORGANIZATIONAL_UNIT_NAME)),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the metadata of a forwarded call claims about its original caller."""

    node_id: str
    organization: str
    roles: tuple[str, ...]
    remote_addr: str

    @property
    def complete(self) -> bool:
        """False when the original caller had no certificate."""
        return bool(self.node_id and self.organization and self.roles)


def forwarded(metadata: Iterable[tuple[str, str]]) -> Forwarded | None:
    """The claims of a forwarded call; None unless `forwarded_cert` is exactly one "true"."""
    values: dict[str, list[str]] = {}
    for key, value in metadata:
        values.setdefault(key, []).append(value)
    if values.get(FORWARDED) != ["true"]:
        return None
    return Forwarded(
        node_id=_first(values, FORWARDED_ID),
        organization=_first(values, FORWARDED_ORGANIZATION),
        roles=tuple(values.get(FORWARDED_ROLE, ())),
        remote_addr=_first(values, REMOTE_ADDR),
    )


def _first(values: dict[str, list[str]], key: str) -> str:
    found = values.get(key)
    return found[0] if found else ""


def _texts(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    found = [attribute.value for attribute in name.get_attributes_for_oid(oid)]
    return [value if isinstance(value, str) else value.decode("latin-1") for value in found]
