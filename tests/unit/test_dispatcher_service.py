"""The Dispatcher service over a local store: registration, reports, streams, leadership."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import (
    Aborted,
    Code,
    InvalidArgument,
    NotFound,
    NotLeader,
    PermissionDenied,
    SwarmError,
    Unavailable,
)
from swarmd.base.timestamps import timestamp
from swarmd.cluster.store import Store, edit
from swarmd.manager.dispatcher import Dispatcher, dispatcher, hub, tenure
from tests.harness.localstore import Caller, FixedMembers, LocalCommitter, Manager

S = api.TaskState
N = api.NodeStatus
DAY = 24 * 3600.0


class World:
    """A cluster with nodes a and b, and its dispatcher."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(strict=True)
        self.committer = LocalCommitter(self.store, self.clock)
        self.members = FixedMembers(Manager("m1", "10.0.0.1:2377"), Manager("m2", "10.0.0.2:2377"))
        self.dispatcher = Dispatcher(
            self.store, self.committer, self.members, self.clock, SeededEntropy(7), "m1"
        )
        cluster = api.Cluster(id="c", spec=named(api.ClusterSpec, "default"))
        cluster.spec.dispatcher.heartbeat_period.seconds = 5
        cluster.root_ca.ca_cert = b"root"
        cluster.network_bootstrap_keys.add(subsystem="networking:gossip", key=b"k" * 16)
        self.put(cluster, a_node("a"), a_node("b"))
        self.committer.commits = 0

    def put(self, *objects) -> None:
        self.committer.write(lambda tx: [tx.create(obj) for obj in objects])

    def edit(self, kind, id: str, change) -> None:
        def write(tx) -> None:
            draft = edit(tx.get(kind, id))
            change(draft)
            tx.update(draft)

        self.committer.write(write)

    def drop(self, kind, id: str) -> None:
        self.committer.write(lambda tx: tx.delete(kind, id))

    def node(self, id: str) -> api.Node:
        node = self.store.view().get(api.Node, id)
        assert node is not None
        return node

    def task(self, id: str) -> api.Task:
        task = self.store.view().get(api.Task, id)
        assert task is not None
        return task

    @property
    def tenure(self):
        assert self.dispatcher.tenure is not None
        return self.dispatcher.tenure

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        async with Tasks() as tasks:
            ready = asyncio.Event()
            run = tasks.spawn(self.dispatcher.run(ready), "dispatcher")
            async with asyncio.timeout(5):
                await ready.wait()
            yield
            run.cancel()
            await asyncio.wait([run])

    async def pass_seconds(self, seconds: float) -> None:
        """Let time pass, act on it, and write what follows."""
        self.clock.advance(seconds)
        self.tenure.tick(self.clock.monotonic())
        await self.tenure.flush()

    async def register(self, node_id: str = "a", session_id: str = "", **how) -> tuple:
        stream = self.session(node_id, session_id, **how)
        return stream, await soon(stream)

    def session(self, node_id: str, session_id: str = "", addr="192.168.1.9:5000", hostname="h"):
        request = api.SessionRequest(session_id=session_id)
        if hostname:
            request.description.hostname = hostname
        return self.dispatcher.session(request, Caller(node_id, addr))

    async def heartbeat(self, node_id: str, session_id: str) -> float:
        request = api.HeartbeatRequest(session_id=session_id)
        response = await self.dispatcher.heartbeat(request, Caller(node_id))
        return response.period.seconds + response.period.nanos / 1e9

    async def report(self, node_id: str, session_id: str, **statuses) -> None:
        request = api.UpdateTaskStatusRequest(session_id=session_id)
        for task_id, state in statuses.items():
            status = api.TaskStatus(state=state, message="from the node")
            request.updates.add(task_id=task_id, status=status)
        await self.dispatcher.update_task_status(request, Caller(node_id))

    def assignments(self, node_id: str, session_id: str):
        request = api.AssignmentsRequest(session_id=session_id)
        return self.dispatcher.assignments(request, Caller(node_id))


def named(kind, name: str):
    return kind(annotations=api.Annotations(name=name))


def a_node(id: str, state=N.UNKNOWN) -> api.Node:
    node = api.Node(id=id, spec=api.NodeSpec(membership=api.NodeSpec.ACCEPTED))
    node.status.state = state
    return node


def a_task(id: str, node: str = "a", state=S.ASSIGNED) -> api.Task:
    task = api.Task(id=id, node_id=node, desired_state=S.RUNNING)
    task.status.state = state
    return task


async def soon(stream):
    async with asyncio.timeout(5):
        return await anext(stream)


