"""--format, -q, --filter: tables, Go templates and JSON of lists and inspects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarmctl import gotext, human, tabs
from tests.cli.conftest import Run
from tests.harness.fakedaemon import FakeDaemon, Reply

TLS = {"TrustRoot": "r", "CertIssuerSubject": "s", "CertIssuerPublicKey": "k"}


def a_node(id: str, hostname: str, **manager: Any) -> dict[str, Any]:
    node: dict[str, Any] = {
        "ID": id,
        "Version": {"Index": 7},
        "CreatedAt": "2026-11-21T16:36:31.622356833Z",
        "UpdatedAt": "2026-11-21T16:36:31.5Z",
        "Spec": {"Labels": {"zone": "b", "a": "<x>"}, "Role": "worker", "Availability": "active"},
        "Description": {
            "Hostname": hostname,
            "Engine": {"EngineVersion": "28.2.2"},
            "TLSInfo": dict(TLS),
        },
        "Status": {"State": "ready", "Addr": "10.0.0.1"},
    }
    if manager:
        node["ManagerStatus"] = manager
    return node


@pytest.fixture
def nodes(daemon: FakeDaemon) -> FakeDaemon:
    """Three nodes, the first of them answering."""
    listed = [
        a_node("id10", "node10"),
        a_node("id2", "node2", Reachability="unreachable"),
        a_node("id1", "node1", Leader=True, Reachability="reachable"),
    ]
    listed[1]["Description"]["TLSInfo"]["CertIssuerSubject"] = "old"
    del listed[0]["Description"]["TLSInfo"]
    daemon.on("GET", "/nodes", listed)
    for node in listed:
        daemon.on("GET", f"/nodes/{node['ID']}", node)
    swarm = {"NodeID": "id1", "Cluster": {"TLSInfo": TLS}}
    return daemon.on("GET", "/info", {"Swarm": swarm})


LISTS = [
    (
        [],
        "ID        HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION\n"
        "id1 *     node1      Ready     Active         Leader           28.2.2\n"
        "id2       node2      Ready     Active         Unreachable      28.2.2\n"
        "id10      node10     Ready     Active                          28.2.2\n",
    ),
    (["-q"], "id1\nid2\nid10\n"),
    (
        ["--format", "{{.Hostname}} {{.TLSStatus}}"],
        "node1 Ready\nnode2 Needs Rotation\nnode10 Unknown\n",
    ),
    (
        ["--format", r"table {{.Hostname}}\t{{upper .Status}}\t{{.Self}}"],
        "HOSTNAME   STATUS    \nnode1      READY     true\nnode2      READY     false\n"
        "node10     READY     false\n",
    ),
    (
        ["--format", "{{if .Self}}{{json .}}{{end}}"],
        '{"Availability":"Active","EngineVersion":"28.2.2","Hostname":"node1","ID":"id1",'
        '"ManagerStatus":"Leader","Self":true,"Status":"Ready","TLSStatus":"Ready"}\n\n\n',
    ),
    (["--format", "raw", "-q"], "node_id: id1\nnode_id: id2\nnode_id: id10\n"),
    (
        ["--format", r"{{.ID}}:\t{{title (lower .Hostname)}}"],
        "id1:\tNode1\nid2:\tNode2\nid10:\tNode10\n",
    ),
    (
        ["--format", "{{pad .ID 1 2}}|{{truncate .Hostname 4}}|"],
        " id1  |node|\n id2  |node|\n id10  |node|\n",
    ),
    (["--format", '{{join (split .Hostname "d") "-"}}{{println}}'], "no-e1\n\nno-e2\n\nno-e10\n\n"),
]


@pytest.mark.parametrize(("words", "out"), LISTS)
def test_node_lists(run: Run, nodes: FakeDaemon, words: list[str], out: str) -> None:
    ran = run("node", "ls", *words)
    assert (ran.out, ran.err, ran.exit) == (out, "", 0)


def test_json_list(run: Run, nodes: FakeDaemon) -> None:
    lines = run("node", "ls", "--format", "json").out.splitlines()
    assert [json.loads(line)["ID"] for line in lines] == ["id1", "id2", "id10"]


def test_an_empty_list_is_its_header_and_asks_for_nothing_more(
    run: Run, daemon: FakeDaemon
) -> None:
    daemon.on("GET", "/nodes", [])
    header = "ID        HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION\n"
    assert run("node", "ls").out == header
    assert daemon.asked() == ["GET /v1.41/nodes"]


@pytest.mark.parametrize(
    ("form", "err"),
    [
        (
            "{{.Nope}}",
            'template parsing error: template: :1:2: executing "" at <.Nope>: can\'t evaluate '
            "field Nope in type *node.nodeContext\n",
        ),
        ("{{.ID", "template parsing error: template: :1: unclosed action\n"),
        ("{{nope}}", 'template parsing error: template: :1: function "nope" not defined\n'),
    ],
)
def test_bad_list_templates(run: Run, nodes: FakeDaemon, form: str, err: str) -> None:
    ran = run("node", "ls", "--format", form)
    assert (ran.out, ran.err, ran.exit) == ("", err, 1)


def test_filters_are_sent_as_the_client_sends_them(run: Run, nodes: FakeDaemon) -> None:
    run("node", "ls", "-q", "-f", "role=manager", "--filter", "Role=worker", "-f", "id=x y")
    filters = '{"id":{"x y":true},"role":{"manager":true,"worker":true}}'
    assert nodes.asked() == [f"GET /v1.41/nodes?filters={filters}"]


INSPECTS = [
    ("{{.ID}}", "id1\n"),
    ('{{.Spec.Labels.zone}} {{index .Spec.Labels "a"}}', "b <x>\n"),
    ("{{.Version.Index}}", "7\n"),
    ("{{.CreatedAt}}", "2026-11-21 16:36:31.622356833 +0000 UTC\n"),
    ("{{.UpdatedAt}}", "2026-11-21 16:36:31.5 +0000 UTC\n"),
    ("{{.Spec.Name}}|{{.Status.Message}}|{{.Description.Platform.OS}}", "||\n"),
    ("{{.ManagerStatus.Leader}}", "true\n"),
    (
        "{{json .Spec}}",
        '{"Labels":{"zone":"b","a":"<x>"},"Role":"worker","Availability":"active"}\n',
    ),
    ("{{json .CreatedAt}}", '"2026-11-21T16:36:31.622356833Z"\n'),
    ("{{range $k, $v := .Spec.Labels}}{{$k}}={{$v}},{{end}}", "a=<x>,zone=b,\n"),
    ("{{with .ManagerStatus}}{{.Reachability}}{{end}}", "reachable\n"),
]


@pytest.mark.parametrize(("form", "out"), INSPECTS)
def test_inspect_templates(run: Run, nodes: FakeDaemon, form: str, out: str) -> None:
    ran = run("node", "inspect", "-f", form, "self")
    assert (ran.out, ran.err, ran.exit) == (out, "", 0)


def test_fields_of_a_worker_are_empty_not_wrong(run: Run, nodes: FakeDaemon) -> None:
    ran = run("node", "inspect", "-f", "{{.ManagerStatus.Leader}}", "id2")
    assert (ran.out, ran.exit) == ("false\n", 0)
    ran = run("node", "inspect", "-f", "{{if .ManagerStatus}}m{{else}}w{{end}}", "id10")
    assert ran.out == "w\n"


@pytest.mark.parametrize(
    ("form", "err", "status"),
    [
        (
            "{{.Nope}}",
            'template parsing error: template: :1:2: executing "" at <.Nope>: can\'t evaluate '
            "field Nope in type swarm.Node\n",
            1,
        ),
        ("{{.ID", "template parsing error: template: :1: unclosed action\n", 64),
    ],
)
def test_bad_inspect_templates(
    run: Run, nodes: FakeDaemon, form: str, err: str, status: int
) -> None:
    ran = run("node", "inspect", "-f", form, "id1")
    assert (ran.err, ran.exit) == (err, status)


def test_inspect_prints_the_daemons_json_as_it_came(run: Run, daemon: FakeDaemon) -> None:
    raw = (
        '{"ID":"x","N":1.50,"Big":12345678901234567890,"E":{},"L":[],'
        '"S":"\\u003c\\"{,}\\"","T":[1,{"a":null}]}'
    )
    daemon.on("GET", "/nodes/x", Reply(raw, headers={"Content-Type": "application/json"}))
    assert run("node", "inspect", "x").out == (
        '[\n    {\n        "ID": "x",\n        "N": 1.50,\n        "Big": 12345678901234567890,\n'
        '        "E": {},\n        "L": [],\n        "S": "\\u003c\\"{,}\\"",\n        "T": [\n'
        '            1,\n            {\n                "a": null\n            }\n        ]\n'
        "    }\n]\n"
    )
    assert run("node", "inspect", "--format", "json", "x", "x").out == f"[{raw},{raw}]\n"


def test_inspect_shows_what_it_found_and_names_the_rest(run: Run, nodes: FakeDaemon) -> None:
    nodes.on("GET", "/nodes/no", Reply.error(404, "node no not found"))
    ran = run("node", "inspect", "-f", "{{.ID}}", "no", "id1", "no")
    line = "Error response from daemon: node no not found\n"
    assert (ran.out, ran.err, ran.exit) == ("id1\n", line * 2, 1)
    assert run("node", "inspect", "-f", "{{.ID}}", "no").out == "\n"


def test_pretty_takes_nothing_with_it(run: Run, nodes: FakeDaemon) -> None:
    ran = run("node", "inspect", "-f", "pretty {{.ID}}", "id1")
    assert ran.err == "cannot supply extra formatting options to the pretty template\n"
    plain = run("node", "inspect", "--format", "pretty", "id2").out
    assert plain == run("node", "inspect", "--pretty", "id2").out
    assert plain.startswith("ID:\t\t\tid2\nLabels:\n - a=<x>\n - zone=b\n")
    assert " CPUs:\t\t\t0\n Memory:\t\t\nEngine Version:\t\t28.2.2\n" in plain


def test_network_columns(run: Run, daemon: FakeDaemon) -> None:
    network = {
        "Id": "0123456789abcdef",
        "Name": "n",
        "Driver": "overlay",
        "Scope": "swarm",
        "EnableIPv4": True,
        "Created": "2026-01-02T03:04:05Z",
        "Labels": {"com.example.the-zone": "b", "a": "1"},
    }
    daemon.on("GET", "/networks", [network])
    label = '{{.Label "com.example.the-zone"}}'
    form = rf"table {{{{.ID}}}}\t{{{{.Labels}}}}\t{label}\t{{{{.IPv4}}}}\t{{{{.CreatedAt}}}}"
    assert run("network", "ls", "--format", form).out == (
        "NETWORK ID     LABELS                       the zone   IPV4      CREATED AT\n"
        "0123456789ab   a=1,com.example.the-zone=b   b          true      "
        "2026-01-02 03:04:05 +0000 UTC\n"
    )
    assert run("network", "ls", "--no-trunc", "-q").out == "0123456789abcdef\n"
    daemon.on("GET", "/networks/n", network)
    form = "{{.ID}} {{.Driver}} {{.Attachable}} {{.IPAM.Driver}}|"
    ran = run("network", "inspect", "-v", "-f", form, "n")
    assert ran.out == "0123456789abcdef overlay false |\n"
    assert daemon.asked()[-1] == "GET /v1.41/networks/n?verbose=true"


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("a\tb\nccc\td\n", "a   b\nccc d\n"),
        ("a\tb\n\nccccc\td\n", "a   b\n\nccccc d\n"),
        ("a\n", "a\n"),
        ("\tb\nx\ty\tz\n", "    b\nx   y   z\n"),
        ("日本\tb\nabc\td\n", "日本 b\nabc  d\n"),
    ],
)
def test_tab_stops(text: str, out: str) -> None:
    assert tabs.align(text, cell_min=4, padding=1) == out


def test_natural_order() -> None:
    names = ["node10", "node2", "Node1", "node02", "node", "n0de", "node2a", ""]
    ordered = ["", "Node1", "n0de", "node", "node2", "node2a", "node02", "node10"]
    assert sorted(names, key=human.natural_key) == ordered


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.9, "Less than a second"),
        (1.9, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (59.99 * 60, "59 minutes"),
        (3600, "About an hour"),
        (3600 * 1.6, "2 hours"),
        (3600 * 47, "47 hours"),
        (86400 * 2, "2 days"),
        (86400 * 13, "13 days"),
        (86400 * 14, "2 weeks"),
        (86400 * 60, "2 months"),
        (86400 * 90, "3 months"),
        (86400 * 729, "24 months"),
        (86400 * 731, "2 years"),
    ],
)
def test_durations_for_people(seconds: float, shown: str) -> None:
    assert human.duration(int(seconds * 10**9)) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (25276502016, "23.54GiB"), (2**70, "1ZiB")],
)
def test_sizes_for_people(count: int, shown: str) -> None:
    assert human.size(count) == shown


def test_ellipsis_counts_columns() -> None:
    assert human.ellipsis("abc", 3) == "abc"
    assert human.ellipsis("abcd", 3) == "ab…"
    assert human.ellipsis("日本語", 5) == "日本…"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("2026-11-21T16:36:31Z", "2026-11-21 16:36:31 +0000 UTC"),
        ("2026-11-21T16:36:31.120Z", "2026-11-21 16:36:31.12 +0000 UTC"),
        ("2026-11-21T16:36:31+02:00", "2026-11-21 16:36:31 +0200 +0200"),
        ("not a time", "not a time"),
    ],
)
def test_times_as_go_prints_them(raw: str, shown: str) -> None:
    assert gotext.Stamp(raw) == shown
    assert gotext.Stamp(raw).raw == raw
