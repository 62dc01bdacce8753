"""The signer: who gets a certificate, from whom, and what happens when that fails."""

from __future__ import annotations

import pytest

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import chains
from swarmd.cluster.ca.errors import ExternalCAError
from swarmd.cluster.housekeeping import signer
from swarmd.cluster.housekeeping.signer import RETRY_SECONDS, Signer, SignExternally, Tried
from swarmd.cluster.planning import Moment, Plan, Update
from swarmd.cluster.store import Action, Event
from tests.harness.ca_kit import CLUSTER_ID, NOW, State, World

KEY, CSR = ca.new_key_and_csr()
URL = "https://ca.example/sign"


def moment(now: float = NOW, memo: object | None = None, seed: int = 1) -> Moment:
    entropy = SeededEntropy(seed)
    return Moment(now=now, new_id=lambda: "id", memo=memo, token=entropy.token)


def plan(world: World, node_id: str = "n1", at: Moment | None = None) -> Plan:
    return Signer().plan(world.store.view(), node_id, at or moment())


def only_update(found: Plan) -> api.Node:
    assert len(found.changes) == 1 and isinstance(found.changes[0], Update)
    node = found.changes[0].object
    assert isinstance(node, api.Node)
    return node


@pytest.mark.parametrize("state", [State.RENEW, State.PENDING])
@pytest.mark.parametrize("role", [api.NodeRole.WORKER, api.NodeRole.MANAGER])
def test_waiting_nodes_are_signed(state: api.IssuanceStatus.State, role: api.NodeRole) -> None:
    world = World()
    world.add_node("n1", state=state, csr=CSR, role=role)
    node = only_update(plan(world))
    assert node.certificate.status == api.IssuanceStatus(state=State.ISSUED)
    assert node.certificate.csr == CSR
    verified = ca.verify(node.certificate.certificate, world.root.pem, NOW)
    name = ca.MANAGER if role == api.NodeRole.MANAGER else ca.WORKER
    assert chains.subject_of(verified.leaf) == ca.Subject("n1", CLUSTER_ID, (name,))
    assert chains.validity(verified.leaf)[1] == (NOW + 30) // 60 * 60 + 7_776_000


@pytest.mark.parametrize("state", [State.ISSUED, State.FAILED, State.ROTATE, State.UNKNOWN])
def test_others_are_left_alone(state: api.IssuanceStatus.State) -> None:
    world = World()
    world.add_node("n1", state=state, csr=CSR)
    assert plan(world) == Plan()
    assert list(Signer().all_keys(world.store.view())) == []


def test_pending_needs_acceptance_and_renewal_does_not() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING, csr=CSR)
    pending = api.NodeSpec.Membership.PENDING
    world.change_node("n1", lambda draft: setattr(draft.spec, "membership", pending))
    assert plan(world) == Plan()
    world.change_node("n1", lambda draft: setattr(draft.certificate.status, "state", State.RENEW))
    assert plan(world).changes


def test_expiry_follows_the_cluster() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING, csr=CSR)
    world.change_cluster(
        lambda draft: setattr(draft.spec.ca_config.node_cert_expiry, "seconds", 3600)
    )
    leaf = chains.parse(only_update(plan(world)).certificate.certificate)[0]
    assert chains.validity(leaf)[1] == (NOW + 30) // 60 * 60 + 3600


def test_a_request_that_cannot_be_signed_fails_for_good() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING, csr=b"junk")
    node = only_update(plan(world))
    assert node.certificate.status.state == State.FAILED
    assert "CSR Decode failed" in node.certificate.status.err
    assert not node.certificate.certificate


def test_an_unknown_role_fails() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING, csr=CSR)
    world.change_node("n1", lambda draft: setattr(draft.certificate, "role", 7))
    assert only_update(plan(world)).certificate.status.err == "failed to parse api role: 7"


def test_without_a_key_it_is_tried_again_later() -> None:
    world = World(with_key=False)
    world.add_node("n1", state=State.PENDING, csr=CSR)
    found = plan(world)
    assert found.changes == () and found.effects == ()
    assert found.wake_at == NOW + RETRY_SECONDS
    assert found.reason == "no valid signer found"


def test_a_broken_root_is_tried_again_later() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING, csr=CSR)
    world.change_cluster(lambda draft: setattr(draft.root_ca, "ca_cert", b"junk"))
    found = plan(world)
    assert found.changes == () and found.wake_at == NOW + RETRY_SECONDS
    assert found.reason.startswith("invalid Root CA object in cluster: invalid root certificates")


def with_urls(world: World, *urls: str) -> None:
    world.change_cluster(
        lambda draft: draft.spec.ca_config.external_cas.extend(
            api.ExternalCA(url=url) for url in urls
        )
    )