async def ends(stream, error: type[SwarmError], text: str) -> None:
    """The stream says what it still has to say, then fails so."""
    async with asyncio.timeout(5):
        with pytest.raises(error) as caught:
            async for _ in stream:
                pass
    assert caught.value.message == text


async def settles(world: World, check) -> None:
    """Wait until the store is so."""
    changed = asyncio.Event()
    unsubscribe = world.store.subscribe(lambda _: changed.set())
    try:
        async with asyncio.timeout(5):
            while not check():
                await changed.wait()
                changed.clear()
    finally:
        unsubscribe()


@pytest.fixture
def world() -> World:
    return World()


# Not leading ---------------------------------------------------------------------------


async def test_without_leadership_every_call_is_aborted(world: World) -> None:
    d, peer = world.dispatcher, Caller("a")
    calls = [
        soon(d.session(api.SessionRequest(), peer)),
        d.heartbeat(api.HeartbeatRequest(session_id="x"), peer),
        d.update_task_status(api.UpdateTaskStatusRequest(), peer),
        d.update_volume_status(api.UpdateVolumeStatusRequest(), peer),
        soon(d.tasks(api.TasksRequest(), peer)),
        soon(d.assignments(api.AssignmentsRequest(), peer)),
    ]
    for call in calls:
        with pytest.raises(Aborted) as caught:
            await call
        assert caught.value.message == "dispatcher is stopped"
    with pytest.raises(Aborted):
        d.disconnect("a")


async def test_taking_over_answers_only_when_nodes_are_marked(world: World) -> None:
    world.committer.gate.clear()
    async with Tasks() as tasks:
        ready = asyncio.Event()
        tasks.spawn(world.dispatcher.run(ready), "dispatcher")
        await asyncio.sleep(0)
        with pytest.raises(Aborted, match="dispatcher is stopped"):
            await soon(world.session("a"))
        world.committer.gate.set()
        async with asyncio.timeout(5):
            await ready.wait()
        await world.register()


# Registration --------------------------------------------------------------------------


async def test_the_first_message_says_everything_and_the_node_is_ready_before(
    world: World,
) -> None:
    async with world.leading():
        commits = world.committer.commits
        stream, message = await world.register()
        node = world.node("a")
        assert world.committer.commits == commits + 1
        assert node.status.state == N.READY
        assert node.status.addr == "192.168.1.9"
        assert node.status.message == ""
        assert node.description.hostname == "h"
        assert len(message.session_id) == 25
        assert message.node == node
        assert [(m.peer.node_id, m.peer.addr, m.weight) for m in message.managers] == [
            ("m1", "10.0.0.1:2377", 10),
            ("m2", "10.0.0.2:2377", 10),
        ]
        assert [k.key for k in message.network_bootstrap_keys] == [b"k" * 16]
        assert message.RootCA == b"root"
        await stream.aclose()


async def test_a_node_nobody_created_is_refused(world: World) -> None:
    async with world.leading():
        with pytest.raises(SwarmError) as caught:
            await world.register("stranger")
        assert caught.value.message == "node not found"
        assert caught.value.code is Code.UNKNOWN


async def test_a_valid_session_is_kept_and_its_description_updated(world: World) -> None:
    async with world.leading():
        first, message = await world.register()
        again, second = await world.register(session_id=message.session_id, hostname="renamed")
        assert second.session_id == message.session_id
        assert world.node("a").description.hostname == "renamed"
        commits = world.committer.commits
        for _ in range(10):  # no rate limit, and nothing new means nothing written
            stream, _ = await world.register(session_id=message.session_id, hostname="renamed")
            await stream.aclose()
        assert world.committer.commits == commits
        await first.aclose()
        await again.aclose()


async def test_an_unknown_session_id_registers_anew_and_ends_the_old_stream(
    world: World,
) -> None:
    async with world.leading():
        old, before = await world.register()
        new, message = await world.register(session_id="forgotten")
        assert message.session_id not in ("forgotten", before.session_id)
        await ends(old, InvalidArgument, "session invalid")
        await new.aclose()


async def test_too_many_registrations_are_refused(world: World) -> None:
    async with world.leading():
        for _ in range(3):
            stream, _ = await world.register()
            await stream.aclose()
        with pytest.raises(Unavailable) as caught:
            await world.register()
        text = "node a exceeded rate limit count of registrations"
        assert caught.value.message == text
        world.clock.advance(8.1)
        stream, _ = await world.register()
        await stream.aclose()


