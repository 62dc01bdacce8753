"""The allocator: networks get subnets and VXLAN ids, nodes their addresses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster.allocator import Allocator
from swarmd.cluster.allocator.planner import KEY
from swarmd.cluster.model.defaults import ClusterStart, ensure_started
from swarmd.cluster.planning import Plan
from swarmd.cluster.store import Batch, Store, Transaction, edit
from swarmd.manager.reconciler import Reconciler
from tests.harness.planners import StoreCommitter, a_moment, carry_out, plan_twice
from tests.harness.virtual import LoopClock, run_virtual

FIXTURES = Path(__file__).parents[1] / "fixtures" / "rest"
VXLAN = "com.docker.network.driver.overlay.vxlanid_list"
NOW = 1_700_000_000.0


class Lab:
    """A cluster just initialised, and a leader's allocator."""

    def __init__(self, pool: tuple[str, ...] = (), bits: int = 0) -> None:
        self.store = Store(strict=True)
        self.committer = StoreCommitter(self.store)
        self.allocator = Allocator()
        self.memo: object = None
        self.store.subscribe(self.hear)
        numbers = count()
        start = ClusterStart(
            "c1", "n1", b"", b"", "", "", "", default_address_pool=pool, subnet_size=bits
        )
        self.change(lambda tx: ensure_started(tx, start, lambda: f"w{next(numbers)}"))

    def hear(self, batch: Batch) -> None:
        """Show the allocator what happened, as its runner does."""
        for event in batch.events:
            list(self.allocator.keys_for(event, self.store.view()))

    def change(self, change: Callable[[Transaction], object]) -> None:
        """Somebody else writes."""
        self.committer.now(change)

    def plan(self) -> Plan:
        return plan_twice(self.allocator, self.store, KEY, a_moment(NOW, memo=self.memo))

    def settle(self) -> Plan:
        """Plan and commit until nothing is left; the last plan."""
        for number in range(20):
            plan = self.plan()
            self.memo = plan.memo
            if not plan.changes:
                return plan
            carry_out(self.store, plan, 100 + number)
        raise AssertionError("the allocator does not come to rest")

    def new_leader(self) -> None:
        """Another manager leads: nothing is remembered."""
        self.allocator, self.memo = Allocator(), None

    def network(self, name: str, **config: str) -> None:
        network = an_overlay(name, **config)
        self.change(lambda tx: tx.create(network))

    def node(self, id: str) -> None:
        self.change(lambda tx: tx.create(api.Node(id=id)))

    def remove(self, kind: type[api.Node] | type[api.Network] | type[api.Task], id: str) -> None:
        self.change(lambda tx: tx.delete(kind, id))

    def named(self, name: str) -> api.Network:
        network = self.store.view().named(api.Network, name)
        assert network is not None
        return network

    def subnet(self, name: str) -> list[tuple[str, str]]:
        return [(c.subnet, c.gateway) for c in self.named(name).ipam.configs]

    def vxlan(self, name: str) -> str:
        return self.named(name).driver_state.options[VXLAN]

    def addresses(self, node_id: str) -> dict[str, list[str]]:
        node = self.store.view().get(api.Node, node_id)
        assert node is not None
        return {a.network.spec.annotations.name: list(a.addresses) for a in node.attachments}

    def run_task(self, id: str, node_id: str, *networks: str) -> None:
        """A task with addresses in networks starts on a node."""
        task = api.Task(id=id, node_id=node_id)
        task.status.state = api.TaskState.ASSIGNED
        for index, name in enumerate(networks):
            attachment = task.networks.add()
            attachment.network.CopyFrom(self.named(name))
            attachment.addresses.append(f"10.0.{index + 1}.77/24")
        self.change(lambda tx: tx.create(task))

    def end_task(self, id: str) -> None:
        task = self.store.view().get(api.Task, id)
        assert task is not None
        draft = edit(task)
        draft.status.state = api.TaskState.SHUTDOWN
        self.change(lambda tx: tx.update(draft))


def an_overlay(name: str, **config: str) -> api.Network:
    network = api.Network(id=f"id-{name}")
    network.spec.annotations.name = name
    network.spec.driver_config.name = "overlay"
    network.spec.ipam.driver.name = "default"
    if config:
        network.spec.ipam.configs.add(**config)
    return network


@pytest.fixture
def lab() -> Lab:
    lab = Lab()
    lab.settle()
    return lab


