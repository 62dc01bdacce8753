"""Finding the daemon, agreeing on a version, TLS, and what its silence looks like."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from swarmctl.cli import endpoint
from swarmctl.connect import DEFAULT_API_VERSION, choose_host, default_socket
from swarmctl.errors import CliError
from tests.cli.conftest import Run
from tests.harness.fakedaemon import FakeDaemon, Reply, serving


@pytest.mark.parametrize(
    ("hosts", "env", "uid", "url"),
    [
        ([], {}, 0, "unix:///run/swarmd/swarmd.sock"),
        ([], {"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "unix:///run/user/7/swarmd/swarmd.sock"),
        ([], {"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "unix:///run/swarmd/swarmd.sock"),
        ([], {}, 7, "unix:///run/swarmd/swarmd.sock"),
        ([], {"DOCKER_HOST": "unix:///d.sock"}, 0, "unix:///d.sock"),
        ([], {"DOCKER_HOST": "unix:///d", "SWARMD_HOST": "unix:///s"}, 0, "unix:///s"),
        (["unix:///f"], {"SWARMD_HOST": "unix:///s"}, 0, "unix:///f"),
        (["unix://"], {}, 0, "unix:///run/swarmd/swarmd.sock"),
        (["tcp://h"], {}, 0, "tcp://h:2375"),
        (["h:99"], {}, 0, "tcp://h:99"),
        (["tcp://:99"], {}, 0, "tcp://127.0.0.1:99"),
        (["tcp://[::1]"], {}, 0, "tcp://[::1]:2375"),
        (["tcp://[::1]:99/"], {}, 0, "tcp://[::1]:99"),
    ],
)
def test_which_daemon(hosts: list[str], env: dict[str, str], uid: int, url: str) -> None:
    assert choose_host(hosts, env, uid, tls=False) == url


def test_tls_changes_the_default_port() -> None:
    assert choose_host(["tcp://h"], {}, 0, tls=True) == "tcp://h:2376"


@pytest.mark.parametrize("text", ["ssh://x", "fd://", "tcp://h:x", "tcp://::1:99", "npipe:////x"])
def test_addresses_that_make_no_sense(text: str) -> None:
    with pytest.raises(CliError) as caught:
        choose_host([text], {}, 0, tls=False)
    assert caught.value.message == f"invalid bind address format: {text}"


def test_the_users_own_socket_needs_a_runtime_folder() -> None:
    assert default_socket({"XDG_RUNTIME_DIR": ""}, 7) == "/run/swarmd/swarmd.sock"


def test_tls_files_by_default_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    env = {"DOCKER_HOST": "tcp://h", "DOCKER_CERT_PATH": str(tmp_path), "DOCKER_TLS_VERIFY": "1"}
    files = endpoint({"tlscert": "/given.pem"}, env).tls
    assert files is not None
    assert (files.ca, files.cert, files.key) == (str(tmp_path / "ca.pem"), "/given.pem", "")
    assert files.verify
    loose = endpoint({"tls": True}, {"DOCKER_HOST": "tcp://h"}).tls
    assert loose is not None and not loose.verify
    assert endpoint({"tlsverify": True}, {"DOCKER_HOST": "unix:///x"}).tls is None
    assert endpoint({}, {"DOCKER_HOST": "tcp://h"}).tls is None


# -- version ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "spoken"),
    [("1.24", "1.24"), ("1.41", "1.41"), (DEFAULT_API_VERSION, DEFAULT_API_VERSION)],
)
def test_an_older_daemon_is_spoken_to_in_its_version(
    run: Run, daemon: FakeDaemon, theirs: str, spoken: str
) -> None:
    daemon.api_version = theirs
    daemon.on("GET", "/networks", [])
    assert run("network", "ls", "-q").exit == 0
    assert daemon.asked() == [f"GET /v{spoken}/networks"]


def test_a_newer_daemon_is_spoken_to_in_ours(run: Run, daemon: FakeDaemon) -> None:
    daemon.api_version = "9.99"
    run("network", "ls", "-q")
    assert daemon.asked() == [f"GET /v{DEFAULT_API_VERSION}/networks"]


def test_ping_falls_back_to_get(run: Run, daemon: FakeDaemon) -> None:
    daemon.head_ping = False
    daemon.on("GET", "/networks", [])
    assert run("network", "ls", "-q").exit == 0
    assert [request.method for request in daemon.requests] == ["HEAD", "GET", "GET"]


def test_a_pinned_version_needs_no_ping(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_API_VERSION", "1.30")
    daemon.api_version = "1.30"
    daemon.on("GET", "/networks", [])
    assert run("network", "ls", "-q").exit == 0
    assert [request.target for request in daemon.requests] == ["/v1.30/networks"]
    assert daemon.requests[0].agent == "swarmctl/0.1.0 (linux)"


def test_one_connection_serves_a_whole_command(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/nodes", [{"ID": "a", "Spec": {}, "Description": {}}])
    daemon.on("GET", "/info", {"Swarm": {}})
    assert run("node", "ls").exit == 0
    assert len(daemon.requests) == 3


# -- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "err"),
    [
        (Reply.error(500, "  boom \n"), "Error response from daemon: boom"),
        (
            Reply("plain words\n", 502, headers={"Content-Type": "text/plain"}),
            "Error response from daemon: plain words",
        ),
        (
            Reply({}, 400),
            "Error response from daemon: API returned a 400 (Bad Request) but provided no "
            "error-message",
        ),
        (
            Reply(None, 503),
            "request returned 503 Service Unavailable for API route and version "
            "/v1.41/networks, check if the server supports the requested API version",
        ),
    ],
)
def test_what_an_error_reply_says(run: Run, daemon: FakeDaemon, reply: Reply, err: str) -> None:
    daemon.on("GET", "/networks", reply)
    ran = run("network", "ls")
    assert (ran.out, ran.err, ran.exit) == ("", err + "\n", 1)


def test_an_error_that_is_no_json(run: Run, daemon: FakeDaemon) -> None:
    reply = Reply("nope", 500, headers={"Content-Type": "application/json"})
    daemon.on("GET", "/networks", reply)
    assert run("network", "ls").err.startswith("Error reading JSON: ")


def test_a_reply_that_is_no_json(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/networks", Reply("<html>", headers={"Content-Type": "text/html"}))
    ran = run("network", "ls")
    assert ran.err.startswith("Error reading remote info: ") and ran.exit == 1


def test_nobody_there(run: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for url in (f"unix://{tmp_path}/none", f"tcp://127.0.0.1:{taken.getsockname()[1]}"):
            ran = run("-H", url, "network", "ls")
            text = f"Cannot connect to the daemon at {url}. Is the daemon running?\n"
            assert (ran.err, ran.exit) == (text, 1)


@contextmanager
def raw_server(answer: bytes) -> Iterator[str]:
    """A TCP server that answers every connection with the same bytes and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_daemon_that_hangs_up(run: Run) -> None:
    with raw_server(b"") as url:
        ran = run("-H", url, "network", "ls")
    assert (ran.err, ran.exit) == ("error during connect: EOF\n", 1)


