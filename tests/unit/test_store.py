"""The store: transactions, the stock follower's rules, events, snapshots."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarmd import api
from swarmd.base.errors import Conflict, InvariantViolation, SwarmError
from swarmd.base.timestamps import seconds
from swarmd.cluster.store import (
    Action,
    Batch,
    ExtensionFixed,
    ExtensionInUse,
    NameConflict,
    ObjectExists,
    ObjectMissing,
    Store,
    StoreError,
    UnknownKind,
    custom_key,
    edit,
    number,
    slot_key,
)

CREATE = api.StoreActionKind.STORE_ACTION_CREATE
UPDATE = api.StoreActionKind.STORE_ACTION_UPDATE
REMOVE = api.StoreActionKind.STORE_ACTION_REMOVE


def a_node(id: str, hostname: str = "") -> api.Node:
    node = api.Node(id=id)
    node.description.hostname = hostname
    return node


def a_network(id: str, name: str) -> api.Network:
    network = api.Network(id=id)
    network.spec.annotations.name = name
    return network


def an_extension(id: str, name: str) -> api.Extension:
    return api.Extension(id=id, annotations=api.Annotations(name=name))


def a_resource(id: str, name: str, kind: str) -> api.Resource:
    return api.Resource(id=id, annotations=api.Annotations(name=name), kind=kind)


def filled(*objects: api.Node | api.Network | api.Task | api.Extension | api.Resource) -> Store:
    store = Store(strict=True)
    tx = store.begin(5, 1000.0)
    for obj in objects:
        tx.create(obj)
    store.commit(tx, 6)
    return store


class TestVersions:
    def test_create_and_update_stamp_the_copy_only(self) -> None:
        store = Store(strict=True)
        given = a_node("n1")
        tx = store.begin(7, 1000.5)
        made = tx.create(given)
        store.commit(tx, 8)
        assert made.meta.version.index == 7
        assert seconds(made.meta.created_at) == seconds(made.meta.updated_at) == 1000.5
        assert not given.HasField("meta")

        tx = store.begin(9, 2000.0)
        draft = edit(made)
        draft.status.addr = "10.0.0.1"
        changed = tx.update(draft)
        store.commit(tx, None)
        assert changed.meta.version.index == 9
        assert seconds(changed.meta.created_at) == 1000.5
        assert seconds(changed.meta.updated_at) == 2000.0
        assert store.view().get(api.Node, "n1") == changed
        assert made.status.addr == ""

    def test_changes_of_one_transaction_share_a_version_and_may_follow_each_other(self) -> None:
        store = Store(strict=True)
        tx = store.begin(3, 1.0)
        node = edit(tx.create(a_node("n1")))
        node.status.message = "once"
        node = edit(tx.update(node))
        node.status.message = "twice"
        tx.update(node)
        tx.create(a_network("w1", "web"))
        store.commit(tx, 4)
        view = store.view()
        found, network = view.get(api.Node, "n1"), view.get(api.Network, "w1")
        assert found is not None and network is not None
        assert found.status.message == "twice"
        assert found.meta.version.index == network.meta.version.index == 3

    def test_stale_update_is_refused_with_the_stock_text(self) -> None:
        store = filled(a_node("n1"))
        tx = store.begin(8, 1.0)
        stale = edit(store.view().all(api.Node)[0])
        tx.update(stale)
        with pytest.raises(Conflict, match="update out of sequence"):
            tx.update(stale)


class TestNames:
    def test_names_are_compared_in_lower_case(self) -> None:
        store = filled(a_network("w1", "Web"))
        with pytest.raises(NameConflict, match="name conflicts with an existing object"):
            store.begin(6, 1.0).create(a_network("w2", "wEB"))
        found = store.view().named(api.Network, "WEB")
        assert found is not None and found.id == "w1"

    def test_an_object_keeps_its_own_name_and_cannot_take_anothers(self) -> None:
        store = filled(a_network("w1", "web"), a_network("w2", "db"))
        tx = store.begin(6, 1.0)
        draft = edit(store.view().all(api.Network)[0])
        draft.spec.annotations.name = "WEB"
        tx.update(draft)
        other = edit(store.view().all(api.Network)[1])
        other.spec.annotations.name = "web"
        with pytest.raises(NameConflict):
            tx.update(other)

    def test_a_name_is_free_after_removal_in_the_same_transaction(self) -> None:
        store = filled(a_network("w1", "web"))
        tx = store.begin(6, 1.0)
        tx.delete(api.Network, "w1")
        assert tx.named(api.Network, "web") is None
        tx.create(a_network("w2", "web"))
        store.commit(tx, 7)
        found = store.view().named(api.Network, "web")
        assert found is not None and found.id == "w2"

    def test_a_renamed_object_frees_its_name(self) -> None:
        store = filled(a_network("w1", "web"))
        tx = store.begin(6, 1.0)
        draft = edit(store.view().all(api.Network)[0])
        draft.spec.annotations.name = "old"
        tx.update(draft)
        tx.create(a_network("w2", "web"))
        store.commit(tx, 7)
        view = store.view()
        assert {n.id for n in (view.named(api.Network, x) for x in ("old", "web")) if n} == {
            "w1",
            "w2",
        }

    def test_nodes_and_tasks_may_share_names(self) -> None:
        store = filled(a_node("n1", "host"), a_node("n2", "HOST"))
        assert [n.id for n in store.view().by(api.Node, "name", "host")] == ["n1", "n2"]

    def test_asking_for_a_unique_name_of_a_node_is_a_bug(self) -> None:
        with pytest.raises(InvariantViolation):
            filled().view().named(api.Node, "host")


class TestExtensions:
    def test_resource_needs_its_extension_first(self) -> None:
        tx = Store(strict=True).begin(1, 1.0)
        with pytest.raises(UnknownKind, match="object kind is unregistered"):
            tx.create(a_resource("r1", "x", "tokens"))
        tx.create(an_extension("e1", "Tokens"))
        tx.create(a_resource("r1", "x", "tokens"))
        assert [r.id for r in tx.by(api.Resource, "kind", "tokens")] == ["r1"]

    def test_extension_is_immutable(self) -> None:
        store = filled(an_extension("e1", "tokens"))
        with pytest.raises(ExtensionFixed):
            store.begin(6, 1.0).update(edit(store.view().all(api.Extension)[0]))

    def test_extension_in_use_stays(self) -> None:
        store = filled(an_extension("e1", "tokens"), a_resource("r1", "x", "tokens"))
        tx = store.begin(6, 1.0)
        with pytest.raises(ExtensionInUse):
            tx.delete(api.Extension, "e1")
        tx.delete(api.Resource, "r1")
        tx.delete(api.Extension, "e1")
        store.commit(tx, 7)
        assert store.view().all(api.Extension) == []

    @pytest.mark.parametrize("name", ["node", "task", "extension", "volume"])
    def test_built_in_kinds_are_not_free(self, name: str) -> None:
        with pytest.raises(NameConflict):
            Store(strict=True).begin(1, 1.0).create(an_extension("e1", name))

    def test_resource_update_does_not_look_at_names(self) -> None:
        store = filled(
            an_extension("e1", "k"), a_resource("r1", "x", "k"), a_resource("r2", "y", "k")
        )
        tx = store.begin(6, 1.0)
        draft = edit(store.view().all(api.Resource)[1])
        draft.annotations.name = "x"
        tx.update(draft)
        store.commit(tx, 7)
        found = store.view().named(api.Resource, "x")
        assert found is not None and found.id == "r2"


class TestIndexes:
    def test_node_indexes(self) -> None:
        manager = a_node("n1", "a")
        manager.role = api.NodeRole.MANAGER
        manager.spec.membership = api.NodeSpec.Membership.ACCEPTED
        manager.attachments.add().network.id = "w1"
        store = filled(manager, a_node("n2", "b"))
        view = store.view()
        assert [n.id for n in view.by(api.Node, "role", number(api.NodeRole.MANAGER))] == ["n1"]
        assert [n.id for n in view.by(api.Node, "membership", "0")] == ["n2"]
        assert [n.id for n in view.by(api.Node, "attachment", "w1")] == ["n1"]

    def test_task_indexes_follow_updates(self) -> None:
        task = api.Task(id="t1", service_id="s1", slot=2, node_id="n1")
        task.spec.container.secrets.add(secret_id="x1")
        task.spec.networks.add(target="w1")
        task.annotations.indices.add(key="team", val="red")
        task.service_annotations.name = "web"
        store = filled(task)
        found = {
            "node": "n1",
            "service": "s1",
            "slot": slot_key("s1", 2),
            "secret": "x1",
            "network": "w1",
            "state": "0",
            "desired_state": "0",
            "name": "web.2.t1",
            "runtime": "container",
            "custom": custom_key("team", "red"),
        }
        for index, key in found.items():
            assert [t.id for t in store.view().by(api.Task, index, key)] == ["t1"], index
        tx = store.begin(6, 1.0)
        draft = edit(store.view().all(api.Task)[0])
        draft.node_id = "n2"
        draft.status.state = api.TaskState.RUNNING
        draft.spec.container.secrets.clear()
        tx.update(draft)
        assert tx.by(api.Task, "node", "n1") == []
        assert [t.id for t in tx.by(api.Task, "node", "n2")] == ["t1"]
        store.commit(tx, 7)
        view = store.view()
        assert view.by(api.Task, "secret", "x1") == view.by(api.Task, "node", "n1") == []
        assert [t.id for t in view.by(api.Task, "state", number(api.TaskState.RUNNING))] == ["t1"]

    def test_service_networks_come_from_the_task_template_first(self) -> None:
        store = Store(strict=True)
        tx = store.begin(1, 1.0)
        old = api.Service(id="s1")
        old.spec.networks.add(target="w1")
        new = edit(old)
        new.id = "s2"
        new.spec.annotations.name = "two"
        new.spec.task.networks.add(target="w2")
        tx.create(old)
        tx.create(new)
        assert [s.id for s in tx.by(api.Service, "network", "w1")] == ["s1"]
        assert [s.id for s in tx.by(api.Service, "network", "w2")] == ["s2"]

    def test_unknown_index_is_a_bug(self) -> None:
        with pytest.raises(KeyError):
            filled().view().by(api.Node, "colour", "red")


class TestTransaction:
    def test_nothing_shows_before_commit(self) -> None:
        store = filled(a_node("n1"))
        tx = store.begin(6, 1.0)
        tx.delete(api.Node, "n1")
        tx.create(a_node("n0"))
        assert [n.id for n in store.view().all(api.Node)] == ["n1"]
        assert [n.id for n in tx.all(api.Node)] == ["n0"]
        assert tx.count(api.Node) == 1
        assert tx.get(api.Node, "n1") is None

    def test_rollback_undoes_only_what_came_after(self) -> None:
        store = filled(a_network("w1", "web"))
        tx = store.begin(6, 1.0)
        tx.create(a_network("w2", "db"))
        mark = tx.savepoint()
        tx.delete(api.Network, "w2")
        tx.delete(api.Network, "w1")
        inner = tx.savepoint()
        tx.create(a_network("w3", "web"))
        tx.rollback(inner)
        assert tx.named(api.Network, "web") is None
        tx.rollback(mark)
        assert [n.id for n in tx.all(api.Network)] == ["w1", "w2"]
        assert tx.named(api.Network, "web") is not None
        assert [a.action for a in tx.actions] == [CREATE]
        with pytest.raises(InvariantViolation):
            tx.rollback(inner)

    def test_errors_leave_the_transaction_as_it_was(self) -> None:
        store = filled(a_node("n1"))
        tx = store.begin(6, 1.0)
        with pytest.raises(ObjectExists, match="object already exists"):
            tx.create(a_node("n1"))
        with pytest.raises(ObjectMissing, match="object does not exist"):
            tx.update(a_node("n2"))
        with pytest.raises(ObjectMissing):
            tx.delete(api.Node, "n2")
        assert tx.actions == [] and tx.events == []

    def test_actions_name_kind_and_object(self) -> None:
        store = filled(a_node("n1"))
        tx = store.begin(6, 1.0)
        tx.delete(api.Node, "n1")
        made = tx.create(a_network("w1", "web"))
        assert [(a.action, a.WhichOneof("target")) for a in tx.actions] == [
            (REMOVE, "node"),
            (CREATE, "network"),
        ]
        assert tx.actions[1].network == made

    def test_commit_over_a_changed_state_is_a_bug(self) -> None:
        store = filled(a_node("n1"))
        late = store.begin(6, 1.0)
        late.create(a_node("n2"))
        tx = store.begin(6, 1.0)
        tx.create(a_node("n3"))
        store.commit(tx, 7)
        with pytest.raises(InvariantViolation):
            store.commit(late, 8)

    def test_other_messages_are_not_stored(self) -> None:
        with pytest.raises(InvariantViolation, match="Peer is not a stored object"):
            Store().begin(1, 1.0).create(api.Peer())


class TestApply:
    def test_follower_keeps_metadata_and_ignores_versions(self) -> None:
        store = filled(a_node("n1"))
        node = a_node("n1", "host")
        node.meta.version.index = 99
        store.apply([api.StoreAction(action=UPDATE, node=node)])
        assert store.view().get(api.Node, "n1") == node

    @pytest.mark.parametrize(
        ("bad", "text"),
        [
            (api.StoreAction(action=CREATE, node=a_node("n1")), "object already exists"),
            (api.StoreAction(action=UPDATE, node=a_node("n9")), "object does not exist"),
            (api.StoreAction(action=REMOVE, node=a_node("n9")), "object does not exist"),
            (
                api.StoreAction(action=CREATE, network=a_network("w9", "WEB")),
                "name conflicts with an existing object",
            ),
            (
                api.StoreAction(action=CREATE, resource=a_resource("r1", "r", "no")),
                "object kind is unregistered",
            ),
            (
                api.StoreAction(action=UPDATE, extension=an_extension("e1", "k")),
                "extensions are immutable",
            ),
            (
                api.StoreAction(action=REMOVE, extension=an_extension("e1", "k")),
                "cannot delete extension because objects of this type exist in the data store",
            ),
            (api.StoreAction(action=CREATE, node=api.Node()), "object without an id"),
            (api.StoreAction(action=CREATE), "unrecognized action type"),
            (api.StoreAction(node=a_node("n9")), "unrecognized action type"),
        ],
    )
    def test_one_bad_action_drops_the_whole_entry(self, bad: api.StoreAction, text: str) -> None:
        store = filled(
            a_node("n1"),
            a_network("w1", "web"),
            an_extension("e1", "k"),
            a_resource("r0", "r0", "k"),
        )
        before = store.save()
        seen: list[Batch] = []
        store.subscribe(seen.append)
        good = api.StoreAction(action=CREATE, node=a_node("n2"))
        with pytest.raises(StoreError) as caught:
            store.apply([good, bad])
        assert caught.value.message == f"action 2 of 2: {text}"
        assert isinstance(caught.value.__cause__, SwarmError)
        assert store.save() == before
        assert seen == []

    def test_kinds_of_newer_managers_are_passed_over(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The managers that know them apply the entry, and go on from what it made."""
        newer = api.StoreAction.FromString(b"\x08\x01\xa2\x06\x04\x0a\x02x1")  # target 100
        store = filled(a_node("n1"))
        for id in ("n2", "n3"):
            store.apply([newer, api.StoreAction(action=CREATE, node=a_node(id))])
        assert [node.id for node in store.view().all(api.Node)] == ["n1", "n2", "n3"]
        assert caplog.messages == ["objects of kind 100 are not known here and not kept"]

    def test_actions_see_those_before_them(self) -> None:
        store = filled(a_network("w1", "web"))
        store.apply(
            [
                api.StoreAction(action=CREATE, extension=an_extension("e1", "k")),
                api.StoreAction(action=CREATE, resource=a_resource("r1", "r", "k")),
                api.StoreAction(action=REMOVE, network=a_network("w1", "web")),
                api.StoreAction(action=CREATE, network=a_network("w2", "web")),
            ]
        )
        assert [n.id for n in store.view().all(api.Network)] == ["w2"]


