"""What one node may cost the dispatcher: nothing that others feel."""

from __future__ import annotations

import pytest

from swarmd import api
from swarmd.base import limits
from swarmd.base.errors import InvalidArgument, ResourceExhausted
from swarmd.cluster.store import edit
from swarmd.manager.dispatcher import hub, writes
from tests.harness.localstore import Caller
from tests.unit.test_dispatcher_service import N, World, a_node, named, soon


@pytest.fixture
def world() -> World:
    return World()


def swollen(node: api.Node, spare: int = 100) -> api.Node:
    """As a stock leader may have stored it: the object nearly fills an entry."""
    node.description.hostname = "x" * (limits.entry_bytes_max - node.ByteSize() - spare)
    return node


async def test_a_description_that_would_fill_an_entry_is_refused(world: World) -> None:
    async with world.leading():
        stream = world.session("a", hostname="x" * writes.description_bytes_max)
        with pytest.raises(InvalidArgument, match=r"node description of \d+ bytes is larger than"):
            await soon(stream)
        assert not world.node("a").HasField("description")
        stream, _ = await world.register("a", hostname="x" * 200_000)
        await stream.aclose()


async def test_a_node_that_fills_an_entry_does_not_end_the_leadership(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.put(swollen(a_node("big", N.READY)), a_node("small", N.READY))
    async with world.leading():
        assert world.node("big").status.state == N.READY
        assert world.node("small").status.state == N.UNKNOWN
        assert "node big is too large to be written, its state stays" in caplog.messages


async def test_a_node_that_fills_an_entry_does_not_hide_that_others_are_down(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.leading():
        streams = [(await world.register(id))[0] for id in ("a", "b")]
        world.committer.write(lambda tx: tx.update(swollen(edit(world.node("a")), spare=20)))
        await world.pass_seconds(20)
        assert world.node("b").status.state == N.DOWN
        caplog.clear()
        await world.tenure.flush()
        assert not caplog.messages, "said once"
        for stream in streams:
            await stream.aclose()


async def test_volumes_that_are_not_the_nodes_are_not_queued(world: World) -> None:
    volume = api.Volume(id="v", spec=named(api.VolumeSpec, "v"))
    volume.publish_status.add(node_id="b", state=api.VolumePublishStatus.PENDING_NODE_UNPUBLISH)
    world.put(volume)
    async with world.leading():
        stream, message = await world.register("a")
        request = api.UpdateVolumeStatusRequest(session_id=message.session_id)
        request.updates.add(id="v", unpublished=True)
        for number in range(50_000):
            request.updates.add(id=f"{number}", unpublished=True)
        await world.dispatcher.update_volume_status(request, Caller("a"))
        assert not world.tenure._unpublished
        await stream.aclose()


async def test_reports_without_status_make_one_line(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.leading():
        stream, message = await world.register("a")
        request = api.UpdateTaskStatusRequest(session_id=message.session_id)
        for number in range(1000):
            request.updates.add(task_id=f"{number}")
        await world.dispatcher.update_task_status(request, Caller("a"))
        assert "node a reports 1000 tasks without status" in caplog.messages
        assert len(caplog.messages) < 5
        await stream.aclose()


async def test_a_node_has_so_many_streams_and_no_more(world: World) -> None:
    async with world.leading():
        stream, message = await world.register("a")
        streams = [stream]
        for _ in range(hub.streams_per_node_max):
            streams.append(world.assignments("a", message.session_id))
            await soon(streams[-1])
        with pytest.raises(ResourceExhausted):
            await soon(world.assignments("a", message.session_id))
        await streams.pop().aclose()
        streams.append(world.assignments("a", message.session_id))
        await soon(streams[-1])
        other, _ = await world.register("b")
        for stream in (*streams, other):
            await stream.aclose()
