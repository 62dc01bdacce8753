"""The store against a plain dict model: transactions, rollback, entries, snapshots."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd import api
from swarmd.base.errors import SwarmError
from swarmd.cluster.store import KINDS, Batch, Store, Transaction, View, edit

IDS = ("a", "b", "c", "d")
NAMES = ("", "web", "WEB", "db")


@dataclass(frozen=True)
class Step:
    """One random change; some are refused."""

    kind: str  # create, update, delete, save, rollback
    table: str  # network (unique names) or task
    id: str
    name: str
    node: str


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(("create", "update", "delete", "create", "update", "save", "rollback")),
        st.sampled_from(("network", "task")),
        st.sampled_from(IDS),
        st.sampled_from(NAMES),
        st.sampled_from(("n1", "n2")),
    ),
    max_size=25,
)
Model = dict[tuple[str, str], tuple[str, str]]


def an_object(step: Step) -> api.Network | api.Task:
    if step.table == "network":
        network = api.Network(id=step.id)
        network.spec.annotations.name = step.name
        network.driver_state.name = step.node
        return network
    return api.Task(id=step.id, node_id=step.node, annotations=api.Annotations(name=step.name))


def allowed(model: Model, step: Step) -> bool:
    there = (step.table, step.id) in model
    taken = step.table == "network" and any(
        table == "network" and id != step.id and name.lower() == step.name.lower()
        for (table, id), (name, _) in model.items()
    )
    match step.kind:
        case "create":
            return not there and not taken
        case "update":
            return there and not taken
        case _:
            return there


def change(tx: Transaction, model: Model, step: Step) -> None:
    """Make one step on both sides; both must agree on whether it is allowed."""
    cls = api.Network if step.table == "network" else api.Task
    fine = allowed(model, step)
    try:
        if step.kind == "create":
            tx.create(an_object(step))
        elif step.kind == "update":
            obj = an_object(step)
            held = tx.get(cls, step.id)
            if held is not None:
                obj.meta.CopyFrom(held.meta)
            tx.update(obj)
        else:
            tx.delete(cls, step.id)
    except SwarmError:
        assert not fine, step
        return
    assert fine, step
    if step.kind == "delete":
        del model[step.table, step.id]
    else:
        model[step.table, step.id] = (step.name, step.node)


def agree(view: View, model: Model) -> None:
    """Every read of the view equals what the model says."""
    tasks = {id: value for (table, id), value in model.items() if table == "task"}
    networks = {id: value for (table, id), value in model.items() if table == "network"}
    assert [t.id for t in view.all(api.Task)] == sorted(tasks)
    assert [n.id for n in view.all(api.Network)] == sorted(networks)
    for node in ("n1", "n2"):
        wanted = sorted(id for id, (_, on) in tasks.items() if on == node)
        assert [t.id for t in view.by(api.Task, "node", node)] == wanted
    for name in NAMES:
        found = view.named(api.Network, name)
        wanted_ids = [id for id, (held, _) in networks.items() if held.lower() == name.lower()]
        assert ([] if found is None else [found.id]) == wanted_ids
    for id in IDS:
        task = view.get(api.Task, id)
        assert (None if task is None else (task.annotations.name, task.node_id)) == tasks.get(id)


def run(tx: Transaction, model: Model, steps: list[Step]) -> Model:
    """All steps on a transaction, with nested savepoints."""
    marks = []
    for step in steps:
        if step.kind == "save":
            marks.append((tx.savepoint(), dict(model)))
        elif step.kind == "rollback":
            if marks:
                mark, model = marks.pop()
                model = dict(model)
                tx.rollback(mark)
        else:
            change(tx, model, step)
        agree(tx, model)
    return model


@settings(max_examples=150)
@given(st.lists(STEPS, min_size=1, max_size=4))
def test_store_behaves_like_a_dict_and_followers_follow(entries: list[list[Step]]) -> None:
    leader, follower = Store(strict=True), Store(strict=True)
    told: list[Batch] = []
    leader.subscribe(told.append)
    model: Model = {}
    for number, steps in enumerate(entries):
        tx = leader.begin(10 + number, 1000.0 + number)
        wanted = run(tx, dict(model), steps)
        if number % 2:
            leader.commit(tx, 11 + number)
            follower.apply(tx.actions)
            model = wanted
        agree(leader.view(), model)
        assert leader.save() == follower.save()
    leader.verify()
    assert replayed(told) == leader.save()

    third = Store(strict=True)
    third.restore(api.StoreSnapshot.FromString(leader.save().SerializeToString()))
    agree(third.view(), model)
    assert third.save() == leader.save()
    assert all(tables_equal(third, leader))


def replayed(batches: list[Batch]) -> api.StoreSnapshot:
    """What someone knows who only listened to events."""
    known: dict[tuple[str, str], object] = {}
    for batch in batches:
        for event in batch.events:
            key = (type(event.object).__name__, event.object.id)
            assert known.get(key) == (event.old if event.old is not None else None)
            known[key] = event.object
            if event.action.name == "DELETE":
                del known[key]
    snapshot = api.StoreSnapshot()
    for kind in KINDS:
        ids = sorted(id for name, id in known if name == kind.type.__name__)
        getattr(snapshot, kind.snapshot).extend(known[kind.type.__name__, id] for id in ids)
    return snapshot


def tables_equal(one: Store, two: Store) -> list[bool]:
    """Compare indexes too: a restored store must have those of one that grew."""
    return [
        one._tables[kind.type].indexes == two._tables[kind.type].indexes
        and one._tables[kind.type].names == two._tables[kind.type].names
        and one._tables[kind.type].ids == two._tables[kind.type].ids
        for kind in KINDS
    ]


@settings(max_examples=60)
@given(STEPS, STEPS)
def test_rollback_leaves_no_trace(kept: list[Step], undone: list[Step]) -> None:
    store = Store(strict=True)
    tx = store.begin(1, 1.0)
    model = run(tx, {}, kept)
    before = [action.SerializeToString(deterministic=True) for action in tx.actions]
    mark = tx.savepoint()
    run(tx, dict(model), undone)
    tx.rollback(mark)
    agree(tx, model)
    assert [a.SerializeToString(deterministic=True) for a in tx.actions] == before
    store.commit(tx, 2)
    agree(store.view(), model)


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=2, max_size=3))
def test_restore_over_a_used_store_forgets_the_past(entries: list[list[Step]]) -> None:
    stores = []
    for steps in entries:
        store = Store(strict=True)
        tx = store.begin(1, 1.0)
        run(tx, {}, steps)
        store.commit(tx, 2)
        stores.append(store)
    wanted = stores[-1].save()
    told: list[Batch] = []
    stores[0].subscribe(told.append)
    stores[0].restore(wanted)
    assert stores[0].save() == wanted
    assert all(tables_equal(stores[0], stores[-1]))
    assert [batch.restored for batch in told] == [True]


def test_edit_is_private() -> None:
    store = Store(strict=True)
    tx = store.begin(1, 1.0)
    tx.create(api.Node(id="n1"))
    store.commit(tx, 2)
    draft = edit(store.view().all(api.Node)[0])
    draft.status.addr = "x"
    store.verify()
