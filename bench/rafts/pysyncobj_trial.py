"""The trial of PySyncObj with its journal file on and, as by default, no password."""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

from bench.rafts.findings import Finding
from bench.rafts.processes import MEMBER, WRITES, Child, free_ports, wait_for

NAME = "pysyncobj"
_TERM = 100_000  # far above any term the member reaches by itself
_NEWER = 10**9  # a log position no member is ahead of


class _Marker:
    """Pickled, it opens a file for writing; that is all it does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self._path), "w")


class _Cluster:
    """Three addresses, and the members that run on them."""

    def __init__(self, python: str, root: Path) -> None:
        self._python, self._root = python, root
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self.members: list[Child] = []
        self._stack = contextlib.ExitStack()

    def folder(self, number: int) -> Path:
        """Where a member runs and keeps its files."""
        return self._root / f"member{number}"

    def start(self, count: int) -> None:
        """Start the first `count` members."""
        self.members = []
        for number, own in enumerate(self.addresses[:count]):
            others = [address for address in self.addresses if address != own]
            command = [self._python, str(MEMBER), "pysyncobj", own, *others]
            self.members.append(self._stack.enter_context(Child(command, self.folder(number))))

    def kill(self) -> None:
        """SIGKILL for all."""
        self._stack.close()

    def leader(self) -> Child | None:
        """The leader, once there is one."""
        return next((one for one in self.members if one.ask("leads") == "True"), None)

    def connect(self, number: int) -> socket.socket:
        """A connection to a member's port."""
        host, port = self.addresses[number].rsplit(":", 1)

        def attempt() -> socket.socket | None:
            with contextlib.suppress(OSError):
                return socket.create_connection((host, int(port)), 5)
            return None

        return wait_for("the member listens", attempt, 20)


def trial(python: str, root: Path) -> list[Finding]:
    """Run everything; about a minute. `python` has PySyncObj installed."""
    cluster = _Cluster(python, root / "three")
    try:
        cluster.start(3)
        findings = _durability(cluster) + _trust(cluster, root)
    finally:
        cluster.kill()
    findings.append(_votes(python, root / "vote", "second vote in one term", crash=False))
    findings.append(_state_file(python, root / "file"))
    question = "second vote in one term after kill -9"
    findings.append(_votes(python, root / "crash", question, crash=True))
    return findings


def _durability(cluster: _Cluster) -> list[Finding]:
    lead = wait_for("a PySyncObj leader", cluster.leader, 60)
    done = sum(lead.ask(f"set k{i} v{i}") == "OK" for i in range(WRITES))
    time.sleep(1)  # the members' counters are written ten times a second
    syncs = [(cluster.folder(i) / "syncs").read_text() for i in range(3)]
    cluster.kill()
    cluster.start(3)
    lead = wait_for("a PySyncObj leader", cluster.leader, 60)
    left = sum(lead.ask(f"get k{i}") == f"v{i}" for i in range(WRITES))
    if done != WRITES:
        raise RuntimeError(f"PySyncObj acknowledged {done} of {WRITES} writes")
    return [
        Finding(NAME, "sync calls for 200 acknowledged writes", f"{'/'.join(syncs)} (3 members)"),
        Finding(NAME, "left of 200 after kill -9 of all and restart", str(left)),
    ]


def _trust(cluster: _Cluster, root: Path) -> list[Finding]:
    """A stranger asks each member to be an observer, then sends one of them a pickle."""
    sent = any(_observes(cluster, number) for number in range(3))
    marker = root / "run-from-network"
    with cluster.connect(0) as link:
        _send(link, _Marker(marker))
        with contextlib.suppress(OSError):
            link.settimeout(5)
            link.recv(1)  # it hangs up once it has looked at the message
    return [
        Finding(
            NAME,
            "stranger on the peer port",
            "as an observer, is sent the log" if sent else "refused",
        ),
        Finding(NAME, "text of a stranger run as Python", "yes" if marker.exists() else "no"),
    ]


def _observes(cluster: _Cluster, number: int) -> bool:
    """Whether a member (it will be the leader) sends its log to somebody it does not know."""
    with cluster.connect(number) as link:
        _send(link, "readonly")
        return _receive(link, "append_entries", 3)


def _state_file(python: str, root: Path) -> Finding:
    """Whether the file beside the journal is run as Python when a member starts."""
    cluster, marker = _Cluster(python, root), root / "run-from-file"
    cluster.folder(0).mkdir(parents=True)
    (cluster.folder(0) / "journal.meta").write_bytes(pickle.dumps(_Marker(marker)))
    try:
        cluster.start(1)
        end = time.monotonic() + 10
        while cluster.members[0].running and not marker.exists() and time.monotonic() < end:
            time.sleep(0.1)
        return Finding(NAME, "state file run as Python", "yes" if marker.exists() else "no")
    finally:
        cluster.kill()


def _votes(python: str, root: Path, question: str, *, crash: bool) -> Finding:
    """Two configured members, played by us, ask the third for its vote in one term."""
    cluster = _Cluster(python, root)
    try:
        cluster.start(1)
        if not _ask_vote(cluster, 1):
            raise RuntimeError("PySyncObj gave no vote at all")
        if crash:
            cluster.kill()
            cluster.start(1)
        granted = _ask_vote(cluster, 2)
        return Finding(NAME, question, "granted" if granted else "refused")
    finally:
        cluster.kill()


def _ask_vote(cluster: _Cluster, candidate: int) -> bool:
    with cluster.connect(0) as link:
        _send(link, cluster.addresses[candidate])
        request = {"type": "request_vote", "term": _TERM}
        _send(link, request | {"last_log_index": _NEWER, "last_log_term": _NEWER})
        return _receive(link, "response_vote", 3)


def _send(link: socket.socket, message: object) -> None:
    data = zlib.compress(pickle.dumps(message), 3)
    link.sendall(struct.pack("i", len(data)) + data)


def _receive(link: socket.socket, wanted: str, seconds: float) -> bool:
    """Whether a message of the wanted type comes in time. We never unpickle what we get."""
    end, got = time.monotonic() + seconds, b""
    link.settimeout(0.5)
    while time.monotonic() < end:
        while len(got) >= 4 and len(got) >= 4 + (size := struct.unpack("i", got[:4])[0]):
            if wanted.encode() in zlib.decompress(got[4 : 4 + size]):
                return True
            got = got[4 + size :]
        try:
            data = link.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return False
        if not data:
            return False
        got += data
    return False
