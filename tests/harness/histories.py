"""Randomised histories of a real group of managers, and whether they are linearizable.

    python -m tests.harness.histories --runs 100 --seed 1

Managers run as processes on hosts of their own. Clients at every manager read and update the
labels of a few configs over REST, each update naming the version it replaces, while links are
cut and managers are killed, paused and made to hand over. Afterwards the histories of all keys
are checked (`linearizable`), and that no term had two leaders. A failing run names its seed;
`--seed N --runs 1` plays its trouble again, though not its exact timing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.harness.engines import Engine
from tests.harness.lan import Lan
from tests.harness.linearizable import (
    Action,
    NotLinearizable,
    Op,
    Read,
    Swap,
    check_keys,
    line,
)
from tests.harness.nemesis import START_SECONDS, Nemesis, elections, resume, schedule
from tests.harness.quorum import Node, rest
from tests.harness.swarmds import Swarmd

CLIENTS_PER_MANAGER = 3
KEYS = 3
CALL_SECONDS = 3.0  # a client gives up then, and nobody knows what became of its call
THINK_SECONDS_MAX = 0.1
HEAL_SECONDS = 120.0
REFUSED = "update out of sequence"
LEADERLESS = "The swarm does not have a leader. It's possible that too few managers are online."
PORT = 2377


class Member(Swarmd):
    """A manager whose readiness is seen through its socket: starting a client costs more."""

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start the daemon and wait until its API answers."""
        super().start(timeout)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"swarmd {self.name} ended:\n{self.log[-4000:]}")
        try:
            rest(self, "GET", "/version")
        except (OSError, ValueError):
            return False
        return True


@contextmanager
def group(lan: Lan, swarmds: int, engines: int = 0, **how: Any) -> Iterator[list[Node]]:
    """So many managers of one swarm; a swarmd leads at first. `how` goes to each `Swarmd`."""
    with ExitStack() as stack:
        nodes: list[Node] = [
            stack.enter_context(Member(f"m{n}", lan=lan, **how)) for n in range(1, swarmds + 1)
        ]
        nodes += [stack.enter_context(Engine(f"e{n}", lan=lan)) for n in range(1, engines + 1)]
        stack.callback(resume, nodes)
        first = nodes[0]
        address = {"ListenAddr": f"0.0.0.0:{PORT}", "AdvertiseAddr": first.ip}
        rest(first, "POST", "/swarm/init", address)
        token = rest(first, "GET", "/swarm")["JoinTokens"]["Manager"]
        for node in nodes[1:]:
            wish = {
                "ListenAddr": f"0.0.0.0:{PORT}",
                "AdvertiseAddr": node.ip,
                "RemoteAddrs": [f"{first.ip}:{PORT}"],
                "JoinToken": token,
            }
            rest(node, "POST", "/swarm/join", wish)
        yield nodes


@dataclass
class Outcome:
    """What one history was like."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)
    terms: int = 0
    violation: str = ""
    story: str = ""
    """Every operation in the order of their beginnings; for the search after a violation."""

    def __str__(self) -> str:
        numbers = " ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return f"seed {self.seed}: {numbers}, {self.terms} elections"


class Recorder:
    """Everything asked and answered, by key."""

    def __init__(self, initial: dict[str, Read]) -> None:
        self.initial = initial
        self.ops: dict[str, list[Op[Action]]] = {key: [] for key in initial}
        self.counts: Counter[str] = Counter()

    def add(self, key: str, op: Op[Action], kind: str) -> None:
        """Note an operation that may have taken effect."""
        self.ops[key].append(op)
        self.counts[kind] += 1


class Client:
    """One connection to one manager, doing one thing at a time."""

    def __init__(self, name: str, node: Node, recorder: Recorder, chance: random.Random) -> None:
        self._name = name
        self._recorder = recorder
        self._chance = chance
        self._known: dict[str, Read] = {}
        self._specs: dict[str, dict[str, Any]] = {}
        self._writes = 0
        self._http = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(node.socket),
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
        )

    async def close(self) -> None:
        """Hang up."""
        await self._http.close()

    async def run(self, until: float) -> None:
        """Read and write at random until the loop's time `until`."""
        loop, chance = asyncio.get_running_loop(), self._chance
        keys = sorted(self._recorder.initial)
        while loop.time() < until:
            await asyncio.sleep(chance.uniform(0, THINK_SECONDS_MAX))
            key = chance.choice(keys)
            if key not in self._known or chance.random() < 0.5:
                await self.read(key)
            else:
                await self.swap(key)

    async def read(self, key: str) -> bool:
        """One read; False without an answer."""
        begun = asyncio.get_running_loop().time()
        try:
            async with self._http.get(f"http://x/configs/{key}") as answer:
                found = await answer.json()
                status = answer.status
        except (TimeoutError, aiohttp.ClientError, ValueError):
            self._recorder.counts["reads lost"] += 1
            return False
        ended = asyncio.get_running_loop().time()
        if status != 200:
            self._count_refusal("reads", str(found))
            return False
        action = Read(found["Spec"]["Labels"]["v"], found["Version"]["Index"])
        self._known[key], self._specs[key] = action, found["Spec"]
        self._recorder.add(key, Op(action, begun, ended, self._name), "reads")
        return True

    async def swap(self, key: str) -> None:
        """One update of the version this client saw last."""
        self._writes += 1
        expected, value = self._known[key].version, f"{self._name}-{self._writes}"
        spec = {**self._specs[key], "Labels": {"v": value}}
        url = f"http://x/configs/{key}/update?version={expected}"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        action = Swap(expected, value)
        lost: Op[Action] = Op(action, begun, client=self._name)
        try:
            async with self._http.post(url, json=spec) as answer:
                text = await answer.text()
                status = answer.status
        except aiohttp.ClientConnectorError:
            self._recorder.counts["writes not sent"] += 1
            return
        except (TimeoutError, aiohttp.ClientError):
            self._recorder.add(key, lost, "writes unknown")
            return
        ended = loop.time()
        if status == 200:
            self._recorder.add(key, Op(action, begun, ended, self._name), "writes")
        elif REFUSED in text:
            refused = Swap(expected, value, refused=True)
            self._recorder.add(key, Op(refused, begun, ended, self._name), "writes refused")
        else:
            # Whatever the text says, an earlier attempt on its behalf may have arrived.
            self._recorder.add(key, lost, "writes unknown")
            self._count_refusal("writes", text)

    def _count_refusal(self, what: str, text: str) -> None:
        kind = "without leader" if LEADERLESS in text else "failed"
        self._recorder.counts[f"{what} {kind}"] += 1


