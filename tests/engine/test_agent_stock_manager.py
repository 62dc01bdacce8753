"""The swarmd worker in a swarm led by a stock engine."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

import pytest

from swarmd import api
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.cluster import ca
from swarmd.node.identity import Granted, IdentityClient, Request
from swarmd.node.remotes import Remote, Remotes
from swarmd.rpc.client import dial
from swarmd.rpc.tls import Credentials
from swarmd.worker.agent import Agent, describe
from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.lan import Host

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

CLOCK, ENTROPY = SystemClock(), SystemEntropy()


class Worker:
    """Identity and agent of one worker, in a thread of their own on a host of the LAN."""

    def __init__(self, host: Host, manager: str, token: str) -> None:
        self.hostname = "ours"
        self.told: dict[str, Any] = {}
        self.sessions: list[str] = []
        self.error: BaseException | None = None
        self.node_id = ""
        self._host = host
        self._token = token
        self._remotes = Remotes([Remote("", manager)], lambda _: None)
        self._granted: Granted | None = None
        self._agent: Agent | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name="worker")

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Fall silent: the reference knows no sign-off."""
        if self._thread.is_alive() and self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(30)
        if self.error is not None:
            raise self.error

    def rename(self, hostname: str) -> None:
        """Change the description; the agent looks soon."""
        assert self._loop is not None
        assert self._agent is not None
        self.hostname = hostname
        self._loop.call_soon_threadsafe(self._agent.tls_changed, self._root())

    def _main(self) -> None:
        try:
            with self._host.inside():
                asyncio.run(self._work())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self._started.set()

    async def _work(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        client = IdentityClient(dial, self._remotes, CLOCK, ENTROPY)
        root = await client.download_root(self._token)
        self._granted = await client.obtain(root, Request(token=self._token))
        self.node_id = self._granted.identity.node_id
        self._agent = Agent(self._connect, self._describe, self, CLOCK, ENTROPY, root)
        self._started.set()
        await self._agent.run(asyncio.Event())

    def _root(self) -> bytes:
        assert self._granted is not None
        return self._granted.root_pem

    async def _connect(self) -> Any:
        assert self._granted is not None
        pair = self._granted.identity.pair
        remote = self._remotes.select(ENTROPY)
        return await dial(remote.addr, Credentials(self._root(), pair.cert_pem, pair.key_pem))

    async def _describe(self) -> api.NodeDescription:
        assert self._granted is not None
        info = ca.tls_info(self._root(), self._granted.issuer)
        return await describe(info, None, self.hostname)

    def on_managers(self, managers) -> None:
        self.told["managers"] = [(m.peer.node_id, m.peer.addr) for m in managers]
        self._remotes.replace((Remote(m.peer.node_id, m.peer.addr), m.weight) for m in managers)

    def on_node(self, node) -> None:
        self.told["node"] = node

    def on_network_keys(self, keys) -> None:
        self.told["keys"] = [(key.subsystem, len(key.key)) for key in keys]

    def on_root_ca(self, pem) -> None:
        self.told["root"] = pem

    def on_session(self, error) -> None:
        self.sessions.append("" if error is None else error.message)


def state_of(boss: Engine, worker: Worker) -> str:
    """Hostname and status as `docker node ls` shows them."""
    line = "{{.ID}} {{.Hostname}} {{.Status}}"
    rows = boss.docker("node", "ls", "--format", line).stdout.splitlines()
    return next((row.split(" ", 1)[1] for row in rows if row.startswith(worker.node_id)), "")


def tasks_of(boss: Engine, service: str) -> list[str]:
    line = "{{.CurrentState}}|{{.Error}}"
    return boss.docker("service", "ps", service, "--no-trunc", "--format", line).stdout.splitlines()


def refused(rows: list[str]) -> bool:
    return any(
        row.startswith("Rejected") and "no container executor on this node" in row for row in rows
    )


def test_our_worker_lives_in_a_stock_swarm() -> None:
    require_engine()
    with Lan() as lan, Engine("boss", lan=lan) as boss:
        boss.docker("swarm", "init", "--advertise-addr", boss.ip)
        token = boss.docker("swarm", "join-token", "-q", "worker").stdout.strip()
        with Worker(lan.host("ours"), f"{boss.ip}:2377", token) as worker:
            wait_until("our node is ready", lambda: state_of(boss, worker) == "ours Ready", 60)
            wait_until("it was told all", lambda: {"managers", "node", "keys"} <= set(worker.told))
            node = boss.json("node", "inspect", worker.node_id)[0]
            assert node["Description"]["Platform"] == {"Architecture": "x86_64", "OS": "linux"}
            assert node["Description"]["Resources"]["NanoCPUs"] >= 1_000_000_000
            assert node["Description"]["Resources"]["MemoryBytes"] > 1 << 20
            assert node["Status"] == {"State": "ready", "Addr": lan.host("ours").ip}
            assert [addr for _, addr in worker.told["managers"]] == [f"{boss.ip}:2377"]
            assert worker.told["node"].id == worker.node_id
            assert (
                sorted(worker.told["keys"])
                == [("networking:gossip", 16)] * 3 + [("networking:ipsec", 16)] * 3
            )
            assert "root" not in worker.told  # the one it trusts already

            boss.docker("secret", "create", "key", "-", stdin="hidden")
            create = "service create --detach --no-resolve-image --name web --secret key"
            constraint = f"node.id=={worker.node_id}"
            boss.docker(*create.split(), "--constraint", constraint, "nothing:latest", "true")
            wait_until("the task is refused", lambda: refused(tasks_of(boss, "web")), 60)

            # Without an answer this would wait until the node is gone.
            logs = boss.docker("service", "logs", "web", check=False, timeout=20)
            assert logs.stdout == ""
            assert "incomplete log stream" not in logs.stderr

            boss.docker("service", "rm", "web")
            boss.docker("node", "update", "--label-add", "rack=1", worker.node_id)
            wait_until(
                "the session brings the label",
                lambda: worker.told["node"].spec.annotations.labels.get("rack") == "1",
            )
            worker.rename("renamed")
            wait_until("the name is new", lambda: state_of(boss, worker) == "renamed Ready", 60)
            wait_until("in a second session", lambda: worker.sessions == ["", ""])

            boss.restart()
            wait_until("back again", lambda: state_of_after(boss, worker) == "renamed Ready", 60)
            assert any(worker.sessions)  # it noticed, and came back by itself

            worker.stop()
            wait_until("it is down", lambda: state_of(boss, worker) == "renamed Down", 60)
            boss.docker("node", "rm", worker.node_id)


def state_of_after(boss: Engine, worker: Worker) -> str:
    """The same while the manager may not lead yet."""
    if boss.docker("node", "ls", check=False).returncode != 0:
        return ""
    status = boss.json("node", "inspect", worker.node_id)[0]["Status"]
    if status.get("Message"):  # "Node moved to "unknown" state due to leadership change ..."
        return ""
    return state_of(boss, worker)
