"""Discovery of Swarm v1: entries, the registry on disk, budgets, the hub's protocol."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import InvalidArgument, NotFound, ResourceExhausted, SwarmError
from swarmd.faces.classic.discovery import backends, entries
from swarmd.faces.classic.discovery.guard import Guard
from swarmd.faces.classic.discovery.registry import Limits, Registry, is_token
from swarmd.faces.classic.discovery.server import DiscoveryListen, DiscoveryServer, parse_listen
from swarmd.faces.http.link import Head, TcpLink
from tests.harness.tlsfiles import Authority

PATTERNS: list[tuple[str, list[str]]] = [
    ("10.0.0.1:2375", ["10.0.0.1:2375"]),
    ("10.0.0.[1:3]:2375", ["10.0.0.1:2375", "10.0.0.2:2375", "10.0.0.3:2375"]),
    ("h[9:10]", ["h9", "h10"]),
    ("h[3:1]", []),
    ("[::1]:2375", ["[::1]:2375"]),
    ("h[a:b]", ["h[a:b]"]),
    ("", [""]),
]


@pytest.mark.parametrize(("pattern", "written_out"), PATTERNS)
def test_ranges_are_written_out(pattern: str, written_out: list[str]) -> None:
    assert entries.generate(pattern) == written_out


def test_a_range_has_an_end() -> None:
    with pytest.raises(InvalidArgument):
        entries.generate("10.0.0.[0:999999999]:2375")


ADDRESSES = [
    ("10.0.0.1:2375", True),
    ("host.example:1", True),
    ("[fe80::1]:65535", True),
    ("10.0.0.1", False),
    ("10.0.0.1:0", False),
    ("10.0.0.1:65536", False),
    ("10.0.0.1:x", False),
    ("fe80::1:2375", False),
    ("[fe80::1", False),
    ("", False),
]


@pytest.mark.parametrize(("address", "good"), ADDRESSES)
def test_addresses_are_host_and_port(address: str, good: bool) -> None:
    assert entries.is_address(address) is good


written = st.builds(
    "{}:{}".format,
    st.sampled_from(["10.0.0.1", "host", "[fe80::1]", "fe80::1", "[]", ""]),
    st.one_of(st.integers(-1, 70_000), st.text(max_size=3)),
)


@given(st.one_of(st.text(max_size=30), written))
def test_an_address_never_breaks_the_check(text: str) -> None:
    if entries.is_address(text):
        parts = entries.split_host_port(text)
        assert entries.split_host_port(entries.join_host_port(*parts)) == parts


def test_a_file_may_have_comments_ranges_and_empty_lines() -> None:
    text = "# nodes\n10.0.0.1:2375 # first\n\n  10.0.0.[2:3]:2376\n"
    assert entries.parse_file(text) == ["10.0.0.1:2375", "10.0.0.2:2376", "10.0.0.3:2376"]


def test_nodes_without_scheme_and_the_hint_for_a_forgotten_one() -> None:
    assert entries.split_url("a:1,b:2") == ("nodes", "a:1,b:2")
    assert entries.parse_nodes("a:1,10.0.0.[1:2]:5") == ["a:1", "10.0.0.1:5", "10.0.0.2:5"]
    with pytest.raises(InvalidArgument, match=r"missing token:// \?") as caught:
        entries.parse_nodes("abcdef")
    assert caught.value.message.startswith("address abcdef: missing port in address, ")


def test_logs_show_a_url_without_its_token() -> None:
    assert entries.without_secret("token://h:1/v1/abc") == "token://h:1/v1/..."
    assert entries.without_secret("token://abc") == "token://..."
    assert entries.without_secret("nodes://a:1") == "nodes://a:1"


def opened(path: Path, limits: Limits | None = None) -> Registry:
    registry = Registry(path, SeededEntropy(1), limits)
    registry.open()
    return registry


def test_registrations_lapse_unless_repeated_and_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    registry = opened(path)
    token = registry.create(100.0)
    assert is_token(token)
    assert registry.entries(token, 100.0) == []
    registry.register(token, "b:1", 10, 100.0)
    registry.register(token, "a:1", 30, 101.0)
    registry.register(token, "b:1", 10, 105.0)
    registry.close()
    registry = opened(path)
    assert registry.entries(token, 114.9) == ["b:1", "a:1"]
    assert registry.entries(token, 115.0) == ["a:1"]
    registry.delete(token)
    for use in (
        lambda: registry.entries(token, 116.0),
        lambda: registry.register(token, "a:1", 5, 116.0),
        lambda: registry.delete(token),
    ):
        with pytest.raises(NotFound):
            use()
    registry.close()


def test_the_file_is_private_and_does_not_hold_the_token(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    registry = opened(path)
    token = registry.create(1.0)
    registry.register(token, "secret-host:1", 10, 1.0)
    registry.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"secret-host" in text
    assert token.encode() not in text
    assert bytes.fromhex(token) not in text


def test_a_file_that_is_no_database_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    path.write_bytes(b"something else entirely, and long enough to be looked at" * 20)
    with pytest.raises(SwarmError, match=r"d\.db"):
        opened(path)


def test_limits_hold(tmp_path: Path) -> None:
    limits = Limits(clusters_max=2, entries_per_cluster_max=2, ttl_seconds_max=50)
    registry = opened(tmp_path / "d.db", limits)
    token = registry.create(0.0)
    registry.create(0.0)
    with pytest.raises(ResourceExhausted):
        registry.create(0.0)
    registry.register(token, "a:1", 10, 0.0)
    registry.register(token, "b:1", 20, 0.0)
    registry.register(token, "b:1", 20, 1.0)  # a known one is no new one
    with pytest.raises(ResourceExhausted):
        registry.register(token, "c:1", 10, 1.0)
    registry.register(token, "c:1", 10, 10.0)  # a's time is over
    for address, ttl in (("nonsense", 5), ("a:1", 0), ("a:1", 51), ("h" * 300 + ":1", 5)):
        with pytest.raises(InvalidArgument):
            registry.register(token, address, ttl, 10.0)
    registry.close()


def test_a_cluster_nobody_uses_is_forgotten(tmp_path: Path) -> None:
    registry = opened(tmp_path / "d.db", Limits(idle_seconds_max=10_000.0))
    used, idle = registry.create(0.0), registry.create(0.0)
    registry.register(idle, "a:1", 10, 0.0)
    registry.entries(used, 9_000.0)
    registry.sweep(12_000.0)
    assert registry.entries(used, 12_000.0) == []
    with pytest.raises(NotFound):
        registry.entries(idle, 12_000.0)
    with sqlite3.connect(tmp_path / "d.db") as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (0,)
    db.close()
    registry.close()


def test_a_budget_is_spent_and_comes_back() -> None:
    guard = Guard(burst=2, seconds_each=10.0, addresses_max=2)
    for _ in range(3):
        guard.spend("1.2.3.4", 0.0)
    assert guard.wait("1.2.3.4", 0.0) == 10.0
    assert guard.wait("1.2.3.4", 4.0) == pytest.approx(6.0)
    assert guard.wait("1.2.3.4", 10.0) == 0.0
    assert guard.wait("4.3.2.1", 0.0) == 0.0
    guard.spend("2001:db8::1", 0.0)
    guard.spend("2001:db8::2", 0.0)
    assert guard.wait("2001:db8::3", 0.0) > 0
    assert guard.wait("2001:db8:0:1::3", 0.0) == 0.0
    guard.spend("::ffff:1.2.3.4", 0.0)
    assert len(guard._left) == 2


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=40))
def test_a_budget_never_gives_more_than_its_rate(steps: list[tuple[float, bool]]) -> None:
    guard, now, taken = Guard(burst=3, seconds_each=10.0), 0.0, 0
    for wait, spend in steps:
        now += wait
        if spend and guard.wait("a", now) == 0.0:
            guard.spend("a", now)
            taken += 1
    assert taken <= 3 + now / 10.0 + 1e-6


@pytest.mark.parametrize(
    ("text", "files", "insecure", "good"),
    [
        ("127.0.0.1:0", ("", ""), False, True),
        ("localhost:80", ("", ""), False, True),
        ("[::1]:80", ("", ""), False, True),
        ("0.0.0.0:80", ("", ""), False, False),
        (":80", ("", ""), False, False),
        ("0.0.0.0:80", ("", ""), True, True),
        ("0.0.0.0:80", ("c", "k"), False, True),
        ("127.0.0.1:80", ("c", ""), False, False),
        ("127.0.0.1:99999", ("", ""), False, False),
        ("127.0.0.1", ("", ""), False, False),
    ],
)
def test_plain_text_stays_on_loopback(
    text: str, files: tuple[str, str], insecure: bool, good: bool
) -> None:
    if good:
        assert parse_listen(text, *files, insecure=insecure).insecure is insecure
    else:
        with pytest.raises(InvalidArgument):
            parse_listen(text, *files, insecure=insecure)


@asynccontextmanager
async def serving(
    path: Path, clock: ManualClock, authority: Authority | None = None
) -> AsyncIterator[int]:
    """The service on loopback; its port."""
    files = authority.issue("hub") if authority is not None else None
    listen = DiscoveryListen(
        "127.0.0.1", 0, str(files.cert) if files else "", str(files.key) if files else ""
    )
    server = DiscoveryServer(listen, path, clock, SeededEntropy(5))
    ready = asyncio.Event()
    async with Tasks() as tasks:
        tasks.spawn(server.run(ready), "hub")
        async with asyncio.timeout(10):
            await ready.wait()
        yield server.port


async def ask(
    port: int, method: str, target: str, body: bytes = b"", kind: str = ""
) -> tuple[Head, bytes]:
    return await TcpLink(f"127.0.0.1:{port}", "hub", None).call(method, target, body, kind)


async def test_the_protocol_as_stock_clients_speak_it(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path / "d.db", clock) as port:
        head, data = await ask(port, "POST", "/v1/clusters")
        token = data.decode()
        assert head.status == 200
        assert is_token(token)
        head, data = await ask(port, "GET", f"/v1/clusters/{token}")
        assert (head.status, data) == (200, b"[]")
        target = f"/v1/clusters/{token}?ttl=180"
        head, _ = await ask(port, "POST", target, b"10.0.0.1:2376", "application/json")
        assert head.status == 200
        head, data = await ask(port, "GET", f"/some/path/clusters/{token}")
        assert (head.status, data) == (200, b'["10.0.0.1:2376"]')
        clock.advance(180.0)
        assert (await ask(port, "GET", f"/clusters/{token}"))[1] == b"[]"
        assert (await ask(port, "DELETE", f"/v1/clusters/{token}"))[0].status == 204
        assert (await ask(port, "GET", f"/v1/clusters/{token}"))[0].status == 404


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path / "d.db", clock) as port:
        token = (await ask(port, "POST", "/clusters"))[1].decode()
        await ask(port, "POST", f"/clusters/{token}?ttl=60", b"a:1")
    async with serving(tmp_path / "d.db", clock) as port:
        assert (await ask(port, "GET", f"/clusters/{token}"))[1] == b'["a:1"]'


async def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path / "d.db", ManualClock()) as port:
        token = (await ask(port, "POST", "/clusters"))[1].decode()
        base = f"/clusters/{token}"
        refused = [
            ("GET", "/", b"", 404),
            ("GET", "/clustersx", b"", 404),
            ("GET", "/" + "x" * 200 + "/clusters", b"", 404),
            ("GET", "/clusters", b"", 405),
            ("PUT", base, b"a:1", 405),
            ("POST", base + "?ttl=x", b"a:1", 400),
            ("POST", base + "?ttl=0", b"a:1", 400),
            ("POST", base, b"nonsense", 400),
            ("POST", base, b"\xff\xfe", 400),
            ("POST", base, b"h" * 5000, 400),
        ]
        for method, target, body, status in refused:
            head, _ = await ask(port, method, target, body)
            assert head.status == status, (method, target)
        assert (await ask(port, "GET", base))[1] == b"[]"


async def test_guesses_run_out(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path / "d.db", clock) as port:
        token = (await ask(port, "POST", "/clusters"))[1].decode()
        for number in range(20):
            head, _ = await ask(port, "GET", f"/clusters/{number:032x}")
            assert head.status == 404
        for target in (f"/clusters/{99:032x}", f"/clusters/{token}"):
            head, _ = await ask(port, "GET", target)
            assert (head.status, head.header("Retry-After")) == (429, "11")
        clock.advance(11.0)
        assert (await ask(port, "GET", f"/clusters/{token}"))[0].status == 200
        for _ in range(19):
            assert (await ask(port, "POST", "/clusters"))[0].status == 200
        assert (await ask(port, "POST", "/clusters"))[0].status == 429


async def test_our_client_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with serving(tmp_path / "d.db", ManualClock(), authority) as port:
        settings = backends.Settings(ttl_seconds=30, ca_file=str(authority.ca))
        base = f"127.0.0.1:{port}/v1"
        token = await backends.hub_for(f"https://{base}", settings).create()
        for url, chosen in (
            (f"token://{base}/{token}", settings),
            (f"token://{token}", backends.Settings(f"https://{base}", 30, str(authority.ca))),
        ):
            cluster = backends.backend_for(url, chosen)
            await cluster.register("10.0.0.1:2376")
            assert await cluster.fetch() == ["10.0.0.1:2376"]
        with pytest.raises(SwarmError, match="cannot be reached"):
            await backends.backend_for(f"token://{base}/{token}", backends.Settings()).fetch()
        wrong = backends.backend_for(f"token://{base}/{'0' * 32}", settings)
        with pytest.raises(SwarmError, match="Discovery service returned 404 HTTP status code"):
            await wrong.fetch()
        with pytest.raises(SwarmError, match="refused to register: 404"):
            await wrong.register("10.0.0.1:2376")


def test_urls_that_cannot_work() -> None:
    for url, text in (
        ("token://abc", "hub is gone"),
        ("token://h:1/v1/", "token is empty"),
        ("consul://h:1", "discovery service not supported"),
        ("token://h:x/v1/abc", "discovery URL"),
    ):
        with pytest.raises(SwarmError, match=text):
            backends.backend_for(url, backends.Settings())


async def test_nodes_and_files_are_read_only(tmp_path: Path) -> None:
    listed = tmp_path / "nodes"
    listed.write_text("10.0.0.[1:2]:2375\n")
    for url in (f"file://{listed}", "nodes://10.0.0.[1:2]:2375"):
        backend = backends.backend_for(url, backends.Settings())
        assert await backend.fetch() == ["10.0.0.1:2375", "10.0.0.2:2375"]
        with pytest.raises(SwarmError, match="not implemented in this discovery service"):
            await backend.register("10.0.0.3:2375")
    with pytest.raises(SwarmError, match="failed to read"):
        await backends.backend_for(f"file://{tmp_path}/none", backends.Settings()).fetch()


async def test_a_watch_tells_changes_and_outlives_trouble() -> None:
    answers: list[list[str] | SwarmError] = [["a:1"], ["a:1"], SwarmError("down"), ["a:1", "b:1"]]
    troubles: list[str] = []

    class Fake:
        async def fetch(self) -> list[str]:
            answer = answers.pop(0)
            if isinstance(answer, SwarmError):
                raise answer
            return answer

        async def register(self, address: str) -> None:
            raise AssertionError

    seen = []
    async with asyncio.timeout(10):
        async for found in backends.watch(Fake(), 0.01, lambda e: troubles.append(e.message)):
            seen.append(found)
            if not answers:
                break
    assert seen == [["a:1"], ["a:1", "b:1"]]
    assert troubles == ["down"]
