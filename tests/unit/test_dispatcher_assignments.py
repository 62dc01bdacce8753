"""What a node is told, step by step."""

from __future__ import annotations

import logging

import pytest

from swarmd import api
from swarmd.base.clock import ManualClock
from swarmd.cluster.store import Store, edit
from swarmd.manager.dispatcher.assignments import AssignmentSet, differs
from tests.harness.localstore import LocalCommitter

S = api.TaskState
Publish = api.VolumePublishStatus


class World:
    """A store, and what node "n" is told of it."""

    def __init__(self) -> None:
        self.store = Store(strict=True)
        self.committer = LocalCommitter(self.store, ManualClock())
        self.told = AssignmentSet("n")

    def put(self, *objects) -> None:
        def change(tx) -> None:
            for obj in objects:
                old = tx.get(type(obj), obj.id)
                if old is None:
                    tx.create(obj)
                else:
                    draft = edit(obj)
                    draft.meta.CopyFrom(old.meta)
                    tx.update(draft)

        self.committer.write(change)

    def drop(self, kind, id: str) -> None:
        self.committer.write(lambda tx: tx.delete(kind, id))

    def look(self, *task_ids: str) -> tuple[bool, list[str]]:
        view = self.store.view()
        modified = [self.told.look_at_task(view, id) for id in task_ids]
        return any(modified), lines(self.told.take())

    def look_volume(self, id: str) -> tuple[bool, list[str]]:
        modified = self.told.look_at_volume(self.store.view(), id)
        return modified, lines(self.told.take())

    def load(self) -> list[str]:
        self.told = AssignmentSet("n")
        self.told.load(self.store.view())
        return lines(self.told.take())


def lines(changes) -> list[str]:
    out = []
    for change in changes:
        item = change.assignment.WhichOneof("item")
        sign = "-" if change.action == api.AssignmentChange.REMOVE else "+"
        out.append(f"{sign}{item} {getattr(change.assignment, item).id}")
    return out


def a_task(id: str, state=S.ASSIGNED, node: str = "n", secrets=(), configs=(), refs=()) -> api.Task:
    task = api.Task(id=id, node_id=node, service_id="s", desired_state=S.RUNNING)
    task.status.state = state
    task.spec.container.image = "busybox"
    for secret in secrets:
        task.spec.container.secrets.add(secret_id=secret)
    for config in configs:
        task.spec.container.configs.add(config_id=config)
    for kind, ref in refs:
        task.spec.resource_references.add(resource_id=ref, resource_type=kind)
    return task


def a_secret(id: str, **fields) -> api.Secret:
    return api.Secret(
        id=id,
        spec=api.SecretSpec(annotations=api.Annotations(name=id), data=b"data-" + id.encode()),
        **fields,
    )


def a_config(id: str) -> api.Config:
    return api.Config(
        id=id, spec=api.ConfigSpec(annotations=api.Annotations(name=id), data=b"data")
    )


def a_volume(id: str, state, secrets=()) -> api.Volume:
    volume = api.Volume(id=id, spec=api.VolumeSpec(annotations=api.Annotations(name=id)))
    volume.spec.driver.name = "csi"
    volume.volume_info.volume_id = "vol-" + id
    volume.volume_info.volume_context["where"] = "rack"
    for secret in secrets:
        volume.spec.secrets.add(key="k", secret=secret)
    if state is not None:
        volume.publish_status.add(node_id="other", state=Publish.PUBLISHED)
        volume.publish_status.add(node_id="n", state=state, publish_context={"dev": "/dev/x"})
    return volume


@pytest.fixture
def world() -> World:
    return World()


def test_an_empty_node_has_nothing(world: World) -> None:
    assert world.load() == []


def test_tasks_from_assigned_on_are_whole_and_others_are_not_there(world: World) -> None:
    for number, state in enumerate(S.values()):
        world.put(a_task(f"t{number:02}", state=state))
    world.put(a_task("elsewhere", node="m"), a_task("nowhere", node=""))
    first = S.values().index(S.ASSIGNED)
    assert world.load() == [f"+task t{n:02}" for n in range(first, len(S.values()))]
    stored = world.store.view().get(api.Task, "t05")
    assert next(t for t in world.told.tasks() if t.id == "t05") == stored


