"""The daemon as a process: where it puts things, how it starts, how it ends."""

from __future__ import annotations

import json
import resource
import signal
import socket
import stat
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemons import (
    Daemon,
    Refused,
    as_ordinary_user,
    daemon_place,
    free_port,
    own_loopback_ip,
)
from tests.harness.lan import wait_until

STOP_SECONDS = 3.0


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the daemons of a test live."""
    with daemon_place() as made:
        yield made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Directories, options


def test_an_ordinary_user_gets_xdg_directories(place: Path) -> None:
    home = place / "u"
    env = {"XDG_STATE_HOME": f"{home}/state", "XDG_RUNTIME_DIR": f"{home}/runtime"}
    daemon = Daemon(home, env=env, user=as_ordinary_user(), own_dirs=False)
    daemon.state_dir = home / "state" / "swarmd"
    daemon.socket = home / "runtime" / "swarmd" / "swarmd.sock"
    with daemon:
        assert mode(daemon.socket) == 0o660
        assert mode(daemon.state_dir) == 0o700
        assert daemon.init()
        assert daemon.get("/info")["DockerRootDir"] == str(daemon.state_dir)
        assert mode(daemon.swarm_dir) == 0o700
        assert mode(daemon.swarm_dir / "certificates" / "swarm-node.key") == 0o600
        process = Path(f"/proc/{daemon.process.pid}")
        assert process.stat().st_uid == daemon.socket.stat().st_uid != 0
        status, _ = daemon.signal(signal.SIGTERM)
    assert status == 0
    assert not daemon.socket.exists()


def test_without_xdg_everything_lies_below_home(place: Path) -> None:
    home = place / "u"
    daemon = Daemon(home, user=as_ordinary_user(), own_dirs=False)
    daemon.state_dir = home / ".local" / "state" / "swarmd"
    daemon.socket = daemon.state_dir / "run" / "swarmd.sock"
    with daemon:
        assert daemon.state() == "inactive"


def test_command_line_beats_environment_beats_file(place: Path) -> None:
    file = place / "swarmd.toml"
    file.write_text(
        f'hostname = "from-file"\nlog-format = "json"\nhost = "unix://{place}/other.sock"\n'
    )
    daemon = Daemon(place / "m", args=["--config", str(file)], own_dirs=False)
    daemon.args += ["--state-dir", str(daemon.state_dir)]
    daemon.socket = place / "other.sock"
    with daemon:
        assert daemon.get("/info")["Name"] == "from-file"
        assert mode(daemon.socket) == 0o660
    daemon._env["SWARMD_HOSTNAME"] = "from-environment"
    with daemon:
        assert daemon.get("/info")["Name"] == "from-environment"
    daemon.args += ["--hostname", "from-line"]
    with daemon:
        assert daemon.get("/info")["Name"] == "from-line"
    for line in daemon.log.splitlines():
        assert json.loads(line)["level"] in ("info", "debug")


def test_text_log_lines_carry_time_level_and_room(place: Path) -> None:
    with Daemon(place / "m") as daemon:
        wait_until("it says that it is ready", lambda: "is ready on unix://" in daemon.log)
    stamp, level, room, *_ = daemon.log.splitlines()[-1].split()
    assert stamp.startswith("20") and "T" in stamp
    assert (level, room) == ("info", "swarmd:")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--config", "/nonexistent/swarmd.toml"], "No such file or directory"),
        (["-H", "tcp://127.0.0.1:2375"], "needs --tlscacert, --tlscert and --tlskey"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_usage_errors_exit_with_2(place: Path, args: list[str], text: str) -> None:
    daemon = Daemon(place / "m", args=args)
    daemon.launch()
    assert daemon.ends() == 2
    assert text in daemon.log
    assert "Traceback" not in daemon.log


def test_pidfile_is_there_while_it_runs(place: Path) -> None:
    file = place / "swarmd.pid"
    with Daemon(place / "m", args=["--pidfile", str(file)]) as daemon:
        assert file.read_text() == f"{daemon.process.pid}\n"
        daemon.signal(signal.SIGTERM)
        assert not file.exists()


def test_a_second_daemon_on_the_same_state_is_refused(place: Path) -> None:
    with Daemon(place / "m", args=["--pidfile", str(place / "pid")]) as first:
        first.init()
        before = first.shape()
        second = Daemon(place / "n", args=["--pidfile", str(place / "pid")], own_dirs=False)
        second.args += ["--state-dir", str(first.state_dir), "--run-dir", str(place / "n")]
        second.launch()
        assert second.ends() == 1
        assert f"another swarmd uses {first.state_dir}" in second.log
        assert "Traceback" not in second.log
        assert first.shape() == before
        assert (place / "pid").read_text() == f"{first.process.pid}\n"


def test_a_second_daemon_does_not_take_the_socket_away(place: Path) -> None:
    with Daemon(place / "m") as first:
        second = Daemon(place / "n", own_dirs=False)
        second.args += ["--state-dir", f"{place}/n/state", "-H", f"unix://{first.socket}"]
        second.launch()
        assert second.ends() == 1
        assert f"{first.socket} is in use" in second.log
        assert first.state() == "inactive"


def test_a_socket_left_behind_is_replaced(place: Path) -> None:
    with Daemon(place / "m") as daemon:
        daemon.kill()
        assert daemon.socket.exists()
        daemon.start()
        assert daemon.state() == "inactive"


def test_a_file_in_the_place_of_the_socket_is_kept(place: Path) -> None:
    daemon = Daemon(place / "m")
    daemon.socket.parent.mkdir()
    daemon.socket.write_text("precious")
    daemon.launch()
    assert daemon.ends() == 1
    assert daemon.socket.read_text() == "precious"
    assert str(daemon.socket) in daemon.log
    assert "Traceback" not in daemon.log


def test_open_files_are_raised_to_the_hard_limit(place: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    prefix = [sys.executable, "-c", _LOWER, str(min(hard, 300)), str(min(hard, 2000))]
    with Daemon(place / "m", user=prefix) as daemon:
        soft, _ = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 2000)


_LOWER = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
os.execvp(sys.argv[3], sys.argv[3:])
"""


