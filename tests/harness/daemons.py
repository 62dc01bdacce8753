"""The daemon as a process, spoken to over plain HTTP: no engine, no docker command, no root.

    with daemon_place() as place, Daemon(place / "m") as manager:
        manager.init()

Each daemon has a loopback address of its own, so port numbers found free stay free.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.lan import wait_until

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def own_loopback_ip() -> str:
    """An address of this machine that nobody else is likely to listen on."""
    return f"127.{random.randint(2, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"


def free_port(ip: str) -> int:
    """A port nobody listens on at `ip` now."""
    with socket.socket() as probe:
        probe.bind((ip, 0))
        port: int = probe.getsockname()[1]
        return port


def as_ordinary_user() -> list[str]:
    """The command prefix that drops root; empty for who has none to drop.

    A checkout that others cannot read stays readable by one capability, nothing else is kept.
    """
    if os.geteuid() != 0:
        return []
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    probe = [*drop, sys.executable, "-c", "import swarmd.daemon.run"]
    readable = subprocess.run(probe, cwd="/", env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    if readable.returncode == 0:
        return drop
    return [*drop, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@contextlib.contextmanager
def daemon_place() -> Iterator[Path]:
    """A directory for daemons; its path is short enough for sockets and open to other users."""
    path = Path(tempfile.mkdtemp(prefix="swd-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("swarmd", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def answers(path: Path | str) -> bool:
    """Whether an API serves at this socket; a file, so it is reached from every namespace."""
    connection = _UnixConnection(Path(path), 40)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/_ping")
            return connection.getresponse().read() == b"OK"
        except (OSError, http.client.HTTPException):
            return False


class Refused(Exception):
    """The daemon answered with an error: its status and its text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Daemon:
    """One swarmd process. `root` is made for it; everything of it lies below."""

    def __init__(
        self,
        root: Path,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        user: Sequence[str] = (),
        own_dirs: bool = True,
    ) -> None:
        """`user`: prefix of the command (`as_ordinary_user`). Without `own_dirs` the daemon
        finds its directories by itself, below a HOME of its own."""
        self.root = root
        self.ip = own_loopback_ip()
        self.port = free_port(self.ip)
        self.args = list(args)
        """Further options, from the next start on."""
        self._env = dict(env or {})
        self._user = list(user)
        self._own_dirs = own_dirs
        self.state_dir = root / "state"
        self.socket = root / "run" / "swarmd.sock"
        self._process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)
        if self._user:
            os.chown(root, NOBODY, NOBODY)

    @property
    def addr(self) -> str:
        """The address of this daemon's manager, "ip:port"."""
        return f"{self.ip}:{self.port}"

    @property
    def swarm_dir(self) -> Path:
        """The swarm's own state, laid out as stock engines do."""
        return self.state_dir / "swarm"

    @property
    def log(self) -> str:
        """What all processes of this daemon wrote so far."""
        path = self.root / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process; raises when there is none."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()  # nobody calls __exit__ now
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        if error is not None:
            print(f"--- log of {self.root.name}\n{self.log[-6000:]}\n---")

    def launch(self) -> None:
        """Start the process; wait for nothing."""
        command = [*self._user, sys.executable, "-m", "swarmd"]
        if self._own_dirs:
            command += ["--state-dir", str(self.state_dir), "--run-dir", str(self.socket.parent)]
            command += ["--hostname", self.root.name]
        env = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": str(self.root),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SWARMD_ENGINE": "none",
        }
        with open(self.root / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, *self.args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=env | self._env,
            )

    def start(self, timeout: float = 60) -> None:
        """Start the process and wait until its API answers."""
        self.launch()
        wait_until("swarmd answers", self._answers, timeout, pause=0.02)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"swarmd ended with {self.process.returncode}:\n{self.log[-4000:]}")
        return answers(self.socket)

    def ends(self, timeout: float = 30) -> int:
        """Wait for the process to end by itself; its exit status."""
        return self.process.wait(timeout)

    def signal(self, number: int, timeout: float = 30) -> tuple[int, float]:
        """Send a signal and wait for the end: exit status, and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(timeout)
        return status, time.monotonic() - began

    def kill(self) -> None:
        """End the process at once, if there is one."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)

    def restart(self) -> None:
        """An orderly stop, and a start on the same state."""
        status, _ = self.signal(signal.SIGTERM)
        assert status == 0, self.log[-4000:]
        self.start()

    # REST

    def open(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        """Make a request; the answer's body is not read yet."""
        connection = _UnixConnection(self.socket, 40)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        text = json.dumps(body) if body is not None else None
        connection.request(method, path, text, headers)
        return connection.getresponse()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make a request: decoded JSON, or bytes where it is none. Raises `Refused`."""
        response = self.open(method, path, body)
        with contextlib.closing(response):
            data = response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            found: Any = json.loads(data) if is_json and data.strip() else data
            if response.status >= 400:
                raise Refused(response.status, str(found["message"] if is_json else found))
            return found

    def get(self, path: str) -> Any:
        """GET `path`."""
        return self.call("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """POST `body` to `path`."""
        return self.call("POST", path, body)

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[dict[str, Any]]]:
        """The event stream, from now on."""
        with contextlib.closing(self.open("GET", "/events")) as response:
            yield (json.loads(line) for line in response)

    # A swarm

    def init(self, **spec: Any) -> str:
        """Begin a swarm on this daemon's own address; the node's id. `spec` is the cluster's."""
        request = {"ListenAddr": self.addr, "AdvertiseAddr": self.addr, "Spec": spec}
        return str(self.post("/swarm/init", request))

    def join(self, token: str, manager: Daemon) -> None:
        """Join the swarm of `manager`."""
        request = {
            "ListenAddr": self.addr,
            "AdvertiseAddr": self.ip,
            "RemoteAddrs": [manager.addr],
            "JoinToken": token,
        }
        self.post("/swarm/join", request)

    def swarm(self) -> dict[str, Any]:
        """The part of /info about the swarm."""
        found: dict[str, Any] = self.get("/info")["Swarm"]
        return found

    def state(self) -> str:
        """The node's state by /info: inactive, pending, active, locked, error."""
        return str(self.swarm()["LocalNodeState"])

    def token(self, role: str = "Worker") -> str:
        """The present join token of `role` ("Worker" or "Manager")."""
        return str(self.get("/swarm")["JoinTokens"][role])

    def change_swarm(self, query: str = "", **spec: Any) -> None:
        """Update the cluster's spec with `spec` on top; `query` are the rotate flags."""
        now = self.get("/swarm")
        wanted = now["Spec"] | spec
        self.post(f"/swarm/update?version={now['Version']['Index']}&{query}", wanted)

    def label_self(self, name: str, value: str) -> None:
        """Set a label on this daemon's own node; again when the node was written in between.

        The manager writes nodes, too: what they say of themselves, their state.
        """

        def done() -> bool:
            node = self.get(f"/nodes/{self.swarm()['NodeID']}")
            wanted = node["Spec"] | {"Labels": (node["Spec"].get("Labels") or {}) | {name: value}}
            try:
                self.post(f"/nodes/{node['ID']}/update?version={node['Version']['Index']}", wanted)
            except Refused as error:
                if "update out of sequence" in str(error):
                    return False
                raise
            return True

        wait_until(f"{name} is labelled", done, 20)

    def nodes(self) -> dict[str, str]:
        """Host name -> state of every node that described itself."""
        return {
            node["Description"]["Hostname"]: node["Status"]["State"]
            for node in self.get("/nodes")
            if node["Description"].get("Hostname")
        }

    def wait_ready(self, *names: str, timeout: float = 30) -> None:
        """Wait until the nodes called `names` are ready."""

        def ready() -> bool:
            try:
                states = self.nodes()
            except Refused:  # no leader yet
                return False
            return all(states.get(name) == "ready" for name in names)

        wait_until(f"{names} are ready", ready, timeout)

    def shape(self) -> dict[str, Any]:
        """What must survive a restart: ids, tokens, certificate authority, nodes."""
        swarm = self.get("/swarm")
        return {
            "cluster": swarm["ID"],
            "root": swarm["TLSInfo"]["TrustRoot"],
            "tokens": swarm["JoinTokens"],
            "self": self.swarm()["NodeID"],
            "nodes": sorted(node["ID"] for node in self.get("/nodes")),
        }
