"""A manager's log and store under concurrent writers, to be killed at any moment.

`python -m tests.harness.crashwriter` serves commands on standard input: for each line
(`<directory> <seed>`) it forks a child that opens the directory, says what it found and
writes until it is killed. Forking keeps the start cheap: everything is imported once.

Lines on standard output, each written in one piece:

    pid <pid>                   the child of this command
    found <writer> <first> <last> <version>   one per writer: its objects are whole
    broken <text>               the state found contradicts itself
    ready                       the writers start
    ack <writer> <number> <version>                    this write was acknowledged
    gone <status>               the child is dead; nothing of it follows

Writer `w` creates the config `w-1`, `w-2`, ... one after the other, in the same change
deleting the one KEPT before it; so its objects are always a gapless run. Applying a create
twice is refused by the store and shows in the count of dropped entries.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from swarmd import api
from swarmd.base import metrics
from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.cluster.ca.envelope import decryptor, secretbox
from swarmd.cluster.store import Store, Transaction, edit
from swarmd.manager.commit import Committer
from swarmd.manager.raftnode import Place, RaftNode

WRITERS = 4
KEPT = 8
KEY = b"k" * 32
SEGMENT_BYTES = 32_768  # small, so that kills also hit cuts
SNAPSHOT_INTERVAL = 40  # and snapshots
OLD_ENTRIES = 10


def say(line: str) -> None:
    """One line, in one write, at once."""
    os.write(1, line.encode() + b"\n")


def data_of(writer: int, number: int) -> bytes:
    """What object `number` of a writer holds: sizes from a few bytes to several sectors."""
    seed = f"{writer}-{number}".encode()
    return hashlib.shake_128(seed).digest(20 + number * 977 % 3000)


def check(store: Store) -> list[int]:
    """Report what is there; returns the number each writer reached."""
    reached = []
    for writer in range(WRITERS):
        objects = {
            int(config.id.split("-")[1]): config
            for config in store.view().all(api.Config)
            if config.id.startswith(f"{writer}-")
        }
        last = max(objects, default=0)
        first = max(1, last - KEPT + 1)
        if sorted(objects) != list(range(first, last + 1)):
            say(f"broken writer {writer} has {sorted(objects)}")
        for number, config in objects.items():
            if config.spec.data != data_of(writer, number):
                say(f"broken {config.id} holds something else")
        version = objects[last].meta.version.index if last else 0
        say(f"found {writer} {first} {last} {version}")
        reached.append(last)
    dropped = metrics.registry.get_sample_value("swarmd_raft_entries_dropped_total")
    if dropped:
        say(f"broken {dropped:.0f} entries were refused")
    return reached


def one_write(writer: int, number: int) -> Callable[[Transaction], api.Config]:
    """The change that makes object `number` of a writer."""

    def change(tx: Transaction) -> api.Config:
        made = api.Config(id=f"{writer}-{number}")
        made.spec.annotations.name = made.id
        made.spec.data = data_of(writer, number)
        if number > KEPT:
            tx.delete(api.Config, f"{writer}-{number - KEPT}")
        return tx.create(made)

    return change


def begin(tx: Transaction) -> None:
    """Settings that make snapshots frequent."""
    if tx.cluster() is None:
        cluster = api.Cluster(id="c")
        cluster.spec.annotations.name = "default"
        cluster.spec.raft.snapshot_interval = SNAPSHOT_INTERVAL
        cluster.spec.raft.log_entries_for_slow_followers = OLD_ENTRIES
        tx.create(edit(cluster))


async def write(committer: Committer, writer: int, number: int) -> None:
    """Write one object after the other for ever."""
    while True:
        number += 1
        config = await committer.update(one_write(writer, number))
        say(f"ack {writer} {number} {config.meta.version.index}")


async def child(directory: Path) -> None:
    """Open, report, write until killed."""
    store, clock, entropy = Store(), SystemClock(), SystemEntropy()
    where = Place(
        directory,
        "node",
        "127.0.0.1:2377",
        secretbox(KEY, entropy),
        decryptor(KEY),
        segment_bytes=SEGMENT_BYTES,
    )
    node = RaftNode(where, store, clock, entropy)
    committer = Committer(store, node, clock)
    ready = asyncio.Event()
    async with Tasks() as tasks:
        run = tasks.spawn(node.run(ready), "node")
        await ready.wait()
        reached = check(store)
        await committer.update(begin)
        say("ready")
        for writer, number in enumerate(reached):
            tasks.spawn(write(committer, writer, number), f"writer {writer}")
        await run


def main() -> None:
    """Serve commands until standard input ends."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            say(f"pid {os.getpid()}")  # the child itself: the parent may be slower than it
            try:
                asyncio.run(child(Path(line.split()[0])))
            except BaseException:
                say("broken " + traceback.format_exc().replace("\n", " | "))
            os._exit(1)
        say(f"gone {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")


if __name__ == "__main__":
    main()
