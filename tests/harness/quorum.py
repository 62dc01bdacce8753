"""Questions about a swarm of several managers, asked through the stock CLI at any of them."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import tarfile
from pathlib import Path
from typing import Any, TypeAlias

from tests.harness.engines import Engine, wait_until
from tests.harness.swarmds import Swarmd

Node: TypeAlias = Engine | Swarmd

BUSYBOX = Path("/bin/busybox")


# Who dies is missed after six seconds instead of fifteen.
SOON_MISSED = ("--dispatcher-heartbeat", "2s")


def init(node: Node, *options: str) -> None:
    """Begin a swarm."""
    node.docker("swarm", "init", "--advertise-addr", node.ip, *options)


def join(node: Node, via: Node, role: str) -> None:
    """Join as "manager" or "worker"."""
    token = via.docker("swarm", "join-token", "-q", role).stdout.strip()
    done = node.docker("swarm", "join", "--token", token, f"{via.ip}:2377")
    assert done.stdout == f"This node joined a swarm as a {role}.\n"


def listed(at: Node) -> dict[str, tuple[str, str]]:
    """Host name -> (status, manager status) as one manager lists them; empty if it cannot."""
    wanted = "{{.Hostname}}|{{.Status}}|{{.ManagerStatus}}"
    done = at.docker("node", "ls", "--format", wanted, check=False)
    if done.returncode != 0:
        return {}
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def wait_listed(at: Node, timeout: float = 60, **wanted: str) -> None:
    """Wait until nodes are listed so: m1="Ready Leader", w1="Ready" (no manager)."""
    seen: dict[str, tuple[str, str]] = {}

    def there() -> bool:
        nonlocal seen
        seen = listed(at)
        return all(" ".join(seen.get(name, ())).strip() == row for name, row in wanted.items())

    try:
        wait_until("the nodes are listed so", there, timeout, pause=0.2)
    except TimeoutError:
        raise TimeoutError(f"{at.name}: wanted {wanted}, listed {seen}") from None


def leader(at: Node) -> str:
    """Host name of the leader, or ""."""
    return next((name for name, row in listed(at).items() if row[1] == "Leader"), "")


def wait_leader(at: Node, *among: str, timeout: float = 60) -> str:
    """Wait until one of these leads; which one."""
    found: str = wait_until(
        f"one of {among} leads",
        lambda: (name := leader(at)) in among and name,
        timeout,
        pause=0.2,
    )
    return found


def change(at: Node, *command: str) -> None:
    """Run `docker node ...`; again when the node was written between its read and its write."""

    def done() -> bool:
        ran = at.docker("node", *command, check=False)
        if "update out of sequence" in ran.stderr:
            return False
        if ran.returncode != 0:
            raise RuntimeError(f"{at.name}: node {' '.join(command)}: {ran.stdout}{ran.stderr}")
        return True

    wait_until(f"node {command} goes through", done, 20, pause=0.2)


def label(at: Node, node: str, text: str) -> None:
    """Write something: a label on a node, through this manager."""
    change(at, "update", "--label-add", f"mark={text}", node)


def label_of(at: Node, node: str) -> str:
    """The label `label` wrote."""
    wanted = "{{.Spec.Labels.mark}}"
    return at.docker("node", "inspect", "--format", wanted, node).stdout.strip()


def import_busybox(engine: Engine) -> None:
    """Give an engine the image `box` without any network."""
    image = engine.root / "box.tar"
    with tarfile.open(image, "w") as tar:
        for name in ("bin", "tmp", "etc", "run"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = BUSYBOX.stat().st_size, 0o755
        tar.addfile(program, io.BytesIO(BUSYBOX.read_bytes()))
    engine.docker("import", str(image), "box:latest")


def containers(engine: Engine) -> list[str]:
    """Running containers: id and start time, so that a restart shows."""
    ids = engine.docker("ps", "-q", "--no-trunc").stdout.split()
    shown = "{{.Id}} {{.State.StartedAt}}"
    return sorted(engine.docker("inspect", "--format", shown, id).stdout.strip() for id in ids)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to an API socket; a file, so it is reached from every namespace."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def rest(at: Node, method: str, path: str, body: Any = None) -> Any:
    """One call of the REST API; the decoded answer. Raises on an error status."""
    with contextlib.closing(_UnixConnection(at.socket)) as connection:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{at.name}: {method} {path}: {answer.status} {content!r}")
        return json.loads(content) if content.strip() else None


def keep_short_log(at: Node) -> None:
    """Snapshots every few entries and no log for slow followers: newcomers need a snapshot."""
    swarm = rest(at, "GET", "/swarm")
    spec = swarm["Spec"]
    spec["Raft"]["SnapshotInterval"] = 5
    spec["Raft"]["LogEntriesForSlowFollowers"] = 1
    rest(at, "POST", f"/swarm/update?version={swarm['Version']['Index']}", spec)
