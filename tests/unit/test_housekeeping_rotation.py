"""Root rotation round by round, its end, and the blacklist."""

from __future__ import annotations

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.base.timestamps import timestamp
from swarmd.cluster import ca
from swarmd.cluster.ca import tokens
from swarmd.cluster.ca.root import RootCA
from swarmd.cluster.housekeeping.rotation import (
    BLACKLIST_GRACE_SECONDS,
    ROUND_SECONDS,
    Blacklist,
    RootRotation,
    Round,
    prune_blacklist,
)
from swarmd.cluster.planning import Moment, Plan, Update
from swarmd.cluster.store import Action, Event, edit
from tests.harness.ca_kit import NOW, State, World, report

NEW = ca.new_root(NOW, SeededEntropy(50))


def moment(now: float = NOW, memo: object | None = None) -> Moment:
    return Moment(now=now, new_id=lambda: "id", memo=memo, token=SeededEntropy(1).token)


def rotating(nodes: int = 0, *, external: bool = False) -> World:
    world = World()

    def begin(draft: api.Cluster) -> None:
        rotation = draft.root_ca.root_rotation
        rotation.ca_cert = NEW.pem
        rotation.ca_key = b"" if external or NEW.signer is None else NEW.signer.key_pem
        rotation.cross_signed_ca_cert = ca.cross_sign(world.root, NEW.pem)
        draft.root_ca.last_forced_rotation = 7

    world.change_cluster(begin)
    for number in range(nodes):
        world.add_node(f"n{number:03}", issuer=world.root)
    return world


def plan(world: World, at: Moment | None = None) -> Plan:
    return RootRotation().plan(world.store.view(), "root", at or moment())


def told(found: Plan) -> list[str]:
    nodes = [change.object for change in found.changes if isinstance(change, Update)]
    for node in nodes:
        assert isinstance(node, api.Node)
        assert node.certificate.status.state == State.ROTATE
    return [node.id for node in nodes]


def test_without_rotation_there_is_nothing_to_do() -> None:
    world = World()
    world.add_node("n1")
    assert plan(world) == Plan()


def test_thirty_nodes_every_three_seconds() -> None:
    world = rotating(70)
    first = plan(world)
    assert told(first) == [f"n{number:03}" for number in range(30)]
    assert first.wake_at == NOW + ROUND_SECONDS
    assert first == plan(world)
    world.committer.write(lambda tx: [tx.update(change.object) for change in first.changes])
    early = plan(world, moment(NOW + 1, first.memo))
    assert (early.changes, early.wake_at) == ((), NOW + ROUND_SECONDS)
    second = plan(world, moment(NOW + 3, first.memo))
    assert told(second) == [f"n{number:03}" for number in range(30, 60)]
    world.committer.write(lambda tx: [tx.update(change.object) for change in second.changes])
    third = plan(world, moment(NOW + 6, second.memo))
    assert len(told(third)) == 10 and third.wake_at is None
    world.committer.write(lambda tx: [tx.update(change.object) for change in third.changes])
    assert plan(world, moment(NOW + 60, third.memo)).changes == ()
    # a step back of the clock delays nobody
    assert told(plan(rotating(3), moment(NOW, Round(NOW + 9999)))) == ["n000", "n001", "n002"]


def test_who_is_not_told() -> None:
    world = rotating()
    for state in (State.RENEW, State.PENDING, State.ROTATE):
        world.add_node(f"n{state}", state=state, issuer=world.root)
    world.add_node("done", issuer=NEW)
    world.add_node("failed", state=State.FAILED, issuer=world.root)
    world.add_node("silent")
    assert told(plan(world)) == ["failed", "silent"]


def test_the_certificate_bytes_stay() -> None:
    world = rotating(1)
    world.change_node("n000", lambda draft: setattr(draft.certificate, "certificate", b"old"))
    change = plan(world).changes[0]
    assert isinstance(change, Update) and isinstance(change.object, api.Node)
    assert change.object.certificate.certificate == b"old"


def finish(world: World) -> api.Cluster:
    found = plan(world)
    assert len(found.changes) == 1 and isinstance(found.changes[0], Update)
    cluster = found.changes[0].object
    assert isinstance(cluster, api.Cluster)
    return cluster


def check_finished(cluster: api.Cluster, before: api.Cluster, new: RootCA, key: bytes) -> None:
    root_ca = cluster.root_ca
    assert not root_ca.HasField("root_rotation")
    assert (root_ca.ca_cert, root_ca.ca_key, root_ca.ca_cert_hash) == (new.pem, key, new.digest)
    assert root_ca.last_forced_rotation == 7
    fresh = {root_ca.join_tokens.worker, root_ca.join_tokens.manager}
    old = {before.root_ca.join_tokens.worker, before.root_ca.join_tokens.manager}
    assert len(fresh | old) == 4
    for text in fresh:
        assert tokens.parse_token(text).digest == tokens.root_hash(new.pem)
    for field in ("id", "spec", "meta"):
        assert getattr(cluster, field) == getattr(before, field)


