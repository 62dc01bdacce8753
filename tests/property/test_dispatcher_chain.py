"""A node that applies COMPLETE and then every INCREMENTAL has what a new stream would give it."""

from __future__ import annotations

from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd import api
from swarmd.base.clock import ManualClock
from swarmd.cluster.store import Store, edit
from swarmd.manager.dispatcher.assignments import AssignmentSet, differs
from tests.harness.localstore import LocalCommitter

S = api.TaskState
LIFE = (S.PENDING, S.ASSIGNED, S.ACCEPTED, S.RUNNING, S.COMPLETE)
NUMBERS = range(3)
IDS = st.sampled_from(NUMBERS)
# Three steps of life per change of mind; "send" lets the node catch up.
STEPS = st.lists(
    st.tuples(st.sampled_from(["live", "live", "live", "stop", "delete", "send", "send"]), IDS),
    min_size=5,
    max_size=50,
)
# Per task: secrets, configs, and secrets by reference; number 2 of each does not exist.
SETS = st.sets(IDS, max_size=2)
USES = st.tuples(*[st.tuples(SETS, SETS, SETS) for _ in NUMBERS])


class Node:
    """Applies assignments as a worker does, without looking at any order."""

    def __init__(self) -> None:
        self.has: dict[tuple[str, str], Message] = {}

    def apply(self, changes) -> None:
        for change in changes:
            item = change.assignment.WhichOneof("item")
            obj = getattr(change.assignment, item)
            if change.action == api.AssignmentChange.REMOVE:
                self.has.pop((item, obj.id), None)
            else:
                self.has[item, obj.id] = edit(obj)

    def knows(self, other: Node) -> bool:
        """Whether it has all that `other` has, its own reports aside."""
        if self.has.keys() != other.has.keys():
            return False
        return all(same(self.has[key], other.has[key]) for key in self.has)


def same(mine: Message, fresh: Message) -> bool:
    if isinstance(mine, api.Task) and fresh.status.state > S.ASSIGNED:
        return not differs(mine, fresh)
    return mine == fresh


class World:
    """A store whose tasks live, and one node that is told of it."""

    def __init__(self, uses) -> None:
        self.store = Store()
        self.uses = uses
        self.committer = LocalCommitter(self.store, ManualClock())
        self.committer.write(populate)
        self.rounds = dict.fromkeys(NUMBERS, 0)  # ids are never used twice
        self.node, self.told = Node(), AssignmentSet("n")
        self.told.load(self.store.view())
        self.node.apply(self.told.take())
        self.dirty: dict[str, None] = {}

    def id(self, number: int) -> str:
        return f"t{number}.{self.rounds[number]}"

    def step(self, step: str, number: int) -> None:
        id = self.id(number)
        self.dirty[id] = None
        if step == "live":
            self.committer.write(lambda tx: live(tx, id, self.uses[number]))
        elif step == "stop":
            self.committer.write(lambda tx: stop(tx, id))
        elif step == "delete":
            self.committer.write(lambda tx: delete(tx, id))
            self.rounds[number] += 1

    def send(self) -> None:
        for task_id in self.dirty:
            self.told.look_at_task(self.store.view(), task_id)
        self.dirty.clear()
        self.node.apply(self.told.take())

    def fresh(self) -> Node:
        node, told = Node(), AssignmentSet("n")
        told.load(self.store.view())
        node.apply(told.take())
        return node


def populate(tx) -> None:
    for n in (0, 1):
        tx.create(api.Secret(id=f"s{n}", spec=named(api.SecretSpec, f"s{n}")))
        tx.create(api.Config(id=f"c{n}", spec=named(api.ConfigSpec, f"c{n}")))


def named(kind, name: str):
    return kind(annotations=api.Annotations(name=name), data=name.encode())


def live(tx, id: str, uses) -> None:
    """The next state of a task's life; its birth first."""
    task = tx.get(api.Task, id)
    if task is None:
        task = api.Task(id=id, node_id="n")
        task.status.state = LIFE[0]
        for n in sorted(uses[0]):
            task.spec.container.secrets.add(secret_id=f"s{n}")
        for n in sorted(uses[1]):
            task.spec.container.configs.add(config_id=f"c{n}")
        for n in sorted(uses[2]):
            task.spec.resource_references.add(
                resource_id=f"s{n}", resource_type=api.ResourceType.SECRET
            )
        tx.create(task)
    elif task.status.state != LIFE[-1]:
        draft = edit(task)
        draft.status.state = LIFE[LIFE.index(task.status.state) + 1]
        tx.update(draft)


def stop(tx, id: str) -> None:
    task = tx.get(api.Task, id)
    if task is not None and task.desired_state != S.SHUTDOWN:
        draft = edit(task)
        draft.desired_state = S.SHUTDOWN
        tx.update(draft)


def delete(tx, id: str) -> None:
    if tx.get(api.Task, id) is not None:
        tx.delete(api.Task, id)


@settings(max_examples=200)
@given(STEPS, USES)
def test_the_chain_equals_a_fresh_start(steps, uses) -> None:
    world = World(uses)
    for step, number in [*steps, ("send", 0)]:
        if step == "send":
            world.send()
            assert world.node.knows(world.fresh())
        else:
            world.step(step, number)


@settings(max_examples=50)
@given(STEPS, USES)
def test_when_all_tasks_are_gone_nothing_is_left(steps, uses) -> None:
    world = World(uses)
    for step, number in steps:
        if step == "send":
            world.send()
        else:
            world.step(step, number)
    for number in NUMBERS:
        world.step("delete", number)
    world.send()
    assert world.node.has == {}
    assert world.told.tasks() == []
