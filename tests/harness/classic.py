"""Swarm v1 with stock engines over TCP with TLS: a hub, a manager, three nodes, four hosts."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.engines import Engine, Host, Lan, require_engine
from tests.harness.quorum import import_busybox
from tests.harness.swarmds import Swarmd
from tests.harness.tlsfiles import Authority, Files

MANAGER_PORT = 3376
HUB_PORT = 7946
OLD_CLI = "/usr/bin/docker"
SLEEP = ("box", "/bin/busybox", "sleep", "100000")
ROOT = Path(__file__).resolve().parents[2]


def tls_flags(ca: Path, files: Files) -> list[str]:
    shown = ["--tlscert", str(files.cert), "--tlskey", str(files.key)]
    return ["--tlsverify", "--tlscacert", str(ca), *shown]


@dataclass
class Walk:
    """A master with the discovery service, and three nodes."""

    lan: Lan
    root: Path
    authority: Authority
    base: str = ""
    token: str = ""
    port: int = MANAGER_PORT
    engines: dict[str, Engine] = field(default_factory=dict)
    joins: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def master(self) -> Host:
        return self.lan.host("master")

    @property
    def url(self) -> str:
        return f"token://{self.base}/{self.token}"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SSL_CERT_FILE": str(self.authority.ca),
            "HOME": str(self.root),
            "DOCKER_BUILDKIT": "0",
        }

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "swarmd.faces.classic", *args]

    def swarm(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.master.run(self.command(*args), env=self.environment())

    def start(self, host: Host, *args: str, **variables: str) -> subprocess.Popen[bytes]:
        environment = {**self.environment(), **variables}
        with open(self.root / f"{host.name}-{args[0]}.log", "ab") as log:
            program: subprocess.Popen[bytes] = host.popen(
                self.command(*args), env=environment, stdout=log, stderr=log
            )
        return program

    def client(self, *args: str, cli: str = "docker") -> list[str]:
        files = Files(self.root / "ca/client.pem", self.root / "ca/client-key.pem")
        host = f"tcp://{self.master.ip}:{self.port}"
        return [cli, *tls_flags(self.authority.ca, files), "-H", host, *args]

    def docker(
        self, *args: str, check: bool = True, stdin: str | None = None, cli: str = "docker"
    ) -> subprocess.CompletedProcess[str]:
        return self.master.run(
            self.client(*args, cli=cli), env=self.environment(), check=check, stdin=stdin
        )

    def popen(self, *args: str, cli: str = "docker") -> subprocess.Popen[str]:
        """A client that goes on; its output is text."""
        program: subprocess.Popen[str] = self.master.popen(
            self.client(*args, cli=cli),
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return program

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def lines(self, *args: str) -> list[str]:
        return self.docker(*args).stdout.splitlines()


@contextlib.contextmanager
def node(walk: Walk, name: str, *labels: str) -> Iterator[Engine]:
    host = walk.lan.host(name)
    files = walk.authority.issue(name, host.ip)
    args = ["--iptables=false", "--bridge=none", "-H", f"tcp://{host.ip}:2376"]
    args += tls_flags(walk.authority.ca, files)
    for label in labels:
        args += ["--label", label]
    with Engine(name, host=host, args=args) as engine:
        walk.engines[name] = engine
        yield engine


@contextlib.contextmanager
def walking(tmp_path: Path) -> Iterator[Walk]:
    """Everything up: hub on the master, three engines, a manager."""
    require_engine()
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan())
        walk = Walk(lan, tmp_path, Authority(tmp_path / "ca"))
        ip = walk.master.ip
        walk.base = f"{ip}:{HUB_PORT}/v1"
        served = walk.authority.issue("master", ip)
        walk.authority.issue("client", ip)
        hub = ["--discovery-listen", f"{ip}:{HUB_PORT}"]
        hub += ["--discovery-tlscert", str(served.cert), "--discovery-tlskey", str(served.key)]
        stack.enter_context(Swarmd("master", lan=lan, args=("--engine", "none", *hub)))
        for name, label in (("n1", "storage=ssd"), ("n2", "storage=disk"), ("n3", "zone=far")):
            import_busybox(stack.enter_context(node(walk, name, label)))
        created = walk.swarm("create", f"-discovery=https://{walk.base}")
        walk.token = created.stdout.strip()
        assert len(walk.token) == 32
        assert "secret" in created.stderr
        tls = ["--tls", *tls_flags(walk.authority.ca, served)]
        listen = ["-H", f"0.0.0.0:{MANAGER_PORT}", "--heartbeat=1s"]
        walk.start(walk.master, "manage", *listen, *tls, walk.url)
        for name, engine in walk.engines.items():
            addr = f"{engine.ip}:2376"
            args = [f"-addr={addr}", "--heartbeat", "1s", "--ttl=6s", walk.url]
            walk.joins[name] = walk.start(engine.host, "join", *args)
        yield walk


def members(walk: Walk) -> list[str]:
    return sorted(walk.swarm("list", walk.url).stdout.split())


def info(walk: Walk) -> str:
    return walk.docker("info", check=False).stdout


def run(walk: Walk, *args: str) -> str:
    return walk.docker("run", "-d", "--net=none", *args).stdout.strip()


def node_of(walk: Walk, name: str) -> str:
    (line,) = walk.lines("ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.Names}}")
    return line.split("/")[0]


def stock_clis() -> list[str]:
    """The first docker on the path and, where it is another, Debian's."""
    return ["docker"] + ([OLD_CLI] if shutil.which("docker") != OLD_CLI else [])
