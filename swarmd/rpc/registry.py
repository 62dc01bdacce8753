"""Which connection is whose: the link between gRPC's `context.peer()` and a certificate.

The front binds its end of each private connection to a random abstract name; gRPC reports
that name with every call on it. A name that is not in here is somebody who found the
private socket, and gets nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.base.entropy import Entropy
from swarmd.base.errors import Unauthenticated
from swarmd.rpc.identity import Subject

_SCHEME = "unix-abstract:"


@dataclass(frozen=True, slots=True)
class Connection:
    """One TLS connection behind the front."""

    name: str
    """Abstract socket name, without the leading zero byte."""
    subject: Subject | None
    """None when the client showed no certificate."""
    remote_addr: str
    """ "ip:port" of the TCP peer."""


class Registry:
    """All connections the front has open, by the name gRPC knows them under."""

    def __init__(self, entropy: Entropy) -> None:
        self._prefix = f"swarmd-{entropy.token(16).hex()}"
        self._count = 0
        self._connections: dict[str, Connection] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, subject: Subject | None, remote_addr: str) -> Connection:
        """Name a new connection; done before its first byte reaches gRPC."""
        self._count += 1
        connection = Connection(f"{self._prefix}-{self._count}", subject, remote_addr)
        self._connections[_SCHEME + connection.name] = connection
        return connection

    def drop(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        self._connections.pop(_SCHEME + connection.name, None)

    def knows(self, grpc_peer: str) -> bool:
        """True while the connection is open."""
        return grpc_peer in self._connections

    def find(self, grpc_peer: str) -> Connection:
        """The connection a call came on. Raises `Unauthenticated` for strangers."""
        connection = self._connections.get(grpc_peer)
        if connection is None:
            raise Unauthenticated("the connection is unknown")
        return connection
