"""A stock engine as the worker of our manager: it runs what our dispatcher assigns.

The release has no scheduler, so the test writes the tasks as one would have left them:
a store taken over from a stock cluster is full of these.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy, new_id
from swarmd.cluster.ca import envelope
from swarmd.cluster.store import edit
from swarmd.manager.manager import Manager, ManagerConfig
from swarmd.manager.raftnode import Place
from swarmd.node.founding import Wishes, found
from swarmd.node.statedir import KeyStore, StateDir
from tests.harness.engines import Engine, Lan, require_engine, wait_until
from tests.harness.lan import Host

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
S = api.TaskState
BUSYBOX = Path("/usr/bin/busybox")


class Boss:
    """Our manager in a thread of its own, on a host of the LAN."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.addr = f"{host.ip}:2377"
        self._host = host
        self._directory = directory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="boss")
        self.token = ""
        self.node_id = ""
        self.manager: Manager | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive() and self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(30)
        if self._error is not None:
            raise self._error

    def _main(self) -> None:
        try:
            with self._host.inside():
                asyncio.run(self._work())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _work(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        state = StateDir(self._directory)
        keys = KeyStore(state, ENTROPY)
        start = found(state, keys, Wishes(), CLOCK, ENTROPY)
        self.token, self.node_id = start.worker_token, start.node_id
        place = Place(
            directory=state.raft,
            node_id=start.node_id,
            addr=self.addr,
            encryptor=envelope.secretbox(keys.file().dek, ENTROPY),
            decryptor=envelope.decryptor(keys.file().dek),
        )
        config = ManagerConfig(place, start.cluster_id, (self.addr,), start)
        pair = keys.identity().pair
        self.manager = Manager(config, lambda: pair, lambda: start.ca_cert, CLOCK, ENTROPY)
        async with Tasks() as tasks:
            run = tasks.spawn(self.manager.run(asyncio.Event()), "manager")
            await self.manager.leading.wait()
            self._ready.set()
            await run

    def ask(self, question: Callable[[Manager], Any]) -> Any:
        """Run `question` in the manager's loop; an awaitable answer is awaited there."""

        async def work() -> Any:
            assert self.manager is not None
            answer = question(self.manager)
            return await answer if asyncio.iscoroutine(answer) else answer

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(30)

    def write(self, change: Callable[[Any], Any]) -> None:
        """Commit a change."""
        self.ask(lambda manager: manager.committer.update(change))

    def get(self, kind: Any, id: str) -> Any:
        """An object of the store, or None."""
        return self.ask(lambda manager: manager.store.view().get(kind, id))

    def worker(self) -> api.Node | None:
        """The one node that is not this manager."""
        nodes = self.ask(lambda manager: manager.store.view().all(api.Node))
        return next((n for n in nodes if n.role == api.NodeRole.WORKER), None)


def import_busybox(engine: Engine, directory: Path) -> None:
    """Give the engine an image `box` without any network."""
    image = directory / "box.tar"
    with tarfile.open(image, "w") as tar:
        for name in ("bin", "tmp", "etc", "run"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = BUSYBOX.stat().st_size, 0o755
        tar.addfile(program, io.BytesIO(BUSYBOX.read_bytes()))
    engine.docker("import", str(image), "box:latest")


def a_task(node_id: str, secret: api.Secret, config: api.Config, command: str) -> api.Task:
    task = api.Task(id=new_id(ENTROPY), desired_state=S.RUNNING, slot=1)
    task.service_annotations.name = "web"
    task.service_id = "webservice"
    task.status.state = S.PENDING
    container = task.spec.container
    container.image = "box:latest"
    container.command.extend(["/bin/busybox", "sh", "-c", command])
    shown = api.FileTarget(name="key", uid="0", gid="0", mode=0o444)
    container.secrets.add(secret_id=secret.id, secret_name="key", file=shown)
    shown = api.FileTarget(name="/tmp/conf", uid="0", gid="0", mode=0o444)
    container.configs.add(config_id=config.id, config_name="conf", file=shown)
    host = api.Network(id="hostnetwork")
    host.spec.annotations.name = "host"
    host.spec.driver_config.name = "host"
    host.driver_state.name = "host"
    task.networks.add(network=host)
    task.node_id = node_id
    return task


def assign(boss: Boss, task: api.Task) -> None:
    """Create a task and assign it, in two steps as schedulers do."""
    boss.write(lambda tx: tx.create(task))
    move(boss, task.id, lambda draft: setattr(draft.status, "state", S.ASSIGNED))


def move(boss: Boss, task_id: str, change: Callable[[api.Task], None]) -> None:
    def write(tx: Any) -> None:
        draft = edit(tx.get(api.Task, task_id))
        change(draft)
        tx.update(draft)

    boss.write(write)


def logs(boss: Boss, follow: bool = False) -> list[str]:
    """The lines of the service, as the nodes send them."""

    async def collect(manager: Manager) -> list[str]:
        request = api.SubscribeLogsRequest(selector=api.LogSelector(service_ids=["webservice"]))
        request.options.follow = follow
        stream = manager.caller.server_stream("Logs/SubscribeLogs", request)
        async with asyncio.timeout(20):
            return [m.data.decode() async for message in stream for m in message.messages]

    found: list[str] = boss.ask(collect)
    return found


def test_a_stock_worker_runs_what_we_assign(tmp_path: Path) -> None:
    require_engine()
    with (
        Lan() as lan,
        Engine("worker", lan=lan) as engine,
        Boss(lan.host("boss"), tmp_path / "state") as boss,
    ):
        import_busybox(engine, tmp_path)
        engine.docker("swarm", "join", "--token", boss.token, boss.addr)
        node = wait_until("it has joined", boss.worker)
        wait_until("ready", lambda: boss.worker().status.state == api.NodeStatus.READY)
        assert boss.worker().status.addr == lan.host("worker").ip
        assert boss.worker().description.engine.engine_version

        secret = api.Secret(id=new_id(ENTROPY), spec=api.SecretSpec(data=b"hidden"))
        secret.spec.annotations.name = "key"
        config = api.Config(id=new_id(ENTROPY), spec=api.ConfigSpec(data=b"shown"))
        config.spec.annotations.name = "conf"
        boss.write(lambda tx: (tx.create(secret), tx.create(config)))
        read = "busybox cat /run/secrets/key /tmp/conf; echo; exec busybox sleep 600"
        task = a_task(node.id, secret, config, read.replace("busybox", "/bin/busybox"))
        assign(boss, task)

        def running() -> bool:
            status = boss.get(api.Task, task.id).status
            assert status.state <= S.RUNNING, f"{status.message}: {status.err}"
            return status.state == S.RUNNING

        wait_until("the task runs", running, 60)
        status = boss.get(api.Task, task.id).status
        assert status.container.pid > 0
        assert status.applied_by == boss.node_id
        wait_until("its output is there", lambda: "".join(logs(boss)).strip() == "hiddenshown", 20)

        engine.restart()
        wait_until("ready again", lambda: ready_again(boss), 30)
        wait_until("the restart ended the container", lambda: ended(boss, task.id), 60)

        second = a_task(node.id, secret, config, "exec /bin/busybox sleep 600")
        assign(boss, second)
        task = second
        wait_until("a second task runs", running, 60)
        move(boss, second.id, lambda draft: setattr(draft, "desired_state", S.SHUTDOWN))
        wait_until("it is shut down", lambda: ended(boss, second.id), 60)
        boss.write(lambda tx: tx.delete(api.Task, second.id))

        engine.docker("swarm", "leave")
        down = api.NodeStatus.DOWN
        wait_until("down", lambda: boss.worker().status.state == down, 30)
        assert boss.worker().status.message == "heartbeat failure"


def ready_again(boss: Boss) -> bool:
    worker = boss.worker()
    return worker is not None and worker.status.state == api.NodeStatus.READY


def ended(boss: Boss, task_id: str) -> bool:
    return bool(boss.get(api.Task, task_id).status.state > S.RUNNING)
