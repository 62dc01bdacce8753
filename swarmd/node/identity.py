"""How a node gets its identity: root by token, certificate, unlock key (PROTOCOL 1.5, 2.2).

The order is the safety: the root is fetched without verification and held against the
token's digest before anything secret is sent; the certificate is checked against that root
before it is stored; only then does a manager ask for the unlock key. Talks through a `Dial`,
normally `rpc.client.dial`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from swarmd import api
from swarmd.base.backoff import Backoff
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import (
    DeadlineExceeded,
    InvalidArgument,
    SwarmError,
    Unimplemented,
)
from swarmd.cluster import ca
from swarmd.cluster.ca import Identity, KeyPair, chains, tokens
from swarmd.cluster.ca.errors import CAError, UnknownAuthority
from swarmd.cluster.ca.keyfile import KEK
from swarmd.node.remotes import OBSERVATION, Remote, Remotes
from swarmd.rpc.peer import Caller
from swarmd.rpc.tls import Credentials

log = logging.getLogger(__name__)

T = TypeVar("T")

tries_max = 5
CALL_SECONDS = 5.0
JOIN_PAUSE_SECONDS = 2.0
POLLING = Backoff(base_seconds=1.0, cap_seconds=30.0, factor=2.0, step_seconds=1.0)
_FINAL = (api.IssuanceStatus.State.ISSUED, api.IssuanceStatus.State.ROTATE)


class Dial(Protocol):
    """Connects to a manager; `rpc.client.dial`."""

    def __call__(
        self, addr: str, credentials: Credentials, *, server_name: str, timeout: float
    ) -> Awaitable[Caller]:
        """A connection to "host:port", verified as `server_name`. Raises `SwarmError`."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for. Joining: a token, no `current`. Renewing: `current`, no token."""

    token: str = ""
    availability: api.NodeSpec.Availability = api.NodeSpec.Availability.ACTIVE
    current: Identity | None = None

    @property
    def pause_seconds(self) -> float:
        """Pause between tries: none on renewal, there the renewer paces."""
        return JOIN_PAUSE_SECONDS if self.current is None else 0.0


@dataclass(frozen=True, slots=True)
class Granted:
    """A checked certificate with its key, who signed it, and the unlock key to write it with.

    `root_pem` is what it was checked against; newer than the one given if the cluster has a
    new root meanwhile.
    """

    identity: Identity
    issuer: chains.Issuer
    kek: KEK
    root_pem: bytes

    def tls_info(self) -> api.NodeTLSInfo:
        """What the node reports about itself in its description."""
        return ca.tls_info(self.root_pem, self.issuer)


