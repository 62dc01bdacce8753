"""The agent against a manager that does as it is told, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.errors import Aborted, Internal, NotFound, SwarmError, Unavailable, Unimplemented
from swarmd.worker.agent import Agent
from swarmd.worker.agent import session as session_module
from swarmd.worker.agent.agent import next_backoff
from tests.harness.virtual import LoopClock, run_virtual

S = api.TaskState
COMPLETE = api.AssignmentsMessage.COMPLETE
INCREMENTAL = api.AssignmentsMessage.INCREMENTAL


class Longest:
    """Chance that always chooses the upper end."""

    def token(self, size: int) -> bytes:
        return bytes(size)

    def uniform(self, low: float, high: float) -> float:
        return high


class Stream:
    """One server stream: yields what is put; an error is raised, None ends it."""

    def __init__(self, *items) -> None:
        self.queue: asyncio.Queue = asyncio.Queue()
        self.closed = asyncio.Event()
        for item in items:
            self.queue.put_nowait(item)

    async def read(self) -> AsyncIterator:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()


class Line:
    """One connection to the manager."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.session = Stream()
        self.assignments: list[Stream] = []
        self.subscriptions = Stream()
        self.requests: list = []
        self.heartbeats: list[float] = []
        self.reports: asyncio.Queue = asyncio.Queue()
        self.unpublished: asyncio.Queue = asyncio.Queue()
        self.published: asyncio.Queue = asyncio.Queue()
        self.heartbeat_error: SwarmError | None = None
        self.report_error: SwarmError | None = None
        self.publish_error: SwarmError | None = None
        self.closed = asyncio.Event()

    async def unary(self, method, request, *, timeout=None, metadata=()):
        assert timeout == 5.0
        match method:
            case "Dispatcher/Heartbeat":
                assert request.session_id == "sid"
                self.heartbeats.append(now())
                if self.heartbeat_error is not None:
                    raise self.heartbeat_error
                response = api.HeartbeatResponse()
                response.period.FromNanoseconds(int(self.manager.period * 1e9))
                return response
            case "Dispatcher/UpdateTaskStatus":
                if self.report_error is not None:
                    raise self.report_error
                self.reports.put_nowait(request)
                return api.UpdateTaskStatusResponse()
            case "Dispatcher/UpdateVolumeStatus":
                self.unpublished.put_nowait(request)
                return api.UpdateVolumeStatusResponse()
        raise AssertionError(method)

    def server_stream(self, method, request, *, timeout=None, metadata=()):
        assert timeout is None
        match method:
            case "Dispatcher/Session":
                self.requests.append(request)
                return self.session.read()
            case "Dispatcher/Assignments":
                assert request.session_id == "sid"
                self.assignments.append(Stream())
                self.manager.assignments_opened.set()
                return self.assignments[-1].read()
            case "LogBroker/ListenSubscriptions":
                return self.subscriptions.read()
        raise AssertionError(method)

    async def client_stream(self, method, requests, *, timeout=None, metadata=()):
        assert method == "LogBroker/PublishLogs"
        assert timeout == 5.0
        self.published.put_nowait([message async for message in requests])
        if self.publish_error is not None:
            raise self.publish_error
        return api.PublishLogsResponse()

    async def close(self) -> None:
        self.closed.set()


class Manager:
    """Takes connections; `prepare` arranges each before it is used."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.attempts: list[float] = []
        self.refusal: Exception | None = None
        self.period = 5.0
        self.silent = False
        self.first = api.SessionMessage(session_id="sid")
        self.connected = asyncio.Event()
        self.assignments_opened = asyncio.Event()

    async def connect(self) -> Line:
        self.attempts.append(now())
        self.connected.set()
        if self.refusal is not None:
            raise self.refusal
        line = Line(self)
        if not self.silent:
            line.session.queue.put_nowait(self.first)
        self.lines.append(line)
        return line


class Node:
    """What the agent tells the node."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.sessions: list[str] = []
        self.opened = asyncio.Event()
        self.failed = asyncio.Event()

    def on_managers(self, managers) -> None:
        self.told.append(("managers", [m.peer.addr for m in managers]))

    def on_node(self, node) -> None:
        self.told.append(("node", node.description.hostname))

    def on_network_keys(self, keys) -> None:
        self.told.append(("keys", [k.lamport_time for k in keys]))

    def on_root_ca(self, pem) -> None:
        self.told.append(("root", pem))

    def on_session(self, error) -> None:
        self.sessions.append("" if error is None else error.message)
        (self.opened if error is None else self.failed).set()


