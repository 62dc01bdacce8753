"""Clusters and their entries in one SQLite file. Blocking: call it in a lane.

Only digests of tokens are kept: who reads the file cannot join anybody's cluster.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swarmd.base.entropy import Entropy
from swarmd.base.errors import InvalidArgument, NotFound, ResourceExhausted, SwarmError
from swarmd.faces.classic.discovery.entries import is_address

TOKEN_BYTES = 16
TOKEN_DIGITS = 2 * TOKEN_BYTES
DEFAULT_TTL_SECONDS = 180
_SCHEMA = """
CREATE TABLE IF NOT EXISTS clusters (
    digest BLOB PRIMARY KEY, created REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    digest BLOB NOT NULL, address TEXT NOT NULL, expires REAL NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (digest, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_end ON entries (expires);
CREATE INDEX IF NOT EXISTS clusters_by_use ON clusters (used);
"""
# A cluster is looked at every minute; when it was used last need not be that exact.
_USED_STEP_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Named maxima of one service."""

    clusters_max: int = 10_000
    entries_per_cluster_max: int = 1_000
    address_bytes_max: int = 256
    ttl_seconds_max: int = 7 * 86_400
    # Nobody registered or listed for so long: the cluster is forgotten.
    idle_seconds_max: float = 90 * 86_400.0


class Registry:
    """The service's memory; survives restarts. All methods take the wall time `now`."""

    def __init__(self, path: Path, entropy: Entropy, limits: Limits | None = None) -> None:
        self.path = path
        self.limits = limits or Limits()
        self._entropy = entropy
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or make the file (0600). Raises `SwarmError` when it cannot be used."""
        try:
            self.path.touch(mode=0o600)
            # The lane's one thread makes all calls; the opener may be another one in tests.
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._db = db
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise SwarmError(f"cannot use the discovery file {self.path}: {error}") from error

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def create(self, now: float) -> str:
        """Make a cluster; its token, 32 hex digits. On disk when this returns."""
        token = self._entropy.token(TOKEN_BYTES).hex()
        with self._change(durable=True) as db:
            self._forget(db, now)
            (count,) = db.execute("SELECT count(*) FROM clusters").fetchone()
            if count >= self.limits.clusters_max:
                raise ResourceExhausted(f"no more than {self.limits.clusters_max} clusters")
            db.execute("INSERT INTO clusters VALUES (?, ?, ?)", (_digest(token), now, now))
        return token

    def register(self, token: str, address: str, ttl_seconds: int, now: float) -> None:
        """Note that `address` belongs to the cluster for `ttl_seconds` from now.

        Raises `NotFound`, `InvalidArgument`, `ResourceExhausted`.
        """
        if len(address) > self.limits.address_bytes_max or not is_address(address):
            raise InvalidArgument("the body must be ip:port")
        if not 0 < ttl_seconds <= self.limits.ttl_seconds_max:
            raise InvalidArgument(f"ttl must be from 1 to {self.limits.ttl_seconds_max} seconds")
        digest = _digest(token)
        with self._change() as db:
            self._use(db, digest, now)
            db.execute("DELETE FROM entries WHERE digest = ? AND expires <= ?", (digest, now))
            (others,) = db.execute(
                "SELECT count(*) FROM entries WHERE digest = ? AND address <> ?", (digest, address)
            ).fetchone()
            if others >= self.limits.entries_per_cluster_max:
                raise ResourceExhausted(
                    f"no more than {self.limits.entries_per_cluster_max} entries in a cluster"
                )
            db.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET expires = excluded.expires",
                (digest, address, now + ttl_seconds, now),
            )

    def entries(self, token: str, now: float) -> list[str]:
        """Addresses whose time is not over, oldest member first. Raises `NotFound`."""
        digest = _digest(token)
        with self._change() as db:
            self._use(db, digest, now)
            rows = db.execute(
                "SELECT address FROM entries WHERE digest = ? AND expires > ?"
                " ORDER BY since, address",
                (digest, now),
            )
            return [str(address) for (address,) in rows]

    def delete(self, token: str) -> None:
        """Forget the cluster and its entries. Raises `NotFound`."""
        digest = _digest(token)
        with self._change(durable=True) as db:
            if db.execute("DELETE FROM clusters WHERE digest = ?", (digest,)).rowcount == 0:
                raise NotFound("no such cluster")
            db.execute("DELETE FROM entries WHERE digest = ?", (digest,))

    def sweep(self, now: float) -> None:
        """Drop what is over, so that the file does not grow."""
        with self._change() as db:
            self._forget(db, now)

    def _forget(self, db: sqlite3.Connection, now: float) -> None:
        db.execute("DELETE FROM entries WHERE expires <= ?", (now,))
        idle = (now - self.limits.idle_seconds_max,)
        gone = db.execute("DELETE FROM clusters WHERE used < ?", idle).rowcount
        if gone:
            db.execute("DELETE FROM entries WHERE digest NOT IN (SELECT digest FROM clusters)")

    @staticmethod
    def _use(db: sqlite3.Connection, digest: bytes, now: float) -> None:
        row = db.execute("SELECT used FROM clusters WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise NotFound("no such cluster")
        if now - row[0] > _USED_STEP_SECONDS:
            db.execute("UPDATE clusters SET used = ? WHERE digest = ?", (now, digest))

    @contextmanager
    def _change(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction. Heartbeats are repeated anyway, so only `durable` ones wait for
        the disk (in WAL mode "normal" cannot damage the file)."""
        db = self._db
        if db is None:
            raise SwarmError("the discovery file is closed")
        try:
            db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise SwarmError(f"discovery file {self.path}: {error}") from error


def is_token(text: str) -> bool:
    """Whether it has the form of a token we make."""
    return len(text) == TOKEN_DIGITS and all(digit in "0123456789abcdef" for digit in text)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