class TestEvents:
    def test_one_batch_in_order_with_old_objects(self) -> None:
        store = filled(a_node("n1"), a_node("n2"))
        seen: list[Batch] = []
        stop = store.subscribe(seen.append)
        tx = store.begin(6, 1.0)
        old = store.view().all(api.Node)[0]
        draft = edit(old)
        draft.status.addr = "x"
        new = tx.update(draft)
        tx.delete(api.Node, "n2")
        tx.create(a_node("n3"))
        store.commit(tx, 7)
        (batch,) = seen
        assert (batch.version, batch.restored) == (7, False)
        assert [e.action for e in batch.events] == [Action.UPDATE, Action.DELETE, Action.CREATE]
        assert batch.events[0].object is new and batch.events[0].old is old
        assert batch.events[1].object.id == "n2" and batch.events[1].old is not None
        assert batch.events[2].old is None
        stop()
        store.apply([api.StoreAction(action=CREATE, node=a_node("n4"))])
        assert len(seen) == 1

    def test_an_entry_without_actions_tells_nobody(self) -> None:
        store = filled(a_node("n1"))
        seen: list[Batch] = []
        store.subscribe(seen.append)
        view = store.view()
        store.apply([])
        store.commit(store.begin(6, 1.0), 7)
        assert seen == []
        assert view.get(api.Node, "n1") is not None

    def test_follower_batches_have_no_version(self) -> None:
        store = Store(strict=True)
        seen: list[Batch] = []
        store.subscribe(seen.append)
        store.apply([api.StoreAction(action=CREATE, node=a_node("n4"))])
        assert [b.version for b in seen] == [None]

    def test_restore_tells_the_difference(self) -> None:
        store = filled(a_node("n1"), a_node("n2"), a_network("w1", "web"))
        snapshot = store.save()
        snapshot.nodes[0].status.addr = "new"
        del snapshot.nodes[1]
        snapshot.nodes.add(id="n3")
        seen: list[Batch] = []
        store.subscribe(seen.append)
        store.restore(snapshot)
        (batch,) = seen
        assert batch.restored
        assert [(e.action, e.object.id) for e in batch.events] == [
            (Action.UPDATE, "n1"),
            (Action.DELETE, "n2"),
            (Action.CREATE, "n3"),
        ]
        snapshot.nodes[0].status.addr = "the snapshot is not shared"
        assert store.view().all(api.Node)[0].status.addr == "new"
        store.verify()

    def test_restore_swaps_names(self) -> None:
        store = filled(a_network("w1", "a"), a_network("w2", "b"))
        snapshot = store.save()
        snapshot.networks[0].spec.annotations.name = "b"
        snapshot.networks[1].spec.annotations.name = "a"
        store.restore(snapshot)
        found = store.view().named(api.Network, "a")
        assert found is not None and found.id == "w2"