@pytest.mark.parametrize(
    ("remote", "addr"),
    [
        ("10.1.2.3:44", "10.1.2.3"),
        ("[fd00::1]:44", "fd00::1"),
        ("fd00::1", "kept"),
        ("@", "kept"),
        ("", "kept"),
        ("nonsense:port", "kept"),
    ],
)
async def test_the_observed_address_is_stored_if_there_is_one(
    world: World, remote: str, addr: str
) -> None:
    world.edit(api.Node, "a", lambda node: setattr(node.status, "addr", "kept"))
    async with world.leading():
        stream, _ = await world.register(addr=remote)
        assert world.node("a").status.addr == addr
        await stream.aclose()


async def test_a_session_without_description_keeps_the_stored_one(world: World) -> None:
    world.edit(api.Node, "a", lambda node: setattr(node.description, "hostname", "known"))
    async with world.leading():
        stream, _ = await world.register(hostname="")
        assert world.node("a").description.hostname == "known"
        await stream.aclose()


async def test_losing_leadership_while_registering_is_no_registration(world: World) -> None:
    async with Tasks() as tasks:
        async with world.leading():
            world.committer.gate.clear()
            call = tasks.spawn(collect(world.session("a")), "session")
            await asyncio.sleep(0)
        world.committer.gate.set()
        async with asyncio.timeout(5):
            assert await call == "dispatcher is stopped"


async def collect(stream) -> str:
    """The error text a stream ends with."""
    try:
        async for _ in stream:
            pass
    except SwarmError as error:
        return error.message
    return ""


# Session messages ----------------------------------------------------------------------


async def test_changes_of_members_cluster_and_node_are_sent_in_full(world: World) -> None:
    async with world.leading():
        stream, _ = await world.register()
        world.members.changed(Manager("m1", "10.0.0.1:2377"), Manager("m3", ""))
        message = await soon(stream)
        assert [m.peer.node_id for m in message.managers] == ["m1"]  # m3 has no address yet
        assert message.RootCA == b"root"

        world.edit(api.Cluster, "c", lambda c: setattr(c.root_ca, "ca_cert", b"new root"))
        message = await soon(stream)
        assert (message.RootCA, message.node.id) == (b"new root", "a")
        assert len(message.network_bootstrap_keys) == 1

        manager = api.NodeRole.MANAGER
        world.edit(api.Node, "a", lambda n: setattr(n.spec, "desired_role", manager))
        message = await soon(stream)
        assert message.node.spec.desired_role == manager
        assert (len(message.managers), message.RootCA) == (1, b"new root")
        await stream.aclose()


