"""The trial of pyraft: its own server, driven over its client and peer ports."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.rafts.findings import Finding
from bench.rafts.processes import MEMBER, WRITES, Child, free_ports, wait_for

NAME = "pyraft"


class _Resp:
    """The client protocol, as far as needed: one command, one reply."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()

    def call(self, *words: str) -> Any:
        """Send a command, return its reply."""
        self._socket.sendall(encode(words))
        return self._reply()

    def _reply(self) -> Any:
        line = self._file.readline().rstrip(b"\r\n")
        if not line:
            raise ConnectionError("pyraft closed the connection")
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if int(rest) < 0 else self._file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return rest.decode()


def encode(items: Any) -> bytes:
    """A list in pyraft's own variant of RESP: whole numbers keep their type."""
    out = b"*%d\r\n" % len(items)
    for item in items:
        if isinstance(item, int):
            out += b":%d\r\n" % item
        else:
            data = item.encode()
            out += b"$%d\r\n%s\r\n" % (len(data), data)
    return out


class _Cluster:
    """Three members with ids 1, 2, 3 (an id with a letter splits a pyraft cluster)."""

    def __init__(self, python: str, root: Path) -> None:
        self._python, self._root = python, root
        self.ports = free_ports(3, width=2)
        self._stack = contextlib.ExitStack()

    def folder(self, number: int) -> Path:
        """Where a member runs and keeps its files."""
        return self._root / f"member{number}"

    def start(self) -> None:
        """Start all members and wait for a leader that knows them all."""
        for number, port in enumerate(self.ports):
            others = ",".join(
                f"{i + 1}/127.0.0.1:{p}" for i, p in enumerate(self.ports) if i != number
            )
            command = [self._python, str(MEMBER), "pyraft", "-i", str(number + 1)]
            command += ["-a", f"127.0.0.1:{port}", "-e", others]
            self._stack.enter_context(Child(command, self.folder(number)))
        wait_for("a pyraft leader", self.leader, 60)

    def kill(self) -> None:
        """SIGKILL for all."""
        self._stack.close()

    def info(self, number: int) -> dict[str, Any]:
        """What a member says of itself; empty while it does not answer."""
        try:
            with _Resp(self.ports[number]) as client:
                return dict(json.loads(client.call("info")))
        except (OSError, ValueError, TypeError):
            return {}

    def leader(self) -> int | None:
        """The number of the leader, once it knows both others."""
        for number in range(3):
            info = self.info(number)
            if info.get("state") == "l" and len(info["peers"]) >= 2:
                return number
        return None

    def lead_client(self) -> _Resp:
        """A client of the leader, once followers have had time to connect to it."""
        number = wait_for("a pyraft leader", self.leader, 60)
        time.sleep(2)  # it refuses writes until a follower has acknowledged it
        return _Resp(self.ports[number])


def trial(python: str, root: Path) -> list[Finding]:
    """Run everything; about a minute. `python` has pyraft installed."""
    cluster = _Cluster(python, root)
    try:
        cluster.start()
        findings = _durability(cluster)
        return findings + _trust(cluster, root)
    finally:
        cluster.kill()


def _durability(cluster: _Cluster) -> list[Finding]:
    with cluster.lead_client() as client:
        done = sum(client.call("set", f"k{i}", f"v{i}") == "OK" for i in range(WRITES))
    time.sleep(1)  # the members' counters are written ten times a second
    syncs = [(cluster.folder(i) / "syncs").read_text() for i in range(3)]
    cluster.kill()
    cluster.start()
    with cluster.lead_client() as client:
        left = sum(client.call("get", f"k{i}") == f"v{i}" for i in range(WRITES))
    if done != WRITES:
        raise RuntimeError(f"pyraft acknowledged {done} of {WRITES} writes")
    return [
        Finding(NAME, "sync calls for 200 acknowledged writes", f"{'/'.join(syncs)} (3 members)"),
        Finding(NAME, "left of 200 after kill -9 of all and restart", str(left)),
    ]


def _trust(cluster: _Cluster, root: Path) -> list[Finding]:
    lead = wait_for("a pyraft leader", cluster.leader, 60)
    follower = next(number for number in range(3) if number != lead)
    term = cluster.info(follower)["term"] + 1000
    marker = root / "run-from-network"
    with _peer(cluster, follower, "901") as one, _peer(cluster, follower, "902") as other:
        taken = {"901", "902"} <= set(cluster.info(follower)["peers"])
        votes = [_vote(one, term), _vote(other, term)]
        data = (
            f"[open({str(marker)!r}, 'w').close(), {{'ttl': {{}}, '_META_': {{'id': 'x', "
            f"'term': {term + 1}, 'index': 7, 'state': 'f'}}}}][1]"
        )
        one.sendall(encode(["snapshot", term + 1, 0, 0, 0, data]))
        _read(one, 5)
    return [
        Finding(NAME, "stranger on the peer port", "taken in" if taken else "refused"),
        Finding(NAME, "second vote in one term", f"both answered: {', '.join(votes)}"),
        Finding(NAME, "text of a stranger run as Python", "yes" if marker.exists() else "no"),
        _state_file(cluster, root),
    ]


def _state_file(cluster: _Cluster, root: Path) -> Finding:
    """Whether a checkpoint named on the command line is run as Python."""
    marker, checkpoint = root / "run-from-file", root / "checkpoint"
    checkpoint.write_text(
        f"[open({str(marker)!r}, 'w').close(), {{'ttl': {{}}, '_META_': {{'id': '1', "
        "'term': 3, 'index': 0, 'state': 'f'}}][1]"
    )
    port = free_ports(1, width=2)[0]
    command = [cluster._python, str(MEMBER), "pyraft", "-i", "1", "-a", f"127.0.0.1:{port}"]
    end = time.monotonic() + 10
    with Child([*command, "-l", str(checkpoint)], root / "loader") as loader:
        while loader.running and not marker.exists() and time.monotonic() < end:
            time.sleep(0.1)
    return Finding(NAME, "state file run as Python", "yes" if marker.exists() else "no")


def _peer(cluster: _Cluster, number: int, identity: str) -> socket.socket:
    """A connection to a member's peer port under an identity nobody ever gave out."""
    link = socket.create_connection(("127.0.0.1", cluster.ports[number] + 1), 5)
    link.sendall(f"id {identity} 127.0.0.1:{9000 + int(identity)} 0\r\n".encode())
    link.settimeout(5)
    link.recv(4096)
    return link


def _vote(link: socket.socket, term: int) -> str:
    link.sendall(b"vote %d\r\n" % term)
    return "yes" if "yes" in _read(link, 5) else "no"


def _read(link: socket.socket, seconds: float) -> str:
    """What comes until one of pyraft's answers is complete, or the time is over."""
    link.settimeout(0.5)
    got, end = b"", time.monotonic() + seconds
    while time.monotonic() < end and not any(word in got for word in (b"yes", b"no", b"ack")):
        try:
            data = link.recv(4096)
        except TimeoutError:
            continue
        if not data:
            break
        got += data
    return got.decode("latin1")
