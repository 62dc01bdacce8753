"""One member with our own core, as a child process of a trial: the shipped `RaftNode` and disk.

    python -m bench.rafts.own_member FOLDER alone    # a cluster of its own: "write N", "left N"
    python -m bench.rafts.own_member FOLDER voter    # member 1 of 3: "vote CANDIDATE TERM"

Answers a line for a line; each write is one entry of its own. Everything ends with SIGKILL.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.cluster.ca import decryptor, secretbox
from swarmd.cluster.store import Store, Transaction
from swarmd.manager.commit import Committer
from swarmd.manager.raftnode import Place, RaftNode

# The key only has to be the same in every run of a trial.
KEY = bytes(range(32))
NODE = "node"
ADDRESS = "127.0.0.1:2377"  # noted in the log, never listened on
_FAR_AHEAD = 10**6


class Answers:
    """A transport to nobody that hands out the votes sent."""

    def __init__(self) -> None:
        self.votes: asyncio.Queue[raftpb.Message] = asyncio.Queue(16)

    def send(self, messages: Sequence[raftpb.Message]) -> None:
        """Keep the answers to vote requests."""
        for message in messages:
            if message.type == raftpb.MsgVoteResp:
                self.votes.put_nowait(message)

    def active(self, raft_id: int) -> bool:
        """Nobody is."""
        return False


class Counter:
    """Counts fdatasync and fsync of this process."""

    def __init__(self) -> None:
        self.calls = 0
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._counting(getattr(os, name)))

    def _counting(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def counted(fd: int) -> None:
            self.calls += 1
            real(fd)

        return counted


def node_in(folder: Path, store: Store, voter: bool) -> tuple[RaftNode, Answers]:
    """The node that lives in `folder`; a voter has joined two others it never hears of."""
    entropy, answers = SystemEntropy(), Answers()
    joined = None
    if voter:
        joined = api.JoinResponse(raft_id=1)
        for number in (1, 2, 3):
            joined.members.add(raft_id=number, node_id=f"{NODE}{number}", addr=ADDRESS)
    name = f"{NODE}1" if voter else NODE
    sealer, opener = secretbox(KEY, entropy), decryptor(KEY)
    place = Place(folder, name, ADDRESS, sealer, opener, joined=joined)
    return RaftNode(place, store, SystemClock(), entropy, transport=answers), answers


async def write(committer: Committer, number: int) -> None:
    """One acknowledged write."""

    def change(tx: Transaction) -> api.Config:
        config = api.Config(id=f"k{number}")
        config.spec.annotations.name = config.id
        return tx.create(config)

    await committer.update(change)


async def vote(node: RaftNode, answers: Answers, candidate: int, term: int) -> str:
    """Ask for a vote as `candidate`, with a log nobody is ahead of."""
    request: dict[str, Any] = {"from": candidate}
    message = raftpb.Message(type=raftpb.MsgVote, to=node.id, term=term, **request)
    message.logTerm, message.index = term - 1, _FAR_AHEAD
    node.step(message)
    answer = await asyncio.wait_for(answers.votes.get(), 10)
    return "refused" if answer.reject else "granted"


async def leading(node: RaftNode) -> None:
    """Wait until the only member leads."""
    leads = asyncio.Event()
    unsubscribe = node.subscribe(lambda: leads.set() if node.is_leader() else None)
    if not node.is_leader():
        await asyncio.wait_for(leads.wait(), 30)
    unsubscribe()


async def answer(
    line: str, node: RaftNode, store: Store, committer: Committer, answers: Answers, sync: Counter
) -> str:
    """Do what one line asks."""
    command, *given = line.split()
    if command == "write":
        before = sync.calls
        for number in range(int(given[0])):
            await write(committer, number)
        return str(sync.calls - before)
    if command == "left":
        return str(len(store.view().all(api.Config)))
    return await vote(node, answers, int(given[0]), int(given[1]))


async def main(folder: Path, voter: bool) -> None:
    """Open, answer until killed."""
    sync, store = Counter(), Store()
    node, answers = node_in(folder, store, voter)
    committer = Committer(store, node, SystemClock())
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with Tasks() as tasks:
        tasks.spawn(node.run(ready), "node")
        await ready.wait()
        if not voter:
            await leading(node)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(await answer(line, node, store, committer, answers, sync), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] == "voter"))
