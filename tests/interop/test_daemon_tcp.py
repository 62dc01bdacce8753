"""The REST API over TCP: mutual TLS, or nothing."""

from __future__ import annotations

import contextlib
import http.client
import signal
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.daemons import Daemon, daemon_place, free_port, own_loopback_ip
from tests.harness.engines import require_engine
from tests.harness.tlsfiles import Authority


@dataclass
class Served:
    """A daemon with a TCP listener, and two authorities: its own and a foreign one."""

    place: Path
    daemon: Daemon
    ip: str
    port: int
    own: Authority
    foreign: Authority


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with daemon_place() as place:
        ip = own_loopback_ip()
        port = free_port(ip)
        own, foreign = Authority(place / "own"), Authority(place / "foreign")
        files = own.issue("server", ip)
        args = ["-H", f"unix://{place}/m/run/swarmd.sock", "-H", f"tcp://{ip}:{port}"]
        args += ["--tlscacert", str(own.ca), "--tlscert", str(files.cert)]
        args += ["--tlskey", str(files.key)]
        with Daemon(place / "m", args=args) as daemon:
            daemon.init()
            yield Served(place, daemon, ip, port, own, foreign)
            status, seconds = daemon.signal(signal.SIGTERM)
            assert (status, seconds < 3) == (0, True), (status, seconds)


@contextlib.contextmanager
def sent_away() -> Iterator[None]:
    """The listener ends the connection; one that is not there does not count."""
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)) as caught:
        yield
    assert not isinstance(caught.value, ConnectionRefusedError)


def get_info(served: Served, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection(served.ip, served.port, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/info")
        return connection.getresponse().status


def test_a_client_with_a_certificate_is_served(served: Served) -> None:
    context = served.own.client_context(served.own.issue("client"))
    assert get_info(served, context) == 200


def test_a_client_without_a_certificate_is_refused(served: Served) -> None:
    with sent_away():
        get_info(served, served.own.client_context(None))


def test_a_client_of_another_authority_is_refused(served: Served) -> None:
    context = served.own.client_context(served.foreign.issue("client"))
    with sent_away():
        get_info(served, context)


def test_old_tls_is_refused(served: Served) -> None:
    context = served.own.client_context(served.own.issue("client"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert get_info(served, context) == 200
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1_1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with sent_away():
        get_info(served, old)


def test_plain_http_is_refused(served: Served) -> None:
    connection = http.client.HTTPConnection(served.ip, served.port, timeout=10)
    with contextlib.closing(connection), sent_away():
        connection.request("GET", "/_ping")
        connection.getresponse()


def test_refused_clients_leave_the_daemon_well(served: Served) -> None:
    for refused in (None, served.foreign.issue("client")):
        with sent_away():
            get_info(served, served.own.client_context(refused))
    assert get_info(served, served.own.client_context(served.own.issue("client"))) == 200
    assert served.daemon.state() == "active"
    assert "Traceback" not in served.daemon.log


@pytest.mark.engine
def test_the_docker_command_is_served_over_tls(served: Served) -> None:
    require_engine()
    client = served.own.issue("client")
    base = ["docker", "-H", f"tcp://{served.ip}:{served.port}"]
    with_files = [*base, "--tlsverify", f"--tlscacert={served.own.ca}"]
    with_files += [f"--tlscert={client.cert}", f"--tlskey={client.key}"]
    env = {"HOME": str(served.place), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    listed = subprocess.run(
        [*with_files, "node", "ls", "-q"], capture_output=True, text=True, env=env, timeout=30
    )
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.strip() == served.daemon.swarm()["NodeID"]
    without = subprocess.run(
        [*base, "node", "ls"], capture_output=True, text=True, env=env, timeout=30
    )
    assert without.returncode == 1


def test_files_that_cannot_be_used_end_the_start(served: Served) -> None:
    port = free_port(served.ip)
    missing = served.place / "missing.pem"
    client = served.own.issue("client")
    for ca, cert, key, words in (
        (missing, client.cert, client.key, str(missing)),
        (served.own.ca, missing, client.key, str(missing)),
        (served.own.ca, client.cert, served.own.issue("other").key, str(client.cert)),
        (served.own.ca, client.key, client.key, str(client.key)),
    ):
        daemon = Daemon(
            served.place / "n",
            args=[
                *("-H", f"tcp://{served.ip}:{port}", "--tlscacert", str(ca)),
                *("--tlscert", str(cert), "--tlskey", str(key)),
            ],
        )
        (daemon.root / "log").unlink(missing_ok=True)
        daemon.launch()
        assert daemon.ends() == 1
        assert words in daemon.log
        assert "Traceback" not in daemon.log