def test_dependencies_come_first_and_with_data(world: World) -> None:
    world.put(a_secret("s1"), a_config("c1"), a_secret("unused"))
    world.put(a_task("t1", secrets=["s1"], configs=["c1"]))
    world.told.load(world.store.view())
    changes = world.told.take()
    assert lines(changes) == ["+secret s1", "+config c1", "+task t1"]
    assert changes[0].assignment.secret.spec.data == b"data-s1"
    assert changes[1].assignment.config.spec.data == b"data"
    assert changes[2].assignment.task.spec.container.image == "busybox"


def test_status_reports_are_not_echoed(world: World) -> None:
    world.put(a_task("t1"))
    world.load()
    for state in (S.ACCEPTED, S.PREPARING, S.RUNNING, S.COMPLETE):
        world.put(a_task("t1", state=state))
        assert world.look("t1") == (False, [])


def test_while_assigned_every_update_is_sent(world: World) -> None:
    world.put(a_task("t1"))
    world.load()
    task = a_task("t1")
    task.status.message = "scheduler assigned task to node"
    world.put(task)
    assert world.look("t1") == (True, ["+task t1"])
    assert world.look("t1") == (False, [])


def test_a_desired_state_is_sent_at_any_time(world: World) -> None:
    world.put(a_task("t1", state=S.RUNNING))
    world.load()
    task = a_task("t1", state=S.RUNNING)
    task.desired_state = S.SHUTDOWN
    world.put(task)
    assert world.look("t1") == (True, ["+task t1"])


def test_a_waiting_change_carries_the_newest_task(world: World) -> None:
    world.put(a_task("t1"))
    assert world.told.look_at_task(world.store.view(), "t1")
    world.put(a_task("t1", state=S.ACCEPTED))
    assert not world.told.look_at_task(world.store.view(), "t1")
    [change] = world.told.take()
    assert change.assignment.task.status.state == S.ACCEPTED


def test_a_deleted_task_is_named_by_id_only(world: World) -> None:
    world.put(a_secret("s1"), a_task("t1", secrets=["s1"]))
    world.load()
    world.drop(api.Task, "t1")
    assert world.told.look_at_task(world.store.view(), "t1")
    changes = world.told.take()
    assert lines(changes) == ["-secret s1", "-task t1"]
    assert changes[0].assignment.secret == api.Secret(id="s1")
    assert changes[1].assignment.task == api.Task(id="t1")
    assert world.look("t1") == (False, [])
    assert world.look("never there") == (False, [])


def test_a_dependency_goes_with_its_last_user(world: World) -> None:
    world.put(a_config("c1"), a_task("t1", configs=["c1"]), a_task("t2", configs=["c1"]))
    assert world.load() == ["+config c1", "+task t1", "+task t2"]
    world.put(a_task("t1", state=S.FAILED, configs=["c1"]))
    assert world.look("t1") == (False, [])
    world.put(a_task("t2", state=S.FAILED, configs=["c1"]))
    assert world.look("t2") == (True, ["-config c1"])
    world.drop(api.Task, "t2")
    assert world.look("t2") == (True, ["-task t2"])


def test_finished_tasks_bring_no_dependencies(world: World) -> None:
    world.put(a_secret("s1"), a_task("t1", state=S.COMPLETE, secrets=["s1"]))
    assert world.load() == ["+task t1"]
    world.drop(api.Task, "t1")
    assert world.look("t1") == (True, ["-task t1"])


def test_container_secrets_are_sent_again_with_each_new_task(world: World) -> None:
    world.put(a_secret("s1"), a_config("c1"), a_task("t1", secrets=["s1"], configs=["c1"]))
    world.load()
    world.put(a_task("t2", secrets=["s1"], configs=["c1"]))
    assert world.look("t2") == (True, ["+secret s1", "+task t2"])


def test_referenced_resources_are_sent_once(world: World) -> None:
    refs = [(api.ResourceType.SECRET, "s1"), (api.ResourceType.CONFIG, "c1")]
    odd = [(api.ResourceType.TASK, "x"), (api.ResourceType.VOLUME, "y")]
    world.put(a_secret("s1"), a_config("c1"))
    world.put(a_task("t1", refs=refs + odd, secrets=["s1"]))
    assert world.load() == ["+secret s1", "+config c1", "+task t1"]
    world.put(a_task("t2", refs=refs, secrets=["s1"]))
    assert world.look("t2") == (True, ["+task t2"])
    world.drop(api.Task, "t1")
    assert world.look("t1") == (True, ["-task t1"])
    world.drop(api.Task, "t2")
    assert world.look("t2") == (True, ["-secret s1", "-config c1", "-task t2"])


