"""Laws of the Control service's pure parts that hold for any input."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd import api
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.base.gotemplate import Struct, Template, TemplateError
from swarmd.base.gotemplate.values import quote
from swarmd.manager.controlapi import constraints, filters, quorum, redact
from swarmd.manager.controlapi.durations import nanoseconds
from swarmd.manager.controlapi.freshness import is_up_to_date
from swarmd.manager.controlapi.images import is_image_reference
from swarmd.manager.controlapi.validate_names import check_dns_name
from tests.harness.controlroom import FakeMember

KEY_MARK = b"\xfekey-material\xff"
short = st.text(string.ascii_letters + string.digits + "-_. ", max_size=12)


@given(st.binary(min_size=1, max_size=8), st.booleans(), st.integers(0, 3))
def test_redaction_never_leaks_a_key(salt: bytes, rotating: bool, keys: int) -> None:
    secret = KEY_MARK + salt
    key = api.EncryptionKey(subsystem="swarm-manager", key=secret)
    cluster = api.Cluster(
        id="c",
        root_ca=api.RootCA(ca_key=secret, ca_cert=b"cert"),
        unlock_keys=[key] * keys,
        network_bootstrap_keys=[key] * keys,
    )
    cluster.spec.ca_config.signing_ca_key = secret
    if rotating:
        cluster.root_ca.root_rotation.ca_key = secret
        cluster.root_ca.root_rotation.cross_signed_ca_cert = b"crossed"
    before = cluster.SerializeToString(deterministic=True)
    shown = redact.cluster(cluster)
    assert KEY_MARK not in shown.SerializeToString()
    assert shown.root_ca.ca_cert == b"cert"
    assert shown.root_ca.HasField("root_rotation") == rotating
    assert cluster.SerializeToString(deterministic=True) == before


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_quorum_arithmetic(reachable: list[bool], data: st.DataObject) -> None:
    members = [FakeMember(n, f"n{n}", reachable=up) for n, up in enumerate(reachable, 1)]
    own = data.draw(st.integers(1, len(members)))
    who = data.draw(st.integers(1, len(members)))
    up = {m.raft_id for m in members if m.reachable} | {own}
    rest = len(members) - 1
    expected = len(up - {who}) > rest / 2
    assert quorum.can_remove(members, own, who) is expected


@given(
    st.dictionaries(short, short, max_size=4),
    st.dictionaries(short, short, max_size=2),
    st.lists(short, max_size=3),
    st.lists(short, max_size=3),
    short,
)
def test_filters_are_and_of_or(
    labels: dict[str, str],
    wanted: dict[str, str],
    names: list[str],
    prefixes: list[str],
    name: str,
) -> None:
    annotations = api.Annotations(name=name, labels=labels)
    asked = api.ListClustersRequest.Filters(names=names, name_prefixes=prefixes, labels=wanted)
    expected = (
        (not names or name in names)
        and (not prefixes or any(name.startswith(prefix) for prefix in prefixes))
        and all(k in labels and (not v or labels[k] == v) for k, v in wanted.items())
    )
    assert filters.matches(asked, "id", annotations) is expected


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_durations_are_exact_or_refused(seconds: int, nanos: int) -> None:
    duration: Any = api.RestartPolicy().delay
    duration.seconds, duration.nanos = seconds, nanos
    try:
        total = nanoseconds(duration)
    except SwarmError:
        legal = abs(seconds) <= 315_576_000_000 and abs(nanos) < 10**9 and seconds * nanos >= 0
        assert not legal or abs(seconds * 10**9 + nanos) > 2**63 - 1
        return
    assert total == seconds * 10**9 + nanos


@given(st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=63))
def test_dns_names_begin_and_end_with_a_letter_or_digit(name: str) -> None:
    """The slow pattern of the reference and our two fast ones agree."""
    slow = re.fullmatch(r"[a-zA-Z0-9](?:[-_]{0,63}[A-Za-z0-9]+){0,63}", name[:14])
    try:
        check_dns_name(api.Annotations(name=name[:14]))
    except InvalidArgument:
        assert slow is None
    else:
        assert slow is not None


written = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["node.id", "node.labels.a-b", "engine.labels.os", "x"]),
    st.sampled_from(["==", "!=", " == ", "=="]),
    st.text("abcxX09._-*", max_size=12),
    st.sampled_from(["", "", "", "!", "=="]),
)


@given(st.one_of(st.text(max_size=40), written))
def test_any_text_can_be_tried_as_a_constraint(text: str) -> None:
    try:
        parsed = constraints.parse([text])
    except SwarmError as error:
        assert "constraint expected" in error.message or "is invalid" in error.message
        return
    constraints.node_matches(parsed, api.Node())
    opposite = text.replace("==", "!=", 1) if parsed[0].equal else text.replace("!=", "==", 1)
    other = constraints.parse([opposite])[0]
    assert other.accepts("x") is not parsed[0].accepts("x")


@given(st.from_regex(r"\A[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}(:[a-z0-9]{1,8})?\Z"))
def test_plain_image_names_are_fine_and_upper_case_is_not(text: str) -> None:
    assert is_image_reference(text)
    assert not is_image_reference("X" + text)


@given(st.text(max_size=60))
def test_no_text_breaks_the_image_grammar(text: str) -> None:
    assert is_image_reference(text) in (True, False)


pieces = st.sampled_from(
    (
        *("{{", "}}", "{{-", " -}}", ".", ".A", ".M.k", "$", "$x", ":=", "=", "|", "(", ")", " "),
        *("if", "else", "end", "range", "with", "define", "template", "break", "nil", "true"),
        *('"s"', "`r`", "'c'", "12", "1.5", "-3", "len", "index", "printf", "eq", ",", "x", "\n"),
    )
)


@given(st.lists(pieces, max_size=14).map("".join))
def test_any_template_runs_or_says_why_not(text: str) -> None:
    data = Struct("T", {"A": ["a", 1], "M": {"k": "v"}})
    try:
        Template("t", text).run(data)
    except TemplateError as error:
        assert str(error).startswith("template: t:")


@given(st.text(max_size=30))
def test_text_without_actions_is_itself_and_quoting_round_trips(text: str) -> None:
    if "{{" not in text:
        assert Template("t", text).run(None) == text
    literal = quote(text)
    assert Template("t", "{{" + literal + "}}").run(None) == text


spec_change = st.sampled_from(["image", "placement", "auth", "endpoint", "version", "none"])


@given(st.lists(spec_change, max_size=3), st.sampled_from([0, 384, 512, 640]))
def test_a_task_made_from_the_present_spec_is_current(changes: list[str], state: int) -> None:
    service = api.Service(spec_version=api.Version(index=5))
    service.spec.task.container.image = "a"
    service.spec.endpoint.SetInParent()
    task = api.Task(spec=service.spec.task, spec_version=api.Version(index=4))
    task.endpoint.spec.SetInParent()
    task.status.state = state
    assert is_up_to_date(service, task, None)
    if "image" in changes:
        task.spec.container.image = "b"
    if "placement" in changes:
        task.spec.placement.max_replicas = 1
    if "auth" in changes:
        task.spec.container.pull_options.registry_auth = "x"
    if "endpoint" in changes:
        task.endpoint.spec.ports.add()
    if "version" in changes:
        task.spec_version.index = 5
    pulled = 384 <= state <= 512
    real = {"image", "placement", "endpoint"} | (set() if pulled else {"auth"})
    expected = "version" in changes or not (real & set(changes))
    assert is_up_to_date(service, task, None) is expected


def test_an_unknown_node_satisfies_no_changed_placement() -> None:
    service = api.Service(id="s")
    service.spec.task.placement.constraints.append("node.id==x")
    task = api.Task()
    assert not is_up_to_date(service, task, None)
    assert is_up_to_date(service, task, api.Node(id="x"))
    with pytest.raises(SwarmError):
        constraints.parse(["bad"])
