"""The method table against the wire facts, and binding of service objects to it."""

from __future__ import annotations

import csv
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from swarmd import api
from swarmd.base.errors import InvariantViolation
from swarmd.rpc import methods

FACTS = pathlib.Path(__file__).parents[1] / "wire" / "facts" / "services.tsv"


def rows() -> list[dict[str, str]]:
    lines = [line for line in FACTS.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["path"])
def test_each_row_of_the_facts(row: dict[str, str]) -> None:
    method = methods.table()[row["path"]]
    assert method.service == row["service"] and method.name == row["method"]
    assert method.request.DESCRIPTOR.full_name == row["request"]
    assert method.response.DESCRIPTOR.full_name == row["response"]
    assert method.client_streaming == (row["client_stream"] == "1")
    assert method.server_streaming == (row["server_stream"] == "1")
    assert method.insecure == (row["roles"] == "insecure")
    assert method.roles == (() if method.insecure else tuple(row["roles"].split(",")))
    assert method.proxied == (row["on_2377"] == "proxied")
    assert method.proxied_in_process == (row["on_control_socket"] == "proxied")
    assert method.in_process == (row["on_control_socket"] != "-")
    assert methods.find(method.short) is method


def test_nothing_beyond_the_facts() -> None:
    assert set(methods.table()) == {row["path"] for row in rows()}


@pytest.mark.parametrize(
    ("wire", "ours"),
    [
        ("GetRootCACertificate", "get_root_ca_certificate"),
        ("NodeCA", "node_ca"),
        ("Session", "session"),
        ("UpdateTaskStatus", "update_task_status"),
        ("CA", "ca"),
        ("StreamRaftMessage", "stream_raft_message"),
        ("IssueNodeCertificate", "issue_node_certificate"),
    ],
)
def test_python_names(wire: str, ours: str) -> None:
    assert methods.python_name(wire) == ours


class Health:
    """A service with one method."""

    SERVICE = "docker.swarmkit.v1.Health"

    async def check(self, request: Any, peer: Any) -> Any:
        return api.HealthCheckResponse()


def test_bind_finds_the_handlers() -> None:
    health = Health()
    bound = methods.bind([health])
    assert list(bound) == ["/docker.swarmkit.v1.Health/Check"]
    assert bound["/docker.swarmkit.v1.Health/Check"].handler == health.check


def test_bind_refuses_forgotten_methods_strangers_and_doubles() -> None:
    class Half:
        SERVICE = "docker.swarmkit.v1.NodeCA"

        async def issue_node_certificate(self, request: Any, peer: Any) -> Any:
            return None

    class Stranger:
        SERVICE = "docker.swarmkit.v1.Nonsense"

    with pytest.raises(InvariantViolation, match="Half lacks NodeCA/NodeCertificateStatus"):
        methods.bind([Half()])
    with pytest.raises(InvariantViolation, match="Stranger names no known SERVICE"):
        methods.bind([Stranger()])
    with pytest.raises(InvariantViolation, match="two objects serve Health/Check"):
        methods.bind([Health(), Health()])


def test_unknown_method_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        methods.find("CA/Nonsense")


@pytest.mark.parametrize("module", ["peer", "methods", "authorize", "leaderproxy", "inprocess"])
def test_rooms_that_do_not_talk_do_not_pay_for_grpc(module: str) -> None:
    code = f"import sys, swarmd.rpc.{module}; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