async def test_what_does_not_concern_a_node_is_not_sent(world: World) -> None:
    async with world.leading():
        stream, _ = await world.register()
        world.edit(api.Node, "b", lambda n: setattr(n.description, "hostname", "other"))
        world.members.changed(*world.members.list)  # only reachability changed
        world.put(a_task("t1"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(stream)


async def test_many_changes_between_two_reads_make_one_message(world: World) -> None:
    async with world.leading():
        stream, _ = await world.register()
        for name in ("x", "y", "z"):
            world.edit(api.Node, "a", lambda n, name=name: setattr(n.description, "hostname", name))
        assert (await soon(stream)).node.description.hostname == "z"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(stream)


async def test_a_deleted_node_loses_its_streams(world: World) -> None:
    async with world.leading():
        stream, message = await world.register()
        assignments = world.assignments("a", message.session_id)
        await soon(assignments)
        world.drop(api.Node, "a")
        await ends(stream, NotFound, "node not registered")
        await ends(assignments, NotFound, "node not registered")
        with pytest.raises(NotFound, match="node not registered"):
            await world.heartbeat("a", message.session_id)


async def test_a_node_sent_away_gets_a_last_message_and_is_disconnected(world: World) -> None:
    async with world.leading():
        stream, message = await world.register()
        assert world.dispatcher.disconnect("a")
        assert not world.dispatcher.disconnect("b")
        assert (await soon(stream)).session_id == message.session_id
        await ends(stream, Aborted, "node must disconnect")
        await world.tenure.flush()
        status = world.node("a").status
        assert status.state == N.DISCONNECTED
        assert status.message == "node is currently trying to find new manager"
        assert status.addr == "192.168.1.9"
        with pytest.raises(NotFound, match="node not registered"):
            await world.heartbeat("a", message.session_id)


async def test_losing_leadership_says_goodbye_and_writes_nothing(world: World) -> None:
    async with world.leading():
        stream, message = await world.register()
        assignments = world.assignments("a", message.session_id)
        await soon(assignments)
        commits = world.committer.commits
    assert (await soon(stream)).session_id == message.session_id
    await ends(stream, Aborted, "node must disconnect")
    await ends(assignments, Aborted, "dispatcher is stopped")
    assert world.committer.commits == commits
    assert world.node("a").status.state == N.READY


# Heartbeats and time -------------------------------------------------------------------


async def test_heartbeats_keep_a_node_up_and_write_nothing(world: World) -> None:
    async with world.leading():
        stream, message = await world.register()
        commits = world.committer.commits
        for _ in range(100):
            assert 4.5 <= await world.heartbeat("a", message.session_id) <= 5.5
            world.clock.advance(5)
            world.tenure.tick(world.clock.monotonic())
        await world.tenure.flush()
        assert world.node("a").status.state == N.READY
        # b never came back after the change of leadership: its mark is the one write.
        assert world.committer.commits == commits + 1
        await stream.aclose()


@pytest.mark.parametrize(
    ("session_id", "error", "text"),
    [("", InvalidArgument, "session invalid"), ("x", InvalidArgument, "session invalid")],
)
async def test_heartbeats_of_a_wrong_session(world, session_id, error, text) -> None:
    async with world.leading():
        stream, _ = await world.register()
        with pytest.raises(error, match=text):
            await world.heartbeat("a", session_id)
        with pytest.raises(NotFound, match="node not registered"):
            await world.heartbeat("nobody", session_id)
        await stream.aclose()


async def test_a_silent_node_is_down(world: World) -> None:
    async with world.leading():
        stream, message = await world.register()
        await world.pass_seconds(13.4)
        assert world.node("a").status.state == N.READY
        await world.pass_seconds(3.2)
        status = world.node("a").status
        assert (status.state, status.message) == (N.DOWN, "heartbeat failure")
        assert status.addr == "192.168.1.9"
        assert world.node("a").description.hostname == "h"
        with pytest.raises(NotFound, match="node not registered"):
            await world.heartbeat("a", message.session_id)
        await ends(stream, NotFound, "node not registered")
        again, message = await world.register()
        assert world.node("a").status.state == N.READY
        assert world.node("a").status.message == ""
        await again.aclose()


async def test_the_period_of_the_spec_is_followed_live(world: World) -> None:
    async with world.leading():
        stream, message = await world.register()

        def slower(cluster) -> None:
            cluster.spec.dispatcher.heartbeat_period.seconds = 60

        world.edit(api.Cluster, "c", slower)
        assert 59.5 <= await world.heartbeat("a", message.session_id) <= 60.5
        await world.pass_seconds(170)
        assert world.node("a").status.state == N.READY
        world.edit(api.Cluster, "c", lambda c: c.spec.dispatcher.ClearField("heartbeat_period"))
        assert 4.5 <= await world.heartbeat("a", message.session_id) <= 5.5
        await stream.aclose()


async def test_many_silent_nodes_go_down_in_few_writes(world: World) -> None:
    world.put(*[a_node(f"n{i:03}") for i in range(150)])
    async with world.leading():
        before = world.committer.commits
        await world.pass_seconds(40)
        assert all(n.status.state == N.DOWN for n in world.store.view().all(api.Node))
        assert world.committer.commits - before == 2


async def test_a_registration_under_way_is_not_overtaken_by_expiry(world: World) -> None:
    async with Tasks() as tasks, world.leading():
        old, _ = await world.register()
        world.committer.gate.clear()
        call = tasks.spawn(world.register(), "again")
        await asyncio.sleep(0)
        world.clock.advance(100)
        world.tenure.tick(world.clock.monotonic())
        world.committer.gate.set()
        async with asyncio.timeout(5):
            stream, message = await call
        await world.tenure.flush()
        assert world.node("a").status.state == N.READY
        await world.heartbeat("a", message.session_id)
        await old.aclose()
        await stream.aclose()


async def test_a_mark_is_dropped_when_the_node_is_back_before_it_is_written(
    world: World,
) -> None:
    async with Tasks() as tasks, world.leading():
        old, _ = await world.register()
        world.committer.gate.clear()
        world.clock.advance(100)
        world.tenure.tick(world.clock.monotonic())
        flush = tasks.spawn(world.tenure.flush(), "flush")
        await asyncio.sleep(0)
        call = tasks.spawn(world.register(), "again")
        await asyncio.sleep(0)
        world.committer.gate.set()
        async with asyncio.timeout(5):
            await flush
            stream, _ = await call
        assert world.node("a").status.state == N.READY
        await old.aclose()
        await stream.aclose()


# Leadership ----------------------------------------------------------------------------


async def test_a_new_leader_calls_nodes_unknown_and_gives_them_six_periods(world: World) -> None:
    world.put(a_node("down", N.DOWN), a_node("ready", N.READY), a_node("lost", N.DISCONNECTED))
    async with world.leading():
        text = 'Node moved to "unknown" state due to leadership change in cluster'
        for id in ("a", "ready", "lost"):
            status = world.node(id).status
            assert (status.state, status.message) == (N.UNKNOWN, text)
        assert world.node("down").status.state == N.DOWN
        with pytest.raises(InvalidArgument, match="session invalid"):
            await world.heartbeat("ready", "from the old leader")
        with pytest.raises(NotFound, match="node not registered"):
            await world.heartbeat("down", "from the old leader")
        await world.pass_seconds(26.9)
        stream, _ = await world.register("ready")
        assert world.node("ready").status.message == ""
        await world.pass_seconds(6.2)
        status = world.node("lost").status
        assert status.state == N.DOWN
        assert status.message == 'heartbeat failure for node in "unknown" state'
        assert world.node("ready").status.state == N.READY
        await stream.aclose()


async def test_sessions_die_with_the_leadership(world: World) -> None:
    async with world.leading():
        stream, message = await world.register()
    await ends(stream, Aborted, "node must disconnect")
    async with world.leading():
        with pytest.raises(InvalidArgument, match="session invalid"):
            await world.heartbeat("a", message.session_id)
        stream, second = await world.register(session_id=message.session_id)
        assert second.session_id != message.session_id
        await stream.aclose()


async def test_after_a_day_the_tasks_of_a_down_node_are_given_up(world: World) -> None:
    states = [S.PENDING, S.ASSIGNED, S.PREPARING, S.RUNNING, S.COMPLETE, S.REJECTED]
    world.put(a_node("down", N.DOWN), *[a_task(f"t{s}", "down", s) for s in states])
    world.put(a_task("other", "b", S.RUNNING))
    async with world.leading():
        await world.pass_seconds(DAY - 1)
        assert world.task(f"t{S.RUNNING}").status.state == S.RUNNING
        await world.pass_seconds(2)
        after = [world.task(f"t{s}").status.state for s in states]
        assert after == [S.PENDING, *[S.ORPHANED] * 3, S.COMPLETE, S.REJECTED]
        assert world.task("other").status.state == S.RUNNING
        # b fell silent a day later than "down": its day is not over yet.
        await world.pass_seconds(DAY)
        assert world.task("other").status.state == S.ORPHANED


async def test_a_node_that_comes_back_keeps_its_tasks(world: World) -> None:
    world.put(a_node("down", N.DOWN), a_task("t", "down", S.RUNNING))
    async with world.leading():
        await world.pass_seconds(DAY - 10)
        stream, _ = await world.register("down")
        await world.pass_seconds(12)
        assert world.task("t").status.state == S.RUNNING
        await stream.aclose()


# Task and volume reports ---------------------------------------------------------------


async def test_reports_are_written_with_the_leaders_stamp(world: World) -> None:
    world.put(a_task("t1"), a_task("t2"))
    async with world.leading():
        stream, message = await world.register()
        await world.report("a", message.session_id, t1=S.ACCEPTED)
        await world.report("a", message.session_id, t1=S.RUNNING, t2=S.PREPARING)
        await world.tenure.flush()
        status = world.task("t1").status
        assert (status.state, status.message) == (S.RUNNING, "from the node")
        assert status.applied_by == "m1"
        assert status.applied_at == timestamp(world.clock.now())
        assert world.task("t2").status.state == S.PREPARING
        await stream.aclose()


async def test_a_state_never_goes_back_and_no_news_is_not_written(world: World) -> None:
    world.put(a_task("t1"))
    async with world.leading():
        stream, message = await world.register()
        await world.report("a", message.session_id, t1=S.RUNNING)
        await world.tenure.flush()
        before = world.task("t1")
        commits = world.committer.commits
        world.clock.advance(1)
        await world.report("a", message.session_id, t1=S.PREPARING)
        await world.tenure.flush()
        await world.report("a", message.session_id, t1=S.RUNNING)  # a node that reports anew
        await world.tenure.flush()
        assert world.task("t1") == before
        assert world.committer.commits == commits
        await stream.aclose()


async def test_foreign_unknown_and_empty_reports(world: World) -> None:
    world.put(a_task("mine"), a_task("theirs", "b"))
    async with world.leading():
        stream, message = await world.register()
        with pytest.raises(PermissionDenied) as caught:
            await world.report("a", message.session_id, mine=S.RUNNING, theirs=S.RUNNING)
        assert caught.value.message == "cannot update a task not assigned this node"
        await world.report("a", message.session_id, unknown=S.RUNNING)
        empty = api.UpdateTaskStatusRequest(session_id=message.session_id)
        empty.updates.add(task_id="theirs")  # no status: passed over before the owner is asked
        await world.dispatcher.update_task_status(empty, Caller("a"))
        await world.tenure.flush()
        assert world.task("mine").status.state == S.ASSIGNED
        for session_id, error in (("", InvalidArgument), ("x", InvalidArgument)):
            with pytest.raises(error, match="session invalid"):
                await world.report("a", session_id, mine=S.RUNNING)
        with pytest.raises(NotFound, match="node not registered"):
            await world.report("nobody", "x", mine=S.RUNNING)
        await stream.aclose()


async def test_many_reports_are_cut_into_entries(world: World) -> None:
    world.put(*[a_task(f"t{i:03}") for i in range(250)])
    async with world.leading():
        stream, message = await world.register()
        before = len(world.committer.objects)
        await world.report("a", message.session_id, **{f"t{i:03}": S.RUNNING for i in range(250)})
        await world.tenure.flush()
        assert world.committer.objects[before:] == [100, 100, 50]
        await stream.aclose()


async def test_a_report_too_large_for_an_entry_does_not_stop_the_others(world: World) -> None:
    world.put(a_task("t1"), a_task("t2"))
    async with world.leading():
        stream, message = await world.register()
        request = api.UpdateTaskStatusRequest(session_id=message.session_id)
        huge = api.TaskStatus(state=S.FAILED, err="x" * 1_400_000)
        request.updates.add(task_id="t1", status=huge)
        await world.dispatcher.update_task_status(request, Caller("a"))
        await world.report("a", message.session_id, t2=S.RUNNING)
        await world.tenure.flush()
        assert world.task("t1").status.state == S.ASSIGNED
        assert world.task("t2").status.state == S.RUNNING
        await stream.aclose()


async def test_reports_survive_a_failed_write(world: World) -> None:
    world.put(a_task("t1"), a_task("t2"))
    async with world.leading():
        stream, message = await world.register()
        world.committer.failure = NotLeader()
        await world.report("a", message.session_id, t1=S.PREPARING, t2=S.PREPARING)
        with pytest.raises(NotLeader):
            await world.tenure.flush()
        await world.report("a", message.session_id, t1=S.RUNNING)
        world.committer.failure = None
        await world.tenure.flush()
        assert world.task("t1").status.state == S.RUNNING
        assert world.task("t2").status.state == S.PREPARING
        await stream.aclose()


async def test_reports_are_written_without_being_asked(world: World) -> None:
    world.put(a_task("t1"))
    async with world.leading():
        stream, message = await world.register()
        await world.report("a", message.session_id, t1=S.RUNNING)
        await settles(world, lambda: world.task("t1").status.state == S.RUNNING)
        await world.report("a", message.session_id, t1=S.FAILED)
        await settles(world, lambda: world.task("t1").status.state == S.FAILED)
        await stream.aclose()


async def test_a_full_queue_is_written_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenure, "reports_max", 3)
    monkeypatch.setattr(tenure, "flush_seconds_max", 3600.0)
    world.put(*[a_task(f"t{i}") for i in range(4)])
    async with world.leading():
        stream, message = await world.register()
        await world.report("a", message.session_id, t0=S.RUNNING)
        await settles(world, lambda: world.task("t0").status.state == S.RUNNING)  # after a pause
        await world.report("a", message.session_id, t1=S.RUNNING, t2=S.RUNNING)
        await asyncio.sleep(0.02)
        assert world.task("t1").status.state == S.ASSIGNED  # within the hour
        await world.report("a", message.session_id, t3=S.RUNNING)
        await settles(world, lambda: world.task("t3").status.state == S.RUNNING)
        await stream.aclose()


async def test_unpublished_volumes_are_written_for_the_reporting_node_only(world: World) -> None:
    publish = api.VolumePublishStatus
    volume = api.Volume(id="v", spec=named(api.VolumeSpec, "v"))
    for id in ("a", "b"):
        volume.publish_status.add(node_id=id, state=publish.PENDING_NODE_UNPUBLISH)
    world.put(volume)
    async with world.leading():
        stream, message = await world.register()
        request = api.UpdateVolumeStatusRequest(session_id=message.session_id)
        request.updates.add(id="v", unpublished=True)
        request.updates.add(id="gone", unpublished=True)
        request.updates.add(id="v2", unpublished=False)
        await world.dispatcher.update_volume_status(request, Caller("a"))
        await world.tenure.flush()
        stored = world.store.view().get(api.Volume, "v")
        assert [s.state for s in stored.publish_status] == [
            publish.PENDING_UNPUBLISH,
            publish.PENDING_NODE_UNPUBLISH,
        ]
        with pytest.raises(InvalidArgument, match="session invalid"):
            await world.dispatcher.update_volume_status(
                api.UpdateVolumeStatusRequest(session_id="x"), Caller("a")
            )
        await stream.aclose()


# Assignments ---------------------------------------------------------------------------


async def test_assignments_begin_complete_even_when_empty(world: World) -> None:
    async with world.leading():
        session, message = await world.register()
        stream = world.assignments("a", message.session_id)
        first = await soon(stream)
        assert first == api.AssignmentsMessage(
            type=api.AssignmentsMessage.COMPLETE, applies_to="", results_in="1"
        )
        await stream.aclose()
        await session.aclose()


async def test_assignments_of_a_wrong_session_are_refused(world: World) -> None:
    async with world.leading():
        session, _ = await world.register()
        for node, id, error in (("a", "x", InvalidArgument), ("b", "x", InvalidArgument)):
            with pytest.raises(error, match="session invalid"):
                await soon(world.assignments(node, id))
        with pytest.raises(NotFound, match="node not registered"):
            await soon(world.assignments("nobody", "x"))
        await session.aclose()


async def test_a_burst_becomes_one_incremental_message(world: World) -> None:
    world.put(a_task("t1"), a_task("t2", state=S.PENDING))
    async with world.leading():
        session, message = await world.register()
        stream = world.assignments("a", message.session_id)
        first = await soon(stream)
        assert [c.assignment.task.id for c in first.changes] == ["t1"]
        world.edit(api.Task, "t2", lambda t: setattr(t.status, "state", S.ASSIGNED))
        world.drop(api.Task, "t1")
        world.put(a_task("t3", "b"))
        second = await soon(stream)
        assert second.type == api.AssignmentsMessage.INCREMENTAL
        assert (second.applies_to, second.results_in) == ("1", "2")
        assert [(c.assignment.task.id, c.action) for c in second.changes] == [("t1", 1), ("t2", 0)]
        world.edit(api.Task, "t2", lambda t: setattr(t, "desired_state", S.SHUTDOWN))
        third = await soon(stream)
        assert (third.applies_to, third.results_in) == ("2", "3")
        await stream.aclose()
        await session.aclose()


async def test_constant_status_reports_do_not_hold_up_a_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(a_task("t1"), a_task("t2", state=S.RUNNING))
    async with Tasks() as tasks, world.leading():
        session, message = await world.register()
        stream = world.assignments("a", message.session_id)
        await soon(stream)
        world.edit(api.Task, "t1", lambda t: setattr(t, "desired_state", S.SHUTDOWN))

        async def chatter() -> None:
            for number in range(100_000):
                text = str(number)
                world.edit(api.Task, "t2", lambda t, text=text: setattr(t.status, "message", text))
                await asyncio.sleep(0.01)

        tasks.spawn(chatter(), "chatter")
        assert [c.assignment.task.id for c in (await soon(stream)).changes] == ["t1"]
        await stream.aclose()
        await session.aclose()


async def test_a_hundred_changes_do_not_wait_for_quiet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "quiet_seconds", 3600.0)
    world.put(*[a_task(f"t{i:03}", state=S.PENDING) for i in range(100)])
    async with world.leading():
        session, message = await world.register()
        stream = world.assignments("a", message.session_id)
        await soon(stream)
        for i in range(100):
            world.edit(api.Task, f"t{i:03}", lambda t: setattr(t.status, "state", S.ASSIGNED))
        assert len((await soon(stream)).changes) == 100
        await stream.aclose()
        await session.aclose()