class TestAfterInit:
    def test_ingress_gets_the_first_subnet_and_vxlan_id(self, lab: Lab) -> None:
        ingress = lab.named("ingress")
        (config,) = ingress.ipam.configs
        recorded = json.loads((FIXTURES / "network-overlay.json").read_text())["ingress"]
        assert [{"Subnet": config.subnet, "Gateway": config.gateway}] == recorded["IPAM"]["Config"]
        assert config.family == api.IPAMConfig.AddressFamily.IPV4
        assert ingress.ipam.driver.name == recorded["IPAM"]["Driver"]
        assert not ingress.ipam.driver.options
        assert ingress.driver_state.name == recorded["Driver"]
        assert dict(ingress.driver_state.options) == recorded["Options"]
        assert not ingress.spec.ipam.configs and not ingress.spec.driver_config.name

    def test_predefined_networks_stay_on_their_nodes(self, lab: Lab) -> None:
        for name in ("bridge", "host"):
            network = lab.named(name)
            assert network.driver_state.name == name and not network.driver_state.options
            assert network.HasField("ipam") and network.ipam.HasField("driver")
            assert not network.ipam.driver.name and not network.ipam.configs

    def test_the_first_node_is_attached_to_ingress(self, lab: Lab) -> None:
        node = lab.store.view().get(api.Node, "n1")
        assert node is not None
        (attachment,) = node.attachments
        assert list(attachment.addresses) == ["10.0.0.2/24"]
        assert attachment.network == lab.named("ingress")

    def test_networks_go_in_one_entry_and_nodes_in_the_next(self) -> None:
        lab = Lab()
        first = lab.plan()
        assert len(first.changes) == 3
        carry_out(lab.store, first)
        lab.memo = first.memo
        assert len(lab.plan().changes) == 1

    def test_every_further_node_gets_the_next_address(self, lab: Lab) -> None:
        lab.node("n2")
        lab.settle()
        lab.node("n0")
        lab.settle()
        assert lab.addresses("n2") == {"ingress": ["10.0.0.3/24"]}
        assert lab.addresses("n0") == {"ingress": ["10.0.0.4/24"]}

    def test_more_nodes_than_fit_one_entry(self, lab: Lab) -> None:
        lab.change(lambda tx: [tx.create(api.Node(id=f"x{n:03}")) for n in range(250)])
        plan = lab.plan()
        assert len(plan.changes) == 200
        lab.settle()
        held = [lab.addresses(node.id)["ingress"][0] for node in lab.store.view().all(api.Node)]
        assert len(set(held)) == 251