def test_external_ca_comes_first_and_keeps_its_distance() -> None:
    world = World()
    with_urls(world, URL, "https://second")
    world.add_node("n1", state=State.PENDING, csr=CSR)
    found = plan(world)
    assert found.changes == ()
    effect = found.effects[0]
    assert isinstance(effect, SignExternally)
    assert effect.urls == (URL, "https://second")
    assert effect.subject == ca.Subject("n1", CLUSTER_ID, (ca.WORKER,))
    assert (effect.csr, effect.trust_pem, effect.intermediates) == (CSR, world.root.pem, b"")
    assert isinstance(found.memo, Tried)
    soon = plan(world, at=moment(NOW + 3, found.memo))
    assert (soon.effects, soon.wake_at, soon.memo) == ((), NOW + RETRY_SECONDS, found.memo)
    later = plan(world, at=moment(NOW + RETRY_SECONDS, found.memo))
    assert later.effects == (effect,)
    # the wall clock was set back: not a whole eternity
    assert plan(world, at=moment(NOW - 1000, found.memo)).effects == (effect,)


def test_a_new_request_or_new_urls_are_not_held_back() -> None:
    world = World()
    with_urls(world, URL)
    world.add_node("n1", state=State.PENDING, csr=CSR)
    memo = plan(world).memo
    world.change_node("n1", lambda draft: setattr(draft.certificate, "csr", b"other"))
    assert plan(world, at=moment(NOW + 1, memo)).effects
    world.change_node("n1", lambda draft: setattr(draft.certificate, "csr", CSR))
    with_urls(world, "https://second")
    assert plan(world, at=moment(NOW + 1, memo)).effects


def test_which_events_matter() -> None:
    world = World()
    world.add_node("n1", state=State.PENDING, csr=CSR)
    idle = world.add_node("n2")
    planner, view = Signer(), world.store.view()
    waiting = world.node("n1")
    assert list(planner.all_keys(view)) == ["n1"]
    assert list(planner.keys_for(Event(Action.CREATE, waiting), view)) == ["n1"]
    assert list(planner.keys_for(Event(Action.UPDATE, idle, idle), view)) == []
    old, new = api.Cluster(), api.Cluster()
    assert list(planner.keys_for(Event(Action.UPDATE, new, old), view)) == []
    new.root_ca.ca_key = b"key"
    assert list(planner.keys_for(Event(Action.UPDATE, new, old), view)) == ["n1"]
    new.CopyFrom(old)
    new.spec.ca_config.external_cas.add(url=URL)
    assert list(planner.keys_for(Event(Action.UPDATE, new, old), view)) == ["n1"]
    assert list(planner.keys_for(Event(Action.CREATE, api.Task(id="t")), view)) == []
    assert planner.quiet_seconds == 0


def test_signing_twice_differs_only_in_the_signature() -> None:
    """ECDSA signatures are random; all that is decided here is not."""
    world = World()
    world.add_node("n1", state=State.PENDING, csr=CSR)
    first, second = (
        chains.parse(only_update(plan(world)).certificate.certificate)[0] for _ in range(2)
    )
    assert first.tbs_certificate_bytes == second.tbs_certificate_bytes


def test_planning_on_the_result_is_empty() -> None:
    world = World()
    world.add_node("n1", state=State.RENEW, csr=CSR)
    found = plan(world)
    world.committer.write(lambda tx: [tx.update(change.object) for change in found.changes])
    assert plan(world) == Plan()


def test_the_signer_follows_a_new_root() -> None:
    world, planner = World(), Signer()
    world.add_node("n1", state=State.PENDING, csr=CSR)
    assert planner.plan(world.store.view(), "n1", moment()).changes
    other = ca.new_root(NOW, SeededEntropy(44))
    assert other.signer is not None
    key = other.signer.key_pem

    def replace(draft: api.Cluster) -> None:
        draft.root_ca.ca_cert, draft.root_ca.ca_key = other.pem, key

    world.change_cluster(replace)
    node = only_update(planner.plan(world.store.view(), "n1", moment()))
    assert ca.verify(node.certificate.certificate, other.pem, NOW)


def effect_for(world: World, role: str = ca.WORKER) -> SignExternally:
    return SignExternally(
        "n1", CSR, ca.Subject("n1", CLUSTER_ID, (role,)), (URL,), world.root.pem, b"MIDDLE"
    )


def test_an_external_answer_is_checked() -> None:
    world = World()
    effect = effect_for(world)

    def signed(csr: bytes, node_id: str, role: str) -> bytes:
        return ca.sign(
            world.root,
            csr,
            ca.Subject(node_id, CLUSTER_ID, (role,)),
            now=NOW,
            entropy=SeededEntropy(1),
        )

    good = signed(CSR, "n1", ca.WORKER)
    assert signer.check_external(effect, b"\n" + good) == good + b"MIDDLE"
    _, other_csr = ca.new_key_and_csr()
    for wrong in (
        signed(other_csr, "n1", ca.WORKER),
        signed(CSR, "n2", ca.WORKER),
        signed(CSR, "n1", ca.MANAGER),
    ):
        with pytest.raises(ExternalCAError, match="a certificate for something else"):
            signer.check_external(effect, wrong)
    with pytest.raises(ExternalCAError, match="cannot be used"):
        signer.check_external(effect, b"junk")
    with pytest.raises(ExternalCAError, match="holds no certificate"):
        signer.check_external(effect, b"")