async def test_volumes_reach_their_node(world: World) -> None:
    publish = api.VolumePublishStatus
    volume = api.Volume(id="v", spec=named(api.VolumeSpec, "v"))
    volume.publish_status.add(node_id="a", state=publish.PENDING_PUBLISH)
    world.put(volume)
    async with world.leading():
        session, message = await world.register()
        stream = world.assignments("a", message.session_id)
        assert not (await soon(stream)).changes
        published = publish.PUBLISHED
        world.edit(api.Volume, "v", lambda v: setattr(v.publish_status[0], "state", published))
        [change] = (await soon(stream)).changes
        assert change.assignment.volume.id == "v"
        await stream.aclose()
        await session.aclose()


async def test_the_deprecated_stream_sends_all_tasks_each_time(world: World) -> None:
    world.put(a_task("t1"), a_task("t2", state=S.PENDING), a_task("t3", "b"))
    async with world.leading():
        session, message = await world.register()
        request = api.TasksRequest(session_id=message.session_id)
        stream = world.dispatcher.tasks(request, Caller("a"))
        assert [t.id for t in (await soon(stream)).tasks] == ["t1"]
        world.edit(api.Task, "t2", lambda t: setattr(t.status, "state", S.ASSIGNED))
        assert [t.id for t in (await soon(stream)).tasks] == ["t1", "t2"]
        world.drop(api.Task, "t1")
        assert [t.id for t in (await soon(stream)).tasks] == ["t2"]
        await stream.aclose()
        await session.aclose()


