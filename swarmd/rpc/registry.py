"""The connections of the manager port that are open now, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.rpc.identity import Subject


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """One TLS connection whose handshake is done."""

    subject: Subject | None
    """None when the client showed no certificate."""
    remote_addr: str
    """ "ip:port" of the TCP peer."""


class Registry:
    """All connections that calls may come on."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, connection: object) -> bool:
        return connection in self._connections

    def addresses(self) -> list[str]:
        """The "ip:port" of every peer, sorted."""
        return sorted(connection.remote_addr for connection in self._connections)

    def add(self, subject: Subject | None, remote_addr: str) -> Connection:
        """Note a new connection."""
        connection = Connection(subject, remote_addr)
        self._connections.add(connection)
        return connection

    def drop(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        self._connections.discard(connection)