def make_keys(node: Node, seed: int) -> dict[str, Read]:
    """Fresh configs, by id, and what they hold."""
    found = {}
    for number in range(KEYS):
        spec = {
            "Name": f"h{seed}-{number}-{time.monotonic_ns()}",
            "Labels": {"v": "0"},
            "Data": "eA==",
        }
        id = rest(node, "POST", "/configs/create", spec)["ID"]
        made = rest(node, "GET", f"/configs/{id}")
        found[id] = Read("0", made["Version"]["Index"])
    return found


async def record(
    nodes: Sequence[Node], seed: int, seconds: float, initial: dict[str, Read]
) -> tuple[Recorder, list[str]]:
    """One history under the trouble of `seed`, and what the trouble was; all is healed after it."""
    recorder = Recorder(initial)
    nemesis = Nemesis(nodes, schedule(seed, len(nodes), seconds))
    loop = asyncio.get_running_loop()
    clients = [
        Client(f"{node.name}{letter}", node, recorder, random.Random(f"{seed} {node.name}{letter}"))
        for node in nodes
        for letter in "abcdefgh"[:CLIENTS_PER_MANAGER]
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(nemesis.run())
            for client in clients:
                tasks.create_task(client.run(loop.time() + seconds))
        # It heals without help, and every manager knows the outcome.
        for client in clients[::CLIENTS_PER_MANAGER]:
            for key in initial:
                end = loop.time() + HEAL_SECONDS
                while not await client.read(key):
                    if loop.time() > end:
                        raise TimeoutError(f"no answer {HEAL_SECONDS} s after all was healed")
                    await asyncio.sleep(0.1)
    finally:
        for client in clients:
            await client.close()
    return recorder, nemesis.done


def run_seed(nodes: Sequence[Node], seed: int, seconds: float) -> Outcome:
    """Record the history of `seed` on running managers and judge it."""
    before = elections(nodes)
    recorder, trouble = asyncio.run(record(nodes, seed, seconds, make_keys(nodes[0], seed)))
    led = elections(nodes)
    outcome = Outcome(seed, recorder.counts, trouble, len(led) - len(before))
    split = {term: ids for term, ids in led.items() if len(ids) > 1}
    if split:
        outcome.violation = f"two leaders in one term: {split}"
    # In a mixed group a stock leader may answer from what it was: only writes are judged there.
    exact = all(isinstance(node, Swarmd) for node in nodes)
    try:
        check_keys(recorder.ops, recorder.initial, stale_answers=not exact)
    except NotLinearizable as error:
        outcome.violation = str(error)
    if outcome.violation:
        outcome.story = story(recorder)
        plan = "\n".join(f"  {step}" for step in schedule(seed, len(nodes), seconds))
        done = "\n".join(f"  {line}" for line in trouble)
        outcome.violation = f"seed {seed}: {outcome.violation}\nplanned:\n{plan}\ndone:\n{done}"
    return outcome


def story(recorder: Recorder) -> str:
    """All operations of all keys, one a line."""
    found = [(op.begun, key, op) for key, ops in recorder.ops.items() for op in ops]
    lines = [f"{key[:4]} {line(op)}" for _, key, op in sorted(found, key=lambda one: one[:2])]
    return "\n".join(lines) + "\n"


def keep(folder: Path, outcome: Outcome, nodes: Sequence[Node]) -> None:
    """Leave behind what is needed to understand a violation."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{outcome.seed}.story").write_text(f"{outcome.violation}\n{outcome.story}")
    for node in nodes:
        (folder / f"{outcome.seed}.{node.name}.log").write_text(node.log)


def main() -> int:
    """Many seeds; a new group every few, so that none grows old. Exit status 1 on a violation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="how many histories")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a history")
    parser.add_argument("--managers", type=int, default=3, help="swarmd managers")
    parser.add_argument("--engines", type=int, default=0, help="stock managers beside them")
    parser.add_argument("--group", type=int, default=20, help="histories per group of daemons")
    parser.add_argument("--keep", type=Path, help="where to leave stories and logs of failures")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    failed: list[int] = []
    terms = 0
    seeds = range(options.seed, options.seed + options.runs)
    for start in range(0, len(seeds), options.group):
        with Lan() as lan, group(lan, options.managers, options.engines) as nodes:
            for seed in seeds[start : start + options.group]:
                outcome = run_seed(nodes, seed, options.seconds)
                print(outcome, flush=True)
                total.update(outcome.counts)
                terms += outcome.terms
                if outcome.violation:
                    failed.append(seed)
                    print(outcome.violation, flush=True)
                    if options.keep is not None:
                        keep(options.keep, outcome, nodes)
    print(json.dumps(dict(sorted(total.items()))))
    print(f"{len(seeds)} histories, {terms} elections, violations: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
