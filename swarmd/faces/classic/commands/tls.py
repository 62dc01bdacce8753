"""TLS of `swarm manage`: one certificate, shown to clients and to engines."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from swarmd.base.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Contexts:
    """For the clients that come and for the engines we go to; None without TLS."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None


def contexts(*, tls: bool, verify: bool, ca: str, cert: str, key: str) -> Contexts:
    """What the options mean, by the reference's rules. Raises `InvalidArgument`."""
    if not (tls or verify):
        if ca or cert or key:
            raise InvalidArgument(
                "--tlscert, --tlskey and --tlscacert require the use of either --tls or --tlsverify"
            )
        return Contexts()
    if not (cert and key):
        raise InvalidArgument("--tlscert and --tlskey must be provided when using --tls")
    if verify and not ca:
        raise InvalidArgument("--tlscacert must be provided when using --tlsverify")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load(context, cert, key)
    if verify:
        for context in (server, client):
            _trust(context, ca)
        server.verify_mode = ssl.CERT_REQUIRED
    else:
        # As in the reference: --tls alone encrypts and asks nobody who they are.
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
    return Contexts(server, client)


def _load(context: ssl.SSLContext, cert: str, key: str) -> None:
    try:
        # Without a password: asking for one would block a service.
        context.load_cert_chain(cert, key, password="")
    except OSError as error:  # ssl.SSLError is one too
        raise InvalidArgument(
            f"Couldn't load X509 key pair ({cert}, {key}): {error.strerror or error}. "
            "Key encrypted?"
        ) from error


def _trust(context: ssl.SSLContext, ca: str) -> None:
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise InvalidArgument(
            f"Couldn't read CA certificate {ca}: {error.strerror or error}"
        ) from error
