"""Who is calling: the identity every handler gets beside its request. No gRPC in here."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from google.protobuf.message import Message

from swarmd.base.errors import Code, SwarmError, Unavailable

MANAGER_ROLE = "swarm-manager"
WORKER_ROLE = "swarm-worker"
NODE_ROLES = (WORKER_ROLE, MANAGER_ROLE)

# Call metadata: a multimap, so repeated keys (`forwarded_cert_ou`) and empty values survive.
Metadata: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Peer:
    """The authorised caller of one call (wire/PROTOCOL 0.3).

    Nothing in here is hearsay: `node_id`, `organization` and `roles` are set only when the
    certificate (the caller's own, or the one a manager of this cluster vouches for) was
    checked. On methods open to anybody an unproven caller has them empty.
    """

    node_id: str = ""
    organization: str = ""
    roles: tuple[str, ...] = ()
    remote_addr: str = ""
    """ "ip:port" of the original caller, also for forwarded calls."""
    forwarded_by: str = ""
    """Node id of the manager that forwarded the call, or empty."""
    local: bool = False
    """True for calls this manager makes to itself, past authorisation."""


class Disconnected(Unavailable):
    """There is no connection, or it broke; whether the call arrived is not known."""


class ClosedHere(SwarmError):
    """Our own side hung up during the call; whether it arrived is not known."""

    code = Code.CANCELLED


class Caller(Protocol):
    """The client side of every service; `method` is written "CA/GetRootCACertificate".

    Failures are raised as `swarmd.base.errors`. `timeout` is in seconds.
    """

    async def unary(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Any:
        """Send one message, return one."""
        ...

    def server_stream(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> AsyncIterator[Any]:
        """Send one message, iterate the answers; `aclose()` cancels the call."""
        ...

    async def client_stream(
        self,
        method: str,
        requests: AsyncIterable[Any],
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Any:
        """Send all of `requests`, return the one answer."""
        ...

    async def close(self) -> None:
        """End the connection; calls under way fail. Closing twice is fine."""
        ...

    async def retire(self) -> None:
        """Close as soon as no call is under way any more: another connection takes over."""
        ...


class Authorizer(Protocol):
    """What the door must know of the cluster to let a certificate in."""

    @property
    def organization(self) -> str:
        """The cluster id: the O that every certificate must carry."""
        ...

    def is_blacklisted(self, node_id: str) -> bool:
        """True for nodes that were removed (`Cluster.blacklisted_certificates`)."""
        ...


class Leadership(Protocol):
    """What the leader proxy needs of Raft."""

    def is_leader(self) -> bool:
        """True when calls for the leader are answered here."""
        ...

    def is_certain(self) -> bool:
        """True when this manager leads and `confirm` would not have to ask anybody."""
        ...

    async def confirm(self) -> None:
        """Return once it is certain that this manager led after the call: its state is the newest.

        Raises `NotLeader`: it leads no more, or no quorum answers (then `is_leader` stays true).
        """
        ...

    async def news(self, seconds: float) -> None:
        """Return when leadership has changed, or after `seconds`."""
        ...

    async def leader_caller(self) -> Caller:
        """A connection to the leader, owned and closed by whoever implements this.

        Raises `SwarmError(NO_LEADER)` when there has been none for too long, and
        `Unavailable` when there is one but its connection is not up (worth asking again).
        """
        ...
