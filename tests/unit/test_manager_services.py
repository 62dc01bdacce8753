"""Health, ResourceAllocator and Watch over a local store."""

from __future__ import annotations

import asyncio

import pytest

from swarmd import api
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import (
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SwarmError,
)
from swarmd.base.limits import watch_events_max
from swarmd.base.timestamps import timestamp
from swarmd.cluster.store import Action, Event, Store, edit
from swarmd.manager.services.health import Health
from swarmd.manager.services.resource import ResourceAllocator
from swarmd.manager.services.watchapi import Watch
from swarmd.manager.services.watchfilter import compile_entries
from tests.harness.localstore import Caller, LocalCommitter

S = api.TaskState
CREATE, UPDATE, REMOVE = 1, 2, 4
SERVING = api.HealthCheckResponse.SERVING
NOT_SERVING = api.HealthCheckResponse.NOT_SERVING


class World:
    """A store and who writes to it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(strict=True)
        self.committer = LocalCommitter(self.store, self.clock)
        self.allocator = ResourceAllocator(self.store, self.committer, self.clock, SeededEntropy(5))

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


@pytest.fixture
def world() -> World:
    return World()


async def soon(stream):
    async with asyncio.timeout(5):
        return await anext(stream)


# Health --------------------------------------------------------------------------------


async def test_health_knows_its_names_only() -> None:
    health = Health("Raft")

    async def check(name: str) -> int:
        return (await health.check(api.HealthCheckRequest(service=name), Caller("x"))).status

    assert await check("") == SERVING
    assert await check("Raft") == NOT_SERVING
    health.set("Raft", True)
    assert await check("Raft") == SERVING
    health.set("Raft", False)
    assert await check("Raft") == NOT_SERVING
    with pytest.raises(NotFound) as caught:
        await check("ControlAPI")
    assert caught.value.message == "unknown service"


# Attachments ---------------------------------------------------------------------------


def a_network(id: str, name: str, attachable: bool = True) -> api.Network:
    spec = api.NetworkSpec(annotations=api.Annotations(name=name), attachable=attachable)
    return api.Network(id=id, spec=spec)


async def attach(world: World, target: str, *addresses: str) -> str:
    request = api.AttachNetworkRequest(container_id="c1")
    request.config.target = target
    request.config.addresses.extend(addresses)
    return (await world.allocator.attach_network(request, Caller("a"))).attachment_id


@pytest.mark.parametrize("target", ["net1", "Overlay"])
async def test_an_attachment_is_a_task_like_the_stock_one(world: World, target: str) -> None:
    world.put(a_network("net1", "overlay"))
    id = await attach(world, target, "10.0.1.5")
    task = world.store.view().get(api.Task, id)
    assert task is not None
    expected = api.Task(id=id, node_id="a", desired_state=S.RUNNING, meta=task.meta)
    expected.spec.attachment.container_id = "c1"
    expected.spec.networks.add(target="net1", addresses=["10.0.1.5"])
    expected.status.state = S.NEW
    expected.status.message = "created"
    expected.status.timestamp.CopyFrom(timestamp(world.clock.now()))
    assert task == expected
    assert len(id) == 25


async def test_networks_that_cannot_be_attached(world: World) -> None:
    world.put(a_network("net1", "inner", attachable=False))
    with pytest.raises(NotFound) as missing:
        await attach(world, "nothing")
    assert missing.value.message == "network nothing not found"
    for target in ("net1", "inner"):
        with pytest.raises(PermissionDenied) as refused:
            await attach(world, target)
        assert refused.value.message == f"network {target} not manually attachable"
    with pytest.raises(InvalidArgument, match="invalid argument"):
        await world.allocator.attach_network(api.AttachNetworkRequest(), Caller("a"))
    assert world.store.view().all(api.Task) == []


async def test_only_the_own_attachment_can_be_detached(world: World) -> None:
    world.put(a_network("net1", "overlay"))
    id = await attach(world, "net1")

    async def detach(id: str, node: str) -> None:
        await world.allocator.detach_network(
            api.DetachNetworkRequest(attachment_id=id), Caller(node)
        )

    with pytest.raises(InvalidArgument) as empty:
        await detach("", "a")
    assert empty.value.message == "invalid argument"
    with pytest.raises(NotFound) as missing:
        await detach("x", "a")
    assert missing.value.message == "attachment x not found"
    with pytest.raises(PermissionDenied) as foreign:
        await detach(id, "b")
    assert foreign.value.message == f"attachment {id} doesn't belong to this node"
    await detach(id, "a")
    assert world.store.view().all(api.Task) == []


# Watch filters -------------------------------------------------------------------------

CUSTOM = api.SelectByCustom(index="rack", value="r1")
CUSTOM_PREFIX = api.SelectByCustom(index="rack", value="r")


def annotations(name: str) -> api.Annotations:
    found = api.Annotations(name=name)
    found.indices.add(key="rack", val="r1")
    return found


def samples() -> dict[str, object]:
    """One object per kind, named "web" and with custom index rack=r1."""
    specs = {
        "service": (api.Service, api.ServiceSpec),
        "network": (api.Network, api.NetworkSpec),
        "cluster": (api.Cluster, api.ClusterSpec),
        "secret": (api.Secret, api.SecretSpec),
        "config": (api.Config, api.ConfigSpec),
        "volume": (api.Volume, api.VolumeSpec),
    }
    found: dict[str, object] = {
        kind: cls(id="id1", spec=spec(annotations=annotations("web")))
        for kind, (cls, spec) in specs.items()
    }
    node = api.Node(id="id1", role=api.NodeRole.MANAGER)
    node.spec.annotations.CopyFrom(annotations("a label, not the name"))
    node.spec.membership = api.NodeSpec.ACCEPTED
    node.description.hostname = "web"
    task = api.Task(id="id1", service_id="s1", node_id="n1", slot=3, desired_state=S.RUNNING)
    task.annotations.CopyFrom(annotations("web"))
    extension = api.Extension(id="id1", annotations=annotations("web"))
    return {**found, "node": node, "task": task, "extension": extension}


def by(**how) -> api.SelectBy:
    return api.SelectBy(**how)


def entry(kind: str, action: int = 7, *filters: api.SelectBy) -> api.WatchRequest.WatchEntry:
    return api.WatchRequest.WatchEntry(kind=kind, action=action, filters=filters)


def finds(obj, *filters: api.SelectBy, kind: str) -> bool:
    wanted = compile_entries([entry(kind, 7, *filters)])
    return wanted(Event(Action.CREATE, obj))


@pytest.mark.parametrize("kind", sorted(samples()))
def test_filters_of_every_kind(kind: str) -> None:
    obj = samples()[kind]
    for good in (
        by(id="id1"),
        by(id_prefix="id"),
        by(name="web"),
        by(name_prefix="w"),
        by(custom=CUSTOM),
        by(custom_prefix=CUSTOM_PREFIX),
    ):
        assert finds(obj, good, kind=kind), good
    for bad in (
        by(id="id"),
        by(id_prefix="d1"),
        by(name="Web"),
        by(name_prefix="x"),
        by(custom=CUSTOM_PREFIX),
        by(custom=api.SelectByCustom(index="row", value="r1")),
        by(custom_prefix=api.SelectByCustom(index="rack", value="x")),
    ):
        assert not finds(obj, bad, kind=kind), bad
    others = [other for name, other in samples().items() if name != kind]
    assert not any(finds(other, kind=kind) for other in others)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("task", by(service_id="s1"), by(service_id="s")),
        ("task", by(node_id="n1"), by(node_id="n2")),
        ("task", by(desired_state=S.RUNNING), by(desired_state=S.SHUTDOWN)),
        (
            "task",
            by(slot=api.SelectBySlot(service_id="s1", slot=3)),
            by(slot=api.SelectBySlot(service_id="s1", slot=4)),
        ),
        (
            "task",
            by(slot=api.SelectBySlot(service_id="s1", slot=3)),
            by(slot=api.SelectBySlot(service_id="s2", slot=3)),
        ),
        ("node", by(role=api.NodeRole.MANAGER), by(role=api.NodeRole.WORKER)),
        (
            "node",
            by(membership=api.NodeSpec.ACCEPTED),
            by(membership=api.NodeSpec.PENDING),
        ),
    ],
)
def test_filters_of_tasks_and_nodes(kind: str, good, bad) -> None:
    obj = samples()[kind]
    assert finds(obj, good, kind=kind)
    assert not finds(obj, bad, kind=kind)
    assert not finds(obj, good, by(id="other"), kind=kind)  # all must hold


def test_a_node_without_description_has_no_name() -> None:
    assert not finds(api.Node(id="x"), by(name_prefix=""), kind="node")


def test_filters_a_kind_does_not_know_are_passed_over() -> None:
    assert finds(samples()["service"], by(node_id="x"), by(kind="y"), kind="service")


def test_other_kinds_are_custom_resources() -> None:
    resource = api.Resource(id="r", kind="lamp", annotations=annotations("web"))
    assert finds(resource, by(name="web"), kind="lamp")
    assert not finds(resource, kind="resource")
    assert not finds(resource, kind="task")


def test_actions_are_a_mask_and_entries_are_alternatives() -> None:
    wanted = compile_entries([entry("task", CREATE | REMOVE), entry("node", UPDATE)])
    task, node = samples()["task"], samples()["node"]
    seen = [(a, wanted(Event(a, task)), wanted(Event(a, node))) for a in Action]
    assert seen == [
        (Action.CREATE, True, False),
        (Action.UPDATE, False, True),
        (Action.DELETE, True, False),
    ]
    assert not compile_entries([])(Event(Action.CREATE, task))


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([entry("")], "no kind of object specified"),
        ([entry("task", 0)], "unrecognized action"),
        ([entry("task", 8)], "unrecognized action"),
        ([entry("task", 7, by(id="a"), by(id_prefix="a"))], "conflicting filters specified"),
        ([entry("node", 7, by(role=0), by(role=1))], "conflicting filters specified"),
        (
            [entry("task", 7, by(service_id="s"), by(slot=api.SelectBySlot(service_id="s")))],
            "conflicting filters specified",
        ),
        ([entry("task"), entry("")], "no kind of object specified"),
    ],
)
async def test_requests_that_make_no_sense(world: World, entries, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await soon(Watch(world.store).watch(api.WatchRequest(entries=entries), Caller("m")))
    assert caught.value.message == text


# The Watch stream ----------------------------------------------------------------------


def a_task(id: str) -> api.Task:
    return api.Task(id=id)


def watching(world: World, *entries, history=None, **how):
    request = api.WatchRequest(entries=entries, **how)
    return Watch(world.store, history).watch(request, Caller("m"))


async def test_the_first_message_is_empty_then_one_per_entry(world: World) -> None:
    stream = watching(world, entry("task"))
    assert await soon(stream) == api.WatchMessage()
    world.put(a_task("t1"), a_network("n1", "net"), a_task("t2"))
    message = await soon(stream)
    assert [(e.action, e.object.task.id) for e in message.events] == [
        (CREATE, "t1"),
        (CREATE, "t2"),
    ]
    assert message.version.index == world.committer.index
    task = world.store.view().get(api.Task, "t1")
    assert message.events[0].object.task == task
    assert task.meta.version.index == message.version.index - 1
    world.put(a_network("n2", "other"))  # nothing for us
    world.drop(api.Task, "t1")
    [event] = (await soon(stream)).events
    assert (event.action, event.object.task.id) == (REMOVE, "t1")
    assert not event.HasField("old_object")
    await stream.aclose()


@pytest.mark.parametrize("include", [False, True])
async def test_old_objects_come_on_request(world: World, include: bool) -> None:
    world.put(a_task("t1"))
    stream = watching(world, entry("task", UPDATE), include_old_object=include)
    await soon(stream)
    world.edit(api.Task, "t1", lambda t: setattr(t, "node_id", "a"))
    [event] = (await soon(stream)).events
    assert event.object.task.node_id == "a"
    assert event.HasField("old_object") == include
    assert event.old_object.task.id == ("t1" if include else "")
    await stream.aclose()


async def test_on_a_follower_there_is_no_version(world: World) -> None:
    stream = watching(world, entry("task"))
    await soon(stream)
    action = api.StoreAction(action=api.StoreActionKind.STORE_ACTION_CREATE, task=a_task("t"))
    world.store.apply([action])
    assert not (await soon(stream)).HasField("version")
    await stream.aclose()


async def test_a_slow_reader_is_cut_off(world: World) -> None:
    stream = watching(world, entry("task", CREATE))
    await soon(stream)
    world.put(a_task("first"))
    assert (await soon(stream)).events[0].object.task.id == "first"
    store = Store()  # no fingerprints: this takes many writes
    stream = Watch(store).watch(api.WatchRequest(entries=[entry("task")]), Caller("m"))
    await soon(stream)
    for number in range(watch_events_max + 1):
        store.apply([action(1, task=a_task(str(number)))])
    read = 0
    with pytest.raises(ResourceExhausted) as caught:
        async for _ in stream:
            read += 1
    assert read == watch_events_max
    assert caught.value.message == "watch: the reader fell too far behind"


class Log:
    """A raft log from index 5 on."""

    def __init__(self, *entries: tuple[int, list[api.StoreAction]]) -> None:
        self.entries = entries

    def applied_index(self) -> int:
        return 12

    def changes(self, after: int, upto: int):
        if after < 4:
            raise OutOfRange("requested index is unavailable due to compaction")
        return [(i, actions) for i, actions in self.entries if after < i <= upto]


def action(kind: int, **target) -> api.StoreAction:
    return api.StoreAction(action=kind, **target)


async def test_resuming_replays_the_log_and_goes_on_live(world: World) -> None:
    log = Log(
        (5, [action(1, task=a_task("old"))]),
        (6, [action(1, task=a_task("t1")), action(1, node=api.Node(id="n"))]),
        (9, [action(2, node=api.Node(id="n"))]),
        (10, [action(2, task=a_task("t1"))]),
        (12, [action(3, task=a_task("t1"))]),
    )
    stream = watching(
        world, entry("task"), history=log, resume_from=api.Version(index=5), include_old_object=True
    )
    assert await soon(stream) == api.WatchMessage()
    seen = [await soon(stream) for _ in range(3)]
    assert [(m.version.index, [e.action for e in m.events]) for m in seen] == [
        (6, [CREATE]),
        (10, [UPDATE]),
        (12, [REMOVE]),
    ]
    assert not seen[1].events[0].HasField("old_object")
    world.put(a_task("t9"))
    assert (await soon(stream)).events[0].object.task.id == "t9"
    await stream.aclose()


@pytest.mark.parametrize(
    ("history", "index", "text"),
    [
        (None, 5, "store does not support versioning"),
        (Log(), 13, "versions are out of order"),
        (Log(), 3, "requested index is unavailable due to compaction"),
    ],
)
async def test_versions_that_cannot_be_resumed(world: World, history, index, text) -> None:
    stream = watching(world, entry("task"), history=history, resume_from=api.Version(index=index))
    with pytest.raises(SwarmError) as caught:
        await soon(stream)
    assert caught.value.message == text
