"""Address arithmetic and the allocator under random use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_interface, ip_network

from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarmd import api
from swarmd.cluster.allocator import Allocator
from swarmd.cluster.allocator.ipam import Span, next_number, next_subnet, usable
from swarmd.cluster.allocator.ledger import VXLAN_OPTION, Ledger, is_allocated
from swarmd.cluster.allocator.planner import KEY
from swarmd.cluster.planning import make
from swarmd.cluster.store import Batch, Store, Transaction, edit
from tests.harness.planners import a_moment

POOL = IPv4Network("10.0.0.0/26")


@given(
    st.integers(0, 30),
    st.integers(-5, 30),
    st.integers(-10, 50),
    st.sets(st.integers(0, 30)),
)
def test_next_number_is_the_next_free_one_around_the_clock(
    first: int, length: int, after: int, taken: set[int]
) -> None:
    span = Span(first, first + length - 1)
    numbers = list(range(span.first, span.last + 1))
    start = numbers.index(after) if after in span else 0
    free = [number for number in numbers[start:] + numbers[:start] if number not in taken]
    assert next_number(span, after, taken.__contains__) == (free[0] if free else None)


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(26, 32)), max_size=8),
    st.integers(26, 30),
    st.integers(-1, 63),
)
def test_next_subnet_is_the_next_free_block(
    blocks: list[tuple[int, int]], bits: int, offset: int
) -> None:
    base = int(POOL.network_address)
    held = [IPv4Network((base + number * 4, size), strict=False) for number, size in blocks]
    after = -1 if offset < 0 else base + offset
    found = next_subnet([POOL], bits, after, held)
    candidates = list(POOL.subnets(new_prefix=bits))
    behind = [c for c in candidates if int(c.network_address) > after]
    free = [c for c in [*behind, *candidates] if not any(c.overlaps(block) for block in held)]
    assert found == (free[0] if free else None)


@given(st.lists(st.sampled_from(["10.0.0.0/28", "10.9.0.0/27", "192.168.0.0/28"]), unique=True))
def test_pools_are_used_up_completely_and_in_order(texts: list[str]) -> None:
    pools = [IPv4Network(text) for text in texts]
    held: list[IPv4Network] = []
    after = -1
    while pools and (found := next_subnet(pools, 29, after, held)) is not None:
        held.append(found)
        after = int(found.broadcast_address)
    assert held == [block for pool in pools for block in pool.subnets(new_prefix=29)]


@given(st.integers(8, 32), st.integers(0, 2**32 - 1))
def test_usable_leaves_out_the_ends(bits: int, number: int) -> None:
    subnet = IPv4Network((number, bits), strict=False)
    span = usable(subnet)
    assert max(span.last - span.first + 1, 0) == max(subnet.num_addresses - 2, 0)
    assert int(subnet.network_address) not in span
    assert int(subnet.broadcast_address) not in span


@dataclass(frozen=True)
class Step:
    """One thing that happens to a cluster."""

    kind: str
    number: int
    other: int


KINDS = (
    "network",
    "given",
    "drop-network",
    "node",
    "node",
    "drop-node",
    "task",
    "task",
    "end-task",
    "service",
    "drop-service",
    "plan",
    "plan",
    "new-leader",
)
STEPS = st.lists(
    st.builds(Step, st.sampled_from(KINDS), st.integers(0, 6), st.integers(0, 4)),
    min_size=12,  # fewer do not fill a subnet
    max_size=48,
)
GIVEN = ("10.0.1.0/28", "10.0.0.0/24", "10.0.2.0/29", "10.0.0.16/28", "192.168.7.0/24")


class World:
    """A cluster that random steps happen to, with a small pool so that things run out."""

    def __init__(self) -> None:
        self.store = Store(strict=True)
        self.allocator = Allocator()
        self.memo: object = None
        self.version = 10
        self.store.subscribe(self.hear)
        cluster = api.Cluster(id="c", subnetSize=29, defaultAddressPool=["10.0.0.0/26"])
        cluster.spec.annotations.name = "default"
        ingress = api.Network(id="ingress")
        ingress.spec.annotations.name = "ingress"
        ingress.spec.ingress = True
        self.change(lambda tx: (tx.create(cluster), tx.create(ingress)))

    def hear(self, batch: Batch) -> None:
        for event in batch.events:
            list(self.allocator.keys_for(event, self.store.view()))

    def change(self, change: Callable[[Transaction], object]) -> None:
        self.version += 1
        tx = self.store.begin(self.version, float(self.version))
        change(tx)
        self.store.commit(tx, self.version + 1)

    def plan(self) -> bool:
        """Plan and commit once; a planner that knows only the state must want the same."""
        moment = a_moment(memo=self.memo)
        plan = self.allocator.plan(self.store.view(), KEY, moment)
        assert plan == self.allocator.plan(self.store.view(), KEY, moment)
        assert plan == Allocator().plan(self.store.view(), KEY, moment)
        self.memo = plan.memo
        self.change(lambda tx: make(plan.changes, tx))
        return bool(plan.changes)

    def settle(self) -> None:
        for _ in range(6):
            if not self.plan():
                return
        raise AssertionError("the allocator does not come to rest")

    def step(self, step: Step) -> None:
        view, id = self.store.view(), f"{step.kind[-4:]}{step.number}"
        match step.kind:
            case "network" | "given":
                network = api.Network(id=f"net{step.number}")
                network.spec.annotations.name = network.id
                if step.kind == "given":
                    network.spec.ipam.configs.add(subnet=GIVEN[step.other])
                if view.get(api.Network, network.id) is None:
                    self.change(lambda tx: tx.create(network))
            case "drop-network":
                if view.get(api.Network, f"net{step.number}") is not None:
                    self.change(lambda tx: tx.delete(api.Network, f"net{step.number}"))
            case "node" | "service":
                self.toggle(api.Node if step.kind == "node" else api.Service, id, True)
            case "drop-node" | "drop-service":
                self.toggle(api.Node if step.kind[-4:] == "node" else api.Service, id, False)
            case "task":
                self.start_task(step)
            case "end-task":
                self.end_task(f"task{step.number}")
            case "plan":
                self.plan()
            case "new-leader":
                self.allocator, self.memo = Allocator(), None

    def toggle(self, kind: type[api.Node] | type[api.Service], id: str, there: bool) -> None:
        held = self.store.view().get(kind, id)
        if there and held is None:
            obj = kind(id=id)
            obj.spec.annotations.name = id
            self.change(lambda tx: tx.create(obj))
        elif not there and held is not None:
            self.change(lambda tx: tx.delete(kind, id))

    def start_task(self, step: Step) -> None:
        network = self.store.view().get(api.Network, f"net{step.other}")
        id = f"task{step.number}"
        if network is None or self.store.view().get(api.Task, id) is not None:
            return
        task = api.Task(id=id, node_id=f"node{step.number}")
        task.status.state = api.TaskState.RUNNING
        task.networks.add().network.CopyFrom(network)
        self.change(lambda tx: tx.create(task))

    def end_task(self, id: str) -> None:
        task = self.store.view().get(api.Task, id)
        if task is None:
            return
        if task.status.state > api.TaskState.RUNNING:
            self.change(lambda tx: tx.delete(api.Task, id))
            return
        draft = edit(task)
        draft.status.state = api.TaskState.FAILED
        self.change(lambda tx: tx.update(draft))

    def check(self) -> None:
        """What must hold at any time."""
        view = self.store.view()
        ready = [network for network in view.all(api.Network) if is_allocated(network)]
        subnets = [ip_network(c.subnet) for n in ready for c in n.ipam.configs]
        for index, one in enumerate(subnets):
            assert not any(one.overlaps(two) for two in subnets[index + 1 :]), subnets
        ids = [n.driver_state.options[VXLAN_OPTION] for n in ready]
        assert len(set(ids)) == len(ids)
        for network in ready:
            (config,) = network.ipam.configs
            held = [config.gateway]
            for node in view.all(api.Node):
                for attachment in node.attachments:
                    assert len(attachment.addresses) == 1
                    if attachment.network.id == network.id:
                        held.append(attachment.addresses[0].split("/")[0])
            assert len(set(held)) == len(held), held
            hosts = {str(host) for host in ip_network(config.subnet).hosts()}
            assert set(held) <= hosts

    def check_settled(self) -> None:
        """What must hold once the allocator rests."""
        view = self.store.view()
        ingress = view.get(api.Network, "ingress")
        assert ingress is not None
        for node in view.all(api.Node):
            tasks = [t for t in view.by(api.Task, "node", node.id) if t.status.state <= 512]
            wanted = {a.network.id for t in tasks for a in t.networks} | {"ingress"}
            names = [a.network.id for a in node.attachments]
            assert set(names) <= wanted and len(set(names)) == len(names)
            for missing in wanted - set(names):
                network = view.get(api.Network, missing)
                if network is None or not is_allocated(network):
                    continue
                subnet = ip_network(network.ipam.configs[0].subnet)
                used = sum(
                    1
                    for other in view.all(api.Node)
                    for a in other.attachments
                    if ip_interface(a.addresses[0]).ip in subnet
                )
                assert used + 1 == len(list(subnet.hosts())), "left out though there was room"


@settings(max_examples=120)
@given(STEPS)
@example([Step("network", number, 0) for number in (0, 3, 1)] + [Step("given", 2, 3)])
def test_no_address_is_held_twice_whatever_happens(steps: list[Step]) -> None:
    world = World()
    for step in steps:
        world.step(step)
        world.check()
    world.settle()
    world.check()
    world.check_settled()


@settings(max_examples=60)
@given(STEPS)
def test_the_ledger_kept_up_equals_one_made_anew(steps: list[Step]) -> None:
    world = World()
    world.plan()
    for step in steps:
        world.step(step)
        if world.allocator._stamp is not None:
            made = Ledger.of(world.store.view())
            assert world.allocator._ledger.contents() == made.contents()


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_addresses_go_round(leaving: list[int]) -> None:
    """Each newcomer gets the next free address behind the last one given, around the subnet."""
    world = World()
    for number in range(4):
        world.step(Step("node", number, 0))
    world.settle()  # six addresses: 1 is the gateway's, 2 to 5 the nodes', 6 is free
    held, last = {number: number + 2 for number in range(4)}, 5
    for number in leaving:
        world.step(Step("drop-node", number, 0))
        world.step(Step("node", number, 0))
        del held[number]
        round_ = [*range(last + 1, 7), *range(2, last + 1)]
        last = next(address for address in round_ if address not in held.values())
        held[number] = last
        world.settle()
        node = world.store.view().get(api.Node, f"node{number}")
        assert node is not None
        assert [a.addresses[0] for a in node.attachments] == [f"10.0.0.{last}/29"]