def test_tls_where_plain_http_was_spoken(run: Run) -> None:
    with raw_server(b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n") as url:
        ran = run("-H", url, "network", "ls")
    assert "Are you trying to connect to a TLS-enabled daemon without TLS?" in ran.err
    assert ran.exit == 1


# -- TLS -------------------------------------------------------------------------------


class Authority:
    """A certificate authority that writes what it signs to files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._make(name, self.key.public_key(), ca=True)
        (folder / "ca.pem").write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))

    def _make(self, cn: str, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = datetime.now(UTC)
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder(
                issuer, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)]), public
            )
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(alternative, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, stem: str) -> None:
        """Write <stem>.pem and <stem>-key.pem."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._make(stem, key.public_key(), ca=False)
        (self.folder / f"{stem}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        (self.folder / f"{stem}-key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def server(self) -> ssl.SSLContext:
        """A server that demands a certificate of this authority."""
        self.issue("server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server-key.pem")
        context.load_verify_locations(self.folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One authority with a client certificate issued."""
    made = Authority(tmp_path / "a", "a")
    made.issue("cert")
    return made


def tls_words(folder: Path, url: str, ca: Path | None = None) -> list[str]:
    return [
        *("-H", url, "--tlsverify", "--tlscacert", str(ca or folder / "ca.pem")),
        *("--tlscert", str(folder / "cert.pem"), "--tlskey", str(folder / "cert-key.pem")),
    ]


def test_mutual_tls(run: Run, daemon: FakeDaemon, authority: Authority) -> None:
    daemon.on("GET", "/networks", [{"Id": "x" * 20}])
    with serving(daemon, authority.server()) as url:
        ran = run(*tls_words(authority.folder, url), "network", "ls", "-q")
    assert (ran.out, ran.err, ran.exit) == ("x" * 12 + "\n", "", 0)


def test_tls_from_the_environment(
    run: Run, daemon: FakeDaemon, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    (authority.folder / "cert-key.pem").rename(authority.folder / "key.pem")
    daemon.on("GET", "/networks", [])
    with serving(daemon, authority.server()) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(authority.folder))
        assert run("network", "ls", "-q").exit == 0


def test_a_server_of_another_authority_is_refused(
    run: Run, daemon: FakeDaemon, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "b", "b")
    with serving(daemon, authority.server()) as url:
        words = tls_words(authority.folder, url, other.folder / "ca.pem")
        ran = run(*words, "network", "ls")
    assert ran.exit == 1 and not daemon.requests
    assert ran.err.startswith("error during connect: tls: ")


def test_without_verification_any_server_will_do(
    run: Run, daemon: FakeDaemon, authority: Authority
) -> None:
    daemon.on("GET", "/networks", [])
    folder = authority.folder
    with serving(daemon, authority.server()) as url:
        words = ["--tlscert", str(folder / "cert.pem"), "--tlskey", str(folder / "cert-key.pem")]
        assert run("-H", url, "--tls", *words, "network", "ls", "-q").exit == 0


def test_a_client_without_certificate_gets_nothing(
    run: Run, daemon: FakeDaemon, authority: Authority
) -> None:
    with serving(daemon, authority.server()) as url:
        ca = str(authority.folder / "ca.pem")
        ran = run("-H", url, "--tlsverify", "--tlscacert", ca, "network", "ls")
    assert ran.exit == 1 and ran.err.startswith("error during connect: ")
    assert not daemon.requests


def test_a_missing_file_is_named(run: Run, daemon: FakeDaemon, authority: Authority) -> None:
    with serving(daemon, authority.server()) as url:
        ran = run("-H", url, "--tlsverify", "--tlscacert", "/nonexistent.pem", "network", "ls")
    assert ran.exit == 1 and "/nonexistent.pem" in ran.err


def test_plain_tcp(run: Run, daemon: FakeDaemon) -> None:
    daemon.on("GET", "/networks", [])
    with serving(daemon, None) as url:
        assert run("-H", url, "network", "ls", "-q").exit == 0


def test_streams_are_read_object_by_object(run: Run, daemon: FakeDaemon) -> None:
    event = {"Type": "node", "Action": "update", "Actor": {"ID": "é"}, "timeNano": 1}
    data = json.dumps(event, ensure_ascii=False)
    daemon.on("GET", "/events", Reply(chunks=[data + data, "\n\n", data[:40], data[40:] + "\n"]))
    assert run("events", "--format", "{{.Actor.ID}}").out == "é\né\né\n"
