"""Our agent with our dispatcher and log broker, joined in process, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster.store import Store, edit
from swarmd.manager.dispatcher import Dispatcher
from swarmd.manager.logbroker import Broker
from swarmd.rpc.inprocess import InProcess
from swarmd.rpc.peer import Peer
from swarmd.worker.agent import Agent
from tests.harness.localstore import FixedMembers, LocalCommitter, Manager
from tests.harness.virtual import LoopClock, run_virtual

S = api.TaskState
N = api.NodeStatus


class World:
    """One manager, node "n" in its store, and the agent of that node."""

    def __init__(self) -> None:
        clock, entropy = LoopClock(), SeededEntropy(1)
        self.store = Store(strict=True)
        self.committer = LocalCommitter(self.store, clock)
        self.dispatcher = Dispatcher(
            self.store,
            self.committer,
            FixedMembers(Manager("m", "10.0.0.1:2377")),
            clock,
            entropy,
            "m",
        )
        self.broker = Broker(self.store, entropy)
        self.agent = Agent(self.connect, self.describe, self, clock, entropy)
        self.managers: list[str] = []
        self.changed = asyncio.Event()
        self.store.subscribe(lambda _: self.changed.set())
        self.committer.write(populate)

    async def connect(self) -> InProcess:
        services = [self.dispatcher, self.broker.log_broker, self.broker.logs]
        return InProcess(services, Peer("n", "org", ("swarm-worker",), "10.0.0.7:1"), None)

    async def describe(self) -> api.NodeDescription:
        return api.NodeDescription(hostname="worker")

    def on_managers(self, managers) -> None:
        self.managers = [m.peer.addr for m in managers]

    def on_node(self, node) -> None: ...

    def on_network_keys(self, keys) -> None: ...

    def on_root_ca(self, pem) -> None: ...

    def on_session(self, error) -> None: ...

    @asynccontextmanager
    async def leading(self):
        async with Tasks() as tasks:
            parts = [(self.dispatcher, asyncio.Event()), (self.broker, asyncio.Event())]
            runs = [tasks.spawn(part.run(ready), "part") for part, ready in parts]
            for _, ready in parts:
                await ready.wait()
            yield
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)

    async def until(self, check) -> None:
        async with asyncio.timeout(1000):
            while not check():
                self.changed.clear()
                await self.changed.wait()

    def node(self) -> api.Node:
        node = self.store.view().get(api.Node, "n")
        assert node is not None
        return node

    def task(self, id: str) -> api.Task:
        task = self.store.view().get(api.Task, id)
        assert task is not None
        return task


def populate(tx) -> None:
    tx.create(api.Node(id="n"))
    task = api.Task(id="t1", node_id="n", service_id="s", desired_state=S.RUNNING)
    task.status.state = S.ASSIGNED
    tx.create(task)


def test_a_node_joins_refuses_a_task_falls_silent_and_comes_back() -> None:
    run_virtual(life())


async def life() -> None:
    world = World()
    async with world.leading():
        async with Tasks() as tasks:
            ready = asyncio.Event()
            agent = tasks.spawn(world.agent.run(ready), "agent")
            await ready.wait()
            status = world.node().status
            assert (status.state, status.addr) == (N.READY, "10.0.0.7")
            assert world.node().description.hostname == "worker"
            assert world.managers == ["10.0.0.1:2377"]

            await world.until(lambda: world.task("t1").status.state == S.REJECTED)
            assert world.task("t1").status.err == "no container executor on this node"
            assert world.task("t1").status.applied_by == "m"

            world.committer.write(assign_another)
            await world.until(lambda: world.task("t2").status.state == S.REJECTED)

            assert await logs_of(world) == []  # told at once, and to the end

            await asyncio.sleep(600)
            assert world.node().status.state == N.READY
            agent.cancel()
            await asyncio.wait([agent])

        silent_since = asyncio.get_running_loop().time()
        await world.until(lambda: world.node().status.state == N.DOWN)
        # Its last heartbeat was at most one period before it fell silent.
        assert 8.5 <= asyncio.get_running_loop().time() - silent_since <= 17.0
        assert world.node().status.message == "heartbeat failure"

        async with Tasks() as tasks:
            tasks.spawn(world.agent.run(asyncio.Event()), "agent")
            await world.until(lambda: world.node().status.state == N.READY)


def assign_another(tx) -> None:
    """As the scheduler does: a task is assigned by an update."""
    task = api.Task(id="t2", node_id="n", service_id="s", desired_state=S.RUNNING)
    task.status.state = S.PENDING
    draft = edit(tx.create(task))
    draft.status.state = S.ASSIGNED
    tx.update(draft)


async def logs_of(world: World) -> list:
    request = api.SubscribeLogsRequest(selector=api.LogSelector(node_ids=["n"]))
    stream = world.broker.logs.subscribe_logs(request, Peer())
    async with asyncio.timeout(5):
        return [message async for message in stream]


def test_a_node_finds_the_next_leader() -> None:
    run_virtual(leaders())


async def leaders() -> None:
    world = World()
    async with Tasks() as tasks:
        tasks.spawn(world.agent.run(asyncio.Event()), "agent")
        await asyncio.sleep(30)  # nobody leads: it tries and tries
        for _ in range(3):
            async with world.leading():
                await world.until(lambda: world.node().status.state == N.READY)
                await asyncio.sleep(100)
                assert world.node().status.state == N.READY
            await asyncio.sleep(20)