class TestStrict:
    def test_an_edit_in_place_is_caught(self) -> None:
        store = filled(a_node("n1"))
        store.view().all(api.Node)[0].status.addr = "oops"
        with pytest.raises(InvariantViolation, match="stored node n1 was edited in place"):
            store.apply([api.StoreAction(action=CREATE, node=a_node("n2"))])

    def test_an_old_view_is_caught(self) -> None:
        store = filled(a_node("n1"))
        view = store.view()
        store.apply([api.StoreAction(action=CREATE, node=a_node("n2"))])
        with pytest.raises(InvariantViolation, match="a view was used after"):
            view.get(api.Node, "n1")

    def test_stamps_name_states(self) -> None:
        store = filled(a_node("n1"))
        one, two = store.view(), store.view()
        assert one.stamp is two.stamp
        store.apply([api.StoreAction(action=CREATE, node=a_node("n2"))])
        assert store.view().stamp is not one.stamp


def test_cluster_is_the_default_one() -> None:
    store = Store(strict=True)
    assert store.view().cluster() is None
    tx = store.begin(1, 1.0)
    cluster = api.Cluster(id="c1")
    cluster.spec.annotations.name = "default"
    tx.create(cluster)
    found = tx.cluster()
    assert found is not None and found.id == "c1"


def test_edit_keeps_unknown_fields() -> None:
    raw = a_node("n1").SerializeToString() + b"\xfa\x3f\x03new"  # field 1023, bytes
    node = edit(api.Node.FromString(raw))
    node.status.addr = "x"
    assert b"\xfa\x3f\x03new" in node.SerializeToString()


def _timed(work: Callable[[], None]) -> float:
    import time

    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def test_a_hundred_updates_commit_quickly() -> None:
    store = Store()
    tx = store.begin(1, 1.0)
    for number_ in range(100):
        tx.create(a_node(f"n{number_:03}", f"host{number_}"))
    store.commit(tx, 2)

    def update_all() -> None:
        tx = store.begin(3, 2.0)
        for number_ in range(100):
            node = tx.get(api.Node, f"n{number_:03}")
            assert node is not None
            draft = edit(node)
            draft.status.addr = "10.0.0.1"
            tx.update(draft)
        store.commit(tx, 4)

    # 2 ms is what it should take; the test allows for a busy machine.
    assert _timed(update_all) < 0.02