class World:
    """A running agent, its manager and its node."""

    def __init__(self) -> None:
        self.manager = Manager()
        self.node = Node()
        self.hostname = "host"
        self.agent = Agent(
            self.manager.connect, self.describe, self.node, LoopClock(), Longest(), b"root"
        )
        self.ready = asyncio.Event()

    async def describe(self) -> api.NodeDescription:
        return api.NodeDescription(hostname=self.hostname)

    @property
    def line(self) -> Line:
        return self.manager.lines[-1]

    @asynccontextmanager
    async def running(self):
        async with Tasks() as tasks:
            run = tasks.spawn(self.agent.run(self.ready), "agent")
            yield self
            run.cancel()
            await asyncio.wait([run])

    async def next_session(self) -> Line:
        """Wait for one more session to be opened."""
        await self.node.opened.wait()
        self.node.opened.clear()
        while not self.line.assignments:
            await self.manager.assignments_opened.wait()
            self.manager.assignments_opened.clear()
        return self.line


def now() -> float:
    return asyncio.get_running_loop().time()


def agent_test(function):
    """Run an async test in virtual time, with a world."""

    def test(**parameters) -> None:
        async def work() -> None:
            await function(World(), **parameters)

        run_virtual(work())

    return test


def cases(names: str, values: list, ids: list[str] | None = None):
    """As `pytest.mark.parametrize`, for agent tests."""

    def decorate(function):
        keys = names.split(",")

        @pytest.mark.parametrize("case", values, ids=ids)
        def test(case) -> None:
            given = case if len(keys) > 1 else (case,)
            agent_test(function)(**dict(zip(keys, given, strict=True)))

        return test

    return decorate


def a_task(id: str, state=S.ASSIGNED, desired=S.RUNNING) -> api.Task:
    task = api.Task(id=id, node_id="n", desired_state=desired)
    task.status.state = state
    return task


def change(item, remove: bool = False) -> api.AssignmentChange:
    field = {api.Task: "task", api.Secret: "secret", api.VolumeAssignment: "volume"}[type(item)]
    action = api.AssignmentChange.REMOVE if remove else api.AssignmentChange.UPDATE
    return api.AssignmentChange(assignment=api.Assignment(**{field: item}), action=action)


def assigned(kind, applies_to: str, results_in: str, *changes) -> api.AssignmentsMessage:
    return api.AssignmentsMessage(
        type=kind, applies_to=applies_to, results_in=results_in, changes=changes
    )


def states(request: api.UpdateTaskStatusRequest) -> dict[str, int]:
    assert request.session_id == "sid"
    return {update.task_id: update.status.state for update in request.updates}


# Opening a session ---------------------------------------------------------------------


@agent_test
async def test_the_first_message_is_handed_on_and_makes_the_node_ready(world: World) -> None:
    first = world.manager.first
    first.managers.add(peer=api.Peer(node_id="m", addr="10.0.0.1:2377"), weight=10)
    first.managers.add(peer=api.Peer(node_id="m2"), weight=10)  # nobody to talk to
    first.node.description.hostname = "me"
    first.network_bootstrap_keys.add(lamport_time=4)
    first.RootCA = b"new root"
    async with world.running():
        line = await world.next_session()
        assert world.ready.is_set()
        assert line.requests == [
            api.SessionRequest(description=api.NodeDescription(hostname="host"), session_id="")
        ]
        assert world.node.told == [
            ("managers", ["10.0.0.1:2377"]),
            ("node", "me"),
            ("root", b"new root"),
            ("keys", [4]),
        ]
        assert world.node.sessions == [""]
        assert now() == 0.0