# Beginning and end


class Notifications:
    """What a service manager would hear."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.settimeout(30)

    def next(self) -> str:
        """The next state sent."""
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def test_systemd_hears_ready_and_stopping(place: Path) -> None:
    heard = Notifications(place / "notify")
    daemon = Daemon(place / "m", env={"NOTIFY_SOCKET": str(heard.path)})
    try:
        daemon.launch()
        assert heard.next() == "READY=1"
        assert daemon.state() == "inactive"  # ready means: it answers
        daemon.process.terminate()
        assert heard.next() == "STOPPING=1"
        assert daemon.ends() == 0
    finally:
        daemon.kill()
        heard.close()


@pytest.mark.parametrize("user", ["present", "ordinary"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_soon_and_the_state_is_kept(place: Path, number: int, user: str) -> None:
    prefix = as_ordinary_user() if user == "ordinary" else []
    with Daemon(place / "m", user=prefix) as manager, Daemon(place / "w") as worker:
        manager.init()
        worker.join(manager.token(), manager)
        manager.wait_ready("m", "w")
        before = manager.shape()
        with manager.events() as events:
            manager.label_self("stream", "open")
            assert next(events)["Type"] == "node"
            status, seconds = manager.signal(number)
        assert (status, seconds < STOP_SECONDS) == (0, True), (status, seconds)
        assert "Traceback" not in manager.log
        manager.start()
        manager.wait_ready("m", "w")
        assert manager.shape() == before
        status, seconds = worker.signal(number)
        assert (status, seconds < STOP_SECONDS) == (0, True), (status, seconds)
        worker.start()
        manager.wait_ready("m", "w")
        assert manager.shape() == before


def test_events_of_the_next_swarm_are_told_as_well(place: Path) -> None:
    with Daemon(place / "m") as manager:
        for swarm in ("first", "second", "third"):
            manager.init()
            with manager.events() as events:
                manager.label_self("swarm", swarm)
                event = next(event for event in events if event["Type"] == "node")
            assert event["Action"] == "update"
            manager.post("/swarm/leave?force=true")


def test_it_ends_while_a_worker_looks_for_its_managers(place: Path) -> None:
    with Daemon(place / "m") as manager, Daemon(place / "w") as worker:
        manager.init()
        worker.join(manager.token(), manager)
        manager.kill()
        worker.restart()
        assert worker.state() in ("pending", "error")
        status, seconds = worker.signal(signal.SIGTERM)
        assert (status, seconds < STOP_SECONDS) == (0, True), (status, seconds)


def test_a_second_signal_ends_it_at_once(place: Path) -> None:
    with Daemon(place / "m") as daemon:
        daemon.init()
        before = daemon.shape()
        # Both are waiting when it wakes up, so it handles the second before it has ended.
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            daemon.process.send_signal(number)
        assert daemon.ends(5) == 1
        assert "second signal" in daemon.log
        daemon.start()
        daemon.wait_ready("m")
        assert daemon.shape() == before


# Listening


def test_init_on_a_taken_port_leaves_nothing_behind(place: Path) -> None:
    with Daemon(place / "m") as daemon:
        with socket.create_server((daemon.ip, daemon.port)), pytest.raises(Refused) as refused:
            daemon.init()
        assert refused.value.status == 500
        assert refused.value.message == (
            "manager stopped: failed to listen on remote API address: "
            f"listen tcp {daemon.addr}: bind: address already in use"
        )
        assert daemon.state() == "inactive"
        assert list(daemon.swarm_dir.iterdir()) == []
        assert daemon.init()
        daemon.wait_ready("m")


def test_a_port_taken_at_a_restart_is_an_error_that_passes(place: Path) -> None:
    with Daemon(place / "m") as daemon:
        daemon.init()
        before = daemon.shape()
        daemon.signal(signal.SIGTERM)
        with socket.create_server((daemon.ip, daemon.port)):
            daemon.start()
            wait_until("the error shows", lambda: daemon.state() == "error")
            assert (
                f"listen tcp {daemon.addr}: bind: address already in use"
                in (daemon.swarm()["Error"])
            )
        daemon.wait_ready("m")  # it tries again by itself
        assert daemon.shape() == before


def test_metrics_are_served(place: Path) -> None:
    ip = own_loopback_ip()
    addr = f"{ip}:{free_port(ip)}"
    with Daemon(place / "m", args=["--metrics-addr", addr]) as daemon:
        daemon.init()
        with urllib.request.urlopen(f"http://{addr}/metrics", timeout=10) as page:
            text = page.read().decode()
        assert "# TYPE" in text
        assert "swarm" in text
        status, seconds = daemon.signal(signal.SIGTERM)
        assert (status, seconds < STOP_SECONDS) == (0, True), (status, seconds)


def test_a_metrics_address_in_use_is_said_plainly(place: Path) -> None:
    ip = own_loopback_ip()
    with socket.create_server((ip, 0)) as taken:
        addr = f"{ip}:{taken.getsockname()[1]}"
        daemon = Daemon(place / "m", args=["--metrics-addr", addr])
        daemon.launch()
        assert daemon.ends() == 1
    assert "address already in use" in daemon.log
    assert "Traceback" not in daemon.log
