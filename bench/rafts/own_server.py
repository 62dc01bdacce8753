"""One of three members with our own core, disk and transport, for writes over TCP.

    python -m bench.rafts.own_server FOLDER NAME CREDENTIALS-FILE

Reads commands on standard input, one line each with one answer:

    listen                     -> address of the raft port
    found                      -> port of the writers, once this member leads alone
    add NAME ADDRESS           -> JoinResponse as hex, on the leader
    join HEX                   -> "ok", once this member runs

A writer sends "KEY VALUE" and gets "ok" once its entry is committed and applied.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

from bench.rafts.own_member import KEY, leading
from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.cluster.ca import decryptor, secretbox
from swarmd.cluster.store import Store, Transaction, edit
from swarmd.manager.commit import Committer
from swarmd.manager.peers import Peers
from swarmd.manager.raftnode import Membership, NotMember, Place, RaftNode
from swarmd.manager.raftservice import RaftService
from swarmd.rpc.client import dial_manager
from swarmd.rpc.peer import Caller
from swarmd.rpc.server import Credentials, Server
from tests.wire.rpc_kit import ORGANIZATION

VALUE_BYTES_MAX = 1 << 20


class Trusting:
    """The authoriser of a group nobody was removed from."""

    organization = ORGANIZATION

    def is_blacklisted(self, node_id: str) -> bool:
        """Nobody is."""
        return False


class Health:
    """Says that this member serves."""

    SERVICE = "docker.swarmkit.v1.Health"

    async def check(self, request: api.HealthCheckRequest, peer: object) -> Any:
        """Always."""
        return api.HealthCheckResponse(status=api.HealthCheckResponse.ServingStatus.SERVING)


class Member:
    """Node, store, transport and port of one member."""

    def __init__(self, folder: Path, name: str, credentials: Credentials, tasks: Tasks) -> None:
        self._folder, self._name, self._tasks = folder, name, tasks
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._credentials = credentials
        self._store, self._opened = Store(), asyncio.Event()
        self._peers = Peers(self._dial, self._entropy, lambda: None)
        self._addr = ""
        self._node: RaftNode | None = None

    async def _dial(self, addr: str, node_id: str) -> Caller:
        """All members show one certificate here: who answers is not asked."""
        return await dial_manager(addr, self._credentials)

    async def listen(self) -> str:
        """Open the raft port; the node behind it comes later."""
        relay = _Relay(self)
        services = [RaftService(relay, self._peers, NotMember, self._opened), Health()]
        server = Server(services, lambda: self._credentials, Trusting(), None)
        ready = asyncio.Event()
        self._tasks.spawn(server.run(ready, ["127.0.0.1:0"]), "server")
        await ready.wait()
        self._addr = server.addresses[0]
        return self._addr

    async def start(self, joined: api.JoinResponse | None) -> RaftNode:
        """Found a group, or join the one of `joined`."""
        sealer, opener = secretbox(KEY, self._entropy), decryptor(KEY)
        place = Place(self._folder, self._name, self._addr, sealer, opener, joined=joined)
        self._node = node = RaftNode(
            place, self._store, self._clock, self._entropy, transport=self._peers
        )
        ready = asyncio.Event()
        self._tasks.spawn(node.run(ready), "node")
        await ready.wait()
        self._opened.set()
        self._tasks.spawn(self._peers.run(asyncio.Event(), node), "peers")
        return node

    @property
    def node(self) -> RaftNode:
        """The node; there is one from `start` on."""
        if self._node is None:
            raise RuntimeError("not started")
        return self._node

    async def serve(self) -> int:
        """Take writers; their port."""
        committer = Committer(self._store, self.node, self._clock)

        async def writer(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
            try:
                while line := await reader.readline():
                    key, _, value = line.rstrip(b"\n").partition(b" ")
                    await write(committer, key.decode(), value)
                    out.write(b"ok\n")
            finally:
                out.close()

        server = await asyncio.start_server(writer, "127.0.0.1", 0, limit=VALUE_BYTES_MAX)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def add(self, name: str, addr: str) -> str:
        """Take a member in; what it must know, as hex."""
        membership = Membership(self.node, self._entropy)
        raft_id = await membership.add(name, addr)
        answer = api.JoinResponse(raft_id=raft_id, members=self.node.membership.all())
        return answer.SerializeToString().hex()


class _Relay:
    """Stands for the node while there is none yet."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def __getattr__(self, name: str) -> Any:
        return getattr(self._member.node, name)


async def write(committer: Committer, key: str, value: bytes) -> None:
    """One acknowledged write."""

    def change(tx: Transaction) -> None:
        stored = tx.get(api.Config, key)
        config = edit(stored) if stored is not None else api.Config(id=key)
        config.spec.annotations.name = key
        config.spec.data = value
        if stored is None:
            tx.create(config)
        else:
            tx.update(config)

    await committer.update(change)


async def answer(line: str, member: Member) -> str:
    """Do what one line asks."""
    command, *given = line.split()
    if command == "listen":
        return await member.listen()
    if command == "found":
        await leading(await member.start(None))
        return str(await member.serve())
    if command == "add":
        return await member.add(given[0], given[1])
    await member.start(api.JoinResponse.FromString(bytes.fromhex(given[0])))
    return "ok"


async def main(folder: Path, name: str, credentials: Credentials) -> None:
    """Answer until killed."""
    loop = asyncio.get_running_loop()
    async with Tasks() as tasks:
        member = Member(folder, name, credentials, tasks)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(await answer(line, member), flush=True)


if __name__ == "__main__":
    read = json.loads(Path(sys.argv[3]).read_text())
    pem = Credentials(*(read[part].encode() for part in ("roots", "certificate", "key")))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loops:
        loops.run(main(Path(sys.argv[1]), sys.argv[2], pem))