@agent_test
async def test_only_news_is_handed_on(world: World) -> None:
    first = world.manager.first
    first.node.description.hostname = "me"
    first.RootCA = b"root"
    first.network_bootstrap_keys.add(lamport_time=4)
    async with world.running():
        line = await world.next_session()
        again = api.SessionMessage()
        again.CopyFrom(first)
        line.session.queue.put_nowait(again)
        newer = api.SessionMessage()
        newer.CopyFrom(first)
        newer.network_bootstrap_keys.add(lamport_time=5)
        newer.node.description.hostname = "renamed"
        line.session.queue.put_nowait(newer)
        fewer = api.SessionMessage()
        fewer.CopyFrom(newer)
        del fewer.network_bootstrap_keys[0]  # an old key went: no new one
        line.session.queue.put_nowait(fewer)
        await asyncio.sleep(1)
        assert world.node.told == [
            ("node", "me"),
            ("keys", [4]),
            ("node", "renamed"),
            ("keys", [4, 5]),
        ]


@agent_test
async def test_a_silent_manager_is_given_up_after_five_seconds(world: World) -> None:
    world.manager.silent = True
    async with world.running():
        await world.node.failed.wait()
        assert now() == 5.0
        assert world.node.sessions == ["session initiation timed out"]
        first = world.manager.lines[0]
        assert first.session.closed.is_set()
        assert first.closed.is_set()
        assert not world.ready.is_set()
        world.manager.silent = False
        await world.next_session()
        assert now() == pytest.approx(5.1)


@agent_test
async def test_a_manager_that_hangs_up_at_once_is_a_failure(world: World) -> None:
    world.manager.silent = True
    async with world.running():
        await world.manager.connected.wait()
        world.line.session.queue.put_nowait(None)
        await world.node.failed.wait()
        assert world.node.sessions == ["the manager ended the session stream"]


@cases("refusal", [Unavailable("no route"), ConnectionRefusedError("refused")], ["rpc", "os"])
async def test_pauses_grow_to_eight_seconds(world: World, refusal: Exception) -> None:
    world.manager.refusal = refusal
    async with world.running():
        while len(world.manager.attempts) < 10:
            world.manager.connected.clear()
            await world.manager.connected.wait()
        times = world.manager.attempts
        pauses = [b - a for a, b in itertools.pairwise(times)]
        assert pauses == pytest.approx([0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 8.0, 8.0, 8.0])
        world.manager.refusal = None
        line = await world.next_session()
        line.session.queue.put_nowait(Aborted("node must disconnect"))
        await world.next_session()
        assert world.manager.attempts[-1] - world.manager.attempts[-2] == pytest.approx(0.1)


def test_backoff_is_the_reference_rule() -> None:
    assert next_backoff(0) == pytest.approx(0.1)
    assert next_backoff(0.1) == pytest.approx(0.3)
    assert next_backoff(7.9) == 8.0


# Serving a session ---------------------------------------------------------------------