async def test_streams_leave_no_trace(world: World) -> None:
    async with world.leading():
        session, message = await world.register()
        stream = world.assignments("a", message.session_id)
        await soon(stream)
        hub = world.tenure.hub
        assert hub.sessions.of("a")
        assert hub.assignments.of("a")
        await stream.aclose()
        await session.aclose()
        assert not hub.sessions.of("a")
        assert not hub.assignments.of("a")


# News that need not hurry -----------------------------------------------------------------


def relabel(world: World, value: str) -> None:
    world.edit(api.Node, "a", lambda node: node.spec.annotations.labels.update(rack=value))


def racks(told: list[api.SessionMessage]) -> list[str]:
    return [message.node.spec.annotations.labels.get("rack", "") for message in told]


@asynccontextmanager
async def told_of(world: World) -> AsyncIterator[list[api.SessionMessage]]:
    """What node a is told while the block lasts; it has registered before."""
    stream, _ = await world.register()
    told: list[api.SessionMessage] = []

    async def listen() -> None:
        async for message in stream:
            told.append(message)

    async with Tasks() as tasks:
        tasks.spawn(listen(), "node")
        yield told


async def turns() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_labels_are_told_at_once_and_then_no_more_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "idle_news_seconds", 3600.0)
    async with world.leading(), told_of(world) as told:
        await turns()
        relabel(world, "1")
        await turns()
        assert racks(told) == ["1"]
        for value in ("2", "3"):
            relabel(world, value)
            await turns()
        assert racks(told) == ["1"]
        # What a node acts upon does not wait, and takes the labels along.
        drain = api.NodeSpec.Availability.DRAIN
        world.edit(api.Node, "a", lambda node: setattr(node.spec, "availability", drain))
        await turns()
        assert racks(told) == ["1", "3"]
        assert told[-1].node.spec.availability == drain


