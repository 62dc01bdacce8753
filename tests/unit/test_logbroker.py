"""Log subscriptions: whom they concern, when they end, and every refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import Code, InvalidArgument, NotFound, PermissionDenied, SwarmError
from swarmd.cluster.store import Store, edit
from swarmd.manager.logbroker import Broker, broker, routing
from tests.harness.localstore import Caller, LocalCommitter

S = api.TaskState
INCOMPLETE = (
    "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "
)


class World:
    """A broker, with tasks of service "s" on nodes a and b."""

    def __init__(self) -> None:
        self.store = Store(strict=True)
        self.committer = LocalCommitter(self.store, ManualClock())
        self.broker = Broker(self.store, SeededEntropy(3))

    def put(self, id: str, node: str, state=S.RUNNING, service: str = "s") -> None:
        task = api.Task(id=id, node_id=node, service_id=service)
        task.status.state = state
        self.committer.write(lambda tx: tx.create(task))

    def move(self, id: str, node: str) -> None:
        def change(tx) -> None:
            draft = edit(tx.get(api.Task, id))
            draft.node_id = node
            tx.update(draft)

        self.committer.write(change)

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        async with Tasks() as tasks:
            ready = asyncio.Event()
            run = tasks.spawn(self.broker.run(ready), "broker")
            await ready.wait()
            yield
            run.cancel()
            await asyncio.wait([run])

    def subscribe(self, follow: bool = False, **selector):
        request = api.SubscribeLogsRequest(selector=api.LogSelector(**selector))
        request.options.follow = follow
        return self.broker.logs.subscribe_logs(request, Caller("manager"))

    def listen(self, node: str):
        request = api.ListenSubscriptionsRequest()
        return self.broker.log_broker.listen_subscriptions(request, Caller(node))

    async def publish(self, node: str, *messages: api.PublishLogsMessage):
        async def stream():
            for message in messages:
                yield message

        async with asyncio.timeout(5):
            return await self.broker.log_broker.publish_logs(stream(), Caller(node))


def lines(id: str, node: str, *texts: str, close: bool = False) -> api.PublishLogsMessage:
    message = api.PublishLogsMessage(subscription_id=id, close=close)
    for text in texts:
        message.messages.add(context=api.LogContext(node_id=node), data=text.encode())
    return message


async def soon(stream):
    async with asyncio.timeout(5):
        return await anext(stream)


async def all_of(stream) -> tuple[list[str], str]:
    """What a client reads, and the error text it ends with."""
    texts: list[str] = []
    try:
        async with asyncio.timeout(5):
            async for message in stream:
                texts += [m.data.decode() for m in message.messages]
    except SwarmError as error:
        assert error.code is Code.UNKNOWN
        return texts, error.message
    return texts, ""


@asynccontextmanager
async def reading(stream):
    """The stream in a task: what it yields until it ends."""
    async with Tasks() as tasks:
        yield tasks.spawn(all_of(stream), "client")


@asynccontextmanager
async def listening(world: World, *nodes: str):
    """Nodes that wait for subscriptions; a channel per node."""
    async with Tasks() as tasks:
        queues: dict[str, asyncio.Queue] = {node: asyncio.Queue() for node in nodes}

        async def listen(node: str) -> None:
            async for message in world.listen(node):
                queues[node].put_nowait(message)

        running = [tasks.spawn(listen(node), f"node {node}") for node in nodes]
        await asyncio.sleep(0)
        yield queues
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def heard(queue: asyncio.Queue) -> api.SubscriptionMessage:
    async with asyncio.timeout(5):
        return await queue.get()


@pytest.fixture
def world() -> World:
    world = World()
    world.put("t1", "a")
    world.put("t2", "b")
    return world


# Refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (api.SubscribeLogsRequest(), "log selector must be provided"),
        (
            api.SubscribeLogsRequest(selector=api.LogSelector()),
            "log selector must not be empty",
        ),
    ],
)
async def test_selectors_are_needed(world: World, request_, text: str) -> None:
    async with world.leading():
        with pytest.raises(InvalidArgument) as caught:
            await soon(world.broker.logs.subscribe_logs(request_, Caller("m")))
        assert caught.value.message == text


async def test_without_leadership_nothing_is_answered(world: World) -> None:
    for call in (
        soon(world.subscribe(service_ids=["s"])),
        soon(world.listen("a")),
        world.publish("a", lines("x", "a", "text")),
    ):
        with pytest.raises(SwarmError) as caught:
            await call
        assert caught.value.message == "broker is not running"
        assert caught.value.code is Code.UNKNOWN


async def test_what_nodes_may_not_publish(world: World) -> None:
    async with (
        world.leading(),
        listening(world, "a", "b") as nodes,
        reading(world.subscribe(service_ids=["s"])) as client,
    ):
        id = (await heard(nodes["a"])).id
        cases = [
            ([lines("", "a", "x")], InvalidArgument, "missing subscription ID"),
            ([lines("nobody's", "a", "x")], NotFound, "unknown subscription ID"),
            (
                [lines(id, "a", "x"), lines("other", "a", "y")],
                InvalidArgument,
                "different subscription IDs in the same session",
            ),
            (
                [lines(id, "b", "not mine")],
                PermissionDenied,
                "invalid NodeID: expected=a;received=b",
            ),
        ]
        for messages, error, text in cases:
            with pytest.raises(error) as caught:
                await world.publish("a", *messages)
            assert caught.value.message == text
        await world.publish("b", lines(id, "b", "fine"), lines(id, "b", close=True))
        texts, trouble = await client
        assert texts == ["x", "fine"]
        assert trouble == (
            INCOMPLETE + "rpc error: code = InvalidArgument desc = different subscription IDs "
            "in the same session, rpc error: code = PermissionDenied desc = "
            "invalid NodeID: expected=a;received=b"
        )


# The way of the lines ------------------------------------------------------------------


async def test_logs_come_from_all_nodes_and_then_it_ends(world: World) -> None:
    async with (
        world.leading(),
        listening(world, "a", "b", "c") as nodes,
        reading(world.subscribe(service_ids=["s"])) as client,
    ):
        message = await heard(nodes["a"])
        assert (await heard(nodes["b"])).id == message.id
        assert list(message.selector.service_ids) == ["s"]
        assert message.HasField("options")
        assert not message.close
        await world.publish("a", lines(message.id, "a", "1", "2"), lines(message.id, "a", "3"))
        assert not client.done()
        closing = lines(message.id, "b", close=True)
        assert await world.publish("b", lines(message.id, "b", "4"), closing) is not None
        assert await client == (["1", "2", "3", "4"], "")
        assert nodes["c"].empty()


async def test_options_are_always_sent(world: World) -> None:
    request = api.SubscribeLogsRequest(selector=api.LogSelector(task_ids=["t1"]))
    stream = world.broker.logs.subscribe_logs(request, Caller("m"))
    async with world.leading(), listening(world, "a") as nodes, reading(stream):
        assert (await heard(nodes["a"])).HasField("options")


@pytest.mark.parametrize("selector", [{"task_ids": ["t1"]}, {"node_ids": ["a"]}])
async def test_selecting_by_task_and_by_node(world: World, selector) -> None:
    async with world.leading(), listening(world, "a", "b") as nodes:
        async with reading(world.subscribe(**selector)) as client:
            id = (await heard(nodes["a"])).id
            await world.publish("a", lines(id, "a", "x"))
            assert await client == (["x"], "")
        assert nodes["b"].empty()


async def test_nothing_to_wait_for_ends_at_once(world: World) -> None:
    async with world.leading():
        assert await all_of(world.subscribe(service_ids=["none"])) == ([], "")
        assert await all_of(world.subscribe(task_ids=["none"])) == ([], "")


async def test_nodes_that_do_not_listen_are_named(world: World) -> None:
    stream = world.subscribe(service_ids=["s"])
    async with world.leading(), listening(world, "a") as nodes, reading(stream) as client:
        id = (await heard(nodes["a"])).id
        await world.publish("a", lines(id, "a", "x"))
        assert await client == (["x"], INCOMPLETE + "node b is not available")


async def test_a_node_that_vanishes_is_named(world: World) -> None:
    async with world.leading(), listening(world, "b") as others:
        async with listening(world, "a") as nodes:
            client_context = reading(world.subscribe(service_ids=["s"]))
            client = await client_context.__aenter__()
            id = (await heard(nodes["a"])).id
            await heard(others["b"])
            await world.publish("b", lines(id, "b", "x"))
        expected = INCOMPLETE + "node a disconnected unexpectedly"
        assert await client == (["x"], expected)
        await client_context.__aexit__(None, None, None)


async def test_a_second_stream_of_a_node_outlives_the_first(world: World) -> None:
    async with world.leading(), listening(world, "a") as second:
        async with listening(world, "a") as first:
            client_context = reading(world.subscribe(task_ids=["t1"]))
            client = await client_context.__aenter__()
            id = (await heard(first["a"])).id
            assert (await heard(second["a"])).id == id
        assert not client.done()
        await world.publish("a", lines(id, "a", "x"))
        assert await client == (["x"], "")
        await client_context.__aexit__(None, None, None)


async def test_tasks_without_a_node_are_named_and_young_ones_skipped(world: World) -> None:
    world.put("t3", "", S.PENDING)
    world.put("t4", "c", S.PREPARING)
    async with world.leading():
        texts, trouble = await all_of(world.subscribe(task_ids=["t3"]))
        assert (texts, trouble) == ([], INCOMPLETE + "task t3 has not been scheduled")
        _, trouble = await all_of(world.subscribe(service_ids=["s"]))
        assert trouble == INCOMPLETE + "node a is not available, node b is not available"


async def test_following_goes_on_and_finds_new_tasks(world: World) -> None:
    async with world.leading(), listening(world, "a", "b", "c") as nodes:
        stream = world.subscribe(follow=True, service_ids=["s"])
        async with Tasks() as tasks:
            first = tasks.spawn(soon(stream), "client")
            id = (await heard(nodes["a"])).id
            await heard(nodes["b"])
            assert nodes["c"].empty()
            await world.publish("a", lines(id, "a", "1"), lines(id, "a", close=True))
            assert [m.data for m in (await first).messages] == [b"1"]
            world.put("t3", "")
            world.put("elsewhere", "c", service="other")
            assert nodes["c"].empty()
            world.move("t3", "c")
            assert (await heard(nodes["c"])).id == id
            world.put("t4", "c")  # told once
            await world.publish("c", lines(id, "c", "2"))
            assert [m.data for m in (await soon(stream)).messages] == [b"2"]
        await stream.aclose()
        for node in ("a", "b", "c"):
            message = await heard(nodes[node])
            assert (message.id, message.close) == (id, True)
            assert nodes[node].empty()


async def test_a_client_that_leaves_tells_the_nodes(world: World) -> None:
    async with world.leading(), listening(world, "a", "b") as nodes:
        async with reading(world.subscribe(service_ids=["s"])):
            id = (await heard(nodes["a"])).id
            await world.publish("b", lines(id, "b", "x"))
            assert (await heard(nodes["b"])).id == id
        closing = await heard(nodes["a"])
        assert (closing.id, closing.close) == (id, True)
        assert nodes["b"].empty()  # it was done
        with pytest.raises(NotFound, match="unknown subscription ID"):
            await world.publish("a", lines(id, "a", "too late"))


async def test_a_late_listener_gets_what_follows_already(world: World) -> None:
    async with world.leading(), reading(world.subscribe(follow=True, service_ids=["s"])):
        await asyncio.sleep(0)
        async with listening(world, "b") as nodes:
            assert list((await heard(nodes["b"])).selector.service_ids) == ["s"]


async def test_a_slow_client_slows_the_node_down(world: World) -> None:
    async with world.leading(), listening(world, "a") as nodes, Tasks() as tasks:
        stream = world.subscribe(task_ids=["t1"])
        first = tasks.spawn(soon(stream), "client")
        id = (await heard(nodes["a"])).id
        limit = broker.outbox_messages_max
        texts = [str(n) for n in range(limit + 10)]
        sent = tasks.spawn(world.publish("a", *(lines(id, "a", t) for t in texts)), "node")
        got = [m.data.decode() for m in (await first).messages]
        for _ in range(limit * 3):
            await asyncio.sleep(0)
        assert not sent.done()
        rest, trouble = await all_of(stream)
        assert got + rest == texts
        assert trouble == ""
        await sent


async def test_a_writer_is_let_go_when_the_client_leaves(world: World) -> None:
    async with world.leading(), listening(world, "a") as nodes, Tasks() as tasks:
        stream = world.subscribe(follow=True, task_ids=["t1"])
        first = tasks.spawn(soon(stream), "client")
        id = (await heard(nodes["a"])).id
        many = (lines(id, "a", "x") for _ in range(broker.outbox_messages_max * 3))
        sent = tasks.spawn(world.publish("a", *many), "node")
        await first
        await stream.aclose()
        async with asyncio.timeout(5):
            await sent


async def test_losing_leadership_ends_all_streams(world: World) -> None:
    async with Tasks() as tasks:
        async with world.leading():
            listen = tasks.spawn(all_of_listen(world.listen("a")), "node")
            client = tasks.spawn(all_of(world.subscribe(follow=True, task_ids=["t1"])), "client")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await listen == 1  # one subscription, then an ordinary end
            assert await client == ([], "context canceled")


async def all_of_listen(stream) -> int:
    return len([message async for message in stream])


async def test_a_node_that_does_not_read_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "subscriptions_waiting_max", 2)
    async with world.leading(), Tasks() as tasks:
        stream = world.listen("a")
        first = tasks.spawn(soon(stream), "node")
        await asyncio.sleep(0)
        for _ in range(4):
            tasks.spawn(all_of(world.subscribe(follow=True, task_ids=["t1"])), "client")
        await first
        await asyncio.sleep(0)
        with pytest.raises(SwarmError, match="too many log subscriptions wait to be read"):
            async with asyncio.timeout(5):
                async for _ in stream:
                    pass


async def test_large_messages_for_a_slow_client_are_bounded_by_their_bytes(world: World) -> None:
    world.put("t", "a")
    async with world.leading(), listening(world, "a") as nodes:
        client = world.subscribe(follow=True, service_ids=["s"])
        first = asyncio.ensure_future(anext(client))
        id = (await nodes["a"].get()).id
        big = (lines(id, "a", "x" * 700_000) for _ in range(20))
        writing = asyncio.ensure_future(world.publish("a", *big))
        await soon_result(first)
        await asyncio.sleep(0.1)
        (outbox,) = world.broker.require().outboxes.values()
        assert sum(item.ByteSize() for item in outbox._items) < 3 * broker.outbox_bytes_max
        for _ in range(19):
            await soon(client)
        await soon_result(writing)
        await client.aclose()


async def test_a_node_that_fails_again_and_again_is_noted_so_often_only(world: World) -> None:
    world.put("t", "a")
    async with world.leading(), listening(world, "a") as nodes:
        client = world.subscribe(follow=True, service_ids=["s"])
        waiting = asyncio.ensure_future(anext(client))
        id = (await nodes["a"].get()).id
        for _ in range(2 * routing.errors_max):
            with pytest.raises(PermissionDenied):
                await world.publish("a", lines(id, "b", "not mine"))
        (subscription,) = world.broker.require().routing.subscriptions.values()
        assert len(subscription.errors) == routing.errors_max
        waiting.cancel()
        await asyncio.wait({waiting})
        await client.aclose()


async def soon_result(task: asyncio.Future):
    return await asyncio.wait_for(task, 5)