@agent_test
async def test_heartbeats_begin_at_once_and_keep_the_period(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        await asyncio.sleep(11)
        world.manager.period = 1.5
        await asyncio.sleep(7.1)
        assert line.heartbeats == [0.0, 5.0, 10.0, 15.0, 16.5, 18.0]


@cases("period", [0.0, -3.0])
async def test_a_missing_period_does_not_spin(world: World, period: float) -> None:
    world.manager.period = period
    async with world.running():
        line = await world.next_session()
        await asyncio.sleep(12)
        assert line.heartbeats == [0.0, 5.0, 10.0]


def stop_heartbeats(line: Line) -> str:
    line.heartbeat_error = NotFound("node not registered")
    return "node not registered"


def end_session(line: Line) -> str:
    line.session.queue.put_nowait(None)
    return "the manager ended the session stream"


def abort_session(line: Line) -> str:
    line.session.queue.put_nowait(Aborted("node must disconnect"))
    return "node must disconnect"


def end_assignments(line: Line) -> str:
    line.assignments[-1].queue.put_nowait(None)
    return "the manager ended the assignments stream"


def end_subscriptions(line: Line) -> str:
    line.subscriptions.queue.put_nowait(None)
    return "the manager ended the subscriptions stream"


def refuse_reports(line: Line) -> str:
    line.report_error = Unavailable("connection error")
    line.assignments[-1].queue.put_nowait(assigned(COMPLETE, "", "1", change(a_task("t"))))
    return "connection error"


FAILURES = [
    stop_heartbeats,
    end_session,
    abort_session,
    end_assignments,
    end_subscriptions,
    refuse_reports,
]


@cases("fail", FAILURES, [f.__name__ for f in FAILURES])
async def test_any_failure_ends_the_session_and_opens_another(world: World, fail) -> None:
    async with world.running():
        line = await world.next_session()
        text = fail(line)
        await world.node.failed.wait()
        assert world.node.sessions == ["", text]
        second = await world.next_session()
        assert second is not line
        assert line.closed.is_set()
        assert line.session.closed.is_set()
        assert line.subscriptions.closed.is_set()
        assert all(stream.closed.is_set() for stream in line.assignments)
        assert second.requests[0].session_id == "sid"  # the manager may still know it


@agent_test
async def test_a_manager_without_log_broker_keeps_its_session(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        line.subscriptions.queue.put_nowait(Unimplemented("unknown service LogBroker"))
        await asyncio.sleep(60)
        assert world.manager.lines == [line]
        assert world.node.sessions == [""]


@agent_test
async def test_a_faulty_description_is_a_failed_session(world: World) -> None:
    async def broken() -> api.NodeDescription:
        raise SwarmError("certificate unreadable")

    good, world.agent._describe = world.agent._describe, broken
    async with world.running():
        await world.node.failed.wait()
        assert world.node.sessions == ["certificate unreadable"]
        world.agent._describe = good
        await world.next_session()


# Description ---------------------------------------------------------------------------


@agent_test
async def test_a_changed_description_opens_a_new_session_under_the_same_id(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        await asyncio.sleep(41)
        assert world.manager.lines == [line]
        world.hostname = "renamed"
        second = await world.next_session()
        assert now() == 60.0  # looked at every 20 s
        assert line.closed.is_set()
        request = second.requests[0]
        assert (request.session_id, request.description.hostname) == ("sid", "renamed")
        assert world.node.sessions == ["", ""]


@agent_test
async def test_a_new_certificate_is_shown_at_once(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        world.agent.tls_changed(b"root")
        await asyncio.sleep(1)
        assert world.manager.lines == [line]  # nothing in the description changed
        world.hostname = "as if tls_info changed"
        world.agent.tls_changed(b"root")
        await world.next_session()
        assert now() == 1.0


# Assignments and reports ---------------------------------------------------------------


@agent_test
async def test_tasks_are_refused_and_ended_ones_confirmed(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        await asyncio.sleep(3)
        line.assignments[0].queue.put_nowait(
            assigned(
                COMPLETE,
                "",
                "1",
                change(a_task("run")),
                change(a_task("stop", desired=S.SHUTDOWN)),
                change(a_task("remove", state=S.RUNNING, desired=S.REMOVE)),
                change(a_task("done", state=S.COMPLETE, desired=S.SHUTDOWN)),
                change(api.Secret(id="s")),
            )
        )
        request = await line.reports.get()
        assert states(request) == {"run": S.REJECTED, "stop": S.SHUTDOWN, "remove": S.SHUTDOWN}
        [refused] = [u.status for u in request.updates if u.task_id == "run"]
        assert refused.err == "no container executor on this node"
        assert refused.timestamp.seconds == 1_700_000_003
        # Told to stop what we refused: it has ended already.
        stopped = change(a_task("run", state=S.REJECTED, desired=S.SHUTDOWN))
        line.assignments[0].queue.put_nowait(assigned(INCREMENTAL, "1", "2", stopped))
        await asyncio.sleep(1)
        assert line.reports.empty()


@agent_test
async def test_everything_is_reported_again_in_a_new_session(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        stream = line.assignments[0]
        stream.queue.put_nowait(assigned(COMPLETE, "", "1", change(a_task("t1"))))
        assert states(await line.reports.get()) == {"t1": S.REJECTED}
        stream.queue.put_nowait(assigned(INCREMENTAL, "1", "2", change(a_task("t2"))))
        assert states(await line.reports.get()) == {"t2": S.REJECTED}
        abort_session(line)
        second = await world.next_session()
        assert states(await second.reports.get()) == {"t1": S.REJECTED, "t2": S.REJECTED}
        gone = change(a_task("t2"), remove=True)
        second.assignments[0].queue.put_nowait(assigned(COMPLETE, "", "1", change(a_task("t3"))))
        assert states(await second.reports.get()) == {"t3": S.REJECTED}
        assert len(world.agent.book) == 1  # a complete set drops what it does not name
        second.assignments[0].queue.put_nowait(assigned(INCREMENTAL, "1", "2", gone))
        abort_session(second)
        third = await world.next_session()
        assert states(await third.reports.get()) == {"t3": S.REJECTED}


@agent_test
async def test_many_reports_go_in_portions(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        count = session_module.reports_per_call_max + 1
        changes = [change(a_task(f"t{n}")) for n in range(count)]
        line.assignments[0].queue.put_nowait(assigned(COMPLETE, "", "1", *changes))
        sizes = [len((await line.reports.get()).updates) for _ in range(2)]
        assert sizes == [count - 1, 1]


@agent_test
async def test_a_gap_asks_for_everything_again(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        first = line.assignments[0]
        first.queue.put_nowait(assigned(COMPLETE, "", "1", change(a_task("t1"))))
        first.queue.put_nowait(assigned(INCREMENTAL, "1", "2", change(a_task("t2"))))
        first.queue.put_nowait(assigned(INCREMENTAL, "3", "4", change(a_task("t4"))))
        await first.closed.wait()
        world.manager.assignments_opened.clear()
        if len(line.assignments) < 2:
            await world.manager.assignments_opened.wait()
        second = line.assignments[1]
        everything = [change(a_task(id)) for id in ("t1", "t2", "t3", "t4")]
        second.queue.put_nowait(assigned(COMPLETE, "", "1", *everything))
        reported: dict[str, int] = {}
        while len(reported) < 4:
            reported |= states(await line.reports.get())
        assert world.manager.lines == [line]
        assert world.node.sessions == [""]


@agent_test
async def test_assignments_that_begin_in_the_middle_end_the_session(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        line.assignments[0].queue.put_nowait(assigned(INCREMENTAL, "7", "8"))
        await world.node.failed.wait()
        assert world.node.sessions[-1] == "the manager's assignments begin in the middle"


@agent_test
async def test_volumes_to_let_go_are_confirmed(world: World) -> None:
    async with world.running():
        line = await world.next_session()
        used = change(api.VolumeAssignment(id="v1"))
        line.assignments[0].queue.put_nowait(assigned(COMPLETE, "", "1", used))
        gone = change(api.VolumeAssignment(id="v1"), remove=True)
        line.assignments[0].queue.put_nowait(assigned(INCREMENTAL, "1", "2", gone))
        request = await line.unpublished.get()
        assert [(u.id, u.unpublished) for u in request.updates] == [("v1", True)]
        assert request.session_id == "sid"


# Log subscriptions ---------------------------------------------------------------------


def subscription(id: str, close: bool = False) -> api.SubscriptionMessage:
    return api.SubscriptionMessage(id=id, options=api.LogSubscriptionOptions(), close=close)


@cases(
    "error",
    [None, NotFound("unknown subscription ID"), Internal("no answer")],
    ["answered", "client gone", "stock manager answers nothing"],
)
async def test_log_subscriptions_are_closed_once(world: World, error) -> None:
    async with world.running():
        line = await world.next_session()
        line.publish_error = error
        for message in (subscription("x"), subscription("x"), subscription("y")):
            line.subscriptions.queue.put_nowait(message)
        for id in ("x", "y"):
            [message] = await line.published.get()
            assert message == api.PublishLogsMessage(subscription_id=id, close=True)
        line.subscriptions.queue.put_nowait(subscription("x", close=True))
        line.subscriptions.queue.put_nowait(subscription("x"))
        assert (await line.published.get())[0].subscription_id == "x"
        await asyncio.sleep(30)
        assert line.published.empty()
        assert world.node.sessions == [""]


@agent_test
async def test_remembered_subscriptions_are_bounded(world: World) -> None:
    session_module.answered_max, before = 3, session_module.answered_max
    try:
        async with world.running():
            line = await world.next_session()
            for id in "abcda":
                line.subscriptions.queue.put_nowait(subscription(id))
            seen = [(await line.published.get())[0].subscription_id for _ in range(5)]
            assert seen == list("abcda")  # "a" was forgotten to make room for "d"
    finally:
        session_module.answered_max = before
