"""Trouble for a group of managers: a schedule drawn from a seed, and the hands that carry it out.

A schedule says what happens when, to the how-manieth manager, the leader of that moment being
the first. So a seed gives the same trouble each time, whoever leads and however fast things go.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.harness.lan import Host
from tests.harness.quorum import Node

CUTS = ("isolate", "pair", "one-way")
PROCESS = ("kill", "pause", "hand-over")
LONG_SECONDS = 4.0
START_SECONDS = 120.0  # less than one on a machine that has nothing else to do

_LEADS = re.compile(r"raft: ([0-9a-f]+) leads at term (\d+)")
_STOCK_LEADS = re.compile(r"([0-9a-f]+) became leader at term (\d+)")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that goes wrong: from `at` on, `seconds` long. Ranks: 0 is the leader."""

    at: float
    kind: str
    rank: int
    other: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:.1f}s +{self.seconds:.1f}s {self.kind} #{self.rank} (#{self.other})"


def schedule(seed: int, members: int, seconds: float) -> list[Trouble]:
    """Trouble for one history; a pure function of its arguments.

    Often the leader is cut off first, for longer than the others need to elect (2 s): only then
    are there two who think they lead.
    """
    chance = random.Random(f"trouble-{seed}")
    found: list[Trouble] = []
    at = chance.uniform(0.2, 1.0)
    if chance.random() < 0.5:
        found.append(Trouble(at, "isolate", 0, 1, chance.uniform(3.0, 5.0)))
        at += chance.uniform(1.0, 4.0)
    while at < seconds - 1.0:
        kind = chance.choice(CUTS * 2 + PROCESS)
        rank = 0 if chance.random() < 0.6 else chance.randrange(members)
        other = chance.choice([one for one in range(members) if one != rank])
        longest = LONG_SECONDS if kind in CUTS or chance.random() < 0.3 else 1.5
        lasts = min(chance.uniform(0.3, longest), seconds - at)
        found.append(Trouble(at, kind, rank, other, lasts))
        at += chance.uniform(0.5, 2.0)
    return found


def elections(nodes: Sequence[Node]) -> dict[int, set[str]]:
    """Term -> the raft ids that led it, as the managers' logs say; more than one is a split."""
    led: dict[int, set[str]] = {}
    for node in nodes:
        text = node.log
        for pattern in (_LEADS, _STOCK_LEADS):
            for raft_id, term in pattern.findall(text):
                led.setdefault(int(term), set()).add(raft_id)
    return led


def ranked(nodes: Sequence[Node]) -> list[Node]:
    """The managers, who led last first."""

    def last_term(node: Node) -> int:
        return max(elections([node]), default=0)

    return sorted(nodes, key=last_term, reverse=True)


def host_of(node: Node) -> Host:
    """Where it runs."""
    if node.host is None:
        raise RuntimeError(f"{node.name} is on no host of its own")
    return node.host


class Nemesis:
    """Carries a schedule out on running managers, and undoes all of it at the end."""

    def __init__(self, nodes: Sequence[Node], planned: Sequence[Trouble]) -> None:
        self._nodes = list(nodes)
        self._planned = planned
        # Processes somebody is already doing something to.
        self._taken: set[str] = set()
        self.done: list[str] = []
        """What really happened, with names."""

    async def run(self) -> None:
        """Everything planned, to its end; every trouble undoes itself."""
        async with asyncio.TaskGroup() as group:
            for trouble in self._planned:
                group.create_task(self._one(trouble))

    async def _one(self, trouble: Trouble) -> None:
        await asyncio.sleep(trouble.at)
        order = await asyncio.to_thread(ranked, self._nodes)
        victim, other = order[trouble.rank], order[trouble.other]
        if trouble.kind in CUTS:
            await self._cut(trouble, victim, other)
            return
        if victim.name in self._taken:
            return
        self._taken.add(victim.name)
        try:
            await self._stop(trouble, victim)
        finally:
            self._taken.discard(victim.name)

    async def _cut(self, trouble: Trouble, victim: Node, other: Node) -> None:
        self.done.append(f"{trouble.at:.1f} {trouble.kind} {victim.name} {other.name}")
        pairs = {
            "one-way": [(other, victim)],
            "pair": [(other, victim), (victim, other)],
            "isolate": [
                pair
                for node in self._nodes
                if node is not victim
                for pair in ((node, victim), (victim, node))
            ],
        }[trouble.kind]
        await self._deafen(pairs, "deafen")
        try:
            await asyncio.sleep(trouble.seconds)
        finally:
            await self._deafen(pairs, "listen_again")

    async def _deafen(self, pairs: Sequence[tuple[Node, Node]], how: str) -> None:
        """(who is deaf, to whom) for each pair, all at about the same time."""
        calls: list[Any] = [
            asyncio.to_thread(getattr(host_of(deaf), how), node.ip) for deaf, node in pairs
        ]
        await asyncio.gather(*calls)

    async def _stop(self, trouble: Trouble, victim: Node) -> None:
        self.done.append(f"{trouble.at:.1f} {trouble.kind} {victim.name}")
        if trouble.kind == "pause":
            os.kill(victim.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(trouble.seconds)
            finally:
                os.kill(victim.pid, signal.SIGCONT)
            return
        await asyncio.to_thread(victim.kill if trouble.kind == "kill" else victim.stop)
        await asyncio.sleep(min(trouble.seconds, 1.0))
        await asyncio.to_thread(victim.start, START_SECONDS)


def resume(nodes: Sequence[Node]) -> None:
    """After an aborted run: nobody stays paused, or it could not even be ended politely."""
    for node in nodes:
        with suppress(RuntimeError, ProcessLookupError):
            os.kill(node.pid, signal.SIGCONT)