async def test_labels_that_waited_are_told_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "idle_news_seconds", 0.05)
    async with world.leading():
        stream, _ = await world.register()
        relabel(world, "1")
        told = [await soon(stream)]
        for value in ("2", "3"):
            relabel(world, value)
        told.append(await soon(stream))
        assert racks(told) == ["1", "3"]
        await stream.aclose()


Edit = Callable[[api.Node], object]
ACTED_UPON: dict[str, Edit] = {
    "role": lambda node: setattr(node, "role", api.NodeRole.MANAGER),
    "desired role": lambda node: setattr(node.spec, "desired_role", api.NodeRole.MANAGER),
    "membership": lambda node: setattr(node.spec, "membership", api.NodeSpec.Membership.PENDING),
    "availability": lambda node: setattr(
        node.spec, "availability", api.NodeSpec.Availability.PAUSE
    ),
    "certificate": lambda node: setattr(
        node.certificate.status, "state", api.IssuanceStatus.State.ROTATE
    ),
    "status": lambda node: setattr(node.status, "message", "heard"),
    "networks": lambda node: node.attachments.add(addresses=["10.0.1.2/24"]),
    "ingress, as of old": lambda node: node.attachment.addresses.append("10.0.0.2/24"),
    "VXLAN port": lambda node: setattr(node, "VXLANUDPPort", 4790),
}
NOT_ACTED_UPON: dict[str, Edit] = {
    "name": lambda node: setattr(node.spec.annotations, "name", "other"),
    "description": lambda node: setattr(node.description, "hostname", "other"),
}


async def racks_told_after(world: World, change: Edit) -> list[str]:
    """What node a hears of its rack: it was just told of one, and gets another with `change`."""
    async with world.leading(), told_of(world) as told:
        await turns()
        relabel(world, "1")
        await turns()
        before = world.node("a")

        def act(node: api.Node) -> None:
            change(node)
            assert node != before
            node.spec.annotations.labels["rack"] = "9"

        world.edit(api.Node, "a", act)
        await turns()
        return racks(told)


@pytest.mark.parametrize("what", ACTED_UPON)
async def test_what_a_node_acts_upon_never_waits(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(hub, "idle_news_seconds", 3600.0)
    assert await racks_told_after(world, ACTED_UPON[what]) == ["1", "9"]


@pytest.mark.parametrize("what", NOT_ACTED_UPON)
async def test_what_a_node_does_nothing_about_waits_with_its_labels(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(hub, "idle_news_seconds", 3600.0)
    assert await racks_told_after(world, NOT_ACTED_UPON[what]) == ["1"]
