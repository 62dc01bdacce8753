"""Build the rooms, plug them together, run one task tree until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import uvloop

from swarmd import VERSION
from swarmd.base.aio import Tasks, first_of
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy, new_id
from swarmd.base.errors import SwarmError
from swarmd.daemon.backend import NodeBackend, at_start
from swarmd.daemon.config import Config, Discovery
from swarmd.daemon.engine import LocalEngine, find_engine
from swarmd.daemon.metrics import serve_metrics
from swarmd.daemon.notify import notify
from swarmd.faces.engineapi.app import EngineAPI
from swarmd.faces.engineapi.host import read_host_facts
from swarmd.faces.engineapi.interfaces import system_interfaces
from swarmd.faces.engineapi.server import APIServer, TcpListen
from swarmd.node.membership import Outfit
from swarmd.node.statedir import StateDir
from swarmd.node.swarm import SwarmNode
from swarmd.rpc.address import split
from swarmd.rpc.client import dial

log = logging.getLogger("swarmd")

# An orderly end takes well under this; a process that hangs is ended by its second signal.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(config: Config) -> None:
    """Run the daemon; returns after a clean stop. Raises `SwarmError` or `OSError`."""
    raise_file_limit()
    with contextlib.ExitStack() as stack:
        prepare_directories(config)
        stack.enter_context(locked(config.state_dir / "swarmd.lock"))
        if config.pidfile is not None:
            stack.enter_context(pidfile(config.pidfile))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(serve(config))
            except BaseExceptionGroup as group:
                raise first_of(group) from group


async def serve(config: Config) -> None:
    """The task tree: node, REST face, metrics; ends at a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, _on_signal, stop)
    node, face = build(config)
    calm_collector()
    node_ready, face_ready, metrics_ready, hub_ready = (asyncio.Event() for _ in range(4))
    # Nested, so that requests in progress are answered before the node below them ends.
    async with Tasks() as below, Tasks() as above:
        below.spawn(node.run(node_ready), "node")
        await node_ready.wait()
        if config.metrics_addr:
            above.spawn(serve_metrics(config.metrics_addr, metrics_ready), "metrics")
            await metrics_ready.wait()
        if config.discovery is not None:
            above.spawn(serve_discovery(config, config.discovery, hub_ready), "discovery")
            await hub_ready.wait()
        # The last to listen: scripts take its answer for a daemon that is ready as a whole.
        above.spawn(face.run(face_ready), "rest-api")
        await face_ready.wait()
        log.info("swarmd %s is ready on %s", VERSION, ", ".join(config.hosts))
        notify("READY=1")
        await stop.wait()
        log.info("stopping")
        notify("STOPPING=1")
        await node.hand_over()


def calm_collector() -> None:
    """Have the garbage collector look at young objects mostly.

    Modules and stored objects live as long as the process; looking through them again and again
    costs a tenth of the time of a busy manager, and makes pauses that peers could notice.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def build(config: Config) -> tuple[SwarmNode, APIServer]:
    """Make the rooms and plug them together."""
    clock, entropy = SystemClock(), SystemEntropy()
    engine_path = find_engine(config.engine)
    hostname = config.hostname or os.uname().nodename
    outfit = Outfit(
        clock,
        entropy,
        dial,
        hostname,
        LocalEngine(engine_path) if engine_path else None,
    )
    readdress = partial(at_start, config.advertise_addr, system_interfaces)
    node = SwarmNode(StateDir(config.state_dir / "swarm"), outfit, readdress)
    facts = read_host_facts(
        VERSION,
        id=daemon_id(config.state_dir),
        hostname=hostname,
        root_dir=str(config.state_dir),
        debug=config.log_level == "debug",
    )
    app = EngineAPI(
        NodeBackend(node),
        facts,
        clock,
        engine=engine_path,
        default_advertise=config.advertise_addr,
    )
    paths = [host.removeprefix("unix://") for host in config.hosts if host.startswith("unix://")]
    return node, APIServer(app, unix_paths=paths, tcp=tcp_listeners(config))


async def serve_discovery(config: Config, wish: Discovery, ready: asyncio.Event) -> None:
    """Swarm v1's discovery service, with its file in the state directory."""
    # Not loaded by the daemons that do not use it.
    from swarmd.faces.classic.discovery.server import DiscoveryServer, parse_listen

    listen = parse_listen(
        wish.listen, str(wish.cert or ""), str(wish.key or ""), insecure=wish.insecure
    )
    path = config.state_dir / "discovery.db"
    await DiscoveryServer(listen, path, SystemClock(), SystemEntropy()).run(ready)


def tcp_listeners(config: Config) -> list[TcpListen]:
    """The TCP addresses of the REST API, with the files of mutual TLS."""
    listeners = []
    for host in config.hosts:
        if host.startswith("tcp://") and config.tls is not None:
            name, port = split(host.removeprefix("tcp://"))
            files = (str(config.tls.ca_cert), str(config.tls.cert), str(config.tls.key))
            listeners.append(TcpListen(name, port, *files))
    return listeners


def prepare_directories(config: Config) -> None:
    """Make the state directory (0700) and the run directory."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)


def raise_file_limit() -> None:
    """Use every open file the system grants: each node of the swarm is a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # some systems grant less than they announce
        log.warning("open files stay limited to %d: %s", soft, error)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the state directory for this process. Raises `SwarmError` when another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SwarmError(f"another swarmd uses {path.parent}") from None
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def pidfile(path: Path) -> Iterator[None]:
    """Keep the process id in `path` while running."""
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def daemon_id(state_dir: Path) -> str:
    """An id of this installation, made once; shown by /info."""
    path = state_dir / "daemon-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        made = new_id(SystemEntropy())
        path.write_text(made + "\n")
        return made


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        log.warning("second signal: ending without ceremony")
        sys.stderr.flush()
        os._exit(1)
    stop.set()
