"""What is said to an external CA: the cfssl signing protocol as values (wire/PROTOCOL 1.9).

Requests and answers are built and read here; `swarmd.manager.caserver.external` carries them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from swarmd import api
from swarmd.cluster.ca import certificates, chains, keys, pem
from swarmd.cluster.ca.errors import ExternalCAError, ExternalCAUnavailable, NoSigner
from swarmd.cluster.ca.root import RootCA

PROFILE_CROSS_SIGN = "CA"
answer_bytes_max = 256 * 1024
timeout_seconds = 5.0
_NAMES = (
    ("C", NameOID.COUNTRY_NAME),
    ("ST", NameOID.STATE_OR_PROVINCE_NAME),
    ("L", NameOID.LOCALITY_NAME),
    ("O", NameOID.ORGANIZATION_NAME),
    ("OU", NameOID.ORGANIZATIONAL_UNIT_NAME),
)


def urls_for(wanted: bytes, current: bytes, external: Iterable[api.ExternalCA]) -> list[str]:
    """URLs that sign for the root `wanted`, in list order.

    An entry without a certificate of its own counts for the `current` root.
    """
    target = pem.normalize(wanted)
    return [
        entry.url
        for entry in external
        if entry.protocol == api.ExternalCA.CFSSL
        and pem.normalize(entry.ca_cert or current) == target
    ]


def urls_of_cluster(cluster: api.Cluster) -> list[str]:
    """URLs that sign node certificates now: those of the root being rotated to, if any."""
    root = cluster.root_ca
    wanted = root.root_rotation.ca_cert if root.HasField("root_rotation") else root.ca_cert
    return urls_for(wanted, root.ca_cert, cluster.spec.ca_config.external_cas)


def sign_request(csr_pem: bytes, subject: chains.Subject) -> bytes:
    """Ask for a node certificate: JSON body of the POST."""
    role = subject.roles[0]
    return _request(
        csr_pem,
        hosts=certificates.hosts(subject.node_id, role),
        subject={
            "CN": subject.node_id,
            "names": [{"O": subject.organization, "OU": role}],
            "SerialNumber": "",
        },
    )


def cross_sign_request(root: RootCA) -> bytes:
    """Ask the CA of the old root to sign the new `root`, whose key must be here.

    cfssl ignores most extensions of a request, so the basic constraints are sent beside it.
    Raises `NoSigner`.
    """
    if root.signer is None:
        raise NoSigner
    certificate = root.signer.certificate
    builder = x509.CertificateSigningRequestBuilder(certificate.subject)
    extensions = []
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
        if isinstance(extension.value, x509.BasicConstraints):
            extensions.append(
                {
                    "id": extension.oid.dotted_string,
                    "critical": extension.critical,
                    "value": extension.value.public_bytes().hex(),
                }
            )
    request = builder.sign(root.signer.key, keys.signature_hash(root.signer.key))
    return _request(
        request.public_bytes(Encoding.PEM),
        hosts=None,
        subject={
            "CN": chains.subject_of(certificate).node_id,
            "names": [_names(certificate.subject)],
            "SerialNumber": "",
        },
        profile=PROFILE_CROSS_SIGN,
        extensions=extensions,
    )


def _names(name: x509.Name) -> dict[str, str]:
    found: dict[str, str] = {}
    for short, oid in _NAMES:
        for part in name.get_attributes_for_oid(oid):
            found.setdefault(short, str(part.value))
    return found


def _request(
    csr_pem: bytes,
    *,
    hosts: list[str] | None,
    subject: dict[str, Any],
    profile: str = "",
    extensions: list[dict[str, Any]] | None = None,
) -> bytes:
    # Fields that Go's encoder writes although nobody sets them are kept: signers that were
    # tried with stock managers have seen exactly these.
    body: dict[str, Any] = {
        "hosts": hosts,
        "certificate_request": csr_pem.decode("utf-8", "replace"),
        "subject": subject,
        "profile": profile,
        "crl_override": "",
        "label": "",
    }
    if extensions:
        body["extensions"] = extensions
    body |= {
        "NotBefore": "0001-01-01T00:00:00Z",
        "NotAfter": "0001-01-01T00:00:00Z",
        "ReturnPrecert": False,
        "metadata": None,
    }
    return json.dumps(body).encode()


def parse_answer(status: int, body: bytes) -> bytes:
    """The certificate in an answer, PEM as sent.

    Raises `ExternalCAUnavailable` where asking again may help, `ExternalCAError` where the
    CA has said no.
    """
    if status != 200:
        text = body[:256].decode("utf-8", "replace")
        raise ExternalCAUnavailable(f"unexpected status code in CSR response: {status} - {text}")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ExternalCAUnavailable("unable to parse JSON response") from None
    if not isinstance(answer, dict):
        raise ExternalCAUnavailable("unable to parse JSON response: not an object")
    result = answer.get("result")
    if answer.get("success") is not True or result is None:
        raise ExternalCAError(_refusal(answer.get("errors")))
    if not isinstance(result, dict):
        raise ExternalCAError(f"invalid result type: {type(result).__name__}")
    certificate = result.get("certificate")
    if not isinstance(certificate, str):
        kind = type(certificate).__name__
        raise ExternalCAError(f"invalid result certificate field type: {kind}")
    return certificate.encode("utf-8", "replace")


def _refusal(errors: object) -> str:
    if not isinstance(errors, list) or not errors:
        return "certificate signing request failed"
    parts = [
        f"{{{entry.get('code', 0)} {entry.get('message', '')}}}"
        for entry in errors[:8]
        if isinstance(entry, dict)
    ]
    return f"response errors: [{' '.join(parts)}]"[:1024]
