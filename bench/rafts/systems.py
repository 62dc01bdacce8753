"""The systems `bench.raft` compares: each started as one or three processes on loopback."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.rafts.load import Target, line_judge, line_request, value
from bench.rafts.own_trial import NAME as OWN_NAME
from bench.rafts.processes import MEMBER, Child, free_ports, wait_for
from bench.rafts.pyraft_trial import encode
from tests.wire.rpc_kit import Root


class Running(ABC):
    """A group of members; a context manager that ends with all of them killed."""

    name: str
    durable: str
    """What is on disk when a write is acknowledged, from the sources and `syncs_per_write`."""

    def __init__(self, python: str, root: Path, members: int) -> None:
        """`python` has the libraries; `root` is theirs to fill."""
        self._python, self._root, self._count = python, root, members
        self._stack = contextlib.ExitStack()
        self.members: list[Child] = []
        self.target = Target(0, line_request, line_judge)

    def __enter__(self) -> Self:
        with self._stack:
            self.start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def child(self, command: Sequence[str], number: int) -> Child:
        """Start one member's process."""
        made = self._stack.enter_context(Child(command, self._root / f"member{number}"))
        self.members.append(made)
        return made

    @abstractmethod
    def start(self) -> None:
        """Start all members; set `target` to the leader's port for writers."""


class Own(Running):
    """The shipped node, log on disk, TLS transport and group commit of this tree."""

    name = OWN_NAME
    durable = "fdatasync of the sealed log on a majority"

    def start(self) -> None:
        """The first one founds the group, the others are taken in."""
        root = Root()
        found: list[tuple[str, Child, str]] = []
        for number in range(self._count):
            name, folder = f"node{number}", self._root / f"member{number}"
            folder.mkdir(parents=True)
            pem = root.issue(name, "swarm-manager")
            note = folder / "credentials"
            note.touch(0o600)
            parts = {"roots": pem.roots_pem, "certificate": pem.cert_pem, "key": pem.key_pem}
            note.write_text(
                json.dumps({part: (text or b"").decode() for part, text in parts.items()})
            )
            command = [sys.executable, "-m", "bench.rafts.own_server"]
            member = self.child([*command, str(folder / "raft"), name, str(note)], number)
            found.append((name, member, member.ask("listen")))
        leader = found[0][1]
        self.target = Target(int(leader.ask("found")), line_request, line_judge)
        for name, member, addr in found[1:]:
            member.ask(f"join {leader.ask(f'add {name} {addr}')}")


class Etcd(Running):
    """etcd of the distribution; its JSON gateway is what our clients can speak."""

    name = "etcd"
    durable = "fdatasync of the log on a majority"

    def start(self) -> None:
        """Members with free ports; the leader's gateway is the target."""
        ports = free_ports(self._count, width=2)
        whole = ",".join(f"m{i}=http://127.0.0.1:{port + 1}" for i, port in enumerate(ports))
        for number, port in enumerate(ports):
            client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
            command = ["etcd", "--name", f"m{number}", "--data-dir", "data", "--logger", "zap"]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            self.child([*command, "--initial-cluster", whole], number)
        port = wait_for("an etcd leader", lambda: next(filter(_leads, ports), None), 60)
        self.target = Target(port, _etcd_request, _etcd_judge)


def _leads(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/v3/maintenance/status", "{}")
        status: dict[str, Any] = json.loads(connection.getresponse().read())
        return bool(status.get("leader") and status["leader"] == status["header"]["member_id"])
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _etcd_request(number: int, size: int) -> bytes:
    key, content = f"k{number % 1000}".encode(), value(number, size)
    parts = {"key": base64.b64encode(key).decode(), "value": base64.b64encode(content).decode()}
    body = json.dumps(parts).encode()
    head = f"POST /v3/kv/put HTTP/1.1\r\nHost: e\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _etcd_judge(answer: bytes) -> bool | None:
    head, found, rest = answer.partition(b"\r\n\r\n")
    if not found:
        return None
    lower = head.lower()
    if b"content-length:" in lower:
        size = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(rest) < size:
            return None
    elif not rest.endswith(b"0\r\n\r\n"):
        return None
    return head.split(b" ", 2)[1] == b"200"


class PySyncObj(Running):
    """PySyncObj with its journal file; clients by thread, as its blocking calls want."""

    name = "pysyncobj"
    durable = "nothing: the journal is a memory map, written back later"

    def start(self) -> None:
        """Three addresses, or one."""
        addresses = [f"127.0.0.1:{port}" for port in free_ports(self._count)]
        ports: dict[int, int] = {}
        for number, own in enumerate(addresses):
            others = [address for address in addresses if address != own]
            command = [self._python, str(MEMBER), "pysyncobj-serve", own, *others]
            ports[number] = int(self.child(command, number).ask())

        def leader() -> int | None:
            leads = (n for n, one in enumerate(self.members) if one.ask("leads") == "True")
            return next(leads, None)

        number = wait_for("a PySyncObj leader", leader, 60)
        self.target = Target(ports[number], line_request, line_judge)


class PyRaft(Running):
    """pyraft's own server and its RESP port."""

    name = "pyraft"
    durable = "nothing: the log is written without a sync"

    def start(self) -> None:
        """Ids 1, 2, 3; the leader refuses writes until a follower has acknowledged it."""
        ports = free_ports(self._count, width=2)
        for number, port in enumerate(ports):
            others = [f"{i + 1}/127.0.0.1:{p}" for i, p in enumerate(ports) if i != number]
            command = [self._python, str(MEMBER), "pyraft", "-i", str(number + 1)]
            command += ["-a", f"127.0.0.1:{port}", *(["-e", ",".join(others)] if others else [])]
            self.child(command, number)

        def writable() -> int | None:
            return next((port for port in ports if _takes(port)), None)

        port = wait_for("a pyraft leader that takes writes", writable, 60)
        time.sleep(2)  # its followers are still on their way
        self.target = Target(port, _resp_request, _resp_judge)


def _takes(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as link:
            link.sendall(_resp_request(0, 8))
            return link.recv(4096) == b"+OK\r\n"
    except OSError:
        return False


def _resp_request(number: int, size: int) -> bytes:
    return encode(["set", f"k{number % 1000}", value(number, size).decode()])


def _resp_judge(answer: bytes) -> bool | None:
    return answer == b"+OK\r\n" if answer.endswith(b"\r\n") else None


SYSTEMS: tuple[type[Running], ...] = (Own, Etcd, PySyncObj, PyRaft)