class WrongRoot(CAError):
    """The root a manager serves is not the one the token names. Nothing was sent."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"remote CA does not match fingerprint. Expected: {digest}")


class _UnknownIssuer(CAError):
    def __init__(self, role: str) -> None:
        super().__init__("the new certificate has an unknown issuer")
        self.role = role


class IdentityClient:
    """The joining and renewing side. Keeps nothing but the remotes' weights.

    `local` is the node's own manager, asked first on renewal; it may be None at any time.
    """

    def __init__(
        self,
        dial: Dial,
        remotes: Remotes,
        clock: Clock,
        entropy: Entropy,
        local: Callable[[], Caller | None] = lambda: None,
    ) -> None:
        self._dial = dial
        self._remotes = remotes
        self._clock = clock
        self._entropy = entropy
        self._local = local

    async def download_root(self, token: str = "") -> bytes:
        """Fetch the cluster's root and hold it against the token's digest.

        Nothing of the token is sent. Without a token the caller must check the result by
        other means. Raises `InvalidJoinToken`, `CAError` on a mismatch, or what the last
        try raised.
        """
        digest = tokens.parse_token(token).digest if token else ""
        return await self._tries(
            lambda _: self._download_root_once(digest), JOIN_PAUSE_SECONDS, "root certificate"
        )

    async def _download_root_once(self, digest: str) -> bytes:
        async with self._connection(Credentials(roots_pem=None), "swarm-manager") as caller:
            answer = await caller.unary(
                "CA/GetRootCACertificate", api.GetRootCACertificateRequest(), timeout=CALL_SECONDS
            )
        root_pem = bytes(answer.certificate)
        if digest and tokens.root_hash(root_pem) != digest:
            raise WrongRoot(digest)
        ca.load_root(root_pem, self._clock.now())
        return root_pem

    async def obtain(self, root_pem: bytes, request: Request) -> Granted:
        """Get a certificate under `root_pem`, and the unlock key that goes with it.

        A worker whose new certificate has an unknown issuer looks for a new root once: it
        may have missed the end of a root rotation. Raises `SwarmError`.
        """
        try:
            return await self._obtain_under(root_pem, request)
        except _UnknownIssuer as trouble:
            current = request.current
            if current is None or trouble.role != ca.WORKER:
                raise UnknownAuthority from trouble
            newer = await self._newer_root(current, trouble)
        return await self._obtain_under(newer, request)

    async def _newer_root(self, current: Identity, trouble: _UnknownIssuer) -> bytes:
        # Fetched without verification, so it is believed only if the certificate we hold
        # from the old root is good under it as well.
        try:
            newer = await self._download_root_once("")
            ca.verify(current.pair.cert_pem, newer, self._clock.now())
        except SwarmError as error:
            log.warning("no newer root certificate: %s", error)
            raise UnknownAuthority from trouble
        return newer

    async def _obtain_under(self, root_pem: bytes, request: Request) -> Granted:
        key_pem, csr = ca.new_key_and_csr()
        chain = await self._tries(
            lambda attempt: self._issue(root_pem, csr, request, local=attempt == 0),
            request.pause_seconds,
            "certificate",
        )
        new = ca.identity(KeyPair(chain, key_pem))
        try:
            verified = ca.verify(chain, root_pem, self._clock.now())
        except UnknownAuthority as error:
            raise _UnknownIssuer(new.role) from error
        kek = KEK()
        if new.is_manager:
            kek = await self._tries(
                lambda attempt: self._unlock_key(root_pem, new.pair, local=attempt == 0),
                request.pause_seconds,
                "unlock key",
            )
        return Granted(new, verified.issuer, kek, root_pem)

    async def _issue(self, root_pem: bytes, csr: bytes, request: Request, *, local: bool) -> bytes:
        """Ask once, then poll without limit; the caller's cancellation ends it."""
        question = api.IssueNodeCertificateRequest(
            csr=csr, token=request.token, availability=request.availability
        )
        if request.current is None:
            credentials, name = Credentials(root_pem), ca.CA_ROLE
        else:
            pair = request.current.pair
            credentials, name = Credentials(root_pem, pair.cert_pem, pair.key_pem), ca.MANAGER
        line = await self._open(credentials, name, local=local and request.current is not None)
        try:
            answer = await line.caller.unary(
                "NodeCA/IssueNodeCertificate", question, timeout=CALL_SECONDS
            )
            attempt = 0
            while True:
                try:
                    chain = await self._status(line.caller, answer.node_id, csr)
                except DeadlineExceeded:
                    chain = None
                except SwarmError as error:
                    # The request stands; only this connection is of no use any more.
                    log.info("asking another manager for the certificate: %s", error)
                    await self._close(line, good=False)
                    line = await self._open(credentials, name)
                    chain = None
                if chain is not None:
                    break
                await asyncio.sleep(POLLING.delay(attempt, self._entropy))
                attempt += 1
        except BaseException:
            await self._close(line, good=False)
            raise
        await self._close(line, good=True)
        return chain

    async def _status(self, caller: Caller, node_id: str, csr: bytes) -> bytes | None:
        answer = await caller.unary(
            "NodeCA/NodeCertificateStatus",
            api.NodeCertificateStatusRequest(node_id=node_id),
            timeout=CALL_SECONDS,
        )
        certificate = answer.certificate
        if certificate.csr != csr:
            return None  # the answer to an earlier request
        if answer.status.state == api.IssuanceStatus.State.FAILED:
            log.warning("the certificate is refused: %s", answer.status.err)
        if answer.status.state not in _FINAL:
            return None
        return bytes(certificate.certificate)

    async def _unlock_key(self, root_pem: bytes, pair: KeyPair, *, local: bool) -> KEK:
        credentials = Credentials(root_pem, pair.cert_pem, pair.key_pem)
        async with self._connection(credentials, ca.CA_ROLE, local=local) as caller:
            try:
                answer = await caller.unary(
                    "CA/GetUnlockKey", api.GetUnlockKeyRequest(), timeout=CALL_SECONDS
                )
            except Unimplemented:  # a manager that knows no autolock
                return KEK()
        return KEK(bytes(answer.unlock_key), answer.version.index)

    @contextlib.asynccontextmanager
    async def _connection(
        self, credentials: Credentials, name: str, *, local: bool = False
    ) -> AsyncIterator[Caller]:
        line = await self._open(credentials, name, local=local)
        good = False
        try:
            yield line.caller
            good = True
        finally:
            await self._close(line, good=good)

    async def _open(self, credentials: Credentials, name: str, *, local: bool = False) -> _Line:
        """The local manager if wanted and there, else some remote one."""
        own = self._local() if local else None
        if own is not None:
            return _Line(own, None)
        remote = self._remotes.select(self._entropy)
        try:
            caller = await self._dial(
                remote.addr, credentials, server_name=name, timeout=CALL_SECONDS
            )
        except SwarmError:
            self._remotes.observe_if_known(remote, -OBSERVATION)
            raise
        return _Line(caller, remote)

    async def _close(self, line: _Line, *, good: bool) -> None:
        if line.remote is not None and not line.closed:
            line.closed = True
            self._remotes.observe_if_known(line.remote, OBSERVATION if good else -OBSERVATION)
            await line.caller.close()

    async def _tries(
        self, work: Callable[[int], Awaitable[T]], pause_seconds: float, what: str
    ) -> T:
        """Try up to five times; a refusal that will not change ends it at once."""
        attempt = 0
        while True:
            try:
                return await work(attempt)
            except InvalidArgument:  # a wrong token stays wrong
                raise
            except SwarmError as error:
                attempt += 1
                alone = isinstance(error, WrongRoot) and len(self._remotes) < 2
                if attempt == tries_max or alone:
                    raise
                log.warning("could not get the %s: %s", what, error)
            await asyncio.sleep(pause_seconds)


@dataclass(slots=True)
class _Line:
    """An open connection; `remote` is None for the local manager, which stays open."""

    caller: Caller
    remote: Remote | None
    closed: bool = False
