"""The discovery service of Swarm v1 as a real swarmd process, with the real `swarm` commands."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.daemons import Daemon, daemon_place, free_port, own_loopback_ip
from tests.harness.lan import wait_until
from tests.harness.swarmds import Swarmd
from tests.harness.tlsfiles import Authority

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Hub:
    """A daemon that serves discovery with TLS."""

    daemon: Swarmd
    authority: Authority
    ip: str
    port: int

    @property
    def base(self) -> str:
        return f"{self.ip}:{self.port}/v1"

    def swarm(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "swarmd.faces.classic", *args]
        environment = {**self.daemon.environment(), "SSL_CERT_FILE": str(self.authority.ca)}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT
        )

    def members(self, token: str) -> list[str]:
        listed = self.swarm("list", f"token://{self.base}/{token}")
        assert listed.returncode == 0, listed.stderr
        return listed.stdout.split()

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        connection = http.client.HTTPSConnection(self.ip, self.port, timeout=30, context=context)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@contextmanager
def hub(tmp_path: Path) -> Iterator[Hub]:
    ip = own_loopback_ip()
    port = free_port(ip)
    authority = Authority(tmp_path / "ca")
    files = authority.issue("hub", ip)
    args = ["--engine", "none", "--discovery-listen", f"{ip}:{port}"]
    args += ["--discovery-tlscert", str(files.cert), "--discovery-tlskey", str(files.key)]
    with Swarmd("hub", args=args) as daemon:
        yield Hub(daemon, authority, ip, port)


def listening(pid: int) -> list[str]:
    """TCP ports, as /proc shows them, on which a process listens."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if found := re.fullmatch(r"socket:\[(\d+)\]", target):
            inodes.add(found[1])
    rows = [
        line.split()
        for file in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{file}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]


def test_it_is_off_unless_asked_for() -> None:
    with Swarmd("plain") as daemon:
        assert listening(daemon.pid) == []
        assert not (daemon.state_dir / "discovery.db").exists()


def test_a_cluster_outlives_the_process_and_its_members_do_not_outlive_their_time(
    tmp_path: Path,
) -> None:
    with hub(tmp_path) as service:
        assert len(listening(service.daemon.pid)) == 1
        created = service.swarm("create", "--discovery", f"https://{service.base}")
        token = created.stdout.strip()
        path = f"/v1/clusters/{token}"
        assert service.ask("POST", f"{path}?ttl=3600", "10.0.0.1:2376")[0] == 200
        service.daemon.kill()
        service.daemon.start()
        assert service.members(token) == ["10.0.0.1:2376"]
        assert service.ask("POST", f"{path}?ttl=1", "10.0.0.2:2376")[0] == 200
        wait_until("the silent one is gone", lambda: "0.2" not in service.ask("GET", path)[1])
        assert service.members(token) == ["10.0.0.1:2376"]
        assert token not in service.daemon.log


def test_the_api_answers_last(tmp_path: Path) -> None:
    """Whoever waits for the daemon's socket finds the discovery service listening."""
    ip = own_loopback_ip()
    port = free_port(ip)
    files = Authority(tmp_path / "ca").issue("hub", ip)
    key = tmp_path / "slow.key"
    os.mkfifo(key)
    args = ["--discovery-listen", f"{ip}:{port}"]
    args += ["--discovery-tlscert", str(files.cert), "--discovery-tlskey", str(key)]
    with daemon_place() as place:
        daemon = Daemon(place / "hub", args=args)
        try:
            daemon.launch()
            pipe = wait_until("it reads the key", lambda: whose_reader_waits(key))
            assert not daemon.socket.exists()
            with open(pipe, "wb") as reader:
                reader.write(files.key.read_bytes())
            wait_until("the API listens", daemon.socket.exists)
            socket.create_connection((ip, port), timeout=30).close()
        finally:
            daemon.kill()


def whose_reader_waits(pipe: Path) -> int | None:
    """A descriptor to write to `pipe` once somebody has opened it for reading."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def test_strangers_get_little(tmp_path: Path) -> None:
    with hub(tmp_path) as service:
        with socket.create_connection((service.ip, service.port), timeout=30) as plain:
            plain.sendall(b"POST /v1/clusters HTTP/1.1\r\nHost: hub\r\nContent-Length: 0\r\n\r\n")
            assert b"HTTP" not in until_closed(plain)
        # Slow machines earn a little budget meanwhile, so: not before 20, and then soon.
        guesses = refused_after(service, "GET", f"/v1/clusters/{'0' * 32}", 404)
        creations = refused_after(service, "POST", "/v1/clusters", 200)
        assert 20 <= guesses < 60
        assert 20 <= creations < 60


def until_closed(connection: socket.socket) -> bytes:
    """What the other side says until it closes, in order or not."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(4096):
            said += more
    return said


def refused_after(service: Hub, method: str, path: str, before: int) -> int:
    """How many requests are answered with `before` until one is too many."""
    for count in range(60):
        status = service.ask(method, path)[0]
        if status == 429:
            return count
        assert status == before
    return 60