class TestNetworks:
    def test_subnets_and_ids_go_on_in_order_of_creation(self, lab: Lab) -> None:
        lab.network("zeta")
        lab.network("alpha")
        lab.settle()
        assert lab.subnet("zeta") == [("10.0.1.0/24", "10.0.1.1")]
        assert lab.subnet("alpha") == [("10.0.2.0/24", "10.0.2.1")]
        assert (lab.vxlan("zeta"), lab.vxlan("alpha")) == ("4097", "4098")

    def test_a_given_subnet_is_taken_as_recorded(self, lab: Lab) -> None:
        (task,) = json.loads((FIXTURES / "task-with-networks.json").read_text())
        recorded = task["NetworksAttachments"][1]["Network"]
        lab.network("net1", subnet="10.50.0.0/24", gateway="10.50.0.1")
        lab.settle()
        network = lab.named("net1")
        assert [
            {"Subnet": c.subnet, "Gateway": c.gateway} for c in network.ipam.configs
        ] == recorded["IPAMOptions"]["Configs"]
        assert network.driver_state.name == recorded["DriverState"]["Name"]
        assert dict(network.driver_state.options) == recorded["DriverState"]["Options"]
        assert network.ipam.driver.name == recorded["IPAMOptions"]["Driver"]["Name"]

    def test_pools_and_size_given_at_init(self) -> None:
        lab = Lab(("10.20.0.0/16",), 26)
        lab.settle()
        lab.network("web")
        lab.settle()
        assert lab.subnet("ingress") == [("10.20.0.0/26", "10.20.0.1")]
        assert lab.subnet("web") == [("10.20.0.64/26", "10.20.0.65")]
        assert lab.addresses("n1") == {"ingress": ["10.20.0.2/26"]}

    def test_the_size_counts_only_with_a_pool(self) -> None:
        lab = Lab((), 26)
        lab.settle()
        assert lab.subnet("ingress") == [("10.0.0.0/24", "10.0.0.1")]

    def test_several_pools_are_used_in_turn(self) -> None:
        lab = Lab(("10.20.0.0/23", "192.168.0.0/24"), 24)
        lab.settle()
        for name in ("a", "b", "c"):
            lab.network(name)
            lab.settle()
        assert lab.subnet("a") == [("10.20.1.0/24", "10.20.1.1")]
        assert lab.subnet("b") == [("192.168.0.0/24", "192.168.0.1")]
        assert not lab.named("c").HasField("driver_state")

    def test_a_subnet_of_a_given_size_from_the_pools(self, lab: Lab) -> None:
        lab.network("small", subnet="0.0.0.0/28")
        lab.settle()
        assert lab.subnet("small") == [("10.0.1.0/28", "10.0.1.1")]

    def test_default_subnets_keep_clear_of_given_ones(self, lab: Lab) -> None:
        lab.network("given", subnet="10.0.1.0/25")
        lab.network("free")
        lab.settle()
        assert lab.subnet("free") == [("10.0.2.0/24", "10.0.2.1")]

    def test_freed_subnets_and_ids_are_used_late(self, lab: Lab) -> None:
        lab.network("one")
        lab.settle()
        lab.remove(api.Network, "id-one")
        lab.network("two")
        lab.settle()
        assert lab.subnet("two") == [("10.0.2.0/24", "10.0.2.1")]
        assert lab.vxlan("two") == "4098"

    def test_driver_options_are_kept_and_an_id_asked_for_is_given(self, lab: Lab) -> None:
        network = an_overlay("web", subnet="10.60.0.0/24")
        network.spec.ipam.configs.add(subnet="10.61.0.0/24")
        network.spec.driver_config.options.update({"encrypted": "", VXLAN: "5000"})
        network.spec.ipam.driver.options["a"] = "b"
        lab.change(lambda tx: tx.create(network))
        lab.settle()
        assert dict(lab.named("web").driver_state.options) == {
            "encrypted": "",
            VXLAN: "5000,4097",
        }
        assert dict(lab.named("web").ipam.driver.options) == {"a": "b"}

    def test_an_ipv6_subnet_has_no_vxlan_id(self, lab: Lab) -> None:
        network = an_overlay("web", subnet="10.60.0.0/24")
        network.spec.ipv6_enabled = True
        network.spec.ipam.configs.add(subnet="fd00::/64", family=api.IPAMConfig.AddressFamily.IPV6)
        lab.change(lambda tx: tx.create(network))
        lab.settle()
        assert lab.vxlan("web") == "4097"
        assert lab.subnet("web")[1] == ("fd00::/64", "fd00::1")

    def test_a_range_confines_addresses_but_not_the_gateway_given(self, lab: Lab) -> None:
        lab.network("web", subnet="10.60.0.0/24", range="10.60.0.128/25", gateway="10.60.0.1")
        lab.settle()
        lab.run_task("t1", "n1", "web")
        lab.settle()
        assert lab.subnet("web") == [("10.60.0.0/24", "10.60.0.1")]
        assert lab.addresses("n1")["web"] == ["10.60.0.128/24"]

    def test_a_subnet_is_shown_as_it_was_asked_for(self, lab: Lab) -> None:
        lab.network("web", subnet="10.60.0.5/24")
        lab.network("more")
        lab.settle()
        lab.run_task("t1", "n1", "web")
        lab.settle()
        assert lab.subnet("web") == [("10.60.0.5/24", "10.60.0.1")]
        assert lab.addresses("n1")["web"] == ["10.60.0.2/24"]
        lab.network("same", subnet="10.60.0.9/24")
        lab.settle()
        assert lab.subnet("same") == []

    def test_networks_may_share_a_subnet_with_ranges_of_their_own(self, lab: Lab) -> None:
        lab.network("a", subnet="10.60.0.0/24", range="10.60.0.0/25")
        lab.network("b", subnet="10.60.0.0/24", range="10.60.0.128/25")
        lab.network("c", subnet="10.60.0.0/24")
        lab.settle()
        assert lab.subnet("b") == [("10.60.0.0/24", "10.60.0.128")]
        assert not lab.named("c").HasField("driver_state")

    @pytest.mark.parametrize(
        ("config", "text"),
        [
            ({"subnet": "10.0.0.0/16"}, "subnet 10.0.0.0/16 overlaps with 10.0.0.0/24"),
            ({"subnet": "nonsense"}, "invalid subnet nonsense"),
            ({"subnet": "10.60.0.0/24", "gateway": "10.61.0.1"}, "10.61.0.1 is not to be had"),
            ({"subnet": "10.60.0.0/24", "gateway": "10.60.0.0"}, "10.60.0.0 is not to be had"),
            ({"subnet": "10.60.0.0/24", "gateway": "x"}, "invalid gateway x"),
            ({"subnet": "10.60.0.0/32"}, "no address is left in 10.60.0.0/32"),
            ({"subnet": "::/64"}, "there is no default pool for IPv6"),
        ],
    )
    def test_what_cannot_be_had_stays_unallocated(
        self, lab: Lab, config: dict[str, str], text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        lab.network("web", **config)
        before = lab.named("web")
        last = lab.settle()
        assert lab.named("web") == before
        assert last.wake_at == NOW + 300
        assert text in caplog.text
        caplog.clear()
        lab.settle()
        assert caplog.text == ""  # said once

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({VXLAN: "x"}, "invalid vxlan id list x"),
            ({VXLAN: "99999999"}, "vxlan id out of range"),
            ({VXLAN: "4096"}, "vxlan id 4096 is already in use"),
        ],
    )
    def test_bad_vxlan_ids(
        self, lab: Lab, options: dict[str, str], text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        network = an_overlay("web")
        network.spec.driver_config.options.update(options)
        lab.change(lambda tx: tx.create(network))
        lab.settle()
        assert text in caplog.text
        lab.network("next")
        lab.settle()
        # what the refused network had been given goes back
        assert lab.subnet("next") == [("10.0.1.0/24", "10.0.1.1")]

    @pytest.mark.parametrize("what", ["driver", "ipam"])
    def test_unknown_drivers(self, lab: Lab, what: str, caplog: pytest.LogCaptureFixture) -> None:
        network = an_overlay("web")
        if what == "driver":
            network.spec.driver_config.name = "weave"
        else:
            network.spec.ipam.driver.name = "infoblox"
        lab.change(lambda tx: tx.create(network))
        lab.settle()
        assert not lab.named("web").HasField("driver_state")
        assert ("weave" if what == "driver" else "infoblox") in caplog.text

    def test_an_overlap_is_resolved_when_the_other_goes(self, lab: Lab) -> None:
        lab.network("first", subnet="10.60.0.0/24")
        lab.network("second", subnet="10.60.0.0/16")
        lab.settle()
        assert not lab.named("second").HasField("driver_state")
        lab.remove(api.Network, "id-first")
        last = lab.settle()
        assert lab.subnet("second") == [("10.60.0.0/16", "10.60.0.1")]
        assert last.wake_at is None

    def test_a_second_ingress_is_left_alone(self, lab: Lab) -> None:
        second = an_overlay("other")
        second.spec.ingress = True
        lab.change(lambda tx: tx.create(second))
        lab.settle()
        assert not lab.named("other").HasField("driver_state")


class TestNodes:
    def test_networks_of_tasks_come_and_go(self, lab: Lab) -> None:
        lab.network("web")
        lab.settle()
        lab.run_task("t1", "n1", "web")
        lab.settle()
        assert lab.addresses("n1") == {"ingress": ["10.0.0.2/24"], "web": ["10.0.1.2/24"]}
        lab.run_task("t2", "n1", "web")
        lab.end_task("t1")
        lab.settle()
        assert "web" in lab.addresses("n1")
        lab.end_task("t2")
        lab.settle()
        assert lab.addresses("n1") == {"ingress": ["10.0.0.2/24"]}

    def test_node_local_networks_of_tasks_do_not_count(self, lab: Lab) -> None:
        lab.run_task("t1", "n1", "host")
        lab.settle()
        assert lab.addresses("n1") == {"ingress": ["10.0.0.2/24"]}

    def test_a_removed_ingress_leaves_the_nodes_and_comes_back(self, lab: Lab) -> None:
        lab.node("n2")
        lab.settle()
        lab.remove(api.Network, "w0")
        lab.settle()
        assert lab.addresses("n1") == lab.addresses("n2") == {}
        again = an_overlay("ingress2", subnet="10.99.0.0/24")
        again.spec.ingress = True
        lab.change(lambda tx: tx.create(again))
        lab.settle()
        assert lab.addresses("n1") == {"ingress2": ["10.99.0.2/24"]}
        assert lab.addresses("n2") == {"ingress2": ["10.99.0.3/24"]}

    def test_a_freed_address_is_used_late(self, lab: Lab) -> None:
        lab.node("n2")
        lab.settle()
        lab.remove(api.Node, "n2")
        lab.node("n3")
        lab.settle()
        assert lab.addresses("n3") == {"ingress": ["10.0.0.4/24"]}

    def test_a_full_network_serves_again_when_a_node_goes(self) -> None:
        lab = Lab(("10.20.0.0/16",), 29)  # six addresses, one of them the gateway
        lab.settle()
        for number in range(2, 7):
            lab.node(f"n{number}")
        last = lab.settle()
        assert lab.addresses("n5") != {} and lab.addresses("n6") == {}
        assert last.wake_at == NOW + 300
        lab.remove(api.Node, "n2")
        last = lab.settle()
        assert lab.addresses("n6") == {"ingress": ["10.20.0.3/29"]}
        assert last.wake_at is None

    def test_addresses_of_services_and_tasks_are_kept_clear(self, lab: Lab) -> None:
        service = api.Service(id="s1")
        service.endpoint.virtual_ips.add(network_id="w0", addr="10.0.0.3/24")
        task = api.Task(id="t1")
        attachment = task.networks.add(addresses=["10.0.0.4/24"])
        attachment.network.CopyFrom(lab.named("ingress"))
        lab.change(lambda tx: [tx.create(service), tx.create(task)])
        lab.node("n2")
        lab.settle()
        assert lab.addresses("n2") == {"ingress": ["10.0.0.5/24"]}

    def test_an_entry_without_address_is_mended(self, lab: Lab) -> None:
        node = api.Node(id="n2")
        node.attachments.add().network.CopyFrom(lab.named("ingress"))
        lab.change(lambda tx: tx.create(node))
        lab.settle()
        assert lab.addresses("n2") == {"ingress": ["10.0.0.3/24"]}

    def test_status_updates_of_nodes_are_not_looked_at(self, lab: Lab) -> None:
        keys: list[object] = []
        view = lab.store.view
        stop = lab.store.subscribe(
            lambda batch: keys.extend(
                key for event in batch.events for key in lab.allocator.keys_for(event, view())
            )
        )
        node = lab.store.view().get(api.Node, "n1")
        assert node is not None
        draft = edit(node)
        draft.status.state = api.NodeStatus.State.READY
        lab.change(lambda tx: tx.update(draft))
        stop()
        assert keys == []


class TestNewLeader:
    def test_what_is_held_stays_and_nothing_is_given_twice(self, lab: Lab) -> None:
        lab.network("web")
        lab.node("n2")
        lab.settle()
        lab.run_task("t1", "n2", "web")
        lab.settle()
        before = lab.store.save()
        lab.new_leader()
        lab.settle()
        assert lab.store.save() == before
        lab.network("db")
        lab.node("n3")
        lab.settle()
        assert lab.subnet("db") == [("10.0.2.0/24", "10.0.2.1")]
        assert lab.vxlan("db") == "4098"
        assert lab.addresses("n3") == {"ingress": ["10.0.0.4/24"]}

    def test_a_half_done_network_is_finished_with_what_it_has(self, lab: Lab) -> None:
        network = an_overlay("web", subnet="10.60.0.0/24")
        network.ipam.driver.name = "default"
        network.ipam.configs.add(subnet="10.70.0.0/24", gateway="10.70.0.9")
        lab.change(lambda tx: tx.create(network))
        lab.settle()
        assert lab.subnet("web") == [("10.70.0.0/24", "10.70.0.9")]
        assert lab.vxlan("web") == "4097"

    def test_unreadable_state_of_others_is_left_alone(self, lab: Lab) -> None:
        network = an_overlay("odd")
        network.driver_state.name = "overlay"
        network.driver_state.options[VXLAN] = "many"
        network.ipam.configs.add(subnet="somewhere", gateway="there")
        node = api.Node(id="n2")
        attachment = node.attachments.add(addresses=["here"])
        attachment.network.CopyFrom(lab.named("ingress"))
        lab.change(lambda tx: [tx.create(network), tx.create(node)])
        lab.new_leader()
        lab.settle()
        assert lab.addresses("n2") == {"ingress": ["here"]}


def test_right_after_init_in_the_runner() -> None:
    async def main() -> None:
        store = Store(strict=True)
        committer = StoreCommitter(store, delay=0.002)
        runner = Reconciler([Allocator()], store, committer, LoopClock(), SeededEntropy(1))
        start = ClusterStart("c1", "n1", b"", b"", "", "", "")
        numbers = count()
        async with Tasks() as tasks:
            ready = asyncio.Event()
            tasks.spawn(runner.run(ready), "reconciler")
            await ready.wait()
            committer.now(lambda tx: ensure_started(tx, start, lambda: f"w{next(numbers)}"))
            await asyncio.sleep(0.005)
            node = store.view().get(api.Node, "n1")
            assert node is not None
            assert [list(a.addresses) for a in node.attachments] == [["10.0.0.2/24"]]
            committer.now(lambda tx: [tx.create(api.Node(id=f"x{n}")) for n in range(300)])
            await asyncio.sleep(0.05)
            held = [a for n in store.view().all(api.Node) for a in n.attachments]
            assert len({a.addresses[0] for a in held}) == 254 - 1
            assert runner.resting

    run_virtual(main())
