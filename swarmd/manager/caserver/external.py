"""Carries signing requests to external CAs (cfssl over HTTPS, wire/PROTOCOL 1.9).

`CfsslClient` is the network side; `ExternalSigner` does the planner's effect
`SignExternally` and writes the answer. A URL gets 5 s and may answer at most 256 KiB; URLs
are tried in list order until one signs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from swarmd import api
from swarmd.cluster.ca import KeyPair, external
from swarmd.cluster.ca.errors import CAError, ExternalCAUnavailable
from swarmd.cluster.housekeeping.signer import (
    SignExternally,
    check_external,
    failed,
    issued,
    needs_signing,
)
from swarmd.cluster.store import Transaction

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

T = TypeVar("T")

requests_at_once_max = 8
HTTPS_PORT = 443


class Committer(Protocol):
    """The only way to write."""

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` in a transaction; returns once it is applied here."""
        ...


class CfsslClient:
    """Talks to external CAs with the manager's own certificate; `rotation_start.ExternalCAs`.

    `pair` is asked at every request, since node certificates are renewed.
    """

    def __init__(self, pair: Callable[[], KeyPair]) -> None:
        self._pair = pair
        self._slots = asyncio.Semaphore(requests_at_once_max)

    async def is_reachable(self, url: str, roots_pem: bytes) -> bool:
        """True when TLS with `url` works both ways. Nothing is asked of the CA."""
        try:
            host, port = _address(url)
            context = self._context(roots_pem)
            async with asyncio.timeout(external.timeout_seconds):
                _, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname=host
                )
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        except (OSError, ValueError, TimeoutError, CAError) as error:
            log.warning("external CA %s is unreachable or invalid: %s", _shown(url), error)
            return False
        return True

    async def sign(self, urls: Sequence[str], request: bytes, roots_pem: bytes) -> bytes:
        """POST the request to one URL after the other; the first certificate wins.

        Raises the last URL's `ExternalCAError` or `ExternalCAUnavailable`.
        """
        trouble: CAError = ExternalCAUnavailable("no external CA URLs")
        async with self._slots:
            for url in urls:
                try:
                    return await self._post(url, request, roots_pem)
                except CAError as error:
                    log.warning("external CA %s did not sign: %s", _shown(url), error)
                    trouble = error
        raise trouble

    async def _post(self, url: str, request: bytes, roots_pem: bytes) -> bytes:
        import aiohttp  # not needed at start, and heavy

        try:
            _address(url)
            limit = aiohttp.ClientTimeout(total=external.timeout_seconds)
            connector = aiohttp.TCPConnector(ssl=self._context(roots_pem), force_close=True)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=limit) as session,
                session.post(
                    url,
                    data=request,
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                return external.parse_answer(response.status, await _body(response))
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            raise ExternalCAUnavailable(
                f"unable to perform certificate signing request: {text}"
            ) from error

    def _context(self, roots_pem: bytes) -> ssl.SSLContext:
        pair = self._pair()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=roots_pem.decode("ascii"))
        # An operator's root may itself be an intermediate; Go trusts it as it is.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        fd = os.memfd_create("swarmd-pair", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(pair.key_pem.rstrip() + b"\n" + pair.cert_pem)
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return context


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """What was answered; more than the limit counts as no proper answer."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > external.answer_bytes_max:
            raise ExternalCAUnavailable(
                f"unable to read CSR response body: more than {external.answer_bytes_max} bytes"
            )
    return body


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise ValueError("invalid HTTP scheme")
    if not parts.hostname:
        raise ValueError("no host in URL")
    return parts.hostname, parts.port or HTTPS_PORT


def _shown(url: str) -> str:
    """The URL for logs: without user, password and query, which may be secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


class ExternalSigner:
    """Does `SignExternally`: asks, checks the answer, writes it beside its own request only."""

    def __init__(self, client: CfsslClient, committer: Committer) -> None:
        self._client = client
        self._committer = committer

    async def __call__(self, effect: SignExternally) -> None:
        """Sign one request. What can be tried again later changes nothing in the store."""
        request = external.sign_request(effect.csr, effect.subject)
        try:
            answer = await self._client.sign(effect.urls, request, effect.trust_pem)
            chain, reason = check_external(effect, answer), ""
        except ExternalCAUnavailable as error:
            log.warning("certificate of node %s waits: %s", effect.node_id, error)
            return
        except CAError as error:
            log.error("certificate of node %s is refused: %s", effect.node_id, error)
            chain, reason = b"", error.message
        await self._committer.update(lambda tx: _write(tx, effect, chain, reason))


def _write(tx: Transaction, effect: SignExternally, chain: bytes, reason: str) -> None:
    node = tx.get(api.Node, effect.node_id)
    # The node may have asked anew meanwhile: this certificate is for the old request.
    if node is None or not needs_signing(node) or node.certificate.csr != effect.csr:
        return
    tx.update(issued(node, chain) if chain else failed(node, reason))