def test_the_end_is_one_update_of_the_cluster() -> None:
    world = rotating()
    world.add_node("n1", issuer=NEW)
    assert NEW.signer is not None
    check_finished(finish(world), world.cluster, NEW, NEW.signer.key_pem)


def test_the_end_with_an_external_root_leaves_no_key() -> None:
    world = rotating(external=True)
    check_finished(finish(world), world.cluster, NEW, b"")


def test_removing_the_last_old_node_ends_the_rotation() -> None:
    world = rotating(1)
    assert told(plan(world)) == ["n000"]
    world.committer.write(lambda tx: tx.delete(api.Node, "n000"))
    assert not finish(world).root_ca.HasField("root_rotation")


def test_fips_clusters_get_fips_tokens() -> None:
    world = rotating()
    world.change_cluster(lambda draft: setattr(draft, "fips", True))
    assert tokens.parse_token(finish(world).root_ca.join_tokens.worker).fips


def test_after_the_end_planning_is_empty() -> None:
    world = rotating()
    done = finish(world)
    world.committer.write(lambda tx: tx.update(done))
    assert plan(world) == Plan()


def test_a_broken_rotation_is_told() -> None:
    world = rotating(1)
    world.change_cluster(lambda draft: setattr(draft.root_ca.root_rotation, "ca_cert", b"junk"))
    found = plan(world)
    assert found.changes == () and "invalid cluster root rotation object" in found.reason


def test_which_events_matter() -> None:
    resting, world = World(), rotating(1)
    planner = RootRotation()
    node = Event(Action.UPDATE, world.node("n000"), world.node("n000"))
    assert list(planner.all_keys(world.store.view())) == ["root"]
    assert list(planner.keys_for(node, world.store.view())) == ["root"]
    assert list(planner.keys_for(node, resting.store.view())) == []
    task = Event(Action.CREATE, api.Task(id="t"))
    assert list(planner.keys_for(task, world.store.view())) == []
    cluster = Event(Action.UPDATE, world.cluster, world.cluster)
    assert list(planner.keys_for(cluster, world.store.view())) == ["root"]


def test_report_matters_not_the_stored_certificate() -> None:
    world = rotating(1)
    world.change_node("n000", lambda draft: report(draft, NEW))
    assert not finish(world).root_ca.HasField("root_rotation")


# --- blacklist ----------------------------------------------------------------------------


def with_blacklist(**ends: float | None) -> World:
    world = World()

    def fill(draft: api.Cluster) -> None:
        for node_id, end in ends.items():
            entry = draft.blacklisted_certificates[node_id]
            if end is not None:
                entry.expiry.CopyFrom(timestamp(end))

    world.change_cluster(fill)
    return world


def test_entries_go_a_week_after_their_certificate() -> None:
    week = BLACKLIST_GRACE_SECONDS
    world = with_blacklist(over=NOW - week - 1, just=NOW - week + 1, fresh=NOW + 5, endless=None)
    found = Blacklist().plan(world.store.view(), "blacklist", moment())
    change = found.changes[0]
    assert isinstance(change, Update) and isinstance(change.object, api.Cluster)
    assert sorted(change.object.blacklisted_certificates) == ["endless", "fresh", "just"]
    assert found.wake_at is not None and NOW < found.wake_at <= NOW + 3
    world.committer.write(lambda tx: tx.update(change.object))
    again = Blacklist().plan(world.store.view(), "blacklist", moment())
    assert again.changes == ()
    later = Blacklist().plan(world.store.view(), "blacklist", moment(again.wake_at or 0))
    assert len(later.changes) == 1


def test_nothing_to_prune() -> None:
    world = with_blacklist(endless=None)
    found = Blacklist().plan(world.store.view(), "blacklist", moment())
    assert found.changes == () and found.wake_at is None
    assert not prune_blacklist(edit(world.cluster), NOW + 1e9)


def test_only_changes_of_the_list_matter() -> None:
    world = with_blacklist(a=NOW)
    planner, view = Blacklist(), world.store.view()
    old = world.cluster
    same = edit(old)
    same.fips = True
    more = edit(old)
    more.blacklisted_certificates["b"].SetInParent()
    assert list(planner.keys_for(Event(Action.UPDATE, same, old), view)) == []
    assert list(planner.keys_for(Event(Action.UPDATE, more, old), view)) == ["blacklist"]
    assert list(planner.keys_for(Event(Action.CREATE, old), view)) == ["blacklist"]
    assert list(planner.keys_for(Event(Action.CREATE, api.Node(id="n")), view)) == []
