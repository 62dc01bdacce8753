"""The trial of our own core: `RaftNode` on its disk, and the port of a whole manager."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import sys
from pathlib import Path

import grpc

from bench.managers import Swarmd, init_body
from bench.rafts.findings import Finding
from bench.rafts.processes import WRITES, Child, free_ports
from bench.rest import Rest
from bench.simnodes import leaf_of, method, open_channel
from swarmd import api

NAME = "own core"
_TERM = 1000


class Marker:
    """Pickled, it opens a file for writing; that is all it does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def trial(root: Path) -> list[Finding]:
    """Run everything; a few seconds."""
    return [*_durability(root / "alone"), *_votes(root / "voter"), *_trust(root)]


def _member(folder: Path, kind: str) -> Child:
    command = [sys.executable, "-m", "bench.rafts.own_member", str(folder / "raft"), kind]
    return Child(command, folder)


def _durability(folder: Path) -> list[Finding]:
    with _member(folder, "alone") as member:
        syncs = member.ask(f"write {WRITES}")
    with _member(folder, "alone") as member:
        left = member.ask("left")
    return [
        Finding(NAME, "sync calls for 200 acknowledged writes", f"{syncs} (1 member)"),
        Finding(NAME, "left of 200 after kill -9 of all and restart", left),
    ]


def _votes(folder: Path) -> list[Finding]:
    with _member(folder, "voter") as member:
        first = member.ask(f"vote 2 {_TERM}")
        second = member.ask(f"vote 3 {_TERM}")
    with _member(folder, "voter") as member:
        again = member.ask(f"vote 3 {_TERM}")
    if first != "granted":
        raise RuntimeError(f"our core gave no vote at all: {first}")
    return [
        Finding(NAME, "second vote in one term", second),
        Finding(NAME, "second vote in one term after kill -9", again),
    ]


def _trust(root: Path) -> list[Finding]:
    """A whole manager, and a stranger without a certificate at its port."""
    port = free_ports(1)[0]
    marker = root / "run-from-network"
    with Swarmd("trial") as manager:
        with Rest(manager.socket) as rest:
            where = {"ListenAddr": f"127.0.0.1:{port}", "AdvertiseAddr": f"127.0.0.1:{port}"}
            rest.call("POST", "/swarm/init", init_body("127.0.0.1") | where)
        answers = asyncio.run(_stranger(f"127.0.0.1:{port}", pickle.dumps(Marker(marker))))
        with socket.create_connection(("127.0.0.1", port), 5) as link:
            link.sendall(pickle.dumps(Marker(marker)))
            with contextlib.suppress(OSError):
                link.settimeout(5)
                link.recv(1)
    return [
        Finding(NAME, "stranger on the peer port", answers),
        Finding(NAME, "text of a stranger run as Python", "yes" if marker.exists() else "no"),
    ]


async def _stranger(addr: str, data: bytes) -> str:
    """Try to join and to send an entry, without a certificate; the answers' codes."""
    message = api.ProcessRaftMessageRequest()
    message.message.type, message.message.to = api.raftpb.MsgApp, 1
    message.message.entries.add(Term=1, Index=1, Data=data)
    attempts = {
        "RaftMembership/Join": (api.JoinRequest(addr=addr), api.JoinResponse),
        "Raft/ProcessRaftMessage": (message, api.ProcessRaftMessageResponse),
    }
    codes = []
    async with open_channel(addr, await leaf_of(addr), "swarm-manager") as channel:
        for path, (request, response) in attempts.items():
            try:
                await method(channel, path, type(request), response)(request, timeout=10)
                codes.append(f"{path} accepted")
            except grpc.aio.AioRpcError as error:
                codes.append(error.code().name)
    return "refused: " + ", ".join(dict.fromkeys(codes))
