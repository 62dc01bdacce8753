"""The command line of Swarm v1: Go's flags, durations, texts, exit status, TLS rules."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.faces.classic.api.server import parse_host
from swarmd.faces.classic.commands import join as join_module
from swarmd.faces.classic.commands.arguments import normalise
from swarmd.faces.classic.commands.durations import format_duration, parse_duration
from swarmd.faces.classic.commands.manage import cluster_options, manage
from swarmd.faces.classic.commands.program import program
from swarmd.faces.classic.commands.tls import contexts
from swarmd.faces.classic.discovery.registry import is_token
from swarmd.faces.classic.discovery.server import DiscoveryListen, DiscoveryServer
from tests.harness.tlsfiles import Authority


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.base.logs.setup", lambda level, style: None)
    for name in ("SWARM_DISCOVERY", "SWARM_ADVERTISE", "SWARM_DISCOVERY_URL", "DEBUG"):
        monkeypatch.delenv(name, raising=False)


def swarm(*args: str, **env: str) -> Result:
    return CliRunner().invoke(program, list(args), env=env)


FLAGS: list[tuple[list[str], list[str]]] = [
    (["-tls", "x"], ["--tls", "x"]),
    (["-tls=true", "--tlsverify=false"], ["--tls"]),
    (["-tlscert", "c", "-tlskey=k"], ["--tlscert", "c", "--tlskey", "k"]),
    (
        ["-H=tcp://:1", "--H", "a:1", "-host", "b:1"],
        ["-H", "tcp://:1", "-H", "a:1", "--host", "b:1"],
    ),
    (["--strategy", "-tls"], ["--strategy", "-tls"]),
    (["--", "-tls"], ["--", "-tls"]),
    (["-unknown", "--unknown=1"], ["-unknown", "--unknown=1"]),
    (["token://h:1/a=b"], ["token://h:1/a=b"]),
]


@pytest.mark.parametrize(("given_args", "read"), FLAGS, ids=lambda v: " ".join(v)[:30])
def test_flags_as_go_programs_take_them(given_args: list[str], read: list[str]) -> None:
    assert normalise(given_args, manage) == read


def test_a_boolean_that_is_none() -> None:
    with pytest.raises(click.UsageError, match='invalid boolean value "maybe"'):
        normalise(["-tls=maybe"], manage)


DURATIONS = [
    ("0", 0.0),
    ("60s", 60.0),
    ("1m30s", 90.0),
    ("1.5h", 5400.0),
    ("-3s", -3.0),
    ("250ms", 0.25),
    ("10", 'time: missing unit in duration "10"'),
    ("", 'time: invalid duration ""'),
    ("5x", 'time: invalid duration "5x"'),
    ("1m 5s", 'time: invalid duration "1m 5s"'),
]


@pytest.mark.parametrize(("text", "expected"), DURATIONS)
def test_durations(text: str, expected: float | str) -> None:
    if isinstance(expected, float):
        assert parse_duration(text) == pytest.approx(expected)
    else:
        with pytest.raises(InvalidArgument) as caught:
            parse_duration(text)
        assert caught.value.message == expected


@given(st.integers(1, 10_000_000))
def test_durations_come_back(seconds: int) -> None:
    assert parse_duration(format_duration(float(seconds))) == seconds


REFUSED = [
    (["join", "token://h:1/t"], "missing mandatory --advertise flag"),
    (
        ["join", "--addr=1.2.3.4", "token://h:1/t"],
        "--advertise should be of the form ip:port or hostname:port",
    ),
    (["join", "-addr", "1.2.3.4:1"], "discovery required to join a cluster."),
    (
        ["join", "--addr=a:1", "--ttl=60s", "token://h:1/t"],
        "--ttl must be strictly superior to the heartbeat value",
    ),
    (
        ["join", "--addr=a:1", "--heartbeat=10ms", "token://h:1/t"],
        "--heartbeat should be at least one second",
    ),
    (["join", "--addr=a:1", "--ttl=x", "token://h:1/t"], "invalid --ttl: time: invalid"),
    (["join", "--addr=a:1", "--delay=-1s", "x://"], "--delay should not be a negative number"),
    (["join", "--addr=a:1", "consul://h"], "discovery service not supported"),
    (["list"], "discovery required to list a cluster. See 'swarm list --help'."),
    (["list", "--timeout=0s", "nodes://a:1"], "--timeout should be a positive number"),
    (["list", "--discovery-opt", "x", "nodes://a:1"], "--discovery-opt must contain key=value"),
    (["list", "abcdef"], "please check you are using the correct discovery (missing token:// ?)"),
    (["create", "x"], "the `create` command takes no arguments."),
    (["create"], "the hosted discovery hub is gone"),
    (["manage"], "discovery required to manage a cluster."),
    (["manage", "--strategy", "best", "nodes://a:1"], "strategy not supported"),
    (["manage", "-f", "best", "nodes://a:1"], "filter not supported"),
    (["manage", "-c", "mesos", "nodes://a:1"], 'unsupported cluster "mesos"'),
    (["manage", "--replication", "nodes://a:1"], "Leader election is only supported with"),
    (["manage", "-tls", "nodes://a:1"], "--tlscert and --tlskey must be provided"),
    (["manage", "-tlscert=c", "nodes://a:1"], "require the use of either --tls or --tlsverify"),
    (
        ["manage", "--tlsverify", "--tlscert=c", "--tlskey=k", "nodes://a:1"],
        "--tlscacert must be provided when using --tlsverify",
    ),
    (["manage", "-tls", "-tlscert=/no", "-tlskey=/no", "nodes://a:1"], "Couldn't load X509"),
    (["manage", "--engine-refresh-min-interval=0s", "nodes://a:1"], "min refresh interval"),
    (["manage", "--engine-refresh-max-interval=1s", "nodes://a:1"], "max refresh interval"),
    (["manage", "--engine-failure-retry=0", "nodes://a:1"], "invalid failure retry count"),
    (["manage", "--cluster-opt=swarm.overcommit=-1", "nodes://a:1"], "larger than -1"),
    (["manage", "-H", "fd://", "nodes://a:1"], "unsupported protocol"),
]


@pytest.mark.parametrize(("args", "text"), REFUSED, ids=lambda v: str(v)[:40])
def test_refusals_have_the_references_words_and_status_one(args: list[str], text: str) -> None:
    result = swarm(*args)
    assert result.exit_code == 1, result.output
    assert text in result.stderr
    assert result.stdout == ""


def test_list_writes_patterns_out_and_reads_the_environment() -> None:
    for result in (
        swarm("list", "nodes://10.0.0.[1:2]:2375"),
        swarm("l", "--timeout", "1s", SWARM_DISCOVERY="10.0.0.1:2375,10.0.0.2:2375"),
    ):
        assert (result.exit_code, result.stdout) == (0, "10.0.0.1:2375\n10.0.0.2:2375\n")


def test_version_and_unknown_levels() -> None:
    assert swarm("--version").stdout.startswith("swarm version 1.2.9")
    assert swarm("-log-level=debug", "list", "a:1").exit_code == 0
    assert swarm("--log-level=loud", "list", "a:1").exit_code == 2


def test_cluster_options() -> None:
    assert cluster_options([]) == (0.05, 0)
    assert cluster_options(["swarm.overcommit=0.5", "swarm.createretry=3"]) == (0.5, 3)
    for wrong in ("swarm.overcommit=x", "swarm.createretry=-1"):
        with pytest.raises(InvalidArgument):
            cluster_options([wrong])


def test_hosts() -> None:
    assert parse_host("0.0.0.0:3376") == ("tcp", "0.0.0.0", 3376)
    assert parse_host("tcp://:3376") == ("tcp", "", 3376)
    assert parse_host("unix:///x") == ("unix", "/x", 0)
    for wrong in ("tcp://h", "tcp://h:99999", "unix://"):
        with pytest.raises(InvalidArgument):
            parse_host(wrong)


HOSTS: list[tuple[list[str], str, list[str]]] = [
    ([], "", []),  # then the default, 127.0.0.1:2375
    (["-H", "a:1", "--host=b:2", "-H=unix:///x"], "", ["a:1", "b:2", "unix:///x"]),
    ([], "a:1, tcp://b:2,unix:///x", ["a:1", "tcp://b:2", "unix:///x"]),
    (["-H", "a:1,b:2"], "", ["a:1,b:2"]),  # one address, which parse_host refuses
    (["-H", "c:3"], "a:1", ["c:3"]),
]


@pytest.mark.parametrize(("args", "variable", "hosts"), HOSTS)
def test_several_hosts(
    args: list[str], variable: str, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_HOST", variable)
    context = manage.make_context("manage", [*args, "nodes://a:1"])
    assert list(context.params["hosts"]) == hosts


def test_tls_alone_verifies_nobody(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    files = authority.issue("m")
    pair = {"cert": str(files.cert), "key": str(files.key)}
    open_ones = contexts(tls=True, verify=False, ca="", **pair)
    strict = contexts(tls=False, verify=True, ca=str(authority.ca), **pair)
    assert open_ones.server is not None and open_ones.client is not None
    assert strict.server is not None and strict.client is not None
    assert (open_ones.server.verify_mode, open_ones.client.verify_mode) == (0, 0)
    assert (strict.server.verify_mode, strict.client.verify_mode) == (2, 2)
    assert strict.client.check_hostname
    with pytest.raises(InvalidArgument, match="Couldn't read CA certificate"):
        contexts(tls=False, verify=True, ca="/none", **pair)


async def test_create_join_and_list_against_a_service(tmp_path: Path) -> None:
    listen = DiscoveryListen("127.0.0.1", 0)
    server = DiscoveryServer(listen, tmp_path / "d.db", SystemClock(), SeededEntropy(2))
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with Tasks() as tasks:
        tasks.spawn(server.run(ready), "hub")
        await ready.wait()
        base = f"http://127.0.0.1:{server.port}/v1"
        created = await loop.run_in_executor(None, lambda: swarm("create", "-discovery", base))
        assert created.exit_code == 0
        token = created.stdout.strip()
        assert is_token(token)
        assert "whole secret" in created.stderr
        settings = join_module.discovery_settings(base, (), 5)
        backend = join_module.make_backend(f"token://{token}", settings)
        entropy = SeededEntropy(1)
        tasks.spawn(
            join_module.announce(backend, "10.0.0.1:2376", 1.0, 0.01, "shown", entropy), "join"
        )
        async with asyncio.timeout(10):
            while True:
                listed = await loop.run_in_executor(
                    None, lambda: swarm("list", f"token://{token}", SWARM_DISCOVERY_URL=base)
                )
                if listed.stdout:
                    break
        assert listed.stdout == "10.0.0.1:2376\n"


async def test_join_goes_on_when_the_service_is_away(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []
    enough = asyncio.Event()

    class Away:
        async def fetch(self) -> list[str]:
            raise AssertionError

        async def register(self, address: str) -> None:
            calls.append(address)
            if len(calls) == 3:
                enough.set()
            raise SwarmError("nobody there")

    caplog.set_level(logging.INFO, "swarm")
    async with Tasks() as tasks:
        work = join_module.announce(Away(), "a:1", 0.01, 0.0, "token://h:1/...", SeededEntropy(1))
        tasks.spawn(work, "join")
        async with asyncio.timeout(10):
            await enough.wait()
    assert "Registering on the discovery service every 10ms..." in caplog.text
    assert "nobody there" in caplog.text