def test_a_missing_dependency_is_left_out_and_tried_with_the_next_user(world: World) -> None:
    world.put(a_task("t1", configs=["c1"], secrets=["s1"]))
    assert world.load() == ["+task t1"]
    world.put(a_secret("s1"), a_config("c1"), a_task("t2", configs=["c1"], secrets=["s1"]))
    assert world.look("t2") == (True, ["+secret s1", "+config c1", "+task t2"])


def test_a_driver_backed_secret_is_left_out_and_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    secret = a_secret("s1")
    secret.spec.driver.name = "vault"
    world.put(secret, a_task("t1", secrets=["s1"]))
    with caplog.at_level(logging.WARNING):
        assert world.load() == ["+task t1"]
    assert "secret s1 used by t1 needs secret driver vault" in caplog.text
    assert "data-s1" not in caplog.text
    world.drop(api.Task, "t1")
    assert world.look("t1") == (True, ["-task t1"])


def test_several_changes_before_a_message_come_down_to_the_last(world: World) -> None:
    world.put(a_secret("s1"), a_task("t1", secrets=["s1"]))
    assert world.told.look_at_task(world.store.view(), "t1")
    world.drop(api.Task, "t1")
    world.put(a_task("t2", secrets=["s1"]))
    assert world.told.look_at_task(world.store.view(), "t1")
    assert world.told.look_at_task(world.store.view(), "t2")
    assert lines(world.told.take()) == ["+secret s1", "-task t1", "+task t2"]


def test_volumes_are_assigned_while_published(world: World) -> None:
    world.put(a_secret("s1"), a_volume("v1", Publish.PENDING_PUBLISH, secrets=["s1"]))
    assert world.load() == []
    world.put(a_volume("v1", Publish.PUBLISHED, secrets=["s1"]))
    world.told.look_at_volume(world.store.view(), "v1")
    changes = world.told.take()
    assert lines(changes) == ["+secret s1", "+volume v1"]
    volume = changes[1].assignment.volume
    assert (volume.volume_id, volume.driver.name) == ("vol-v1", "csi")
    assert (dict(volume.volume_context), dict(volume.publish_context)) == (
        {"where": "rack"},
        {"dev": "/dev/x"},
    )
    assert not volume.HasField("access_mode")
    assert [s.secret for s in volume.secrets] == ["s1"]
    assert world.look_volume("v1") == (False, [])


def test_a_volume_is_taken_back_and_then_its_secrets(world: World) -> None:
    world.put(a_secret("s1"), a_volume("v1", Publish.PUBLISHED, secrets=["s1"]))
    assert world.load() == ["+secret s1", "+volume v1"]
    world.put(a_volume("v1", Publish.PENDING_NODE_UNPUBLISH, secrets=["s1"]))
    assert world.look_volume("v1") == (True, ["-volume v1"])
    world.put(a_volume("v1", Publish.PENDING_UNPUBLISH, secrets=["s1"]))
    assert world.look_volume("v1") == (True, ["-secret s1"])
    assert world.look_volume("v1") == (False, [])


def test_a_node_that_restarts_is_told_again_to_let_a_volume_go(world: World) -> None:
    world.put(a_volume("v1", Publish.PENDING_NODE_UNPUBLISH))
    assert world.load() == ["-volume v1"]


def test_a_volume_that_vanishes_gives_its_secrets_back(world: World) -> None:
    world.put(a_secret("s1"), a_volume("v1", Publish.PUBLISHED, secrets=["s1"]))
    world.load()
    world.drop(api.Volume, "v1")
    assert world.look_volume("v1") == (True, ["-secret s1"])
    world.put(a_volume("v2", None))
    assert world.look_volume("v2") == (False, [])


def test_only_status_and_meta_make_no_difference() -> None:
    one, two = a_task("t"), a_task("t", state=S.RUNNING)
    two.meta.version.index = 9
    assert not differs(one, two)
    assert not differs(one, one)
    two.networks.add().addresses.append("10.0.0.3/24")
    assert differs(one, two)
