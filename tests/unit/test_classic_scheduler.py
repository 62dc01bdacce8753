"""Placement in Swarm v1: wishes, expressions, filters, strategies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import InvalidArgument
from swarmd.faces.classic.scheduler.errors import BadExpression, NoNode
from swarmd.faces.classic.scheduler.expressions import parse
from swarmd.faces.classic.scheduler.filters import FILTERS
from swarmd.faces.classic.scheduler.names import image_matches, split_reference
from swarmd.faces.classic.scheduler.node import Container, Node, find_container
from swarmd.faces.classic.scheduler.select import Scheduler
from swarmd.faces.classic.scheduler.strategies import STRATEGIES
from swarmd.faces.classic.scheduler.wish import Wish, from_inspect

GIB = 1 << 30


def a_wish(*env: str, **host: Any) -> Wish:
    return Wish({"Image": "busybox", "Env": list(env), "HostConfig": host})


def a_container(id: str, name: str = "", **more: Any) -> Container:
    wish = Wish({"HostConfig": more.pop("host", {}), "Labels": more.pop("labels", {})})
    summary = {"Id": id, "Names": [f"/{name}"] if name else [], "Labels": wish.labels}
    return Container("E", "e", wish, summary, {"HostConfig": wish.host, **more})


def a_node(name: str, *containers: Container, **more: Any) -> Node:
    settings: dict[str, Any] = {
        "labels": {},
        "total_memory": 4 * GIB,
        "total_cpus": 4,
        **more,
    }
    for container in containers:
        container.engine_id, container.engine_name = f"ID-{name}", name
    return Node(id=f"ID-{name}", name=name, containers=list(containers), **settings)


def chosen(wish: Wish, *nodes: Node, strategy: str = "spread") -> list[str]:
    return [node.name for node in Scheduler(SeededEntropy(1), strategy).select(wish, nodes)]


def test_expressions_leave_the_environment_and_become_labels() -> None:
    wish = Wish(
        {
            "Env": ["A=1", "constraint:node==n1", "affinity:image==redis", "constraint:x!=y", "B"],
            "Labels": {"com.docker.swarm.constraints": '["region==eu"]'},
        }
    )
    assert wish.body["Env"] == ["A=1", "B"]
    assert wish.expressions("constraints") == ["region==eu", "node==n1", "x!=y"]
    assert wish.expressions("affinities") == ["image==redis"]
    assert wish.labels["com.docker.swarm.affinities"] == '["image==redis"]'
    assert wish.has_node_constraint()
    again = wish.copy()
    assert again.expressions("constraints") == wish.expressions("constraints")
    again.remove("constraints", "node==n1")
    assert not again.has_node_constraint()
    assert wish.has_node_constraint()


def test_fields_of_old_clients_count() -> None:
    wish = Wish({"Memory": 5, "CpuShares": 2, "Cpuset": "0", "MemorySwap": 0})
    assert (wish.memory, wish.cpus, wish.host["CpusetCpus"]) == (5, 2, "0")
    assert "Memory" not in wish.body


@pytest.mark.parametrize(
    ("policies", "text"),
    [(["maybe"], "invalid reschedule policy: maybe"), (["off", "off"], "too many")],
)
def test_reschedule_policies_are_checked(policies: list[str], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        a_wish(*(f"reschedule:{policy}" for policy in policies)).validate()


@given(st.integers(1, 64), st.integers(0, 64))
def test_cpus_come_back_from_the_engines_shares(engine_cpus: int, cpus: int) -> None:
    body = a_wish(CpuShares=cpus).for_engine(engine_cpus)
    back = from_inspect({"Config": {}, "HostConfig": body["HostConfig"]}, engine_cpus)
    assert back.cpus == cpus


def test_a_shape_that_is_wrong_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Wish({"HostConfig": []})


MATCHES = [
    ("node==n1", ["n1"], True),
    ("node==n1", ["n10"], False),
    ("node!=n1", ["n2"], True),
    ("node==n*", ["n10"], True),
    ("node==/n[12]/", ["xn2y"], True),
    ("node==/^n[12]$/", ["xn2y"], False),
    ("node!=/foo|bar/", ["bar"], False),
    ("node==~n1", ["n1"], True),
    ("node==a", ["x", "a"], True),
    ("node!=a", [], True),
    ("node==/(/", ["("], False),
    ("node==[0--", ["-"], False),
    ("node==[[0]", ["0"], True),
    ("storagedriver==", None, None),
    ("n==x", None, None),
    ("node=x", None, None),
    ("1node==x", None, None),
    ("node==a,b", None, None),
    ("node==" + "a" * 5000, None, None),
]


@pytest.mark.parametrize(("text", "candidates", "expected"), MATCHES, ids=lambda v: str(v)[:25])
def test_expressions(text: str, candidates: list[str] | None, expected: bool | None) -> None:
    if candidates is None:
        with pytest.raises(BadExpression):
            parse([text])
    else:
        (expression,) = parse([text])
        assert expression.matches(*candidates) is expected


written = st.builds(
    "{}{}{}".format,
    st.sampled_from(["node", "storage.driver", "a_b", "x", "1"]),
    st.sampled_from(["==", "!=", "==~", "!=~", "="]),
    st.text("ab12*/^$[]()|\\+?.-_:", max_size=12),
)


@given(st.one_of(st.text(max_size=40), written))
def test_reading_an_expression_gives_one_or_says_why(text: str) -> None:
    try:
        (expression,) = parse([text])
    except BadExpression as error:
        assert error.message
    else:
        opposite = replace(expression, operator="!=" if expression.operator == "==" else "==")
        assert expression.matches("x") is not opposite.matches("x")


def test_names_of_images() -> None:
    assert split_reference("h:5000/a/b") == ("h:5000/a/b", "")
    assert split_reference("h:5000/a/b:1") == ("h:5000/a/b", "1")
    assert split_reference("a@sha256:12") == ("a", "sha256:12")
    image = {"Id": "sha256:abcdef123", "RepoTags": ["busybox:1"], "RepoDigests": ["r@sha256:99"]}
    for wanted in ("sha256:abcdef123", "abcdef", "busybox", "busybox:1", "r@sha256:99"):
        assert image_matches(image, wanted), wanted
    for wanted in ("ab", "busybox:2", "busy"):
        assert not image_matches(image, wanted), wanted
    assert image_matches(image, "busybox:2", with_tag=False)
    # As docker 28 sends them in pushes.
    for wanted in ("docker.io/library/busybox:1", "index.docker.io/library/busybox", "library/x"):
        assert image_matches(image, wanted) is ("busybox" in wanted), wanted
    theirs = {"Id": "sha256:1", "RepoTags": ["me/library:1", "h:5000/library/b:2"]}
    for wanted in ("docker.io/me/library:1", "me/library", "h:5000/library/b"):
        assert image_matches(theirs, wanted), wanted
    for wanted in ("library", "b:2", "docker.io/library/library"):
        assert not image_matches(theirs, wanted), wanted


def test_containers_are_found_by_id_swarm_id_name_and_prefix() -> None:
    one = a_container("1111aaaa1111aaaa", "web", labels={"com.docker.swarm.id": "5555ffff"})
    two = a_container("1111bbbb2222", "db")
    twin = a_container("3333cccc", "db")
    found = a_node("n1", one, two).containers
    (other,) = a_node("n2", twin).containers
    all_of = [*found, other]
    cases = {
        "1111aaaa1111aaaa": one,
        "1111aaaa1111": one,
        "5555ffff": one,
        "5555": one,
        "web": one,
        "/web": one,
        "n1/db": two,
        "ID-n2/db": twin,
        "db": None,
        "1111": None,
        "3333": twin,
        "": None,
        "nothing": None,
    }
    for wanted, expected in cases.items():
        assert find_container(all_of, wanted) is expected, wanted


def bound(port: str, ip: str = "") -> dict[str, Any]:
    return {"PortBindings": {"80/tcp": [{"HostIp": ip, "HostPort": port}]}}


FILTERED: list[tuple[str, Wish, list[str]]] = [
    ("health", a_wish(), ["n1", "n2"]),
    ("port", a_wish(**bound("80")), ["n2", "n3"]),
    ("port", a_wish(**bound("80", "10.0.0.1")), ["n2", "n3"]),
    ("port", a_wish(**bound("81")), ["n1", "n2", "n3"]),
    ("port", a_wish(**bound("90", "10.0.0.9")), ["n1", "n2", "n3"]),
    ("port", a_wish(**bound("90", "10.0.0.1")), ["n1", "n3"]),
    ("port", a_wish(**bound("")), ["n1", "n2", "n3"]),
    ("containerslots", a_wish(), ["n2", "n3"]),
    ("dependency", a_wish(VolumesFrom=["web:ro"]), ["n1"]),
    ("dependency", a_wish(Links=["db:alias"]), ["n2"]),
    ("dependency", a_wish(NetworkMode="container:n2/db"), ["n2"]),
    ("dependency", a_wish(NetworkMode="bridge"), ["n1", "n2", "n3"]),
    ("affinity", a_wish("affinity:container==web"), ["n1"]),
    ("affinity", a_wish("affinity:container!=web"), ["n2", "n3"]),
    ("affinity", a_wish("affinity:container==c*"), ["n1"]),
    ("affinity", a_wish("affinity:image==redis"), ["n2"]),
    ("affinity", a_wish("affinity:image==redis:7"), ["n2"]),
    ("affinity", a_wish("affinity:tier==front"), ["n1"]),
    ("constraint", a_wish("constraint:node==n2"), ["n2"]),
    ("constraint", a_wish("constraint:node==ID-n3"), ["n3"]),
    ("constraint", a_wish("constraint:storage==ssd"), ["n1", "n2"]),
    ("constraint", a_wish("constraint:storage!=ssd"), ["n3"]),
    ("constraint", a_wish("constraint:storage==ssd", "constraint:node!=n1"), ["n2"]),
    ("whitelist", a_wish("whitelist:node==n1|n3"), ["n1", "n3"]),
]


def three_nodes() -> list[Node]:
    return [
        a_node(
            "n1",
            a_container("c1", "web", host=bound("80"), labels={"tier": "front"}),
            labels={"storage": "ssd", "containerslots": "1"},
        ),
        a_node(
            "n2",
            a_container(
                "d2",
                "db",
                NetworkSettings={"Ports": {"1/tcp": [{"HostIp": "10.0.0.1", "HostPort": "90"}]}},
            ),
            labels={"storage": "ssd", "containerslots": "many"},
            images=[{"Id": "sha256:ee", "RepoTags": ["redis:7"]}],
        ),
        a_node("n3", health=0),
    ]


@pytest.mark.parametrize(("name", "wish", "kept"), FILTERED)
def test_filters_keep_the_right_nodes(name: str, wish: Wish, kept: list[str]) -> None:
    assert [node.name for node in FILTERS[name].keep(wish, three_nodes(), True)] == kept


def test_exposed_ports_of_the_host_network() -> None:
    info = {"Config": {"ExposedPorts": {"80/tcp": {}}}}
    taken = a_node("n1", a_container("c", host={"NetworkMode": "host"}, **info))
    wish = Wish({"HostConfig": {"NetworkMode": "host"}, "ExposedPorts": {"80/tcp": {}}})
    assert chosen(wish, taken, a_node("n2")) == ["n2"]
    with pytest.raises(NoNode, match=r"\[port 80/tcp \(Host mode\)\]"):
        chosen(wish, taken)


def test_a_container_being_made_holds_its_port() -> None:
    node = a_node("n1")
    wish = a_wish(Memory=GIB, **bound("80"))
    node.add(Container(node.id, node.name, wish))
    assert node.used_memory == GIB
    assert chosen(wish, node, a_node("n2")) == ["n2"]


def test_soft_conditions_are_given_up_and_hard_ones_not() -> None:
    one, two = a_node("n1"), a_node("n2")
    assert chosen(a_wish("constraint:node==~n2"), one, two) == ["n2"]
    assert chosen(a_wish("constraint:node==~n9"), one, two) == ["n1", "n2"]
    assert chosen(a_wish("affinity:container!=~x"), one, two) == ["n1", "n2"]
    with pytest.raises(NoNode) as caught:
        chosen(a_wish("constraint:node==n9", "affinity:a1==~b"), one, two)
    assert caught.value.message == (
        "Unable to find a node that satisfies the following conditions "
        "\n[available container slots]\n[a1==b (soft=true)]\n[node==n9]"
    )


def test_an_unreadable_condition_is_named() -> None:
    with pytest.raises(NoNode, match="error from constraint filter: One of operator ==, !="):
        chosen(a_wish("constraint:node"), a_node("n1"))


def test_without_healthy_nodes() -> None:
    with pytest.raises(NoNode, match="No healthy node available in the cluster"):
        chosen(a_wish(), a_node("n1", health=0))
    with pytest.raises(NoNode, match="No nodes available in the cluster"):
        Scheduler(SeededEntropy(1), "spread", []).select(a_wish(), [])


def test_spread_and_binpack_go_opposite_ways() -> None:
    empty = a_node("n1")
    full = a_node("n2", a_container("a"), a_container("b"), used_memory=2 * GIB, used_cpus=1)
    wish = a_wish(Memory=GIB)
    assert chosen(wish, full, empty) == ["n1", "n2"]
    assert chosen(wish, full, empty, strategy="binpack") == ["n2", "n1"]
    assert chosen(a_wish(), full, empty) == ["n1", "n2"]  # no reservation: fewest containers
    ailing = a_node("n3", health=33)
    for strategy in ("spread", "binpack"):
        assert chosen(a_wish(), ailing, full, strategy=strategy) == ["n2", "n3"]


def test_what_does_not_fit_goes_nowhere() -> None:
    node = a_node("n1", used_memory=4 * GIB, used_cpus=4)
    for wish in (a_wish(Memory=GIB), a_wish(CpuShares=1), a_wish(Memory=5 * GIB)):
        with pytest.raises(NoNode, match="no resources available to schedule container"):
            chosen(wish, node)


def test_names_of_strategies_and_filters_are_checked() -> None:
    assert Scheduler(SeededEntropy(1), "binpacking").strategy == "binpack"
    with pytest.raises(InvalidArgument, match="strategy not supported"):
        Scheduler(SeededEntropy(1), "best")
    with pytest.raises(InvalidArgument, match="filter not supported"):
        Scheduler(SeededEntropy(1), "spread", ["health", "x"])


nodes_drawn = st.lists(
    st.builds(
        lambda memory, cpus, count, health: (memory, cpus, count, health),
        st.integers(0, 4 * GIB),
        st.integers(0, 4),
        st.integers(0, 4),
        st.sampled_from([0, 33, 100]),
    ),
    max_size=6,
)


@given(
    nodes_drawn,
    st.sampled_from(sorted(STRATEGIES)),
    st.one_of(st.just(0), st.integers(0, 2 * GIB)),
    st.one_of(st.just(0), st.integers(0, 3)),
    st.integers(0, 99),
)
def test_placement_is_sound(
    drawn: list[tuple[int, int, int, int]], strategy: str, memory: int, cpus: int, seed: int
) -> None:
    nodes = [
        a_node(
            f"n{number}",
            *(a_container(f"c{number}-{index}") for index in range(count)),
            used_memory=used,
            used_cpus=used_cpus,
            health=health,
        )
        for number, (used, used_cpus, count, health) in enumerate(drawn)
    ]
    wish = a_wish(Memory=memory, CpuShares=cpus)
    fits = {
        node.name
        for node in nodes
        if node.health
        and (not memory or node.used_memory + memory < node.total_memory * 1.01)
        and (not cpus or node.used_cpus + cpus <= node.total_cpus)
    }
    try:
        picked = Scheduler(SeededEntropy(seed), strategy).select(wish, nodes)
    except NoNode:
        assert strategy != "random" or not any(node.health for node in nodes)
        assert strategy == "random" or not any(
            node.health
            and node.used_memory + memory <= node.total_memory
            and node.used_cpus + cpus <= node.total_cpus
            for node in nodes
        )
        return
    names = [node.name for node in picked]
    assert len(set(names)) == len(names)
    assert all(node.health for node in picked)
    if strategy != "random":
        assert set(names) <= fits
    if strategy == "spread" and not memory and not cpus:
        ranks = [(-node.health, len(node.containers)) for node in picked]
        assert ranks == sorted(ranks)
    again = Scheduler(SeededEntropy(seed), strategy).select(wish, nodes)
    assert [node.name for node in again] == names
